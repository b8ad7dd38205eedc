// 6×16 f32 tiles: 12 of the 16 registers accumulate.
#include <immintrin.h>

#include "gemm_pack.h"
#include "gemm_tile.h"
#include "row_dots.h"

namespace temper::cpu {
namespace {
struct Vector {
  using T = __m256;
  static constexpr int width = 8;
  static T zero() { return _mm256_setzero_ps(); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static T broadcast(float f) { return _mm256_set1_ps(f); }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
};
}  // namespace

const Kernels kKernelsAvx2 = {
    {6, 16, 1, pack_any<1, false>, tile_f32<Vector, 6, 2>},
    {6, 16, 1, pack_any<1, true>, tile_f32<Vector, 6, 2>},
    {dot_units_any, dot_prepare_any<false>, row_dots_any<Vector, false>},
    {dot_units_any, dot_prepare_any<true>, row_dots_any<Vector, true>},
    row_max, sum_exp, exp_scaled,
};
}  // namespace temper::cpu
