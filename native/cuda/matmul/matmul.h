// The one matrix product of the CUDA backend. An op describes its operands where they lie in device memory (f32, bf16,
// MXFP4 or q8; gathered, scaled, masked, transposed, grouped by expert) as a Product, and `multiply` picks the kernel.
// Start at Product.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/host/runtime.h"
#include "gpu/dropout.cuh"
#include "temper/ops.h"

namespace temper::gpu {

enum class Kind : uint8_t { f32, bf16, mxfp4, q8 };
inline Kind kind_of(const Tensor& t) { return t.dtype == DType::bf16 ? Kind::bf16 : Kind::f32; }

// An operand with an outer index o (a row of A, a column of B) and the contraction index k. Memory holds `count` rows
// of `ld` elements; k runs along a row (k_inner) or across rows.
struct Source {
  const void* data = nullptr;           // row 0; MXFP4: its blocks
  const uint8_t* scales = nullptr;      // MXFP4: [count, ld/32]
  const uint16_t* q8_scales = nullptr;  // q8: bf16 [count, ld/32]
  int64_t ld = 0;
  int64_t count = 0;  // rows in memory, all groups together
  // rows of one group: those of expert e begin at row e·group_rows (0: rows are not a weight's)
  int64_t group_rows = 0;
  // logical row r lies at index[r] (null: at r); each in [0, count), else a fault
  const int32_t* index = nullptr;
  FaultName index_name = {};         // of the op's argument, for the fault
  const float* row_scale = nullptr;  // logical row r is taken times row_scale[r] (null: 1); f32 or bf16
  DropoutMask mask = {};             // element i of memory is taken times its factor; f32 or bf16
  Kind kind = Kind::f32;
  bool k_inner = true;
  bool zero_padded = false;  // bf16: ld is a multiple of 8 and what a row has beyond its elements is zero
  // f32 or bf16 with k inner, k a multiple of 64: staged with each 64 k in the order that matmul_mxfp4.cu decodes in;
  // both operands of a Term, but for MXFP4
  bool interleaved = false;
};

// A·Bᵀ with A [m,k] and B [n,k], whichever way each lies.
struct Term {
  Source a = {}, b = {};
  int64_t k = 0;
  float alpha = 1.0f;
};

// rows: m = P rows sorted by group, group e has rows [offsets[e], offsets[e+1]) of A and C and its own B and bias.
// k: the contraction runs over P rows sorted by group, group e has its own C.
enum class Ragged : uint8_t { none, rows, k };

// c[m,n] = bias + low_rank + main, or c += main + low_rank when accumulate is set (bias is then null). The low-rank
// term is summed first, multiplied by its alpha (and mask), and the main term is added in the order of k: each element
// has one order of summation, whatever the tiles.
struct Product {
  // low_rank.k = 0: none; with one, main.alpha is 1 and its operands are f32, neither gathered nor scaled; not with
  // Ragged::k
  Term main = {}, low_rank = {};
  DropoutMask low_rank_mask = {};  // on element (row, column) of the low-rank term
  int64_t m = 0, n = 0;
  float* c = nullptr;  // Ragged::k: of group e at c + e·m·ldc
  int64_t ldc = 0;
  bool accumulate = false;
  const void* bias = nullptr;  // [n]; Ragged::rows: [groups, n]
  Kind bias_kind = Kind::f32;
  Ragged ragged = Ragged::none;
  // With `to`, a Ragged::rows product has swiglu of c (elements.cuh) as its result, [m, n/2] in f32 or bf16, and c may
  // be null: only for multiply_mxfp4.
  struct Activated {
    void* to = nullptr;
    Kind kind = Kind::f32;
    float alpha = 0, limit = 0;
  } activated = {};
  const int32_t* offsets = nullptr;  // [groups + 1] in device memory
  int64_t groups = 1;
  const char* op = "";
  bool staged = false;  // c will be an operand with k inner: a kernel that can leaves its bf16 copy in the staging
};

// bf16 copies of operands that are f32 or lie in another order, once per op call however many products read them.
class Staging {
 public:
  // The source as the tile kernels want it: bf16 rows at 16-byte steps, zeros up to there, k_inner as asked. MXFP4, q8
  // and bf16 that suits are returned as they are (but for an odd address). width: elements used of each row;
  // logical_rows: how many r the index and row_scale have.
  Source bf16(const Source& source, int64_t width, int64_t logical_rows, bool k_inner, const char* op);
  // Memory of the copy that `bf16` gives for plain f32 rows that are about to be made; who makes them fills it.
  uint16_t* room(const Source& source, int64_t width);
  // bf16 as f32, for what reads few rows as they lie; `width` elements of each.
  Source f32(const Source& source, int64_t width);

