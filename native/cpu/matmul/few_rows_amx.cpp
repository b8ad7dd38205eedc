// Few rows on matrix tiles: 32 weight rows meet up to 32 rows of x, 32 inputs at a step. An element is summed along k
// in one order, whatever rows are beside its own. Weight rows with few inputs go as without tiles.
#include "cpu/host/amx.h"
#include "cpu/matmul/few_rows_bf16.h"

namespace temper::cpu {
namespace {

constexpr int kRows = kMostFewRows, kTile = 16, kCols = 2 * kTile;
constexpr int kStep = 32;                     // inputs of a tile
constexpr int kSteps = 4;                     // decoded at once: of MXFP4 a line of 64 bytes of a row
constexpr int kAhead = 4, kAheadInPlace = 2;  // blocks of kSteps that are asked for before they are met

// Rows of x side by side: unit u of row i at [u][rows].
void prepare(uint32_t* dst, const Source& a, int64_t row, int rows, int64_t k, Kind kind) {
  if (k <= kShort) return kFewRowsAvx512Bf16.prepare(dst, a, row, rows, k, kind);
  const int64_t all = units_bf16(kind, k);
  alignas(64) uint32_t part[kRows][64];
  for (int64_t at = 0; at < k; at += 128) {
    const int64_t units = all - at / 2 < 64 ? all - at / 2 : 64;
    for (int i = 0; i < rows; ++i) prepare_part<CodeOrder::groups>(part[i], a, row + i, at, at + 2 * units, k, kind);
    for (int64_t u = 0; u < units; u += 16)
      for (int first = 0; first < rows; first += kTile) {
        const int count = rows - first < kTile ? rows - first : kTile;
        __m512i r[16];
        for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(part[first + (i < count ? i : 0)] + u);
        transpose_16x16(r);
        uint32_t* to = dst + (at / 2 + u) * rows + first;
        for (int l = 0; l < 16; ++l) _mm512_mask_storeu_epi32(to + l * rows, first_lanes(count), r[l]);
      }
  }
}

// 32 weight rows, kSteps steps of them, as the tiles of each.
struct Decoded {
  alignas(64) uint16_t step[kSteps][kCols][kStep];
};

// Where 32 rows begin, the last of them again beyond the edge.
struct Rows {
  const char *data[kCols], *scales[kCols];
  Rows(const Source& b, int64_t n, int64_t n1) {
    const bool mxfp4 = b.kind == Kind::mxfp4;
    const int64_t bits = mxfp4 ? 4 : b.kind == Kind::q8 ? 8 : b.kind == Kind::bf16 ? 16 : 32;
    const char* of_groups =
        mxfp4 ? reinterpret_cast<const char*>(b.scales) : reinterpret_cast<const char*>(b.q8_scales);
    for (int i = 0; i < kCols; ++i) {
      const int64_t row = n + i < n1 ? n + i : n1 - 1;
      data[i] = static_cast<const char*>(b.data) + row * (b.ld * bits / 8);
      scales[i] = of_groups + row * (b.ld / 32) * (mxfp4 ? 1 : 2);
    }
  }
};

// decode: of row i inputs at … at + 128, fewer where not Whole, to tiles [kSteps][kCols][kStep].
// ask: for the line of memory that they begin at in the row that is i-th after row n.
class Mxfp4 {
 public:
  Mxfp4(const Source& b, int64_t n, int64_t n1, int64_t k) : rows_(b, n, n1), k_(k) {}
  // Whether decode is right for the scales of rows n to n + 31.
  static bool suits(const Source& b, int64_t n, int64_t n1, int64_t k) {
    const Rows rows(b, n, n1);
    const __m512i low = _mm512_set1_epi8(2), range = _mm512_set1_epi8(static_cast<char>(kTop - 2));
    __mmask64 beyond = 0;
    for (const char* scales : rows.scales)
      for (int64_t g = 0; g < k / 32; g += 64) {
        const __mmask64 groups = first_bytes(k / 32 - g);
        const __m512i e = _mm512_maskz_loadu_epi8(groups, scales + g);
        beyond |= _mm512_mask_cmpgt_epu8_mask(groups, _mm512_sub_epi8(e, low), range);
      }
    return beyond == 0;
  }
  template <bool Whole>
  void decode(Decoded& to, int i, int64_t at) const {
    const int count = Whole ? 128 : static_cast<int>(k_ - at);
    const char *from = rows_.data[i] + at / 2, *scales = rows_.scales[i] + at / 32;
    const __m512i codes = Whole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(first_bytes(count / 2), from);
    // Codes are looked up with the greatest scale, 2^125, and exponents lowered from there: zero stays zero.
    const __m512i e = _mm512_shuffle_epi8(
        _mm512_set1_epi32(static_cast<int>(four_scales(reinterpret_cast<const uint8_t*>(scales), count / 32))),
        spread_);
    const __m512i less = _mm512_sub_epi16(_mm512_set1_epi16(kTop << 7), _mm512_srli_epi16(e, 1));
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i of = _mm512_and_si512(_mm512_srli_epi16(codes, static_cast<unsigned>(4 * half)), nibble),
                    low = _mm512_shuffle_epi8(low_, of), high = _mm512_shuffle_epi8(high_, of);
      _mm512_store_si512(to.step[2 * half][i], _mm512_subs_epu16(_mm512_unpacklo_epi8(low, high), less));
      _mm512_store_si512(to.step[2 * half + 1][i], _mm512_subs_epu16(_mm512_unpackhi_epi8(low, high), less));
    }
  }
  static void ask(const Source& b, int64_t n, int i, int64_t at) {
    _mm_prefetch(static_cast<const char*>(b.data) + (n + i) * (b.ld / 2) + at / 2, _MM_HINT_T0);
  }

