// The choice of a token's experts, by one warp.
#pragma once
#include "gpu/device.cuh"

namespace temper::gpu {

// Larger logits have larger keys and of equal logits the lower expert has the larger one, so no two are alike. NaN
// counts as −∞, −0 as +0.
TEMPER_DEVICE unsigned long long choice_key(float x, int64_t e) {
  const float number = x == x ? x + 0.0f : -INFINITY;
  const uint32_t bits = float_to_bits(number), order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(e));
}
TEMPER_DEVICE float choice_logit(unsigned long long key) {
  const uint32_t order = static_cast<uint32_t>(key >> 32);
  return bits_to_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// The K largest of logit(0) … logit(E−1), falling, and the softmax over them. PerLane: experts that a lane keeps in
// registers; 0: any number, read again for each choice.
template <int PerLane, class Logit>
TEMPER_DEVICE void choose_experts(float* weights, int32_t* ids, int64_t E, int64_t K, Logit&& logit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  unsigned long long keys[PerLane ? PerLane : 1];
#pragma unroll
  for (int j = 0; j < PerLane; ++j) {
    const int64_t e = lane + j * kWarp;
    keys[j] = e < E ? choice_key(logit(e), e) : 0;
  }
  unsigned long long last = ~0ull;
  float largest = 0, total = 0;
  for (int64_t k = 0; k < K; ++k) {
    unsigned long long best = 0;
    if constexpr (PerLane > 0) {
#pragma unroll
      for (int j = 0; j < PerLane; ++j) best = keys[j] < last && keys[j] > best ? keys[j] : best;
    } else {
      for (int64_t e = lane; e < E; e += kWarp) {
        const unsigned long long key = choice_key(logit(e), e);
        best = key < last && key > best ? key : best;
      }
    }
    for (int step = kWarp / 2; step; step /= 2) {
      const unsigned long long other = __shfl_xor_sync(kAllLanes, best, step);
      best = other > best ? other : best;
    }
    last = best;
    const float x = choice_logit(best);
    if (k == 0) largest = x;
    const float share = x == largest ? 1.0f : expf(x - largest);  // equal infinities have the difference 0, not NaN
    total += share;
    if (lane == k % kWarp) {
      weights[k] = share;
      ids[k] = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best));
    }
  }
  for (int64_t k = lane; k < K; k += kWarp) weights[k] /= total;  // each lane reads what it wrote
}

}  // namespace temper::gpu
