// Kernels for the emulator's own tests: each has one fault that the emulator has to find.

extern "C" __global__ void writes_beyond(int n, float *out) { out[(int)threadIdx.x + (threadIdx.x == 5 ? n : 0)] = 1.0f; }

extern "C" __global__ void reads_beyond(int n, const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x + n]; }

extern "C" __global__ void copies(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x]; }

// A pointer behind a pointer: what the launch cannot see.
extern "C" __global__ void follows(const float *const *in, float *out) { out[threadIdx.x] = **in; }

extern "C" __global__ void diverges(int *out) {
    if (threadIdx.x < 16) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void meets_elsewhere(int *out) {
    if (threadIdx.x < 32) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2;
    }
}

extern "C" __global__ void leaves_its_warp(int *out) {
    int value = threadIdx.x;
    if (threadIdx.x % 32 != 3) value = __shfl_xor_sync(0xffffffffu, value, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}

extern "C" __global__ void not_in_the_mask(int *out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }

extern "C" __global__ void forgets_the_barrier(int *out) {
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[(threadIdx.x + 32) % 64];
}

extern "C" __global__ void forgets_the_warp_barrier(int *out) {
    __shared__ int values[32];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[31 - threadIdx.x];
}

extern "C" __global__ void reads_shared_too_early(int *out) {
    __shared__ int values[64];
    if (threadIdx.x < 32) values[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void overruns_dynamic(int *out) {
    extern __shared__ int dynamic[];
    dynamic[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = dynamic[threadIdx.x];
}

// Every block writes the same bytes.
extern "C" __global__ void blocks_collide(int *out) { out[threadIdx.x] = blockIdx.x; }

extern "C" __global__ void asserts(int n, int *out) {
    assert((int)threadIdx.x < n);
    out[threadIdx.x] = 1;
}

__device__ __attribute__((noinline)) int deep(int depth, volatile int *keep) {
    volatile int frame[1024];
    frame[depth % 1024] = depth;
    return depth == 0 ? *keep : deep(depth - 1, frame) + frame[0];
}
extern "C" __global__ void runs_deep(int depth, int *out) {
    volatile int start = 0;
    out[threadIdx.x] = deep(depth, &start);
}

// Four values at once from an address that is a multiple of four bytes only.
extern "C" __global__ void reads_misaligned(const float *in, float *out) {
    const float4 four = *reinterpret_cast<const float4 *>(in + threadIdx.x);
    out[threadIdx.x] = four.x + four.w;
}

extern "C" __global__ void writes_misaligned(float *out) {
    __shared__ float4 fours[3];
    float *values = reinterpret_cast<float *>(fours);
    *reinterpret_cast<float2 *>(values + 3 + threadIdx.x) = make_float2(1.0f, 2.0f);
    __syncthreads();
    out[threadIdx.x] = values[3 + threadIdx.x];
}
