// The words that CUDA adds to C++.
#pragma once

#define __CUDACC__ 1
// No inline PTX here: kernels/ptx.cuh asks for it.
#define SIMULATED_CUDA 1
#define __CUDA_ARCH__ 800
#define __host__
#define __device__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __inline_hint__
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

// A variable of the block. Thread-local storage is the one storage class of C++ that may be declared `extern`, inside
// a function without `static`, and in a template. Blocks run one after the other on one host thread, so one copy per
// kernel file is one copy per block; its extent is known to the loader, which is how the emulator finds and poisons it.
#define __shared__ thread_local

// With SIMULATED_LIST defined the file is only preprocessed: the build reads the names of the kernels from the markers.
#ifdef SIMULATED_LIST
#define __global__ SIMULATED_GLOBAL
#define __launch_bounds__(...) SIMULATED_BOUNDS(__VA_ARGS__)
#else
#define __global__ __attribute__((visibility("default")))
#define __launch_bounds__(...)
#endif
#define __cluster_dims__(...)
#define __maxnreg__(...)
