// Copies between host and device beside the ops: threads of each direction move the host's pages and feed a stream
// of their own, while the first stream computes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "temper/backend.h"

namespace temper::gpu {

// Copies `bytes` from host memory (mapped files too) to the device, after all ops called so far. Both must stay until
// `arrive` returned. Returns a ticket from 1 on.
uint64_t prefetch(void* device_to, const void* host, size_t bytes);
// The other way: what the ops called so far leave there. Both must stay, and no op may write what is copied, until
// `arrive` returned.
uint64_t evict(void* host_to, const void* device, size_t bytes);
// Ops called from here on find the bytes there; of `evict`, the host does too. The host waits for its own part of the
// copy: of `prefetch` the reading, of `evict` all. A ticket can be used once; where it throws what went wrong in the
// copy, both sides may be freed as well.
void arrive(uint64_t ticket);

void take_transfers(TemperTransfers* out);  // those that are over, since the last call
void release_prefetch() noexcept;           // before the device is closed

}  // namespace temper::gpu
