// Few rows in f32: exact weights at precision 0, operands rounded to bf16 beforehand at precision 1.
#include "cpu/matmul/few_rows_avx512.h"

namespace temper::cpu {
namespace {

int64_t units(Kind kind, int64_t k) { return kind == Kind::mxfp4 ? (k + 127) / 128 * 128 : (k + 15) / 16 * 16; }

inline __m512 round_lanes(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v),
                odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_and_si512(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))),
                                      _mm512_set1_epi32(static_cast<int>(0xffff0000)));
  return _mm512_mask_mov_ps(_mm512_castsi512_ps(up), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), v);
}

// MXFP4 order: block of 128, then i = 0…7, then dword l: x[8l+i].
template <bool Round>
void prepare(uint32_t* dst, const Source& a, int64_t row, int64_t k, Kind kind) {
  float line[128];
  float* out = reinterpret_cast<float*>(dst);
  for (int64_t block = 0; block < k; block += 128, out += 128) {
    const int count = static_cast<int>(k - block < 128 ? k - block : 128);
    load_segment<Round>(line, a, row, block, count);
    const int padded = kind == Kind::mxfp4 ? 128 : (count + 15) / 16 * 16;
    for (int i = count; i < padded; ++i) line[i] = 0.0f;
    if (kind != Kind::mxfp4) {
      std::memcpy(out, line, static_cast<size_t>(padded) * 4);
      continue;
    }
    for (int i = 0; i < 8; ++i)
      for (int l = 0; l < 16; ++l) out[i * 16 + l] = line[8 * l + i];
  }
}

template <int M>
void dots_mxfp4(float* out, int64_t ld, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const __m512 table = _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
  const int64_t row_bytes = k / 2, groups = k / 32, row_units = units(Kind::mxfp4, k);
  for (int64_t n = n0; n < n1; ++n) {
    const uint8_t* blocks = static_cast<const uint8_t*>(b.data) + n * (b.ld / 2);
    const uint8_t* scales = b.scales + n * (b.ld / 32);
    __m512 sum[M];
    for (int i = 0; i < M; ++i) sum[i] = _mm512_setzero_ps();
    const float* xs = reinterpret_cast<const float*>(x);
    const auto step = [&](__m512i bytes, uint32_t four) {
      __m512 part[M][2];
      for (int i = 0; i < M; ++i) part[i][0] = part[i][1] = _mm512_setzero_ps();
      for (int j = 0; j < 8; ++j) {
        const __m512 w = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, static_cast<unsigned>(4 * j)), table);
        for (int i = 0; i < M; ++i)
          part[i][j & 1] = _mm512_fmadd_ps(w, _mm512_loadu_ps(xs + i * row_units + j * 16), part[i][j & 1]);
      }
      const __m512 factor = group_scales(four);
      for (int i = 0; i < M; ++i) sum[i] = _mm512_fmadd_ps(_mm512_add_ps(part[i][0], part[i][1]), factor, sum[i]);
      xs += 128;
    };
    int64_t at = 0;
    for (; at + 64 <= row_bytes; at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(blocks + at + kPrefetch), _MM_HINT_T0);
      step(_mm512_loadu_si512(blocks + at), four_scales(scales + at / 16, 4));
    }
    if (at < row_bytes)
      step(_mm512_maskz_loadu_epi8(first_bytes(row_bytes - at), blocks + at),
           four_scales(scales + at / 16, static_cast<int>(groups - at / 16)));
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(sum[i]);
  }
}

template <int M, class Load>
void dots_dense(float* out, int64_t ld, const uint32_t* x, int64_t n0, int64_t n1, int64_t k, const Load& load) {
  const int64_t row_units = units(Kind::f32, k);
  for (int64_t n = n0; n < n1; ++n) {
    __m512 sum[M][2];
    for (int i = 0; i < M; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    int64_t at = 0;
    const auto step = [&](int lane, __mmask16 mask) {
      const __m512 w = load(n, at, mask);
      for (int i = 0; i < M; ++i)
        sum[i][lane] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + i * row_units + at), sum[i][lane]);
      at += 16;
    };
    while (at + 32 <= k) {
      step(0, 0xffff);
      step(1, 0xffff);
    }
    if (at + 16 <= k) step(0, 0xffff);
    if (at < k) step(1, first_lanes(static_cast<int>(k - at)));
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]));
  }
}

