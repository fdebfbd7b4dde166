// The stand-in for cuBLAS: the products that this crate asks for, as plain loops in the stream's order. Which order the
// real library sums in is not known either; whoever uses it must be right for any.
#include "driver.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../include/cuda_runtime.h"

namespace {

enum Status { DONE = 0, NOT_INITIALISED = 1, ALLOC_FAILED = 3, INVALID = 7, EXECUTION_FAILED = 13, UNSUPPORTED = 15 };
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_64F = 70 };
enum { PEDANTIC_MATH = 2 };

struct Handle { void *stream; int math_mode, pointer_mode; };

bool is_set_to(const char *value) {
    const char *set = getenv("CODEWORD_SIM_CUBLAS");
    return set && !strcmp(set, value);
}

float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

// A sum of products that a real library might give and that is as far off as can be: from the largest product to the
// smallest, each rounded on its own, in one run, so that the small ones are lost; subnormal numbers are zeros.
float hostile(const float *x, const float *y, int k) {
    std::vector<float> products((size_t)k);
    for (int t = 0; t < k; ++t) products[(size_t)t] = flushed(flushed(x[t]) * flushed(y[t]));
    std::sort(products.begin(), products.end(), [](float a, float b) { return std::fabs(a) > std::fabs(b); });
    float sum = 0;
    for (float product : products) sum = flushed(sum + product);
    return sum;
}
double hostile(const double *x, const double *y, int k) {
    double sum = 0;
    for (int t = 0; t < k; ++t) sum = std::fma(x[t], y[t], sum);
    return sum;
}

size_t width(int type) { return type == F64 ? 8 : type == F32 ? 4 : type == F16 || type == BF16 ? 2 : 0; }

struct Operand { uintptr_t at; int type; long long lead; bool transposed; };

double load(const char *view, int type, long long index) {
    if (type == F64) return ((const double *)view)[index];
    if (type == F32) return ((const float *)view)[index];
    unsigned short bits = ((const unsigned short *)view)[index];
    return type == F16 ? simulated_half_to_float(bits) : simulated_bfloat_to_float(bits);
}

// The bytes that a matrix of `rows` x `columns`, column by column, spans.
size_t span(long long rows, long long columns, long long lead, int type) {
    return rows && columns ? (size_t)((columns - 1) * lead + rows) * width(type) : 0;
}

template <class T> simulated::Result product(int m, int n, int k, T alpha, Operand a, Operand b, T beta, uintptr_t c, int c_type, long long ldc) {
    using namespace simulated;
    long long a_rows = a.transposed ? k : m, a_columns = a.transposed ? m : k, b_rows = b.transposed ? n : k, b_columns = b.transposed ? k : n;
    size_t a_bytes = span(a_rows, a_columns, a.lead, a.type), b_bytes = span(b_rows, b_columns, b.lead, b.type), c_bytes = span(m, n, ldc, c_type);
    const char *who = "a product of cuBLAS";
    if (alpha != 0 && ((a_bytes && !checked_range(a.at, a_bytes, false, who)) || (b_bytes && !checked_range(b.at, b_bytes, false, who)))) {
        return ILLEGAL_ADDRESS;
    }
    if (!c_bytes || !checked_range(c, c_bytes, true, who)) return c_bytes ? ILLEGAL_ADDRESS : SUCCESS;
    // Rows of op(A) and columns of op(B) one after the other, so that the inner loop runs through memory.
    std::vector<T> left((size_t)m * k), right((size_t)n * k);
    const char *a_view = driver_view(a.at), *b_view = driver_view(b.at);
    for (long long i = 0; i < m; ++i)
        for (long long t = 0; t < k; ++t) left[(size_t)(i * k + t)] = (T)load(a_view, a.type, a.transposed ? i * a.lead + t : t * a.lead + i);
    for (long long j = 0; j < n; ++j)
        for (long long t = 0; t < k; ++t) right[(size_t)(j * k + t)] = (T)load(b_view, b.type, b.transposed ? t * b.lead + j : j * b.lead + t);
    char *out = driver_view(c);
    bool is_hostile = is_set_to("hostile");
    for (long long j = 0; j < n; ++j) {
        for (long long i = 0; i < m; ++i) {
            // Eight sums side by side: another order than one after the other, as with the real library.
            T sums[8] = {};
            const T *x = &left[(size_t)(i * k)], *y = &right[(size_t)(j * k)];
            long long t = 0;
            for (; t + 8 <= k; t += 8)
                for (int s = 0; s < 8; ++s) sums[s] = std::fma(x[t + s], y[t + s], sums[s]);
            for (; t < k; ++t) sums[t % 8] = std::fma(x[t], y[t], sums[t % 8]);
            T sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
            long long at = j * ldc + i;
            if (is_hostile) sum = hostile(x, y, k);
            T value = alpha * sum;
            // With beta = 0 what stood there is not read, be it NaN.
            if (beta != 0) value += beta * (T)load(out, c_type, at);
            if (c_type == F64) ((double *)out)[at] = (double)value;
            else if (c_type == F32) ((float *)out)[at] = (float)value;
            else ((unsigned short *)out)[at] = c_type == F16 ? simulated_float_to_half((float)value) : simulated_float_to_bfloat((float)value);
        }
        memset(initialised(c + (size_t)(j * ldc) * width(c_type)), 1, (size_t)m * width(c_type));
    }
    return SUCCESS;
}

