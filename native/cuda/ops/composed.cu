// The ops that are several others in one (temper/composed.h), as one kernel each for the few rows of a decode step; for
// more rows, f32 products and shapes that do not suit, the others one after another. They give the same bits.
//
// A small kernel costs 3 to 4 µs of a decode step whatever it does (bench/results/2026-11-27-h200.md). One layer of
// 20b, predicted, not measured:
//   qkv      8 kernels in one: 320 tiles of 16 outputs, each block takes the norm of the rows for itself (11.5 KB of x
//            and as much of its weight, out of L2, while its first weights are under way). 29.5 MB, 7.6 µs at 3.9 TB/s
//   router   4 in one: a block for 16 experts; the last to end chooses and plans. 184 KB; latency, about 4 µs
//   swiglu   2 in one: gate and linear units are neighbours in a tile. 35.3 MB, 9.0 µs
//   combine  2 in one: a block has its 16 outputs of all the token's experts, one after another. 17.6 MB, 4.5 µs. Up to
//            16 pairs: beyond, 180 blocks read the rows more often than the weights
#include "temper/composed.h"

#include <bit>
#include <initializer_list>

#include "cuda/matmul/few_rows.cuh"
#include "gpu/choice.cuh"
#include "gpu/elements.cuh"
#include "gpu/ops.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace few {
namespace {

constexpr int kMostRows = 2 * kColumns;       // of a pass
constexpr int kNormWidth = 4 * 4 * kThreads;  // rows whose norm is summed as rmsnorm.cu sums it

TEMPER_DEVICE Floats<4> floats_at(const void* p, bool bf16, int64_t i) {
  return bf16 ? gpu::load<4>(static_cast<const uint16_t*>(p) + i) : gpu::load<4>(static_cast<const float*>(p) + i);
}

// ---- rows that are normed as they are staged ----
struct Norm {
  const float *x, *residual;  // residual may be null
  const void* weight;
  float *sum, *xn;  // null, or where block 0 leaves x + residual and the normed rows
  float eps;
  int D;
  bool bf16;
  TEMPER_DEVICE Floats<4> at(int row, int d) const {
    const int64_t i = static_cast<int64_t>(row) * D + d;
    Floats<4> s = gpu::load<4>(x + i);
    if (residual) {
      const Floats<4> r = gpu::load<4>(residual + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) s.v[j] += r.v[j];
    }
    return s;
  }
  TEMPER_DEVICE Floats<4> normed(int row, int d, float inverse) const {
    Floats<4> s = at(row, d);
    const Floats<4> g = floats_at(weight, bf16, d);
#pragma unroll
    for (int j = 0; j < 4; ++j) s.v[j] = s.v[j] * inverse * g.v[j];
    return s;
  }
};
struct NormedRow {
  int row;
  float inverse;
};
struct NormedRows {
  const Norm& n;
  int first = 0, rows = 0;  // of this pass
  float* inverse = nullptr;
  TEMPER_DEVICE explicit NormedRows(const Norm& norm) : n(norm) {}
  // The sums of rmsnorm.cu: a thread's elements, the lanes of a warp, the warps in order.
  TEMPER_DEVICE void prepare() {
    __shared__ float parts[kMostRows][kWarps], roots[kMostRows];
    const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
    for (int r = 0; r < rows; ++r) {
      float squares = 0;
      for (int d = thread * 4; d < n.D; d += 4 * kThreads) {
        const Floats<4> s = n.at(first + r, d);
        if (n.sum && blockIdx.x == 0) gpu::store<4>(n.sum + static_cast<int64_t>(first + r) * n.D + d, s);
#pragma unroll
        for (int j = 0; j < 4; ++j) squares = fused(s.v[j], s.v[j], squares);
      }
      squares = warp_sum(squares);
      if (thread % kWarp == 0) parts[r][warp] = squares;
    }
    __syncthreads();
    if (thread < rows) {
      float total = parts[thread][0];
      for (int w = 1; w < kWarps; ++w) total += parts[thread][w];
      roots[thread] = inverse_root_mean(total, n.D, n.eps);
    }
    __syncthreads();
    inverse = roots;
    if (!n.xn || blockIdx.x != 0) return;
    for (int r = 0; r < rows; ++r)
      for (int d = thread * 4; d < n.D; d += 4 * kThreads)
        gpu::store<4>(n.xn + static_cast<int64_t>(first + r) * n.D + d, n.normed(first + r, d, inverse[r]));
  }
  TEMPER_DEVICE NormedRow staged_row(int r) const { return {first + r, inverse[r]}; }
  TEMPER_DEVICE void load(const NormedRow& row, int k, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Floats<4> x = k < n.D ? n.normed(row.row, k + 4 * half, row.inverse) : Floats<4>{};
#pragma unroll
      for (int j = 0; j < 4; ++j) v[4 * half + j] = x.v[j];
    }
  }
};

