// A LoRA pair merged into its weights, for exports and for training through the rounding of the merge. A tile is 64
// outputs by one group of 32 inputs: first Σ_r B·A of it, four rows of sums in registers, then what becomes of it.
// Of gpt-oss-20b's 19.1e9 expert weights at rank 16: 306e9 multiply-adds, 10.2 GB read, as much written.
//
// Which of two scales is better is decided without rounding. With v = |W|·2^(127−e), 0 ≤ v < 8, both round v to the
// same value but for v in (1/4, 3/4], (5/4, 7/4] and above 7; there the squared error under e less that under e + 1 is
// |v − 1/2| − 1/4, |v − 3/2| − 1/4 and 4·(v − 7), which f32 holds exactly, in units of 2⁻²⁵.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/host/mxfp4.h"
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int kRows = 64;  // of a tile
constexpr int kCols = static_cast<int>(kGroup);
constexpr uint32_t kInfinity = 0x7f800000u;
using Row = float[kCols];

// sum[i] = Σ_r b[i,r]·a[r], in order of r; R ≥ 1.
struct Products {
  template <int Rows>
  static TEMPER_INLINE void rows(Row* sum, const float* a, int64_t lda, const float* b, int64_t R) {
    float at[Rows][kCols];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
#pragma omp simd
      for (int j = 0; j < kCols; ++j) at[i][j] = __builtin_fmaf(b[i * R], a[j], 0.0f);
    }
    for (int64_t r = 1; r < R; ++r) {
      const float* from = a + r * lda;
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) {
        const float left = b[i * R + r];
#pragma omp simd
        for (int j = 0; j < kCols; ++j) at[i][j] = __builtin_fmaf(left, from[j], at[i][j]);
      }
    }
    std::memcpy(sum, at, sizeof at);
  }
  template <int W>
  static TEMPER_INLINE void run(Row* sum, const float* a, int64_t lda, const float* b, int64_t R, int count) {
    constexpr int kTogether = W == 16 ? 4 : 2;
    int i = 0;
    for (; i + kTogether <= count; i += kTogether) rows<kTogether>(sum + i, a, lda, b + i * R, R);
    for (; i < count; ++i) rows<1>(sum + i, a, lda, b + i * R, R);
  }
};
// The same for any number of columns and any R.
void products(Row* sum, int cols, const float* a, int64_t lda, const float* b, int64_t R, int count) {
  if (cols == kCols && R > 0) return run_kernel<Products>(sum, a, lda, b, R, count);
  for (int i = 0; i < count; ++i)
    for (int j = 0; j < cols; ++j) {
      float at = 0;
      for (int64_t r = 0; r < R; ++r) at = std::fmaf(b[i * R + r], a[r * lda + j], at);
      sum[i][j] = at;
    }
}

// E2M1 without its sign: shifted into a float's exponent and mantissa, 0 and 0.5 alone come out wrong, as 0.5 and 0.75.
TEMPER_INLINE float magnitude_of(uint32_t code) {
  const float f = __builtin_bit_cast(float, (code << 22) + (126u << 23)), g = f + f - 1.0f;
  return f < g ? f : g;
}
TEMPER_INLINE float factor_of(uint8_t scale) {  // 2^(scale − 127)
  return __builtin_bit_cast(float, scale ? static_cast<uint32_t>(scale) << 23 : 0x00400000u);
}
TEMPER_INLINE uint32_t magnitude_bits(float x) { return __builtin_bit_cast(uint32_t, x) & 0x7fffffffu; }
TEMPER_INLINE float power_of_two(int exponent) {  // 2^(127 − exponent), exact for 1 to 253
  return __builtin_bit_cast(float, static_cast<uint32_t>(254 - exponent) << 23);
}

