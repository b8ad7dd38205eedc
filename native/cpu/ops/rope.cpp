// Rotary positions: the cos/sin table, and the rotation of halves in place.
#include <cmath>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct Rotate {
  template <int>
  static TEMPER_INLINE void run(float* x, const float* cos, const float* sin, float sign, int64_t heads, int64_t half,
                                int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* c = cos + t * half;
      const float* s = sin + t * half;
      for (int64_t h = 0; h < heads; ++h) {
        float* a = x + (t * heads + h) * 2 * half;
        float* b = a + half;
#pragma omp simd
        for (int64_t j = 0; j < half; ++j) {
          const float u = a[j], v = b[j], turn = sign * s[j];
          a[j] = u * c[j] - v * turn;
          b[j] = v * c[j] + u * turn;
        }
      }
    }
  }
};

}  // namespace

Cost cost::rope_table(const args::rope_table& a) { return streamed(a); }
Cost cost::rope(const args::rope& a) { return streamed(a); }

// The angle is the f32 product; its cos and sin are taken in double, so that positions up to 131072 keep every bit.
void rope_table(TensorRef cos, TensorRef sin, TensorRef positions, TensorRef inv_freq, double m) {
  const int64_t T = positions->numel(), half = inv_freq->numel();
  parallel_ranges(T, rows_per_task(half * 32), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t j = 0; j < half; ++j) {
        const double angle = static_cast<float>(positions->i32()[t]) * inv_freq->f32()[j];
        cos->f32()[t * half + j] = static_cast<float>(m * std::cos(angle));
        sin->f32()[t * half + j] = static_cast<float>(m * std::sin(angle));
      }
  });
}

void rope(TensorRef x, TensorRef cos, TensorRef sin, int64_t heads, int64_t direction) {
  const int64_t T = cos->shape[0], half = cos->shape[1];
  parallel_ranges(T, rows_per_task(heads * half * 2), [&](int64_t begin, int64_t end) {
    run_kernel<Rotate>(x->f32(), static_cast<const float*>(cos->f32()), static_cast<const float*>(sin->f32()),
                       direction < 0 ? -1.0f : 1.0f, heads, half, begin, end);
  });
}

namespace reference {

void rope_table(TensorRef cos, TensorRef sin, TensorRef positions, TensorRef inv_freq, double m) {
  const int64_t half = inv_freq->numel();
  for (int64_t t = 0; t < positions->numel(); ++t)
    for (int64_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(positions->i32()[t]) * inv_freq->f32()[j];
      cos->f32()[t * half + j] = static_cast<float>(m * std::cos(static_cast<double>(angle)));
      sin->f32()[t * half + j] = static_cast<float>(m * std::sin(static_cast<double>(angle)));
    }
}

void rope(TensorRef x, TensorRef cos, TensorRef sin, int64_t heads, int64_t direction) {
  const int64_t T = cos->shape[0], half = cos->shape[1];
  for (int64_t t = 0; t < T; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t j = 0; j < half; ++j) {
        float* a = x->f32() + (t * heads + h) * 2 * half + j;
        const double u = a[0], v = a[half], c = cos->f32()[t * half + j],
                     s = static_cast<double>(direction) * sin->f32()[t * half + j];
        a[0] = static_cast<float>(u * c - v * s);
        a[half] = static_cast<float>(v * c + u * s);
      }
}

}  // namespace reference
}  // namespace temper::cpu
