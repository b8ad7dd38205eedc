// What both AVX-512 forms of the few-rows product share.
#pragma once
#include "cpu/matmul/few_rows.h"
#include "cpu/matmul/matmul_pack_avx512.h"

namespace temper::cpu {
namespace {

// 2^(e−127) of four groups, each on the four lanes of its 16 bytes. e = 0 gives the subnormal 2^−127.
inline __m512 group_scales(uint32_t four) {
  const __m512i byte = _mm512_set4_epi32(3, 2, 1, 0);  // becomes: byte g of the dword into the top byte of lane group g
  const __m512i order = _mm512_or_si512(
      _mm512_slli_epi32(
          _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), byte), 24),
      _mm512_set1_epi32(0x00808080));
  const __m512i top = _mm512_shuffle_epi8(_mm512_set1_epi32(static_cast<int>(four)), order);
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_srli_epi32(top, 1), _mm512_set1_epi32(0x00400000)));
}
inline uint32_t four_scales(const uint8_t* s, int count) {
  uint32_t four = 0;
  if (count >= 4) {
    std::memcpy(&four, s, 4);
  } else {
    for (int i = 0; i < count; ++i) four |= static_cast<uint32_t>(s[i]) << (8 * i);
  }
  return four;
}
// Of one row of x sixteen outputs side by side, for weights with few inputs: a sum's lanes l follow one another, and
// are added as _mm512_reduce_add_ps adds them. multiply(l, unit): lane l of all sums.
template <int Lanes, class Multiply>
inline __m512 sum_of_lanes(const uint32_t* x, const Multiply& multiply) {
  __m512 sum[Lanes];
#pragma GCC unroll 16
  for (int l = 0; l < Lanes; ++l) sum[l] = multiply(l, x[l]);
#pragma GCC unroll 4
  for (int half = Lanes / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < half; ++l) sum[l] = _mm512_add_ps(sum[l], sum[l + half]);
  return sum[0];
}
// Of m rows; output j is number order[j] of them.
template <int Lanes, class Multiply>
inline void sum_lanes(float* out, int64_t ld, int m, const uint32_t* x, int64_t row_units, __m512i order,
                      __mmask16 outputs, const Multiply& multiply) {
  for (int i = 0; i < m; ++i, x += row_units)
    _mm512_mask_storeu_ps(out + i * ld, outputs, _mm512_permutexvar_ps(order, sum_of_lanes<Lanes>(x, multiply)));
}
inline __mmask64 first_bytes(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

}  // namespace
}  // namespace temper::cpu
