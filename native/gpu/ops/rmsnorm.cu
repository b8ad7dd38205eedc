// rmsnorm with an optional residual added before it (arXiv:1910.07467), a block per row. Rows of up to 4096 elements (N
// ≤ 4 float4 to a thread; gpt-oss: 3) stay in registers between the sum and the scaling, so each byte is read and
// written once; others are read twice. Bytes at T = 4096, D = 2880, residual and sum: 189 MB; backward with dres: 189
// MB, and with dw 2 × 6 MB of partial sums. sm_90a, three float4 to a thread: 42 registers forward (5 blocks to a
// multiprocessor, 61 KB of loads under way), 72 backward (3 blocks, 111 KB). H200: 3.5 TB/s forward. dw: a block takes
// consecutive rows and keeps its own sum; the blocks' sums are added in their order. How many there are depends on T
// alone.
#include "gpu/elements.cuh"
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {
namespace {

constexpr int kVector = 4 * kThreads;  // elements that a block covers with one float4 to a thread
constexpr int kSumLanes = 32, kSumRows = kThreads / kSumLanes;

// N: float4 of a row to a thread. sum may be x: a thread reads its own elements before it writes them.
template <int N, class Wf, class Out>
__global__ void __launch_bounds__(kThreads)
    rmsnorm_fwd_kernel(Out* y, float* rstd, float* sum, const float* x, const float* residual, const Wf* w, float eps,
                       int64_t D) {
  wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * D;
  Floats<4> s[N] = {};
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t d = n * kVector + threadIdx.x * 4;
    if (d < D) s[n] = load<4>(x + row + d);
  }
  if (residual) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int64_t d = n * kVector + threadIdx.x * 4;
      if (d >= D) continue;
      const Floats<4> r = load<4>(residual + row + d);
#pragma unroll
      for (int j = 0; j < 4; ++j) s[n].v[j] += r.v[j];
    }
  }
  float squares = 0;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t d = n * kVector + threadIdx.x * 4;
    if (sum && (residual || sum != x) && d < D) store<4>(sum + row + d, s[n]);
#pragma unroll
    for (int j = 0; j < 4; ++j) squares = fused(s[n].v[j], s[n].v[j], squares);
  }
  Floats<4> g[N] = {};  // under way during the sum
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t d = n * kVector + threadIdx.x * 4;
    if (d < D) g[n] = load<4>(w + d);
  }
  const float inverse = inverse_root_mean(block_sum<kThreads>(squares), D, eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = inverse;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t d = n * kVector + threadIdx.x * 4;
    if (d >= D) continue;
    Floats<4> out;
#pragma unroll
    for (int j = 0; j < 4; ++j) out.v[j] = s[n].v[j] * inverse * g[n].v[j];
    store<4>(y + row + d, out);
  }
}

// Any row: s goes through memory where there is a sum, else it is added up again.
template <class Wf, class Out>
__global__ void __launch_bounds__(kThreads)
    rmsnorm_fwd_any_kernel(Out* y, float* rstd, float* sum, const float* x, const float* residual, const Wf* w,
                           float eps, int64_t D) {
  wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * D;
  const auto added = [&](int64_t d) { return residual ? x[row + d] + residual[row + d] : x[row + d]; };
  float squares = 0;
  for (int64_t d = threadIdx.x; d < D; d += kThreads) {
    const float v = added(d);
    if (sum) sum[row + d] = v;
    squares = fused(v, v, squares);
  }
  const float inverse = inverse_root_mean(block_sum<kThreads>(squares), D, eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = inverse;
  for (int64_t d = threadIdx.x; d < D; d += kThreads)
    store<1>(y + row + d, {{(sum ? sum[row + d] : added(d)) * inverse * load_wf(w + d)}});
}

struct NormBackward {
  float *dx, *partial;  // partial: [blocks, D] sums of dw, or null
  const float *dy, *dres, *x, *rstd;
  int64_t T, D, rows;  // rows of one block
};

// dx may be dres or dy: a thread reads its own elements before it writes them.
template <int N, class Wf>
__global__ void __launch_bounds__(kThreads, N <= 3 ? 3 : 2) rmsnorm_bwd_kernel(NormBackward c, const Wf* w) {
  wait_for_previous();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * c.rows, end = first + c.rows < c.T ? first + c.rows : c.T;
  Floats<4> dw[N] = {};
  for (int64_t t = first; t < end; ++t) {
    const int64_t row = t * c.D;
    const float r = c.rstd[t];
    Floats<4> s[N] = {}, g[N] = {}, add[N] = {};
    float dot = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int64_t d = n * kVector + threadIdx.x * 4;
      if (d >= c.D) continue;
      s[n] = load<4>(c.x + row + d);
      g[n] = load<4>(c.dy + row + d);
      if (c.dres) add[n] = load<4>(c.dres + row + d);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int64_t d = n * kVector + threadIdx.x * 4;
      if (d >= c.D) continue;
      const Floats<4> weight = load<4>(w + d);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        dw[n].v[j] += g[n].v[j] * s[n].v[j] * r;
        g[n].v[j] *= weight.v[j];
        dot = fused(g[n].v[j], s[n].v[j], dot);
      }
    }
    const float shift = block_sum<kThreads>(dot) / static_cast<float>(c.D) * r * r;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int64_t d = n * kVector + threadIdx.x * 4;
      if (d >= c.D) continue;
      Floats<4> out;
#pragma unroll
      for (int j = 0; j < 4; ++j) out.v[j] = add[n].v[j] + r * (g[n].v[j] - s[n].v[j] * shift);
      store<4>(c.dx + row + d, out);
    }
  }
  if (!c.partial) return;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t d = n * kVector + threadIdx.x * 4;
    if (d < c.D) store<4>(c.partial + blockIdx.x * c.D + d, dw[n]);
  }
}