// Of a kernel with a block for each tile.
TEMPER_DEVICE Share own_tile() { return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.x) + 1}; }

// ---- queries, keys and values ----
struct Matrix {
  const uint4* w;
  const void *scales, *bias;
  bool bias_bf16;
  int n, begin;  // outputs; the tile it begins with
};
struct Qkv {
  Few p;
  Norm norm;
  Matrix m[3];
  float* q;
  void* cache[2];
  bool cache_bf16;
  const float *cosines, *sines;
  const int32_t* rows;
  int64_t cache_rows;
  int T, half, part_bits, tiles;  // 2^part_bits tiles to a head
};
template <class W>
struct QkvJob : NormedRows {
  const Qkv& a;
  TEMPER_DEVICE explicit QkvJob(const Qkv& of) : NormedRows(of.norm), a(of) {}
  TEMPER_DEVICE const Matrix& of(int tile) const {
    return tile < a.m[1].begin ? a.m[0] : tile < a.m[2].begin ? a.m[1] : a.m[2];
  }
  TEMPER_DEVICE const uint4* weights(int tile) const { return of(tile).w; }
  TEMPER_DEVICE auto scales(int tile) const { return static_cast<const typename W::Scale*>(of(tile).scales); }
  // A tile is 8 elements of a head and the 8 that they turn with, half a head further on.
  TEMPER_DEVICE int element(int tile, int output) const {
    const int part = (tile - of(tile).begin) & ((1 << a.part_bits) - 1);
    return part * 8 + output % 8;
  }
  TEMPER_DEVICE int row(int tile, int output) const {
    const Matrix& m = of(tile);
    const int head = (tile - m.begin) >> a.part_bits,
              n = head * 2 * a.half + element(tile, output) + output / 8 * a.half;
    return n < m.n ? n : m.n - 1;
  }
  TEMPER_DEVICE void ragged(int, int, uint4 (&)[W::kPieces]) const {}
  TEMPER_DEVICE bool turns(int tile) const { return tile < a.m[2].begin; }
  struct Ahead {  // of values one bias alone
    uint32_t bias[2];
    float cosine, sine;
  };
  TEMPER_DEVICE Ahead ahead(int tile, int r, int output) const {
    const Matrix& m = of(tile);
    const auto bias = [&](int o) { return bias_bits(m.bias, m.bias_bf16, row(tile, o)); };
    if (!turns(tile)) return {{bias(output), 0}, 0, 0};
    const int64_t angle = static_cast<int64_t>(first + r) * a.half + element(tile, output);
    return {{bias(output % 8), bias(output % 8 + 8)}, a.cosines[angle], a.sines[angle]};
  }
  template <class Sum>
  TEMPER_DEVICE void finish(int tile, int r, int output, const Ahead& had, Sum&& sum) const {
    const Matrix& m = of(tile);
    const int which = tile < a.m[1].begin ? 0 : tile < a.m[2].begin ? 1 : 2, n = row(tile, output);
    const int64_t t = first + r;
    float x;
    if (which == 2) {
      x = bias_of(had.bias[0], m.bias_bf16) + sum(output);
    } else {
      const auto value = [&](int i, int o) { return bias_of(had.bias[i], m.bias_bf16) + sum(o); };
      const Turned turned = turn(value(0, output % 8), value(1, output % 8 + 8), had.cosine, had.sine);
      x = output < 8 ? turned.first : turned.second;
    }
    if (which == 0) {
      a.q[t * m.n + n] = x;
      return;
    }
    const int64_t to = a.rows[t];
    if (to < 0 || to >= a.cache_rows) {
      report_fault(a.p.fault, FaultCode::bad_index, a.p.op, "rows", t, to, a.cache_rows);
      return;
    }
    const int64_t at = to * m.n + n;
    if (a.cache_bf16) static_cast<uint16_t*>(a.cache[which - 1])[at] = float_to_bf16(x);
    else static_cast<float*>(a.cache[which - 1])[at] = x;
  }
};