 private:
  static constexpr int kTop = 252;
  // Bytes of the bf16 of codes times 2^(kTop − 127), the lower or the upper, in each lane; −0 is 0.
  static __m512i table(unsigned shift) {
    const __m512i codes = code_table_bf16();
    const __m512i words = _mm512_maskz_add_epi16(_mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x7fff)), codes,
                                                 _mm512_set1_epi16((kTop - 127) << 7));
    return _mm512_broadcast_i32x4(_mm256_castsi256_si128(_mm512_cvtepi16_epi8(_mm512_srli_epi16(words, shift))));
  }
  // Byte g of a dword into the upper half of each word of lane g, zero into the lower.
  static __m512i spread() {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_or_si512(_mm512_set1_epi32(0x00800080),
                           _mm512_or_si512(_mm512_slli_epi32(lane, 8), _mm512_slli_epi32(lane, 24)));
  }
  const Rows rows_;
  const int64_t k_;
  const __m512i low_ = table(0), high_ = table(8), spread_ = spread();
};

class Q8 {
 public:
  Q8(const Source& b, int64_t n, int64_t n1, int64_t k) : rows_(b, n, n1), k_(k) {}
  template <bool Whole>
  void decode(Decoded& to, int i, int64_t at) const {
    const char *from = rows_.data[i] + at, *scales = rows_.scales[i] + at / 16;
#pragma GCC unroll 2
    for (int two = 0; two < 2; ++two) {  // rows are whole groups of 32
      if (!Whole && at + 64 * two >= k_) return;
      const bool both = Whole || at + 64 * two + 32 < k_;
      uint32_t pair = 0;
      std::memcpy(&pair, scales + 4 * two, both ? 4 : 2);
      const __m512i words = _mm512_set1_epi32(static_cast<int>(pair));
      store(to.step[2 * two][i], from + 64 * two, _mm512_slli_epi32(words, 16));
      if (both)
        store(to.step[2 * two + 1][i], from + 64 * two + 32,
              _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
  }
  static void ask(const Source& b, int64_t n, int i, int64_t at) {
    const char* from = static_cast<const char*>(b.data) + (n + i) * b.ld + at;
    _mm_prefetch(from, _MM_HINT_T0);
    _mm_prefetch(from + 64, _MM_HINT_T0);
  }

 private:
  static void store(uint16_t* to, const char* from, __m512i scale) {
    const auto load = [&](int at) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
      return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), _mm512_castsi512_ps(scale));
    };
    _mm512_store_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(16), load(0))));
  }
  const Rows rows_;
  int64_t k_;
};