template <class Wf>
__global__ void __launch_bounds__(kThreads) rmsnorm_bwd_any_kernel(NormBackward c, const Wf* w) {
  wait_for_previous();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * c.rows, end = first + c.rows < c.T ? first + c.rows : c.T;
  float* dw = c.partial ? c.partial + blockIdx.x * c.D : nullptr;
  for (int64_t t = first; t < end; ++t) {
    const int64_t row = t * c.D;
    const float r = c.rstd[t];
    float dot = 0;
    for (int64_t d = threadIdx.x; d < c.D; d += kThreads)
      dot = fused(load_wf(w + d) * c.dy[row + d], c.x[row + d], dot);
    const float shift = block_sum<kThreads>(dot) / static_cast<float>(c.D) * r * r;
    for (int64_t d = threadIdx.x; d < c.D; d += kThreads) {
      const float g = c.dy[row + d], s = c.x[row + d], add = c.dres ? c.dres[row + d] : 0.0f;
      if (dw) dw[d] = (t == first ? 0.0f : dw[d]) + g * s * r;  // before dx, which may overwrite dy
      c.dx[row + d] = add + r * (load_wf(w + d) * g - s * shift);
    }
  }
}

// dw[d] += Σ_b partial[b][d]: kSumRows runs over b side by side, added in their order.
__global__ void __launch_bounds__(kThreads)
    add_partials_kernel(float* dw, const float* partial, int64_t blocks, int64_t D) {
  wait_for_previous();
  __shared__ float parts[kSumRows][kSumLanes];
  const int64_t d = static_cast<int64_t>(blockIdx.x) * kSumLanes + threadIdx.x,
                each = (blocks + kSumRows - 1) / kSumRows;
  const int64_t begin = threadIdx.y * each, end = begin + each < blocks ? begin + each : blocks;
  float sum = 0;
  if (d < D) {
#pragma unroll 8
    for (int64_t b = begin; b < end; ++b) sum += partial[b * D + d];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || d >= D) return;
  for (int r = 1; r < kSumRows; ++r) sum += parts[r][threadIdx.x];
  dw[d] += sum;
}

// Calls f with the float4 to a thread as a constant; 0: the kernels for any row.
template <class F>
void with_vectors(bool wide, int64_t D, F&& f) {
  const int64_t vectors = wide ? (D + kVector - 1) / kVector : 0;
  switch (vectors) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    default: return f(std::integral_constant<int, 0>{});
  }
}

}  // namespace

void rmsnorm_fwd(TensorRef y, TensorRef rstd, TensorRef sum, TensorRef x, TensorRef residual, TensorRef w, double eps) {
  const int64_t T = x->shape[0], D = x->shape[1];
  float *sp = sum ? sum->f32() : nullptr, *rp = residual ? residual->f32() : nullptr;
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    with_activation(*y, [&](auto* out) {
      using Out = std::remove_pointer_t<decltype(out)>;
      with_vectors(D % 4 == 0 && aligned(16, {out, sp, x->data, rp, wp}), D, [&](auto vectors) {
        constexpr int N = decltype(vectors)::value;
        const auto run = [&](auto* kernel) {
          launch(kernel, dim3(T), dim3(kThreads), 0, out, rstd->f32(), sp, x->f32(), rp, wp, static_cast<float>(eps),
                 D);
        };
        if constexpr (N > 0) run(rmsnorm_fwd_kernel<N, Wf, Out>);
        else run(rmsnorm_fwd_any_kernel<Wf, Out>);
      });
    });
  });
}

void rmsnorm_bwd(TensorRef dx, TensorRef dw, TensorRef dy, TensorRef dres, TensorRef x, TensorRef w, TensorRef rstd) {
  const int64_t T = x->shape[0], D = x->shape[1];
  const int64_t rows = workspace::norm_rows(dw, T), blocks = T > 0 ? blocks_for(T, rows) : 0;
  Workspace<float> partial(dw ? static_cast<size_t>(blocks * D) : 0);
  float* rp = dres ? dres->f32() : nullptr;
  const NormBackward c{dx->f32(), partial.data(), dy->f32(), rp, x->f32(), rstd->f32(), T, D, rows};
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    with_vectors(D % 4 == 0 && aligned(16, {dx->data, dy->data, rp, x->data, wp}), D, [&](auto vectors) {
      constexpr int N = decltype(vectors)::value;
      if constexpr (N > 0) launch(rmsnorm_bwd_kernel<N, Wf>, dim3(blocks), dim3(kThreads), 0, c, wp);
      else launch(rmsnorm_bwd_any_kernel<Wf>, dim3(blocks), dim3(kThreads), 0, c, wp);
    });
  });
  if (dw && blocks > 0)
    launch(add_partials_kernel, dim3(blocks_for(D, kSumLanes)), dim3(kSumLanes, kSumRows), 0, dw->f32(), partial.data(),
           blocks, D);
}

}  // namespace temper::gpu