template <class W>
TEMPER_DEVICE void ask_ahead(const Qkv& a) {
  if (kStartsEarly) ask_for_tile(a.p, QkvJob<W>(a), share_of(a.tiles).begin);
}
template <class W, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups == 1 ? kBlocks : 1) qkv_kernel(Qkv a) {
  ask_ahead<W>(a);
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  if (blockIdx.x == 0 && static_cast<int>(threadIdx.x) < a.T)
    for (int j = 0; j < static_cast<int>(threadIdx.x); ++j)
      if (a.rows[j] == a.rows[threadIdx.x])
        report_fault(a.p.fault, FaultCode::repeated_row, a.p.op, "rows", threadIdx.x, a.rows[j], a.cache_rows);
  QkvJob<W> job(a);
  for (; job.first < a.T; job.first += kGroups * kColumns) {
    job.rows = min(a.T - job.first, kGroups * kColumns);
    multiply_pass<W, true, kGroups>(a.p, job, job.rows, share_of(a.tiles), shared);
  }
}

// ---- the router ----
struct Router {
  Few p;
  Norm norm;
  const void* bias;
  bool bias_bf16;
  float *logits, *weights, *row_weight;
  int32_t *ids, *offsets, *row_token, *slot_row;
  unsigned* arrivals;
  int T, E, K;
};
struct RouterJob : NormedRows {
  const Router& a;
  TEMPER_DEVICE explicit RouterJob(const Router& of) : NormedRows(of.norm), a(of) {}
  TEMPER_DEVICE const uint4* weights(int) const { return static_cast<const uint4*>(a.p.w); }
  TEMPER_DEVICE const uint8_t* scales(int) const { return nullptr; }
  TEMPER_DEVICE int row(int tile, int output) const { return min(tile * kOutputs + output, a.E - 1); }
  TEMPER_DEVICE void ragged(int, int, uint4 (&)[1]) const {}
  TEMPER_DEVICE uint32_t ahead(int tile, int, int output) const {
    return bias_bits(a.bias, a.bias_bf16, row(tile, output));
  }
  template <class Sum>
  TEMPER_DEVICE void finish(int tile, int r, int output, uint32_t had, Sum&& sum) const {
    const int e = tile * kOutputs + output;
    if (e < a.E) a.logits[static_cast<int64_t>(first + r) * a.E + e] = bias_of(had, a.bias_bf16) + sum(output);
  }
};

// The stable sort of T·K ≤ kThreads pairs by expert: a pair's row is the number of those before it.
TEMPER_DEVICE void plan_pairs(const Router& a) {
  __shared__ int chosen[kThreads];
  const int i = static_cast<int>(threadIdx.x), pairs = a.T * a.K;
  if (i < pairs) chosen[i] = a.ids[i];
  __syncthreads();
  if (i < pairs) {
    int row = 0;
    for (int j = 0; j < pairs; ++j) row += chosen[j] < chosen[i] || (chosen[j] == chosen[i] && j < i);
    a.row_token[row] = i / a.K;
    a.row_weight[row] = a.weights[i];
    a.slot_row[i] = row;
  }
  for (int e = i; e <= a.E; e += kThreads) {
    int before = 0;
    for (int j = 0; j < pairs; ++j) before += chosen[j] < e;
    a.offsets[e] = before;
  }
}

TEMPER_DEVICE void ask_ahead(const Router& a) {
  if (kStartsEarly) ask_for_tile(a.p, RouterJob(a), static_cast<int>(blockIdx.x));
}
template <int PerLane, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups == 1 ? kBlocks : 1) router_kernel(Router a) {
  ask_ahead(a);
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  __shared__ bool last;
  RouterJob job(a);
  for (; job.first < a.T; job.first += kGroups * kColumns) {
    job.rows = min(a.T - job.first, kGroups * kColumns);
    multiply_pass<Bf16Weights, true, kGroups>(a.p, job, job.rows, own_tile(), shared);
  }
  __threadfence();  // this thread's logits, before its block is counted
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(a.arrivals, 1u) + 1 == gridDim.x;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) *a.arrivals = 0;
  for (int t = static_cast<int>(threadIdx.x) / kWarp; t < a.T; t += kWarps)
    choose_experts<PerLane>(a.weights + t * a.K, a.ids + t * a.K, a.E, a.K,
                            [&](int64_t e) { return __ldcg(a.logits + static_cast<int64_t>(t) * a.E + e); });
  __syncthreads();
  plan_pairs(a);
}

