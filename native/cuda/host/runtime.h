// The host side every op stands on: the open device, its stream, its memory, launches and faults. One device per
// process; all ops run in order on one stream, so device memory that is released may be handed out again at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/device/device.cuh"
#include "temper/error.h"
#include "temper/memory.h"
#include "temper/tensor.h"

namespace temper::cuda {

struct Device {
  int index = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int shared_per_block = 0;  // bytes a block may opt in to
  size_t l2_bytes = 0;
  bool early = false;  // kernels may begin before those ahead of them have ended
  cudaStream_t stream = nullptr;
  Fault* fault = nullptr;  // in pinned host memory that the device writes to
  char name[256] = {};
};
// Throws Error{"no_device"} when none was opened.
Device& device();

// Throws Error{"out_of_device_memory" | "device_lost" | "device_error"} for anything but success; `what` names the
// call.
void check(cudaError_t status, const char* what);

// Waits for the stream, then raises the fault a kernel reported, if any, as Error{"bad_index" | "bad_value" | …} and
// clears it.
void synchronize();

// Counted device memory, under the categories of temper/memory.h and the limit set when the device was opened.
void* allocate_device(size_t bytes, Category category);
void release_device(void* block) noexcept;

// Workspace of one op call, in device memory: `Workspace<float> p(n);`. Reused between calls.
template <class T>
class Workspace {
 public:
  explicit Workspace(size_t count)
      : data_(count ? static_cast<T*>(allocate_device(count * sizeof(T), Category::workspace)) : nullptr),
        size_(count) {}
  ~Workspace() { release_device(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_;
  size_t size_;
};

inline int64_t blocks_for(int64_t n, int64_t per_block) { return (n + per_block - 1) / per_block; }

// Puts a kernel in the stream; from sm_90 on it may begin before the one ahead of it has ended (wait_for_previous).
// TEMPER_CUDA_EARLY=off: it may not.
void launch_kernel(const void* kernel, dim3 grid, dim3 block, size_t shared, void** arguments);
void allow_shared(const void* kernel, size_t bytes);  // lifts a kernel's 48 KiB limit of dynamic shared memory, once

// Runs a kernel on the stream. An empty grid is no launch. `launch(kernel, grid, block, shared_bytes, arguments…)`
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: argument count");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if defined(TEMPER_CUDA_EMULATION)
  emulation::launch(device().stream, grid, block, shared,
                    [kernel, ... values = static_cast<std::remove_const_t<P>>(args)] { kernel(values...); });
#else
  // from 48 KiB on, a kernel's static part included
  if (shared > 16 * 1024) allow_shared(reinterpret_cast<const void*>(kernel), shared);
  std::tuple<std::remove_const_t<P>...> values{static_cast<P>(args)...};
  std::apply(
      [&](auto&... value) {
        void* list[] = {&value..., nullptr};
        launch_kernel(reinterpret_cast<const void*>(kernel), grid, block, shared, list);
      },
      values);
#endif
}

// Calls f with the typed device pointer of a bf16 or f32 tensor.
template <class F>
void with_wf(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16) f(static_cast<const uint16_t*>(t.bf16()));
  else f(static_cast<const float*>(t.f32()));
}

}  // namespace temper::cuda
