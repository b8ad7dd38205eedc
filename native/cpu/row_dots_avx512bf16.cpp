// Few rows on the bf16 dot product. MXFP4: a shift and one table look-up turn 64 bytes into four vectors of code pairs; the group's
// scale is applied once, to the sum of the four.
#include "row_dots_avx512.h"

namespace temper::cpu {
namespace {

__m512bh as_bf16(__m512i v) { return reinterpret_cast<__m512bh>(v); }

int64_t units(Kind kind, int64_t k) { return kind == Kind::mxfp4 ? (k + 127) / 128 * 64 : (k + 31) / 32 * 16; }

// MXFP4 order: block of 128, then i = 0…3, then dword l: the pair (x[8l+i], x[8l+i+4]).
void prepare(uint32_t* dst, const Source& a, int64_t row, int64_t k, Kind kind) {
  const float* x = f32_row(a, row);
  const __m512 factor = _mm512_set1_ps(a.row_scale ? a.row_scale[row] : 1.0f);
  const auto load16 = [&](int64_t i) {
    return i < k ? _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(static_cast<int>(k - i < 16 ? k - i : 16)), x + i), factor) : _mm512_setzero_ps();
  };
  if (kind != Kind::mxfp4) {
    for (int64_t i = 0; i < k; i += 32) _mm512_storeu_si512(dst + i / 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load16(i + 16), load16(i))));
    return;
  }
  alignas(64) uint16_t line[128];
  uint16_t* out = reinterpret_cast<uint16_t*>(dst);
  for (int64_t block = 0; block < k; block += 128, out += 128) {
    for (int i = 0; i < 128; i += 32) _mm512_store_si512(line + i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load16(block + i + 16), load16(block + i))));
    for (int i = 0; i < 4; ++i)
      for (int l = 0; l < 16; ++l) {
        out[i * 32 + 2 * l] = line[8 * l + i];
        out[i * 32 + 2 * l + 1] = line[8 * l + i + 4];
      }
  }
}

template <int M> void dots_mxfp4(float* out, int64_t ld, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const __m512i table = code_table_bf16();
  const int64_t row_bytes = k / 2, groups = k / 32, row_units = units(Kind::mxfp4, k);
  for (int64_t n = n0; n < n1; ++n) {
    const uint8_t* blocks = static_cast<const uint8_t*>(b.data) + n * (b.ld / 2);
    const uint8_t* scales = b.scales + n * (b.ld / 32);
    __m512 sum[M];
    for (int i = 0; i < M; ++i) sum[i] = _mm512_setzero_ps();
    const uint32_t* xs = x;
    const auto step = [&](__m512i bytes, uint32_t four) {
      const __m512 factor = group_scales(four);
      __m512bh w[4];
      for (int i = 0; i < 4; ++i) w[i] = as_bf16(_mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, static_cast<unsigned>(4 * i)), table));
      for (int i = 0; i < M; ++i) {
        const uint32_t* at = xs + i * row_units;
        __m512 even = _mm512_dpbf16_ps(_mm512_setzero_ps(), w[0], as_bf16(_mm512_loadu_si512(at)));
        __m512 odd = _mm512_dpbf16_ps(_mm512_setzero_ps(), w[1], as_bf16(_mm512_loadu_si512(at + 16)));
        even = _mm512_dpbf16_ps(even, w[2], as_bf16(_mm512_loadu_si512(at + 32)));
        odd = _mm512_dpbf16_ps(odd, w[3], as_bf16(_mm512_loadu_si512(at + 48)));
        sum[i] = _mm512_fmadd_ps(_mm512_add_ps(even, odd), factor, sum[i]);
      }
      xs += 64;
    };
    int64_t at = 0;
    for (; at + 64 <= row_bytes; at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(blocks + at + kPrefetch), _MM_HINT_T0);
      step(_mm512_loadu_si512(blocks + at), four_scales(scales + at / 16, 4));
    }
    if (at < row_bytes) step(_mm512_maskz_loadu_epi8(first_bytes(row_bytes - at), blocks + at), four_scales(scales + at / 16, static_cast<int>(groups - at / 16)));
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(sum[i]);
  }
}

template <int M, class Load> void dots_dense(float* out, int64_t ld, const uint32_t* x, int64_t n0, int64_t n1, int64_t k, const Load& load) {
  const int64_t row_units = units(Kind::bf16, k);
  for (int64_t n = n0; n < n1; ++n) {
    __m512 sum[M][2];
    for (int i = 0; i < M; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    int64_t at = 0;
    const auto step = [&](int lane, int count) {
      const __m512bh w = load(n, at, count);
      for (int i = 0; i < M; ++i) sum[i][lane] = _mm512_dpbf16_ps(sum[i][lane], w, as_bf16(_mm512_loadu_si512(x + i * row_units + at / 2)));
      at += 32;
    };
    while (at + 64 <= k) {
      step(0, 32);
      step(1, 32);
    }
    if (at + 32 <= k) step(0, 32);
    if (at < k) step(1, static_cast<int>(k - at));
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]));
  }
}

template <int M> void dots_q8(float* out, int64_t ld, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const int64_t row_units = units(Kind::q8, k);
  for (int64_t n = n0; n < n1; ++n) {
    const Q8Row row = q8_row(b, n, 0);
    __m512 sum[M][2];
    for (int i = 0; i < M; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    const auto step = [&](int lane, int64_t at) {
      const __m512bh w = _mm512_cvtne2ps_pbh(load_q8(row, at + 16), load_q8(row, at));
      for (int i = 0; i < M; ++i) sum[i][lane] = _mm512_dpbf16_ps(sum[i][lane], w, as_bf16(_mm512_loadu_si512(x + i * row_units + at / 2)));
    };
    int64_t at = 0;
    for (; at + 64 <= k; at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(row.q + at) + kPrefetch, _MM_HINT_T0);
      step(0, at);
      step(1, at + 32);
    }
    if (at < k) step(0, at);
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]));
  }
}

void dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  with_rows<kFewRows>(m, [&]<int M>() {
    switch (b.kind) {
      case Kind::mxfp4: return dots_mxfp4<M>(out, ld, x, b, n0, n1, k);
      case Kind::q8: return dots_q8<M>(out, ld, x, b, n0, n1, k);
      case Kind::bf16:
        return dots_dense<M>(out, ld, x, n0, n1, k, [&](int64_t n, int64_t at, int count) {
          const uint16_t* from = bf16_row(b, n) + at;
          _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetch, _MM_HINT_T0);
          return as_bf16(count == 32 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(first_words(count), from));
        });
      case Kind::f32:
        return dots_dense<M>(out, ld, x, n0, n1, k, [&](int64_t n, int64_t at, int count) {
          const float* from = f32_row(b, n) + at;
          const __m512 lo = _mm512_maskz_loadu_ps(first_lanes(count), from);
          const __m512 hi = count > 16 ? _mm512_maskz_loadu_ps(first_lanes(count - 16), from + 16) : _mm512_setzero_ps();
          return _mm512_cvtne2ps_pbh(hi, lo);
        });
    }
  });
}

}  // namespace

const RowDots kRowDotsAvx512Bf16 = {units, prepare, dots};

}  // namespace temper::cpu
