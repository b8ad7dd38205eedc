// The instruction sets: forcing one really changes what runs, in the matrix products as in the kernels that the
// compiler vectorises, and one that this CPU lacks is refused by name.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>
#include "cpu/host/isa.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/error.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

using cpu::Isa;
constexpr Isa kAll[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amx, Isa::neon, Isa::neonbf16};
constexpr size_t kLargestBytes = 1 << 18;

// The bytes that op writes under the active path, one entry per small case.
std::vector<std::vector<uint8_t>> outputs_of(const std::string& op) {
  std::vector<std::vector<uint8_t>> all;
  for (const Case& c : registry().cases) {
    size_t bytes = 0;
    for (const Value& v : c.args) bytes += v.bytes.size();
    if (c.op != op || !c.error.empty() || c.slow || c.bench_only || bytes > kLargestBytes) continue;
    Values args = c.args;
    std::vector<Tensor> storage(args.size());
    std::vector<Tensor*> tensors(args.size(), nullptr);
    for (size_t i = 0; i < args.size(); ++i) {
      if (!args[i].is_tensor()) continue;
      storage[i] = args[i].tensor;
      storage[i].data = args[args[i].alias >= 0 ? static_cast<size_t>(args[i].alias) : i].bytes.data();
      tensors[i] = &storage[i];
    }
    std::vector<uint8_t>& out = all.emplace_back();
    if (invoke(cpu::table(), op, args, tensors) != 0) continue;
    for (const Value& v : args)
      if (v.is_tensor() && v.role != Role::in) out.insert(out.end(), v.bytes.begin(), v.bytes.end());
  }
  return all;
}

// Sums are cut by the width of the registers and products are fused or not: two paths that really differ differ in some
// last bit.
void check_differs(Tally& tally, const std::string& op, Isa one, Isa other) {
  if (!cpu::supported(one) || !cpu::supported(other)) return;
  cpu::force_isa(one);
  const auto a = outputs_of(op);
  cpu::force_isa(other);
  const auto b = outputs_of(op);
  report(tally, !a.empty() && a != b,
         std::string("paths: ") + op + " has the same bits on " + cpu::name_of(one) + " and " + cpu::name_of(other) +
             ": is the path really taken?");
}

}  // namespace

std::vector<cpu::Isa> paths_under_test() {
  const char* only = std::getenv("TEMPER_ISA");
  static const Isa forced = only && *only ? cpu::active_isa() : Isa::portable;  // read before any force_isa
  if (only && *only) return {forced};
  std::vector<Isa> isas;
  for (Isa isa : kAll)
    if (cpu::supported(isa)) isas.push_back(isa);
  return isas;
}

void check_paths(Tally& tally) {
  set_thread_count(1);
  std::vector<const cpu::Kernels*> seen;
  std::vector<decltype(cpu::Path::tile)> exact;
  for (Isa isa : kAll) {
    const std::string name = cpu::name_of(isa);
    if (!cpu::supported(isa)) {
      std::string code = "no error";
      try {
        cpu::force_isa(isa);
      } catch (const Error& e) {
        code = e.code;
      }
      report(tally, code == "bad_isa", "paths: forcing " + name + ", which this CPU lacks, gives " + code);
      continue;
    }
    cpu::force_isa(isa);
    report(tally, cpu::active_isa() == isa, "paths: " + name + " was forced and is not active");
    const cpu::Kernels* k = &cpu::kernels();
    for (const cpu::Kernels* before : seen)
      report(tally, before != k && before->rounded.tile != k->rounded.tile,
             "paths: " + name + " multiplies with another path's tiles");
    seen.push_back(k);
  }
  for (const char* op : {"linear_fwd", "grouped_linear_fwd", "attention_fwd", "attention_bwd"})
    for (Isa isa : {Isa::avx2, Isa::neon}) check_differs(tally, op, Isa::portable, isa);
  check_differs(tally, "linear_fwd", Isa::avx2, Isa::avx512);
// that build does not vectorise loops: what differs by their width alone agrees in it
#if !defined(__SANITIZE_ADDRESS__)
  // aarch64's portable code is NEON
  for (Isa isa : {Isa::avx2, Isa::avx512}) check_differs(tally, "rmsnorm_fwd", Isa::portable, isa);
  for (const char* op : {"attention_fwd", "rmsnorm_fwd"}) check_differs(tally, op, Isa::avx2, Isa::avx512);
#endif
  check_differs(tally, "linear_fwd", Isa::avx512, Isa::avx512bf16);
  check_differs(tally, "linear_fwd", Isa::avx512bf16, Isa::amx);
  check_differs(tally, "linear_fwd", Isa::neon, Isa::neonbf16);
}

}  // namespace temper::test
