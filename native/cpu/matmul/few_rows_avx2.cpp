// Few rows with AVX2. MXFP4: one byte shuffle looks up the upper and one the lower byte of a bf16; the group's scale is
// applied once, to the sum of its 32 products. f32 weights have the sums of the general form, few_rows_any, to the bit:
// of pairs of adapters they are short, thousands in a step, and it spent its time on what is around a sum.
#include "cpu/host/vector_avx2.h"
#include "cpu/matmul/few_rows.h"

namespace temper::cpu {
namespace {

float group_scale(uint8_t e) {  // 2^(e−127); e = 0 gives the subnormal 2^−127, 255 the format's NaN
  const uint32_t bits = e == 255 ? 0x7fc00000u : e ? static_cast<uint32_t>(e) << 23 : 0x00400000u;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

__m256 round_lanes(__m256 v) {  // to bf16, nearest even; weights are finite
  const __m256i bits = _mm256_castps_si256(v),
                odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  return _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// MXFP4 order: of every 8 the even ones, then the odd ones, as the nibbles come apart.
template <bool Round>
void prepare(uint32_t* dst, const Source& a, int64_t row, int64_t k, Kind kind) {
  dot_prepare_any<Round>(dst, a, row, k, kind);
  if (kind != Kind::mxfp4) return;
  const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  for (int64_t i = 0; i < k; i += 8) {
    __m256i* at = reinterpret_cast<__m256i*>(dst + i);
    _mm256_storeu_si256(at, _mm256_permutevar8x32_epi32(_mm256_loadu_si256(at), order));
  }
}

// Weight rows n and, for Cols = 2, n + apart: two streams from memory.
template <int M, int Cols>
void dots_mxfp4(float* out, int64_t ld, const float* x, const Source& b, int64_t n, int64_t apart, int64_t k) {
  const __m256i upper = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80,
                                                                  -0x41, -0x41, -0x41, -0x40, -0x40, -0x40, -0x40));
  const __m256i lower = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40));
  const __m256i zero = _mm256_setzero_si256();
  const uint8_t *blocks[Cols], *scales[Cols];
  __m256 sum[Cols][M];
  for (int c = 0; c < Cols; ++c) {
    blocks[c] = static_cast<const uint8_t*>(b.data) + (n + c * apart) * (b.ld / 2);
    scales[c] = b.scales + (n + c * apart) * (b.ld / 32);
    for (int64_t at = 0; at < k / 32; at += 64)
      _mm_prefetch(reinterpret_cast<const char*>(scales[c]) + at + kPrefetch, _MM_HINT_T0);
    for (int i = 0; i < M; ++i) sum[c][i] = _mm256_setzero_ps();
  }
  for (int64_t g = 0; g < k / 32; ++g, x += 32)
    for (int c = 0; c < Cols; ++c) {
      if (g % 4 == 0) _mm_prefetch(reinterpret_cast<const char*>(blocks[c] + 16 * g) + kPrefetch, _MM_HINT_T0);
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks[c] + 16 * g));
      const __m256i codes = _mm256_and_si256(
          _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1), _mm256_set1_epi8(15));
      const __m256i high = _mm256_shuffle_epi8(upper, codes), low = _mm256_shuffle_epi8(lower, codes);
      const __m256i first = _mm256_unpacklo_epi8(low, high), last = _mm256_unpackhi_epi8(low, high);
      const __m256 w[4] = {_mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, first)),
                           _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, first)),
                           _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, last)),
                           _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, last))};
      const __m256 factor = _mm256_set1_ps(group_scale(scales[c][g]));
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const float* at = x + i * k;
        __m256 part = _mm256_mul_ps(w[0], _mm256_loadu_ps(at));
        for (int j = 1; j < 4; ++j) part = _mm256_fmadd_ps(w[j], _mm256_loadu_ps(at + 8 * j), part);
        sum[c][i] = _mm256_fmadd_ps(part, factor, sum[c][i]);
      }
    }
  for (int c = 0; c < Cols; ++c)
    for (int i = 0; i < M; ++i) out[i * ld + c * apart] = sum_of(sum[c][i]);
}

// load(c, at): 8 weights of row n + c·apart; rest: the last k mod 8 products, one by one.
template <int M, int Cols, class Load, class One>
void dots_dense(float* out, int64_t ld, const float* x, int64_t apart, int64_t k, const Load& load, const One& one) {
  __m256 sum[Cols][M];
  for (int c = 0; c < Cols; ++c)
    for (int i = 0; i < M; ++i) sum[c][i] = _mm256_setzero_ps();
  int64_t at = 0;
  for (; at + 8 <= k; at += 8)
    for (int c = 0; c < Cols; ++c) {
      const __m256 w = load(c, at);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) sum[c][i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + i * k + at), sum[c][i]);
    }
  for (int c = 0; c < Cols; ++c)
    for (int i = 0; i < M; ++i) {
      float total = sum_of(sum[c][i]);
      for (int64_t j = at; j < k; ++j) total += one(c, j) * x[i * k + j];
      out[i * ld + c * apart] = total;
    }
}

