// The op table, filled in the order of TEMPER_OP_NAMES.
#include "gpu/ops.h"

namespace temper::gpu {

const TemperOps& table() {
#define TEMPER_ENTRY(name) Guard<&name>::call,
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

}  // namespace temper::gpu
