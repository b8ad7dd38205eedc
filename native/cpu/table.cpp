// The CPU backend's two op tables, filled in the order of TEMPER_OP_NAMES.
#include "cpu/ops.h"

namespace temper::cpu {

const TemperOps& table() {
#define TEMPER_ENTRY(name) Guard<&name>::call,
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

const TemperOps& reference_table() {
#define TEMPER_ENTRY(name) Guard<&reference::name>::call,
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

}  // namespace temper::cpu
