// Uploads beside the ops: a thread of its own reads the host's pages and feeds a second stream, while the first
// computes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace temper::gpu {

// Copies `bytes` from host memory (mapped files too) to the device, after all ops called so far. The host memory must
// stay until `arrive` returned. Returns a ticket from 1 on.
uint64_t prefetch(void* device_to, const void* host, size_t bytes);
// Ops called from here on find the bytes there. The host waits only for its own reading, not for the device. A ticket
// can be used once.
void arrive(uint64_t ticket);
void release_prefetch() noexcept;  // before the device is closed

}  // namespace temper::gpu