// ---- experts' gate and linear units ----
struct Swiglu {
  Few p;
  float* out;
  float alpha, limit;
};
template <class W>
struct SwigluJob : GroupRows<W> {
  const Swiglu& a;
  TEMPER_DEVICE explicit SwigluJob(const Swiglu& of) : GroupRows<W>(of.p), a(of) {}
  struct Ahead {
    uint32_t gate, linear;
  };
  TEMPER_DEVICE Ahead ahead(int tile, int, int output) const {
    const int n = tile * kOutputs + 2 * output;
    if (output >= kOutputs / 2) return {};
    return {this->bias_ahead(n), this->bias_ahead(n + 1)};
  }
  template <class Sum>
  TEMPER_DEVICE void finish(int tile, int r, int output, const Ahead& had, Sum&& sum) const {
    const int n = tile * kOutputs + 2 * output;
    if (output >= kOutputs / 2 || n >= a.p.n) return;
    a.out[static_cast<int64_t>(this->group.begin + this->first + r) * (a.p.n / 2) + n / 2] =
        swiglu(this->bias(had.gate) + sum(2 * output), this->bias(had.linear) + sum(2 * output + 1), a.alpha, a.limit);
  }
};
template <class W>
__global__ void __launch_bounds__(kThreads, kBlocks) swiglu_kernel(Swiglu a) {
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  SwigluJob<W> job(a);
  multiply_groups<W, true, 1>(a.p, job, shared);
}

// ---- experts' outputs, put together ----
constexpr int kMostPairs = 16;
struct Combine {
  Few p;
  float* out;
  const float* weights;
  const int32_t* slot_row;
  int T, K, slots;
};
template <class W>
struct CombineJob : GroupRows<W> {
  float* y;  // [pairs][kOutputs] of the block's one tile
  TEMPER_DEVICE CombineJob(const Combine& of, const Group& group, float* to) : GroupRows<W>(of.p, group), y(to) {}
  TEMPER_DEVICE uint32_t ahead(int tile, int, int output) const { return this->bias_ahead(tile * kOutputs + output); }
  template <class Sum>
  TEMPER_DEVICE void finish(int tile, int r, int output, uint32_t had, Sum&& sum) const {
    if (tile * kOutputs + output < this->p.n)
      y[(this->group.begin + this->first + r) * kOutputs + output] = this->bias(had) + sum(output);
  }
};
template <class W>
TEMPER_DEVICE void ask_ahead(const Combine& a) {
  if (!kStartsEarly) return;
  for (int slot = 0; slot < a.slots; ++slot) {
    const Group group = find_group(a.p, slot, false);
    if (group.rows > 0) ask_for_tile(a.p, CombineJob<W>(a, group, nullptr), static_cast<int>(blockIdx.x));
  }
}
template <class W>
__global__ void __launch_bounds__(kThreads, kBlocks) combine_kernel(Combine a) {
  ask_ahead<W>(a);
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  __shared__ float y[kMostPairs * kOutputs];
  for (int slot = 0; slot < a.slots; ++slot) {
    CombineJob<W> job(a, find_group(a.p, slot, slot == 0), y);
    for (; job.first < job.group.rows; job.first += kColumns)
      multiply_pass<W, true, 1>(a.p, job, min(job.group.rows - job.first, kColumns), own_tile(), shared);
  }
  __syncthreads();
  const int t = static_cast<int>(threadIdx.x) / kOutputs, o = static_cast<int>(threadIdx.x) % kOutputs,
            n = static_cast<int>(blockIdx.x) * kOutputs + o;
  if (t >= a.T || n >= a.p.n) return;
  float* to = a.out + static_cast<int64_t>(t) * a.p.n + n;
  float sum = *to;
  for (int k = 0; k < a.K; ++k) {
    const int i = t * a.K + k, row = a.slot_row[i];
    if (row < 0 || row >= a.p.m) report_fault(a.p.fault, FaultCode::bad_index, a.p.op, "slot_row", i, row, a.p.m);
    else sum = sum + a.weights[i] * y[row * kOutputs + o];
  }
  *to = sum;
}

