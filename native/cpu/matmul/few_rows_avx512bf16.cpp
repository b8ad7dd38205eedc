// Few rows on the bf16 dot product. MXFP4: a shift and one table look-up turn 64 bytes into four vectors of code pairs;
// the group's scale is applied once, to the sum of the four.
#include "cpu/matmul/few_rows_bf16.h"

namespace temper::cpu {
namespace {

// The sum of 16 lanes: the upper half onto the lower, again and again.
inline float add_lanes(__m512 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// add_lanes of 4 × 4 vectors with the same bits, in half the instructions: lane 4·i + c is the sum of sums[4·i + c].
[[gnu::always_inline]] inline __m512 add_lanes_of_16(const __m512* sums) {
  __m512 half[8], quarter[4], pair[2];
  // What the steps below gather from places i, i + 4, i + 8, i + 12 stands side by side at the end.
  const auto at = [&](int i) { return sums[4 * (i % 4) + i / 4]; };
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(at(2 * i), at(2 * i + 1), 0x44),
                            _mm512_shuffle_f32x4(at(2 * i), at(2 * i + 1), 0xee));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    quarter[i] = _mm512_add_ps(_mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0x88),
                               _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(quarter[2 * i]), b = _mm512_castps_pd(quarter[2 * i + 1]);
    pair[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(pair[0], pair[1], _MM_SHUFFLE(2, 0, 2, 0)),
                       _mm512_shuffle_ps(pair[0], pair[1], _MM_SHUFFLE(3, 1, 3, 1)));
}

constexpr int kManyCols = 4;
// out[i][0…Cols) = the sums of sums[i][0…Cols), i < m ≤ 16 / Cols.
template <int Cols>
[[gnu::always_inline]] inline void add_up(float* out, int64_t ld, int m, const __m512* sums) {
  const __m512 all = add_lanes_of_16(sums);
  if constexpr (Cols == 16) {
    _mm512_storeu_ps(out, all);
  } else if constexpr (Cols == 8) {
    _mm256_storeu_ps(out, _mm512_castps512_ps256(all));
    if (m > 1) _mm256_storeu_ps(out + ld, _mm512_extractf32x8_ps(all, 1));
  } else {
    static_assert(Cols == 4);
    _mm_storeu_ps(out, _mm512_castps512_ps128(all));
    if (m > 1) _mm_storeu_ps(out + ld, _mm512_extractf32x4_ps(all, 1));
    if (m > 2) _mm_storeu_ps(out + 2 * ld, _mm512_extractf32x4_ps(all, 2));
    if (m > 3) _mm_storeu_ps(out + 3 * ld, _mm512_extractf32x4_ps(all, 3));
  }
}

void prepare(uint32_t* dst, const Source& a, int64_t row, int64_t k, Kind kind) {
  prepare_part(dst, a, row, 0, k, k, kind);
}

// Of memory that is met line by line: at every fourth, asks for the four that lie `ahead` bytes from it. Where a few
// rows of x leave time between two lines, memory answers four requests at once sooner than one with each line
// (docs/log.md). Always inline: GCC drops calls that only ask.
[[gnu::always_inline]] inline void ask_for_four(const void* at, int64_t line, int64_t ahead) {
  if (line % 4 == 0)
    for (int i = 0; i < 4; ++i) _mm_prefetch(static_cast<const char*>(at) + ahead + 64 * i, _MM_HINT_T0);
}
constexpr int64_t kAskAhead = 2048;

// 128 weights of one row: word 8l + i and the one four further on, of all dwords l, are a pair of w[i].
struct Line {
  __m512bh w[4];
  __m512 factor;  // of the sums of their lanes
};
inline Line line_of(__m512i bytes, uint32_t four, __m512i table) {
  Line line;
  for (int i = 0; i < 4; ++i)
    line.w[i] = as_bf16(_mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, static_cast<unsigned>(4 * i)), table));
  line.factor = group_scales(four);
  return line;
}
// sum plus its products with a prepared row of x.
inline __m512 add_line(const Line& line, const uint32_t* x, __m512 sum) {
  __m512 even = _mm512_dpbf16_ps(_mm512_setzero_ps(), line.w[0], as_bf16(_mm512_loadu_si512(x)));
  __m512 odd = _mm512_dpbf16_ps(_mm512_setzero_ps(), line.w[1], as_bf16(_mm512_loadu_si512(x + 16)));
  even = _mm512_dpbf16_ps(even, line.w[2], as_bf16(_mm512_loadu_si512(x + 32)));
  odd = _mm512_dpbf16_ps(odd, line.w[3], as_bf16(_mm512_loadu_si512(x + 48)));
  return _mm512_fmadd_ps(_mm512_add_ps(even, odd), line.factor, sum);
}

