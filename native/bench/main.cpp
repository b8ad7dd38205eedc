// temper_native_bench [--filter TEXT] [--threads N] [--isa NAME]: one JSON object per line. The first row is the
// machine (peak and bandwidth, measured), then a row per case of the test tables that states its work, as a share of
// that.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>
#include "cpu/host/isa.h"
#include "cpu/host/machine_limits.h"
#include "cpu/ops.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace {

using namespace temper;
using test::Value;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// smaller cases run from the caches, where the memory's bandwidth is no measure
constexpr size_t kBeyondCaches = 48 << 20;

struct Limits {
  double f32, bf16, bandwidth;
};

// Median of at least 20 calls and at least 0.2 s. Calls shorter than 20 µs are timed in groups.
double median_seconds(const test::Case& c) {
  test::Values args = c.args;
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = args[args[i].alias >= 0 ? static_cast<size_t>(args[i].alias) : i].bytes.data();
    tensors[i] = &storage[i];
  }
  const auto call = [&] {
    if (test::invoke(cpu::table(), c.op, args, tensors) != 0) throw last_error();
  };
  auto begin = Clock::now();
  call();
  const double first = seconds_since(begin);
  const int group = first < 20e-6 ? static_cast<int>(20e-6 / std::max(first, 1e-7)) + 1 : 1;
  for (int i = 0; i < 2 * group; ++i) call();
  std::vector<double> times;
  for (begin = Clock::now(); times.size() < 20 || (seconds_since(begin) < 0.2 && times.size() < 5000);) {
    const auto start = Clock::now();
    for (int i = 0; i < group; ++i) call();
    times.push_back(seconds_since(start) / group);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

void run(const std::string& filter, const Limits& limits, const char* isa) {
  for (const test::Case& c : test::registry(true).cases) {
    if ((c.flops == 0 && c.bytes == 0) || (c.op + " " + c.name).find(filter) == std::string::npos) continue;
    const double seconds = median_seconds(c);
    std::printf("{\"op\": \"%s\", \"case\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"us\": %.3f", c.op.c_str(),
                c.name.c_str(), isa, thread_count(), seconds * 1e6);
    if (c.flops > 0)
      std::printf(", \"gflops\": %.2f, \"percentOfPeak\": %.1f", c.flops / seconds * 1e-9,
                  c.flops / seconds * 1e-7 / (c.bf16_products ? limits.bf16 : limits.f32));
    size_t touched = 0;
    for (const Value& v : c.args) touched += v.bytes.size();
    if (c.bytes > 0) std::printf(", \"gbps\": %.3f", c.bytes / seconds * 1e-9);
    if (c.bytes > 0 && touched >= kBeyondCaches)
      std::printf(", \"percentOfBandwidth\": %.1f", c.bytes / seconds * 1e-7 / limits.bandwidth);
    std::printf("}\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  try {
    for (int i = 1; i < argc; ++i) {
      const bool has_value = i + 1 < argc;
      if (has_value && !std::strcmp(argv[i], "--filter")) filter = argv[++i];
      else if (has_value && !std::strcmp(argv[i], "--threads")) set_thread_count(std::atoi(argv[++i]));
      // read when the first op runs
      else if (has_value && !std::strcmp(argv[i], "--isa")) setenv("TEMPER_ISA", argv[++i], 1);
      else {
        std::fprintf(stderr, "usage: temper_native_bench [--filter TEXT] [--threads N] [--isa NAME]\n");
        return 2;
      }
    }
    const cpu::Isa isa = cpu::active_isa();
    Limits limits{};
    limits.bf16 = cpu::peak_gflops(thread_count());
    limits.f32 = limits.bf16;
    if (isa == cpu::Isa::avx512bf16 || isa == cpu::Isa::amx) {
      cpu::force_isa(cpu::Isa::avx512);
      limits.f32 = cpu::peak_gflops(thread_count());
      cpu::force_isa(isa);
    }
    limits.bandwidth = cpu::read_bandwidth(thread_count());
    std::printf(
        "{\"op\": \"machine\", \"isa\": \"%s\", \"threads\": %d, \"peakGflopsF32\": %.1f, \"peakGflopsProducts\": "
        "%.1f, \"readGbps\": %.2f}\n",
        cpu::name_of(isa), thread_count(), limits.f32, limits.bf16, limits.bandwidth);
    run(filter, limits, cpu::name_of(isa));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