 private:
  struct Copy {
    Source from;
    int64_t width;
    bool transposed;
    Source to;
    std::unique_ptr<Workspace<uint16_t>> memory;
  };
  std::vector<Copy> copies_;
  std::vector<std::unique_ptr<Workspace<uint16_t>>> wide_;
};

// TEMPER_CUDA_MATMUL = auto, mma, wgmma or cublaslt, read at the first call: which tensor-core kernels take what more
// than one can. auto: by shape. The others are used wherever they can be, for comparisons on a GPU; what they refuse
// goes to mma. Products with few rows or columns have kernels of their own, under auto alone (few rows in f32 too).
enum class MatmulChoice { automatic, mma, wgmma, cublaslt };
MatmulChoice matmul_choice();
void set_matmul_choice(MatmulChoice choice);  // for tests

// precision 0: f32 on CUDA cores; 1: bf16 on tensor cores, operands rounded to nearest even, accumulated in f32.
void multiply(const Product& product, int64_t precision, Staging& staging);

// The ways of multiplying that `multiply` chooses from, the first that suits. Those that may refuse return false and
// launch nothing. few_rows.cu: up to 32 rows, of experts up to 4 each, weights as they lie; either precision
bool multiply_few_rows(const Product& product, int64_t precision);
int64_t most_few_rows(const Product& product);  // rows up to which that may take it
// narrow.cu: up to 64 columns (x·Aᵀ and g·B of LoRA, the router), precision 1
bool multiply_narrow(const Product& product, Staging& staging);
// narrow_gradient.cu: c += a·bᵀ over rows, one of m and n up to 64 (dA and dB of LoRA), precision 1
bool multiply_narrow_gradient(const Product& product, Staging& staging);
// low_rank.cu: all but the main term of a product that is not ragged and has a low-rank one, precision 1
void add_low_rank(const Product& product);
// matmul_mxfp4.cu: sm_90a, experts in MXFP4, precision 1. Where it suits, `multiply` takes it; a forward product
// (b.k_inner) must come with a.interleaved, and only then.
bool mxfp4_suits(const Product& product, int64_t precision);
void multiply_mxfp4(const Product& product, Staging& staging);
// dequantized.cu: cuBLASLt, precision 1; may wait for the device
bool multiply_library(const Product& product, Staging& staging, bool whenever_possible);
// matmul_wgmma.cu: sm_90a, precision 1
bool multiply_wgmma(const Product& product, Staging& staging, bool whenever_possible);
void multiply_exact(const Product& product);                    // matmul_f32.cu: any product, precision 0
void multiply_tiles(const Product& product, Staging& staging);  // matmul_tiles.cu: any product, precision 1

// grouped_linear.cu: grouped_linear_swiglu_fwd by a product that activates its own result; false: none does
bool grouped_linear_activated(const args::grouped_linear_swiglu_fwd& a);

// sum[e][n] += Σ_r row_scale[r]·x[index[r]][n] over the rows r of group e (offsets null: one group of all `rows` rows),
// in double.
void add_column_sums(const Source& x, int64_t n, int64_t rows, const int32_t* offsets, int64_t groups, float* sum,
                     const char* op);

}  // namespace temper::gpu