int gemm(Handle *handle, int transa, int transb, int m, int n, int k, const void *alpha, const void *a, int a_type, long long lda,
         long long stride_a, const void *b, int b_type, long long ldb, long long stride_b, const void *beta, void *c, int c_type,
         long long ldc, long long stride_c, int batch, int compute) {
    using namespace simulated;
    if (!handle) return NOT_INITIALISED;
    if (is_set_to("failing-call")) return EXECUTION_FAILED;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || !width(a_type) || !width(b_type) || !width(c_type)) return INVALID;
    if (lda < std::max(1, transa ? k : m) || ldb < std::max(1, transb ? n : k) || ldc < std::max(1, m)) return INVALID;
    if (compute != COMPUTE_32F && compute != COMPUTE_32F_PEDANTIC && compute != COMPUTE_64F) return UNSUPPORTED;
    if (handle->pointer_mode != 0) return UNSUPPORTED;
    double by = compute == COMPUTE_64F ? *(const double *)alpha : *(const float *)alpha;
    double plus = compute == COMPUTE_64F ? *(const double *)beta : *(const float *)beta;
    for (const void *pointer : {a, b, (const void *)c}) {
        if (m == 0 || n == 0 || batch == 0 || is_device_address((uintptr_t)pointer) || (k == 0 && pointer != c)) continue;
        report("cublas gemm: a matrix at %s", describe((uintptr_t)pointer, 1).c_str());
        return INVALID;
    }
    double time = 3000 + 2.0 * m * n * k * batch / 20000;
    std::string what = text("gemm m=%d n=%d k=%d batch=%d compute=%d math=%d", m, n, k, batch, compute, handle->math_mode);
    int result = submit_in_current_context(handle->stream, time, what, [=]() -> Result {
        for (int i = 0; i < batch; ++i) {
            Operand left{(uintptr_t)a + (size_t)(i * stride_a) * width(a_type), a_type, lda, transa != 0};
            Operand right{(uintptr_t)b + (size_t)(i * stride_b) * width(b_type), b_type, ldb, transb != 0};
            uintptr_t into = (uintptr_t)c + (size_t)(i * stride_c) * width(c_type);
            Result result = compute == COMPUTE_64F ? product<double>(m, n, k, by, left, right, plus, into, c_type, ldc)
                                                   : product<float>(m, n, k, (float)by, left, right, (float)plus, into, c_type, ldc);
            if (result != SUCCESS) return result;
        }
        return SUCCESS;
    });
    return result == 0 ? DONE : EXECUTION_FAILED;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cublasCreate_v2(Handle **handle) {
    if (is_set_to("failing")) return NOT_INITIALISED;
    // The workspace of the library.
    if (simulated::allocation_fails()) return ALLOC_FAILED;
    *handle = new Handle{nullptr, 0, 0};
    return DONE;
}
API cublasDestroy_v2(Handle *handle) {
    delete handle;
    return DONE;
}
API cublasSetStream_v2(Handle *handle, void *stream) {
    handle->stream = stream;
    return DONE;
}
API cublasGetStream_v2(Handle *handle, void **stream) {
    *stream = handle->stream;
    return DONE;
}
API cublasSetMathMode(Handle *handle, int mode) {
    handle->math_mode = mode;
    return DONE;
}
API cublasGetMathMode(Handle *handle, int *mode) {
    *mode = handle->math_mode;
    return DONE;
}
API cublasSetPointerMode_v2(Handle *handle, int mode) {
    handle->pointer_mode = mode;
    return DONE;
}
API cublasGetPointerMode_v2(Handle *handle, int *mode) {
    *mode = handle->pointer_mode;
    return DONE;
}
API cublasSetAtomicsMode(Handle *, int) { return DONE; }
API cublasSetWorkspace_v2(Handle *, void *workspace, size_t size) {
    uintptr_t at = (uintptr_t)workspace;
    if (size == 0 || (at % 256 == 0 && simulated::is_device_address(at))) return DONE;
    simulated::report("cublas: a workspace at %s", simulated::describe(at, size).c_str());
    return INVALID;
}
API cublasGetVersion_v2(Handle *, int *version) {
    *version = 120804;
    return DONE;
}

API cublasGemmEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, const void *b, int bt,
                 int ldb, const void *beta, void *c, int ct, int ldc, int compute, int) {
    return gemm(h, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1, compute);
}
API cublasGemmStridedBatchedEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda,
                               long long sa, const void *b, int bt, int ldb, long long sb, const void *beta, void *c, int ct, int ldc,
                               long long sc, int batch, int compute, int) {
    return gemm(h, ta, tb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb, beta, c, ct, ldc, sc, batch, compute);
}
API cublasSgemm_v2(Handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
    return gemm(h, ta, tb, m, n, k, alpha, a, F32, lda, 0, b, F32, ldb, 0, beta, c, F32, ldc, 0, 1, COMPUTE_32F);
}
API cublasDgemm_v2(Handle *h, int ta, int tb, int m, int n, int k, const double *alpha, const double *a, int lda, const double *b, int ldb,
                   const double *beta, double *c, int ldc) {
    return gemm(h, ta, tb, m, n, k, alpha, a, F64, lda, 0, b, F64, ldb, 0, beta, c, F64, ldc, 0, 1, COMPUTE_64F);
}
API cublasSgemmStridedBatched(Handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, long long sa,
                              const float *b, int ldb, long long sb, const float *beta, float *c, int ldc, long long sc, int batch) {
    return gemm(h, ta, tb, m, n, k, alpha, a, F32, lda, sa, b, F32, ldb, sb, beta, c, F32, ldc, sc, batch, COMPUTE_32F);
}
