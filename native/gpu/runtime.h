// What ops ask of the host side: memory, launches, and where kernels report faults. A backend implements it (CUDA's is
// cuda/host). One device per process; all ops run in order on one stream, so device memory that is released may be
// handed out again at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "gpu/device.cuh"
#include "temper/error.h"
#include "temper/memory.h"
#include "temper/tensor.h"

namespace temper::gpu {

// Where the kernels of the open device report. Throws Error{"no_device"} when none was opened.
Fault* fault();

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

// Puts a kernel in the stream; it may begin before the one ahead of it has ended (wait_for_previous).
void launch_kernel(const void* kernel, dim3 grid, dim3 block, size_t shared, void** arguments);
void allow_shared(const void* kernel, size_t bytes);  // lifts a kernel's limit of dynamic shared memory, once
#if defined(TEMPER_CUDA_EMULATION)
void launch_emulated(dim3 grid, dim3 block, size_t shared, std::function<void()> thread);
#endif

// Runs a kernel on the stream. An empty grid is no launch. `launch(kernel, grid, block, shared_bytes, arguments…)`
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: argument count");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if defined(TEMPER_CUDA_EMULATION)
  launch_emulated(grid, block, shared,
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

// The same of an activation that the op writes.
template <class F>
void with_activation(const Tensor& t, F&& f) {
  if (t.dtype == DType::bf16) f(t.bf16());
  else f(t.f32());
}

}  // namespace temper::gpu
