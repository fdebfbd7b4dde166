// How the 16-bit operands of tensor cores, vectors [n, width], lie in device memory: rows_tensor.cu writes them, the
// designs of assign_tensor.cuh read them.
//
//     halves [ceil(n / TENSOR_TILE)] [width / 8] [TENSOR_TILE] [8]
//
// A tile of vectors lies in one piece of memory, and in it eight halves of depth of all its vectors, 16 bytes each, side
// by side. Any run of depth of a tile is a run of bytes, which can be copied as it lies; and eight neighbouring vectors, a
// matrix of ldmatrix, are 128 bytes in 32 different banks. Vectors of the last tile that are not there are zero.
#pragma once
#include "common.cuh"
#include "shapes.h"

#define TENSOR_PIECE (8 * TENSOR_TILE)  // halves from one eight of depth of a vector to the next

static_assert(TENSOR_ALIGN % 16 == 0, "products take 16 steps of depth");

static __device__ __forceinline__ u32 tensor_width(u32 d) { return (d + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN; }

// Where the first eight halves of a vector lie.
static __device__ __forceinline__ u64 tile_place(u64 vector, u32 width) {
    return vector / TENSOR_TILE * TENSOR_TILE * width + vector % TENSOR_TILE * 8;
}