// Each of these takes `Cols` weight rows at once, n and those `apart` further on. Two distant rows are two streams for
// the hardware's prefetcher. `done(i, c, sum)` is called with the sum of row i of x by weight row c.
template <int M, int Cols, class Done>
void sum_mxfp4(const uint32_t* x, const Source& b, int64_t n, int64_t apart, int64_t k, const Done& done) {
  const __m512i table = code_table_bf16();
  const int64_t row_bytes = k / 2, groups = k / 32, row_units = units_bf16(Kind::mxfp4, k);
  const uint8_t *blocks[Cols], *scales[Cols];
  __m512 sum[Cols][M];
  for (int c = 0; c < Cols; ++c) {
    blocks[c] = static_cast<const uint8_t*>(b.data) + (n + c * apart) * (b.ld / 2);
    scales[c] = b.scales + (n + c * apart) * (b.ld / 32);
    for (int64_t at = 0; at < groups; at += 64)
      _mm_prefetch(reinterpret_cast<const char*>(scales[c]) + at + kPrefetch, _MM_HINT_T0);
    for (int i = 0; i < M; ++i) sum[c][i] = _mm512_setzero_ps();
  }
  const auto step = [&](int c, __m512i bytes, uint32_t four) {
    const Line line = line_of(bytes, four, table);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) sum[c][i] = add_line(line, x + i * row_units, sum[c][i]);
  };
  int64_t at = 0;
  for (; at + 64 <= row_bytes; at += 64, x += 64)
    for (int c = 0; c < Cols; ++c) {
      if (M >= 2 && M <= 5) ask_for_four(blocks[c] + at, at / 64, kAskAhead);
      else _mm_prefetch(reinterpret_cast<const char*>(blocks[c] + at + kPrefetch), _MM_HINT_T0);
      step(c, _mm512_loadu_si512(blocks[c] + at), four_scales(scales[c] + at / 16, 4));
    }
  if (at < row_bytes)
    for (int c = 0; c < Cols; ++c)
      step(c, _mm512_maskz_loadu_epi8(first_bytes(row_bytes - at), blocks[c] + at),
           four_scales(scales[c] + at / 16, static_cast<int>(groups - at / 16)));
  for (int c = 0; c < Cols; ++c)
    for (int i = 0; i < M; ++i) done(i, c, sum[c][i]);
}

// Adds the products of inputs [from, to) to sums [M][Cols]. load(c, at, count): 32 weights of row n + c·apart from `at`
// on, zero beyond count.
template <int M, int Cols, class Load>
[[gnu::always_inline]] inline void add_dense(__m512* sums, const uint32_t* x, int64_t row_units, int64_t from,
                                             int64_t to, const Load& load) {
  __m512 sum[Cols][M];
#pragma GCC unroll 8
  for (int c = 0; c < Cols; ++c)
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) sum[c][i] = sums[i * Cols + c];
  const auto step = [&](int64_t at, int count) {
    __m512bh w[Cols];
#pragma GCC unroll 8
    for (int c = 0; c < Cols; ++c) w[c] = load(c, at, count);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const __m512bh xi = as_bf16(_mm512_loadu_si512(x + i * row_units + at / 2));
#pragma GCC unroll 8
      for (int c = 0; c < Cols; ++c) sum[c][i] = _mm512_dpbf16_ps(sum[c][i], w[c], xi);
    }
  };
  int64_t at = from;
  for (; at + 32 <= to; at += 32) step(at, 32);
  if (at < to) step(at, static_cast<int>(to - at));
