// Operations that CUDA C++ has no plain name for: products of small matrices on tensor cores, loads of their fragments, and
// copies to shared memory that run beside the threads. Inline PTX on a device (ISA 7.0, sm_80 and later; the last part ISA
// 8.0, sm_90a alone); under the simulated driver of tests/emulator the same by the same rules.
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

// d = c + a b, f16 operands.
static __device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], const float (&c)[4]) {
#ifdef SIMULATED_CUDA
    for (int i = 0; i < 4; i++) d[i] = c[i];
    simulated_mma(SIMULATED_MMA_F16, d, a, b, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#endif
}

// d += a b.
static __device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    mma_m16n8k16_f16(d, a, b, d);
}

// The same over 8 steps of depth: a[0], a[1] and b[0] of above.
static __device__ __forceinline__ void mma_m16n8k8_f16(float (&d)[4], const u32 (&a)[2], u32 b) {
#ifdef SIMULATED_CUDA
    const u32 sixteen[4] = {a[0], a[1], 0, 0}, two[2] = {b, 0};  // Products of zeros change no sum.
    simulated_mma(SIMULATED_MMA_F16, d, sixteen, two, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
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

// Two of them, which lanes 0 to 15 name; what the others name does not matter.
static __device__ __forceinline__ void ldmatrix_x2(u32 (&to)[2], SharedAt row) {
#ifdef SIMULATED_CUDA
    u32 four[4];
    const SharedAt named = (SharedAt)__shfl_sync(FULL_WARP, (u64)row, threadIdx.x % 16);
    simulated_ldmatrix(SIMULATED_MATRICES, four, named, __LINE__);
    to[0] = four[0];
    to[1] = four[1];
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(row) : "memory");
#endif
}

// Four with each matrix transposed: rows 2q and 2q + 1 of column g.
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

// The nearest f16 of two numbers, ties to even, beyond 65504 an infinity; their bits, those of `low` in the lower half.
static __device__ __forceinline__ u32 f16_pair_bits(float low, float high) {
#ifdef SIMULATED_CUDA
    return (u32)simulated_float_to_half(low) | (u32)simulated_float_to_half(high) << 16;
#else
    u32 bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
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

// From here on for compute capability 9.0 alone: what an entry point of a *_sm90a.cu calls.

// Barriers in shared memory, on multiples of 8. A phase ends when as many have arrived as were said, and as many bytes as
// were announced have been copied; then the next begins. The first phase has parity 0. After `mbarrier_init` of one
// thread, that thread calls mbarrier_init_done(), and then all threads of the block meet.
static __device__ __forceinline__ void mbarrier_init(SharedAt barrier, u32 arrivals) {
#ifdef SIMULATED_CUDA
    simulated_mbarrier_init(barrier, arrivals, __LINE__);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
#endif
}

static __device__ __forceinline__ void mbarrier_init_done() {
#ifdef SIMULATED_CUDA
    simulated_mbarrier_init_done();
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Before a barrier of the block, behind which products read what this thread wrote to shared memory.
static __device__ __forceinline__ void fence_shared_writes() {
#ifndef SIMULATED_CUDA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

static __device__ __forceinline__ void mbarrier_arrive(SharedAt barrier) {
#ifdef SIMULATED_CUDA
    simulated_mbarrier_arrive(barrier, 0, __LINE__);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}

// The same of the threads for which `arrives` holds, without a branch: products that run on must not see one.
static __device__ __forceinline__ void mbarrier_arrive_if(bool arrives, SharedAt barrier) {
#ifdef SIMULATED_CUDA
    if (arrives) simulated_mbarrier_arrive(barrier, 0, __LINE__);
#else
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %1, 0;\n\t@p mbarrier.arrive.shared::cta.b64 _, [%0];\n\t}" ::"r"(barrier),
                 "r"((u32)arrives)
                 : "memory");
#endif
}

// Arrives, and announces bytes that copies will bring.
static __device__ __forceinline__ void mbarrier_arrive_expect(SharedAt barrier, u32 bytes) {
#ifdef SIMULATED_CUDA
    simulated_mbarrier_arrive(barrier, bytes, __LINE__);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}

// Waits until the phase of this parity has ended: at once where the current one has the other.
static __device__ __forceinline__ void mbarrier_wait(SharedAt barrier, u32 parity) {
#ifdef SIMULATED_CUDA
    simulated_mbarrier_wait(barrier, parity, __LINE__);
#else
    asm volatile("{\n\t.reg .pred p;\n\tagain:\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n\t@!p bra again;\n\t}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
#endif
}

// Sends for `bytes` from device memory, a multiple of 16 as both addresses; whoever waits for the phase of the barrier
// in which they were announced, sees them.
static __device__ __forceinline__ void copy_bulk(SharedAt to, const void* from, u32 bytes, SharedAt barrier) {
#ifdef SIMULATED_CUDA
    simulated_copy_bulk(to, from, bytes, barrier, __LINE__);
#else
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
                 : "memory");
#endif
}

// An operand of wgmma in shared memory, K-major and without swizzle: pieces of 16 bytes, eight halves of depth. Vectors
// follow each other 16 bytes apart; the next eight halves of all of them lie `piece_bytes` further on. On 16 bytes,
// below 256 KB.
#ifdef SIMULATED_CUDA
struct WgmmaSide {
    unsigned char* at;
    u32 piece_bytes;
};
#else
typedef u64 WgmmaSide;
#endif

static __device__ __forceinline__ WgmmaSide wgmma_side(SharedAt at, u32 piece_bytes) {
#ifdef SIMULATED_CUDA
    return {at, piece_bytes};
#else
    // Address, the way to the next piece of depth, and to the next eight vectors, in units of 16 bytes.
    return (u64)(at >> 4) | (u64)(piece_bytes >> 4) << 16 | (u64)(128 >> 4) << 32;
#endif
}

// The same side, `bytes` further on.
static __device__ __forceinline__ WgmmaSide wgmma_further(WgmmaSide side, u32 bytes) {
#ifdef SIMULATED_CUDA
    return {side.at + bytes, side.piece_bytes};
#else
    return side + (bytes >> 4);
#endif
}

// Sums of products of 64 rows and 128 columns, of the thread t of four warps: d[4 j + 2 h + c] is row 16 (t / 32) + t % 32 / 4
// + 8 h, column 8 j + 2 (t % 4) + c.
typedef float WgmmaSums[64];

// Keeps the compiler from moving uses of the sums across.
static __device__ __forceinline__ void wgmma_keep(WgmmaSums& d) {
#ifndef SIMULATED_CUDA
#pragma unroll
    for (u32 i = 0; i < 64; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// Before the first product after anybody touched its sums.
static __device__ __forceinline__ void wgmma_fence() {
#ifdef SIMULATED_CUDA
    simulated_wgmma_fence(__LINE__);
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// d = a b, or d += a b if `adds`, over 16 steps of depth; of f16. Four warps whose first is a multiple of four call it
// together. It runs beside them until they wait for it: neither sums nor operands may be touched before.
static __device__ __forceinline__ void wgmma_m64n128k16_f16(WgmmaSums& d, WgmmaSide a, WgmmaSide b, bool adds) {
#ifdef SIMULATED_CUDA
    simulated_wgmma(d, a.at, a.piece_bytes, b.at, b.piece_bytes, adds, __LINE__);
#else
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %66, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,"
        "%61,%62,%63}, %64, %65, p, 1, 1, 0, 0;\n\t}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
          "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
          "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
          "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),
          "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),
          "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
          "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
          "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b), "r"((u32)adds));
#endif
}

// Closes a group of products.
static __device__ __forceinline__ void wgmma_commit() {
#ifdef SIMULATED_CUDA
    simulated_wgmma_commit(__LINE__);
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most `groups_left` of the groups that these warps closed are on their way, the latest.
template <int groups_left>
static __device__ __forceinline__ void wgmma_wait() {
#ifdef SIMULATED_CUDA
    simulated_wgmma_wait(groups_left, __LINE__);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups_left) : "memory");
#endif
}

// A number that is the same in all lanes of a warp, said so to the compiler.
static __device__ __forceinline__ u32 uniform(u32 value) { return __shfl_sync(FULL_WARP, value, 0); }

// Registers of each thread of these four warps from here on, fewer or more than at the start; a multiple of 8.
template <u32 registers>
static __device__ __forceinline__ void give_up_registers() {
#ifndef SIMULATED_CUDA
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}

template <u32 registers>
static __device__ __forceinline__ void take_registers() {
#ifndef SIMULATED_CUDA
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
#endif
}
