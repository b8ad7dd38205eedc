// 12×32 tiles on the bf16 dot product: each instruction takes two steps of k for 16 columns. For precision 1 only.
#include "gemm_pack_avx512.h"

namespace temper::cpu {
namespace {

__m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

// Every loop over rows is unrolled, else the compiler keeps the sums in memory.
template <int Rows> void tile_rows_bf16(int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite, const float* bias) {
  __m512 left[Rows], right[Rows];
  float* row = c;
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, row += ldc) {
    left[i] = right[i] = _mm512_setzero_ps();
    _mm_prefetch(reinterpret_cast<const char*>(row), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(row + 16), _MM_HINT_T0);
  }
  asm volatile("" : "+r"(c), "+r"(ldc));  // the rows' addresses are formed again afterwards, not kept in vector registers
  for (int u = 0; u < units; ++u, a += Rows, b += 32) {
    const __m512bh b_left = as_bf16(_mm512_loadu_si512(b)), b_right = as_bf16(_mm512_loadu_si512(b + 16));
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const __m512bh x = as_bf16(_mm512_set1_epi32(static_cast<int>(a[i])));
      left[i] = _mm512_dpbf16_ps(left[i], x, b_left);
      right[i] = _mm512_dpbf16_ps(right[i], x, b_right);
    }
  }
  const __m512 factor = _mm512_set1_ps(alpha), bias_left = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps(), bias_right = bias ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, c += ldc) {
    _mm512_storeu_ps(c, _mm512_fmadd_ps(factor, left[i], overwrite ? bias_left : _mm512_loadu_ps(c)));
    _mm512_storeu_ps(c + 16, _mm512_fmadd_ps(factor, right[i], overwrite ? bias_right : _mm512_loadu_ps(c + 16)));
  }
}

template <int Max> void tile_bf16(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite, const float* bias) {
  if constexpr (Max > 1) {
    if (rows < Max) return tile_bf16<Max - 1>(rows, units, a, b, c, ldc, alpha, overwrite, bias);
  }
  tile_rows_bf16<Max>(units, a, b, c, ldc, alpha, overwrite, bias);
}

// 32 elements along k of a memory row as 16 units.
inline __m512i units_f32(const Source& s, int64_t row, int64_t i, int n) {
  const float* from = f32_row(s, row) + i;
  __m512 lo = _mm512_maskz_loadu_ps(first_lanes(n), from), hi = _mm512_setzero_ps();
  if (n > 16) hi = _mm512_maskz_loadu_ps(first_lanes(n - 16), from + 16);
  if (s.row_scale) {
    const __m512 f = _mm512_set1_ps(s.row_scale[row]);
    lo = _mm512_mul_ps(lo, f);
    hi = _mm512_mul_ps(hi, f);
  }
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(hi, lo));
}

const __m512i& interleave_halves() {  // words 0, 16, 1, 17, …
  alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return *reinterpret_cast<const __m512i*>(order);
}

// Two memory rows side by side: unit o = (row a [o], row b [o]). half(k, o, n): 16 bf16 of memory row k.
template <class Half> void pack_rows(uint32_t* dst, int outs, int width, int ks, const Half& half) {
  pack_across(dst, outs, width, (ks + 1) / 2, [&](int u, int o, int n) {
    const __m256i a = half(2 * u, o, n), b = 2 * u + 1 < ks ? half(2 * u + 1, o, n) : _mm256_setzero_si256();
    return _mm512_permutexvar_epi16(interleave_halves(), _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
  });
}

// k runs along MXFP4 rows: byte j of a group is unit j, so 16 rows × 16 bytes are transposed as dwords and each byte becomes a unit.
void pack_mxfp4_k_inner(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const int groups = ks / 32;
  const int64_t group0 = k0 / 32, block_ld = s.ld / 2, scale_ld = s.ld / 32;
  const __m512i table = code_table_bf16(), nibble_shift = _mm512_set1_epi32(0x00040000);
  __m512i spread[4];  // byte b of each dword into the low half of both its words
  for (int b = 0; b < 4; ++b)
    spread[b] = _mm512_or_si512(_mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0), _mm512_set1_epi32(static_cast<int>(0x80008000u) | b | b << 16));
  const int units = ks / 2;
  for (int o = 0; o < (outs + width - 1) / width * width; o += 16) {
    const uint8_t *blocks[16], *scales[16];
    for (int i = 0; i < 16; ++i) {  // columns beyond the edge repeat the last one; nothing of them is stored in c
      const int64_t row = o0 + (o + i < outs ? o + i : outs - 1);
      blocks[i] = static_cast<const uint8_t*>(s.data) + row * block_ld + group0 * 16;
      scales[i] = s.scales + row * scale_ld + group0;
    }
    for (int g0 = 0; g0 < groups; g0 += 16) {
      const int count = groups - g0 < 16 ? groups - g0 : 16;
      __m512i sq[4];
      transpose_16_rows_of_16_bytes(scales, g0, first_lanes(count), sq);
      for (int g = 0; g < count; ++g) {
        const __m512i e = _mm512_shuffle_epi8(sq[g >> 2], spread[g & 3]);
        const __m512i delta = _mm512_slli_epi16(_mm512_sub_epi16(e, _mm512_set1_epi16(127)), 7);
        __m512i q[4];
        transpose_16_rows_of_16_bytes(blocks, (g0 + g) * 16, 0xffff, q);
        if (g % 4 == 0)
          for (int i = 0; i < 16; ++i) prefetch(blocks[i] + width * block_ld + (g0 + g) * 16);
        uint32_t* to = dst + o / width * width * units + (g0 + g) * 16 * width + o % width;
        for (int j = 0; j < 4; ++j)
          for (int b = 0; b < 4; ++b) {
            const __m512i codes = _mm512_srlv_epi16(_mm512_shuffle_epi8(q[j], spread[b]), nibble_shift);
            _mm512_storeu_si512(to + (j * 4 + b) * width, scale_bf16(_mm512_permutexvar_epi16(codes, table), delta));
          }
      }
    }
  }
}

