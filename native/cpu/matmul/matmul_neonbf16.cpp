// 5×16 tiles on aarch64's bf16 dot product (FEAT_BF16): each instruction takes two steps of k for 4 columns. For
// precision 1 only.
#include <arm_neon.h>

#include "cpu/matmul/matmul_pack.h"

namespace temper::cpu {
namespace {

template <int Rows>
void tile_rows(int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite,
               const float* bias) {
  constexpr int cols = 4;
  float32x4_t sum[Rows][cols];
#pragma GCC unroll 5
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) sum[i][j] = vdupq_n_f32(0.0f);
  }
  for (int u = 0; u < units; ++u, a += Rows, b += cols * 4) {
    bfloat16x8_t right[cols];
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) right[j] = vreinterpretq_bf16_u32(vld1q_u32(b + j * 4));
#pragma GCC unroll 5
    for (int i = 0; i < Rows; ++i) {
      const bfloat16x8_t left = vreinterpretq_bf16_u32(vdupq_n_u32(a[i]));
#pragma GCC unroll 4
      for (int j = 0; j < cols; ++j) sum[i][j] = vbfdotq_f32(sum[i][j], right[j], left);
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
  constexpr decltype(&tile_rows<1>) tiles[] = {tile_rows<1>, tile_rows<2>, tile_rows<3>, tile_rows<4>, tile_rows<5>};
  tiles[rows - 1](units, a, b, c, ldc, alpha, overwrite, bias);
}

}  // namespace

const Path kPathNeonBf16 = {5, 16, 2, pack_any<2, true>, tile};

}  // namespace temper::cpu
