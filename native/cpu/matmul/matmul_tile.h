// The f32 tile kernel and the row reductions, over a vector type V of the including translation unit's instruction set.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/matmul/matmul.h"

namespace temper::cpu {
namespace {

// Every loop over rows is unrolled, else the compiler keeps the sums in memory.
template <class V, int Rows, int Cols>
void tile_rows(int units, const float* a, const float* b, float* c, int64_t ldc, float alpha, bool overwrite,
               const float* bias) {
  using T = typename V::T;
  T sum[Rows][Cols];
  float* row = c;
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, row += ldc) {
    for (int j = 0; j < Cols; ++j) sum[i][j] = V::zero();
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + Cols * V::width - 1, 1);
  }
  // the rows' addresses are formed again afterwards, not kept in vector registers
  asm volatile("" : "+r"(c), "+r"(ldc));
  for (int u = 0; u < units; ++u, a += Rows, b += Cols * V::width) {
    T right[Cols];
    for (int j = 0; j < Cols; ++j) right[j] = V::load(b + j * V::width);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const T left = V::broadcast(a[i]);
      for (int j = 0; j < Cols; ++j) sum[i][j] = V::fma(left, right[j], sum[i][j]);
    }
  }
  const T factor = V::broadcast(alpha);
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i, c += ldc)
    for (int j = 0; j < Cols; ++j) {
      float* at = c + j * V::width;
      const T base = !overwrite ? V::load(at) : bias ? V::load(bias + j * V::width) : V::zero();
      V::store(at, V::fma(factor, sum[i][j], base));
    }
}

// Picks the instantiation for `rows` of at most Max.
template <class V, int Max, int Cols>
void tile_f32(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha,
              bool overwrite, const float* bias) {
  if constexpr (Max > 1) {
    if (rows < Max) return tile_f32<V, Max - 1, Cols>(rows, units, a, b, c, ldc, alpha, overwrite, bias);
  }
  tile_rows<V, Max, Cols>(units, reinterpret_cast<const float*>(a), reinterpret_cast<const float*>(b), c, ldc, alpha,
                          overwrite, bias);
}

// exp by 2^n·p(r), |r| ≤ ln2/2, Cephes' degree-6 form: within 2 ulp; arguments here are at most a rounding above 0.
inline float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5·2^23: the integer lands in the low mantissa bits
  int32_t n;
  std::memcpy(&n, &shifted, sizeof n);
  const float whole = shifted - 12582912.0f;
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const int32_t scale_bits = (n - 0x4b400000 + 127) << 23;
  float scale;
  std::memcpy(&scale, &scale_bits, sizeof scale);
  return p * scale;
}

inline float row_max(const float* x, int64_t n) {
  constexpr int lanes = 16;
  float best[lanes];
  for (float& v : best) v = -__builtin_inff();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
  for (; i < n; ++i) best[0] = x[i] > best[0] ? x[i] : best[0];
  for (int j = 1; j < lanes; ++j) best[0] = best[j] > best[0] ? best[j] : best[0];
  return best[0];
}

inline double sum_exp(const float* x, int64_t n, float shift) {
  constexpr int lanes = 16;
  double total = 0;
  for (int64_t from = 0; from < n; from += 512) {  // f32 within a short block, double across blocks
    const int64_t to = from + 512 < n ? from + 512 : n;
    float sum[lanes] = {};
    int64_t i = from;
    for (; i + lanes <= to; i += lanes)
      for (int j = 0; j < lanes; ++j) sum[j] += exp_of(x[i + j] - shift);
    for (; i < to; ++i) sum[i % lanes] += exp_of(x[i] - shift);
    for (float s : sum) total += s;
  }
  return total;
}

inline void exp_scaled(float* x, int64_t n, float shift, float factor) {
  for (int64_t i = 0; i < n; ++i) x[i] = factor * exp_of(x[i] - shift);
}

}  // namespace
}  // namespace temper::cpu
