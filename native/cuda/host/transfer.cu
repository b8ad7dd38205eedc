// Copies between host and device. Large uploads come from mapped files, which the driver cannot read by itself: they go
// through two pinned buffers, so that reading the file's next pages overlaps with the bus.
#include "cuda/host/transfer.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "cuda/host/graph.h"
#include "cuda/host/runtime.h"
#include "gpu/turn.h"

namespace temper::gpu {
namespace {

constexpr size_t kStage = size_t{16} << 20;
constexpr size_t kSmall = size_t{64} << 10;  // the driver copies so little aside at once

struct Staging {
  std::mutex mutex;
  char* buffer[2] = {};
  cudaEvent_t sent[2] = {};
};
Staging& staging() {
  static Staging* s = new Staging;
  return *s;
}

void prepare(Staging& s) {
  for (int i = 0; i < 2; ++i) {
    if (!s.sent[i]) check(cudaEventCreateWithFlags(&s.sent[i], cudaEventDisableTiming), "cudaEventCreate");
    if (s.buffer[i]) continue;
    void* p = nullptr;
    check(cudaHostAlloc(&p, kStage, cudaHostAllocDefault), "cudaHostAlloc");
    s.buffer[i] = static_cast<char*>(p);
  }
}

}  // namespace

void upload(void* device_to, const void* host, size_t bytes) {
  if (bytes == 0) return;
  const Turn turn;
  require(!recording(), "graph_recording", "an upload of ", bytes,
          " bytes while ops are recorded; write the tensor before");
  const cudaStream_t stream = device().stream;
  if (bytes <= kSmall) return check(cudaMemcpyAsync(device_to, host, bytes, cudaMemcpyHostToDevice, stream), "upload");
  Staging& s = staging();
  std::lock_guard lock(s.mutex);
  prepare(s);
  int which = 0;
  for (size_t at = 0; at < bytes; at += kStage, which ^= 1) {
    const size_t n = std::min(kStage, bytes - at);
    check(cudaEventSynchronize(s.sent[which]), "upload");
    std::memcpy(s.buffer[which], static_cast<const char*>(host) + at, n);
    check(cudaMemcpyAsync(static_cast<char*>(device_to) + at, s.buffer[which], n, cudaMemcpyHostToDevice, stream),
          "upload");
    check(cudaEventRecord(s.sent[which], stream), "upload");
  }
}

void download(void* host, const void* device_from, size_t bytes) {
  const Turn turn;
  if (bytes) check(cudaMemcpyAsync(host, device_from, bytes, cudaMemcpyDeviceToHost, device().stream), "download");
  synchronize();
}

void copy_on_device(void* to, const void* from, size_t bytes) {
  const Turn turn;
  if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device().stream), "copy");
}
void zero_on_device(void* p, size_t bytes) {
  const Turn turn;
  if (bytes) check(cudaMemsetAsync(p, 0, bytes, device().stream), "zero");
}

void release_staging() noexcept {
  Staging& s = staging();
  std::lock_guard lock(s.mutex);
  for (int i = 0; i < 2; ++i) {
    if (s.buffer[i]) cudaFreeHost(s.buffer[i]);
    if (s.sent[i]) cudaEventDestroy(s.sent[i]);
    s.buffer[i] = nullptr;
    s.sent[i] = nullptr;
  }
}

}  // namespace temper::gpu
