// temper_native_test [--quick] [--filter TEXT] [--backend cpu|emulation|cuda] [--answers FILE]: one line per failure,
// then "N passed, N failed". Without --backend: the CPU and CUDA's emulation. TEMPER_ISA=NAME tests that path of the
// CPU alone. TEMPER_TEST_TIMES=1 prints the CPU time of each part and case.
//
// temper_native_test [--quick] --keep-answers FILE: asks the reference of every case what it says, and nothing else;
// with --answers FILE that is taken and not worked out, where it would take most of the time: on an emulated CPU, under
// the sanitizers. What tests the reference or its bounds and no kernel is then left out: the bounds of attention, and,
// but for the sanitizers, the gradients.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <functional>
#include <string>
#include <vector>
#include "test/harness/answers.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// What --filter selects a part by: always those that look at it themselves, else the word that names it.
constexpr const char* kEach = "*";
struct Part {
  const char* name;
  std::function<void()> check;
};

// With --quick each path of the CPU once, with several threads: that their number changes no bit is seen in all cases.
Backend cpu_paths(bool quick) {
  Backend b = cpu_backend(quick);
  std::vector<Variant> last;
  for (Variant& v : b.variants) {
    if (quick && !last.empty() && last.back().group == v.group) last.pop_back();
    last.push_back(std::move(v));
  }
  b.variants = std::move(last);
  return b;
}

std::vector<Part> parts_of(const std::string& backend, bool quick, const std::string& filter, Tally& t) {
  if (backend == "cpu")
    return {{"comparer", [&] { check_comparer(t); }},
            {"sweep", [&] { check_sweep(t); }},
            {kEach, [&, quick] { check_cases(cpu_backend(quick), quick, filter, t); }},
            {kEach,
             [&] {
               if (kSanitized || !answers_given()) check_gradients(filter, t);
             }},
            {"attention",
             [&] {
               if (!answers_given()) check_attention_tolerances(t);
             }},
            {"attention", [&] { check_invariance(t); }},
            {"few_rows", [&, quick] { check_few_rows(cpu_paths(quick), t); }},
            {"composed", [&, quick] { check_composed(cpu_paths(quick), t); }},
            {"rounded", [&, quick] { check_rounded(cpu_backend(quick), t); }},
            {"moments", [&, quick] { check_moments(cpu_backend(quick), t); }},
            {"numeric", [&] { check_numeric(t); }},
            {"core", [&] { check_core(t); }},
            {"paths", [&] { check_paths(t); }},
            {"tokenizer", [&] { check_tokenizer(t); }},
            {"workspace", [&] { check_workspace(t); }},
            {kEach, [&] { check_hostile(nullptr, filter, t); }}};
  const Backend device = backend == "cuda" ? cuda_backend() : emulated_backend();
  std::vector<Part> parts{{kEach, [&t, &filter, device, quick] { check_cases(device, quick, filter, t); }},
                          {kEach, [&t, &filter, device] { check_hostile(&device, filter, t); }},
                          {"few_rows", [&t, device] { check_few_rows(device, t); }},
                          {"composed", [&t, device] { check_composed(device, t); }},
                          {"rounded", [&t, device] { check_rounded(device, t); }},
                          {"moments", [&t, device] { check_moments(device, t); }},
                          {"attention", [&t, device] { check_device_attention(device, t); }}};
  if (backend == "cuda") return parts;
  const std::vector<Part> emulated{
      {"emulation", [&t] { check_emulation(t); }},
      {"device", [&t] { check_device(t); }},
      {"workspace", [&t, device] { check_device_workspace(device, *temper_backend(), t); }},
      {"tiles", [&t, device] { check_tiles(device, t); }},
      {"narrow", [&t, device] { check_narrow(device, t); }},
      {"wgmma", [&t, device] { check_wgmma(device, t); }},
      {"cublaslt", [&t, device] { check_cublaslt(device, t); }}};
  parts.insert(parts.end(), emulated.begin(), emulated.end());
  return parts;
}

void check_backend(const std::string& backend, bool quick, const std::string& filter, Tally& tally) {
  for (const Part& part : parts_of(backend, quick, filter, tally)) {
    if (part.name != kEach && !filter.empty() && filter != part.name) continue;
    const std::clock_t begin = std::clock();
    part.check();
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    if (std::getenv("TEMPER_TEST_TIMES")) std::printf("%7.3f s  %s: part %s\n", seconds, backend.c_str(), part.name);
  }
}

}  // namespace
}  // namespace temper::test

int main(int argc, char** argv) {
  using namespace temper::test;
  bool quick = false, usage = false;
  std::string filter, backend, answers, keep;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick")) quick = true;
    else if (!std::strcmp(argv[i], "--filter") && i + 1 < argc) filter = argv[++i];
    else if (!std::strcmp(argv[i], "--backend") && i + 1 < argc) backend = argv[++i];
    else if (!std::strcmp(argv[i], "--answers") && i + 1 < argc) answers = argv[++i];
    else if (!std::strcmp(argv[i], "--keep-answers") && i + 1 < argc) keep = argv[++i];
    else usage = true;
  }
  if (usage || (!backend.empty() && backend != "cpu" && backend != "emulation" && backend != "cuda")) {
    std::fprintf(stderr,
                 "usage: temper_native_test [--quick] [--filter TEXT] [--backend cpu|emulation|cuda]\n"
                 "                          [--answers FILE | --keep-answers FILE]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Tally tally;
  try {
    // The tiles of the emulated device take slow cases too, where they are not sanitized.
    const bool tiles = !kSanitized && backend != "cpu" && keep.empty() && (filter.empty() || filter == "tiles");
    if (quick && !tiles) build_quick_cases_alone();
    if (!keep.empty()) {
      keep_answers();
      work_out_answers(quick);
      std::printf("%zu answers\n", write_answers(keep));
      return 0;
    }
    if (!answers.empty()) take_answers(answers);
    if (backend.empty()) {
      check_backend("cpu", quick, filter, tally);
      check_backend("emulation", quick, filter, tally);
    } else {
      check_backend(backend, quick, filter, tally);
    }
  } catch (const std::exception& e) {
    report(tally, false, std::string("the harness itself: ") + e.what());
  }
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(tally.passed), static_cast<long long>(tally.failed));
  return tally.failed || !tally.passed ? 1 : 0;
}