#pragma GCC unroll 8
  for (int c = 0; c < Cols; ++c)
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) sums[i * Cols + c] = sum[c][i];
}

// f(load) with the loads of dense weights, for M rows of x.
template <int M, int Cols, class F>
void with_loads(const Source& b, int64_t n, int64_t apart, const F& f) {
  if (b.kind == Kind::q8) {
    Q8Row row[Cols];
    for (int c = 0; c < Cols; ++c) row[c] = q8_row(b, n + c * apart, 0);
    return f([&](int c, int64_t at, int) {  // rows are whole groups of 32
      if (at % 64 == 0) _mm_prefetch(reinterpret_cast<const char*>(row[c].q + at) + kPrefetch, _MM_HINT_T0);
      return _mm512_cvtne2ps_pbh(load_q8(row[c], at + 16), load_q8(row[c], at));
    });
  }
  if (b.kind == Kind::bf16) {
    const uint16_t* row[Cols];
    for (int c = 0; c < Cols; ++c) row[c] = bf16_row(b, n + c * apart);
    return f([&](int c, int64_t at, int count) {
      if (M == 2) ask_for_four(row[c] + at, at / 32, kAskAhead);
      else _mm_prefetch(reinterpret_cast<const char*>(row[c] + at) + kPrefetch, _MM_HINT_T0);
      return as_bf16(count == 32 ? _mm512_loadu_si512(row[c] + at)
                                 : _mm512_maskz_loadu_epi16(first_words(count), row[c] + at));
    });
  }
  f([&](int c, int64_t at, int count) {
    const float* from = f32_row(b, n + c * apart) + at;
    _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetch, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetch + 64, _MM_HINT_T0);
    const __m512 lo = _mm512_maskz_loadu_ps(first_lanes(count), from);
    const __m512 hi = count > 16 ? _mm512_maskz_loadu_ps(first_lanes(count - 16), from + 16) : _mm512_setzero_ps();
    return _mm512_cvtne2ps_pbh(hi, lo);
  });
}

template <int M, int Cols>
void dots_at(float* out, int64_t ld, const uint32_t* x, const Source& b, int64_t n, int64_t apart, int64_t k) {
  if (b.kind == Kind::mxfp4)
    return sum_mxfp4<M, Cols>(x, b, n, apart, k,
                              [&](int i, int c, __m512 sum) { out[i * ld + c * apart] = add_lanes(sum); });
  __m512 sums[M * Cols];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  with_loads<M, Cols>(b, n, apart,
                      [&](const auto& load) { add_dense<M, Cols>(sums, x, units_bf16(b.kind, k), 0, k, load); });
  for (int i = 0; i < M; ++i)
    for (int c = 0; c < Cols; ++c) out[i * ld + c * apart] = add_lanes(sums[i * Cols + c]);
}

constexpr int kGroupRows = 6;
// Inputs of one block: 16 rows of x, four weight rows and the next four fit L1 together.
constexpr int64_t kBlock = 576;
constexpr int kChunk = 8;  // times kManyCols weight rows meet a block of x in L1

