// The library path of matrix products, on a stand-in that does what the manual of cuBLASLt says in plain loops: the
// case tables run through it, with and without an algorithm for every shape, and without a library at all.
#include "cuda/matmul/cublaslt.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "cuda/matmul/matmul.h"
#include "temper/error.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

using gpu::CublasLt;
using gpu::CublasLtAlgo;
using gpu::CublasLtResult;

struct Desc {
  int compute = 0, scale = 0;
  int32_t transpose[2] = {0, 0};
};
struct Layout {
  int type = 0;
  uint64_t rows = 0, cols = 0;
  int64_t ld = 0;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reduction = ~0u, alignment[4] = {256, 256, 256, 256};
};

int64_t g_products = 0, g_live = 0;  // calls that computed; descriptors not destroyed
bool g_picky = false;                // some shapes have no algorithm, others one that then refuses

bool refused(uint64_t extent, uint64_t of) { return g_picky && extent % of == 0; }
float bf16(uint16_t bits) { return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16); }

constexpr int kInvalid = 7, kNotSupported = 15;

int get_heuristic(void*, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted,
                  CublasLtResult* results, int* found) {
  *found = 0;
  const auto* p = static_cast<Preference*>(preference);
  if (!desc || !a || !b || !c || !d || wanted < 1 || p->reduction != 2) return kInvalid;
  for (uint32_t bytes : p->alignment)
    if (bytes != 16) return kInvalid;
  if (refused(static_cast<Layout*>(c)->rows, 3)) return kNotSupported;
  results[0] = {};
  results[0].algo.data[0] = 42;
  results[0].workspace = 4096;
  *found = 1;
  return 0;
}
int matmul(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout,
           const void* beta, const void* c, void* c_layout, void* d, void* d_layout, const CublasLtAlgo* algo,
           void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const auto& op = *static_cast<Desc*>(desc);
  const auto &la = *static_cast<Layout*>(a_layout), &lb = *static_cast<Layout*>(b_layout),
             &lc = *static_cast<Layout*>(c_layout);
  const bool ta = op.transpose[0] == 1, tb = op.transpose[1] == 1;
  const int64_t m = static_cast<int64_t>(ta ? la.cols : la.rows), k = static_cast<int64_t>(ta ? la.rows : la.cols),
                n = static_cast<int64_t>(tb ? lb.rows : lb.cols);
  if (!handle || op.compute != 68 || op.scale != 0 || la.type != 14 || lb.type != 14 || lc.type != 0 || c != d ||
      c_layout != d_layout || algo->data[0] != 42 || !workspace || workspace_bytes != 4096 || !stream)
    return kInvalid;
  if (static_cast<int64_t>(tb ? lb.cols : lb.rows) != k || static_cast<int64_t>(lc.rows) != m ||
      static_cast<int64_t>(lc.cols) != n)
    return kInvalid;
  if (la.ld < static_cast<int64_t>(la.rows) || lb.ld < static_cast<int64_t>(lb.rows) || lc.ld < m) return kInvalid;
  for (const void* pointer : {a, b, static_cast<const void*>(d)})
    if (reinterpret_cast<uintptr_t>(pointer) % 16) return kInvalid;
  if (refused(lc.cols, 5)) return kNotSupported;
  const auto *pa = static_cast<const uint16_t*>(a), *pb = static_cast<const uint16_t*>(b);
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < m; ++i) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += bf16(pa[ta ? i * la.ld + l : l * la.ld + i]) * bf16(pb[tb ? l * lb.ld + j : j * lb.ld + l]);
      float& to = static_cast<float*>(d)[j * lc.ld + i];
      to = keep != 0 ? scale * sum + keep * to : scale * sum;  // beta 0: c is not read
    }
  ++g_products;
  return 0;
}

const CublasLt kStandIn{
    [](void** handle) {
      static int h;
      *handle = &h;
      return 0;
    },
    []() -> size_t { return 130000; },
    [](void** out, int compute, int scale) {
      *out = new Desc{compute, scale};
      ++g_live;
      return 0;
    },
    [](void* desc) {
      delete static_cast<Desc*>(desc);
      --g_live;
      return 0;
    },
    [](void* desc, int attribute, const void* value, size_t size) {
      if ((attribute != 3 && attribute != 4) || size != 4) return kInvalid;
      std::memcpy(&static_cast<Desc*>(desc)->transpose[attribute - 3], value, 4);
      return 0;
    },
    [](void** out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
      *out = new Layout{type, rows, cols, ld};
      ++g_live;
      return 0;
    },
    [](void* layout) {
      delete static_cast<Layout*>(layout);
      --g_live;
      return 0;
    },
    [](void** out) {
      *out = new Preference;
      ++g_live;
      return 0;
    },
    [](void* preference) {
      delete static_cast<Preference*>(preference);
      --g_live;
      return 0;
    },
    [](void* preference, int attribute, const void* value, size_t size) {
      auto* p = static_cast<Preference*>(preference);
      if (attribute == 1 && size == 8) std::memcpy(&p->workspace, value, 8);
      else if (attribute == 3 && size == 4) std::memcpy(&p->reduction, value, 4);
      else if (attribute >= 5 && attribute <= 8 && size == 4) std::memcpy(&p->alignment[attribute - 5], value, 4);
      else return kInvalid;
      return 0;
    },
    get_heuristic,
    matmul,
};

}  // namespace

void check_cublaslt(const Backend& emulated, Tally& tally) {
  report(tally, !gpu::cublaslt() && std::string(gpu::cublaslt_state()).find("cuBLASLt") != std::string::npos,
         std::string("cublaslt: a library on an emulated device? ") + gpu::cublaslt_state());
  gpu::set_matmul_choice(gpu::MatmulChoice::cublaslt);
  Backend library = emulated;
  for (bool picky : {false, true}) {
    if (kSanitized && !picky) continue;  // the one that refuses some shapes goes both ways
    gpu::use_cublaslt(&kStandIn);
    g_picky = picky;
    g_products = 0;
    library.name = picky ? "emulation, cublaslt that refuses some" : "emulation, cublaslt";
    check_bf16_products(library, tally);
    report(tally, g_products > 60, library.name + ": " + std::to_string(g_products) + " products went to the library");
    report(tally, g_live == 0, library.name + ": " + std::to_string(g_live) + " descriptors are left");
  }
  gpu::use_cublaslt(nullptr);
  const int64_t before = g_products;
  library.name = "emulation, cublaslt wanted and missing";
  check_cases(library, true, "to the bit", tally);
  report(tally, g_products == before, "cublaslt: the stand-in was called after it was taken away");
  gpu::set_matmul_choice(gpu::MatmulChoice::automatic);
}

}  // namespace temper::test
