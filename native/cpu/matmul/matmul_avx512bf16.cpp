// 12×32 tiles on the bf16 dot product: each instruction takes two steps of k for 16 columns. For precision 1 only.
#include "cpu/matmul/matmul_pack_avx512.h"

namespace temper::cpu {
namespace {

__m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

// Every loop over rows is unrolled, else the compiler keeps the sums in memory.
template <int Rows>
void tile_rows_bf16(int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite,
                    const float* bias) {
  __m512 left[Rows], right[Rows];
  float* row = c;
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, row += ldc) {
    left[i] = right[i] = _mm512_setzero_ps();
    _mm_prefetch(reinterpret_cast<const char*>(row), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(row + 16), _MM_HINT_T0);
  }
  // the rows' addresses are formed again afterwards, not kept in vector registers
  asm volatile("" : "+r"(c), "+r"(ldc));
  for (int u = 0; u < units; ++u, a += Rows, b += 32) {
    const __m512bh b_left = as_bf16(_mm512_loadu_si512(b)), b_right = as_bf16(_mm512_loadu_si512(b + 16));
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const __m512bh x = as_bf16(_mm512_set1_epi32(static_cast<int>(a[i])));
      left[i] = _mm512_dpbf16_ps(left[i], x, b_left);
      right[i] = _mm512_dpbf16_ps(right[i], x, b_right);
    }
  }
  const __m512 factor = _mm512_set1_ps(alpha), bias_left = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps(),
               bias_right = bias ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, c += ldc) {
    _mm512_storeu_ps(c, _mm512_fmadd_ps(factor, left[i], overwrite ? bias_left : _mm512_loadu_ps(c)));
    _mm512_storeu_ps(c + 16, _mm512_fmadd_ps(factor, right[i], overwrite ? bias_right : _mm512_loadu_ps(c + 16)));
  }
}

template <int Max>
void tile_bf16(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha,
               bool overwrite, const float* bias) {
  if constexpr (Max > 1) {
    if (rows < Max) return tile_bf16<Max - 1>(rows, units, a, b, c, ldc, alpha, overwrite, bias);
  }
  tile_rows_bf16<Max>(units, a, b, c, ldc, alpha, overwrite, bias);
}

struct ScaledRow {
  const float* data;
  __m512 scale;
};
inline __m512 load_f32(const ScaledRow& row, int64_t i, int n) {
  return _mm512_mul_ps(row.scale, n >= 16 ? _mm512_loadu_ps(row.data + i)
                                          : _mm512_maskz_loadu_ps(first_lanes(n > 0 ? n : 0), row.data + i));
}
inline __m512i load_words(const uint16_t* from, int n) {
  return n >= 32 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(first_words(n > 0 ? n : 0), from);
}

inline __m512i word_order(int first, int second) {  // words first, second, first+1, second+1, …
  const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_add_epi32(_mm512_or_si512(step, _mm512_slli_epi32(step, 16)), _mm512_set1_epi32(first | second << 16));
}

void pack_bf16_k_outer(uint32_t* dst, const Source& s, int64_t o0, int outs, int64_t k0, int ks) {
  constexpr int width = 32;
  const int units = (ks + 1) / 2;
  const __m512i low = word_order(0, 32), high = word_order(16, 48);
  for (int u = 0; u < units; ++u) {
    const bool pair = 2 * u + 1 < ks;
    const uint16_t *a = bf16_row(s, k0 + 2 * u) + o0, *b = pair ? bf16_row(s, k0 + 2 * u + 1) + o0 : a;
    for (int o = 0; o < outs; o += width) {
      const __m512i left = load_words(a + o, outs - o),
                    right = pair ? load_words(b + o, outs - o) : _mm512_setzero_si512();
      _mm512_storeu_si512(dst + o * units + u * width, _mm512_permutex2var_epi16(left, low, right));
      _mm512_storeu_si512(dst + o * units + u * width + 16, _mm512_permutex2var_epi16(left, high, right));
    }
  }
}

