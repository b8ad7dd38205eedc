// BRING-UP ONLY, removed when every op exists: an op nobody has written yet throws not_built.
#pragma GCC diagnostic ignored "-Wattribute-alias"
#include "cpu/isa.h"
#include "cpu/ops.h"
#include "temper/threads.h"

extern "C" __attribute__((used)) void temper_not_built() { temper::fail("not_built", "this op is not in the build yet"); }

namespace temper::cpu {
#define TEMPER_STUB(name) __attribute__((weak, alias("temper_not_built"))) ::temper::detail::AsVoid<decltype(TemperOps::name)>::type name;
TEMPER_OP_NAMES(TEMPER_STUB)
namespace reference {
TEMPER_OP_NAMES(TEMPER_STUB)
}
#undef TEMPER_STUB
}  // namespace temper::cpu
