// gather: out[i][t] = codewords[codes[i]][t]
//
// codes      u32 [n]                  in   a code below k, or the sentinel 0xffffffff
// codewords  f32 [k, d] row-major     in
// out        f32 [n, d] row-major     out  overlaps nothing else
// n, k, d    sizes; n below 2^32, k any, d >= 1; n*d and k*d are formed in 64 bits
// bad        u64 [1]                  in/out  least position of a code that names no codeword times 2^32, plus the
//                                     code; the caller sets it to 2^64 - 1 once, and several launches may lower it
// The caller allocates everything.
//
// Numeric contract: values are copied, NaN payloads included; no arithmetic. The sentinel gives a row of the NaN
// 0x7fc00000, and so does a code out of range, so that every element of out is written whatever codes holds.
// `bad` is a minimum of integers: the same whatever the order of the threads.
//
// Launch: blocks of GATHER_THREADS threads, any grid >= 1 (rows are taken in grid strides), no shared memory.
// Alignment: 4 bytes; where d is a multiple of 4 and both matrices lie on 16 bytes, 128-bit copies are used.
//
// Idea: bound by memory, n*d*4 bytes written and, for a codebook that fits L2, nothing else that counts. A row is
// served by the smallest power of two of lanes that covers it in one step, at most a warp: short rows leave no lane
// idle, long rows are walked in coalesced strides, and no division is needed.
// Source: ours. Measured: not yet on a GPU.

#include "shapes.h"

static_assert(GATHER_THREADS % 32 == 0, "a row must not straddle two blocks");

struct alignas(16) Four {
    float value[4];
};

__device__ inline void set(float& to, float value) { to = value; }

__device__ inline void set(Four& to, float value) {
    for (float& each : to.value) each = value;
}

// T is what one lane copies at a time, `width` the elements of T in a row.
template <typename T>
__device__ void gather(const unsigned int* __restrict__ codes, const T* __restrict__ codewords, T* __restrict__ out,
                       unsigned long long n, unsigned int k, unsigned long long width, unsigned long long* bad) {
    // log2 of the lanes of a row: 2^shift >= width, at most 32.
    const unsigned int shift = width > 16 ? 5 : 32 - __clz(static_cast<unsigned int>(width) - 1);
    const unsigned int lanes = 1u << shift;
    const unsigned int lane = threadIdx.x & (lanes - 1);
    const unsigned long long rows = GATHER_THREADS >> shift; // of a block
    for (unsigned long long i = blockIdx.x * rows + (threadIdx.x >> shift); i < n; i += gridDim.x * rows) {
        const unsigned int code = codes[i];
        const bool names = code < k;
        if (!names && code != 0xffffffffu && lane == 0) atomicMin(bad, i << 32 | code);
        const T* from = codewords + (names ? code : 0) * width;
        T* to = out + i * width;
        for (unsigned long long t = lane; t < width; t += lanes) {
            if (names) {
                to[t] = from[t];
            } else {
                set(to[t], __int_as_float(0x7fc00000));
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(GATHER_THREADS)
    gather_f32(const unsigned int* __restrict__ codes, const float* __restrict__ codewords, float* __restrict__ out,
               unsigned long long n, unsigned int k, unsigned int d, unsigned long long* __restrict__ bad) {
    const unsigned long long places = reinterpret_cast<unsigned long long>(codewords) |
                                      reinterpret_cast<unsigned long long>(out);
    if (d % 4 == 0 && places % 16 == 0) {
        gather(codes, reinterpret_cast<const Four*>(codewords), reinterpret_cast<Four*>(out), n, k, d / 4, bad);
    } else {
        gather(codes, codewords, out, n, k, d, bad);
    }
}
