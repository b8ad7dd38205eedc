// The optimizer step (AdamW, arXiv:1711.05101) and the sum of squares behind gradient clipping, over flat buffers.
// adamw moves 28 bytes an element (177 M of them, rank 16 over the experts of gpt-oss-20b: 5.0 GB), four 16-byte loads
// to a thread before the first use. sm_90a: 37 registers, 6 blocks to a multiprocessor, 98 KB of loads under way. Runs
// on an H200, not timed. sum_squares reads 4 bytes an element and adds in double: one fma and one conversion each,
// which a consumer GPU's double rate (1/64) still keeps up with.
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"
#include "temper/adamw.h"

namespace temper::gpu {
namespace {

template <int W>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(float* p, float* m, float* v, const float* g, AdamwStep s, int64_t n) {
  wait_for_previous();
  flat<W>(n, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    Floats<N> weight = load<N>(p + i), first = load<N>(m + i), second = load<N>(v + i);
    const Floats<N> gradient = load<N>(g + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float d = gradient.v[k] * s.grad_scale;
      first.v[k] = s.beta1 * first.v[k] + s.rest1 * d;
      second.v[k] = s.beta2 * second.v[k] + s.rest2 * d * d;
      weight.v[k] = weight.v[k] * s.decay - s.rate * first.v[k] / (sqrtf(second.v[k]) * s.root2 + s.eps);
    }
    store<N>(p + i, weight);
    store<N>(m + i, first);
    store<N>(v + i, second);
  });
}

constexpr int kSquareLoads = 16;
static_assert(workspace::kSquareTile == kThreads * 4 * kSquareLoads);
constexpr int64_t kSquareTile = workspace::kSquareTile;  // elements of a block: the cuts depend on n alone

// One partial sum to a block; as f32 at `out` when the block is the only one.
template <int W>
__global__ void __launch_bounds__(kThreads) squares_kernel(double* partial, float* out, const float* x, int64_t n) {
  wait_for_previous();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSquareTile,
                end = begin + kSquareTile < n ? begin + kSquareTile : n;
  double sum = 0;
#pragma unroll 4
  for (int r = 0; r < kSquareTile / (kThreads * W); ++r) {
    const int64_t i = begin + (static_cast<int64_t>(r) * kThreads + threadIdx.x) * W;
    if (i + W <= end) {
      const Floats<W> v = load<W>(x + i);
#pragma unroll
      for (int k = 0; k < W; ++k) sum = fma(static_cast<double>(v.v[k]), static_cast<double>(v.v[k]), sum);
    } else {
      for (int64_t j = i; j < end; ++j) sum = fma(static_cast<double>(x[j]), static_cast<double>(x[j]), sum);
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) out[0] = static_cast<float>(sum);
  else partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) add_squares_kernel(float* out, const double* partial, int64_t count) {
  wait_for_previous();
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partial[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) out[0] = static_cast<float>(sum);
}

}  // namespace

void adamw(TensorRef p, TensorRef m, TensorRef v, TensorRef g, double lr, double beta1, double beta2, double eps,
           double weight_decay, int64_t step, double grad_scale) {
  const AdamwStep s = adamw_step("adamw", lr, beta1, beta2, eps, weight_decay, step, grad_scale);
  const int64_t n = p->numel();
  with_width(aligned(16, {p->data, m->data, v->data, g->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(adamw_kernel<W>, dim3(flat_blocks(n, W)), dim3(kThreads), 0, p->f32(), m->f32(), v->f32(), g->f32(), s, n);
  });
}

void sum_squares(TensorRef out, TensorRef x) {
  const int64_t n = x->numel(), blocks = n > 0 ? blocks_for(n, kSquareTile) : 1;
  Workspace<double> partial(blocks > 1 ? static_cast<size_t>(blocks) : 0);
  with_width(aligned(16, {x->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(squares_kernel<W>, dim3(blocks), dim3(kThreads), 0, partial.data(), out->f32(), x->f32(), n);
  });
  if (blocks > 1) launch(add_squares_kernel, dim3(1), dim3(kThreads), 0, out->f32(), partial.data(), blocks);
}

}  // namespace temper::gpu
