// The host side of gpu/runtime.h: the open device, its stream, and the errors of CUDA's calls.
// TEMPER_CUDA_EARLY=off: no kernel begins before the one ahead of it has ended.
#pragma once
#include <cstddef>
#include <cstdint>

#include "gpu/runtime.h"

namespace temper::gpu {

struct Device {
  int index = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int shared_per_block = 0;  // bytes a block may opt in to
  size_t l2_bytes = 0;
  // Of the code that runs here, which may have been compiled for other chips: whether kernels wait for those ahead of
  // them, and so may begin before these have ended; whether it has the products of warpgroups.
  bool early = false, warpgroups = false;
  cudaStream_t stream = nullptr;
  Fault* fault = nullptr;  // in pinned host memory that the device writes to
  // in device memory, 0 between kernels: blocks of the one that runs which have done their share; its last one sets it
  // back
  unsigned* arrivals = nullptr;
  char name[256] = {};
};
// Binds the thread to it. What goes to its stream or arena is called in a turn (gpu/turn.h). Throws Error{"no_device"}
// when none was opened.
Device& device();

// Throws Error{"out_of_device_memory" | "device_lost" | "device_error"} for anything but success; `what` names the
// call.
void check(cudaError_t status, const char* what);

// Waits for the stream, then raises the fault a kernel reported, if any, as Error{"bad_index" | "bad_value" | …} and
// clears it.
void synchronize();

}  // namespace temper::gpu
