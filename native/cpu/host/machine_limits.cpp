#include "cpu/host/machine_limits.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu/host/isa.h"
#include "temper/memory.h"
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/host/amx.h"
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace temper::cpu {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Each spin does `rounds` × 24 independent vector multiply-adds (enough to cover latency 4 × 2 ports, and more) and
// returns the operations done.
constexpr int kChains = 24;
volatile float sink_value;

#if defined(__x86_64__)
double spin_amx(int64_t rounds) {
  constexpr TileShape whole{16, 64};
  set_tiles({whole, whole, whole, whole, whole, whole, whole, whole});
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  tile_zero<4>(), tile_zero<5>(), tile_zero<6>(), tile_zero<7>();
  for (int64_t r = 0; r < rounds; ++r) {
    tile_multiply<0, 4, 6>();
    tile_multiply<1, 4, 7>();
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
  release_tiles();
  return static_cast<double>(rounds) * 4 * 2 * 16 * 16 * 32;
}
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) double spin_avx512bf16(int64_t rounds) {
  __m512 acc[kChains];
  for (auto& a : acc) a = _mm512_setzero_ps();
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80), y = (__m512bh)_mm512_set1_epi32(0x3f013f01);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], x, y);
  }
  __m512 s = acc[0];
  for (int i = 1; i < kChains; ++i) s = _mm512_add_ps(s, acc[i]);
  sink_value = s[0];
  return static_cast<double>(rounds) * kChains * 64;  // 32 products and 32 sums
}
__attribute__((target("avx512f"))) double spin_avx512(int64_t rounds) {
  __m512 acc[kChains];
  for (auto& a : acc) a = _mm512_setzero_ps();
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.5f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], x, y);
  }
  __m512 s = acc[0];
  for (int i = 1; i < kChains; ++i) s = _mm512_add_ps(s, acc[i]);
  sink_value = s[0];
  return static_cast<double>(rounds) * kChains * 32;
}
__attribute__((target("avx2,fma"))) double spin_avx2(int64_t rounds) {
  constexpr int chains = 12;  // 16 registers
  __m256 acc[chains];
  for (auto& a : acc) a = _mm256_setzero_ps();
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.5f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], x, y);
  }
  __m256 s = acc[0];
  for (int i = 1; i < chains; ++i) s = _mm256_add_ps(s, acc[i]);
  sink_value = _mm256_cvtss_f32(s);
  return static_cast<double>(rounds) * chains * 16;
}
#elif defined(__aarch64__)
double spin_neon(int64_t rounds) {
  float32x4_t acc[kChains];
  for (auto& a : acc) a = vdupq_n_f32(0.0f);
  const float32x4_t x = vdupq_n_f32(0.999f), y = vdupq_n_f32(0.5f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = vfmaq_f32(y, acc[i], x);
  }
  float32x4_t s = acc[0];
  for (int i = 1; i < kChains; ++i) s = vaddq_f32(s, acc[i]);
  sink_value = vaddvq_f32(s);
  return static_cast<double>(rounds) * kChains * 8;
}
__attribute__((target("arch=armv8.2-a+bf16"))) double spin_neonbf16(int64_t rounds) {
  float32x4_t acc[kChains];
  for (auto& a : acc) a = vdupq_n_f32(0.0f);
  const bfloat16x8_t x = vreinterpretq_bf16_u32(vdupq_n_u32(0x3f7f3f7f)),
                     y = vreinterpretq_bf16_u32(vdupq_n_u32(0x3f013f01));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = vbfdotq_f32(acc[i], x, y);
  }
  float32x4_t s = acc[0];
  for (int i = 1; i < kChains; ++i) s = vaddq_f32(s, acc[i]);
  sink_value = vaddvq_f32(s);
  return static_cast<double>(rounds) * kChains * 16;
}
#endif
double spin_portable(int64_t rounds) {
  typedef float V4 __attribute__((vector_size(16)));
  V4 acc[8] = {};
  const V4 x = {0.999f, 0.999f, 0.999f, 0.999f}, y = {0.5f, 0.5f, 0.5f, 0.5f};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = acc[i] * x + y;
  }
  V4 s = acc[0];
  for (int i = 1; i < 8; ++i) s += acc[i];
  sink_value = s[0];
  return static_cast<double>(rounds) * 8 * 8;
}

double (*spinner())(int64_t) {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::amx: return spin_amx;
    case Isa::avx512bf16: return spin_avx512bf16;
    case Isa::avx512: return spin_avx512;
    case Isa::avx2: return spin_avx2;
    default: break;
  }
#elif defined(__aarch64__)
  if (active_isa() == Isa::neonbf16) return spin_neonbf16;
  if (active_isa() == Isa::neon) return spin_neon;
#endif
  return spin_portable;
}

// Work per second summed over threads that start together and each run until `seconds` have passed.
template <class Work>
double rate(int threads, double seconds, Work work) {
  std::atomic<int> ready{0};
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> crew;
  for (int t = 0; t < threads; ++t)
    crew.emplace_back([&, t] {
      work(t);  // warm up: clocks, pages
      ++ready;
      while (ready.load() < threads) std::this_thread::yield();
      const auto start = Clock::now();
      double done = 0;
      do done += work(t);
      while (since(start) < seconds);
      rates[static_cast<size_t>(t)] = done / since(start);
    });
  for (auto& t : crew) t.join();
  double total = 0;
  for (double r : rates) total += r;
  return total;
}

uint64_t sum_words(const uint64_t* p, size_t n) {  // four chains of 16-byte adds: bound by memory, not by the adder
  typedef uint64_t V2 __attribute__((vector_size(16)));
  V2 s[4] = {};
  for (size_t i = 0; i + 8 <= n; i += 8)
    for (size_t j = 0; j < 4; ++j) {
      V2 v;
      std::memcpy(&v, p + i + 2 * j, 16);
      s[j] += v;
    }
  const V2 a = s[0] + s[1] + s[2] + s[3];
  return a[0] + a[1];
}

}  // namespace

double peak_gflops(int threads, double seconds) {
  auto* spin = spinner();
  return rate(threads, seconds, [spin](int) { return spin(20000); }) / 1e9;
}

double read_bandwidth(int threads, size_t bytes, double seconds) {
  Scratch<uint64_t> buffer(bytes / 8);
  std::memset(buffer.data(), 1, bytes / 8 * 8);
  const size_t share = bytes / 8 / static_cast<size_t>(threads);
  std::atomic<uint64_t> sink{0};
  const double per_second = rate(threads, seconds, [&](int t) {
    sink += sum_words(buffer.data() + static_cast<size_t>(t) * share, share);
    return static_cast<double>(share * 8);
  });
  sink_value = static_cast<float>(sink.load());
  return per_second / 1e9;
}

}  // namespace temper::cpu
