// embedding: rows of a table, and their gradient added in order of t (parallel over columns, so the order holds at any
// thread count).
#include <algorithm>

#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

template <class Wf>
struct Lookup {
  template <int>
  static TEMPER_INLINE void run(float* y, const Wf* table, const int32_t* ids, int64_t begin, int64_t end, int64_t D) {
    for (int64_t t = begin; t < end; ++t) {
      const Wf* row = table + ids[t] * D;
      float* out = y + t * D;
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) out[d] = load(row + d);
    }
  }
};

struct AddRows {
  template <int>
  static TEMPER_INLINE void run(float* dtable, const float* dy, const int32_t* ids, int64_t T, int64_t D, int64_t begin,
                                int64_t end) {
    for (int64_t t = 0; t < T; ++t) {
      float* row = dtable + ids[t] * D;
      const float* g = dy + t * D;
#pragma omp simd
      for (int64_t d = begin; d < end; ++d) row[d] += g[d];
    }
  }
};

}  // namespace

Cost cost::embedding_fwd(const args::embedding_fwd& a) {
  const double row = bytes_of(a.table) / static_cast<double>(std::max<int64_t>(1, a.table->shape[0]));
  return {.bytes = bytes_of(a.y) + row * static_cast<double>(a.ids->numel())};
}
Cost cost::embedding_bwd(const args::embedding_bwd& a) { return streamed(a); }

void embedding_fwd(TensorRef y, TensorRef table, TensorRef ids) {
  const int64_t T = ids->numel(), V = table->shape[0], D = table->shape[1];
  check_indices("embedding_fwd", "ids", ids->i32(), T, V);
  with_wf(*table, [&](auto* w) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(w)>>;
    parallel_ranges(T, rows_per_task(D), [&](int64_t begin, int64_t end) {
      run_kernel<Lookup<Wf>>(y->f32(), w, static_cast<const int32_t*>(ids->i32()), begin, end, D);
    });
  });
}

void embedding_bwd(TensorRef dtable, TensorRef dy, TensorRef ids) {
  const int64_t T = ids->numel(), V = dtable->shape[0], D = dtable->shape[1];
  check_indices("embedding_bwd", "ids", ids->i32(), T, V);
  const int64_t grain = T > 0 ? (rows_per_task(T) + 15) / 16 * 16 : D;
  parallel_ranges(D, grain, [&](int64_t begin, int64_t end) {
    run_kernel<AddRows>(dtable->f32(), static_cast<const float*>(dy->f32()), static_cast<const int32_t*>(ids->i32()), T,
                        D, begin, end);
  });
}

namespace reference {

void embedding_fwd(TensorRef y, TensorRef table, TensorRef ids) {
  const int64_t D = table->shape[1];
  check_indices("embedding_fwd", "ids", ids->i32(), ids->numel(), table->shape[0]);
  for (int64_t t = 0; t < ids->numel(); ++t)
    for (int64_t d = 0; d < D; ++d) y->f32()[t * D + d] = static_cast<float>(element(*table, ids->i32()[t] * D + d));
}

void embedding_bwd(TensorRef dtable, TensorRef dy, TensorRef ids) {
  const int64_t T = ids->numel(), V = dtable->shape[0], D = dtable->shape[1];
  check_indices("embedding_bwd", "ids", ids->i32(), T, V);
  for (int64_t v = 0; v < V; ++v)
    for (int64_t d = 0; d < D; ++d) {
      double sum = dtable->f32()[v * D + d];
      for (int64_t t = 0; t < T; ++t)
        if (ids->i32()[t] == v) sum += dy->f32()[t * D + d];
      dtable->f32()[v * D + d] = static_cast<float>(sum);
    }
}

}  // namespace reference
}  // namespace temper::cpu