// Adds the products of `count` inputs, a multiple of 32, to sums [M][Cols]. Asks for as many inputs of the first
// `Share` of the rows `next`.
template <int M, int Cols, int Share>
[[gnu::noinline]] void add_block(__m512* sums, const uint32_t* x, int64_t row_units, const uint16_t* w, int64_t ld,
                                 int64_t count, const uint16_t* next, int64_t next_ld) {
  __m512 sum[M][Cols];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < Cols; ++c) sum[i][c] = sums[i * Cols + c];
  for (int64_t at = 0; at < count; at += 32, x += 16, w += 32, next += 32) {
    __m512bh wc[Cols];
#pragma GCC unroll 4
    for (int c = 0; c < Share; ++c) ask_for_four(next + c * next_ld, at / 32, 0);
#pragma GCC unroll 4
    for (int c = 0; c < Cols; ++c) wc[c] = as_bf16(_mm512_loadu_si512(w + c * ld));
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const __m512bh xi = as_bf16(_mm512_loadu_si512(x + i * row_units));
#pragma GCC unroll 4
      for (int c = 0; c < Cols; ++c) sum[i][c] = _mm512_dpbf16_ps(sum[i][c], wc[c], xi);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int c = 0; c < Cols; ++c) sums[i * Cols + c] = sum[i][c];
}

// Inputs [from, to) of `Cols` weight rows from n on, of any dense kind, as bf16 [Cols][kBlock], zero up to a multiple
// of 32.
template <int Cols>
void decode_block(uint16_t* out, const Source& b, int64_t n, int64_t from, int64_t to) {
  with_loads<kFewRowsOfOne, Cols>(b, n, 1, [&](const auto& load) {
    for (int64_t at = from; at < to; at += 32)
#pragma GCC unroll 4
      for (int c = 0; c < Cols; ++c)
        _mm512_storeu_si512(out + c * kBlock + at - from,
                            reinterpret_cast<__m512i>(load(c, at, static_cast<int>(to - at < 32 ? to - at : 32))));
  });
}

// More rows than registers: a block of x stays in L1 while up to kChunk times `Cols` weight rows meet it, each in
// groups of the rows of x. The groups after the first find the weights in L1; the first of two, or the first two of
// three, ask for the weights that come next, so that memory is read while all compute.
template <int Cols>
void dots_in_groups(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n, int times,
                    int64_t k) {
  const int groups = (m + kGroupRows - 1) / kGroupRows;
  const bool direct = b.kind == Kind::bf16 && k % 32 == 0;
  const int64_t row_units = units_bf16(b.kind, k), blocks = (k + kBlock - 1) / kBlock,
                block = (k + blocks * 32 - 1) / (blocks * 32) * 32;
  alignas(64) uint16_t decoded[Cols * kBlock];
  __m512 sums[kChunk][kFewRowsOfOne * Cols];
  for (int t = 0; t < times; ++t)
    for (int i = 0; i < (m + 3) / 4 * 4 * Cols; ++i) sums[t][i] = _mm512_setzero_ps();
  for (int64_t from = 0; from < k; from += block) {
    const int64_t to = from + block < k ? from + block : k;
    for (int t = 0; t < times; ++t) {
      const uint16_t *w = decoded, *next = decoded;
      int64_t w_ld = kBlock;
      if (direct) {
        const bool last = t + 1 == times;
        w = bf16_row(b, n + t * Cols) + from;
        next = bf16_row(b, n + (last ? to < k ? 0 : times : t + 1) * Cols) + (last ? to < k ? to : 0 : from);
        w_ld = b.ld;
      } else {
        decode_block<Cols>(decoded, b, n + t * Cols, from, to);
      }
      for (int g = 0; g < groups; ++g) {
        const int row = g * m / groups;
        with_rows<kGroupRows>((g + 1) * m / groups - row, [&]<int M>() {
          constexpr int half = (Cols + 1) / 2;
          const bool asks = direct && (groups > 2 ? g < 2 : g == 0);
          const auto add = !asks        ? add_block<M, Cols, 0>
                           : groups > 2 ? add_block<M, Cols, half>
                                        : add_block<M, Cols, Cols>;
          add(sums[t] + row * Cols, x + row * row_units + from / 2, row_units, w, w_ld, (to - from + 31) / 32 * 32,
              next + g * half * w_ld, w_ld);
        });
      }
    }
  }
  for (int t = 0; t < times; ++t, out += Cols)
    if constexpr (Cols == kManyCols)
      for (int i = 0; i < m; i += 4) add_up<Cols>(out + i * ld, ld, m - i, sums[t] + i * Cols);
    else
      for (int i = 0; i < m; ++i) out[i * ld] = add_lanes(sums[t][i]);
}

