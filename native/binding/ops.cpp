// Op calls: arguments come in the environment's Float64Array, are checked against the contract and handed to the op
// table.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

#include "binding/device.h"
#include "binding/environment.h"
#include "binding/js.h"
#include "binding/recording.h"
#include "binding/tensor_table.h"
#include "core/contract.h"
#include "cpu/ops.h"
#include "plan/plan.h"

namespace temper::binding {
namespace {

// How to call one member of the table with untyped arguments, made from the member's own type.
template <class>
struct Unpack;
template <class... A>
struct Unpack<int (*)(A...)> {
  static constexpr int arity = sizeof...(A);
  static constexpr uint32_t tensor_mask() {
    uint32_t mask = 0, bit = 1;
    ((mask |= std::is_same_v<A, TensorRef> ? bit : 0, bit <<= 1), ...);
    return mask;
  }
  template <class T>
  static T one(const TensorRef* tensors, const double* numbers, int i) {
    if constexpr (std::is_same_v<T, TensorRef>) return tensors[i];
    else if constexpr (std::is_same_v<T, int64_t>) return static_cast<int64_t>(numbers[i]);
    else return numbers[i];
  }
  static int call(int (*f)(A...), const TensorRef* tensors, const double* numbers) {
    return [&]<size_t... I>(std::index_sequence<I...>) {
      return f(one<A>(tensors, numbers, I)...);
    }(std::index_sequence_for<A...>{});
  }
};

struct Entry {
  const char* name;
  OpCall call;
  int arity;
  uint32_t tensors, outputs, on_host;
  const MixedOp* mixed;  // null: none of on_host
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry>* all = [] {
    auto* list = new std::vector<Entry>;
#define TEMPER_ENTRY(op)                                                                                         \
  list->push_back({#op,                                                                                          \
                   [](const TemperOps& ops, const TensorRef* t, const double* n) {                               \
                     return Unpack<decltype(TemperOps::op)>::call(ops.op, t, n);                                 \
                   },                                                                                            \
                   Unpack<decltype(TemperOps::op)>::arity, Unpack<decltype(TemperOps::op)>::tensor_mask(), 0, 0, \
                   mixed_op(#op)});
    TEMPER_OP_NAMES(TEMPER_ENTRY)
#undef TEMPER_ENTRY
    for (size_t i = 0; i < list->size(); ++i) {
      Entry& e = (*list)[i];
      auto args = contract::args_of(static_cast<int>(i));
      uint32_t tensors = 0;
      for (size_t a = 0; a < args.size(); ++a) {
        tensors |= (args[a].kind == contract::Kind::tensor ? 1u : 0u) << a;
        e.outputs |= (args[a].output ? 1u : 0u) << a;
        e.on_host |= (args[a].on_host ? 1u : 0u) << a;
      }
      require(static_cast<int>(args.size()) == e.arity && tensors == e.tensors && e.arity <= Pins::kMax, "internal",
              e.name, ": its contract line and its C signature differ; run npm run ops");
      require((e.on_host != 0) == (e.mixed != nullptr), "internal", e.name,
              ": the table and binding/mixed.cpp differ in whether its tensors may lie in two places");
    }
    return list;
  }();
  return *all;
}

// Runs the op, or records it, where its tensors lie: on the CPU, on the device, or, for the few ops that may mix, as
// binding/mixed.cpp says.
void run(const Entry& e, int id, const Pins& pins, const double* numbers) {
  const TemperBackend *device = nullptr, *planned = nullptr;  // planned: a dry run's host
  int first = -1;
  uint32_t host = 0;
  bool on_device[Pins::kMax] = {};
  for (int i = 0; i < e.arity; ++i) {
    if (!pins.tensors()[i]) continue;
    const TemperBackend* place = pins.place(i);
    on_device[i] = !plan::on_host(place);
    if (!on_device[i]) {
      host |= 1u << i;
      if (place) planned = place;
    } else if (!device) {
      device = place;
      first = i;
    }
  }
  if (Recording* r = recording(); r && (plan::on_host(r->place()) || r->place() == device)) {
    require(!device || r->place() == device, "graph_recording", e.name,
            ": host ops are being recorded, its tensors lie on the device");
    return r->add(e.call, e.arity, pins, numbers);
  }
  if (!device) {
    if (planned) must(*planned, e.call(*planned->ops, pins.tensors(), numbers));
    else if (e.call(cpu::table(), pins.tensors(), numbers) != 0) throw Error(last_error());
    return;
  }
  if (host) {
    if (const uint32_t wrong = host & ~e.on_host) {
      const auto args = contract::args_of(id);
      fail("wrong_device", e.name, ": ", args[static_cast<size_t>(__builtin_ctz(wrong))].name, " lies on the host, ",
           args[static_cast<size_t>(first)].name,
           " on the device; copy one of them, or make it in a scope of the other's place");
    }
    if (!plan::is_plan(device)) return e.mixed->run(*device, pins.tensors(), on_device, numbers);
    plan::note_host_workspace(e.mixed->host_bytes(pins.tensors(), on_device, numbers));
  }
  must(*device, e.call(*device->ops, pins.tensors(), numbers));
}

void call(Napi::Env env, double number) {
  const auto& list = entries();
  require(number >= 0 && number < static_cast<double>(list.size()) && number == std::floor(number), "bad_argument",
          "call: no op ", number);
  const auto id = static_cast<int>(number);
  const Entry& e = list[static_cast<size_t>(id)];
  // A copy: the block belongs to JavaScript.
  double numbers[Pins::kMax];
  std::copy_n(environment(env).args, e.arity, numbers);
  Pins pins;
  pins.take(e.name, numbers, e.tensors, e.outputs, contract::args_of(id));
  contract::check(id, pins.tensors(), numbers);
  run(e, id, pins, numbers);
  pins.require_whole();
}

// Raw Node-API: through node-addon-api an empty call costs 48 ns in place of 33, and this one runs hundreds of times a
// token.
napi_value call_raw(napi_env env, napi_callback_info info) {
  try {
    size_t count = 1;
    napi_value argument;
    double id = -1;
    require(napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) == napi_ok &&
                napi_get_value_double(env, argument, &id) == napi_ok,
            "bad_argument", "call: argument 1 is not a number");
    call(env, id);
  } catch (...) {
    rethrow_to_js(env);
  }
  return nullptr;
}

}  // namespace

void define_ops(Napi::Object exports) {
  const Napi::Env env = exports.Env();
  const auto& list = entries();
  Napi::Array names = Napi::Array::New(env, list.size()), arity = Napi::Array::New(env, list.size());
  for (uint32_t i = 0; i < list.size(); ++i) {
    names.Set(i, list[i].name);
    arity.Set(i, list[i].arity);
  }
  exports.Set("opNames", names);
  exports.Set("opArity", arity);
  napi_value raw;
  require(napi_create_function(env, "call", NAPI_AUTO_LENGTH, call_raw, nullptr, &raw) == napi_ok, "internal",
          "call: cannot be defined");
  exports.Set("call", raw);
}

}  // namespace temper::binding
