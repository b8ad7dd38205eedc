// Memory counters, threads, and what the CPU is.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

#include "binding/device.h"
#include "binding/js.h"
#include "core/mapped_file.h"
#include "cpu/host/isa.h"
#include "cpu/host/machine_limits.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::binding {
namespace {

// live per category, peak per category, total live, total peak, cached, then live and peak of scratch files; bytes.
Napi::Value stats(const Napi::CallbackInfo& info) {
  const MemoryStats s = memory_stats();
  const ScratchStats offloaded = scratch_stats();
  constexpr size_t n = static_cast<size_t>(Category::count);
  const int64_t rest[] = {s.total_live, s.total_peak, s.cached, offloaded.live, offloaded.peak};
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), 2 * n + std::size(rest));
  std::copy_n(s.live, n, out.Data());
  std::copy_n(s.peak, n, out.Data() + n);
  std::ranges::copy(rest, out.Data() + 2 * n);
  return out;
}
void reset(const Napi::CallbackInfo&) {
  reset_peaks();
  if (const TemperBackend* d = device_backend()) d->reset_peaks();
  reset_scratch_peak();
}
void release_kept(const Napi::CallbackInfo&) {
  release_cached();
  if (const TemperBackend* d = device_backend()) d->trim();
}
void set_threads(const Napi::CallbackInfo& info) {
  int64_t n = Call(info, "setThreads", 1).integer(0);
  require(n >= 1 && n <= 1024, "bad_argument", "setThreads: got ", n, ", wanted 1…1024");
  set_thread_count(static_cast<int>(n));
}
Napi::Value most_threads(const Napi::CallbackInfo& info) {
  int64_t n = Call(info, "useAtMost", 1).integer(0);
  require(n >= 1 && n <= 1024, "bad_argument", "useAtMost: got ", n, ", wanted 1…1024");
  return js_number(info.Env(), use_at_most(static_cast<int>(n)));
}
Napi::Value get_threads(const Napi::CallbackInfo& info) { return js_number(info.Env(), thread_count()); }

// /proc/cpuinfo has the same facts on every Linux; elsewhere they stay empty.
Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  std::string model, flags, line;
  std::ifstream file("/proc/cpuinfo");
  while ((model.empty() || flags.empty()) && std::getline(file, line)) {
    size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (model.empty() && line.starts_with("model name")) model = line.substr(colon + 2);
    if (flags.empty() && (line.starts_with("flags") || line.starts_with("Features"))) flags = line.substr(colon + 2);
  }
  Napi::Object out = Napi::Object::New(info.Env());
  Napi::Array features = Napi::Array::New(info.Env());
  std::istringstream words(flags);
  std::string word;
  while (words >> word) {
    for (const char* known : {"sse4_2", "f16c", "fma", "avx", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16",
                              "amx_bf16", "amx_tile", "asimd", "bf16", "i8mm", "sve"}) {
      if (word == known) features.Set(features.Length(), word);
    }
  }
  out.Set("isa", cpu::name_of(cpu::active_isa()));
  out.Set("features", features);
  out.Set("threads", thread_count());
  out.Set("model", model);
  return out;
}

// [GFLOP/s of the best dot product, GB/s read], both with that many threads at once. Takes about a second; blocks.
Napi::Value measure_limits(const Napi::CallbackInfo& info) {
  const Call call(info, "measureLimits", 2);
  const int64_t threads = call.integer(0), bytes = call.integer(1);
  require(threads >= 1 && threads <= 1024, "bad_argument", "measureLimits: threads: got ", threads, ", wanted 1…1024");
  require(bytes >= (1 << 20) && bytes <= (int64_t{1} << 36), "bad_argument", "measureLimits: bytes: got ", bytes,
          ", wanted 2^20…2^36");
  Napi::Array out = Napi::Array::New(info.Env());
  out.Set(0u, cpu::peak_gflops(static_cast<int>(threads)));
  out.Set(1u, cpu::read_bandwidth(static_cast<int>(threads), static_cast<size_t>(bytes)));
  return out;
}

}  // namespace

void define_machine(Napi::Object exports) {
  define<stats>(exports, "memoryStats");
  define<reset>(exports, "resetPeaks");
  define<release_kept>(exports, "releaseCached");
  define<set_threads>(exports, "setThreads");
  define<most_threads>(exports, "useAtMost");
  define<get_threads>(exports, "getThreads");
  define<cpu_info>(exports, "cpuInfo");
  define<measure_limits>(exports, "measureLimits");
}

}  // namespace temper::binding