// ---- whether a call suits, and its launch ----
struct Parts {
  using Room = Workspace<float>;
  static constexpr auto rmsnorm_fwd = &gpu::rmsnorm_fwd;
  static constexpr auto linear_fwd = &gpu::linear_fwd;
  static constexpr auto linear_q8_fwd = &gpu::linear_q8_fwd;
  static constexpr auto rope = &gpu::rope;
  static constexpr auto scatter_rows = &gpu::scatter_rows;
  static constexpr auto topk_fwd = &gpu::topk_fwd;
  static constexpr auto moe_plan = &gpu::moe_plan;
  static constexpr auto grouped_linear_fwd = &gpu::grouped_linear_fwd;
  static constexpr auto swiglu_fwd = &gpu::swiglu_fwd;
  static constexpr auto moe_combine = &gpu::moe_combine;
};

// A dense weight as few_rows would take it, 16 bytes at a time; false: it would not, or another kernel is to.
bool dense(TensorRef w, TensorRef scales, TensorRef bias, TensorRef x, int64_t precision, const char* op, Few& p) {
  Product product{.m = x->shape[0], .n = w->shape[0], .ldc = w->shape[0], .op = op};
  product.main.a = {.data = x->data, .ld = x->shape[1], .count = x->shape[0]};
  product.main.b = {.data = w->data,
                    .q8_scales = scales ? scales->bf16() : nullptr,
                    .ld = w->shape[1],
                    .count = w->shape[0],
                    .kind = scales ? Kind::q8 : kind_of(*w)};
  product.main.k = w->shape[1];
  if (bias) product.bias = bias->data, product.bias_kind = kind_of(*bias);
  bool aligned = false;
  return precision == 1 && matmul_choice() == MatmulChoice::automatic && product.main.b.kind != Kind::f32 &&
         describe(product, p, aligned) && aligned;
}
bool norm_suits(TensorRef norm, std::initializer_list<TensorRef> rows) {
  for (TensorRef t : rows)
    if (!aligned(16, {t->data})) return false;
  const int64_t D = norm->numel();
  return D % 8 == 0 && D <= kNormWidth && aligned(16, {norm->data});
}
Norm norm_of(TensorRef x, TensorRef norm, double eps) {
  return {x->f32(),
          nullptr,
          norm->data,
          nullptr,
          nullptr,
          static_cast<float>(eps),
          static_cast<int>(norm->numel()),
          norm->dtype == DType::bf16};
}

template <class W>
void run(Qkv& a) {
  if (a.T <= kColumns) {
    const size_t shared = cut<W, 1>(a.p, a.T);
    launch(qkv_kernel<W, 1>, blocks_of<1>(a.tiles, kBlocks, shared), kThreads, shared, a);
  } else {
    const size_t shared = cut<W, 2>(a.p, std::min(a.T, kMostRows));
    launch(qkv_kernel<W, 2>, blocks_of<2>(a.tiles, 1, shared), kThreads, shared, a);
  }
}
bool one_kernel(const args::linear_qkv_fwd& c) {
  const TensorRef w[3] = {c.wq, c.wk, c.wv}, scales[3] = {c.q_scales, c.k_scales, c.v_scales},
                  bias[3] = {c.bq, c.bk, c.bv};
  const int64_t half = c.cos->shape[1], tiles_of_head = half / 8;
  if (half % 8 != 0 || !std::has_single_bit(static_cast<uint64_t>(tiles_of_head)) || !norm_suits(c.norm, {c.x}))
    return false;
  Qkv a{};
  for (int i = 0; i < 3; ++i) {
    if (!dense(w[i], scales[i], bias[i], c.x, c.precision, "linear_qkv_fwd", a.p)) return false;
    if (!scales[i] != !scales[0]) return false;
    a.m[i] = {static_cast<const uint4*>(a.p.w), a.p.q8_scales, a.p.bias, a.p.bias_bf16, a.p.n, a.tiles};
    a.tiles += a.p.n / kOutputs;
  }
  a.norm = norm_of(c.x, c.norm, c.eps);
  a.q = c.q->f32();
  a.cache[0] = c.k->data, a.cache[1] = c.v->data, a.cache_bf16 = c.k->dtype == DType::bf16;
  a.cosines = c.cos->f32(), a.sines = c.sin->f32(), a.rows = c.rows->i32(), a.cache_rows = c.k->shape[0];
  a.T = static_cast<int>(c.x->shape[0]), a.half = static_cast<int>(half),
  a.part_bits = std::countr_zero(static_cast<uint64_t>(tiles_of_head));
  if (c.q_scales) run<Q8Weights>(a);
  else run<Bf16Weights>(a);
  return true;
}

