// The CPU backend's ops: the contracts of temper/ops.h, as functions that throw. `cpu` is the shipped path; `reference`
// beside it is plain loops with double accumulators and is what the tests compare with.
#pragma once
#include <initializer_list>

#include "temper/cost.h"
#include "temper/error.h"
#include "temper/ops.h"

namespace temper::cpu {
#define TEMPER_DECLARE(name) ::temper::ThrowingForm<decltype(TemperOps::name)>::type name;
TEMPER_OP_NAMES(TEMPER_DECLARE)
namespace reference {
TEMPER_OP_NAMES(TEMPER_DECLARE)
}
#undef TEMPER_DECLARE
// Said beside each kernel. An op without one does not link.
namespace cost {
#define TEMPER_DECLARE(name) Cost name(const args::name&);
TEMPER_OP_NAMES(TEMPER_DECLARE)
#undef TEMPER_DECLARE
}  // namespace cost
// Bytes of those that are bf16 as f32, which they are for the length of a call (table.cpp).
double widened(std::initializer_list<TensorRef> activations);
const TemperOps& table();  // the shipped ops
const TemperOps& reference_table();
}  // namespace temper::cpu