// More than kGroupRows rows, or short ones, of any dense weights.
void many_dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  int64_t n = n0;
  while (n + kManyCols <= n1) {
    const int times = static_cast<int>((n1 - n) / kManyCols < kChunk ? (n1 - n) / kManyCols : kChunk);
    dots_in_groups<kManyCols>(out + n - n0, ld, m, x, b, n, times, k);
    n += kManyCols * times;
  }
  for (; n < n1; ++n) dots_in_groups<1>(out + n - n0, ld, m, x, b, n, 1, k);
}

// Short weight rows: 16 sums, of Rows rows of x by Cols weight rows, stay in registers until their lanes are added up
// together.

// f(n): the Cols weight rows from n on; the last of them may have been there before. Returns whether there are so many.
template <int Cols, class F>
inline bool by_columns(int64_t n0, int64_t n1, const F& f) {
  if (n1 - n0 < Cols) return false;
  int64_t n = n0;
  for (; n + Cols <= n1; n += Cols) f(n);
  if (n < n1) f(n1 - Cols);
  return true;
}
// tile(M, row): the M rows of x from `row` on, M ≤ Rows.
template <int Rows, class F>
inline void by_rows(int m, const F& tile) {
  int row = 0;
  for (; row + Rows <= m; row += Rows) tile.template operator()<Rows>(row);
  if constexpr (Rows > 1) {
    if (row < m) with_rows<Rows - 1>(m - row, [&]<int M>() { tile.template operator()<M>(row); });
  }
}
[[gnu::always_inline]] inline void set_zero(__m512 (&sums)[16]) {
#pragma GCC unroll 16
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
}

template <int Rows, int Cols>
bool short_dense(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const int64_t row_units = units_bf16(b.kind, k);
  return by_columns<Cols>(n0, n1, [&](int64_t n) {
    const auto tiles = [&](const auto& load) __attribute__((always_inline)) {
      by_rows<Rows>(m, [&]<int M>(int row) __attribute__((always_inline)) {
        __m512 sums[16];
        set_zero(sums);
        // No more weight rows than leave registers for the sums.
        constexpr int at_once = Cols < 8 ? Cols : 8;
#pragma GCC unroll 2
        for (int c = 0; c < Cols; c += at_once)
          add_dense<M, at_once>(sums + c, x + row * row_units, row_units, 0, k,
                                [&](int i, int64_t at, int count) { return load(c + i, at, count); });
        add_up<Cols>(out + row * ld + n - n0, ld, M, sums);
      });
    };
    if (b.kind != Kind::bf16) return with_loads<Rows, Cols>(b, n, 1, tiles);
    // In the caches already: nothing is asked for.
    const uint16_t* rows[Cols];
    for (int c = 0; c < Cols; ++c) rows[c] = bf16_row(b, n + c);
    tiles([&](int c, int64_t at, int count) {
      return as_bf16(count == 32 ? _mm512_loadu_si512(rows[c] + at)
                                 : _mm512_maskz_loadu_epi16(first_words(count), rows[c] + at));
    });
  });
}

