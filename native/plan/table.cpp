#include "plan/table.h"

#include "cpu/ops.h"
#include "gpu/workspace.h"
#include "temper/error.h"

namespace temper::plan {
namespace {

// The op is the same on a device; what it holds beside its arguments is the device's own.
template <class Args>
using CostOf = Cost (*)(const Args&);
namespace on_device {
#define TEMPER_COST(name)                     \
  Cost name(const args::name& a) {            \
    Cost cost = cpu::cost::name(a);           \
    cost.workspace = gpu::workspace::name(a); \
    return cost;                              \
  }
TEMPER_OP_NAMES(TEMPER_COST)
#undef TEMPER_COST
}  // namespace on_device

enum Number : int {
#define TEMPER_NUMBER(name) name##_number,
  TEMPER_OP_NAMES(TEMPER_NUMBER)
#undef TEMPER_NUMBER
};

template <class Args, CostOf<Args> cost, int op, Place place>
void note(const Args& given) {
  Plan* plan = current();
  require(plan != nullptr, "plan_over", contract::op_name(op), ": its tensors are of a dry run that is over");
  std::array<Tensor, contract::kMaxArgs> known;
  std::array<TensorRef, contract::kMaxArgs> tensors{};
  std::array<double, contract::kMaxArgs> numbers{};
  size_t i = 0;
  given.each([&](const auto& a) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(a)>, TensorRef>) {
      if (a) known[i] = plan->known(*a), tensors[i] = &known[i];
    } else {
      numbers[i] = static_cast<double>(a);
    }
    ++i;
  });
  plan->call(op, place, cost(Args::of(tensors.data(), numbers.data())), tensors.data(), numbers.data());
  const auto args = contract::args_of(op);
  i = 0;
  given.each([&](const auto& a) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(a)>, TensorRef>)
      if (a && args[i].output) plan->forget(*a);
    ++i;
  });
}

template <class>
struct Entry;
template <class... A>
struct Entry<int (*)(A...)> {
  template <class Args, CostOf<Args> cost, int op, Place place>
  static void run(A... a) {
    note<Args, cost, op, place>(Args{a...});
  }
};

}  // namespace

const TemperOps& table(Place place) {
#define TEMPER_ENTRY(name, costs, place)                                                                  \
  Guard<&Entry<decltype(TemperOps::name)>::run<args::name, static_cast<CostOf<args::name>>(&costs::name), \
                                               name##_number, place>>::call,
#define TEMPER_HOST(name) TEMPER_ENTRY(name, cpu::cost, Place::host)
#define TEMPER_DEVICE(name) TEMPER_ENTRY(name, on_device, Place::device)
  static const TemperOps host = {TEMPER_OP_NAMES(TEMPER_HOST)}, device = {TEMPER_OP_NAMES(TEMPER_DEVICE)};
#undef TEMPER_DEVICE
#undef TEMPER_HOST
#undef TEMPER_ENTRY
  return place == Place::host ? host : device;
}

}  // namespace temper::plan
