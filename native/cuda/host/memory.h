// The device arena's books: what it holds, its limit, and how it gives memory back. Allocation itself is in
// cuda/host/runtime.h.
#pragma once
#include <cstddef>
#include "temper/memory.h"

namespace temper::gpu {

struct DeviceMemory {
  MemoryStats counted;  // asked for, by category; `cached` is what is held and not in use
  // bytes taken from the driver, rounding and kept blocks included: this is what the limit is about
  size_t held, held_peak;
  size_t limit;
};
DeviceMemory device_memory();
void reset_device_peaks();
// The most bytes the arena may take from the driver; 0 = no limit of ours. Below what is held now: the rest is refused,
// nothing is taken away.
void set_memory_limit(size_t bytes);
// Gives every segment without a live block back to the driver. Waits for the device.
void trim_device_memory();
// While a graph is recorded, what is allocated becomes the graph's and stays so after its release, until the graph
// goes: it writes there whenever it runs.
int begin_graph_memory();  // the graph's number
void end_graph_memory() noexcept;
void release_graph_memory(int graph) noexcept;
// After the device was closed: forgets everything. Only for tests and close().
void forget_device_memory() noexcept;

}  // namespace temper::gpu
