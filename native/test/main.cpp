// temper_native_test [--quick] [--filter TEXT]: one line per failure, then "N passed, N failed". TEMPER_ISA=NAME tests that path alone.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include "test/harness.h"

int main(int argc, char** argv) {
  using namespace temper::test;
  bool quick = false;
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick")) quick = true;
    else if (!std::strcmp(argv[i], "--filter") && i + 1 < argc) filter = argv[++i];
    else { std::fprintf(stderr, "usage: temper_native_test [--quick] [--filter TEXT]\n"); return 2; }
  }
  Tally tally;
  try {
    if (filter.empty()) { check_comparer(tally); check_sweep(tally); }
    check_cases(cpu_backend(quick), quick, filter, tally);
    check_gradients(filter, tally);
    if (filter.empty()) { check_numeric(tally); check_invariance(tally); check_core(tally); check_emulation(tally); check_paths(tally); check_hostile(tally); check_tokenizer(tally); }
  } catch (const std::exception& e) {
    report(tally, false, std::string("the harness itself: ") + e.what());
  }
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(tally.passed), static_cast<long long>(tally.failed));
  return tally.failed || !tally.passed ? 1 : 0;
}
