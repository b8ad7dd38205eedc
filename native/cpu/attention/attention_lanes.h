// What attention_tile.inc needs of an instruction set: a vector of kLanes floats and the few things one does with it.
// multiply_add fuses where the set can; greater(a, b) is a > b ? a : b and lesser a < b ? a : b, so that a NaN in b
// stays. sum_lanes adds the lanes of four vectors in order; halves_greatest takes the greater of upper and lower half
// until 4 lanes are left. load_quads(rows, d) takes 4 floats at rows[0] + d, rows[4] + d, … ; transpose4 turns four of
// those into columns.
#pragma once
#include <cstdint>
#include <cstring>
#include "cpu/host/number.h"
#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12's own AVX-512 headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace temper::cpu {
namespace {

typedef float Quad __attribute__((vector_size(16)));
TEMPER_INLINE Quad load_quad(const float* p) {
  Quad v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TEMPER_INLINE void store_quad(float* p, Quad v) { std::memcpy(p, &v, sizeof v); }
TEMPER_INLINE Quad greater_quad(Quad a, Quad b) { return a > b ? a : b; }
TEMPER_INLINE void transpose_quads(Quad& a, Quad& b, Quad& c, Quad& d) {
  const Quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Quad ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  c = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
  d = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
}
// sum + lane 0 + lane 1 + lane 2 + lane 3 of four rows.
TEMPER_INLINE Quad sum_rows(Quad sum, Quad a, Quad b, Quad c, Quad d) {
  transpose_quads(a, b, c, d);
  return sum + a + b + c + d;
}
TEMPER_INLINE Quad greatest_of_rows(Quad a, Quad b, Quad c, Quad d) {
  transpose_quads(a, b, c, d);
  return greater_quad(greater_quad(a, c), greater_quad(b, d));
}

namespace portable {
constexpr int kLanes = 4;
using Vec = Quad;
TEMPER_INLINE Vec load_lanes(const float* p) { return load_quad(p); }
TEMPER_INLINE void store_lanes(float* p, Vec v) { store_quad(p, v); }
TEMPER_INLINE Vec broadcast(float x) { return Vec{x, x, x, x}; }
TEMPER_INLINE Vec zero_lanes() { return Vec{}; }
TEMPER_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
TEMPER_INLINE Vec greater(Vec a, Vec b) { return a > b ? a : b; }
TEMPER_INLINE Vec lesser(Vec a, Vec b) { return a < b ? a : b; }
TEMPER_INLINE Quad sum_lanes(Vec a, Vec b, Vec c, Vec d) { return sum_rows(Quad{}, a, b, c, d); }
TEMPER_INLINE Quad halves_greatest(Vec v) { return v; }
TEMPER_INLINE Vec load_quads(const float* const* rows, int64_t d) { return load_quad(rows[0] + d); }
TEMPER_INLINE void transpose4(Vec& a, Vec& b, Vec& c, Vec& d) { transpose_quads(a, b, c, d); }
}  // namespace portable

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int kLanes = 8;
using Vec = __m256;
TEMPER_INLINE Vec load_lanes(const float* p) { return _mm256_loadu_ps(p); }
TEMPER_INLINE void store_lanes(float* p, Vec v) { _mm256_storeu_ps(p, v); }
TEMPER_INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
TEMPER_INLINE Vec zero_lanes() { return _mm256_setzero_ps(); }
TEMPER_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
TEMPER_INLINE Vec greater(Vec a, Vec b) { return _mm256_max_ps(a, b); }
TEMPER_INLINE Vec lesser(Vec a, Vec b) { return _mm256_min_ps(a, b); }
TEMPER_INLINE Quad sum_lanes(Vec a, Vec b, Vec c, Vec d) {
  const Quad low = sum_rows(Quad{}, _mm256_castps256_ps128(a), _mm256_castps256_ps128(b), _mm256_castps256_ps128(c),
                            _mm256_castps256_ps128(d));
  return sum_rows(low, _mm256_extractf128_ps(a, 1), _mm256_extractf128_ps(b, 1), _mm256_extractf128_ps(c, 1),
                  _mm256_extractf128_ps(d, 1));
}
TEMPER_INLINE Quad halves_greatest(Vec v) { return _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }
TEMPER_INLINE Vec load_quads(const float* const* rows, int64_t d) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[0] + d)), _mm_loadu_ps(rows[4] + d), 1);
}
TEMPER_INLINE void transpose4(Vec& a, Vec& b, Vec& c, Vec& d) {
  const __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)), cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
  const __m256d ab2 = _mm256_castps_pd(_mm256_unpackhi_ps(a, b)), cd2 = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
  a = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
  b = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
  c = _mm256_castpd_ps(_mm256_unpacklo_pd(ab2, cd2));
  d = _mm256_castpd_ps(_mm256_unpackhi_pd(ab2, cd2));
}
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
constexpr int kLanes = 16;
using Vec = __m512;
TEMPER_INLINE Vec load_lanes(const float* p) { return _mm512_loadu_ps(p); }
TEMPER_INLINE void store_lanes(float* p, Vec v) { _mm512_storeu_ps(p, v); }
TEMPER_INLINE Vec broadcast(float x) { return _mm512_set1_ps(x); }
TEMPER_INLINE Vec zero_lanes() { return _mm512_setzero_ps(); }
TEMPER_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
TEMPER_INLINE Vec greater(Vec a, Vec b) { return _mm512_max_ps(a, b); }
TEMPER_INLINE Vec lesser(Vec a, Vec b) { return _mm512_min_ps(a, b); }
template <int quarter>
TEMPER_INLINE Quad sum_quarter(Quad sum, Vec a, Vec b, Vec c, Vec d) {
  return sum_rows(sum, _mm512_extractf32x4_ps(a, quarter), _mm512_extractf32x4_ps(b, quarter),
                  _mm512_extractf32x4_ps(c, quarter), _mm512_extractf32x4_ps(d, quarter));
}
TEMPER_INLINE Quad sum_lanes(Vec a, Vec b, Vec c, Vec d) {
  return sum_quarter<3>(sum_quarter<2>(sum_quarter<1>(sum_quarter<0>(Quad{}, a, b, c, d), a, b, c, d), a, b, c, d), a,
                        b, c, d);
}
TEMPER_INLINE Quad halves_greatest(Vec v) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}
TEMPER_INLINE Vec load_quads(const float* const* rows, int64_t d) {  // masked broadcasts from memory need no shuffle
  Vec v = _mm512_castps128_ps512(_mm_loadu_ps(rows[0] + d));
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(rows[4] + d));
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(rows[8] + d));
  return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(rows[12] + d));
}
TEMPER_INLINE void transpose4(Vec& a, Vec& b, Vec& c, Vec& d) {
  const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
  const __m512d ab2 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)), cd2 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
  a = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
  b = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
  c = _mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2));
  d = _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2));
}
}  // namespace avx512
#pragma GCC pop_options
#elif defined(__aarch64__)
namespace neon {
constexpr int kLanes = 4;
using Vec = Quad;
TEMPER_INLINE Vec load_lanes(const float* p) { return vld1q_f32(p); }
TEMPER_INLINE void store_lanes(float* p, Vec v) { vst1q_f32(p, v); }
TEMPER_INLINE Vec broadcast(float x) { return vdupq_n_f32(x); }
TEMPER_INLINE Vec zero_lanes() { return vdupq_n_f32(0.0f); }
TEMPER_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
TEMPER_INLINE Vec greater(Vec a, Vec b) { return a > b ? a : b; }
TEMPER_INLINE Vec lesser(Vec a, Vec b) { return a < b ? a : b; }
TEMPER_INLINE Quad sum_lanes(Vec a, Vec b, Vec c, Vec d) { return sum_rows(Quad{}, a, b, c, d); }
TEMPER_INLINE Quad halves_greatest(Vec v) { return v; }
TEMPER_INLINE Vec load_quads(const float* const* rows, int64_t d) { return vld1q_f32(rows[0] + d); }
TEMPER_INLINE void transpose4(Vec& a, Vec& b, Vec& c, Vec& d) { transpose_quads(a, b, c, d); }
}  // namespace neon
#endif

}  // namespace
}  // namespace temper::cpu