struct Mxfp4Rows {
  const Source& b;
  int64_t row_bytes, groups;
  __m512i table;
  // Line `at` of row n; those before the last are whole.
  template <bool Whole>
  [[gnu::always_inline]] Line line(int64_t n, int at) const {
    const uint8_t* bytes = static_cast<const uint8_t*>(b.data) + n * (b.ld / 2) + 64 * at;
    const uint8_t* scales = b.scales + n * (b.ld / 32) + 4 * at;
    return Whole ? line_of(_mm512_loadu_si512(bytes), four_scales(scales, 4), table)
                 : line_of(_mm512_maskz_loadu_epi8(first_bytes(row_bytes - 64 * at), bytes),
                           four_scales(scales, static_cast<int>(groups - 4 * at)), table);
  }
};
// Adds line `at` of Cols weight rows by M rows of x. line(c): that of weight row c.
template <int M, int Cols, class F>
[[gnu::always_inline]] inline void add_lines(__m512* sums, const uint32_t* x, int64_t row_units, const F& line) {
#pragma GCC unroll 16
  for (int c = 0; c < Cols; ++c) {
    const Line of = line(c);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sums[i * Cols + c] = add_line(of, x + i * row_units, sums[i * Cols + c]);
  }
}

// One or two rows of x: each line is decoded where it is used.
template <int Rows, int Cols>
bool narrow_mxfp4(float* out, int64_t ld, int, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const Mxfp4Rows rows{b, k / 2, k / 32, code_table_bf16()};
  const int64_t row_units = units_bf16(Kind::mxfp4, k);
  const int whole = static_cast<int>(rows.row_bytes / 64);
  return by_columns<Cols>(n0, n1, [&](int64_t n) {
    __m512 sums[16];
    set_zero(sums);
    for (int at = 0; at < whole; ++at)
      add_lines<Rows, Cols>(sums, x + 64 * at, row_units,
                            [&](int c) __attribute__((always_inline)) { return rows.line<true>(n + c, at); });
    if (64 * whole < rows.row_bytes)
      add_lines<Rows, Cols>(sums, x + 64 * whole, row_units, [&](int c) { return rows.line<false>(n + c, whole); });
    add_up<Cols>(out + n - n0, ld, Rows, sums);
  });
}
// More: each line is decoded once for all.
template <int Rows, int Cols>
bool short_mxfp4(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const Mxfp4Rows rows{b, k / 2, k / 32, code_table_bf16()};
  const int64_t row_units = units_bf16(Kind::mxfp4, k);
  const int whole = static_cast<int>(rows.row_bytes / 64), lines = static_cast<int>(row_units / 64);
  return by_columns<Cols>(n0, n1, [&](int64_t n) {
    Line decoded[(kShort + 127) / 128][Cols];
    for (int at = 0; at < lines; ++at)
      for (int c = 0; c < Cols; ++c)
        decoded[at][c] = at < whole ? rows.line<true>(n + c, at) : rows.line<false>(n + c, at);
    by_rows<Rows>(m, [&]<int M>(int row) __attribute__((always_inline)) {
      __m512 sums[16];
      set_zero(sums);
      for (int at = 0; at < lines; ++at)
        add_lines<M, Cols>(sums, x + row * row_units + 64 * at, row_units,
                           [&](int c) __attribute__((always_inline)) { return decoded[at][c]; });
      add_up<Cols>(out + row * ld + n - n0, ld, M, sums);
    });
  });
}

constexpr int64_t kFewInputs = 32;  // inputs of one step of a sum, most of k in the form below

// 32 weights from `at` on as bf16.
__m512i load_words(const Source& b, int64_t at) {
  if (b.kind == Kind::bf16) return _mm512_loadu_si512(static_cast<const uint16_t*>(b.data) + at);
  const float* from = static_cast<const float*>(b.data) + at;
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from)));
}
// Of rows n … n + 15 that follow one another, 8 or 16 inputs each: dword i of lane l of t[j] is dword j of row
// n + 4i + l.
template <int Lanes>
void transpose_whole(__m512i* t, const Source& b, int64_t n) {
  __m512i z[4];
  if constexpr (Lanes == 4) {
    for (int i = 0; i < 4; ++i) z[i] = load_words(b, 8 * n + 32 * i);
    transpose_lanes(t, z);
  } else if constexpr (Lanes == 8) {
    __m512i two[8];  // rows each
    for (int i = 0; i < 8; ++i) two[i] = load_words(b, 16 * n + 32 * i);
    for (int i = 0; i < 4; ++i) z[i] = _mm512_shuffle_i32x4(two[2 * i], two[2 * i + 1], 0x88);
    transpose_lanes(t, z);
    for (int i = 0; i < 4; ++i) z[i] = _mm512_shuffle_i32x4(two[2 * i], two[2 * i + 1], 0xdd);
    transpose_lanes(t + 4, z);
  }
}

