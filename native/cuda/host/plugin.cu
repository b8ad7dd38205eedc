// The library's one symbol: the backend ABI of temper/backend.h over this folder's functions.
#include <cstring>

#include "cuda/host/graph.h"
#include "cuda/host/memory.h"
#include "cuda/host/open.h"
#include "cuda/host/prefetch.h"
#include "cuda/host/runtime.h"
#include "cuda/host/transfer.h"
#include "cuda/matmul/tile_table.h"
#include "gpu/ops.h"
#include "temper/backend.h"

#if !defined(TEMPER_CUDA_BUILT_FOR)
#define TEMPER_CUDA_BUILT_FOR "the host"
#endif

namespace temper::gpu {
namespace {

void get_versions(int32_t* driver, int32_t* runtime) {
  const Versions v = versions();
  *driver = v.driver;
  *runtime = v.runtime;
}
void get_count(int32_t* count) { *count = static_cast<int32_t>(devices().size()); }
void get_info(int32_t index, TemperDeviceInfo* out) {
  const auto all = devices();
  require(index >= 0 && index < static_cast<int>(all.size()), "bad_device", "device_info: no device ", index,
          ", wanted 0 to ", all.size() - 1);
  const Description& d = all[static_cast<size_t>(index)];
  *out = {};
  std::strncpy(out->name, d.name.c_str(), sizeof out->name - 1);
  out->index = d.index;
  out->major = d.major;
  out->minor = d.minor;
  out->multiprocessors = d.multiprocessors;
  out->memory = static_cast<int64_t>(d.memory);
}
void open(int32_t index, int64_t memory_limit) {
  open_device(index, static_cast<size_t>(memory_limit > 0 ? memory_limit : 0));
}
void get_opened(int32_t* index) { *index = device_is_open() ? device().index : -1; }
void allocate(void** out, uint64_t bytes, int32_t category) {
  require(category >= 0 && category < static_cast<int32_t>(Category::count), "bad_argument", "allocate: category ",
          category, ", wanted 0 to 5");
  *out = allocate_device(bytes, static_cast<Category>(category));
}
void get_memory(TemperDeviceMemory* out) {
  const DeviceMemory m = device_memory();
  static_assert(sizeof out->live / sizeof out->live[0] == static_cast<size_t>(Category::count));
  std::memcpy(out->live, m.counted.live, sizeof out->live);
  std::memcpy(out->peak, m.counted.peak, sizeof out->peak);
  out->total_live = m.counted.total_live;
  out->total_peak = m.counted.total_peak;
  out->held = static_cast<int64_t>(m.held);
  out->held_peak = static_cast<int64_t>(m.held_peak);
  out->limit = static_cast<int64_t>(m.limit);
}
void do_upload(void* to, const void* from, uint64_t bytes) { upload(to, from, bytes); }
void do_download(void* to, const void* from, uint64_t bytes) { download(to, from, bytes); }
void do_copy(void* to, const void* from, uint64_t bytes) { copy_on_device(to, from, bytes); }
void do_zero(void* to, uint64_t bytes) { zero_on_device(to, bytes); }

void do_prefetch(void* to, const void* from, uint64_t bytes, uint64_t* ticket) { *ticket = prefetch(to, from, bytes); }
void do_evict(void* to, const void* from, uint64_t bytes, uint64_t* ticket) { *ticket = evict(to, from, bytes); }
void do_end_graph(void** graph, int32_t abandon) {
  *graph = nullptr;
  if (abandon) abandon_graph();
  else *graph = end_graph();
}
void get_tiled_products(const char** lines) { *lines = tiled_products(); }
void do_launch_graph(void* graph) { launch_graph(static_cast<const RecordedGraph*>(graph)); }

}  // namespace
}  // namespace temper::gpu

extern "C" __attribute__((visibility("default"))) const TemperBackend* temper_backend() {
  using namespace temper;
  using namespace temper::gpu;
#if defined(TEMPER_CUDA_EMULATION)
  constexpr const char* kName = "cuda-emulation";
#else
  constexpr const char* kName = "cuda";
#endif
  static const TemperBackend backend = {TEMPER_BACKEND_ABI,
                                        sizeof(TemperBackend),
                                        TEMPER_OP_TEXT,
                                        kName,
                                        TEMPER_CUDA_BUILT_FOR,
                                        &table(),
                                        Guard<&get_versions>::call,
                                        Guard<&get_count>::call,
                                        Guard<&get_info>::call,
                                        Guard<&gpu::open>::call,
                                        Guard<&get_opened>::call,
                                        close_device,
                                        Guard<&gpu::allocate>::call,
                                        release_device,
                                        Guard<&get_memory>::call,
                                        [] { Guard<&reset_device_peaks>::call(); },
                                        [] { Guard<&trim_device_memory>::call(); },
                                        Guard<&do_upload>::call,
                                        Guard<&do_download>::call,
                                        Guard<&do_copy>::call,
                                        Guard<&do_zero>::call,
                                        Guard<&synchronize>::call,
                                        Guard<&do_prefetch>::call,
                                        Guard<&do_evict>::call,
                                        Guard<&arrive>::call,
                                        Guard<&take_transfers>::call,
                                        Guard<&begin_graph>::call,
                                        Guard<&do_end_graph>::call,
                                        Guard<&do_launch_graph>::call,
                                        [](void* graph) { free_graph(static_cast<RecordedGraph*>(graph)); },
                                        kTileNames,
                                        Guard<&set_tile>::call,
                                        Guard<&get_tiled_products>::call,
                                        [] { return last_error().code.c_str(); },
                                        [] { return last_error().message.c_str(); }};
  return &backend;
}
