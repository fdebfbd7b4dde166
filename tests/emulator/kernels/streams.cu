// Kernels for the emulator's tests of streams and of the library beside the driver.

extern "C" __global__ void add(int n, float by, float *x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += by;
}

// Matrix product of square matrices in tiles of 16 x 16: shared memory read a lot, as in real kernels.
extern "C" __global__ __launch_bounds__(256) void multiply(int n, const float *a, const float *b, float *c) {
    __shared__ float left[16][17], right[16][17];
    int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    for (int tile = 0; tile < n; tile += 16) {
        left[threadIdx.y][threadIdx.x] = a[row * n + tile + threadIdx.x];
        right[threadIdx.y][threadIdx.x] = b[(tile + threadIdx.y) * n + column];
        __syncthreads();
        for (int t = 0; t < 16; ++t) sum = __fmaf_rn(left[threadIdx.y][t], right[t][threadIdx.x], sum);
        __syncthreads();
    }
    c[row * n + column] = sum;
}
