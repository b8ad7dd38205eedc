// The one matrix-product core. An op describes its operands where they lie (f32, bf16, MXFP4 or q8; gathered, scaled or
// transposed rows) and `multiply` packs tiles from there, so nothing is ever expanded as a whole. Start at Product.
#pragma once
#include <cstdint>

#include "temper/tensor.h"

namespace temper::cpu {

// units of k per block: a packed panel of 32 columns is 32 KiB, so it stays in L1
inline constexpr int kUnits = 256;
// that take the few-rows path: of any product, of one that says so; rows of one call of it, at most
inline constexpr int kFewRows = 8, kFewRowsOfOne = 16, kMostFewRows = 32;
// packed at once where k runs across rows: a row is then read by whole cache lines
inline constexpr int kPanels = 4;
inline constexpr int kMaxTileRows = 32, kMaxTileCols = 32;

enum class Kind : uint8_t { f32, bf16, mxfp4, q8 };
inline Kind kind_of(const Tensor& t) { return t.dtype == DType::bf16 ? Kind::bf16 : Kind::f32; }

// An operand with an outer index o (a row of A, a column of B) and the contraction index k. Memory holds rows of `ld`
// elements; k runs along a row (k_inner) or across rows.
struct Source {
  const void* data = nullptr;           // row 0; for MXFP4 its blocks
  const uint8_t* scales = nullptr;      // MXFP4: a byte for 32 elements
  const uint16_t* q8_scales = nullptr;  // q8: a bf16 for 32 elements
  int64_t ld = 0;
  const int32_t* rows = nullptr;     // row r lies at rows[r] (null: at r)
  const float* row_scale = nullptr;  // row r is taken times row_scale[r] (null: 1); f32 only
  Kind kind = Kind::f32;
  bool k_inner = true;
  bool as_f32 = false;  // bf16 whose sums are those of the same numbers as f32, to the bit
};

// Argument by_row of an op: the bits that a row has. alone: however many rows, they go as products of few, as many at a
// time as those take, or, where a weight's rows do not run along k, through the tiles, as one row does. among_many:
// however few, they go through the tiles. any: as is faster.
enum class RowBits : uint8_t { any, alone, among_many };

// alpha·A·B with A m×k and B k×n.
struct Term {
  Source a, b;
  int64_t k = 0;
  float alpha = 1.0f;
};

// c[m,n] = bias + Σ terms, or c += Σ terms when accumulate is set (bias must then be null).
struct Product {
  Term terms[2] = {};
  int num_terms = 1;
  int64_t m = 0, n = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
  const void* bias = nullptr;
  Kind bias_kind = Kind::f32;
  int few_rows = kFewRows;  // up to kFewRowsOfOne where a path has a form for them: one big dense matrix, read once
  RowBits bits = RowBits::any;
};

// Runs independent products. Each element of c is summed in one fixed order, whatever the thread count.
void multiply(const Product* products, int64_t count, int64_t precision);

// Bytes of workspace that multiply takes for them; only their sizes and kinds are read.
size_t multiply_workspace(const Product* products, int64_t count, int64_t precision);

// One way of multiplying: packing into tiles of 32-bit units (an f32, or two bf16 along k) and the tile kernel that
// reads them.
struct Path {
  int mr, nr;  // rows and columns of a tile
  int pair;    // elements of k per unit
  // dst[unit][width] from outer indices [o0, o0+outs) and k in [k0, k0+ks); the rest of the last unit is zero,
  // the rest of the width finite but arbitrary.
  // More outs than the width fill panels of [units][width] that follow one another.
  void (*pack)(uint32_t* dst, const Source& source, int64_t o0, int outs, int width, int64_t k0, int ks);
  // c[rows][nr] = bias + alpha·a·b (overwrite) or += alpha·a·b; a is [units][rows], or as pack_a packs it, b is
  // [units][nr].
  void (*tile)(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha,
               bool overwrite, const float* bias);
  // where A is packed otherwise, [rows][units]; null: as B
  void (*pack_a)(uint32_t* dst, const Source& source, int64_t o0, int outs, int width, int64_t k0, int ks) = nullptr;
  // after a thread's last tile; null: nothing to do
  void (*done)() = nullptr;
};

// A pair of an adapter in bf16, rows one after another: A [rank,C] and B [N,rank].
struct LowRank {
  const uint16_t *A, *B;
  int64_t rank, C, N;
  float scale;
};

// Few rows against weights whose rows run along k: each weight is read once, in memory order.
struct FewRows {
  // at most, of one call; by MXFP4
  int rows, rows_mxfp4;
  // 32-bit units of one prepared row of x
  int64_t (*units)(Kind weight, int64_t k);
  // `rows` rows of x from `row` on for one call of dots. a: f32, k_inner
  void (*prepare)(uint32_t* dst, const Source& a, int64_t row, int rows, int64_t k, Kind weight);
  // out[i][n − n0] = x[i]·b[n] for i < m ≤ rows; x is m rows that were prepared together.
  void (*dots)(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k);
  // y[i] += scale·B·h[i], h[i] = A·x[i], with the bits of dots for A and for B; memory is asked for `next` meanwhile.
  // Of one row or two and some ranks: else false, and nothing is done. null: never.
  bool (*add_pair)(float* y, int64_t ldy, float* h, int64_t ldh, int m, const uint32_t* x, const LowRank& pair,
                   const LowRank& next) = nullptr;
};

// Row reductions of the cross-entropy, vectorised with the same instruction set.
struct Kernels {
  Path exact, rounded;  // precision 0 and 1
  FewRows few_exact, few_rounded;
  float (*row_max)(const float* x, int64_t n);
  double (*sum_exp)(const float* x, int64_t n, float shift);           // Σ exp(x − shift)
  void (*exp_scaled)(float* x, int64_t n, float shift, float factor);  // x = factor·exp(x − shift)
};

extern const Kernels kKernelsPortable;
#if defined(__x86_64__)
extern const Kernels kKernelsAvx2, kKernelsAvx512;
extern const Path kPathAvx512Bf16, kPathAmx;
extern const FewRows kFewRowsAvx2, kFewRowsAvx2Rounded, kFewRowsAvx512, kFewRowsAvx512Rounded, kFewRowsAvx512Bf16,
    kFewRowsAmx;
#elif defined(__aarch64__)
extern const Kernels kKernelsNeon;
extern const Path kPathNeonBf16;
#endif
const Kernels& kernels();  // of the active instruction set

}  // namespace temper::cpu
