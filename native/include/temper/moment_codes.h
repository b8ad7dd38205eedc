// The 8-bit codes of AdamW's moments (dynamic trees: arXiv:1511.04561; by block: arXiv:2110.02861), one set of them for
// every backend. A code stands for a number in [-1, 1], or [0, 1], that the scale of its block multiplies. Seven
// decades, decade i being [10^(i-7), 10^(i-6)), are cut into equal cells, each standing for its middle: 2^i cells where
// there is a sign, 2^(i+1) where there is none. A magnitude's code is its decade's leading bit and the cell's number
// below it; 0 is 0, and the one code that this leaves over is 1. So coding is a comparison per decade, a product and a
// sum.
//
//   signed, the first moment      0: 0 · 1…127: cells · 128: 1 · 129…255: cells below 0
//   unsigned, the second moment   0: 0 · 1: 1 · 2…255: cells
//
// All is f32 arithmetic that rounds each operation to nearest and fuses none: the same bits wherever it runs.
#pragma once
#include <cstdint>

namespace temper::moments {

inline constexpr int kBlock = 256;  // elements that share a scale
inline constexpr int kDecades = 7;

template <bool Signed>
constexpr int lead_of(int decade) {
  return 1 << (Signed ? decade : decade + 1);
}
template <bool Signed>
inline constexpr int kOne = Signed ? 128 : 1;

// What a cell stands for: (2n + 18k + 9) / (20n·10^(6-decade)) with n cells to the decade, k the cell. Numerator and
// denominator are f32 numbers, so it is rounded once.
template <bool Signed>
constexpr float cell(int decade, int k) {
  const int n = lead_of<Signed>(decade);
  float over = static_cast<float>(20 * n);
  for (int i = decade; i < kDecades - 1; ++i) over *= 10.0f;
  return static_cast<float>(2 * n + 18 * k + 9) / over;
}
template <bool Signed>
constexpr float value_of(int code) {
  if (code == 0) return 0.0f;
  if (code == kOne<Signed>) return 1.0f;
  const int magnitude = Signed ? code & 127 : code;
  int decade = 0;
  while (decade + 1 < kDecades && magnitude >= lead_of<Signed>(decade + 1)) ++decade;
  const float value = cell<Signed>(decade, magnitude - lead_of<Signed>(decade));
  return Signed && code > 128 ? -value : value;
}

// Where a decade's cells begin to be nearest: half way between its first one and the one before.
template <bool Signed>
constexpr float edge_of(int decade) {
  if (decade == 0) return cell<Signed>(0, 0) * 0.5f;
  if (decade == kDecades) return (cell<Signed>(kDecades - 1, lead_of<Signed>(kDecades - 1) - 1) + 1.0f) * 0.5f;
  return (cell<Signed>(decade - 1, lead_of<Signed>(decade - 1) - 1) + cell<Signed>(decade, 0)) * 0.5f;
}
// Cells to a unit: n·10^(6-decade) / 0.9.
template <bool Signed>
constexpr float slope_of(int decade) {
  float over = static_cast<float>(10 * lead_of<Signed>(decade));
  for (int i = decade; i < kDecades - 1; ++i) over *= 10.0f;
  return over / 9.0f;
}

// a where `is` holds, else b. On a CPU by masks, as a compiler that makes a jump of it makes no vectors of the loop.
[[gnu::always_inline]] constexpr int pick(bool is, int a, int b) {
#if defined(__CUDA_ARCH__)
  return is ? a : b;
#else
  return b ^ ((a ^ b) & -static_cast<int>(is));
#endif
}
[[gnu::always_inline]] constexpr float pick(bool is, float a, float b) {
#if defined(__CUDA_ARCH__)
  return is ? a : b;
#else
  return __builtin_bit_cast(float, pick(is, __builtin_bit_cast(int, a), __builtin_bit_cast(int, b)));
#endif
}

template <bool Signed, int Decade>
[[gnu::always_inline]] constexpr void enter(float y, float& slope, float& lead) {
  if constexpr (Decade < kDecades) {
    constexpr float edge = edge_of<Signed>(Decade), its_slope = slope_of<Signed>(Decade),
                    its_lead = static_cast<float>(lead_of<Signed>(Decade));
    const bool in = y >= edge;
    slope = pick(in, its_slope, slope);
    lead = pick(in, its_lead, lead);
    enter<Signed, Decade + 1>(y, slope, lead);
  }
}
// The cell that y ≥ 0 is nearest to, of those that are not 0 or 1.
template <bool Signed>
[[gnu::always_inline]] constexpr int nearest_cell(float y) {
  constexpr float first_slope = slope_of<Signed>(0), first_lead = static_cast<float>(lead_of<Signed>(0));
  float slope = first_slope, lead = first_lead;
  enter<Signed, 1>(y, slope, lead);
  float at = y * slope + lead * (8.0f / 9.0f);
  const float last = lead * 2.0f - 0.5f;
  at = pick(at < lead, lead, at);
  at = pick(at > last, last, at);
  return static_cast<int>(at);
}

// Codes of x, one of a block whose scale is the divisor's.
struct Divisor {
  float lift, inverse;
};
// Of a scale, 0 or more: powers of two keep the quotient's parts in f32's normal range.
[[gnu::always_inline]] constexpr Divisor divisor_of(float scale) {
  const float lift = scale < 0x1p-100f ? 0x1p100f : scale > 0x1p100f ? 0x1p-100f : 1.0f;
  return {lift, scale > 0.0f ? 1.0f / (scale * lift) : 0.0f};
}
[[gnu::always_inline]] constexpr int first_code(float x, Divisor by) {
  constexpr float least = edge_of<true>(0), one = edge_of<true>(kDecades);
  const float quotient = x * by.lift * by.inverse;
  const bool below = quotient < 0.0f;
  const float size = pick(below, -quotient, quotient), y = pick(size > 0.0f, size, 0.0f);  // NaN: 0
  const int magnitude = nearest_cell<true>(y);
  const int code = pick(below, magnitude + 128, pick(y >= one, kOne<true>, magnitude));
  return pick(y >= least, code, 0);
}
[[gnu::always_inline]] constexpr int second_code(float x, Divisor by) {
  constexpr float one = edge_of<false>(kDecades);
  const float quotient = x * by.lift * by.inverse, y = pick(quotient > 0.0f, quotient, 0.0f);  // NaN: 0
  return pick(x > 0.0f, pick(y >= one, kOne<false>, nearest_cell<false>(y)), 0);
}

// The scale of a block from the largest bits of a magnitude in it: as integers magnitudes are in order, NaN last.
inline constexpr int32_t kInfinity = 0x7f800000, kNaN = 0x7fc00000;

}  // namespace temper::moments
