// What an op says it holds beside its arguments (temper/cost.h) against the allocators' own count, over the case
// tables: on the CPU to the byte; on CUDA's emulation no less than what was taken, of ops that multiply no matrices.
#include <map>
#include <string>
#include <vector>

#include "core/contract.h"
#include "cpu/ops.h"
#include "gpu/workspace.h"
#include "temper/backend.h"
#include "temper/memory.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

struct Declared {
  Cost (*cost)(const TensorRef*, const double*);
  double (*cuda)(const TensorRef*, const double*);
};
const std::map<std::string, Declared>& declared() {
#define TEMPER_DECLARED(name)                                                                  \
  {#name,                                                                                      \
   {[](const TensorRef* t, const double* n) { return cpu::cost::name(args::name::of(t, n)); }, \
    [](const TensorRef* t, const double* n) { return gpu::workspace::name(args::name::of(t, n)); }}},
  static const std::map<std::string, Declared> all = {TEMPER_OP_NAMES(TEMPER_DECLARED)};
#undef TEMPER_DECLARED
  return all;
}

// A case's arguments in memory of their own.
struct Arguments {
  explicit Arguments(const Values& from) : values(from), refs(from.size()), tensors(from.size()), numbers(from.size()) {
    for (size_t i = 0; i < values.size(); ++i) {
      numbers[i] = values[i].number;
      if (!values[i].is_tensor()) continue;
      const size_t source = values[i].alias >= 0 ? static_cast<size_t>(values[i].alias) : i;
      values[i].tensor.data = values[source].bytes.data();
      refs[i] = tensors[i] = &values[i].tensor;
    }
  }
  Values values;
  std::vector<TensorRef> refs;
  std::vector<Tensor*> tensors;
  std::vector<double> numbers;
};

}  // namespace

void check_workspace(Tally& tally) {
  const int threads = thread_count();
  int64_t holding = 0;
  for (const Case& c : registry().cases) {
    if (!c.error.empty() || c.slow || c.bench_only) continue;
    for (const int n : {1, 4}) {
      set_thread_count(n);
      Arguments a(c.args);
      const Cost cost = declared().at(c.op).cost(a.refs.data(), a.numbers.data());
      reset_peaks();
      const auto held = [] { return memory_stats().peak[static_cast<int>(Category::workspace)]; };
      const int64_t before = held();
      if (invoke(cpu::table(), c.op, a.values, a.tensors)) continue;  // check_cases says what went wrong
      const double taken = static_cast<double>(held() - before);
      holding += taken > 0;
      // At one thread nothing is left to chance; more may come late and find their share done.
      report(tally, n == 1 ? taken == cost.workspace : taken <= cost.workspace,
             c.op + " [" + c.name + "], " + std::to_string(n) + " threads: held " + std::to_string(taken) +
                 " bytes of workspace, said " + std::to_string(cost.workspace));
    }
  }
  set_thread_count(threads);
  report(tally, holding > 200, "only " + std::to_string(holding) + " cases hold any workspace");
}

// What a product stages depends on padding, on what lies aligned and on the path that a device takes: workspace.h says
// what the model's shapes take of it, which no small case is.
static bool multiplies(const std::string& op) { return op.find("linear") != std::string::npos; }

void check_device_workspace(const Backend& backend, const TemperBackend& library, Tally& tally) {
  if (kSanitized) return;  // the calls of the case tables once more, counted
  for (const Case& c : registry().cases) {
    if (!c.error.empty() || c.slow || c.bench_only || multiplies(c.op)) continue;
    Arguments a(c.args);
    std::vector<void*> owned(a.values.size(), nullptr);
    for (size_t i = 0; i < a.values.size(); ++i) {
      if (!a.tensors[i] || a.values[i].alias >= 0) continue;
      owned[i] = backend.acquire(a.values[i].bytes.size() + 1);
      backend.put(owned[i], a.values[i].bytes.data(), a.values[i].bytes.size());
    }
    const double said = declared().at(c.op).cuda(a.refs.data(), a.numbers.data());
    for (size_t i = 0; i < a.values.size(); ++i)
      if (a.tensors[i]) a.tensors[i]->data = owned[a.values[i].alias >= 0 ? static_cast<size_t>(a.values[i].alias) : i];
    TemperDeviceMemory before, after;
    library.reset_peaks();
    library.memory(&before);
    const int status = settle(backend, invoke(*backend.ops, c.op, a.values, a.tensors));
    library.memory(&after);
    for (void* p : owned)
      if (p) backend.drop(p);
    if (status) continue;
    const double taken = static_cast<double>(after.total_peak - before.total_live);
    report(tally, taken <= said,
           c.op + " [" + c.name + "] on " + backend.name + ": held " + std::to_string(taken) + " bytes, said " +
               std::to_string(said));
  }
}

}  // namespace temper::test
