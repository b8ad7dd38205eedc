// Random numbers by counter: element i is a function of (seed, i) alone, so order, threads and instruction set cannot
// change it.
#include <cmath>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

// splitmix64 (Steele, Lea, Flood 2014), jumped to its i-th output; the seed goes through one round first, so that near
// seeds part.
inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
inline uint64_t key_of(int64_t seed) { return mix(static_cast<uint64_t>(seed) + 0x9e3779b97f4a7c15ull); }
inline uint64_t bits_at(uint64_t key, int64_t i) {
  return mix(key + (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15ull);
}

inline double uniform_at(uint64_t key, int64_t i, double low, double high) {
  return low + (high - low) * (static_cast<double>(bits_at(key, i) >> 11) * 0x1p-53);
}

// Box-Muller, the cosine half: 40 bits for the radius (at most 7.4 deviations), 24 for the angle.
inline double normal_at(uint64_t key, int64_t i) {
  const uint64_t b = bits_at(key, i);
  const double u = static_cast<double>((b >> 24) + 1) * 0x1p-40, angle = static_cast<double>(b & 0xffffff) * 0x1p-24;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(kTwoPi * angle);
}

// Four elements share a hash, 16 bits each.
inline uint8_t byte_at(uint64_t key, int64_t i, uint64_t low, uint64_t span) {
  return static_cast<uint8_t>(low + ((((bits_at(key, i >> 2) >> (16 * (i & 3))) & 0xffff) * span) >> 16));
}

// Rounding must not reach the open end.
inline float below(float x, double low, double high) {
  return static_cast<double>(x) < high || !(low < high)
             ? x
             : std::nextafterf(static_cast<float>(high), static_cast<float>(low));
}
inline uint16_t below_bf16(float x, double low, double high) {
  const uint16_t r = float_to_bf16(x);
  if (static_cast<double>(load(&r)) < high || !(low < high)) return r;
  const uint16_t cut = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, x) >> 16);  // towards zero
  return x < 0 ? static_cast<uint16_t>(cut + 1) : cut;
}

void check_uniform(double low, double high) {
  require(low <= high && std::isfinite(low) && std::isfinite(high), "bad_argument", "random_uniform: range [", low,
          ", ", high, "), wanted finite low ≤ high");
}
void check_bytes(int64_t low, int64_t high) {
  require(low >= 0 && low <= high && high <= 255, "bad_argument", "random_bytes: range [", low, ", ", high,
          "], wanted 0 ≤ low ≤ high ≤ 255");
}

template <class At32, class At16>
void generate(const Tensor& dst, int64_t begin, int64_t end, At32&& at32, At16&& at16) {
  if (dst.dtype == DType::bf16)
    for (int64_t i = begin; i < end; ++i) dst.bf16()[i] = at16(i);
  else
    for (int64_t i = begin; i < end; ++i) dst.f32()[i] = at32(i);
}

void uniform_range(const Tensor& dst, uint64_t key, double low, double high, int64_t begin, int64_t end) {
  generate(
      dst, begin, end, [&](int64_t i) { return below(static_cast<float>(uniform_at(key, i, low, high)), low, high); },
      [&](int64_t i) {
        return below_bf16(below(static_cast<float>(uniform_at(key, i, low, high)), low, high), low, high);
      });
}
void normal_range(const Tensor& dst, uint64_t key, double scale, int64_t begin, int64_t end) {
  generate(
      dst, begin, end, [&](int64_t i) { return static_cast<float>(scale * normal_at(key, i)); },
      [&](int64_t i) { return float_to_bf16(static_cast<float>(scale * normal_at(key, i))); });
}

constexpr int64_t kRandomTask = 8192;

}  // namespace

Cost cost::random_uniform(const args::random_uniform& a) { return streamed(a); }
Cost cost::random_normal(const args::random_normal& a) { return streamed(a); }
Cost cost::random_bytes(const args::random_bytes& a) { return streamed(a); }

void random_uniform(TensorRef dst, int64_t seed, double low, double high) {
  check_uniform(low, high);
  parallel_ranges(dst->numel(), kRandomTask,
                  [&](int64_t begin, int64_t end) { uniform_range(*dst, key_of(seed), low, high, begin, end); });
}
void random_normal(TensorRef dst, int64_t seed, double scale) {
  parallel_ranges(dst->numel(), kRandomTask,
                  [&](int64_t begin, int64_t end) { normal_range(*dst, key_of(seed), scale, begin, end); });
}
void random_bytes(TensorRef dst, int64_t seed, int64_t low, int64_t high) {
  check_bytes(low, high);
  const uint64_t key = key_of(seed), first = static_cast<uint64_t>(low), span = static_cast<uint64_t>(high - low + 1);
  parallel_ranges(dst->numel(), 4 * kRandomTask, [&](int64_t begin, int64_t end) {
    int64_t i = begin;  // a multiple of four: ranges start at whole hashes
    for (; i + 4 <= end; i += 4) {
      const uint64_t bits = bits_at(key, i >> 2);
      for (int k = 0; k < 4; ++k)
        dst->u8()[i + k] = static_cast<uint8_t>(first + ((((bits >> (16 * k)) & 0xffff) * span) >> 16));
    }
    for (; i < end; ++i) dst->u8()[i] = byte_at(key, i, first, span);
  });
}

namespace reference {

void random_uniform(TensorRef dst, int64_t seed, double low, double high) {
  check_uniform(low, high);
  uniform_range(*dst, key_of(seed), low, high, 0, dst->numel());
}
void random_normal(TensorRef dst, int64_t seed, double scale) {
  normal_range(*dst, key_of(seed), scale, 0, dst->numel());
}
void random_bytes(TensorRef dst, int64_t seed, int64_t low, int64_t high) {
  check_bytes(low, high);
  for (int64_t i = 0; i < dst->numel(); ++i)
    dst->u8()[i] = byte_at(key_of(seed), i, static_cast<uint64_t>(low), static_cast<uint64_t>(high - low + 1));
}

}  // namespace reference
}  // namespace temper::cpu