constexpr int64_t kShort = 16;  // inputs of one step of a sum, most of k in the form below

// Few inputs, as of an adapter's B: what is around a sum would be most of it.
template <int Lanes, bool Round>
void dots_short(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const __m512i in_order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t n = n0; n < n1; n += 16) {
    const int count = static_cast<int>(n1 - n < 16 ? n1 - n : 16);
    __m512 t[Lanes];
    for (int l = 0; l < Lanes; l += 4) {
      const int64_t left = k - l;  // may be below 1
      const __mmask8 inputs = static_cast<__mmask8>(left >= 4 ? 0xf : left > 0 ? (1 << left) - 1 : 0);
      const auto row = [&](int i) { return n + (i < count ? i : count - 1); };
      __m512i four[4];
      if (b.kind == Kind::bf16)
        transpose_16_bytes(four, [&](int i) {
          return _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(inputs, bf16_row(b, row(i)) + l)), 16);
        });
      else
        transpose_16_bytes(four,
                           [&](int i) { return _mm_castps_si128(_mm_maskz_loadu_ps(inputs, f32_row(b, row(i)) + l)); });
      for (int i = 0; i < 4; ++i) {
        const __m512 w = _mm512_castsi512_ps(four[i]);
        t[l + i] = Round && b.kind == Kind::f32 ? round_lanes(w) : w;
      }
    }
    sum_lanes<Lanes>(out + n - n0, ld, m, x, kShort, in_order, first_lanes(count), [&](int l, uint32_t unit) {
      return _mm512_mul_ps(t[l], _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(unit))));
    });
  }
}

template <int M, bool Round>
void dots_q8(float* out, int64_t ld, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const int64_t row_units = units(Kind::q8, k);
  for (int64_t n = n0; n < n1; ++n) {
    const Q8Row row = q8_row(b, n, 0);
    __m512 sum[M][2];
    for (int i = 0; i < M; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t at = 0; at < k; at += 32) {
      _mm_prefetch(reinterpret_cast<const char*>(row.q + at) + kPrefetch, _MM_HINT_T0);
      for (int half = 0; half < 2; ++half) {
        const __m512 w = load_q8(row, at + 16 * half);
        const __m512 operand = Round ? round_lanes(w) : w;
        for (int i = 0; i < M; ++i)
          sum[i][half] = _mm512_fmadd_ps(operand, _mm512_loadu_ps(x + i * row_units + at + 16 * half), sum[i][half]);
      }
    }
    for (int i = 0; i < M; ++i) out[i * ld + n - n0] = _mm512_reduce_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]));
  }
}

template <bool Round>
void dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  if (k > 0 && k <= kShort && (b.kind == Kind::f32 || b.kind == Kind::bf16)) {
    const auto form = k <= 4 ? dots_short<4, Round> : k <= 8 ? dots_short<8, Round> : dots_short<16, Round>;
    return form(out, ld, m, x, b, n0, n1, k);
  }
  with_rows<kFewRows>(m, [&]<int M>() {
    switch (b.kind) {
      case Kind::mxfp4: return dots_mxfp4<M>(out, ld, x, b, n0, n1, k);
      case Kind::q8: return dots_q8<M, Round>(out, ld, x, b, n0, n1, k);
      case Kind::bf16:
        return dots_dense<M>(out, ld, x, n0, n1, k, [&](int64_t n, int64_t at, __mmask16 mask) {
          const uint16_t* from = bf16_row(b, n) + at;
          _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetch, _MM_HINT_T0);
          return _mm512_castsi512_ps(
              _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
        });
      case Kind::f32:
        return dots_dense<M>(out, ld, x, n0, n1, k, [&](int64_t n, int64_t at, __mmask16 mask) {
          const __m512 w = _mm512_maskz_loadu_ps(mask, f32_row(b, n) + at);
          return Round ? round_lanes(w) : w;
        });
    }
  });
}

}  // namespace

const FewRows kFewRowsAvx512 = {kFewRows, kFewRows, units, each_row<units, prepare<false>>, dots<false>};
const FewRows kFewRowsAvx512Rounded = {kFewRows, kFewRows, units, each_row<units, prepare<true>>, dots<true>};

}  // namespace temper::cpu
