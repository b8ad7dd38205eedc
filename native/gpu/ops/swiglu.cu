// The clamped SwiGLU of gpt-oss. Gate and linear units interleave: z[2k] is the gate, z[2k+1] the linear part.
// Bytes for each output element: forward 8 read, 4 written; backward 12 read, 8 written; in bf16 half as many are
// written. Against them stand about 45
// and 70 PTX instructions; an H200 has time for 70 and 120 at full bandwidth. sm_90a: 26 and 32 registers, no shared
// memory to speak of, 8 blocks to a multiprocessor. H200: 4.0 and 4.2 TB/s.
#include "gpu/elements.cuh"
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

// A thread has two outputs, so that the 16 bytes of z that belong to them lie beside its neighbours' and no store
// leaves half a 32-byte sector.
constexpr int kOutputs = 2;

template <int W, class Out>
__global__ void __launch_bounds__(kThreads)
    swiglu_fwd_kernel(Out* a, const float* z, float alpha, float limit, int64_t n) {
  wait_for_previous();
  flat<W>(n, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    const Floats<2 * N> p = load<2 * N>(z + 2 * i);
    Floats<N> out;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      out.v[k] = swiglu(p.v[2 * k], p.v[2 * k + 1], alpha, limit);
    }
    store<N>(a + i, out);
  });
}

template <class Out>
struct SwigluBackward {
  Out* dz;
  float* row_dot;
  const float *da, *z, *row_weight;
  float alpha, limit;
  int64_t F;
};
// A block per row: row_dot is a sum over the row.
template <int W, class Out>
__global__ void __launch_bounds__(kThreads, 4) swiglu_bwd_kernel(SwigluBackward<Out> c) {
  wait_for_previous();
  const int64_t p = blockIdx.x;
  const float r = c.row_weight ? c.row_weight[p] : 1.0f;
  float dot = 0;
  for (int64_t k0 = static_cast<int64_t>(threadIdx.x) * W; k0 < c.F; k0 += kThreads * W) {
    const int64_t i = p * c.F + k0;
    const Floats<W> d = load<W>(c.da + i);
    const Floats<2 * W> in = load<2 * W>(c.z + 2 * i);
    Floats<2 * W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float g = in.v[2 * k], u = in.v[2 * k + 1], rd = r * d.v[k];
      const Unit x = unit_of(g, u, c.alpha, c.limit);
      const float glu = x.gate * x.sigma;
      dot += d.v[k] * (glu * (x.lin + 1.0f));
      const float to_gate = rd * (x.lin + 1.0f) * x.sigma * (1.0f + c.alpha * x.gate * (1.0f - x.sigma));
      out.v[2 * k] = g > c.limit ? 0.0f : to_gate;
      out.v[2 * k + 1] = u > c.limit || u < -c.limit ? 0.0f : rd * glu;
    }
    store<2 * W>(c.dz + 2 * i, out);
  }
  if (!c.row_dot) return;
  dot = block_sum<kThreads>(dot);
  if (threadIdx.x == 0) c.row_dot[p] = dot;
}

}  // namespace

void swiglu_fwd(TensorRef a, TensorRef z, double alpha, double limit) {
  const int64_t n = a->numel();
  with_activation(*a, [&](auto* out) {
    using Out = std::remove_pointer_t<decltype(out)>;
    const auto run = [&](auto* kernel, int width) {
      launch(kernel, dim3(flat_blocks(n, width)), dim3(kThreads), 0, out, z->f32(), static_cast<float>(alpha),
             static_cast<float>(limit), n);
    };
    if (aligned(16, {out, z->data})) run(swiglu_fwd_kernel<kOutputs, Out>, kOutputs);
    else run(swiglu_fwd_kernel<1, Out>, 1);
  });
}

void swiglu_bwd(TensorRef dz, TensorRef row_dot, TensorRef da, TensorRef z, TensorRef row_weight, double alpha,
                double limit) {
  const int64_t P = da->shape[0], F = da->shape[1];
  with_activation(*dz, [&](auto* out) {
    using Out = std::remove_pointer_t<decltype(out)>;
    const SwigluBackward<Out> c{out,
                                row_dot ? row_dot->f32() : nullptr,
                                da->f32(),
                                z->f32(),
                                row_weight ? row_weight->f32() : nullptr,
                                static_cast<float>(alpha),
                                static_cast<float>(limit),
                                F};
    const bool wide = F % kOutputs == 0 && aligned(16, {out, da->data, z->data});
    launch(wide ? swiglu_bwd_kernel<kOutputs, Out> : swiglu_bwd_kernel<1, Out>, dim3(P), dim3(kThreads), 0, c);
  });
}

}  // namespace temper::gpu