// The MXFP4 packers add to exponents, which is right for scales 2 to 252; meeting another they return false and the
// general decoder takes over.

// k runs along MXFP4 rows: byte j of a group is unit j, so 16 rows × 16 bytes are transposed as dwords and each byte
// becomes a unit.
bool pack_mxfp4_k_inner(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const int groups = ks / 32, units = ks / 2;
  const int64_t group0 = k0 / 32, block_ld = s.ld / 2, scale_ld = s.ld / 32;
  const __m512i table = code_table_bf16(), nibble_shift = _mm512_set1_epi32(0x00040000);
  __m512i spread[4];  // byte b of each dword into the low half of both its words
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b)
    spread[b] = _mm512_or_si512(_mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0),
                                _mm512_set1_epi32(static_cast<int>(0x80008000u) | b | b << 16));
  for (int o = 0; o < (outs + width - 1) / width * width; o += 16) {
    const uint8_t *blocks[16], *scales[16];
    // columns beyond the edge repeat the last one: what is computed from them is never kept
    for (int i = 0; i < 16; ++i) {
      const int64_t row = o0 + (o + i < outs ? o + i : outs - 1);
      blocks[i] = static_cast<const uint8_t*>(s.data) + row * block_ld + group0 * 16;
      scales[i] = s.scales + row * scale_ld + group0;
    }
    for (int g0 = 0; g0 < groups; g0 += 16) {
      const int count = groups - g0 < 16 ? groups - g0 : 16;
      __m512i sq[4];
      transpose_16_rows_of_16_bytes(scales, g0, first_lanes(count), sq);
      for (int g = 0; g < count; ++g) {
        // e − 127 in both words of a dword; in range for 2 ≤ e ≤ 252.
        const __m512i e =
            _mm512_shuffle_epi8(sq[g >> 2], _mm512_add_epi8(spread[0], _mm512_set1_epi32((g & 3) * 0x00010001)));
        if (_mm512_cmpgt_epu16_mask(_mm512_sub_epi16(e, _mm512_set1_epi16(2)), _mm512_set1_epi16(250))) [[unlikely]]
          return false;
        const __m512i delta = _mm512_slli_epi16(_mm512_sub_epi16(e, _mm512_set1_epi16(127)), 7);
        __m512i q[4];
        transpose_16_rows_of_16_bytes(blocks, (g0 + g) * 16, 0xffff, q);
        uint32_t* to = dst + o / width * width * units + (g0 + g) * 16 * width + o % width;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
          for (int b = 0; b < 4; ++b) {
            const __m512i codes = _mm512_srlv_epi16(_mm512_shuffle_epi8(q[j], spread[b]), nibble_shift);
            _mm512_storeu_si512(to + (j * 4 + b) * width, scale_bf16(_mm512_permutexvar_epi16(codes, table), delta));
          }
      }
    }
  }
  return true;
}

