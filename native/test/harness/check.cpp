// check: a backend against the reference, in all its variants; and the comparer, which is broken on purpose to see that
// it refuses.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <set>
#include <stdexcept>
#include "core/contract.h"
#include "cpu/host/isa.h"
#include "cpu/ops.h"
#include "temper/threads.h"
#include "test/harness/answers.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr size_t kGuard = kSanitized ? 0 : 256;  // the sanitizer watches the exact end
constexpr uint8_t kGuardByte = 0xa7;

// NaN for floats, an implausible number for the rest.
void poison(Value& v) {
  for (int64_t i = 0; i < v.numel(); ++i)
    v.set(i, v.tensor.dtype == DType::i32 ? -858993460.0 : v.tensor.dtype == DType::u8 ? 0xa5 : NAN);
}

// The arguments of one call in a backend's memory, guard bytes behind each.
class Call {
 public:
  Call(const Backend& backend, const Values& args)
      : backend_(backend),
        args_(args),
        storage_(args.size()),
        tensors_(args.size(), nullptr),
        owned_(args.size(), nullptr) {
    for (size_t i = 0; i < args.size(); ++i) {
      if (!args[i].is_tensor()) continue;
      storage_[i] = args[i].tensor;
      tensors_[i] = &storage_[i];
      if (args[i].alias >= 0) continue;
      std::vector<uint8_t> host = args[i].bytes;
      host.resize(host.size() + kGuard, kGuardByte);
      owned_[i] = backend.acquire(host.size() ? host.size() : 1);
      backend.put(owned_[i], host.data(), host.size());
      storage_[i].data = owned_[i];
    }
    for (size_t i = 0; i < args.size(); ++i)
      if (args[i].is_tensor() && args[i].alias >= 0) storage_[i].data = owned_[static_cast<size_t>(args[i].alias)];
  }
  ~Call() {
    for (void* p : owned_)
      if (p) backend_.drop(p);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  int run(const std::string& op) { return settle(backend_, invoke(*backend_.ops, op, args_, tensors_)); }
  Values result(std::string& problem) const {
    Values after = args_;
    std::set<int> written;
    for (const Value& v : args_)
      if (v.is_tensor() && v.alias >= 0) written.insert(v.alias);
    for (size_t i = 0; i < after.size(); ++i) {
      if (!after[i].is_tensor()) continue;
      const size_t source = after[i].alias >= 0 ? static_cast<size_t>(after[i].alias) : i;
      std::vector<uint8_t> host(after[i].bytes.size() + kGuard);
      backend_.get(host.data(), owned_[source], host.size());
      for (size_t g = after[i].bytes.size(); g < host.size(); ++g)
        if (host[g] != kGuardByte) problem = "argument " + std::to_string(i) + " was written past its end";
      if (!after[i].bytes.empty()) std::memcpy(after[i].bytes.data(), host.data(), after[i].bytes.size());
      if (after[i].role == Role::in && !written.count(static_cast<int>(i)) && after[i].bytes != args_[i].bytes)
        problem = "input argument " + std::to_string(i) + " was changed";
    }
    return after;
  }
  const std::vector<Tensor*>& tensors() const { return tensors_; }

 private:
  const Backend& backend_;
  const Values& args_;
  std::vector<Tensor> storage_;
  std::vector<Tensor*> tensors_;
  std::vector<void*> owned_;
};

bool is_output(const Value& v) { return v.is_tensor() && v.role != Role::in; }
bool is_float(const Value& v) { return v.tensor.dtype == DType::f32 || v.tensor.dtype == DType::bf16; }

Values poisoned(Values args) {
  for (Value& v : args)
    if (v.is_tensor() && v.role == Role::out) poison(v);
  return args;
}

// Breaks a good output in the ways a wrong kernel would; each must be refused. Returns what was not, and counts what
// was tried.
std::string break_and_compare(const Value& got, const Value& want, const std::vector<double>& tolerance,
                              int64_t& tried) {
  const int64_t n = got.numel();
  if (n == 0) return "";
  const auto tol = [&](int64_t i) { return tolerance.empty() ? 0.0 : tolerance[static_cast<size_t>(i)]; };
  const auto refused = [&](const Value& broken) {
    ++tried;
    return !compare(broken, want, tolerance).empty();
  };
  int64_t largest = 0, loosest = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (std::fabs(want.at(i)) > std::fabs(want.at(largest))) largest = i;
    if (tol(i) > tol(loosest)) loosest = i;
  }
  Value broken = got;
  if (want.at(largest) != 0 && want.tensor.dtype != DType::u8) {
    broken.set(largest, -got.at(largest));
    if (!refused(broken)) return "the largest element negated passes";
  }
  const int64_t width = want.tensor.width(), begin = n - (width > 0 ? width : n);
  broken = got;
  bool visible = false;
  for (int64_t i = begin; i < n; ++i) {
    visible = visible || std::fabs(want.at(i)) > 2 * tol(i);
    broken.set(i, 0);
  }
  if (visible && !refused(broken)) return "the last row zeroed passes";
  for (int64_t i : {loosest, largest, n - 1}) {
    broken = got;
    if (tol(i) > 0) broken.set(i, want.at(i) + 4 * tol(i) * (want.at(i) < 0 ? -1 : 1));
    else broken.bytes[static_cast<size_t>(i) * size_of(got.tensor.dtype)] ^= 1;
    if (!refused(broken)) return "an element off by 4 tolerances passes";
  }
  if (is_float(got)) {
    broken = got;
    broken.set(n / 2, NAN);
    if (!refused(broken)) return "NaN passes";
  }
  return "";
}

