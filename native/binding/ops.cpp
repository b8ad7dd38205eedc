// Op calls: arguments come in the environment's Float64Array, are checked against the contract and handed to the op table.
#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include "binding/js.h"
#include "binding/tensor_table.h"
#include "core/contract.h"
#include "cpu/ops.h"

namespace temper::binding {
namespace {

// How to call one member of the table with untyped arguments, made from the member's own type.
template <class> struct Unpack;
template <class... A> struct Unpack<int (*)(A...)> {
  static constexpr int arity = sizeof...(A);
  static constexpr uint32_t tensor_mask() {
    uint32_t mask = 0, bit = 1;
    ((mask |= std::is_same_v<A, TensorRef> ? bit : 0, bit <<= 1), ...);
    return mask;
  }
  template <class T> static T one(const TensorRef* tensors, const double* numbers, int i) {
    if constexpr (std::is_same_v<T, TensorRef>) return tensors[i];
    else if constexpr (std::is_same_v<T, int64_t>) return static_cast<int64_t>(numbers[i]);
    else return numbers[i];
  }
  static int call(int (*f)(A...), const TensorRef* tensors, const double* numbers) {
    return [&]<size_t... I>(std::index_sequence<I...>) { return f(one<A>(tensors, numbers, I)...); }(std::index_sequence_for<A...>{});
  }
};

struct Entry {
  const char* name;
  int (*call)(const TensorRef*, const double*);
  int arity;
  uint32_t tensors, outputs;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry>* all = [] {
    auto* list = new std::vector<Entry>;
#define TEMPER_ENTRY(op)                                                                                                                      \
  list->push_back({#op, [](const TensorRef* t, const double* n) { return Unpack<decltype(TemperOps::op)>::call(cpu::table().op, t, n); }, \
                   Unpack<decltype(TemperOps::op)>::arity, Unpack<decltype(TemperOps::op)>::tensor_mask(), 0});
    TEMPER_OP_NAMES(TEMPER_ENTRY)
#undef TEMPER_ENTRY
    for (size_t i = 0; i < list->size(); ++i) {
      Entry& e = (*list)[i];
      auto args = contract::args_of(static_cast<int>(i));
      uint32_t tensors = 0;
      for (size_t a = 0; a < args.size(); ++a) {
        tensors |= (args[a].kind == contract::Kind::tensor ? 1u : 0u) << a;
        e.outputs |= (args[a].output ? 1u : 0u) << a;
      }
      require(static_cast<int>(args.size()) == e.arity && tensors == e.tensors && e.arity <= Pins::kMax, "internal", e.name,
              ": its contract line and its C signature differ");
    }
    return list;
  }();
  return *all;
}

napi_value call_op(napi_env env, napi_callback_info info) {
  Call call(env, info, "call", 1);
  int64_t id = call.integer(0);
  const auto& list = entries();
  require(id >= 0 && id < static_cast<int64_t>(list.size()), "bad_argument", "call: no op ", id);
  const Entry& e = list[id];
  void* data = nullptr;
  ok(napi_get_instance_data(env, &data), "call: the environment is closing");
  // A copy: the block belongs to JavaScript.
  double numbers[Pins::kMax];
  std::copy_n(static_cast<Env*>(data)->args, e.arity, numbers);
  Pins pins;
  pins.take(e.name, numbers, e.tensors, e.outputs);
  contract::check(static_cast<int>(id), pins.tensors(), numbers);
  if (e.call(pins.tensors(), numbers) != 0) throw Error(last_error());
  pins.require_whole();
  return nullptr;
}

}  // namespace

void define_ops(napi_env env, napi_value exports) {
  const auto& list = entries();
  napi_value names, arity;
  ok(napi_create_array_with_length(env, list.size(), &names), "opNames");
  ok(napi_create_array_with_length(env, list.size(), &arity), "opArity");
  for (uint32_t i = 0; i < list.size(); ++i) {
    ok(napi_set_element(env, names, i, js_string(env, list[i].name)), "opNames");
    ok(napi_set_element(env, arity, i, js_number(env, list[i].arity)), "opArity");
  }
  set(env, exports, "opNames", names);
  set(env, exports, "opArity", arity);
  define<call_op>(env, exports, "call");
}

}  // namespace temper::binding
