// rmsnorm with an optional residual added before it (arXiv:1910.07467).
#include <cmath>
#include <vector>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

template <class Wf>
struct NormForward {
  template <int>
  static TEMPER_INLINE void run(float* y, float* rstd, float* sum, const float* x, const float* residual, const Wf* w,
                                double eps, int64_t begin, int64_t end, int64_t D) {
    for (int64_t t = begin; t < end; ++t) {
      const float* s = x + t * D;
      float squares = 0;
      if (residual) {
        const float* r = residual + t * D;
        float* out = sum ? sum + t * D : y + t * D;
#pragma omp simd reduction(+ : squares)
        for (int64_t d = 0; d < D; ++d) {
          const float v = s[d] + r[d];
          out[d] = v;
          squares += v * v;
        }
        s = out;
      } else {
#pragma omp simd reduction(+ : squares)
        for (int64_t d = 0; d < D; ++d) squares += s[d] * s[d];
        if (sum && sum + t * D != s) {
          float* out = sum + t * D;
#pragma omp simd
          for (int64_t d = 0; d < D; ++d) out[d] = s[d];
        }
      }
      const float inverse =
          static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(squares) / static_cast<double>(D) + eps));
      rstd[t] = inverse;
      float* out = y + t * D;
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) out[d] = s[d] * inverse * load(w + d);
    }
  }
};

template <class Wf>
struct NormBackward {
  // dw: this range's own sum, or null.
  template <int>
  static TEMPER_INLINE void run(float* dx, float* dw, const float* dy, const float* dres, const float* x, const Wf* w,
                                const float* rstd, int64_t begin, int64_t end, int64_t D) {
    for (int64_t t = begin; t < end; ++t) {
      const float* g = dy + t * D;
      const float* s = x + t * D;
      const float r = rstd[t];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t d = 0; d < D; ++d) dot += load(w + d) * g[d] * s[d];
      if (dw) {  // before dx, which may overwrite dy
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) dw[d] += g[d] * s[d] * r;
      }
      const float shift = dot / static_cast<float>(D) * r * r;
      float* out = dx + t * D;
      if (dres) {
        const float* a = dres + t * D;
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) out[d] = a[d] + r * (load(w + d) * g[d] - s[d] * shift);
      } else {
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) out[d] = r * (load(w + d) * g[d] - s[d] * shift);
      }
    }
  }
};

}  // namespace

Cost cost::rmsnorm_fwd(const args::rmsnorm_fwd& a) { return streamed(a, widened({a.y})); }

void rmsnorm_fwd(TensorRef y, TensorRef rstd, TensorRef sum, TensorRef x, TensorRef residual, TensorRef w, double eps) {
  const int64_t T = x->shape[0], D = x->shape[1];
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    parallel_ranges(T, rows_per_task(D), [&](int64_t begin, int64_t end) {
      run_kernel<NormForward<Wf>>(
          y->f32(), rstd->f32(), sum ? sum->f32() : nullptr, static_cast<const float*>(x->f32()),
          static_cast<const float*>(residual ? residual->f32() : nullptr), wp, eps, begin, end, D);
    });
  });
}

// At most 64 partial sums of dw; where the cuts lie depends on T alone.
static int64_t sum_grain(int64_t T, int64_t D) { return std::max<int64_t>(rows_per_task(D), (T + 63) / 64); }
static size_t partial_sums(TensorRef dw, int64_t T, int64_t D) {
  const int64_t grain = sum_grain(T, D);
  return dw ? static_cast<size_t>((T + grain - 1) / grain * D) : 0;
}

Cost cost::rmsnorm_bwd(const args::rmsnorm_bwd& a) {
  return streamed(a, static_cast<double>(partial_sums(a.dw, a.x->shape[0], a.x->shape[1]) * sizeof(float)));
}
void rmsnorm_bwd(TensorRef dx, TensorRef dw, TensorRef dy, TensorRef dres, TensorRef x, TensorRef w, TensorRef rstd) {
  const int64_t T = x->shape[0], D = x->shape[1];
  const int64_t grain = sum_grain(T, D), ranges = (T + grain - 1) / grain;
  Scratch<float> partial(partial_sums(dw, T, D));
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    parallel_ranges(T, grain, [&](int64_t begin, int64_t end) {
      float* own = dw ? partial.data() + begin / grain * D : nullptr;
      if (own) std::fill(own, own + D, 0.0f);
      run_kernel<NormBackward<Wf>>(
          dx->f32(), own, static_cast<const float*>(dy->f32()), static_cast<const float*>(dres ? dres->f32() : nullptr),
          static_cast<const float*>(x->f32()), wp, static_cast<const float*>(rstd->f32()), begin, end, D);
    });
  });
  if (dw)
    for (int64_t r = 0; r < ranges; ++r)
      for (int64_t d = 0; d < D; ++d) dw->f32()[d] += partial[r * D + d];
}

namespace reference {

void rmsnorm_fwd(TensorRef y, TensorRef rstd, TensorRef sum, TensorRef x, TensorRef residual, TensorRef w, double eps) {
  const int64_t T = x->shape[0], D = x->shape[1];
  std::vector<double> s(D);
  for (int64_t t = 0; t < T; ++t) {
    double squares = 0;
    for (int64_t d = 0; d < D; ++d) {
      s[d] = static_cast<double>(x->f32()[t * D + d]) + (residual ? residual->f32()[t * D + d] : 0.0f);
      squares += s[d] * s[d];
    }
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(D) + eps);
    rstd->f32()[t] = static_cast<float>(inverse);
    for (int64_t d = 0; d < D; ++d) {
      if (sum) sum->f32()[t * D + d] = static_cast<float>(s[d]);
      y->f32()[t * D + d] = static_cast<float>(s[d] * inverse * element(*w, d));
    }
  }
}

void rmsnorm_bwd(TensorRef dx, TensorRef dw, TensorRef dy, TensorRef dres, TensorRef x, TensorRef w, TensorRef rstd) {
  const int64_t T = x->shape[0], D = x->shape[1];
  std::vector<double> sum(D, 0.0);
  for (int64_t t = 0; t < T; ++t) {
    const double r = rstd->f32()[t];
    double mean = 0;
    for (int64_t d = 0; d < D; ++d)
      mean += element(*w, d) * dy->f32()[t * D + d] * x->f32()[t * D + d] / static_cast<double>(D);
    for (int64_t d = 0; d < D; ++d) {
      const int64_t i = t * D + d;
      const double g = dy->f32()[i], s = x->f32()[i];
      sum[d] += g * s * r;
      dx->f32()[i] = static_cast<float>((dres ? dres->f32()[i] : 0.0) + r * (element(*w, d) * g - s * mean * r * r));
    }
  }
  if (dw)
    for (int64_t d = 0; d < D; ++d) dw->f32()[d] = static_cast<float>(dw->f32()[d] + sum[d]);
}

}  // namespace reference
}  // namespace temper::cpu
