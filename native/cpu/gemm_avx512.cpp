// 12×32 f32 tiles: 24 of the 32 registers accumulate.
#include "gemm_pack_avx512.h"
#include "gemm_tile.h"

namespace temper::cpu {
namespace {
struct Vector {
  using T = __m512;
  static constexpr int width = 16;
  static T zero() { return _mm512_setzero_ps(); }
  static T load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, T v) { _mm512_storeu_ps(p, v); }
  static T broadcast(float f) { return _mm512_set1_ps(f); }
  static T fma(T a, T b, T c) { return _mm512_fmadd_ps(a, b, c); }
};

inline __m512i round_lanes(__m512i bits) {  // f32 → bf16 precision, nearest even; NaN stays NaN
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_and_si512(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), _mm512_set1_epi32(static_cast<int>(0xffff0000)));
  const __mmask16 nan = _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
  return _mm512_mask_mov_epi32(rounded, nan, bits);
}

template <bool Round> void pack_f32(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  if (s.kind == Kind::mxfp4) return pack_any<1, Round>(dst, s, o0, outs, width, k0, ks);
  if (s.kind == Kind::bf16) {
    const auto get = [&](int64_t row, int64_t i, int n) {
      return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), bf16_row(s, row) + i)), 16);
    };
    if (s.k_inner) return pack_transposed(dst, outs, width, ks, [&](int o, int u) { return get(o0 + o, k0 + u, ks - u); });
    return pack_across(dst, outs, width, ks, [&](int u, int o, int n) { return get(k0 + u, o0 + o, n); });
  }
  const auto get = [&](int64_t row, int64_t i, int n) {
    __m512 v = _mm512_maskz_loadu_ps(first_lanes(n), f32_row(s, row) + i);
    if (s.row_scale) v = _mm512_mul_ps(v, _mm512_set1_ps(s.row_scale[row]));
    const __m512i bits = _mm512_castps_si512(v);
    return Round ? round_lanes(bits) : bits;
  };
  if (s.k_inner) return pack_transposed(dst, outs, width, ks, [&](int o, int u) { return get(o0 + o, k0 + u, ks - u); });
  pack_across(dst, outs, width, ks, [&](int u, int o, int n) { return get(k0 + u, o0 + o, n); });
}
}  // namespace

const Kernels kKernelsAvx512 = {
    {12, 32, 1, pack_f32<false>, tile_f32<Vector, 12, 2>},
    {12, 32, 1, pack_f32<true>, tile_f32<Vector, 12, 2>},
    {}, {},  // filled in by kernels(): constants of another translation unit
    row_max, sum_exp, exp_scaled,
};
}  // namespace temper::cpu
