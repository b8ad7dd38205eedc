// The CUDA backend's ops: the contracts of temper/ops.h as functions that throw. Tensors lie in device memory unless a
// line in ops.h says otherwise. One .cu file per op or family, forward and backward together; table.cu fills the table.
#pragma once
#include "temper/error.h"
#include "temper/ops.h"

namespace temper::cuda {
#define TEMPER_DECLARE(name) ::temper::ThrowingForm<decltype(TemperOps::name)>::type name;
TEMPER_OP_NAMES(TEMPER_DECLARE)
#undef TEMPER_DECLARE
const TemperOps& table();
}  // namespace temper::cuda
