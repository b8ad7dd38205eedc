// Low-rank pairs of several adapters in one pass, for decode: few rows, each with an adapter of its own. A warp makes
// one element of h, a thread one of y, so a row's bits depend on nothing beside it. What the table says is checked
// where it is used. 20b at rank 16, one row: gate_up reads 184 KB of A and 369 KB of B for each of its experts.
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

constexpr int64_t kUnit = 16;  // elements of a table's offsets

struct Pairs {
  float *y, *h;
  const float* x;
  const int32_t *x_rows, *offsets;  // null: row p of x; no experts
  const float* scales;
  const int32_t *table, *rows;
  int64_t P, N, C, R, X, E, M, S;
  bool rounded;
  Fault* fault;
  FaultName op;
};
// The pair of one row: A [rank,C], B [N,rank] of its expert, elements of the pool. rank 0: none.
struct Pair {
  int64_t A, B;
  int64_t rank;
  float scale;
};

// The last e with offsets[e] ≤ p.
TEMPER_DEVICE int64_t expert_of(const Pairs& q, int64_t p) {
  int64_t low = 0, high = q.E;
  while (high - low > 1) {
    const int64_t mid = (low + high) / 2;
    if (q.offsets[mid] <= p) low = mid;
    else high = mid;
  }
  return low;
}
TEMPER_DEVICE Pair pair_of(const Pairs& q, int64_t p) {
  const int64_t a = q.rows[p];
  if (a == -1) return {0, 0, 0, 0};
  if (a < 0 || a >= q.S) {
    report_fault(q.fault, FaultCode::bad_index, q.op, "rows", p, a, q.S);
    return {0, 0, 0, 0};
  }
  const int32_t* at = q.table + 3 * a;
  const int64_t rank = at[2], of_a = q.E * rank * q.C, of_b = q.E * q.N * rank;
  if (rank < 0 || rank > q.R) report_fault(q.fault, FaultCode::bad_index, q.op, "table", 3 * a + 2, rank, q.R + 1);
  else if (at[0] < 0 || at[0] * kUnit + of_a > q.M)
    report_fault(q.fault, FaultCode::bad_index, q.op, "table", 3 * a, at[0], (q.M - of_a) / kUnit + 1);
  else if (at[1] < 0 || at[1] * kUnit + of_b > q.M)
    report_fault(q.fault, FaultCode::bad_index, q.op, "table", 3 * a + 1, at[1], (q.M - of_b) / kUnit + 1);
  else {
    const int64_t e = q.offsets ? expert_of(q, p) : 0;
    return {at[0] * kUnit + e * rank * q.C, at[1] * kUnit + e * q.N * rank, rank, q.scales[a]};
  }
  return {0, 0, 0, 0};
}

TEMPER_DEVICE float operand(const Pairs& q, float x) { return q.rounded ? bf16_to_float(float_to_bf16(x)) : x; }

// Bounds rise from 0 to P.
TEMPER_DEVICE void check_offsets(const Pairs& q) {
  for (int64_t e = threadIdx.x; e <= q.E; e += blockDim.x) {
    const int64_t o = q.offsets[e], before = e > 0 ? q.offsets[e - 1] : 0;
    if (o < before || o > q.P || (e == 0 && o != 0) || (e == q.E && o != q.P))
      report_fault(q.fault, FaultCode::bad_index, q.op, "offsets", e, o, q.P + 1);
  }
}

// h[p,r] = A[r]·x[p]: a warp each.
template <int W, class T>
__global__ void __launch_bounds__(kThreads) lora_down_kernel(Pairs q, const T* pool) {
  wait_for_previous();
  const int64_t p = blockIdx.y, r = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (q.offsets && p == 0 && blockIdx.x == 0) check_offsets(q);
  int64_t from = p;
  if (q.x_rows) from = checked_index(q.fault, q.op, "x_rows", p, q.x_rows[p], q.X);
  const Pair pair = pair_of(q, p);
  if (r >= pair.rank) return;
  const float* x = q.x + from * q.C;
  const T* a = pool + pair.A + r * q.C;
  float sum = 0;
  for (int64_t c = static_cast<int64_t>(lane) * W; c < q.C; c += kWarp * W) {
    const Floats<W> u = load<W>(x + c), v = load<W>(a + c);
#pragma unroll
    for (int k = 0; k < W; ++k) sum = fused(operand(q, u.v[k]), operand(q, v.v[k]), sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) q.h[p * q.R + r] = sum;
}

// y[p,n] += scale·B[n]·h[p]: a thread each.
template <class T>
__global__ void __launch_bounds__(kThreads) lora_up_kernel(Pairs q, const T* pool) {
  wait_for_previous();
  const int64_t p = blockIdx.y, n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (n >= q.N) return;
  const Pair pair = pair_of(q, p);
  if (pair.rank == 0) return;
  const float* h = q.h + p * q.R;
  const T* b = pool + pair.B + n * pair.rank;
  float sum = 0;
  for (int64_t r = 0; r < pair.rank; ++r) sum = fused(operand(q, h[r]), operand(q, load_wf(b + r)), sum);
  q.y[p * q.N + n] = fused(pair.scale, sum, q.y[p * q.N + n]);
}

void add_pairs(const Pairs& q, const Tensor& pool) {
  constexpr int64_t kMost = 65535;  // of a grid's second dimension
  require(q.P <= kMost, "bad_argument", "lora: got ", q.P, " rows, wanted at most ", kMost, "; it is for decode steps");
  with_wf(pool, [&](auto* p) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(p)>>;
    with_width(q.C % 4 == 0 && aligned(16, {q.x, p}), [&](auto width) {
      launch(lora_down_kernel<decltype(width)::value, T>, dim3(blocks_for(q.R, kThreads / kWarp), q.P), dim3(kThreads),
             0, q, p);
    });
    launch(lora_up_kernel<T>, dim3(blocks_for(q.N, kThreads), q.P), dim3(kThreads), 0, q, p);
  });
}

}  // namespace

void lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, TensorRef table, TensorRef scales, TensorRef rows,
              int64_t precision) {
  add_pairs({.y = y->f32(),
             .h = h->f32(),
             .x = x->f32(),
             .x_rows = nullptr,
             .offsets = nullptr,
             .scales = scales->f32(),
             .table = table->i32(),
             .rows = rows->i32(),
             .P = rows->numel(),
             .N = y->shape[1],
             .C = x->shape[1],
             .R = h->shape[1],
             .X = x->shape[0],
             .E = 1,
             .M = pool->numel(),
             .S = scales->numel(),
             .rounded = precision != 0,
             .fault = fault(),
             .op = "lora_fwd"},
            *pool);
}

void grouped_lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, TensorRef offsets, TensorRef pool,
                      TensorRef table, TensorRef scales, TensorRef rows, int64_t precision) {
  add_pairs({.y = y->f32(),
             .h = h->f32(),
             .x = x->f32(),
             .x_rows = x_rows ? x_rows->i32() : nullptr,
             .offsets = offsets->i32(),
             .scales = scales->f32(),
             .table = table->i32(),
             .rows = rows->i32(),
             .P = rows->numel(),
             .N = y->shape[1],
             .C = x->shape[1],
             .R = h->shape[1],
             .X = x->shape[0],
             .E = offsets->numel() - 1,
             .M = pool->numel(),
             .S = scales->numel(),
             .rounded = precision != 0,
             .fault = fault(),
             .op = "grouped_lora_fwd"},
            *pool);
}

}  // namespace temper::gpu
