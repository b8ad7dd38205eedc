// temper_native_test [--quick] [--filter TEXT] [--backend cpu|emulation|cuda]: one line per failure, then "N passed, N
// failed". Without --backend: the CPU and CUDA's emulation. TEMPER_ISA=NAME tests that path of the CPU alone.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include "test/harness/harness.h"

int main(int argc, char** argv) {
  using namespace temper::test;
  bool quick = false, usage = false;
  std::string filter, backend;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick")) quick = true;
    else if (!std::strcmp(argv[i], "--filter") && i + 1 < argc) filter = argv[++i];
    else if (!std::strcmp(argv[i], "--backend") && i + 1 < argc) backend = argv[++i];
    else usage = true;
  }
  if (usage || (!backend.empty() && backend != "cpu" && backend != "emulation" && backend != "cuda")) {
    std::fprintf(stderr, "usage: temper_native_test [--quick] [--filter TEXT] [--backend cpu|emulation|cuda]\n");
    return 2;
  }
  const auto wanted = [&](const char* name) { return backend.empty() || backend == name; };
  Tally tally;
  try {
    if (wanted("cpu")) {
      if (filter.empty()) {
        check_comparer(tally);
        check_sweep(tally);
      }
      check_cases(cpu_backend(quick), quick, filter, tally);
      check_gradients(filter, tally);
      if (filter.empty() || filter == "attention") {
        check_attention_tolerances(tally);
        check_invariance(tally);
      }
      if (filter.empty() || filter == "few_rows") check_few_rows(cpu_backend(quick), tally);
      if (filter.empty()) {
        check_numeric(tally);
        check_core(tally);
        check_paths(tally);
        check_tokenizer(tally);
      }
      if (filter.empty() || filter == "workspace") check_workspace(tally);
      check_hostile(nullptr, filter, tally);
    }
    if (wanted("emulation")) {
      const Backend emulated = emulated_backend();
      check_cases(emulated, quick, filter, tally);
      if (filter.empty()) {
        check_emulation(tally);
        check_device(tally);
      }
      if (filter.empty() || filter == "workspace") check_device_workspace(emulated, *temper_backend(), tally);
      check_hostile(&emulated, filter, tally);
      if (filter.empty() || filter == "tiles") check_tiles(emulated, tally);
      if (filter.empty() || filter == "few_rows") check_few_rows(emulated, tally);
      if (filter.empty() || filter == "attention") check_device_attention(emulated, tally);
      if (filter.empty() || filter == "wgmma") check_wgmma(emulated, tally);
      if (filter.empty() || filter == "cublaslt") check_cublaslt(emulated, tally);
    }
    if (backend == "cuda") {
      const Backend cuda = cuda_backend();
      check_cases(cuda, quick, filter, tally);
      check_hostile(&cuda, filter, tally);
      if (filter.empty() || filter == "few_rows") check_few_rows(cuda, tally);
      if (filter.empty() || filter == "attention") check_device_attention(cuda, tally);
    }
  } catch (const std::exception& e) {
    report(tally, false, std::string("the harness itself: ") + e.what());
  }
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(tally.passed), static_cast<long long>(tally.failed));
  return tally.failed || !tally.passed ? 1 : 0;
}