using Codes = uint8_t[kCols];
// A column of blocks, `groups` apart, as values. All nibbles of a tile are spread before any is widened: a load that
// spans two stores of a moment ago waits for both.
TEMPER_INLINE void decode_tile(Row* out, const uint8_t* blocks, const uint8_t* scales, int64_t groups, int count) {
  Codes codes[kRows];
  for (int i = 0; i < count; ++i) {
    const uint8_t* block = blocks + i * groups * 16;
#pragma omp simd
    for (int j = 0; j < kCols / 2; ++j) {
      codes[i][2 * j] = block[j] & 15;
      codes[i][2 * j + 1] = block[j] >> 4;
    }
  }
  for (int i = 0; i < count; ++i) {
    const float factor = factor_of(scales[i * groups]);
#pragma omp simd
    for (int j = 0; j < kCols; ++j) {
      const uint32_t code = codes[i][j];
      const float v = magnitude_of(code & 7u) * factor;
      out[i][j] = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, v) | (code & 8u) << 28);
    }
  }
}
// The same for a caller of no instruction set of its own.
struct Decode {
  template <int>
  static TEMPER_INLINE void run(Row* out, const uint8_t* blocks, const uint8_t* scales, int64_t groups, int count) {
    decode_tile(out, blocks, scales, groups, count);
  }
};
// The first row whose scale is the format's NaN, or −1.
int bad_scale(const uint8_t* scales, int64_t groups, int count) {
  for (int i = 0; i < count; ++i)
    if (scales[i * groups] == 255) return i;
  return -1;
}

// A column of blocks, their sums beside them; in passes over the tile, as in decode_tile.
struct Requantise {
  // What the better scale is, given the peak's bits.
  static TEMPER_INLINE int exponent(const Row& w, uint32_t peak, uint8_t before) {
    const int low = peak >> 23 > 3 ? static_cast<int>(peak >> 23) - 2 : 1;
    const float inverse = power_of_two(low);
    int64_t gain = 0;  // of the next exponent, in units of 2^−25: integers add in any order
#pragma omp simd reduction(+ : gain)
    for (int j = 0; j < kCols; ++j) {
      const float v = __builtin_fabsf(w[j]) * inverse;
      const float half = 0.25f - __builtin_fabsf(v - 0.5f), one = 0.25f - __builtin_fabsf(v - 1.5f), over = v - 7.0f;
      const float lost = half > one ? half : one;
      // x + |x| is twice what of x is positive; comparing and choosing took four times as long.
      gain += static_cast<int64_t>(
          static_cast<int32_t>((over + __builtin_fabsf(over)) * 0x1p26f - (lost + __builtin_fabsf(lost)) * 0x1p24f));
    }
    return low + ((gain > 0) | ((gain == 0) & (before == low + 1)));
  }
  static TEMPER_INLINE void encode(Codes& codes, const Row& w, float inverse) {
    uint32_t wide[kCols];  // narrowed afterwards: in one loop the compiler would branch
#pragma omp simd
    for (int j = 0; j < kCols; ++j) {
      const float a = __builtin_fabsf(w[j]) * inverse;
      // From 1 on a code is the top of a float's exponent and mantissa, rounded; a tie goes to the smaller one.
      const uint32_t top = ((__builtin_bit_cast(uint32_t, a) + 0x1fffffu) >> 22) - 252u, above = top > 7u ? 7u : top;
      const uint32_t below = (a > 0.25f ? 1u : 0u) + (a > 0.75f ? 1u : 0u), c = a < 1.0f ? below : above;
      wide[j] = c | (c != 0u ? __builtin_bit_cast(uint32_t, w[j]) >> 28 & 8u : 0u);
    }
#pragma omp simd
    for (int j = 0; j < kCols; ++j) codes[j] = static_cast<uint8_t>(wide[j]);
  }
  // kept: adds (Σ ΔW'·ΔW, Σ ΔW²); null: not wanted. at: stays, or is the row and column of a number that is none.
  template <int>
  static TEMPER_INLINE void run(uint8_t* blocks, uint8_t* scales, const uint8_t* base, const uint8_t* base_scales,
                                int64_t groups, const Row* sum, float scale, int count, double* kept, int* at) {
    Row old[kRows], w[kRows];
    Codes codes[kRows];
    uint32_t peaks[kRows], changes[kRows];
    decode_tile(old, base, base_scales, groups, count);
    for (int i = 0; i < count; ++i) {
      uint32_t peak = 0, changed = 0;
#pragma omp simd reduction(max : peak) reduction(| : changed)
      for (int j = 0; j < kCols; ++j) {
        w[i][j] = __builtin_fmaf(scale, sum[i][j], old[i][j]);
        const uint32_t bits = magnitude_bits(w[i][j]);
        peak = bits > peak ? bits : peak;
        changed |= w[i][j] != old[i][j] ? 1u : 0u;
      }
      peaks[i] = peak;
      changes[i] = changed;
    }
    for (int i = 0; i < count; ++i) {
      if (peaks[i] < kInfinity) continue;
      at[0] = i;
      for (int j = kCols; j-- > 0;)
        if (magnitude_bits(w[i][j]) >= kInfinity) at[1] = j;
      return;
    }
    int exponents[kRows];
    for (int i = 0; i < count; ++i) exponents[i] = exponent(w[i], peaks[i], base_scales[i * groups]);
    for (int i = 0; i < count; ++i) encode(codes[i], w[i], power_of_two(exponents[i]));
    for (int i = 0; i < count; ++i)
      scales[i * groups] = changes[i] ? static_cast<uint8_t>(exponents[i]) : base_scales[i * groups];
    for (int i = 0; i < count; ++i) {
      uint8_t* to = blocks + i * groups * 16;
      if (!changes[i]) {
        std::memcpy(to, base + i * groups * 16, 16);
        continue;
      }
#pragma omp simd
      for (int j = 0; j < kCols / 2; ++j) to[j] = static_cast<uint8_t>(codes[i][2 * j] | codes[i][2 * j + 1] << 4);
    }
    if (!kept) return;
    decode_tile(w, blocks, scales, groups, count);
    double survived[8] = {}, whole[8] = {};
    for (int i = 0; i < count; ++i)
      for (int j = 0; j < kCols; j += 8) {
#pragma omp simd
        for (int l = 0; l < 8; ++l) {
          const double delta = scale * sum[i][j + l];
          survived[l] += (static_cast<double>(w[i][j + l]) - static_cast<double>(old[i][j + l])) * delta;
          whole[l] += delta * delta;
        }
      }
    for (int l = 0; l < 8; ++l) {
      kept[0] += survived[l];
      kept[1] += whole[l];
    }
  }
};

