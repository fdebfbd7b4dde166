// The codes of rows: the numbers of their parts one after the other, each from its lowest bit, without gaps.
//
//     bits s b to (s + 1) b - 1 of codes[i] = labels[s][i] mod 2^b         (bit 0 is the lowest of the first byte)
//
// Inputs  labels [parts, n] u32: below 2^b, or SENTINEL, of which b bits that are set remain.
// Outputs codes [n, code_size] bytes, code_size = ceil(parts b / 8), at any address; bits of the last byte of a code that are
//         left are 0. Allocated by the caller.
// Numbers Integers. b is 8, 16, or with pack_codes_bits from 1 to 16.
// Launch  any grid (blocks take words in turn), block PACK_CODES_THREADS in one dimension, no dynamic shared memory.
// Idea    A thread writes four bytes at an address that is a multiple of four, of one code or of two and more that lie side by
//         side, so that a warp writes 128 bytes whatever the size of a code. Its neighbours read the labels of the rows
//         beside, out of the same sectors. It should be bound by memory: 4 parts bytes read for a row, from the cache where
//         the labels were written just before, and code_size written.
// Source  ours; the CPU's twin is src/quantizer/packed.rs, the layout that of faiss.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

// Byte `j` of the code of the row whose labels begin at `labels`, `n` apart.
static __device__ __forceinline__ u32 byte_of(const u32* labels, u32 n, u32 parts, u32 bits, u32 j) {
    const u64 first_bit = (u64)j * 8;
    const u32 mask = (1u << bits) - 1u;
    u32 s = (u32)(first_bit / bits);
    u32 at = (u32)(first_bit - (u64)s * bits);
    u32 byte = (labels[(u64)s * n] & mask) >> at;
    for (at = bits - at; at < 8 && ++s < parts; at += bits) byte |= (labels[(u64)s * n] & mask) << at;
    return byte & 0xffu;
}

static __device__ __forceinline__ void pack(const u32* labels, unsigned char* codes, u32 n, u32 parts, u32 bits) {
    const u64 code_size = ((u64)parts * bits + 7) / 8, len = code_size * n;
    const u32 before = (u32)((u64)codes % 4);  // bytes of the first word that belong to somebody else
    const u64 words = (before + len + 3) / 4;
    for (u64 word = (u64)blockIdx.x * PACK_CODES_THREADS + threadIdx.x; word < words;
         word += (u64)gridDim.x * PACK_CODES_THREADS) {
        const u64 start = word == 0 ? 0 : 4 * word - before, past = 4 * (word + 1) - before;
        const u32 count = (u32)((past < len ? past : len) - start);
        u64 row = start / code_size;
        u32 j = (u32)(start - row * code_size), four = 0;
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            if (c >= count) continue;
            four |= byte_of(labels + row, n, parts, bits, j) << (8 * c);
            if (++j == code_size) {
                j = 0;
                row++;
            }
        }
        if (count == 4) {
            *reinterpret_cast<u32*>(codes + start) = four;
        } else {
            for (u32 c = 0; c < count; c++) codes[start + c] = (unsigned char)(four >> (8 * c));
        }
    }
}

extern "C" __global__ void __launch_bounds__(PACK_CODES_THREADS)
    pack_codes_u8(const u32* __restrict__ labels, unsigned char* __restrict__ codes, u32 n, u32 parts) {
    pack(labels, codes, n, parts, 8);
}

extern "C" __global__ void __launch_bounds__(PACK_CODES_THREADS)
    pack_codes_u16(const u32* __restrict__ labels, unsigned char* __restrict__ codes, u32 n, u32 parts) {
    pack(labels, codes, n, parts, 16);
}

extern "C" __global__ void __launch_bounds__(PACK_CODES_THREADS)
    pack_codes_bits(const u32* __restrict__ labels, unsigned char* __restrict__ codes, u32 n, u32 parts, u32 bits) {
    pack(labels, codes, n, parts, bits);
}