// A bound asks the reference many things, and sums in double itself.
void find_tolerance(const Case& c, const Values& before, Expected& e) {
  const Question question("tolerance of " + c.op + " [" + c.name + "]", before);
  if (const std::vector<uint8_t>* known = question.answer()) {
    size_t at = 0;
    for (std::vector<double>& t : e.tolerance) {
      uint64_t n;
      std::memcpy(&n, known->data() + at, sizeof n);
      at += sizeof n;
      t.resize(n);
      if (n > 0) std::memcpy(t.data(), known->data() + at, n * sizeof(double));
      at += n * sizeof(double);
    }
    return;
  }
  {
    const Question::Inner asking;
    c.bound(c, before, e.want, e.tolerance);
  }
  std::vector<uint8_t> said;
  const auto put = [&](const void* p, size_t n) {
    said.insert(said.end(), static_cast<const uint8_t*>(p), static_cast<const uint8_t*>(p) + n);
  };
  for (const std::vector<double>& t : e.tolerance) {
    const uint64_t n = t.size();
    put(&n, sizeof n);
    put(t.data(), n * sizeof(double));
  }
  question.note(std::move(said));
}
}  // namespace

const Expected& expected_of(const Case& c, const Values& before) {
  static std::map<const Case*, Expected> known;
  const auto found = known.find(&c);
  if (found != known.end()) return found->second;
  Expected e{run_reference(c.op, before), no_tolerance(c)};
  if (c.bound) find_tolerance(c, before, e);
  for (Value& v : e.want)
    if (!is_output(v)) v = nullptr;
  return known.emplace(&c, std::move(e)).first->second;
}

namespace {

void check_case(const Backend& backend, const Case& c, Tally& tally) {
  const std::string label = backend.name + " " + c.op + " [" + c.name + "]";
  const Values before = poisoned(c.args);
  {  // the table must itself keep the contract that the binding enforces
    std::vector<TensorRef> tensors;
    std::vector<double> numbers;
    Call call(backend, before);
    for (size_t i = 0; i < before.size(); ++i) {
      tensors.push_back(call.tensors()[i]);
      numbers.push_back(before[i].number);
    }
    int id = -1;
    for (int i = 0; i < contract::op_count(); ++i)
      if (c.op == contract::op_name(i)) id = i;
    try {
      contract::check(id, tensors.data(), numbers.data());
    } catch (const Error& e) {
      if (c.error.empty()) return report(tally, false, label + ": breaks the contract: " + e.message);
      return report(tally, e.code == c.error, label + ": the contract says " + e.code + ", wanted " + c.error);
    }
  }
  if (!c.error.empty()) {
    Call call(backend, before);
    const int status = call.run(c.op);
    const std::string code = status ? last_error().code : "no error";
    report(tally, code == c.error, label + ": got " + code + ", wanted " + c.error);
    Backend plain = cpu_backend(true);
    plain.ops = &cpu::reference_table();
    Call reference(plain, before);
    const int reference_status = reference.run(c.op);
    return report(tally, reference_status && last_error().code == c.error, label + ": the reference lets it pass");
  }
  const Expected* expected = nullptr;
  try {
    expected = &expected_of(c, before);
  } catch (const std::exception& e) {
    return report(tally, false, label + ": " + e.what());
  }
  const auto& [want, tolerance] = *expected;
  std::string group;
  Values first;
  for (const Variant& variant : backend.variants) {
    variant.enter();
    const std::string where = label + " " + variant.name;
    Call call(backend, before);
    if (call.run(c.op) != 0) {
      report(tally, false, where + ": " + last_error().code + ": " + last_error().message);
      continue;
    }
    std::string problem;
    const Values got = call.result(problem);
    report(tally, problem.empty(), where + ": " + problem);
    if (variant.group != group) {
      for (size_t i = 0; i < got.size(); ++i) {
        if (!is_output(got[i])) continue;
        const std::string wrong = compare(got[i], want[i], tolerance[i]);
        report(tally, wrong.empty(), where + ": output " + std::to_string(i) + ": " + wrong);
        // That a bound refuses what is broken lies in the reference alone: where its answers are given, it was tried.
        if (!wrong.empty() || answers_given()) continue;
        int64_t tried = 0;
        const std::string missed = break_and_compare(got[i], want[i], tolerance[i], tried);
        report(tally, missed.empty() && (tried > 0 || got[i].numel() == 0),
               where + ": output " + std::to_string(i) + ": a broken result is not refused: " + missed);
      }
      group = variant.group;
      first = got;
    } else {
      bool same = true;
      for (size_t i = 0; i < got.size(); ++i) same = same && got[i].bytes == first[i].bytes;
      report(tally, same, where + ": other bits than the first variant of " + group);
    }
  }
}

}  // namespace

