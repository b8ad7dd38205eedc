// Bytes between host and device, in the order of the ops.
#pragma once
#include <cstddef>

namespace temper::gpu {

// Returns when `host` may be reused.
void upload(void* device, const void* host, size_t bytes);
// Returns when the bytes have arrived; waits for the device and raises faults as synchronize() does.
void download(void* host, const void* device, size_t bytes);
void copy_on_device(void* to, const void* from, size_t bytes);
void zero_on_device(void* device, size_t bytes);
void release_staging() noexcept;

}  // namespace temper::gpu
