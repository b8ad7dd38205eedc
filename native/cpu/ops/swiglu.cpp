// The clamped SwiGLU of gpt-oss. Gate and linear units interleave: z[2k] is the gate, z[2k+1] the linear part.
#include <cmath>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct Forward {
  template <int>
  static TEMPER_INLINE void run(float* a, const float* z, float alpha, float limit, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float g = z[2 * i], u = z[2 * i + 1];
      const float gate = g > limit ? limit : g;
      float lin = u > limit ? limit : u;
      lin = lin < -limit ? -limit : lin;
      a[i] = gate * sigmoid(alpha * gate) * (lin + 1.0f);
    }
  }
};

struct Backward {
  template <int>
  static TEMPER_INLINE void run(float* dz, float* row_dot, const float* da, const float* z, const float* row_weight,
                                float alpha, float limit, int64_t F, int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const float* zp = z + p * 2 * F;
      const float* dap = da + p * F;
      float* dzp = dz + p * 2 * F;
      const float r = row_weight ? row_weight[p] : 1.0f;
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t k = 0; k < F; ++k) {
        const float g = zp[2 * k], u = zp[2 * k + 1], d = dap[k];
        const float gate = g > limit ? limit : g;
        float lin = u > limit ? limit : u;
        lin = lin < -limit ? -limit : lin;
        const float s = sigmoid(alpha * gate), glu = gate * s;
        dot += d * (glu * (lin + 1.0f));
        const float to_gate = r * d * (lin + 1.0f) * s * (1.0f + alpha * gate * (1.0f - s));
        const float to_lin = r * d * glu;
        dzp[2 * k] = g > limit ? 0.0f : to_gate;
        dzp[2 * k + 1] = (u > limit) | (u < -limit) ? 0.0f : to_lin;
      }
      if (row_dot) row_dot[p] = dot;
    }
  }
};

}  // namespace

Cost cost::swiglu_fwd(const args::swiglu_fwd& a) { return streamed(a, widened({a.a})); }
Cost cost::swiglu_bwd(const args::swiglu_bwd& a) { return streamed(a, widened({a.dz})); }

void swiglu_fwd(TensorRef a, TensorRef z, double alpha, double limit) {
  parallel_ranges(a->numel(), kTaskElements / 4, [&](int64_t begin, int64_t end) {
    run_kernel<Forward>(a->f32(), static_cast<const float*>(z->f32()), static_cast<float>(alpha),
                        static_cast<float>(limit), begin, end);
  });
}

void swiglu_bwd(TensorRef dz, TensorRef row_dot, TensorRef da, TensorRef z, TensorRef row_weight, double alpha,
                double limit) {
  const int64_t P = da->shape[0], F = da->shape[1];
  parallel_ranges(P, rows_per_task(F * 4), [&](int64_t begin, int64_t end) {
    run_kernel<Backward>(dz->f32(), row_dot ? row_dot->f32() : nullptr, static_cast<const float*>(da->f32()),
                         static_cast<const float*>(z->f32()),
                         static_cast<const float*>(row_weight ? row_weight->f32() : nullptr), static_cast<float>(alpha),
                         static_cast<float>(limit), F, begin, end);
  });
}

namespace reference {

void swiglu_fwd(TensorRef a, TensorRef z, double alpha, double limit) {
  for (int64_t i = 0; i < a->numel(); ++i) {
    const double g = z->f32()[2 * i], u = z->f32()[2 * i + 1];
    const double gate = g > limit ? limit : g, lin = u > limit ? limit : u < -limit ? -limit : u;
    a->f32()[i] = static_cast<float>(gate / (1.0 + std::exp(-alpha * gate)) * (lin + 1.0));
  }
}

void swiglu_bwd(TensorRef dz, TensorRef row_dot, TensorRef da, TensorRef z, TensorRef row_weight, double alpha,
                double limit) {
  const int64_t P = da->shape[0], F = da->shape[1];
  for (int64_t p = 0; p < P; ++p) {
    const double r = row_weight ? row_weight->f32()[p] : 1.0;
    double dot = 0;
    for (int64_t k = 0; k < F; ++k) {
      const int64_t i = p * F + k;
      const double g = z->f32()[2 * i], u = z->f32()[2 * i + 1], d = da->f32()[i];
      const double gate = g > limit ? limit : g, lin = u > limit ? limit : u < -limit ? -limit : u;
      const double s = 1.0 / (1.0 + std::exp(-alpha * gate));
      dot += d * gate * s * (lin + 1.0);
      dz->f32()[2 * i] =
          g > limit ? 0.0f : static_cast<float>(r * d * (lin + 1.0) * s * (1.0 + alpha * gate * (1.0 - s)));
      dz->f32()[2 * i + 1] = u > limit || u < -limit ? 0.0f : static_cast<float>(r * d * gate * s);
    }
    if (row_dot) row_dot->f32()[p] = static_cast<float>(dot);
  }
}

}  // namespace reference
}  // namespace temper::cpu
