// Random numbers by counter, the same values as cpu/random.cpp: element i is a function of (seed, i) alone. Weights of
// a bench are made with these, so no file is needed; the double log and cos of the normal (about 150 instructions) are
// the cost on a GPU with few double units.
#include <cmath>

#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;
constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;

// splitmix64 (Steele, Lea, Flood 2014), jumped to its i-th output; the seed goes through one round first, so that near
// seeds part.
__host__ TEMPER_DEVICE uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
uint64_t key_of(int64_t seed) { return mix(static_cast<uint64_t>(seed) + kStep); }
TEMPER_DEVICE uint64_t bits_at(uint64_t key, int64_t i) { return mix(key + (static_cast<uint64_t>(i) + 1) * kStep); }

struct Uniform {
  uint64_t key;
  double low, high;
  // Rounding must not reach the open end.
  TEMPER_DEVICE float operator()(int64_t i) const {
    const float x = static_cast<float>(low + (high - low) * (static_cast<double>(bits_at(key, i) >> 11) * 0x1p-53));
    return static_cast<double>(x) < high || !(low < high)
               ? x
               : nextafterf(static_cast<float>(high), static_cast<float>(low));
  }
  TEMPER_DEVICE uint16_t to_bf16(float x) const {
    const uint16_t r = float_to_bf16(x);
    if (static_cast<double>(bf16_to_float(r)) < high || !(low < high)) return r;
    const uint16_t cut = static_cast<uint16_t>(float_to_bits(x) >> 16);  // towards zero
    return x < 0 ? static_cast<uint16_t>(cut + 1) : cut;
  }
};
struct Normal {
  uint64_t key;
  double scale;
  // Box-Muller, the cosine half: 40 bits for the radius (at most 7.4 deviations), 24 for the angle.
  TEMPER_DEVICE float operator()(int64_t i) const {
    const uint64_t b = bits_at(key, i);
    const double u = static_cast<double>((b >> 24) + 1) * 0x1p-40, angle = static_cast<double>(b & 0xffffff) * 0x1p-24;
    return static_cast<float>(scale * (sqrt(-2.0 * log(u)) * cos(kTwoPi * angle)));
  }
  TEMPER_DEVICE uint16_t to_bf16(float x) const { return float_to_bf16(x); }
};

template <class At>
TEMPER_DEVICE void put(float* p, const At&, float x) {
  *p = x;
}
template <class At>
TEMPER_DEVICE void put(uint16_t* p, const At& at, float x) {
  *p = at.to_bf16(x);
}
// Neighbouring threads write neighbouring elements; the arithmetic hides behind the stores of other warps.
template <class Out, class At>
__global__ void __launch_bounds__(kThreads) random_kernel(Out* dst, At at, int64_t n) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) put(dst + i, at, at(i));
}

// Four elements share a hash, 16 bits each.
__global__ void __launch_bounds__(kThreads)
    random_bytes_kernel(uint8_t* dst, uint64_t key, uint64_t low, uint64_t span, int64_t n, bool wide) {
  wait_for_previous();
  const int64_t hash = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, first = 4 * hash;
  if (first >= n) return;
  const uint64_t bits = bits_at(key, hash);
  uint32_t word = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    word |= static_cast<uint32_t>((low + ((((bits >> (16 * k)) & 0xffff) * span) >> 16)) & 0xff) << (8 * k);
  if (wide && first + 4 <= n) return store_as(dst + first, word);
  for (int k = 0; k < 4 && first + k < n; ++k) dst[first + k] = static_cast<uint8_t>(word >> (8 * k));
}

template <class At>
void generate(const Tensor& dst, At at) {
  const int64_t n = dst.numel();
  const dim3 grid(blocks_for(n, kThreads));
  if (dst.dtype == DType::bf16) launch(random_kernel<uint16_t, At>, grid, dim3(kThreads), 0, dst.bf16(), at, n);
  else launch(random_kernel<float, At>, grid, dim3(kThreads), 0, dst.f32(), at, n);
}

}  // namespace

void random_uniform(TensorRef dst, int64_t seed, double low, double high) {
  require(low <= high && std::isfinite(low) && std::isfinite(high), "bad_argument", "random_uniform: range [", low,
          ", ", high, "), wanted finite low ≤ high");
  generate(*dst, Uniform{key_of(seed), low, high});
}

void random_normal(TensorRef dst, int64_t seed, double scale) { generate(*dst, Normal{key_of(seed), scale}); }

void random_bytes(TensorRef dst, int64_t seed, int64_t low, int64_t high) {
  require(low >= 0 && low <= high && high <= 255, "bad_argument", "random_bytes: range [", low, ", ", high,
          "], wanted 0 ≤ low ≤ high ≤ 255");
  const int64_t n = dst->numel();
  launch(random_bytes_kernel, dim3(blocks_for(n, 4 * kThreads)), dim3(kThreads), 0, dst->u8(), key_of(seed),
         static_cast<uint64_t>(low), static_cast<uint64_t>(high - low + 1), n, aligned(4, {dst->data}));
}

}  // namespace temper::gpu