bool one_kernel(const args::linear_router_fwd& c) {
  const int64_t T = c.x->shape[0], E = c.w->shape[0], K = c.weights->shape[1];
  Router a{};
  if (T * K > kThreads || E > 4 * kWarp || !norm_suits(c.norm, {c.x, c.residual, c.sum, c.xn}) ||
      !dense(c.w, nullptr, c.bias, c.x, c.precision, "linear_router_fwd", a.p))
    return false;
  const Workspace<float> logits(static_cast<size_t>(T * E));
  a.norm = norm_of(c.x, c.norm, c.eps);
  a.norm.residual = c.residual->f32(), a.norm.sum = c.sum->f32(), a.norm.xn = c.xn->f32();
  a.bias = a.p.bias, a.bias_bf16 = a.p.bias_bf16;
  a.logits = logits.data(), a.weights = c.weights->f32(), a.row_weight = c.row_weight->f32();
  a.ids = c.ids->i32(), a.offsets = c.offsets->i32(), a.row_token = c.row_token->i32(), a.slot_row = c.slot_row->i32();
  a.arrivals = device().arrivals;
  a.T = static_cast<int>(T), a.E = static_cast<int>(E), a.K = static_cast<int>(K);
  const dim3 grid(static_cast<unsigned>(blocks_for(E, kOutputs)));
  const auto run = [&](auto* narrow, auto* wide) {
    if (T <= kColumns) {
      const size_t shared = cut<Bf16Weights, 1>(a.p, T);
      launch(narrow, grid, kThreads, shared, a);
    } else {
      const size_t shared = cut<Bf16Weights, 2>(a.p, std::min<int64_t>(T, kMostRows));
      launch(wide, grid, kThreads, shared, a);
    }
  };
  if (E <= kWarp) run(router_kernel<1, 1>, router_kernel<1, 2>);
  else run(router_kernel<4, 1>, router_kernel<4, 2>);
  return true;
}

template <class W>
void run(Swiglu& a) {
  const int64_t slots = std::min(a.p.groups, a.p.m);
  const size_t shared = cut<W, 1>(a.p, std::min(a.p.m, kColumns));
  launch(swiglu_kernel<W>, blocks_of<1>(slots * blocks_for(a.p.n, kOutputs), kBlocks, shared), kThreads, shared, a);
}
// Experts' weights [E,N,C] as few_rows would take them for P rows, 16 bytes at a time; false: it would not.
template <class Args>
bool experts(const Args& c, int64_t P, int64_t N, TensorRef rows, const char* op, Few& p) {
  const int64_t E = c.offsets->numel() - 1, C = c.x->shape[1];
  if (c.precision != 1 || matmul_choice() != MatmulChoice::automatic || c.layout == 2) return false;
  Product product{.m = P, .n = N, .ldc = N, .ragged = Ragged::rows, .offsets = c.offsets->i32(), .groups = E, .op = op};
  product.main.a = Source{
      .data = c.x->data, .ld = C, .count = c.x->shape[0], .index = rows ? rows->i32() : nullptr, .index_name = "rows"};
  product.main.b = Source{.data = c.w->data,
                          .scales = c.scales ? c.scales->u8() : nullptr,
                          .ld = C,
                          .count = E * N,
                          .group_rows = N,
                          .kind = c.layout == 0 ? Kind::mxfp4 : kind_of(*c.w)};
  product.main.k = C;
  if (c.bias) product.bias = c.bias->data, product.bias_kind = kind_of(*c.bias);
  bool aligned = false;
  return !mxfp4_suits(product, 1) && product.main.b.kind != Kind::f32 && describe(product, p, aligned) && aligned;
}
bool one_kernel(const args::grouped_linear_swiglu_fwd& c) {
  Swiglu a{};
  if (c.z || c.A || c.by_row != 1 || c.a->dtype != DType::f32 || c.x->dtype != DType::f32) return false;
  if (!experts(c, c.a->shape[0], 2 * c.a->shape[1], c.rows, "grouped_linear_swiglu_fwd", a.p)) return false;
  a.out = c.a->f32(), a.alpha = static_cast<float>(c.alpha), a.limit = static_cast<float>(c.limit);
  if (c.layout == 0) run<Mxfp4Weights>(a);
  else run<Bf16Weights>(a);
  return true;
}