std::string compare(const Value& got, const Value& want, const std::vector<double>& tolerance) {
  if (got.tensor.dtype != want.tensor.dtype || got.bytes.size() != want.bytes.size()) return "other dtype or size";
  if (!tolerance.empty() && static_cast<int64_t>(tolerance.size()) != want.numel())
    return "the bound gives a tolerance for other elements";
  double worst = 0;
  int64_t count = 0, where = -1;
  const int64_t n = want.numel();
  const bool is_signed = is_float(want);  // -0 is not 0
  for (int64_t i = 0; i < n; ++i) {
    const double g = got.at(i), w = want.at(i);
    if (g == w && (!is_signed || std::signbit(g) == std::signbit(w))) continue;
    const bool is_number = g == g && w == w;
    const double tol = tolerance.empty() ? -1 : tolerance[static_cast<size_t>(i)];
    if (std::fabs(g - w) <= tol) continue;
    ++count;
    const double excess = is_number ? std::fabs(g - w) / (tol > 0 ? tol : kUnit) : INFINITY;
    if (where < 0 || excess > worst) {
      worst = excess;
      where = i;
    }
  }
  if (count == 0) return "";
  char text[256];
  std::snprintf(text, sizeof text, "%lld of %lld elements differ; worst at %lld: got %.9g, wanted %.9g, tolerance %.3g",
                static_cast<long long>(count), static_cast<long long>(want.numel()), static_cast<long long>(where),
                got.at(where), want.at(where), tolerance.empty() ? 0.0 : tolerance[static_cast<size_t>(where)]);
  return text;
}

void report(Tally& tally, bool ok, const std::string& what) {
  if (ok) {
    ++tally.passed;
    return;
  }
  ++tally.failed;
  std::printf("FAIL %s\n", what.c_str());
}

int settle(const Backend& backend, int status) {
  if (status && backend.refused) backend.refused();
  if (!backend.finish) return status;
  const Error refused = status ? Error(last_error()) : Error("", "");
  const int found = backend.finish();  // also after a refusal: what a kernel reported must not fall to the next call
  if (!status) return found;
  set_last_error(refused.code.c_str(), refused.message.c_str());
  return status;
}

Backend cpu_backend(bool quick) {
  Backend b{"cpu",
            &cpu::table(),
            {},
            [](size_t n) -> void* { return std::malloc(n); },
            [](void* d, const void* h, size_t n) {
              if (n) std::memcpy(d, h, n);
            },
            [](void* h, const void* d, size_t n) {
              if (n) std::memcpy(h, d, n);
            },
            [](void* d) { std::free(d); }};
  for (cpu::Isa isa : paths_under_test()) {
    for (int threads : quick ? std::vector<int>{1, 3} : std::vector<int>{1, 2, 3, 1})
      b.variants.push_back({std::string(cpu::name_of(isa)) + ", " + std::to_string(threads) + " threads",
                            cpu::name_of(isa), [isa, threads] {
                              cpu::force_isa(isa);
                              set_thread_count(threads);
                            }});
  }
  return b;
}

