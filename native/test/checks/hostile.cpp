// Hostile calls: the case tables' small calls with indices, shapes, dtypes, numbers and data made wrong at random. What
// the contract lets through, an op must survive: do its work or return an error. Reading or writing past a tensor shows
// in the sanitizer build, whose blocks end exactly.
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include "core/contract.h"
#include "cpu/host/isa.h"
#include "cpu/ops.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr int kCallsPerOp = 400, kDeviceCallsPerOp = 60;
constexpr int64_t kLargestBytes = 1 << 16;

class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint64_t bits() { return random_bits(seed_, next_++); }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }

 private:
  uint64_t seed_, next_ = 0;
};

int32_t wild_index(Random& r) {
  switch (r.below(8)) {
    case 0: return -1;
    case 1: return std::numeric_limits<int32_t>::min();
    case 2: return std::numeric_limits<int32_t>::max();
    case 3: return static_cast<int32_t>(r.bits());
    case 4: return static_cast<int32_t>(r.below(1000));
    default: return static_cast<int32_t>(r.below(8));
  }
}
double wild_number(Random& r, double was) {
  switch (r.below(8)) {
    case 0: return 0;
    case 1: return -was;
    case 2: return NAN;
    case 3: return INFINITY;
    case 4: return 9007199254740992.0;
    case 5: return -1;
    case 6: return was + 0.5;
    default: return static_cast<double>(r.below(5));
  }
}

// Makes one thing wrong, or several.
void spoil(Random& r, Values& args, int64_t max_flips) {
  for (int64_t flips = 1 + r.below(max_flips); flips > 0; --flips) {
    Value& v = args[static_cast<size_t>(r.below(static_cast<int64_t>(args.size())))];
    if (v.alias >= 0) continue;
    if (!v.is_tensor()) {
      if (!v.is_null) v.number = wild_number(r, v.number);
      continue;
    }
    const int64_t n = v.numel();
    switch (r.below(8)) {
      case 0: {  // another size
        const int64_t d = r.below(v.tensor.ndim);
        v.tensor.shape[d] = std::max<int64_t>(0, v.tensor.shape[d] + r.below(4) - 2);
        v.bytes.resize(v.tensor.bytes());
        break;
      }
      case 1:
        v.tensor.dtype = static_cast<DType>(r.below(4));
        v.bytes.resize(v.tensor.bytes());
        break;
      case 2: v.is_null = true; break;
      default:
        if (n == 0) break;
        for (int64_t k = 1 + r.below(n < 6 ? n : 6); k > 0; --k) {
          const int64_t i = r.below(n);
          if (v.tensor.dtype == DType::i32) v.set(i, wild_index(r));
          else if (v.tensor.dtype == DType::u8) v.set(i, static_cast<double>(r.below(256)));
          else v.set(i, r.below(2) ? NAN : r.below(2) ? INFINITY : -1e38);
        }
    }
  }
}

}  // namespace

void check_hostile(const Backend* device, const std::string& filter, Tally& tally) {
  const std::vector<cpu::Isa> isas = paths_under_test();
  const int calls = device ? kDeviceCallsPerOp : kCallsPerOp;
  set_thread_count(2);
  for (int id = 0; id < contract::op_count(); ++id) {
    const std::string op = contract::op_name(id);
    if (op.find(filter) == std::string::npos) continue;
    std::vector<const Case*> small;
    const Case* smallest = nullptr;
    int64_t smallest_bytes = 0;
    for (const Case& c : registry().cases) {
      int64_t bytes = 0;
      for (const Value& v : c.args) bytes += static_cast<int64_t>(v.bytes.size());
      if (c.op != op || !c.error.empty() || c.slow || c.bench_only) continue;
      if (bytes <= kLargestBytes) small.push_back(&c);
      if (!smallest || bytes < smallest_bytes) smallest = &c, smallest_bytes = bytes;
    }
    if (small.empty() && smallest) small.push_back(smallest);
    Random r(1000 + static_cast<uint64_t>(id));
    int64_t passed_contract = 0, done = 0;
    for (int call = 0; call < calls && !small.empty(); ++call) {
      Values args = small[static_cast<size_t>(r.below(static_cast<int64_t>(small.size())))]->args;
      spoil(r, args, 3);
      std::vector<std::unique_ptr<uint8_t, void (*)(void*)>> memory;
      std::vector<Tensor> storage(args.size());
      std::vector<Tensor*> tensors(args.size(), nullptr);
      std::vector<TensorRef> refs(args.size(), nullptr);
      std::vector<double> numbers(args.size());
      for (size_t i = 0; i < args.size(); ++i) {
        numbers[i] = args[i].number;
        const size_t n = args[i].bytes.size();
        memory.emplace_back(nullptr, device ? device->drop : [](void* p) { ::operator delete(p); });
        if (!args[i].is_tensor()) continue;
        storage[i] = args[i].tensor;
        refs[i] = tensors[i] = &storage[i];
        memory[i].reset(static_cast<uint8_t*>(device ? device->acquire(n + 1) : ::operator new(n + 1)));
        if (device) device->put(memory[i].get(), args[i].bytes.data(), n);
        else std::copy(args[i].bytes.begin(), args[i].bytes.end(), memory[i].get());
        storage[i].data = memory[i].get();
      }
      for (size_t i = 0; i < args.size(); ++i)
        if (tensors[i] && args[i].alias >= 0 && tensors[static_cast<size_t>(args[i].alias)])
          storage[i].data = memory[static_cast<size_t>(args[i].alias)].get();
      try {
        contract::check(id, refs.data(), numbers.data());
      } catch (const Error&) {
        continue;
      }
      ++passed_contract;
      cpu::force_isa(isas[static_cast<size_t>(call) % isas.size()]);
      const int status =
          device ? settle(*device, invoke(*device->ops, op, args, tensors)) : invoke(cpu::table(), op, args, tensors);
      if (status == 0) ++done;
      else
        report(tally, !last_error().code.empty() && last_error().code != "internal",
               op + ": hostile call " + std::to_string(call) + " ends in " + last_error().message);
    }
    report(tally, passed_contract > calls / 20,
           op + ": only " + std::to_string(passed_contract) +
               " hostile calls pass the contract; the cases are too large or too few");
    report(tally, done > 0, op + ": no hostile call does its work");
  }
}

}  // namespace temper::test
