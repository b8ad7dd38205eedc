// Products with few rows read each weight once, so they run at memory speed: dot products along the weight's rows, with
// x prepared in the order in which the weight is decoded. Here is the general form, decoding through a small buffer.
#pragma once
#include "cpu/matmul/matmul_pack.h"

namespace temper::cpu {
namespace {

constexpr int kDotBlock = 256;
constexpr int64_t kPrefetch = 3072;  // bytes ahead in the weight stream; the hardware's own stops at each page

// The form of FewRows::prepare that takes one row after the other. units(weight, k): of one.
template <auto Units, auto Prepare>
void each_row(uint32_t* dst, const Source& a, int64_t row, int rows, int64_t k, Kind weight) {
  for (int i = 0; i < rows; ++i, dst += Units(weight, k)) Prepare(dst, a, row + i, k, weight);
}

// Calls f with m as a compile-time constant.
template <int Max, class F>
inline void with_rows(int m, F&& f) {
  if constexpr (Max > 1) {
    if (m < Max) return with_rows<Max - 1>(m, f);
  }
  f.template operator()<Max>();
}

inline int64_t dot_units_any(Kind, int64_t k) { return k; }

template <bool Round>
void dot_prepare_any(uint32_t* dst, const Source& a, int64_t row, int64_t k, Kind) {
  for (int64_t i = 0; i < k; i += kDotBlock)
    load_segment<Round>(reinterpret_cast<float*>(dst) + i, a, row, i,
                        static_cast<int>(k - i < kDotBlock ? k - i : kDotBlock));
}

template <class V, bool Round>
void few_rows_any(float* out, int64_t ld, int m, const uint32_t* x, const Source& b, int64_t n0, int64_t n1,
                  int64_t k) {
  constexpr int lanes = V::width;
  alignas(64) float w[kDotBlock];
  for (int64_t n = n0; n < n1; ++n) {
    typename V::T sum[kFewRows][2];
    float tail[kFewRows] = {};
    for (int i = 0; i < m; ++i) sum[i][0] = sum[i][1] = V::zero();
    for (int64_t at = 0; at < k; at += kDotBlock) {
      const int count = static_cast<int>(k - at < kDotBlock ? k - at : kDotBlock);
      load_segment<Round>(w, b, n, at, count);
      for (int i = 0; i < m; ++i) {
        const float* xi = reinterpret_cast<const float*>(x) + i * k + at;
        int j = 0;
        for (; j + 2 * lanes <= count; j += 2 * lanes) {
          sum[i][0] = V::fma(V::load(w + j), V::load(xi + j), sum[i][0]);
          sum[i][1] = V::fma(V::load(w + j + lanes), V::load(xi + j + lanes), sum[i][1]);
        }
        for (; j < count; ++j) tail[i] += w[j] * xi[j];
      }
    }
    for (int i = 0; i < m; ++i) {
      float parts[2 * lanes], total = tail[i];
      V::store(parts, sum[i][0]);
      V::store(parts + lanes, sum[i][1]);
      for (int half = lanes; half; half /= 2)
        for (int j = 0; j < half; ++j) parts[j] += parts[j + half];
      total += parts[0];
      out[i * ld + n - n0] = total;
    }
  }
}

}  // namespace
}  // namespace temper::cpu
