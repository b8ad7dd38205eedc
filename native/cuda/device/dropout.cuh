// The dropout mask of cpu/dropout.h on the device: element i is kept when a hash of (seed, i) falls in the kept share.
#pragma once
#include "cuda/device/device.cuh"
#include "cuda/matmul/matmul.h"

namespace temper::cuda {

TEMPER_DEVICE float dropout_factor(const DropoutMask& mask, int64_t i) {
  uint64_t z = mask.key + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull;  // the finaliser of SplitMix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return static_cast<uint32_t>(z >> 40) >= mask.limit ? mask.keep_scale : 0.0f;
}

}  // namespace temper::cuda
