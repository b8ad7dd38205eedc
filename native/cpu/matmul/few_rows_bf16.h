// What the few-rows products on bf16 operands share: how rows of x are prepared.
#pragma once
#include "cpu/matmul/few_rows_avx512.h"

namespace temper::cpu {
namespace {

// Weight rows up to so many inputs, of small models, lie in the caches anyway, and adding up lanes would take as long
// as making their sums.
constexpr int64_t kShort = 512;

inline __m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

inline int64_t units_bf16(Kind kind, int64_t k) {
  return kind == Kind::mxfp4 ? (k + 127) / 128 * 64 : (k + 31) / 32 * 16;
}

// In which order the codes of 128 MXFP4 inputs are decoded, four steps of 32.
enum class CodeOrder {
  words,  // step i: code i of each word, inputs i, i + 4, i + 8, …
  groups  // step i: of each group of 32 the inputs 16 · (i % 2) + i / 2 + 0, 2, … 14
};

// Elements [from, to) of a row of x, `from` at a multiple of 128, as units of two, with zeros from k up to a whole
// step: of 32 elements in order, or for MXFP4 of 128 in the order of their codes.
template <CodeOrder Order = CodeOrder::words>
void prepare_part(uint32_t* dst, const Source& a, int64_t row, int64_t from, int64_t to, int64_t k, Kind kind) {
  const float* x = f32_row(a, row);
  const __m512 factor = _mm512_set1_ps(a.row_scale ? a.row_scale[row] : 1.0f);
  const auto load16 = [&](int64_t i) {
    return i < k ? _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(static_cast<int>(k - i < 16 ? k - i : 16)), x + i),
                                 factor)
                 : _mm512_setzero_ps();
  };
  if (kind != Kind::mxfp4) {
    for (int64_t i = from; i < to; i += 32, dst += 16)
      _mm512_storeu_si512(dst, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load16(i + 16), load16(i))));
    return;
  }
  // Of each step the first half of its words comes from the first two registers, the second from the others.
  constexpr bool groups = Order == CodeOrder::groups;
  alignas(64) uint16_t order[32];
  for (int i = 0; i < 16; ++i)
    order[i] = order[16 + i] = static_cast<uint16_t>(groups ? 32 * (i / 8) + 2 * (i % 8) : 4 * i);
  const __m512i first = _mm512_load_si512(order);
  for (int64_t block = from; block < to; block += 128, dst += 64) {
    __m512i line[4];
    for (int i = 0; i < 4; ++i)
      line[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load16(block + 32 * i + 16), load16(block + 32 * i)));
    for (int i = 0; i < 4; ++i) {
      const __m512i index =
          _mm512_add_epi16(first, _mm512_set1_epi16(static_cast<short>(groups ? 16 * (i % 2) + i / 2 : i)));
      const __m512i low = _mm512_permutex2var_epi16(line[0], index, line[1]),
                    high = _mm512_permutex2var_epi16(line[2], index, line[3]);
      _mm512_storeu_si512(dst + 16 * i, _mm512_mask_blend_epi64(0xf0, low, high));
    }
  }
}

}  // namespace
}  // namespace temper::cpu