static void check_timed(const Backend& backend, const Case& c, Tally& tally) {
  const std::clock_t begin = std::clock();
  check_case(backend, c, tally);
  if (std::getenv("TEMPER_TEST_TIMES"))
    std::printf("%7.3f s  %s [%s]\n", static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, c.op.c_str(),
                c.name.c_str());
}
void check_cases(const Backend& backend, bool quick, const std::string& filter, Tally& tally) {
  for (const Case& c : registry().cases)
    if (!c.bench_only && !(quick && c.slow) && (c.op + " " + c.name).find(filter) != std::string::npos)
      check_timed(backend, c, tally);
}
Values call(const Backend& backend, const std::string& op, Values args) {
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = backend.acquire(args[i].bytes.size() + 1);
    backend.put(storage[i].data, args[i].bytes.data(), args[i].bytes.size());
    tensors[i] = &storage[i];
  }
  const int status = settle(backend, invoke(*backend.ops, op, args, tensors));
  for (size_t i = 0; i < args.size(); ++i) {
    if (!tensors[i]) continue;
    if (!status && args[i].role != Role::in) backend.get(args[i].bytes.data(), storage[i].data, args[i].bytes.size());
    backend.drop(storage[i].data);
  }
  if (status) throw last_error();
  return args;
}

double precision_of(const Case& c) {
  const bool by_row = c.op.ends_with("linear_fwd") || c.op == "linear_q8_fwd";  // comes last
  return c.args[c.args.size() - (by_row ? 2 : 1)].number;
}
void check_bf16_products(const Backend& backend, Tally& tally) {
  for (const Case& c : registry().cases) {
    const bool multiplies =
        c.op.ends_with("linear_fwd") || c.op.ends_with("linear_bwd") || c.op == "linear_cross_entropy";
    if (multiplies && !c.bench_only && !c.slow && precision_of(c) == 1) check_timed(backend, c, tally);
  }
}

void check_bf16_attention_bwd(const Backend& backend, Tally& tally) {
  for (const Case& c : registry().cases)
    if (c.op == "attention_bwd" && !c.bench_only && !c.slow && c.error.empty() && c.args.back().number == 1)
      check_timed(backend, c, tally);
}

void work_out_answers(bool quick) {
  for (const Case& c : registry().cases)
    if (!c.bench_only && c.error.empty() && !(quick && c.slow)) expected_of(c, poisoned(c.args));
}

void check_comparer(Tally& tally) {
  const Value want = values_f32({2, 3}, {1, -2, 3, 0, 5e-9f, -6});
  const std::vector<double> tolerance(6, 1e-6);
  const auto refuses = [&](int64_t i, double x) {
    Value got = want;
    got.set(i, x);
    report(tally, !compare(got, want, tolerance).empty(),
           "comparer: passes " + std::to_string(x) + " at element " + std::to_string(i));
  };
  report(tally, compare(want, want, tolerance).empty() && compare(want, want, {}).empty(),
         "comparer: refuses equal tensors");
  refuses(0, NAN);
  refuses(5, INFINITY);
  refuses(5, 6);
  refuses(3, 4e-6);
  refuses(4, 5e-9 + 4e-6);
  refuses(1, -2 - 4e-6);
  Value nothing = want, unwritten = want;
  for (int64_t i = 0; i < 6; ++i) unwritten.set(i, NAN);
  report(tally, !compare(unwritten, unwritten, tolerance).empty(), "comparer: passes NaN against NaN");
  report(tally, !compare(want, want, std::vector<double>(6, NAN)).empty() || compare(want, want, {}).empty(),
         "comparer: equal tensors under a NaN tolerance");
  nothing.set(0, 1 + 1e-7);
  report(tally, !compare(nothing, want, std::vector<double>(6, NAN)).empty(),
         "comparer: a NaN tolerance passes a difference");
  report(tally, !compare(nothing, want, {}).empty(), "comparer: exact comparison passes a difference");
  report(tally, !compare(want, want, {1e-6}).empty(), "comparer: passes with a tolerance of another size");
}

void check_sweep(Tally& tally) {
  std::set<std::string> checked, differentiated;
  for (const Case& c : registry().cases)
    if (c.error.empty() && !c.bench_only) checked.insert(c.op);
  for (const GradCase& g : registry().grads) differentiated.insert(g.op);
  for (const std::string& name : op_names()) {
    report(tally, checked.count(name) > 0, name + ": no check case");
    const bool backward = name.size() > 4 && name.compare(name.size() - 4, 4, "_bwd") == 0;
    if (backward) report(tally, differentiated.count(name) > 0, name + ": no gradient case");
  }
  report(tally, checked.size() == op_names().size(),
         "ops checked: " + std::to_string(checked.size()) + " of " + std::to_string(op_names().size()));
}

}  // namespace temper::test
