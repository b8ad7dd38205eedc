// MXFP4 in registers: 32 E2M1 codes and one E8M0 scale (format: cpu/mxfp4.h). The 3 magnitude bits of a code, moved to
// bits 6-8 of a bf16, are the value times 2⁻¹²⁶ (the subnormal 0.5 too), so one exact multiplication by a power of two
// decodes; no table.
#pragma once
#include "gpu/device.cuh"

namespace temper::gpu {

// The factor 2^(e−127)·2¹²⁶ as a pair of bf16. Beyond e = 128 it does not fit: then it is 2¹²⁷ and `rest` holds what is
// left.
struct Mxfp4Scale {
  uint32_t factor, rest;
};
// the largest scale byte that one factor covers; weights of 2 and more lie beyond
constexpr uint32_t kMxfp4Narrow = 128;
template <bool kWide>
TEMPER_DEVICE Mxfp4Scale mxfp4_scale(uint32_t e) {
  if constexpr (!kWide) return {((e + 126) << 7) * 0x10001u, 0};
  if (e <= kMxfp4Narrow) return {((e + 126) << 7) * 0x10001u, 0x3f803f80u};
  return {0x7f007f00u, e == 255 ? 0x7fc07fc0u : ((e - 1) << 7) * 0x10001u};
}

// Eight codes (four bytes as they lie in memory) as bf16: pair i holds elements i (low half) and i+4 (high half).
// Exact.
template <bool kWide>
TEMPER_DEVICE void mxfp4_pairs(uint32_t codes, Mxfp4Scale scale, uint32_t (&pair)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t q = codes << (12 - 4 * i);
    pair[i] = multiply_bf16x2((q & 0x80008000u) | ((q >> 6) & 0x01c001c0u), scale.factor);
    if constexpr (kWide) pair[i] = multiply_bf16x2(pair[i], scale.rest);
  }
}

// The same eight as f32, in order.
TEMPER_DEVICE void mxfp4_values(uint32_t codes, uint32_t e, float (&v)[8]) {
  const float factor = bits_to_float(e == 255 ? 0x7fc00000u : e ? e << 23 : 0x00400000u);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t code = codes >> (4 * i);
    v[i] = bits_to_float((code & 8u) << 28 | (code & 7u) << 22) * 0x1p126f * factor;
  }
}

}  // namespace temper::gpu
