// The router's side of the mixture of experts: choosing experts, planning the rows by expert, and putting expert
// outputs together again.
//   topk_fwd        a warp per token, the row in registers (up to 128 experts) or read again for each choice; 2 MB at T
//   = 4096, E = 128 moe_plan        counting_sort.cuh: two launches, one for up to 2048 pairs
//   moe_combine     reads K rows, writes one: 236 MB at T = 4096, K = 4, D = 2880, all of it streamed, 16 bytes to a
//   thread
//                   40 registers on sm_90a: 6 blocks to a multiprocessor, K loads under way in each thread
//   moe_weight_bwd  a warp per (token, slot): dout from L1 for the K slots of a token, one bias row from L2
#include "gpu/choice.cuh"
#include "gpu/counting_sort.cuh"
#include "gpu/ops.h"

namespace temper::gpu {
namespace {

constexpr int kTokenWarps = 4;  // tokens to a block where a warp has one

template <int PerLane>
__global__ void __launch_bounds__(kTokenWarps* kWarp)
    topk_fwd_kernel(float* weights, int32_t* ids, const float* logits, int64_t T, int64_t E, int64_t K) {
  wait_for_previous();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  if (t >= T) return;
  choose_experts<PerLane>(weights + t * K, ids + t * K, E, K, [&](int64_t e) { return logits[t * E + e]; });
}

__global__ void __launch_bounds__(kTokenWarps* kWarp)
    topk_bwd_kernel(float* dlogits, const float* dweights, const float* weights, const int32_t* ids, int64_t T,
                    int64_t E, int64_t K, Fault* fault) {
  wait_for_previous();
  const int lane = threadIdx.x % kWarp;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  if (t >= T) return;
  const float *w = weights + t * K, *g = dweights + t * K;
  const int32_t* id = ids + t * K;
  for (int64_t k = lane; k < K; k += kWarp) checked_index(fault, "topk_bwd", "ids", t * K + k, id[k], E);
  float mean = 0;
  for (int64_t k = 0; k < K; ++k) mean += w[k] * g[k];
  for (int64_t e = lane; e < E; e += kWarp) {
    float d = 0;
    for (int64_t k = 0; k < K; ++k) d = id[k] == e ? w[k] * (g[k] - mean) : d;
    dlogits[t * E + e] = d;
  }
}

struct PlanKey {
  const int32_t* ids;
  int64_t experts;
  Fault* fault;
  TEMPER_DEVICE int operator()(int64_t i) const {
    return static_cast<int>(checked_index(fault, "moe_plan", "ids", i, ids[i], experts));
  }
};
struct PlanPlace {
  int32_t *row_token, *slot_row;
  float* row_weight;
  const float* weights;
  int K;
  TEMPER_DEVICE void operator()(int64_t i, int row) const {
    row_token[row] = static_cast<int32_t>(i) / K;
    row_weight[row] = weights[i];
    slot_row[i] = row;
  }
};
// The plan from the whole order, for more experts than one pass sorts by.
__global__ void __launch_bounds__(kThreads)
    plan_from_order_kernel(PlanPlace place, PlanKey key_of, const int32_t* order, int32_t* offsets, int64_t P) {
  wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row > P) return;
  const int64_t expert = row < P ? key_of(order[row]) : key_of.experts,
                previous = row > 0 ? key_of(order[row - 1]) : -1;
  for (int64_t e = previous + 1; e <= expert; ++e) offsets[e] = static_cast<int32_t>(row);
  if (row < P) place(order[row], static_cast<int>(row));
}

struct Combine {
  float* out;
  const float *y, *weights;
  const int32_t* slot_row;
  int64_t T, K, D, P;
  bool accumulate;
  Fault* fault;
};
template <int W>
__global__ void __launch_bounds__(kThreads, 6) moe_combine_kernel(Combine c) {
  wait_for_previous();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (t >= c.T) return;
  for (int64_t d = static_cast<int64_t>(threadIdx.x) * W; d < c.D; d += static_cast<int64_t>(blockDim.x) * W) {
    Floats<W> sum = {};
    if (c.accumulate) sum = load<W>(c.out + t * c.D + d);
#pragma unroll 4
    for (int64_t k = 0; k < c.K; ++k) {
      const int64_t i = t * c.K + k, row = c.slot_row[i];
      const float w = c.weights ? c.weights[i] : 1.0f;
      if (row < 0 || row >= c.P) {
        report_fault(c.fault, FaultCode::bad_index, "moe_combine", "slot_row", i, row, c.P);
        continue;
      }
      const Floats<W> x = load<W>(c.y + row * c.D + d);
#pragma unroll
      for (int j = 0; j < W; ++j) sum.v[j] = k == 0 && !c.accumulate ? w * x.v[j] : sum.v[j] + w * x.v[j];
    }
    store<W>(c.out + t * c.D + d, sum);
  }
}

template <int W, class Wf>
__global__ void __launch_bounds__(kTokenWarps* kWarp)
    moe_weight_bwd_kernel(float* dweights, const float* row_dot, const float* dout, const Wf* bias, const int32_t* ids,
                          const int32_t* slot_row, int64_t P, int64_t K, int64_t D, int64_t E, int64_t rows,
                          Fault* fault) {
  wait_for_previous();
  const int lane = threadIdx.x % kWarp;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  if (i >= P) return;
  float sum = 0;
  if (bias) {
    const int64_t id = ids[i];
    if (id < 0 || id >= E) return report_fault(fault, FaultCode::bad_index, "moe_weight_bwd", "ids", i, id, E);
    const float* g = dout + i / K * D;
    const Wf* b = bias + id * D;
#pragma unroll 4
    for (int64_t d = static_cast<int64_t>(lane) * W; d < D; d += kWarp * W) {
      const Floats<W> x = load<W>(g + d), y = load<W>(b + d);
#pragma unroll
      for (int j = 0; j < W; ++j) sum = fused(x.v[j], y.v[j], sum);
    }
    sum = warp_sum(sum);
  }
  const int64_t row = slot_row[i];
  if (row < 0 || row >= rows)
    return report_fault(fault, FaultCode::bad_index, "moe_weight_bwd", "slot_row", i, row, rows);
  if (lane == 0) dweights[i] = row_dot[row] + sum;
}

}  // namespace

