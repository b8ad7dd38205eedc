// Memory counters, threads, and what the CPU is.
#include <fstream>
#include <sstream>
#include <vector>

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
napi_value stats(napi_env env, napi_callback_info) {
  MemoryStats s = memory_stats();
  constexpr size_t n = static_cast<size_t>(Category::count);
  void* data = nullptr;
  napi_value buffer, out;
  ok(napi_create_arraybuffer(env, (2 * n + 5) * sizeof(double), &data, &buffer), "memoryStats");
  auto* d = static_cast<double*>(data);
  for (size_t i = 0; i < n; ++i) {
    d[i] = static_cast<double>(s.live[i]);
    d[n + i] = static_cast<double>(s.peak[i]);
  }
  d[2 * n] = static_cast<double>(s.total_live);
  d[2 * n + 1] = static_cast<double>(s.total_peak);
  d[2 * n + 2] = static_cast<double>(s.cached);
  const ScratchStats offloaded = scratch_stats();
  d[2 * n + 3] = static_cast<double>(offloaded.live);
  d[2 * n + 4] = static_cast<double>(offloaded.peak);
  ok(napi_create_typedarray(env, napi_float64_array, 2 * n + 5, buffer, 0, &out), "memoryStats");
  return out;
}
napi_value reset(napi_env, napi_callback_info) {
  reset_peaks();
  if (const TemperBackend* d = device_backend()) d->reset_peaks();
  reset_scratch_peak();
  return nullptr;
}
napi_value release_kept(napi_env, napi_callback_info) {
  release_cached();
  if (const TemperBackend* d = device_backend()) d->trim();
  return nullptr;
}
napi_value set_threads(napi_env env, napi_callback_info info) {
  int64_t n = Call(env, info, "setThreads", 1).integer(0);
  require(n >= 1 && n <= 1024, "bad_argument", "setThreads: got ", n, ", wanted 1…1024");
  set_thread_count(static_cast<int>(n));
  return nullptr;
}
napi_value get_threads(napi_env env, napi_callback_info) { return js_number(env, thread_count()); }

// /proc/cpuinfo has the same facts on every Linux; elsewhere they stay empty.
napi_value cpu_info(napi_env env, napi_callback_info) {
  std::string model, flags, line;
  std::ifstream file("/proc/cpuinfo");
  while ((model.empty() || flags.empty()) && std::getline(file, line)) {
    size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (model.empty() && line.starts_with("model name")) model = line.substr(colon + 2);
    if (flags.empty() && (line.starts_with("flags") || line.starts_with("Features"))) flags = line.substr(colon + 2);
  }
  napi_value out, features;
  ok(napi_create_object(env, &out), "cpuInfo");
  ok(napi_create_array(env, &features), "cpuInfo");
  std::istringstream words(flags);
  std::string word;
  uint32_t n = 0;
  while (words >> word) {
    for (const char* known : {"sse4_2", "f16c", "fma", "avx", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16",
                              "amx_bf16", "amx_tile", "asimd", "bf16", "i8mm", "sve"}) {
      if (word == known) ok(napi_set_element(env, features, n++, js_string(env, word)), "cpuInfo");
    }
  }
  set(env, out, "isa", js_string(env, cpu::name_of(cpu::active_isa())));
  set(env, out, "features", features);
  set(env, out, "threads", js_number(env, thread_count()));
  set(env, out, "model", js_string(env, model));
  return out;
}

// [GFLOP/s of the best dot product, GB/s read], both with that many threads at once. Takes about a second; blocks.
napi_value measure_limits(napi_env env, napi_callback_info info) {
  const Call call(env, info, "measureLimits", 2);
  const int64_t threads = call.integer(0), bytes = call.integer(1);
  require(threads >= 1 && threads <= 1024, "bad_argument", "measureLimits: threads: got ", threads, ", wanted 1…1024");
  require(bytes >= (1 << 20) && bytes <= (int64_t{1} << 36), "bad_argument", "measureLimits: bytes: got ", bytes,
          ", wanted 2^20…2^36");
  napi_value out;
  ok(napi_create_array(env, &out), "measureLimits");
  ok(napi_set_element(env, out, 0, js_number(env, cpu::peak_gflops(static_cast<int>(threads)))), "measureLimits");
  ok(napi_set_element(env, out, 1,
                      js_number(env, cpu::read_bandwidth(static_cast<int>(threads), static_cast<size_t>(bytes)))),
     "measureLimits");
  return out;
}

}  // namespace

void define_machine(napi_env env, napi_value exports) {
  define<stats>(env, exports, "memoryStats");
  define<reset>(env, exports, "resetPeaks");
  define<release_kept>(env, exports, "releaseCached");
  define<set_threads>(env, exports, "setThreads");
  define<get_threads>(env, exports, "getThreads");
  define<cpu_info>(env, exports, "cpuInfo");
  define<measure_limits>(env, exports, "measureLimits");
}

}  // namespace temper::binding
