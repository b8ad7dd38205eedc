// A GPU backend's ops: the contracts of temper/ops.h as functions that throw. Tensors lie in device memory unless a
// line in ops.h says otherwise. One .cu file per op or family, forward and backward together: here, or with one maker's
// backend (cuda/) where they need what only its GPUs have. A library has each once, and table.cu fills the table.
#pragma once
#include "temper/error.h"
#include "temper/ops.h"

namespace temper::gpu {
#define TEMPER_DECLARE(name) ::temper::ThrowingForm<decltype(TemperOps::name)>::type name;
TEMPER_OP_NAMES(TEMPER_DECLARE)
#undef TEMPER_DECLARE
const TemperOps& table();
}  // namespace temper::gpu
