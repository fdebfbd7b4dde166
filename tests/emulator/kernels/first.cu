// Kernels for the emulator's own tests: what works.

extern "C" __global__ void saxpy(int n, float a, const float *__restrict__ x, float *__restrict__ y) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __fadd_rn(__fmul_rn(a, x[i]), y[i]);
}

// One sum per block, through shuffles, a static array and a barrier.
template <class T> __device__ T block_sum(T value) {
    __shared__ T per_warp[32];
    for (int by = 16; by > 0; by /= 2) value += __shfl_down_sync(0xffffffffu, value, by);
    if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? per_warp[threadIdx.x] : T(0);
        for (int by = 16; by > 0; by /= 2) value += __shfl_down_sync(0xffffffffu, value, by);
    }
    return value;
}

extern "C" __global__ __launch_bounds__(256) void sum_f64(const double *x, double *sums) {
    double sum = block_sum(x[(size_t)blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256, 2) sum_u32(const unsigned *x, unsigned *sums) {
    unsigned sum = block_sum(x[(size_t)blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Turns each block's values round, through shared memory sized at the launch.
extern "C" __global__ void reverse(unsigned *x) {
    extern __shared__ __align__(16) unsigned values[];
    x += (size_t)blockIdx.x * blockDim.x;
    values[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void histogram(int n, const unsigned char *x, unsigned *counts, unsigned long long *total, float *weight) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&counts[x[i]], 1u);
        atomicAdd(total, (unsigned long long)x[i]);
        atomicAdd(weight, 0.5f);
    }
}

// Block sizes and grids of three dimensions: every thread writes its own number.
extern "C" __global__ void number_threads(unsigned *out) {
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned at = block * (blockDim.x * blockDim.y * blockDim.z) + thread;
    out[at] = at;
}

struct Shape { unsigned rows; double scale; unsigned char flag; };
extern "C" __global__ void by_value(Shape shape, short s, double *out) {
    out[0] = shape.rows;
    out[1] = shape.scale;
    out[2] = shape.flag;
    out[3] = s;
}

// One warp, one array, one lane after the other: each step is ordered by the warp's own barrier alone.
extern "C" __global__ void take_turns(int *out) {
    __shared__ int values[32];
    int lane = threadIdx.x, sum = 0;
    values[lane] = lane;
    for (int turn = 0; turn < 8; ++turn) {
        __syncwarp();
        for (int i = 0; i < 32; ++i) sum += values[i];
        __syncwarp();
        if (lane == turn) {
            for (int i = 0; i < 32; ++i) values[i] = values[i] + 1;
        }
    }
    out[lane] = sum;
}
