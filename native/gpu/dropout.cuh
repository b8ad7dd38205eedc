// The dropout mask of cpu/dropout.h on the device: element i is kept when a hash of (seed, i) falls in the kept share.
#pragma once
#include "gpu/device.cuh"

namespace temper::gpu {

// The dropout factor of element i of a [T,C] tensor: 0 or 1/(1−p).
struct DropoutMask {
  uint64_t key = 0;
  uint32_t limit = 0;  // of 2^24; 0: no dropout
  float keep_scale = 1.0f;
};
inline DropoutMask dropout_mask(double p, int64_t seed) {
  if (p <= 0) return {};
  uint64_t z = static_cast<uint64_t>(seed) + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return {z ^ (z >> 31), static_cast<uint32_t>(p * 16777216.0), static_cast<float>(1.0 / (1.0 - p))};
}

TEMPER_DEVICE float dropout_factor(const DropoutMask& mask, int64_t i) {
  uint64_t z = mask.key + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull;  // the finaliser of SplitMix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return static_cast<uint32_t>(z >> 40) >= mask.limit ? mask.keep_scale : 0.0f;
}

}  // namespace temper::gpu
