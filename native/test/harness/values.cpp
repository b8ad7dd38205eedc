// Arguments of test calls: building them, reading them, and calling an op of a table with them.
#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>
#include "cpu/ops.h"
#include "test/harness/answers.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

template <class... A, size_t... I>
int call_with(int (*fn)(A...), const Values& args, const std::vector<Tensor*>& tensors, std::index_sequence<I...>) {
  const auto argument = [&]<class T>(size_t i) -> T {
    if constexpr (std::is_same_v<T, TensorRef>) return tensors[i];
    else return static_cast<T>(args[i].number);
  };
  if (args.size() != sizeof...(A))
    throw std::runtime_error("a case has " + std::to_string(args.size()) + " arguments, the op takes " +
                             std::to_string(sizeof...(A)));
  return fn(argument.template operator()<A>(I)...);
}
template <class... A>
int call_op(int (*fn)(A...), const Values& args, const std::vector<Tensor*>& tensors) {
  return call_with(fn, args, tensors, std::index_sequence_for<A...>{});
}

using Caller = int (*)(const TemperOps&, const Values&, const std::vector<Tensor*>&);
const std::map<std::string, Caller>& callers() {
#define TEMPER_CALLER(name)                                                                   \
  {#name, [](const TemperOps& ops, const Values& args, const std::vector<Tensor*>& tensors) { \
     return call_op(ops.name, args, tensors);                                                 \
   }},
  static const std::map<std::string, Caller> all = {TEMPER_OP_NAMES(TEMPER_CALLER)};
#undef TEMPER_CALLER
  return all;
}

Value with_numbers(const Shape& shape, DType dtype, const std::function<double(int64_t)>& at) {
  Value v(dtype, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i) v.set(i, at(i));
  return v;
}

double gauss(uint64_t seed, uint64_t i) {  // sum of uniforms: enough of a bell for test data, deviation 1
  double s = -6;
  for (uint64_t k = 0; k < 12; ++k) s += random_unit(seed, 12 * i + k);
  return s;
}

}  // namespace

uint64_t random_bits(uint64_t seed, uint64_t i) {
  uint64_t x = seed * 0xd1342543de82ef95ull + (i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
  return x ^ (x >> 32);
}
double random_unit(uint64_t seed, uint64_t i) { return static_cast<double>(random_bits(seed, i) >> 11) * 0x1p-53; }

Value::Value(DType dtype, const Shape& shape, Role r) : role(r) {
  tensor.dtype = dtype;
  tensor.ndim = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) tensor.shape[i] = shape[i];
  bytes.resize(tensor.bytes());
}

void Value::set(int64_t i, double x) {
  switch (tensor.dtype) {
    case DType::f32: {
      const float y = static_cast<float>(x);
      std::memcpy(bytes.data() + 4 * i, &y, 4);
      break;
    }
    case DType::bf16: {
      const uint16_t y = cpu::float_to_bf16(static_cast<float>(x));
      std::memcpy(bytes.data() + 2 * i, &y, 2);
      break;
    }
    case DType::i32: {
      const int32_t y = static_cast<int32_t>(x);
      std::memcpy(bytes.data() + 4 * i, &y, 4);
      break;
    }
    case DType::u8: bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(x); break;
  }
}

