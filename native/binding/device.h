// The device backend, a library that is opened when a device is asked for, and the ops that may mix places.
#pragma once
#include <cstdint>

#include "temper/backend.h"
#include "temper/memory.h"

namespace temper::binding {

// The open device's backend; null: none. Never closed while the process lives.
const TemperBackend* device_backend() noexcept;
// Throws Error{"no_device"} when none is open.
const TemperBackend& require_device(const char* what);
// Throws what the backend's call failed with.
void must(const TemperBackend& backend, int status);

// An op with arguments that may lie on the host while the others are on the device (@host in temper/ops.def): what runs
// then.
struct MixedOp {
  const char* name;
  void (*run)(const TemperBackend& backend, const TensorRef* tensors, const bool* on_device, const double* numbers);
  size_t (*host_bytes)(const TensorRef* tensors, const bool* on_device, const double* numbers);  // that it stages
};
const MixedOp* mixed_op(const char* name) noexcept;  // null: all tensors of this op lie in one place

}  // namespace temper::binding
