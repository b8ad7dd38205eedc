// The optimizer step (AdamW, arXiv:1711.05101) and the sum of squares behind gradient clipping.
#include "temper/adamw.h"
#include <cmath>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct Step {
  template <int>
  static TEMPER_INLINE void run(float* p, float* m, float* v, const float* g, float decay, float beta1, float rest1,
                                float beta2, float rest2, float rate, float root2, float eps, float grad_scale,
                                int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float d = g[i] * grad_scale;
      const float first = beta1 * m[i] + rest1 * d, second = beta2 * v[i] + rest2 * d * d;
      m[i] = first;
      v[i] = second;
      p[i] = p[i] * decay - rate * first / (__builtin_sqrtf(second) * root2 + eps);
    }
  }
};

struct Squares {
  template <int>
  static TEMPER_INLINE void run(double* out, const float* x, int64_t begin, int64_t end) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    *out = sum;
  }
};

}  // namespace

Cost cost::adamw(const args::adamw& a) { return streamed(a); }

void adamw(TensorRef p, TensorRef m, TensorRef v, TensorRef g, double lr, double beta1, double beta2, double eps,
           double weight_decay, int64_t step, double grad_scale) {
  const AdamwStep c = adamw_step("adamw", lr, beta1, beta2, eps, weight_decay, step, grad_scale);
  parallel_ranges(p->numel(), kTaskElements / 4, [&](int64_t begin, int64_t end) {
    run_kernel<Step>(p->f32(), m->f32(), v->f32(), static_cast<const float*>(g->f32()), c.decay, c.beta1, c.rest1,
                     c.beta2, c.rest2, c.rate, c.root2, c.eps, c.grad_scale, begin, end);
  });
}

static int64_t pieces(TensorRef x) { return (x->numel() + kTaskElements - 1) / kTaskElements; }

Cost cost::sum_squares(const args::sum_squares& a) {
  return streamed(a, static_cast<double>(pieces(a.x)) * sizeof(double));
}
void sum_squares(TensorRef out, TensorRef x) {
  const int64_t n = x->numel(), ranges = pieces(x);
  Scratch<double> partial(static_cast<size_t>(ranges));
  parallel_ranges(n, kTaskElements, [&](int64_t begin, int64_t end) {
    run_kernel<Squares>(partial.data() + begin / kTaskElements, static_cast<const float*>(x->f32()), begin, end);
  });
  double sum = 0;
  for (int64_t r = 0; r < ranges; ++r) sum += partial[r];
  out->f32()[0] = static_cast<float>(sum);
}

namespace reference {

void adamw(TensorRef p, TensorRef m, TensorRef v, TensorRef g, double lr, double beta1, double beta2, double eps,
           double weight_decay, int64_t step, double grad_scale) {
  adamw_step("adamw", lr, beta1, beta2, eps, weight_decay, step, grad_scale);  // refuses what it refuses
  const double n = static_cast<double>(step);
  for (int64_t i = 0; i < p->numel(); ++i) {
    const double d = g->f32()[i] * grad_scale;
    const double first = beta1 * m->f32()[i] + (1.0 - beta1) * d, second = beta2 * v->f32()[i] + (1.0 - beta2) * d * d;
    m->f32()[i] = static_cast<float>(first);
    v->f32()[i] = static_cast<float>(second);
    const double first_hat = first / (1.0 - std::pow(beta1, n)), second_hat = second / (1.0 - std::pow(beta2, n));
    p->f32()[i] =
        static_cast<float>(p->f32()[i] * (1.0 - lr * weight_decay) - lr * first_hat / (std::sqrt(second_hat) + eps));
  }
}

void sum_squares(TensorRef out, TensorRef x) {
  double sum = 0;
  for (int64_t i = 0; i < x->numel(); ++i) sum += static_cast<double>(x->f32()[i]) * x->f32()[i];
  out->f32()[0] = static_cast<float>(sum);
}

}  // namespace reference
}  // namespace temper::cpu
