// Packing with AVX-512: blocks of 16 outer indices by 16 units are transposed in registers; MXFP4 is decoded on the
// way.
#pragma once
#include <immintrin.h>

#include "cpu/matmul/matmul_pack.h"

namespace temper::cpu {
namespace {

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << n) - 1u); }
inline __mmask32 first_words(int n) { return n >= 32 ? 0xffffffffu : (1u << n) - 1u; }

inline const float* f32_row(const Source& s, int64_t r) {
  return static_cast<const float*>(s.data) + (s.rows ? s.rows[r] : r) * s.ld;
}
inline const uint16_t* bf16_row(const Source& s, int64_t r) {
  return static_cast<const uint16_t*>(s.data) + (s.rows ? s.rows[r] : r) * s.ld;
}

// Row r of a q8 matrix from element k0 on, a multiple of 32.
struct Q8Row {
  const int8_t* q;
  const uint16_t* scales;
};
inline Q8Row q8_row(const Source& s, int64_t r, int64_t k0) {
  return {static_cast<const int8_t*>(s.data) + r * s.ld + k0, s.q8_scales + r * (s.ld / 32) + k0 / 32};
}
// 16 elements from k on, a multiple of 16. Exact: a product of 7 bits by 8.
inline __m512 load_q8(const Q8Row& row, int64_t k) {
  const __m512 scale = _mm512_castsi512_ps(_mm512_set1_epi32(row.scales[k / 32] << 16));
  return _mm512_mul_ps(
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row.q + k)))), scale);
}

inline void transpose_16x16(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // within 128-bit lanes: 4×4 blocks
    const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // then the 4×4 grid of lanes
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x44), b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x44),
                  d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xee);
    r[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(a, c, 0xdd);
    r[i + 8] = _mm512_shuffle_i32x4(b, d, 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// Masked stores are slow, so a unit is stored whole where that stays within its panel: units go in rising order and
// cover what spilled over. `left` counts the panel's units from this one on.
inline bool fits_whole(int width, int left) { return width >= 16 || width * left >= 16; }
inline void store_unit(uint32_t* to, int width, int left, __m512i v) {
  if (fits_whole(width, left)) _mm512_storeu_si512(to, v);
  else _mm512_mask_storeu_epi32(to, first_lanes(width), v);
}

// k along memory rows. row(o): what load needs of outer index o; load(row, k, n): 16 units from the n elements at k on,
// zero beyond. Outer indices beyond the edge repeat the last one: what is computed from them is never kept.
template <int PerUnit, class Row, class Load>
inline void pack_transposed(uint32_t* dst, int outs, int width, int ks, const Row& row, const Load& load) {
  const int units = (ks + PerUnit - 1) / PerUnit;
  for (int p = 0; p < outs; p += width, dst += units * width)
    for (int o = 0; o < width; o += 16) {
      decltype(row(0)) rows[16];
      for (int i = 0; i < 16; ++i) rows[i] = row(p + o + i < outs ? p + o + i : outs - 1);
      for (int u = 0; u < units; u += 16) {
        __m512i r[16];
        const int n = ks - u * PerUnit;
        if (n >= 16 * PerUnit) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; ++i) r[i] = load(rows[i], u * PerUnit, 16 * PerUnit);
        } else {
          for (int i = 0; i < 16; ++i) r[i] = load(rows[i], u * PerUnit, n);
        }
        transpose_16x16(r);
        uint32_t* to = dst + u * width + o;
        if (u + 16 <= units && fits_whole(width, units - u - 15)) {
#pragma GCC unroll 16
          for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * width, r[i]);
        } else {
          for (int i = 0; i < 16 && u + i < units; ++i) store_unit(to + i * width, width, units - u - i, r[i]);
        }
      }
    }
}

// k across memory rows. get(u, o, n): 16 outer indices of unit u, of which n matter; it may read no further than the
// memory row.
template <class Get>
inline void pack_across(uint32_t* dst, int outs, int width, int units, const Get& get) {
  for (int u = 0; u < units; ++u)
    for (int p = 0; p < outs; p += width)
      for (int o = 0; o < width; o += 16)
        store_unit(dst + p * units + u * width + o, width, units - u, get(u, p + o, outs - p - o));
}

// 4×4 dwords in each 128-bit lane: dword i of a lane of q[j] is dword j of that lane of z[i].
inline void transpose_lanes(__m512i q[4], const __m512i z[4]) {
  const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
  const __m512i c = _mm512_unpacklo_epi32(z[2], z[3]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  q[0] = _mm512_unpacklo_epi64(a, c);
  q[1] = _mm512_unpackhi_epi64(a, c);
  q[2] = _mm512_unpacklo_epi64(b, d);
  q[3] = _mm512_unpackhi_epi64(b, d);
}
// 16 outer indices × 16 bytes, get(i) those of row i: lane i of q[j] receives dword j of row i.
template <class Get>
inline void transpose_16_bytes(__m512i q[4], const Get& get) {
  __m512i z[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    z[j] = _mm512_castsi128_si512(get(j));
    z[j] = _mm512_inserti32x4(z[j], get(4 + j), 1);
    z[j] = _mm512_inserti32x4(z[j], get(8 + j), 2);
    z[j] = _mm512_inserti32x4(z[j], get(12 + j), 3);
  }
  transpose_lanes(q, z);
}
inline void transpose_16_rows_of_16_bytes(const uint8_t* const rows[16], int64_t offset, __mmask16 bytes,
                                          __m512i q[4]) {
  transpose_16_bytes(q, [&](int i) { return _mm_maskz_loadu_epi8(bytes, rows[i] + offset); });
}

// Codes as bf16 bits; the table is repeated because vpermw reads five index bits and the fifth is a neighbour's.
inline __m512i code_table_bf16() {
  const __m256i t = _mm256_setr_epi16(
      0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, static_cast<short>(0x8000), static_cast<short>(0xbf00),
      static_cast<short>(0xbf80), static_cast<short>(0xbfc0), static_cast<short>(0xc000), static_cast<short>(0xc040),
      static_cast<short>(0xc080), static_cast<short>(0xc0c0));
  return _mm512_inserti64x4(_mm512_castsi256_si512(t), t, 1);
}
// Adds a power of two to bf16 exponents; a zero stays zero. Right while no result leaves the normal range: scales 2 to
// 252.
inline __m512i scale_bf16(__m512i bits, __m512i exponent_delta) {
  return _mm512_maskz_add_epi16(_mm512_test_epi16_mask(bits, _mm512_set1_epi16(0x7fff)), bits, exponent_delta);
}

}  // namespace
}  // namespace temper::cpu