// k runs across MXFP4 rows: the same bytes read the other way. Byte j of rows k and k+1 makes two units, columns 2j and 2j+1.
void pack_mxfp4_k_outer(uint32_t* dst, const Source& s, int64_t o0, int outs, int64_t k0, int ks) {
  constexpr int width = 32;
  const int units = (ks + 1) / 2;
  const __m512i table = code_table_bf16();
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  const int64_t block_ld = s.ld / 2, scale_ld = s.ld / 32;
  for (int u = 0; u * 2 < ks; ++u)
    for (int o = 0; o < outs; o += width) {
      const int64_t group = (o0 + o) / 32, a = k0 + 2 * u, b = 2 * u + 1 < ks ? a + 1 : a;
      const uint8_t* blocks = static_cast<const uint8_t*>(s.data) + group * 16;
      const __m512i bytes_a = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + a * block_ld)));
      const __m512i bytes_b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + b * block_ld)));
      const __m512i codes = _mm512_or_si512(bytes_a, _mm512_slli_epi32(bytes_b, 16));
      const int ea = s.scales[a * scale_ld + group] - 127, eb = s.scales[b * scale_ld + group] - 127;
      const __m512i delta = _mm512_set1_epi32(static_cast<int>((static_cast<uint32_t>(ea << 7) & 0xffffu) | static_cast<uint32_t>(eb << 7) << 16));
      __m512i even = scale_bf16(_mm512_permutexvar_epi16(codes, table), delta);
      __m512i odd = scale_bf16(_mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), table), delta);
      if (b == a) {
        even = _mm512_and_si512(even, _mm512_set1_epi32(0xffff));
        odd = _mm512_and_si512(odd, _mm512_set1_epi32(0xffff));
      }
      _mm512_storeu_si512(dst + o * units + u * width, _mm512_permutex2var_epi32(even, low, odd));
      _mm512_storeu_si512(dst + o * units + u * width + 16, _mm512_permutex2var_epi32(even, high, odd));
    }
}

void pack_bf16(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const int units = (ks + 1) / 2;
  switch (s.kind) {
    case Kind::f32:
      if (s.k_inner) return pack_transposed(dst, outs, width, units, [&](int o, int u) { return units_f32(s, o0 + o, k0 + 2 * u, ks - 2 * u); });
      return pack_rows(dst, outs, width, ks, [&](int k, int o, int n) {
        const int64_t row = k0 + k;
        __m512 v = _mm512_maskz_loadu_ps(first_lanes(n), f32_row(s, row) + o0 + o);
        if (s.row_scale) v = _mm512_mul_ps(v, _mm512_set1_ps(s.row_scale[row]));
        return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
      });
    case Kind::bf16:
      if (s.k_inner)
        return pack_transposed(dst, outs, width, units, [&](int o, int u) {
          const uint16_t* from = bf16_row(s, o0 + o) + k0 + 2 * u;
          prefetch(from + width * s.ld);
          return _mm512_maskz_loadu_epi16(first_words(ks - 2 * u), from);
        });
      return pack_rows(dst, outs, width, ks, [&](int k, int o, int n) {
        const uint16_t* from = bf16_row(s, k0 + k) + o0 + o;
        if (o % 32 == 0) prefetch(from + kPanels * kMaxTileCols);
        return _mm256_maskz_loadu_epi16(first_lanes(n), from);
      });
    case Kind::mxfp4: {
      // Groups whose scale lies at the end of the range take the general decoder.
      const int64_t rows = s.k_inner ? outs : ks, first = s.k_inner ? o0 : k0, group = (s.k_inner ? k0 : o0) / 32, groups = (s.k_inner ? ks : outs) / 32;
      bool plain = width == 32 && groups * 32 == (s.k_inner ? ks : outs);
      for (int64_t r = 0; plain && r < rows; ++r) plain = scales_are_plain(s.scales + (first + r) * (s.ld / 32) + group, static_cast<int>(groups));
      if (!plain) return pack_any<2, true>(dst, s, o0, outs, width, k0, ks);
      if (s.k_inner) return pack_mxfp4_k_inner(dst, s, o0, outs, width, k0, ks);
      return pack_mxfp4_k_outer(dst, s, o0, outs, k0, ks);
    }
  }
}

}  // namespace

const Path kPathAvx512Bf16 = {12, 32, 2, pack_bf16, tile_bf16<12>};

}  // namespace temper::cpu
