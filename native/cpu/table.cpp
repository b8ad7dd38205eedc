// The CPU backend's two op tables, filled in the order of TEMPER_OP_NAMES. Activations in bf16 ("af" of ops.def) are
// f32 for the length of the call: a processor gains nothing by them, and its ops need not know of them.
#include <array>
#include <memory>
#include <tuple>
#include <type_traits>

#include "core/contract.h"
#include "cpu/host/bf16.h"
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

enum Number : int {
#define TEMPER_NUMBER(name) name##_number,
  TEMPER_OP_NAMES(TEMPER_NUMBER)
#undef TEMPER_NUMBER
};

// By argument: 1 an activation that the op reads, 2 one that it writes.
using Roles = std::array<uint8_t, contract::kMaxArgs>;
Roles roles_of(int op) {
  Roles roles{};
  const auto args = contract::args_of(op);
  for (size_t i = 0; i < args.size(); ++i)
    if (args[i].activation) roles[i] = args[i].output ? 2 : 1;
  return roles;
}

// The activations of a call that are bf16, as f32.
class Widened {
 public:
  template <class T>
  T take(T argument, uint8_t role) {
    if constexpr (std::is_same_v<T, TensorRef>) {
      if (!role || !argument || argument->dtype != DType::bf16) return argument;
      Held& held = held_[count_++];
      held.memory = std::make_unique<Scratch<float>>(static_cast<size_t>(argument->numel()));
      held.tensor = *argument;
      held.tensor.dtype = DType::f32;
      held.tensor.data = held.memory->data();
      if (role == 2) {
        held.result = argument;
      } else {
        const uint16_t* from = argument->bf16();
        float* to = held.memory->data();
        parallel_ranges(argument->numel(), kTaskElements, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) to[i] = bf16_to_float(from[i]);
        });
      }
      return &held.tensor;
    } else {
      return argument;
    }
  }
  void put_back() const {
    for (const Held& held : held_) {
      if (!held.result) continue;
      const float* from = held.memory->data();
      uint16_t* to = held.result->bf16();
      parallel_ranges(held.result->numel(), kTaskElements, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = float_to_bf16(from[i]);
      });
    }
  }

 private:
  struct Held {
    Tensor tensor;
    TensorRef result = nullptr;
    std::unique_ptr<Scratch<float>> memory;
  };
  std::array<Held, 3> held_;
  int count_ = 0;
};

template <class>
struct Entry;
template <class... A>
struct Entry<int (*)(A...)> {
  template <void (*op)(A...), int number>
  static void run(A... a) {
    static const Roles roles = roles_of(number);
    size_t at = 0;
    bool any = false;
    const auto look = [&](const auto& argument) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(argument)>, TensorRef>)
        any = any || (roles[at] && argument && argument->dtype == DType::bf16);
      ++at;
    };
    (look(a), ...);
    if (!any) return op(a...);
    Widened widened;
    at = 0;
    const auto take = [&](auto argument) { return widened.take(argument, roles[at++]); };
    const std::tuple<A...> f32{take(a)...};  // in order, as braces are
    std::apply(op, f32);
    widened.put_back();
  }
};

}  // namespace

double widened(std::initializer_list<TensorRef> activations) {
  double bytes = 0;
  for (TensorRef t : activations)
    if (t && t->dtype == DType::bf16) bytes += 4.0 * static_cast<double>(t->numel());
  return bytes;
}

#define TEMPER_ENTRY_OF(name, function) Guard<&Entry<decltype(TemperOps::name)>::run<&function, name##_number>>::call,

const TemperOps& table() {
#define TEMPER_ENTRY(name) TEMPER_ENTRY_OF(name, name)
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

const TemperOps& reference_table() {
#define TEMPER_ENTRY(name) TEMPER_ENTRY_OF(name, reference::name)
  static const TemperOps ops = {TEMPER_OP_NAMES(TEMPER_ENTRY)};
#undef TEMPER_ENTRY
  return ops;
}

}  // namespace temper::cpu