void topk_fwd(TensorRef weights, TensorRef ids, TensorRef logits) {
  const int64_t T = logits->shape[0], E = logits->shape[1], K = weights->shape[1];
  require(K >= 1 && K <= E, "bad_argument", "topk_fwd: ", K, " experts per token of ", E, " experts, wanted 1 to ", E);
  const auto run = [&](auto* kernel) {
    launch(kernel, dim3(blocks_for(T, kTokenWarps)), dim3(kTokenWarps * kWarp), 0, weights->f32(), ids->i32(),
           logits->f32(), T, E, K);
  };
  if (E <= kWarp) run(topk_fwd_kernel<1>);
  else if (E <= 2 * kWarp) run(topk_fwd_kernel<2>);
  else if (E <= 4 * kWarp) run(topk_fwd_kernel<4>);
  else run(topk_fwd_kernel<0>);
}

void topk_bwd(TensorRef dlogits, TensorRef dweights, TensorRef weights, TensorRef ids) {
  const int64_t T = dlogits->shape[0], E = dlogits->shape[1], K = weights->shape[1];
  launch(topk_bwd_kernel, dim3(blocks_for(T, kTokenWarps)), dim3(kTokenWarps * kWarp), 0, dlogits->f32(),
         dweights->f32(), weights->f32(), ids->i32(), T, E, K, fault());
}

void moe_plan(TensorRef offsets, TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef ids,
              TensorRef weights) {
  const int64_t E = offsets->numel() - 1, P = ids->numel(), K = ids->shape[1];
  const PlanKey key{ids->i32(), E, fault()};
  const PlanPlace place{row_token->i32(), slot_row->i32(), row_weight->f32(), weights->f32(), static_cast<int>(K)};
  if (E <= 1 << kDigitBits) {
    Workspace<int32_t> counts(static_cast<size_t>(sort_tiles(P) > 1 ? sort_tiles(P) * E : 0));
    return counting_sort(key, place, counts.data(), offsets->i32(), P, static_cast<int>(E));
  }
  Workspace<int32_t> order(static_cast<size_t>(P)), spare(static_cast<size_t>(P)),
      counts(static_cast<size_t>(sort_tiles(P) << kDigitBits));
  sort_by_id("moe_plan", ids->i32(), P, E, order.data(), spare.data(), counts.data());
  launch(plan_from_order_kernel, dim3(blocks_for(P + 1, kThreads)), dim3(kThreads), 0, place, key, order.data(),
         offsets->i32(), P);
}

void moe_combine(TensorRef out, TensorRef y, TensorRef weights, TensorRef slot_row, int64_t accumulate) {
  const int64_t T = out->shape[0], D = out->shape[1], K = slot_row->shape[1];
  const Combine c{out->f32(),      y->f32(), weights ? weights->f32() : nullptr, slot_row->i32(), T, K, D, y->shape[0],
                  accumulate != 0, fault()};
  with_width(D % 4 == 0 && aligned(16, {out->data, y->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    const RowShape s = row_shape(D / W);
    launch(moe_combine_kernel<W>, dim3(blocks_for(T, s.rows)), dim3(s.lanes, s.rows), 0, c);
  });
}

void moe_weight_bwd(TensorRef dweights, TensorRef row_dot, TensorRef dout, TensorRef bias, TensorRef ids,
                    TensorRef slot_row) {
  const int64_t P = ids->numel(), K = ids->shape[1], D = dout->shape[1];
  const auto run = [&](auto* b) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(b)>>;
    with_width(D % 4 == 0 && aligned(16, {dout->data, b}), [&](auto width) {
      constexpr int W = decltype(width)::value;
      launch(moe_weight_bwd_kernel<W, Wf>, dim3(blocks_for(P, kTokenWarps)), dim3(kTokenWarps * kWarp), 0,
             dweights->f32(), row_dot->f32(), dout->f32(), b, ids->i32(), slot_row->i32(), P, K, D,
             bias ? bias->shape[0] : 0, row_dot->numel(), fault());
    });
  };
  if (bias) with_wf(*bias, run);
  else run(static_cast<const float*>(nullptr));
}

}  // namespace temper::gpu
