// Which kernel multiplies, and the sums over rows for bias gradients.
#include "cuda/matmul/matmul.h"

#include <cstdlib>
#include <string>

#include "cuda/matmul/matmul_place.cuh"
#include "temper/error.h"

namespace temper::gpu {
namespace {

constexpr int kColumns = 32, kRowLanes = 8;

struct ColumnSums {
  const void* x;
  bool bf16;
  int64_t ld, count;
  const int32_t* index;
  FaultName index_name;
  const float* row_scale;
  Extent extent;  // k: rows
  float* sum;
  Fault* fault;
};

// Rows r0, r0+8, … of a column go to one thread; the eight sums are added in order.
__global__ void __launch_bounds__(kColumns* kRowLanes) column_sums(const ColumnSums s) {
  wait_for_previous();
  __shared__ double parts[kRowLanes][kColumns];
  const int column = static_cast<int>(threadIdx.x) % kColumns, lane = static_cast<int>(threadIdx.x) / kColumns,
            group = static_cast<int>(blockIdx.y);
  const int n = static_cast<int>(blockIdx.x) * kColumns + column;
  int begin = 0, end = s.extent.k;
  if (s.extent.offsets) {
    if (blockIdx.x == 0 && group == 0)
      check_offsets(s.extent, s.extent.k, static_cast<int>(threadIdx.x), kColumns * kRowLanes, s.fault);
    begin = offset_at(s.extent, group, s.extent.k, 0);
    end = offset_at(s.extent, group + 1, s.extent.k, begin);
  }
  double sum = 0;
  if (n < s.extent.n)
    for (int r = begin + lane; r < end; r += kRowLanes) {
      const int64_t row = s.index ? checked_index(s.fault, s.extent.op, s.index_name, r, s.index[r], s.count) : r;
      const int64_t at = row * s.ld + n;
      const float x =
          s.bf16 ? bf16_to_float(static_cast<const uint16_t*>(s.x)[at]) : static_cast<const float*>(s.x)[at];
      sum += static_cast<double>(s.row_scale ? s.row_scale[r] : 1.0f) * static_cast<double>(x);
    }
  parts[lane][column] = sum;
  __syncthreads();
  if (lane || n >= s.extent.n || begin == end) return;
  for (int i = 1; i < kRowLanes; ++i) sum += parts[i][column];
  float* to = s.sum + static_cast<int64_t>(group) * s.extent.n + n;
  *to = static_cast<float>(static_cast<double>(*to) + sum);
}

}  // namespace

namespace {
MatmulChoice& choice() {
  static MatmulChoice chosen = [] {
    const char* named = std::getenv("TEMPER_CUDA_MATMUL");
    const std::string name = named ? named : "auto";
    require(name == "auto" || name == "mma" || name == "wgmma" || name == "cublaslt", "bad_option",
            "TEMPER_CUDA_MATMUL: got ", name, ", wanted auto, mma, wgmma or cublaslt");
    return name == "mma"        ? MatmulChoice::mma
           : name == "wgmma"    ? MatmulChoice::wgmma
           : name == "cublaslt" ? MatmulChoice::cublaslt
                                : MatmulChoice::automatic;
  }();
  return chosen;
}
}  // namespace

MatmulChoice matmul_choice() { return choice(); }
void set_matmul_choice(MatmulChoice wanted) { choice() = wanted; }

// Activations in bf16 that the kernel of few rows would take as f32: it rounds what it reads, so the bits are the same.
static bool few_rounded_rows(const Product& p) {
  const Source& a = p.main.a;
  return a.kind == Kind::bf16 && !a.zero_padded && a.k_inner && !a.row_scale && !a.mask.limit && p.main.b.k_inner &&
         p.ragged != Ragged::k && p.m <= most_few_rows(p);
}

void multiply(const Product& product, int64_t precision, Staging& staging) {
  const MatmulChoice chosen = matmul_choice();
  if (mxfp4_suits(product, precision)) return multiply_mxfp4(product, staging);
  if (chosen == MatmulChoice::mma && precision) return multiply_tiles(product, staging);
  if (chosen == MatmulChoice::automatic || precision == 0) {
    Product few = product;
    if (few_rounded_rows(product)) few.main.a = staging.f32(few.main.a, few.main.k);
    if (multiply_few_rows(few, precision)) return;
  }
  if (precision == 0) return multiply_exact(product);
  if (chosen == MatmulChoice::automatic &&
      (multiply_narrow(product, staging) || multiply_narrow_gradient(product, staging)))
    return;
  if ((chosen == MatmulChoice::automatic || chosen == MatmulChoice::cublaslt) &&
      multiply_library(product, staging, chosen == MatmulChoice::cublaslt))
    return;
  if ((chosen == MatmulChoice::automatic || chosen == MatmulChoice::wgmma) &&
      multiply_wgmma(product, staging, chosen == MatmulChoice::wgmma))
    return;
  multiply_tiles(product, staging);
}

void add_column_sums(const Source& x, int64_t n, int64_t rows, const int32_t* offsets, int64_t groups, float* sum,
                     const char* op) {
  const ColumnSums args{
      x.data,      x.kind == Kind::bf16,
      x.ld,        x.count,
      x.index,     x.index_name,
      x.row_scale, {0, static_cast<int>(n), static_cast<int>(rows), Ragged::k, offsets, static_cast<int>(groups), op},
      sum,         device().fault};
  launch(column_sums, dim3(static_cast<unsigned>(blocks_for(n, kColumns)), static_cast<unsigned>(groups)),
         dim3(kColumns * kRowLanes), 0, args);
}

}  // namespace temper::gpu