template <int M, int Cols, bool Round>
void dots_at(float* out, int64_t ld, const float* x, const Source& b, int64_t n, int64_t apart, int64_t k) {
  if (b.kind == Kind::mxfp4) return dots_mxfp4<M, Cols>(out, ld, x, b, n, apart, k);
  if (b.kind == Kind::bf16) {
    const uint16_t* row[Cols];
    for (int c = 0; c < Cols; ++c) row[c] = static_cast<const uint16_t*>(b.data) + (n + c * apart) * b.ld;
    return dots_dense<M, Cols>(
        out, ld, x, apart, k,
        [&](int c, int64_t at) {
          if (at % 32 == 0) _mm_prefetch(reinterpret_cast<const char*>(row[c] + at) + kPrefetch, _MM_HINT_T0);
          return _mm256_castsi256_ps(_mm256_slli_epi32(
              _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row[c] + at))), 16));
        },
        [&](int c, int64_t j) {
          const uint32_t bits = static_cast<uint32_t>(row[c][j]) << 16;
          float w;
          std::memcpy(&w, &bits, sizeof w);
          return w;
        });
  }
  const int8_t* q[Cols];
  const uint16_t* scales[Cols];
  for (int c = 0; c < Cols; ++c) {
    q[c] = static_cast<const int8_t*>(b.data) + (n + c * apart) * b.ld;
    scales[c] = b.q8_scales + (n + c * apart) * (b.ld / 32);
  }
  dots_dense<M, Cols>(
      out, ld, x, apart, k,
      [&](int c, int64_t at) {
        if (at % 64 == 0) _mm_prefetch(reinterpret_cast<const char*>(q[c] + at) + kPrefetch, _MM_HINT_T0);
        const __m256 scale = _mm256_castsi256_ps(_mm256_set1_epi32(scales[c][at / 32] << 16));
        const __m256 w = _mm256_mul_ps(
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q[c] + at)))),
            scale);
        return Round ? round_lanes(w) : w;
      },
      [](int, int64_t) { return 0.0f; });  // rows are whole groups of 32
}

// round_lanes of any f32: NaN stays one, as in to_bf16_and_back.
__m256 quiet_lanes(__m256 v) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000))),
               quiet = _mm256_or_ps(_mm256_and_ps(v, upper), _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000)));
  return _mm256_blendv_ps(round_lanes(v), quiet, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}
template <bool Round>
__m256 weights(const float* w) {
  const __m256 v = _mm256_loadu_ps(w);
  if constexpr (!Round) return v;
  if (_mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q))) [[unlikely]]
    return quiet_lanes(v);
  return round_lanes(v);
}
template <bool Round>
float weight(float w) {
  return Round ? to_bf16_and_back(w) : w;
}
template <bool>
__m256 weights(const uint16_t* w) {  // bf16
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w))), 16));
}
template <bool>
float weight(uint16_t w) {
  const uint32_t bits = static_cast<uint32_t>(w) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// One output of M rows: sixteen sums each, then what is over.
template <int M, bool Round, class W>
void dots_f32(float* out, int64_t ld, const float* x, const W* w, int64_t k) {
  __m256 first[M], second[M];
  for (int i = 0; i < M; ++i) first[i] = second[i] = _mm256_setzero_ps();
  int64_t at = 0;
  for (; at + 16 <= k; at += 16) {
    const __m256 w0 = weights<Round>(w + at), w1 = weights<Round>(w + at + 8);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      first[i] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(x + i * k + at), first[i]);
      second[i] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(x + i * k + at + 8), second[i]);
    }
  }
  for (int i = 0; i < M; ++i) {
    float total = 0.0f;
    for (int64_t j = at; j < k; ++j) total += weight<Round>(w[j]) * x[i * k + j];
    out[i * ld] = total + sum_of(_mm256_add_ps(first[i], second[i]));
  }
}

constexpr int64_t kShort = 64;  // most of k in the form below

