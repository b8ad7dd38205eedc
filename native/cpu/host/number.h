// Scalar arithmetic shared by the ops: reading a "wf" tensor (bf16 or f32), an exp that compilers vectorise, and the
// check of indices.
#pragma once
#include <cstdint>
#include "cpu/host/bf16.h"
#include "temper/error.h"
#include "temper/tensor.h"

#define TEMPER_INLINE inline __attribute__((always_inline))

namespace temper::cpu {

TEMPER_INLINE float load(const float* p) { return *p; }
// bf16
TEMPER_INLINE float load(const uint16_t* p) { return __builtin_bit_cast(float, static_cast<uint32_t>(*p) << 16); }

inline double element(const Tensor& t, int64_t i) { return t.dtype == DType::bf16 ? load(t.bf16() + i) : t.f32()[i]; }

// Calls f with the typed data pointer of a bf16 or f32 tensor.
template <class F>
void with_wf(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16) f(static_cast<const uint16_t*>(t.bf16()));
  else f(static_cast<const float*>(t.f32()));
}

// e^x to about 1 ulp over the whole range, subnormal results included: x = n·ln2 + r, |r| ≤ ln2/2, ln2 split in two
// parts, degree-7 polynomial (coefficients: Cephes expf). 2^n is applied in two halves, so that neither factor leaves
// the normal range.
TEMPER_INLINE float exp_approx(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5·2^23: adding it leaves the nearest integer in the low mantissa bits
  float c = x > 89.0f ? 89.0f : x;
  c = c < -104.0f ? -104.0f : c;
  const float shifted = c * 1.44269504088896341f + kRound;
  const float whole = shifted - kRound;
  const uint32_t n = __builtin_bit_cast(uint32_t, shifted) - __builtin_bit_cast(uint32_t, kRound);
  float r = c - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(n) >> 1);
  return p * __builtin_bit_cast(float, (half + 127u) << 23) * __builtin_bit_cast(float, (n - half + 127u) << 23);
}
TEMPER_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp_approx(-x)); }

// Every index in [0, limit), else Error{"bad_index"}.
inline void check_indices(const char* op, const char* name, const int32_t* index, int64_t count, int64_t limit) {
  const uint32_t bound = limit > INT32_MAX ? 0x80000000u : static_cast<uint32_t>(limit);
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) bad |= static_cast<uint32_t>(index[i]) >= bound;
  if (!bad) [[likely]]
    return;
  for (int64_t i = 0; i < count; ++i)
    require(static_cast<uint32_t>(index[i]) < bound, "bad_index", op, ": ", name, "[", i, "] is ", index[i],
            ", wanted 0 to ", limit - 1);
}

// Offsets of E groups rise from 0 to P, else Error{"bad_index"}.
inline void check_offsets(const Tensor& offsets, int64_t P, const char* op) {
  const int32_t* o = offsets.i32();
  const int64_t E = offsets.numel() - 1;
  require(o[0] == 0 && o[E] == P, "bad_index", op, ": offsets: got ", o[0], " … ", o[E], ", wanted 0 … ", P);
  for (int64_t e = 0; e < E; ++e)
    require(o[e] <= o[e + 1], "bad_index", op, ": offsets[", e + 1, "]: got ", o[e + 1], ", wanted at least ", o[e]);
}

}  // namespace temper::cpu