// w[i] = scale·sum[i] + w[i]; at as in Requantise.
struct AddScaled {
  template <int>
  static TEMPER_INLINE void run(Row* w, const Row* sum, float scale, int count, int cols, int* at) {
    for (int i = 0; i < count; ++i) {
      uint32_t peak = 0;
#pragma omp simd reduction(max : peak)
      for (int j = 0; j < cols; ++j) {
        w[i][j] = __builtin_fmaf(scale, sum[i][j], w[i][j]);
        const uint32_t bits = magnitude_bits(w[i][j]);
        peak = bits > peak ? bits : peak;
      }
      if (peak < kInfinity) continue;
      at[0] = i;
      for (int j = cols; j-- > 0;)
        if (magnitude_bits(w[i][j]) >= kInfinity) at[1] = j;
      return;
    }
  }
};

// A tile's columns as rows of `to`, ld apart, in bf16; its sums are finite numbers. Eight by eight where it is whole.
struct StoreColumns {
  typedef uint16_t Eight __attribute__((vector_size(16)));
  static TEMPER_INLINE void transpose(uint16_t* to, int64_t ld, const uint16_t* from) {
    Eight a[8], b[8];
    for (int i = 0; i < 8; ++i) std::memcpy(&a[i], from + i * kCols, sizeof a[i]);
    for (int i = 0; i < 4; ++i) {
      b[2 * i] = __builtin_shufflevector(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = __builtin_shufflevector(b[i], b[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      a[2 * i + 1] = __builtin_shufflevector(b[i], b[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; ++i) {
      b[2 * i] = __builtin_shufflevector(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; ++i) std::memcpy(to + i * ld, &b[i], sizeof b[i]);
  }
  template <int>
  static TEMPER_INLINE void run(uint16_t* to, int64_t ld, const Row* w, int count, int cols) {
    uint16_t bits[kRows][kCols];
    for (int i = 0; i < count; ++i) {
      uint32_t wide[kCols];
#pragma omp simd
      for (int j = 0; j < kCols; ++j) {
        const uint32_t x = __builtin_bit_cast(uint32_t, w[i][j]);
        wide[j] = (x + 0x7fffu + (x >> 16 & 1u)) >> 16;
      }
#pragma omp simd
      for (int j = 0; j < kCols; ++j) bits[i][j] = static_cast<uint16_t>(wide[j]);
    }
    const int rows = count & ~7, columns = cols & ~7;
    for (int j = 0; j < columns; j += 8)
      for (int i = 0; i < rows; i += 8) transpose(to + j * ld + i, ld, &bits[i][j]);
    for (int j = 0; j < cols; ++j)
      for (int i = j < columns ? rows : 0; i < count; ++i) to[j * ld + i] = bits[i][j];
  }
};

struct Shape {
  int64_t E, N, C, R;
  int64_t tiles() const { return (N + kRows - 1) / kRows; }
  // Runs body(expert, first row, rows) for every tile of rows.
  template <class F>
  void each(F&& body) const {
    parallel_for(E * tiles(), [&](int64_t i) {
      const int64_t n = i % tiles() * kRows;
      body(i / tiles(), n, static_cast<int>(std::min<int64_t>(kRows, N - n)), i);
    });
  }
};
Shape shape_of(const Tensor& A, const Tensor& B) { return {A.shape[0], B.shape[1], A.shape[2], A.shape[1]}; }

double merge_flops(const Shape& s) {
  return 2.0 * static_cast<double>(s.E * s.N) * static_cast<double>(s.C) * static_cast<double>(s.R);
}

[[noreturn]] void not_finite(const char* op, int64_t e, int64_t n, int64_t c) {
  fail("not_finite", op, ": W[", e, ",", n, ",", c,
       "] = w + scale·B·A is not a finite number; the adapter does not fit these weights or its training diverged");
}

}  // namespace

Cost cost::mxfp4_merge(const args::mxfp4_merge& a) {
  const Shape s = shape_of(*a.A, *a.B);
  Cost cost = streamed(a, a.kept ? 2.0 * static_cast<double>(s.E * s.tiles()) * sizeof(double) : 0);
  cost.flops = merge_flops(s);
  cost.rows = static_cast<double>(s.N);
  return cost;
}
Cost cost::lora_merge(const args::lora_merge& a) {
  Cost cost = streamed(a);
  const Shape s = shape_of(*a.A, *a.B);
  cost.flops = merge_flops(s);
  cost.rows = static_cast<double>(s.N);
  return cost;
}

void mxfp4_merge(TensorRef blocks, TensorRef scales, TensorRef kept, TensorRef base, TensorRef base_scales, TensorRef A,
                 TensorRef B, double scale) {
  const Shape s = shape_of(*A, *B);
  const int64_t groups = s.C / kGroup;
  Scratch<double> parts(kept ? static_cast<size_t>(2 * s.E * s.tiles()) : 0);
  s.each([&](int64_t e, int64_t n, int count, int64_t task) {
    double* part = kept ? parts.data() + 2 * task : nullptr;
    if (part) part[0] = part[1] = 0;
    Row sum[kRows];
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = (e * s.N + n) * groups + g;
      const uint8_t* from_scales = base_scales->u8() + first;
      if (const int i = bad_scale(from_scales, groups, count); i >= 0)
        fail("bad_scale", "mxfp4_merge: base_scales[", e, ",", n + i, ",", g,
             "]: got 255, the format's NaN; wanted 0 to 254");
      products(sum, kCols, A->f32() + e * s.R * s.C + g * kGroup, s.C, B->f32() + (e * s.N + n) * s.R, s.R, count);
      int at[2] = {-1, 0};
      run_kernel<Requantise>(blocks->u8() + first * 16, scales->u8() + first,
                             static_cast<const uint8_t*>(base->u8() + first * 16), from_scales, groups,
                             static_cast<const Row*>(sum), static_cast<float>(scale), count, part, &at[0]);
      if (at[0] >= 0) not_finite("mxfp4_merge", e, n + at[0], g * kGroup + at[1]);
    }
  });
  if (!kept) return;
  for (int64_t e = 0; e < s.E; ++e) {
    double total[2] = {0, 0};
    for (int64_t t = 0; t < s.tiles(); ++t)
      for (int k = 0; k < 2; ++k) total[k] += parts[static_cast<size_t>(2 * (e * s.tiles() + t) + k)];
    for (int k = 0; k < 2; ++k) kept->f32()[2 * e + k] = static_cast<float>(total[k]);
  }
}

namespace {

struct Dense {
  const args::lora_merge& a;
  Shape s;

  // Weights of rows n…, columns c…
  void load(Row* w, int64_t e, int64_t n, int count, int64_t c, int cols) const {
    if (a.layout == 0) {
      const int64_t groups = s.C / kGroup, group = (e * s.N + n) * groups + c / kGroup;
      const uint8_t* scales = a.scales->u8() + group;
      if (const int i = bad_scale(scales, groups, count); i >= 0)
        fail("bad_scale", "lora_merge: scales[", e, ",", n + i, ",", c / kGroup,
             "]: got 255, the format's NaN; wanted 0 to 254");
      run_kernel<Decode>(w, static_cast<const uint8_t*>(a.w->u8() + group * 16), scales, groups, count);
      return;
    }
    with_wf(*a.w, [&](const auto* from) {
      if (a.layout == 1) {
        for (int i = 0; i < count; ++i)
          for (int j = 0; j < cols; ++j) w[i][j] = cpu::load(from + (e * s.N + n + i) * s.C + c + j);
      } else {
        for (int j = 0; j < cols; ++j)
          for (int i = 0; i < count; ++i) w[i][j] = cpu::load(from + (e * s.C + c + j) * s.N + n + i);
      }
    });
  }
  void store(const Row* w, int64_t e, int64_t n, int count, int64_t c, int cols) const {
    const auto put = [&](auto* to, auto&& as) {
      if (a.to == 1) {
        for (int i = 0; i < count; ++i)
          for (int j = 0; j < cols; ++j) to[(e * s.N + n + i) * s.C + c + j] = as(w[i][j]);
      } else {
        for (int j = 0; j < cols; ++j)
          for (int i = 0; i < count; ++i) to[(e * s.C + c + j) * s.N + n + i] = as(w[i][j]);
      }
    };
    if (a.y->dtype == DType::bf16 && a.to == 2)
      run_kernel<StoreColumns>(a.y->bf16() + (e * s.C + c) * s.N + n, s.N, w, count, cols);
    else if (a.y->dtype == DType::bf16) put(a.y->bf16(), float_to_bf16);
    else put(a.y->f32(), [](float x) { return x; });
  }
};

}  // namespace

void lora_merge(TensorRef y, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale, int64_t layout,
                int64_t to) {
  const args::lora_merge a{y, w, scales, A, B, scale, layout, to};
  const Dense dense{a, shape_of(*A, *B)};
  const Shape& s = dense.s;
  s.each([&](int64_t e, int64_t n, int count, int64_t) {
    Row sum[kRows], at_w[kRows];
    const float* b = B->f32() + (e * s.N + n) * s.R;
    for (int64_t c = 0; c < s.C; c += kCols) {
      const int cols = static_cast<int>(std::min<int64_t>(kCols, s.C - c));
      const float* from = A->f32() + e * s.R * s.C + c;
      products(sum, cols, from, s.C, b, s.R, count);
      dense.load(at_w, e, n, count, c, cols);
      int at[2] = {-1, 0};
      run_kernel<AddScaled>(&at_w[0], static_cast<const Row*>(sum), static_cast<float>(scale), count, cols, &at[0]);
      if (at[0] >= 0) not_finite("lora_merge", e, n + at[0], c + at[1]);
      dense.store(at_w, e, n, count, c, cols);
    }
  });
}

namespace reference {
namespace {

float merged(float w, TensorRef A, TensorRef B, double scale, int64_t e, int64_t n, int64_t c, const char* op) {
  const Shape s = shape_of(*A, *B);
  float sum = 0;
  for (int64_t r = 0; r < s.R; ++r)
    sum = std::fmaf(B->f32()[(e * s.N + n) * s.R + r], A->f32()[(e * s.R + r) * s.C + c], sum);
  const float out = std::fmaf(static_cast<float>(scale), sum, w);
  if (!std::isfinite(out)) not_finite(op, e, n, c);
  return out;
}

// The code nearest to v, magnitudes alone; a tie stays with the smaller.
int nearest(double v) {
  int code = 0;
  for (int c = 1; c < 8; ++c)
    if (std::fabs(v - kE2M1[c]) < std::fabs(v - kE2M1[code])) code = c;
  return code;
}

void merge_group(uint8_t* block, uint8_t* scale, const float* w, const float* old, const uint8_t* base,
                 uint8_t base_scale) {
  if (std::equal(w, w + kGroup, old)) {
    std::copy(base, base + 16, block);
    *scale = base_scale;
    return;
  }
  double peak = 0;
  for (int i = 0; i < kGroup; ++i) peak = std::max(peak, std::fabs(static_cast<double>(w[i])));
  const int low = peak > 0 ? std::max(std::ilogb(peak) - 2 + 127, 1) : 1;
  // Squared error under `low` less that under the next, in units of low's square: each term and the sum are exact.
  double gain = 0;
  for (int i = 0; i < kGroup; ++i) {
    const double v = std::ldexp(std::fabs(static_cast<double>(w[i])), 127 - low), a = kE2M1[nearest(v)],
                 b = 2 * static_cast<double>(kE2M1[nearest(v / 2)]);
    if (a != b) gain += (b - a) * (2 * v - a - b);
  }
  const int e = gain > 0 || (gain == 0 && base_scale == low + 1) ? low + 1 : low;
  *scale = static_cast<uint8_t>(e);
  for (int i = 0; i < kGroup; ++i) {
    int code = nearest(std::ldexp(std::fabs(static_cast<double>(w[i])), 127 - e));
    if (code && std::signbit(w[i])) code |= 8;
    block[i / 2] = static_cast<uint8_t>(i & 1 ? (block[i / 2] & 15) | code << 4 : code);
  }
}

}  // namespace

void mxfp4_merge(TensorRef blocks, TensorRef scales, TensorRef kept, TensorRef base, TensorRef base_scales, TensorRef A,
                 TensorRef B, double scale) {
  const Shape s = shape_of(*A, *B);
  for (int64_t e = 0; e < s.E; ++e) {
    double total[2] = {0, 0};
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t g = 0; g < s.C / kGroup; ++g) {
        const int64_t at = (e * s.N + n) * (s.C / kGroup) + g;
        const uint8_t before = base_scales->u8()[at];
        require(before != 255, "bad_scale", "mxfp4_merge: base_scales[", e, ",", n, ",", g,
                "]: got 255, the format's NaN; wanted 0 to 254");
        float old[kGroup], w[kGroup];
        for (int i = 0; i < kGroup; ++i) {
          old[i] = mxfp4_element(base->u8() + at * 16, before, i);
          w[i] = merged(old[i], A, B, scale, e, n, g * kGroup + i, "mxfp4_merge");
        }
        merge_group(blocks->u8() + at * 16, scales->u8() + at, w, old, base->u8() + at * 16, before);
        for (int i = 0; i < kGroup; ++i) {
          const double delta = merged(0, A, B, scale, e, n, g * kGroup + i, "mxfp4_merge");
          const double now = mxfp4_element(blocks->u8() + at * 16, scales->u8()[at], i);
          total[0] += (now - old[i]) * delta;
          total[1] += delta * delta;
        }
      }
    if (kept)
      for (int k = 0; k < 2; ++k) kept->f32()[2 * e + k] = static_cast<float>(total[k]);
  }
}

void lora_merge(TensorRef y, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale, int64_t layout,
                int64_t to) {
  const Shape s = shape_of(*A, *B);
  for (int64_t e = 0; e < s.E; ++e)
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t c = 0; c < s.C; ++c) {
        const int64_t by_output = (e * s.N + n) * s.C + c, by_input = (e * s.C + c) * s.N + n,
                      group = by_output / kGroup;
        if (layout == 0)
          require(scales->u8()[group] != 255, "bad_scale", "lora_merge: scales[", group,
                  "]: got 255, the format's NaN; wanted 0 to 254");
        const float from = layout == 0
                               ? mxfp4_element(w->u8() + group * 16, scales->u8()[group], static_cast<int>(c % kGroup))
                               : static_cast<float>(element(*w, layout == 1 ? by_output : by_input));
        const float out = merged(from, A, B, scale, e, n, c, "lora_merge");
        const int64_t at = to == 1 ? by_output : by_input;
        if (y->dtype == DType::bf16) y->bf16()[at] = float_to_bf16(out);
        else y->f32()[at] = out;
      }
}

}  // namespace reference
}  // namespace temper::cpu