// t[j] lane o = w[o·ld + j], of 8 outputs o and 8 j.
template <bool Round, class W>
inline void turn_eight(__m256 (&t)[8], const W* w, int64_t ld) {
  __m256 r[8], s[8];
#pragma GCC unroll 8
  for (int o = 0; o < 8; ++o) r[o] = weights<Round>(w + o * ld);
#pragma GCC unroll 4
  for (int o = 0; o < 4; ++o) {
    s[2 * o] = _mm256_unpacklo_ps(r[2 * o], r[2 * o + 1]);
    s[2 * o + 1] = _mm256_unpackhi_ps(r[2 * o], r[2 * o + 1]);
  }
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h)
    for (int o = 0; o < 2; ++o) {
      r[4 * h + 2 * o] = _mm256_shuffle_ps(s[4 * h + o], s[4 * h + o + 2], 0x44);
      r[4 * h + 2 * o + 1] = _mm256_shuffle_ps(s[4 * h + o], s[4 * h + o + 2], 0xee);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x20);
    t[j + 4] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x31);
  }
}
template <bool Round, class W>
void turn(float (*t)[8], const W* w, int64_t ld, int64_t k) {
  int64_t at = 0;
  for (; at + 8 <= k; at += 8) {
    __m256 eight[8];
    turn_eight<Round, W>(eight, w + at, ld);
    for (int j = 0; j < 8; ++j) _mm256_store_ps(t[at + j], eight[j]);
  }
  for (; at < k; ++at)
    for (int o = 0; o < 8; ++o) t[at][o] = weight<Round>(w[o * ld + at]);
}
// As below for k = 8, in registers.
template <bool Round, class W>
void dots_eight(float* out, int64_t ld, int m, const float* x, const W* w, int64_t w_ld) {
  __m256 t[8];
  turn_eight<Round, W>(t, w, w_ld);
  for (int i = 0; i < m; ++i, x += 8) {
    __m256 total = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) total = _mm256_add_ps(total, _mm256_mul_ps(t[j], _mm256_set1_ps(x[j])));
    _mm256_storeu_ps(out + i * ld, total);
  }
}
// Eight outputs side by side, the lanes of a sum one after another.
template <bool Round, class W>
void dots_short(float* out, int64_t ld, int m, const float* x, const W* w, int64_t w_ld, int64_t k) {
  alignas(32) float t[kShort][8];
  turn<Round, W>(t, w, w_ld, k);
  const int64_t whole = k / 16 * 16;
  for (int i = 0; i < m; ++i, x += k) {
    __m256 total = _mm256_setzero_ps(), s[8];
    for (int64_t j = whole; j < k; ++j)
      total = _mm256_add_ps(total, _mm256_mul_ps(_mm256_load_ps(t[j]), _mm256_set1_ps(x[j])));
    if (whole > 0) {
      for (int l = 0; l < 8; ++l) {
        __m256 first = _mm256_setzero_ps(), second = _mm256_setzero_ps();
        for (int64_t j = l; j < whole; j += 16) {
          first = _mm256_fmadd_ps(_mm256_load_ps(t[j]), _mm256_set1_ps(x[j]), first);
          second = _mm256_fmadd_ps(_mm256_load_ps(t[j + 8]), _mm256_set1_ps(x[j + 8]), second);
        }
        s[l] = _mm256_add_ps(first, second);
      }
      for (int half = 4; half; half /= 2)
        for (int l = 0; l < half; ++l) s[l] = _mm256_add_ps(s[l], s[l + half]);
      total = _mm256_add_ps(total, s[0]);
    }
    _mm256_storeu_ps(out + i * ld, total);
  }
}
template <bool Round, class W>
void dots_of_f32(float* out, int64_t ld, int m, const float* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const W* w = static_cast<const W*>(b.data);
  int64_t n = n0;
  if (k == 8)
    for (; n + 8 <= n1; n += 8) {
      for (size_t line = 0; line < 64 * sizeof(W);
           line += 64)  // pairs are read once, from a cache far away, a few KiB each
        _mm_prefetch(reinterpret_cast<const char*>(w + n * b.ld) + 1024 + line, _MM_HINT_T0);
      dots_eight<Round, W>(out + n - n0, ld, m, x, w + n * b.ld, b.ld);
    }
  else if (k <= kShort)
    for (; n + 8 <= n1; n += 8) dots_short<Round, W>(out + n - n0, ld, m, x, w + n * b.ld, b.ld, k);
  with_rows<kFewRows>(m, [&]<int M>() {
    for (; n < n1; ++n) dots_f32<M, Round, W>(out + n - n0, ld, x, w + n * b.ld, k);
  });
}

template <bool Round>
void dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const float* rows = reinterpret_cast<const float*>(x);
  if (b.kind == Kind::f32) return dots_of_f32<Round, float>(out, ld, m, rows, b, n0, n1, k);
  if (b.as_f32) return dots_of_f32<Round, uint16_t>(out, ld, m, rows, b, n0, n1, k);
  with_rows<kFewRows>(m, [&]<int M>() {
    constexpr int cols = M <= 3 ? 2 : 1;  // as many sums as registers hold
    const int64_t apart = (n1 - n0) / cols;
    for (int64_t j = 0; j < apart; ++j) dots_at<M, cols, Round>(out + j, ld, rows, b, n0 + j, apart, k);
    if (cols == 2 && (n1 - n0) % 2) dots_at<M, 1, Round>(out + 2 * apart, ld, rows, b, n1 - 1, 0, k);
  });
}

}  // namespace

const FewRows kFewRowsAvx2 = {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, prepare<false>>, dots<false>};
const FewRows kFewRowsAvx2Rounded = {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, prepare<true>>,
                                     dots<true>};

}  // namespace temper::cpu
