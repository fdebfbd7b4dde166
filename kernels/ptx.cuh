// Operations that CUDA C++ has no plain name for: products of small matrices on tensor cores, loads of their fragments, and
// copies to shared memory that run beside the threads. Inline PTX on a device (ISA 7.0, sm_80 and later); under the
// simulated driver of tests/emulator the same by the same rules.
//
// Fragments of mma.m16n8k16, g = lane / 4, q = lane % 4, two halves a register, the lower one first (PTX ISA, "Matrix
// Fragments for mma.m16n8k16"):
//
//     A [16, 16]  a[0]: row g,     columns 2q, 2q + 1      a[2]: row g,     columns 2q + 8, 2q + 9
//                 a[1]: row g + 8, columns 2q, 2q + 1      a[3]: row g + 8, columns 2q + 8, 2q + 9
//     B [16, 8]   b[0]: rows 2q, 2q + 1, column g          b[1]: rows 2q + 8, 2q + 9, column g
//     D [16, 8]   d[0], d[1]: row g, columns 2q, 2q + 1    d[2], d[3]: row g + 8, columns 2q, 2q + 1
//
// mma.m16n8k8 of TF32, one number a register: a[0], a[2] row g, columns q and q + 4; a[1], a[3] the same of row g + 8;
// b[0], b[1] rows q and q + 4 of column g; D as above.
//
// Rounding: products are exact; a step adds L of them to the accumulator with an error of at most
// ((L + 1) 2^-F + 2^-23) times the largest magnitude in it, by models published for single architectures, not by the
// manual (MMA-Sim, arXiv 2511.10909; Khattak and Mikaitis, arXiv 2512.07004): L = 8, F = 24 for compute capability 8.0,
// 8.6 and 8.9, L = 16, F = 25 for 9.0.
#pragma once
#include "common.cuh"

// d += a b, f16 operands.
static __device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef SIMULATED_CUDA
    simulated_mma(SIMULATED_MMA_F16, d, a, b, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The same of bf16 operands.
static __device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef SIMULATED_CUDA
    simulated_mma(SIMULATED_MMA_BF16, d, a, b, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b over 8 steps of depth; operands are f32 whose lower 13 bits do not count.
static __device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef SIMULATED_CUDA
    simulated_mma(SIMULATED_MMA_TF32, d, a, b, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// A place in shared memory, in bytes: what instructions that name it want, made once and counted on.
#ifdef SIMULATED_CUDA
typedef unsigned char* SharedAt;
#else
typedef u32 SharedAt;
#endif

static __device__ __forceinline__ SharedAt shared_at(void* shared) {
#ifdef SIMULATED_CUDA
    return (unsigned char*)shared;
#else
    return (u32)__cvta_generic_to_shared(shared);
#endif
}

// Keeps a number in its register: a compiler that knows where it comes from computes it again in every turn of a loop.
template <class T>
static __device__ __forceinline__ void keep(T& value) {
#ifndef SIMULATED_CUDA
    asm volatile("" : "+r"(value));
#endif
}

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lane i names the 16 bytes of row i % 8 of matrix i / 8, on
// an address that is a multiple of 16; to[m] is matrix m: row g, columns 2q and 2q + 1. Orders earlier writes to shared
// memory of no other lane: a barrier does.
static __device__ __forceinline__ void ldmatrix_x4(u32 (&to)[4], SharedAt row) {
#ifdef SIMULATED_CUDA
    simulated_ldmatrix(SIMULATED_MATRICES, to, row, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
#endif
}

// The same with each matrix transposed: rows 2q and 2q + 1 of column g.
static __device__ __forceinline__ void ldmatrix_x4_trans(u32 (&to)[4], SharedAt row) {
#ifdef SIMULATED_CUDA
    simulated_ldmatrix(SIMULATED_MATRICES_TRANSPOSED, to, row, __LINE__);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
#endif
}

// The nearest f16 of a number, ties to even, beyond 65504 an infinity; its bits.
static __device__ __forceinline__ u16 f16_bits(float value) {
#ifdef SIMULATED_CUDA
    return simulated_float_to_half(value);
#else
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

// Sends for 16 bytes of shared memory from device memory, both on multiples of 16, past the first-level cache; only
// `bytes` are read, the others become zero. They are there once this thread has waited for the group of the copy, and for
// other threads after a barrier behind that.
static __device__ __forceinline__ void cp_async_16(SharedAt to, const void* from, u32 bytes) {
#ifdef SIMULATED_CUDA
    simulated_copy_async(to, from, bytes, __LINE__);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
#endif
}

// Closes a group of copies, which may be empty.
static __device__ __forceinline__ void cp_async_commit() {
#ifdef SIMULATED_CUDA
    simulated_copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `groups_left` of the groups that this thread closed are on their way, the latest.
template <int groups_left>
static __device__ __forceinline__ void cp_async_wait() {
#ifdef SIMULATED_CUDA
    simulated_copy_wait(groups_left);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}
