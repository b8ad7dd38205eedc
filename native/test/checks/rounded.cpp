// Activations in bf16 ("af" of ops.def), over the case tables: what an op writes so is its f32 result, rounded; what it
// reads so gives the bits of f32 that holds the same values, and, where products alone read it, of f32 that is not
// rounded yet.
#include <string>
#include <vector>

#include "core/contract.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr int64_t kLargestBytes = 1 << 18;

Value as(DType dtype, const Value& from) {
  const Tensor& t = from.tensor;
  Value to(dtype, Shape(t.shape, t.shape + t.ndim), from.role);
  if (from.role != Role::out)
    for (int64_t i = 0; i < to.numel(); ++i) to.set(i, from.at(i));
  return to;
}

struct Op {
  std::vector<size_t> read, written;  // activations
  int precision = -1;
};
Op op_of(const std::string& name) {
  for (int i = 0; i < contract::op_count(); ++i) {
    if (name != contract::op_name(i)) continue;
    Op op;
    const auto args = contract::args_of(i);
    for (size_t a = 0; a < args.size(); ++a) {
      if (args[a].activation) (args[a].output ? op.written : op.read).push_back(a);
      if (args[a].name == "precision") op.precision = static_cast<int>(a);
    }
    return op;
  }
  return {};
}
size_t place_of(const std::string& op, const char* argument) {
  for (int i = 0; i < contract::op_count(); ++i)
    if (op == contract::op_name(i))
      for (size_t a = 0; a < contract::args_of(i).size(); ++a)
        if (contract::args_of(i)[a].name == argument) return a;
  return SIZE_MAX;
}

// Takes from a call what reads an activation beside the products.
Values products_alone(const std::string& op, Values args) {
  for (const char* name : {"dbias", "row_weight"})
    if (const size_t at = place_of(op, name); at != SIZE_MAX) args[at] = Value(nullptr);
  if (const size_t at = place_of(op, "dropout"); at != SIZE_MAX) args[at].number = 0;
  return args;
}

}  // namespace

void check_rounded(const Backend& backend, Tally& tally) {
  int64_t read = 0, written = 0;
  backend.variants.front().enter();  // the others differ where dtypes do not matter
  for (const Case& c : registry().cases) {
    const Op op = op_of(c.op);
    int64_t bytes = 0;
    for (const Value& v : c.args) bytes += static_cast<int64_t>(v.bytes.size());
    if ((op.read.empty() && op.written.empty()) || !c.error.empty() || c.slow || c.bench_only || bytes > kLargestBytes)
      continue;
    const auto same = [&](const Values& got, const Values& want, const char* what) {
      for (size_t i = 0; i < got.size(); ++i)
        if (got[i].is_tensor() && got[i].role != Role::in)
          report(tally, got[i].bytes == want[i].bytes,
                 backend.name + ": " + c.op + " [" + c.name + "], argument " + std::to_string(i) + ": " + what);
    };
    if (!op.written.empty()) {
      Values args = c.args, want = call(backend, c.op, c.args);
      for (size_t i : op.written) {
        args[i] = as(DType::bf16, c.args[i]);
        want[i].role = Role::in;
        want[i] = as(DType::bf16, want[i]);
      }
      same(call(backend, c.op, args), want, "written in bf16 is not what f32 rounds to");
      ++written;
    }
    if (op.read.empty() || c.args[static_cast<size_t>(op.precision)].number != 1) continue;
    for (const bool alone : {false, true}) {
      const Values f32 = alone ? products_alone(c.op, c.args) : c.args;
      Values rounded = f32, before = f32;
      for (size_t i : op.read) {
        rounded[i] = as(DType::bf16, f32[i]);
        if (!alone) before[i] = as(DType::f32, rounded[i]);
      }
      same(call(backend, c.op, rounded), call(backend, c.op, before),
           alone ? "read in bf16 gives other bits than f32" : "read in bf16 gives other bits than its values in f32");
      ++read;
    }
  }
  report(tally, read > 60 && written > 10,
         "activations in bf16: " + std::to_string(read) + " calls read some and " + std::to_string(written) +
             " wrote some");
}

}  // namespace temper::test