// k runs across MXFP4 rows: the same bytes read the other way. Byte j of rows k and k+1 makes two units, columns 2j and
// 2j+1.
bool pack_mxfp4_k_outer(uint32_t* dst, const Source& s, int64_t o0, int outs, int64_t k0, int ks) {
  constexpr int width = 32;
  const int units = (ks + 1) / 2;
  const __m512i table = code_table_bf16();
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  const int64_t block_ld = s.ld / 2, scale_ld = s.ld / 32;
  uint32_t odd_scale = 0;
  for (int u = 0; u < units; ++u) {
    const int64_t a = k0 + 2 * u, b = 2 * u + 1 < ks ? a + 1 : a;
    const uint8_t *blocks_a = static_cast<const uint8_t*>(s.data) + a * block_ld + o0 / 2,
                  *blocks_b = static_cast<const uint8_t*>(s.data) + b * block_ld + o0 / 2;
    const uint8_t *scales_a = s.scales + a * scale_ld + o0 / 32, *scales_b = s.scales + b * scale_ld + o0 / 32;
    const __m512i keep = _mm512_set1_epi32(b == a ? 0xffff : -1);
    for (int o = 0; o < outs; o += width) {
      const __m512i bytes_a = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks_a + o / 2)));
      const __m512i bytes_b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks_b + o / 2)));
      const __m512i codes = _mm512_or_si512(bytes_a, _mm512_slli_epi32(bytes_b, 16));
      const uint32_t ea = scales_a[o / 32], eb = scales_b[o / 32];
      odd_scale |= static_cast<uint32_t>(ea - 2 > 250) | static_cast<uint32_t>(eb - 2 > 250);
      const __m512i delta = _mm512_set1_epi32(static_cast<int>((((ea - 127) << 7) & 0xffffu) | (eb - 127) << 23));
      const __m512i even = _mm512_and_si512(keep, scale_bf16(_mm512_permutexvar_epi16(codes, table), delta));
      const __m512i odd =
          _mm512_and_si512(keep, scale_bf16(_mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), table), delta));
      _mm512_storeu_si512(dst + o * units + u * width, _mm512_permutex2var_epi32(even, low, odd));
      _mm512_storeu_si512(dst + o * units + u * width + 16, _mm512_permutex2var_epi32(even, high, odd));
    }
  }
  return !odd_scale;
}

void pack_bf16(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const auto scaled = [&](int64_t r) {
    return ScaledRow{f32_row(s, r), _mm512_set1_ps(s.row_scale ? s.row_scale[r] : 1.0f)};
  };
  switch (s.kind) {
    case Kind::f32:
      if (s.k_inner)
        return pack_transposed<2>(
            dst, outs, width, ks, [&](int o) { return scaled(o0 + o); },
            [&](const ScaledRow& row, int k, int n) {
              return reinterpret_cast<__m512i>(
                  _mm512_cvtne2ps_pbh(load_f32(row, k0 + k + 16, n - 16), load_f32(row, k0 + k, n)));
            });
      return pack_across(dst, outs, width, (ks + 1) / 2, [&](int u, int o, int n) {
        const __m512 left = load_f32(scaled(k0 + 2 * u), o0 + o, n),
                     right = 2 * u + 1 < ks ? load_f32(scaled(k0 + 2 * u + 1), o0 + o, n) : _mm512_setzero_ps();
        return _mm512_permutexvar_epi16(word_order(0, 16), reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(right, left)));
      });
    case Kind::q8:
      if (!s.k_inner) return pack_any<2, true>(dst, s, o0, outs, width, k0, ks);
      return pack_transposed<2>(
          dst, outs, width, ks, [&](int o) { return q8_row(s, o0 + o, k0); },
          [](const Q8Row& row, int k, int) {
            return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load_q8(row, k + 16), load_q8(row, k)));
          });
    case Kind::bf16:
      if (s.k_inner)
        return pack_transposed<2>(
            dst, outs, width, ks, [&](int o) { return bf16_row(s, o0 + o) + k0; },
            [](const uint16_t* row, int k, int n) { return load_words(row + k, n); });
      if (width == 32) return pack_bf16_k_outer(dst, s, o0, outs, k0, ks);
      return pack_any<2, true>(dst, s, o0, outs, width, k0, ks);
    case Kind::mxfp4:
      if (width == 32 && (s.k_inner ? ks : outs) % 32 == 0 &&
          (s.k_inner ? pack_mxfp4_k_inner(dst, s, o0, outs, width, k0, ks)
                     : pack_mxfp4_k_outer(dst, s, o0, outs, k0, ks)))
        return;
      return pack_any<2, true>(dst, s, o0, outs, width, k0, ks);
  }
}

}  // namespace

const Path kPathAvx512Bf16 = {12, 32, 2, pack_bf16, tile_bf16<12>};

}  // namespace temper::cpu
