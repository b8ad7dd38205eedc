// 5×16 f32 tiles for aarch64: 20 registers accumulate, 9 hold the operands; a sixth row would spill. At precision 1
// operands are rounded to bf16 and multiplied as f32.
#include <arm_neon.h>

#include "cpu/matmul/few_rows.h"
#include "cpu/matmul/matmul_pack.h"
#include "cpu/matmul/matmul_tile.h"

namespace temper::cpu {
namespace {
struct Vector {
  using T = float32x4_t;
  static constexpr int width = 4;
  static T zero() { return vdupq_n_f32(0.0f); }
  static T load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, T v) { vst1q_f32(p, v); }
  static T fma(T a, T b, T c) { return vfmaq_f32(c, a, b); }
};

// The general tile_rows keeps its sums in memory here: g++ splits the array into registers only when told to unroll
// first.
template <int Rows>
void tile_neon(int units, const float* a, const float* b, float* c, int64_t ldc, float alpha, bool overwrite,
               const float* bias) {
  constexpr int cols = 4;
  float32x4_t sum[Rows][cols];
#pragma GCC unroll 5
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) sum[i][j] = vdupq_n_f32(0.0f);
  }
  for (int u = 0; u < units; ++u, a += Rows, b += cols * 4) {
    float32x4_t right[cols];
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) right[j] = vld1q_f32(b + j * 4);
#pragma GCC unroll 5
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < cols; ++j) sum[i][j] = vfmaq_n_f32(sum[i][j], right[j], a[i]);
    }
  }
#pragma GCC unroll 5
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) {
      float* at = c + i * ldc + j * 4;
      const float32x4_t base = !overwrite ? vld1q_f32(at) : bias ? vld1q_f32(bias + j * 4) : vdupq_n_f32(0.0f);
      vst1q_f32(at, vfmaq_n_f32(base, sum[i][j], alpha));
    }
  }
}

void tile(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite,
          const float* bias) {
  constexpr decltype(&tile_neon<1>) tiles[] = {tile_neon<1>, tile_neon<2>, tile_neon<3>, tile_neon<4>, tile_neon<5>};
  tiles[rows - 1](units, reinterpret_cast<const float*>(a), reinterpret_cast<const float*>(b), c, ldc, alpha, overwrite,
                  bias);
}
}  // namespace

const Kernels kKernelsNeon = {
    {5, 16, 1, pack_any<1, false>, tile},
    {5, 16, 1, pack_any<1, true>, tile},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<false>>, few_rows_any<Vector, false>},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<true>>, few_rows_any<Vector, true>},
    row_max,
    sum_exp,
    exp_scaled,
};
}  // namespace temper::cpu
