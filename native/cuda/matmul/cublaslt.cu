// The library behind cuda/cublaslt.h: loading, one handle, algorithms kept per shape.
#include "cuda/matmul/cublaslt.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "temper/error.h"

namespace temper::gpu {
namespace {

// Public constants of cublas_api.h, cublasLt.h and library_types.h.
constexpr int kComputeF32 = 68, kF32 = 0, kBf16 = 14, kTransposeA = 3, kTransposeB = 4, kMaxWorkspace = 1,
              kReductionMask = 3, kMinAlignmentA = 5;
constexpr int32_t kPlain = 0, kTransposed = 1;
// partial sums go to the workspace and are added in order; in place they are added as blocks end
constexpr uint32_t kReductionInComputeType = 2;
constexpr size_t kWorkspace = size_t{32} << 20;  // what the library's manual recommends for sm_90
// one algorithm for all m up to the next multiple: rows per expert differ in every call
constexpr int64_t kRowBucket = 128;
constexpr size_t kKept = 1024;

struct State {
  std::mutex lock;
  bool looked = false;
  CublasLt loaded{};
  const CublasLt* functions = nullptr;
  void* handle = nullptr;
  std::string text = "cuBLASLt was not looked for";
  std::map<std::array<int64_t, 9>, CublasLtResult> algorithms;
};
State& state() {
  static State s;
  return s;
}

template <class F>
bool bind(void* library, const char* name, F& to) {
  to = reinterpret_cast<F>(dlsym(library, name));
  return to != nullptr;
}
bool bind_all(void* library, CublasLt& f) {
  return bind(library, "cublasLtCreate", f.Create) && bind(library, "cublasLtGetVersion", f.GetVersion) &&
         bind(library, "cublasLtMatmulDescCreate", f.MatmulDescCreate) &&
         bind(library, "cublasLtMatmulDescDestroy", f.MatmulDescDestroy) &&
         bind(library, "cublasLtMatmulDescSetAttribute", f.MatmulDescSetAttribute) &&
         bind(library, "cublasLtMatrixLayoutCreate", f.MatrixLayoutCreate) &&
         bind(library, "cublasLtMatrixLayoutDestroy", f.MatrixLayoutDestroy) &&
         bind(library, "cublasLtMatmulPreferenceCreate", f.MatmulPreferenceCreate) &&
         bind(library, "cublasLtMatmulPreferenceDestroy", f.MatmulPreferenceDestroy) &&
         bind(library, "cublasLtMatmulPreferenceSetAttribute", f.MatmulPreferenceSetAttribute) &&
         bind(library, "cublasLtMatmulAlgoGetHeuristic", f.MatmulAlgoGetHeuristic) &&
         bind(library, "cublasLtMatmul", f.Matmul);
}

void start(State& s, const CublasLt* functions) {
  void* handle = nullptr;
  if (const int status = functions->Create(&handle)) {
    s.text = "cuBLASLt does not start: status " + std::to_string(status);
    return;
  }
  s.handle = handle;
  s.functions = functions;
  s.text = "cuBLASLt " + std::to_string(functions->GetVersion());
}

void look(State& s) {
  s.looked = true;
  const char* named = std::getenv("TEMPER_CUBLASLT");
  if (named && !std::strcmp(named, "off")) {
    s.text = "cuBLASLt is off (TEMPER_CUBLASLT)";
    return;
  }
#if defined(TEMPER_CUDA_EMULATION)
  if (!named) {  // a real library cannot work on emulated memory
    s.text = "no cuBLASLt on emulated devices";
    return;
  }
#endif
  for (const char* name : {named ? named : "libcublasLt.so.13", named ? named : "libcublasLt.so.12"}) {
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char* why = dlerror();
      s.text = std::string("no cuBLASLt: ") + (why ? why : name);
      continue;
    }
    if (bind_all(library, s.loaded)) return start(s, &s.loaded);
    s.text = std::string(name) + " lacks a function that is needed";
    dlclose(library);
  }
}

// Descriptors of one call, freed with it.
class Descriptors {
 public:
  Descriptors(const CublasLt& f, const DenseProduct& p, int64_t m) : f_(f) {
    // The library counts in columns: c row by row is cᵀ [n,m] column by column, so b comes first.
    const int32_t op_a = p.b_inner ? kTransposed : kPlain, op_b = p.a_inner ? kPlain : kTransposed;
    ok = !f.MatmulDescCreate(&desc, kComputeF32, kF32) &&
         !f.MatmulDescSetAttribute(desc, kTransposeA, &op_a, sizeof op_a) &&
         !f.MatmulDescSetAttribute(desc, kTransposeB, &op_b, sizeof op_b) &&
         !f.MatrixLayoutCreate(&first, kBf16, static_cast<uint64_t>(p.b_inner ? p.k : p.n),
                               static_cast<uint64_t>(p.b_inner ? p.n : p.k), p.ldb) &&
         !f.MatrixLayoutCreate(&second, kBf16, static_cast<uint64_t>(p.a_inner ? p.k : m),
                               static_cast<uint64_t>(p.a_inner ? m : p.k), p.lda) &&
         !f.MatrixLayoutCreate(&result, kF32, static_cast<uint64_t>(p.n), static_cast<uint64_t>(m), p.ldc);
  }
  ~Descriptors() {
    for (void* layout : {result, second, first})
      if (layout) f_.MatrixLayoutDestroy(layout);
    if (desc) f_.MatmulDescDestroy(desc);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  void *desc = nullptr, *first = nullptr, *second = nullptr, *result = nullptr;
  bool ok;

 private:
  const CublasLt& f_;
};

bool find_algorithm(State& s, const DenseProduct& p, int64_t m, CublasLtResult& found) {
  const CublasLt& f = *s.functions;
  const Descriptors d(f, p, m);
  void* preference = nullptr;
  if (!d.ok || f.MatmulPreferenceCreate(&preference)) return false;
  int count = 0;
  const uint64_t bytes = kWorkspace;
  const uint32_t aligned = 16;  // of a, b, c and d: an expert's rows begin anywhere
  bool ok = true;
  for (int operand = 0; operand < 4; ++operand)
    ok = ok && !f.MatmulPreferenceSetAttribute(preference, kMinAlignmentA + operand, &aligned, sizeof aligned);
  ok =
      ok && !f.MatmulPreferenceSetAttribute(preference, kMaxWorkspace, &bytes, sizeof bytes) &&
      !f.MatmulPreferenceSetAttribute(preference, kReductionMask, &kReductionInComputeType,
                                      sizeof kReductionInComputeType) &&
      !f.MatmulAlgoGetHeuristic(s.handle, d.desc, d.first, d.second, d.result, d.result, preference, 1, &found, &count);
  f.MatmulPreferenceDestroy(preference);
  return ok && count > 0 && found.status == 0;
}

}  // namespace

const CublasLt* cublaslt() {
  State& s = state();
  const std::lock_guard<std::mutex> hold(s.lock);
  if (!s.looked) look(s);
  return s.functions;
}
const char* cublaslt_state() {
  cublaslt();
  return state().text.c_str();
}
void use_cublaslt(const CublasLt* functions) {
  State& s = state();
  const std::lock_guard<std::mutex> hold(s.lock);
  s.looked = functions != nullptr;
  s.functions = nullptr;
  s.algorithms.clear();
  if (functions) start(s, functions);
}

bool multiply_cublaslt(const DenseProduct& p) {
  if (!cublaslt()) return false;
  if (p.m == 0 || p.n == 0) return true;
  State& s = state();
  const std::lock_guard<std::mutex> hold(s.lock);
  if ((reinterpret_cast<uintptr_t>(p.a) | reinterpret_cast<uintptr_t>(p.b) | reinterpret_cast<uintptr_t>(p.c)) % 16 ||
      p.lda % 8 || p.ldb % 8 || p.ldc % 4)
    return false;
  const Descriptors d(*s.functions, p, p.m);
  if (!d.ok) return false;
  const int64_t bucket = blocks_for(p.m, kRowBucket) * kRowBucket;
  const auto run = [&](const CublasLtResult& with) {
    const Workspace<uint8_t> workspace(with.workspace);
    return s.functions->Matmul(s.handle, d.desc, &p.alpha, p.b, d.first, p.a, d.second, &p.beta, p.c, d.result, p.c,
                               d.result, &with.algo, workspace.data(), with.workspace, device().stream);
  };
  const auto algorithm = [&](int64_t m) -> const CublasLtResult* {
    const std::array<int64_t, 9> key{m, p.n, p.k, p.lda, p.ldb, p.ldc, p.a_inner, p.b_inner, p.beta != 0};
    if (const auto at = s.algorithms.find(key); at != s.algorithms.end())
      return at->second.status ? nullptr : &at->second;
    if (s.algorithms.size() >= kKept) s.algorithms.clear();
    CublasLtResult found{};
    if (!find_algorithm(s, p, m, found)) found = {}, found.status = 1;
    const CublasLtResult& kept = s.algorithms[key] = found;
    return kept.status ? nullptr : &kept;
  };
  const CublasLtResult* general = p.a_inner ? algorithm(bucket) : nullptr;
  if (general && run(*general) == 0) return true;
  const CublasLtResult* exact = algorithm(p.m);
  return exact && run(*exact) == 0;
}

}  // namespace temper::gpu