template <class W>
void run(Combine& a) {
  const size_t shared = cut<W, 1>(a.p, std::min(a.p.m, kColumns));
  launch(combine_kernel<W>, dim3(static_cast<unsigned>(blocks_for(a.p.n, kOutputs))), kThreads, shared, a);
}
bool one_kernel(const args::grouped_linear_combine_fwd& c) {
  const int64_t P = c.x->shape[0];
  Combine a{};
  if (P > kMostPairs || !experts(c, P, c.out->shape[1], nullptr, "grouped_linear_combine_fwd", a.p)) return false;
  a.out = c.out->f32(), a.weights = c.weights->f32(), a.slot_row = c.slot_row->i32();
  a.T = static_cast<int>(c.out->shape[0]), a.K = static_cast<int>(c.weights->shape[1]);
  a.slots = std::min(a.p.groups, a.p.m);
  if (c.layout == 0) run<Mxfp4Weights>(a);
  else run<Bf16Weights>(a);
  return true;
}

}  // namespace
}  // namespace few

void linear_qkv_fwd(TensorRef q, TensorRef k, TensorRef v, TensorRef x, TensorRef norm, double eps, TensorRef wq,
                    TensorRef q_scales, TensorRef bq, TensorRef wk, TensorRef k_scales, TensorRef bk, TensorRef wv,
                    TensorRef v_scales, TensorRef bv, TensorRef cos, TensorRef sin, TensorRef rows, int64_t precision) {
  const args::linear_qkv_fwd a{q,        k,  v,  x,        norm, eps, wq,  q_scales, bq,       wk,
                               k_scales, bk, wv, v_scales, bv,   cos, sin, rows,     precision};
  if (!few::one_kernel(a)) composed::linear_qkv_fwd<few::Parts>(a);
}

void linear_router_fwd(TensorRef sum, TensorRef xn, TensorRef weights, TensorRef ids, TensorRef offsets,
                       TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef x, TensorRef residual,
                       TensorRef norm, double eps, TensorRef w, TensorRef bias, int64_t precision) {
  const args::linear_router_fwd a{sum, xn,       weights, ids, offsets, row_token, slot_row, row_weight,
                                  x,   residual, norm,    eps, w,       bias,      precision};
  if (!few::one_kernel(a)) composed::linear_router_fwd<few::Parts>(a);
}

void grouped_linear_swiglu_fwd(TensorRef a, TensorRef z, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets,
                               TensorRef w, TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale,
                               double alpha, double limit, int64_t layout, int64_t precision, int64_t by_row) {
  const args::grouped_linear_swiglu_fwd c{a, z, h,     x,     rows,  offsets, w,         scales, bias,
                                          A, B, scale, alpha, limit, layout,  precision, by_row};
  if (!few::one_kernel(c) && !grouped_linear_activated(c)) composed::grouped_linear_swiglu_fwd<few::Parts>(c);
}

void grouped_linear_combine_fwd(TensorRef out, TensorRef x, TensorRef offsets, TensorRef w, TensorRef scales,
                                TensorRef bias, TensorRef weights, TensorRef slot_row, int64_t layout,
                                int64_t precision) {
  const args::grouped_linear_combine_fwd a{out, x, offsets, w, scales, bias, weights, slot_row, layout, precision};
  if (!few::one_kernel(a)) composed::grouped_linear_combine_fwd<few::Parts>(a);
}

}  // namespace temper::gpu
