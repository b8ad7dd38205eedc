// cuBLASLt when the machine has it: found with dlopen at the first use, declared here as far as it is used (constants
// of its public ABI, CUDA 12 and 13), never needed at build time. Without it every caller falls back to the kernels of
// this folder.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/host/runtime.h"

namespace temper::gpu {

struct CublasLtAlgo {
  uint64_t data[8];
};
struct CublasLtResult {
  CublasLtAlgo algo;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
// The functions by their own names less the prefix; 0 is success.
struct CublasLt {
  int (*Create)(void** handle);
  size_t (*GetVersion)();
  int (*MatmulDescCreate)(void** desc, int compute_type, int scale_type);
  int (*MatmulDescDestroy)(void* desc);
  int (*MatmulDescSetAttribute)(void* desc, int attribute, const void* value, size_t size);
  int (*MatrixLayoutCreate)(void** layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
  int (*MatrixLayoutDestroy)(void* layout);
  int (*MatmulPreferenceCreate)(void** preference);
  int (*MatmulPreferenceDestroy)(void* preference);
  int (*MatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value, size_t size);
  int (*MatmulAlgoGetHeuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                int wanted, CublasLtResult* results, int* found);
  int (*Matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const CublasLtAlgo* algo, void* workspace, size_t workspace_bytes, cudaStream_t stream);
};

// The library, or null and why not. TEMPER_CUBLASLT names another file, or is "off".
const CublasLt* cublaslt();
const char* cublaslt_state();                  // "cuBLASLt 130100" or the reason that there is none
void use_cublaslt(const CublasLt* functions);  // for tests: these instead of a library; null: look for one again

// c[m,n] = alpha·a·bᵀ + beta·c, row-major, c in f32: a is [m,k] in memory, or [k,m] where k does not run along its
// rows; b likewise [n,k] or [k,n].
struct DenseProduct {
  const uint16_t *a, *b;
  int64_t lda, ldb;
  bool a_inner, b_inner;
  float* c;
  int64_t ldc, m, n, k;
  float alpha, beta;
};
// false: there is no library, or it has no algorithm for this product; nothing was launched. The same shapes take the
// same algorithm in one process; those whose order of summation can vary from run to run are not asked for.
bool multiply_cublaslt(const DenseProduct& product);

}  // namespace temper::gpu
