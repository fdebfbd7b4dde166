// Sizes that kernels and their launch wrappers share. Only `#define NAME value` with an unsigned number, and comments:
// build.rs turns every line into a Rust constant of the same name, so that each number lives once.
#pragma once

#define GATHER_THREADS 256 // threads of a block of gather.cu
#define ROWS_PER_BLOCK 8 // rows, a warp each, of a block of rows.cu
#define SCORE_ROWS 128 // rows of a score tile (assign.cu, pairwise_sq_l2.cu)
#define SCORE_COLS 128 // codewords of a score tile
#define SCORE_DEPTH 8 // steps of depth that a score tile holds in shared memory
#define SCORE_CHUNK 512 // products of a score in one running sum; the bounds of the codebook count on it
#define TILE_WARPS 8 // warps of a block of assign_tile.cu
#define TILE_ROWS_EACH 4 // rows of a warp of assign_tile.cu
#define TENSOR_THREADS 128 // threads of a block of assign_tensor.cu
#define TENSOR_ROWS 128 // rows of a tile of assign_tensor.cu
#define TENSOR_COLS 128 // codewords of a tile of assign_tensor.cu; what it reads per codeword is padded to whole tiles
#define TENSOR_DEPTH 32 // halves of depth that a stage of assign_tensor.cu holds
#define TENSOR_STAGES 3 // stages of assign_tensor.cu
#define TENSOR_TILE 128 // vectors of a tile of 16-bit operands (tensor_tiles.cuh)
#define TENSOR_ALIGN 16 // the width of 16-bit operands is a multiple of this
#define TENSOR_WARP_PACKS 8 // rows that a warp of rows_tensor.cu packs at least
#define TENSOR_SHIFT 13 // exponent of the scale of 16-bit operands over that of f32 ones: magnitudes stay below 2^15
#define WGMMA_ROWS 256 // rows of a block of assign_tensor_sm90a.cu
#define WGMMA_THREADS 384 // threads of a block of assign_tensor_sm90a.cu
#define WGMMA_DEPTH 64 // halves of depth of a stage of assign_tensor_sm90a.cu
#define WGMMA_RESIDENT 256 // halves of rows that stay in shared memory
#define WGMMA_STAGES 5 // stages of codewords in shared memory
#define WGMMA_SHARED 217776 // bytes of shared memory of assign_tensor_sm90a.cu
#define SHORT_LIST 32 // codewords of an open row that assign_tensor_list_f16 lists and short_list.cu compares
#define SHORT_LIST_WARPS 8 // warps, one per open row, of a block of short_list.cu
#define LABEL_PARTS_ROWS 128 // rows that a block of label_parts.cu takes at a time
#define LABEL_PARTS_WARPS 4 // warps of a block of label_parts.cu
#define LABEL_PARTS_WIDTH 32 // dimensions of a part at most
#define LABEL_PARTS_CHUNK 128 // codewords of which a thread of label_parts.cu notes in one word which reach a row
#define LABEL_PARTS_LIST 16 // codewords of a row that label_parts.cu lists before it takes all for candidates
#define LOOK_WARPS 8 // warps of a block of look.cu
#define LOOK_CANDIDATES 512 // codewords that look.cu lists before it takes all for candidates
#define DISTANCE_WARPS 8 // warps of a block of distance.cu
#define DISTANCE_EACH 2 // rows that lanes of distance.cu share
#define PAIRWISE_WARPS 8 // warps, one per entry, of a block of pairwise_sq_l2.cu
#define TOP_K_THREADS 256 // threads of a block, one per row, of top_k.cu
#define SQ_SUMS_THREADS 256 // threads of a block of sq_sums.cu, eight per row
#define HISTOGRAM_THREADS 256 // threads of a block of histogram.cu
#define HISTOGRAM_BINS 4096 // codewords whose counts a block of histogram.cu keeps in shared memory
#define PREPARE_WARPS 8 // warps, one per codeword, of a block of prepare.cu
#define PREPARE_THREADS 1024 // threads of the blocks of prepare.cu that work alone
#define PREPARE_COLUMNS 256 // threads, one per column, of a block of prepare.cu that sums columns
#define PREPARE_RUN 64 // distinct codewords in one running sum of a column; the CPU sums the same way
#define ORDER_THREADS 256 // threads of a block of label_order.cu, one for each value of a digit
#define ORDER_DIGIT_BITS 8 // bits of a label that one pass of label_order.cu sorts by
#define ORDER_TILE 2048 // rows of a block of label_order.cu
#define ACCUMULATE_THREADS 128 // threads of a block of accumulate.cu
#define ACCUMULATE_LONG 32 // rows of a label in one block from which on accumulate.cu adds them up beforehand
#define MEANS_THREADS 128 // threads of a block of means.cu
#define ADC_THREADS 256 // threads of a block of adc_scan.cu
#define ADC_QUERIES 4 // queries, whose tables lie entry by entry, of a block of adc_scan.cu
#define ADC_CODES 4 // codes that a thread of adc_scan.cu adds up at a time
#define ADC_GROUP 128 // codes whose words lie together, a warp's worth
#define PACK_CODES_THREADS 256 // threads of a block of pack_codes.cu