// Of sixteen weight rows two inputs each, by the same two of x.
__m512 multiply_two(__m512i w, uint32_t two) {
  return _mm512_dpbf16_ps(_mm512_setzero_ps(), as_bf16(w), as_bf16(_mm512_set1_epi32(static_cast<int>(two))));
}

// Few inputs, as of an adapter's B: what is around a sum would be most of it.
template <int Lanes>
void dots_short(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  const __m512i in_order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                by_lane = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i t[Lanes];
  const auto multiply = [&](int l, uint32_t two) { return multiply_two(t[l], two); };
  for (int64_t n = n0; n < n1; n += 16) {
    const int count = static_cast<int>(n1 - n < 16 ? n1 - n : 16);
    if (Lanes <= 8 && k == 2 * Lanes && b.ld == k && count == 16) {
      transpose_whole<Lanes>(t, b, n);
      sum_lanes<Lanes>(out + n - n0, ld, m, x, kFewInputs / 2, by_lane, 0xffff, multiply);
      continue;
    }
    for (int l = 0; l < Lanes; l += 4) {
      const int64_t left = k - 2 * l;  // may be below 1
      const __mmask8 inputs = static_cast<__mmask8>(left >= 8 ? 0xff : left > 0 ? (1 << left) - 1 : 0);
      const auto row = [&](int i) { return n + (i < count ? i : count - 1); };
      if (b.kind == Kind::bf16)
        transpose_16_bytes(t + l, [&](int i) { return _mm_maskz_loadu_epi16(inputs, bf16_row(b, row(i)) + 2 * l); });
      else
        transpose_16_bytes(t + l, [&](int i) {
          return reinterpret_cast<__m128i>(
              _mm256_cvtneps_pbh(_mm256_maskz_loadu_ps(inputs, f32_row(b, row(i)) + 2 * l)));
        });
    }
    sum_lanes<Lanes>(out + n - n0, ld, m, x, kFewInputs / 2, in_order, first_lanes(count), multiply);
  }
}

