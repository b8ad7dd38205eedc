// The op table, filled in the order of TEMPER_OP_NAMES. An op's turn lasts from its first kernel to its last.
#include "gpu/ops.h"
#include "gpu/turn.h"

namespace temper::gpu {
namespace {

template <auto F>
struct InTurn;
template <class... A, void (*F)(A...)>
struct InTurn<F> {
  static void call(A... args) {
    const Turn turn;
    F(args...);
  }
};

}  // namespace

const TemperOps& table() {
#define TEMPER_ENTRY(name) Guard<&InTurn<&name>::call>::call,
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

}  // namespace temper::gpu