// f32, and bf16 where tiles cannot be read in place.
class Plain {
 public:
  Plain(const Source& b, int64_t n, int64_t n1, int64_t k) : rows_(b, n, n1), k_(k), bf16_(b.kind == Kind::bf16) {}
  template <bool Whole>
  void decode(Decoded& to, int i, int64_t at) const {
    for (int s = 0; s < kSteps && at < k_; ++s, at += kStep) {
      const int count = static_cast<int>(k_ - at < kStep ? k_ - at : kStep);
      if (bf16_) {
        _mm512_store_si512(to.step[s][i], _mm512_maskz_loadu_epi16(first_words(count), rows_.data[i] + 2 * at));
        continue;
      }
      const float* from = reinterpret_cast<const float*>(rows_.data[i]) + at;
      const __m512 lo = _mm512_maskz_loadu_ps(first_lanes(count), from);
      const __m512 hi = count > 16 ? _mm512_maskz_loadu_ps(first_lanes(count - 16), from + 16) : _mm512_setzero_ps();
      _mm512_store_si512(to.step[s][i], reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(hi, lo)));
    }
  }
  static void ask(const Source& b, int64_t n, int i, int64_t at) {
    const int64_t bytes = b.kind == Kind::bf16 ? 2 : 4;
    const char* from = static_cast<const char*>(b.data) + ((n + i) * b.ld + at) * bytes;
    for (int64_t line = 0; line < kSteps * kStep * bytes; line += 64) _mm_prefetch(from + line, _MM_HINT_T0);
  }

 private:
  const Rows rows_;
  int64_t k_;
  bool bf16_;
};

// One step of both tiles of weights, that lie at `left` and `right`, by `Wide` tiles of x: sums in tiles 0 to 3.
template <int Wide>
[[gnu::always_inline]] inline void multiply(const void* left, const void* right, int64_t stride, const uint32_t* x,
                                            int m) {
  tile_load<6>(x, 4 * m);
  if (Wide == 2) tile_load<7>(x + kTile, 4 * m);
  tile_load<4>(left, stride);
  tile_multiply<0, 4, 6>();
  if (Wide == 2) tile_multiply<1, 4, 7>();
  tile_load<5>(right, stride);
  tile_multiply<2, 5, 6>();
  if (Wide == 2) tile_multiply<3, 5, 7>();
}

// Sums of kCols weight rows from n on. A quarter of the rows of the next kSteps steps is decoded beside each step of
// these, so that vector units and tiles work at once, and memory beside both.
template <int Wide, class Weights>
void sum_decoded(const uint32_t* x, int m, const Source& b, int64_t n, int64_t n1, int64_t k) {
  constexpr int kInputs = kStep * kSteps, kQuarter = kCols / kSteps;
  const Weights weights(b, n, n1, k);
  const int64_t whole = k / kInputs * kInputs, blocks = (k + kInputs - 1) / kInputs,
                steps = b.kind == Kind::mxfp4 ? blocks * kSteps : (k + kStep - 1) / kStep;
  Decoded decoded[2];
  for (int i = 0; i < kCols; ++i) weights.template decode<true>(decoded[0], i, 0);
  for (int64_t at = 0, turn = 0; at < k; at += kInputs, turn ^= 1) {
    const int64_t next = at + kInputs, ahead = at + kAhead * kInputs;
    const bool past = ahead >= k;
    const int64_t n_ahead = past ? n + kCols : n, at_ahead = past ? ahead - blocks * kInputs : ahead;
    const Decoded& now = decoded[turn];
    Decoded& to = decoded[turn ^ 1];
    for (int s = 0; s < kSteps; ++s) {
      if (n_ahead < n1)
        for (int i = kQuarter * s; i < kQuarter * (s + 1); ++i) Weights::ask(b, n_ahead, i, at_ahead);
      if (next < whole)
        for (int i = kQuarter * s; i < kQuarter * (s + 1); ++i) weights.template decode<true>(to, i, next);
      else if (next < k)
        for (int i = kQuarter * s; i < kQuarter * (s + 1); ++i) weights.template decode<false>(to, i, next);
      if (const int64_t step = at / kStep + s; step < steps)
        multiply<Wide>(now.step[s], now.step[s] + kTile, 2 * kStep, x + step * 16 * m, m);
    }
  }
}

// The same of bf16 rows that are read in place.
template <int Wide>
void sum_in_place(const uint32_t* x, int m, const Source& b, int64_t n, int64_t n1, int64_t k) {
  const uint16_t *left = static_cast<const uint16_t*>(b.data) + n * b.ld, *right = left + kTile * b.ld;
  for (int64_t at = 0; at < k; at += kStep, x += 16 * m) {
    if (at % (kStep * kSteps) == 0) {
      const int64_t ahead = at + kAheadInPlace * kStep * kSteps;
      const bool past = ahead >= k;
      const int64_t n_ahead = past ? n + kCols : n, at_ahead = past ? ahead - k : ahead;
      if (n_ahead < n1)
        for (int i = 0; i < kCols; ++i) Plain::ask(b, n_ahead, i, at_ahead);
    }
    multiply<Wide>(left + at, right + at, 2 * b.ld, x, m);
  }
}