// M rows through a whole pair of rank 2·Lanes.
template <int M, int Lanes>
void add_pair_of(float* y, int64_t ldy, float* h, int64_t ldh, const uint32_t* x, const LowRank& pair,
                 const LowRank& next) {
  constexpr int kRank = 2 * Lanes, kCols = 8;
  static_assert(M * kCols <= 16 && kRank % kCols == 0);
  for (int first = 0; first < kRank; first += kCols) {
    const uint16_t* from = pair.A + first * pair.C;
    __m512 sums[16];
    for (__m512& sum : sums) sum = _mm512_setzero_ps();
    add_dense<M, kCols>(sums, x, units_bf16(Kind::bf16, pair.C), 0, pair.C, [&](int c, int64_t at, int count) {
      const uint16_t* w = from + c * pair.C + at;
      return as_bf16(count == 32 ? _mm512_loadu_si512(w) : _mm512_maskz_loadu_epi16(first_words(count), w));
    });
    const __m512 all = add_lanes_of_16(sums);
    _mm256_storeu_ps(h + first, _mm512_castps512_ps256(all));
    if (M == 2) _mm256_storeu_ps(h + ldh + first, _mm512_extractf32x8_ps(all, 1));
  }
  alignas(64) uint32_t of_h[M][Lanes];  // in bf16
  for (int i = 0; i < M; ++i)
    for (int first = 0; first < kRank; first += kCols)
      _mm_store_si128(reinterpret_cast<__m128i*>(of_h[i] + first / 2),
                      reinterpret_cast<__m128i>(_mm256_cvtneps_pbh(_mm256_loadu_ps(h + i * ldh + first))));
  const __m512i by_lane = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512 scale = _mm512_set1_ps(pair.scale);
  const Source b{.data = pair.B, .ld = kRank, .kind = Kind::bf16};
  const int64_t a_lines = next.rank * next.C / 32, steps = pair.N / 16, a_share = (a_lines + steps - 1) / steps;
  const auto *next_a = reinterpret_cast<const char*>(next.A), *next_b = reinterpret_cast<const char*>(next.B);
  for (int64_t n = 0; n < pair.N; n += 16) {
    for (int64_t line = 0; line < a_share; ++line, next_a += 64) _mm_prefetch(next_a, _MM_HINT_T0);
#pragma GCC unroll 8
    for (int line = 0; line < Lanes; ++line, next_b += 64) _mm_prefetch(next_b, _MM_HINT_T0);
    __m512i t[Lanes];
    transpose_whole<Lanes>(t, b, n);
#pragma GCC unroll 2
    for (int i = 0; i < M; ++i) {
      const __m512 sum = sum_of_lanes<Lanes>(of_h[i], [&](int l, uint32_t two) { return multiply_two(t[l], two); });
      const __m512 more = _mm512_mul_ps(scale, _mm512_permutexvar_ps(by_lane, sum));
      float* to = y + i * ldy + n;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), more));
    }
  }
}
bool add_pair(float* y, int64_t ldy, float* h, int64_t ldh, int m, const uint32_t* x, const LowRank& pair,
              const LowRank& next) {
  if (m > 2 || (pair.rank != 8 && pair.rank != 16) || pair.N % 16 != 0 || pair.C > kShort) return false;
  const auto form = pair.rank == 8 ? (m == 1 ? add_pair_of<1, 4> : add_pair_of<2, 4>)
                                   : (m == 1 ? add_pair_of<1, 8> : add_pair_of<2, 8>);
  form(y, ldy, h, ldh, x, pair, next);
  return true;
}

void dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  if (k > 0 && k <= kFewInputs && (b.kind == Kind::f32 || b.kind == Kind::bf16)) {
    const auto form = k <= 8 ? dots_short<4> : k <= 16 ? dots_short<8> : dots_short<16>;
    return form(out, ld, m, x, b, n0, n1, k);
  }
  if (k <= kShort) {
    const bool mx = b.kind == Kind::mxfp4;
    auto form = mx ? short_mxfp4<4, 4> : short_dense<4, 4>;
    if (m == 1) form = mx ? narrow_mxfp4<1, 16> : short_dense<1, 16>;
    if (m == 1 && n1 - n0 < 16) form = mx ? narrow_mxfp4<1, 8> : short_dense<1, 8>;
    if (m == 2) form = mx ? narrow_mxfp4<2, 8> : short_dense<2, 8>;
    if (form(out, ld, m, x, b, n0, n1, k)) return;
  }
  if (m > kGroupRows && b.kind != Kind::mxfp4) return many_dots(out, ld, m, x, b, n0, n1, k);
  const int64_t apart = (n1 - n0) / 2;
  with_rows<kFewRows>(m, [&]<int M>() {
    for (int64_t j = 0; j < apart; ++j) dots_at<M, 2>(out + j, ld, x, b, n0 + j, apart, k);
    if ((n1 - n0) % 2) dots_at<M, 1>(out + 2 * apart, ld, x, b, n1 - 1, 0, k);
  });
}

}  // namespace

const FewRows kFewRowsAvx512Bf16 = {kFewRowsOfOne, kFewRows, units_bf16, each_row<units_bf16, prepare>, dots, add_pair};

}  // namespace temper::cpu
