// 12×32 f32 tiles: 24 of the 32 registers accumulate.
#include "cpu/matmul/matmul_pack_avx512.h"
#include "cpu/matmul/matmul_tile.h"

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
  const __m512i rounded = _mm512_and_si512(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))),
                                           _mm512_set1_epi32(static_cast<int>(0xffff0000)));
  const __mmask16 nan =
      _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
  return _mm512_mask_mov_epi32(rounded, nan, bits);
}

inline __m512i load_bf16(const uint16_t* from, int n) {
  const __m256i half = n >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
                               : _mm256_maskz_loadu_epi16(first_lanes(n > 0 ? n : 0), from);
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}
template <bool Round>
inline __m512i load_f32(const float* from, float scale, int n) {
  __m512 v = n >= 16 ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(first_lanes(n > 0 ? n : 0), from);
  v = _mm512_mul_ps(v, _mm512_set1_ps(scale));
  return Round ? round_lanes(_mm512_castps_si512(v)) : _mm512_castps_si512(v);
}
struct ScaledRow {
  const float* data;
  float scale;
};

template <bool Round>
void pack_f32(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const auto scaled = [&](int64_t r) { return ScaledRow{f32_row(s, r), s.row_scale ? s.row_scale[r] : 1.0f}; };
  switch (s.kind) {
    case Kind::mxfp4: return pack_any<1, Round>(dst, s, o0, outs, width, k0, ks);
    case Kind::q8:
      if (!s.k_inner) return pack_any<1, Round>(dst, s, o0, outs, width, k0, ks);
      return pack_transposed<1>(
          dst, outs, width, ks, [&](int o) { return q8_row(s, o0 + o, k0); },
          [](const Q8Row& row, int k, int) {
            const __m512i bits = _mm512_castps_si512(load_q8(row, k));
            return Round ? round_lanes(bits) : bits;
          });
    case Kind::bf16:
      if (s.k_inner)
        return pack_transposed<1>(
            dst, outs, width, ks, [&](int o) { return bf16_row(s, o0 + o) + k0; },
            [](const uint16_t* row, int k, int n) { return load_bf16(row + k, n); });
      return pack_across(dst, outs, width, ks,
                         [&](int u, int o, int n) { return load_bf16(bf16_row(s, k0 + u) + o0 + o, n); });
    case Kind::f32:
      if (s.k_inner)
        return pack_transposed<1>(
            dst, outs, width, ks, [&](int o) { return scaled(o0 + o); },
            [&](const ScaledRow& row, int k, int n) { return load_f32<Round>(row.data + k0 + k, row.scale, n); });
      return pack_across(dst, outs, width, ks, [&](int u, int o, int n) {
        const ScaledRow row = scaled(k0 + u);
        return load_f32<Round>(row.data + o0 + o, row.scale, n);
      });
  }
}
}  // namespace

const Kernels kKernelsAvx512 = {
    {12, 32, 1, pack_f32<false>, tile_f32<Vector, 12, 2>},
    {12, 32, 1, pack_f32<true>, tile_f32<Vector, 12, 2>},
    {},
    {},  // filled in by kernels(): constants of another translation unit
    row_max,
    sum_exp,
    exp_scaled,
};
}  // namespace temper::cpu
