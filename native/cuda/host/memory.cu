// The device arena: counted memory under a limit, cut from segments that are kept (gpu/segments.h). cudaMalloc and
// cudaFree wait for the device, so a step may not call them once it has run before.
#include "cuda/host/memory.h"

#include <mutex>
#include <sstream>

#include "cuda/host/runtime.h"
#include "gpu/segments.h"
#include "gpu/turn.h"

namespace temper::gpu {
namespace {

constexpr const char* kNames[Segments::kCategories] = {"weights",     "adapter",   "optimizer",
                                                       "activations", "workspace", "kv"};

#if defined(__SANITIZE_ADDRESS__)
// emulated device memory: a kept or shared segment would hide overruns from the sanitizer
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

struct CudaDriver : Segments::Driver {
  char* take(size_t bytes) override {
    void* base = nullptr;
    const cudaError_t status = cudaMalloc(&base, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(status, "cudaMalloc");
    return static_cast<char*>(base);
  }
  // A lost device refuses; there is nothing to be done about it here.
  void give(char* base) noexcept override { cudaFree(base); }
};
struct State {
  std::mutex mutex;
  CudaDriver driver;
  Segments segments{driver, kKeep};
};
State& state() {  // never destroyed: worker threads may still release blocks while the process exits
  static State* s = new State;
  return *s;
}

std::string mib(size_t bytes) { return std::to_string((bytes + (size_t{1} << 20) - 1) >> 20) + " MiB"; }

[[noreturn]] void refuse(const Segments& s, size_t bytes, Category category) {
  std::ostringstream live;
  for (int i = 0; i < Segments::kCategories; ++i)
    if (s.live(i)) live << (live.tellp() > 0 ? ", " : "") << kNames[i] << ' ' << mib(s.live(i));
  size_t device_free = 0, device_total = 0;
  cudaMemGetInfo(&device_free, &device_total);
  fail("out_of_device_memory", mib(bytes), " of ", kNames[static_cast<int>(category)], " do not fit: in use ",
       live.tellp() > 0 ? live.str() : std::string("nothing"), "; held ", mib(s.held()),
       s.limit() ? " of a limit of " + mib(s.limit()) : std::string(" without a limit of ours"), ", the device has ",
       mib(device_free), " of ", mib(device_total),
       " free; lower tokens per step, context, batch or rank, or raise --memory-limit");
}

}  // namespace

void* allocate_device(size_t bytes, Category category) {
  require(bytes <= (size_t{1} << 46), "out_of_device_memory", "allocate: ", bytes,
          " bytes asked for, more than any device has; check the shape");
  const Turn turn;  // else it may become the memory of a graph that another thread records
  device();         // binds this thread
  State& s = state();
  std::lock_guard lock(s.mutex);
  char* block = s.segments.allocate(bytes, category);
  if (!block) refuse(s.segments, bytes, category);
  return block;
}

void release_device(void* block) noexcept {
  if (!block) return;
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.release(static_cast<char*>(block));
}

int begin_graph_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  return s.segments.begin_graph();
}
void end_graph_memory() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.end_graph();
}
void release_graph_memory(int graph) noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.release_graph(graph);
}

DeviceMemory device_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const Segments& m = s.segments;
  DeviceMemory out{};
  for (int i = 0; i < Segments::kCategories; ++i) {
    out.counted.live[i] = static_cast<int64_t>(m.live(i));
    out.counted.peak[i] = static_cast<int64_t>(m.peak(i));
  }
  out.counted.total_live = static_cast<int64_t>(m.total());
  out.counted.total_peak = static_cast<int64_t>(m.total_peak());
  out.counted.cached = static_cast<int64_t>(m.held() - m.in_use());
  out.held = m.held();
  out.held_peak = m.held_peak();
  out.limit = m.limit();
  return out;
}

void reset_device_peaks() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.reset_peaks();
}

void set_memory_limit(size_t bytes) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.set_limit(bytes);
}

void trim_device_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.trim(0);
}

void forget_device_memory() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.segments.forget();
}

}  // namespace temper::gpu