// Tile of sums [weight row][row of x] to out[row of x][weight row].
template <int Tile>
void store(float* out, int64_t ld, int m, int count) {
  alignas(64) float sums[kTile][kTile];
  tile_store<Tile>(sums, 64);
  __m512i r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(sums[i]);
  transpose_16x16(r);
  for (int i = 0; i < m; ++i) _mm512_mask_storeu_epi32(out + i * ld, first_lanes(count), r[i]);
}

// MXFP4 rows with scales that leave bf16's range, which tiles take for zero or infinity: as f32, one after another.
void dots_of_any_scale(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1,
                       int64_t k) {
  float w[128];
  for (int64_t n = n0; n < n1; ++n) {
    float sums[kRows] = {};
    for (int64_t at = 0; at < k; at += 128) {
      const int count = static_cast<int>(k - at < 128 ? k - at : 128);
      load_segment<false>(w, b, n, at, count);
      for (int j = 0; j < count; ++j)
        for (int i = 0; i < m; ++i) {
          const int step = j / 16 % 2 + j % 2 * 2, unit = 16 * step + j / 32 * 4 + j % 16 / 4;
          const uint32_t pair = x[(at / 2 + unit) * m + i], bits = j % 4 < 2 ? pair << 16 : pair & 0xffff0000u;
          float xi;
          std::memcpy(&xi, &bits, sizeof xi);
          sums[i] += w[j] * xi;
        }
    }
    for (int i = 0; i < m; ++i) out[i * ld + n - n0] = sums[i];
  }
}

template <int Wide>
void dots_by_tiles(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1,
                   int64_t k) {
  const uint16_t first = static_cast<uint16_t>(4 * (Wide == 2 ? kTile : m)),
                 second = static_cast<uint16_t>(Wide == 2 ? 4 * (m - kTile) : 4);
  set_tiles({{kTile, first},
             {kTile, second},
             {kTile, first},
             {kTile, second},
             {kTile, 2 * kStep},
             {kTile, 2 * kStep},
             {kTile, first},
             {kTile, second}});
  for (int64_t n = n0; n < n1; n += kCols, out += kCols) {
    if (b.kind == Kind::mxfp4 && !Mxfp4::suits(b, n, n1, k)) {
      dots_of_any_scale(out, ld, m, x, b, n, n + kCols < n1 ? n + kCols : n1, k);
      continue;
    }
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    if (b.kind == Kind::mxfp4) sum_decoded<Wide, Mxfp4>(x, m, b, n, n1, k);
    else if (b.kind == Kind::bf16 && k % kStep == 0 && n + kCols <= n1) sum_in_place<Wide>(x, m, b, n, n1, k);
    else if (b.kind == Kind::q8) sum_decoded<Wide, Q8>(x, m, b, n, n1, k);
    else sum_decoded<Wide, Plain>(x, m, b, n, n1, k);
    const int cols = static_cast<int>(n1 - n < kCols ? n1 - n : kCols), left = cols < kTile ? cols : kTile;
    store<0>(out, ld, Wide == 2 ? kTile : m, left);
    if (Wide == 2) store<1>(out + kTile * ld, ld, m - kTile, left);
    if (cols <= kTile) continue;
    store<2>(out + kTile, ld, Wide == 2 ? kTile : m, cols - kTile);
    if (Wide == 2) store<3>(out + kTile * ld + kTile, ld, m - kTile, cols - kTile);
  }
  release_tiles();
}

void dots(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1, int64_t k) {
  if (k > kShort) return (m > kTile ? dots_by_tiles<2> : dots_by_tiles<1>)(out, ld, m, x, b, n0, n1, k);
  // Those take fewer at once: prepared rows follow one another.
  const int at_once = b.kind == Kind::mxfp4 ? kFewRowsAvx512Bf16.rows_mxfp4 : kFewRowsAvx512Bf16.rows;
  for (int row = 0; row < m; row += at_once)
    kFewRowsAvx512Bf16.dots(out + row * ld, ld, m - row < at_once ? m - row : at_once, x + row * units_bf16(b.kind, k),
                            b, n0, n1, k);
}

}  // namespace

const FewRows kFewRowsAmx = {kRows, kRows, units_bf16, prepare, dots, nullptr};

}  // namespace temper::cpu