Value floats(const Shape& shape, uint64_t seed, double scale, DType dtype) {
  return with_numbers(shape, dtype, [=](int64_t i) {
    const uint64_t kind = random_bits(seed ^ 0x5bd1e995u, static_cast<uint64_t>(i)) % 64;
    return kind == 0 ? 0.0 : (kind == 1 ? 20.0 : 1.0) * scale * gauss(seed, static_cast<uint64_t>(i));
  });
}
Value smooth(const Shape& shape, uint64_t seed, double scale, DType dtype) {
  return with_numbers(shape, dtype,
                      [=](int64_t i) { return scale * (4 * random_unit(seed, static_cast<uint64_t>(i)) - 2); });
}
Value positive(const Shape& shape, uint64_t seed, double low, double high) {
  return with_numbers(shape, DType::f32,
                      [=](int64_t i) { return low + (high - low) * random_unit(seed, static_cast<uint64_t>(i)); });
}
Value values_f32(const Shape& shape, const std::vector<float>& x) {
  return with_numbers(shape, DType::f32, [&](int64_t i) { return x.at(static_cast<size_t>(i)); });
}
Value values_i32(const Shape& shape, const std::vector<int32_t>& x) {
  return with_numbers(shape, DType::i32, [&](int64_t i) { return x.at(static_cast<size_t>(i)); });
}
Value indices(const Shape& shape, uint64_t seed, int64_t limit) {
  return with_numbers(shape, DType::i32, [=](int64_t i) {
    return static_cast<double>(random_bits(seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(limit));
  });
}
Value bytes_u8(const Shape& shape, uint64_t seed, int low, int high) {
  return with_numbers(shape, DType::u8, [=](int64_t i) {
    return low + static_cast<int>(random_bits(seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(high - low + 1));
  });
}
Value out(const Shape& shape, DType dtype) { return Value(dtype, shape, Role::out); }
Value out_alias(const Shape& shape, int argument) {
  Value v(DType::f32, shape, Role::out);
  v.alias = argument;
  return v;
}
Paged in_pages(const Value& k, const Value& v, const std::vector<int32_t>& k_start, const std::vector<int32_t>& k_len,
               int64_t page, DType dtype) {
  const int64_t B = static_cast<int64_t>(k_len.size()), heads = k.tensor.shape[1], Dh = k.tensor.shape[2];
  std::map<int64_t, std::pair<int64_t, int64_t>> pages;  // by the row they begin in: which one, how many keys
  int64_t M = 1;
  for (size_t b = 0; b < k_len.size(); ++b)
    for (int64_t i = 0; i * page < k_len[b]; ++i) {
      auto& of = pages.emplace(k_start[b] + i * page, std::pair<int64_t, int64_t>{0, 0}).first->second;
      of.second = std::max(of.second, std::min(page, k_len[b] - i * page));
      M = std::max(M, i + 1);
    }
  const int64_t count = static_cast<int64_t>(pages.size()) + 1;  // one more, that is nobody's
  int64_t next = count;
  for (auto& [row, of] : pages) of.first = --next;
  const Shape shape{count * page, heads, Dh};
  Paged p{Value(dtype, shape, Role::in), Value(dtype, shape, Role::in),
          values_i32({B, M}, std::vector<int32_t>(static_cast<size_t>(B * M), -1))};
  for (int64_t i = 0; i < p.k.numel(); ++i)
    for (Value* x : {&p.k, &p.v}) x->set(i, NAN);
  for (const auto& [row, of] : pages)
    for (int64_t i = 0; i < of.second * heads * Dh; ++i) {
      p.k.set(of.first * page * heads * Dh + i, k.at(row * heads * Dh + i));
      p.v.set(of.first * page * heads * Dh + i, v.at(row * heads * Dh + i));
    }
  for (size_t b = 0; b < k_len.size(); ++b)
    for (int64_t i = 0; i * page < k_len[b]; ++i)
      p.pages.set(static_cast<int64_t>(b) * M + i, static_cast<double>(pages.at(k_start[b] + i * page).first));
  return p;
}
Value update(Value initial) {
  initial.role = Role::update;
  return initial;
}

const std::vector<std::string>& op_names() {
#define TEMPER_NAME(name) #name,
  static const std::vector<std::string> names = {TEMPER_OP_NAMES(TEMPER_NAME)};
#undef TEMPER_NAME
  return names;
}

int invoke(const TemperOps& ops, const std::string& op, const Values& args, const std::vector<Tensor*>& tensors) {
  const auto found = callers().find(op);
  if (found == callers().end()) throw std::runtime_error("a case names the unknown op " + op);
  return found->second(ops, args, tensors);
}

static bool is_answer(const Value& v) { return v.is_tensor() && v.role != Role::in; }

Values run_reference(const std::string& op, Values args) {
  const Question question(op, args);
  if (const std::vector<uint8_t>* known = question.answer()) {
    size_t at = 0;
    for (Value& v : args) {
      if (!is_answer(v) || v.bytes.empty()) continue;
      std::memcpy(v.bytes.data(), known->data() + at, v.bytes.size());
      at += v.bytes.size();
    }
    return args;
  }
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = args[i].bytes.data();
    tensors[i] = &storage[i];
  }
  if (invoke(cpu::reference_table(), op, args, tensors) != 0)
    throw std::runtime_error(op + ": the reference failed: " + last_error().message);
  std::vector<uint8_t> said;
  for (const Value& v : args)
    if (is_answer(v)) said.insert(said.end(), v.bytes.begin(), v.bytes.end());
  question.note(std::move(said));
  return args;
}

static std::vector<void (*)(Registry&)>& suites() {
  static std::vector<void (*)(Registry&)> all;
  return all;
}
Suite::Suite(void (*fill)(Registry&)) { suites().push_back(fill); }

static bool quick_alone = false;
void build_quick_cases_alone() { quick_alone = true; }

Registry& registry(bool for_bench) {
  static Registry all = [for_bench] {
    Registry r;
    r.for_bench = for_bench;
    r.for_quick = quick_alone;
    for (auto fill : suites()) fill(r);
    return r;
  }();
  return all;
}

Tolerance no_tolerance(const Case& c) { return Tolerance(c.args.size()); }

Bound sum_of_products(double terms) {
  return [terms](const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
    Values magnitude = before;
    for (Value& v : magnitude) {
      if (!v.is_tensor() && !v.is_null) v.number = std::fabs(v.number);
      if (v.is_tensor() && (v.tensor.dtype == DType::f32 || v.tensor.dtype == DType::bf16))
        for (int64_t i = 0; i < v.numel(); ++i) v.set(i, std::fabs(v.at(i)));
    }
    magnitude = run_reference(c.op, std::move(magnitude));
    for (size_t a = 0; a < magnitude.size(); ++a) {
      const Value& v = magnitude[a];
      if (!v.is_tensor() || v.role == Role::in || v.tensor.dtype != DType::f32) continue;
      tolerance[a].resize(static_cast<size_t>(v.numel()));
      for (int64_t i = 0; i < v.numel(); ++i) tolerance[a][static_cast<size_t>(i)] = rounding(terms) * v.at(i);
    }
  };
}

}  // namespace temper::test
