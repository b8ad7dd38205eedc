// Rotary positions: the cos/sin table, and the rotation of halves in place. A block per token: the lanes of x hold a
// part of the half's cos and sin and turn head after head with it. Bytes at T = 4096, H = 64, Dh = 64: 134 MB, each
// element read and written once.
#include "gpu/elements.cuh"
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

// The angle is the f32 product; its cos and sin are taken in double, so that positions up to 131072 keep every bit.
__global__ void __launch_bounds__(kThreads)
    rope_table_kernel(float* cosines, float* sines, const int32_t* positions, const float* inv_freq, double m,
                      int64_t n, int64_t half) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const double angle = static_cast<float>(positions[i / half]) * inv_freq[i % half];
  double s, c;
  sincos(angle, &s, &c);
  cosines[i] = static_cast<float>(m * c);
  sines[i] = static_cast<float>(m * s);
}

template <int W>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(float* x, const float* cosines, const float* sines, float sign, int64_t heads, int64_t half) {
  wait_for_previous();
  const int64_t t = blockIdx.x;
  for (int64_t j = static_cast<int64_t>(threadIdx.x) * W; j < half; j += static_cast<int64_t>(blockDim.x) * W) {
    const Floats<W> c = load<W>(cosines + t * half + j);
    Floats<W> s = load<W>(sines + t * half + j);
#pragma unroll
    for (int k = 0; k < W; ++k) s.v[k] *= sign;
    for (int64_t h = threadIdx.y; h < heads; h += blockDim.y) {
      float* a = x + (t * heads + h) * 2 * half + j;
      const Floats<W> u = load<W>(a), v = load<W>(a + half);
      Floats<W> first, second;
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const Turned turned = turn(u.v[k], v.v[k], c.v[k], s.v[k]);
        first.v[k] = turned.first, second.v[k] = turned.second;
      }
      store<W>(a, first);
      store<W>(a + half, second);
    }
  }
}

}  // namespace

void rope_table(TensorRef cos, TensorRef sin, TensorRef positions, TensorRef inv_freq, double m) {
  const int64_t half = inv_freq->numel(), n = positions->numel() * half;
  launch(rope_table_kernel, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0, cos->f32(), sin->f32(), positions->i32(),
         inv_freq->f32(), m, n, half);
}

void rope(TensorRef x, TensorRef cos, TensorRef sin, int64_t heads, int64_t direction) {
  const int64_t T = cos->shape[0], half = cos->shape[1];
  with_width(half % 4 == 0 && aligned(16, {x->data, cos->data, sin->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    const RowShape s = row_shape(half / W);
    const unsigned rows = heads < s.rows ? static_cast<unsigned>(heads) : s.rows;
    launch(rope_kernel<W>, dim3(T), dim3(s.lanes, rows), 0, x->f32(), cos->f32(), sin->f32(),
           direction < 0 ? -1.0f : 1.0f, heads, half);
  });
}

}  // namespace temper::gpu
