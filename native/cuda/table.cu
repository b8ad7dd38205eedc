// The CUDA backend's op table, filled in the order of TEMPER_OP_NAMES.
#include "cuda/ops.h"

namespace temper::cuda {

// Until every op has its file: a missing one is a typed error when it is called.
template <class> struct Missing;
template <class... A> struct Missing<int (*)(A...)> {
  static int call(A...) noexcept {
    set_last_error("not_implemented", "this op has no CUDA kernel yet; use --device cpu");
    return 1;
  }
};
#define TEMPER_WEAK(name) ::temper::ThrowingForm<decltype(TemperOps::name)>::type name __attribute__((weak));
TEMPER_OP_NAMES(TEMPER_WEAK)
#undef TEMPER_WEAK

const TemperOps& table() {
#define TEMPER_ENTRY(name) &name != nullptr ? Guard<&name>::call : Missing<decltype(TemperOps::name)>::call,
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

}  // namespace temper::cuda
