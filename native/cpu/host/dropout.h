// The dropout mask of a linear op: element i is kept when a hash of (seed, i) falls in the kept share, so the backward
// needs no stored mask.
#pragma once
#include <cstdint>

namespace temper::cpu {

struct Dropout {
  Dropout(double p, int64_t seed)
      : key(mix(static_cast<uint64_t>(seed) + 0x9e3779b97f4a7c15ull)),
        limit(static_cast<uint32_t>(p * 16777216.0)),
        keep_scale(static_cast<float>(1.0 / (1.0 - p))) {}
  // The factor element i is multiplied with: 0 or 1/(1−p).
  float factor(int64_t i) const {
    return (mix(key + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull) >> 40) >= limit ? keep_scale : 0.0f;
  }

 private:
  static uint64_t mix(uint64_t z) {  // the finaliser of SplitMix64 (Steele, Lea, Flood 2014)
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  uint64_t key;
  uint32_t limit;  // of 2^24
  float keep_scale;
};

}  // namespace temper::cpu
