// Attention for heads wider than the tensor-core kernels take (65 to 256), which no gpt-oss model has: right,
// deterministic, and slow. A warp owns one row (or, for dk and dv, one key of one kv head) and goes through its keys
// one at a time in f32, a lane holding every 32nd element. Operations 4·Dh a pair of query head and key forward, 14·Dh
// backward, all on CUDA cores; K and V come out of L2 again for every row.
#include "cuda/attention/attention.h"

namespace temper::gpu::attention {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kElements = 8;  // elements of a row to a lane

using Row = float[kElements];

TEMPER_DEVICE void load_row(Row& x, const float* from, int width) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kElements; ++i) x[i] = from && lane + i * kWarp < width ? from[lane + i * kWarp] : 0.0f;
}
TEMPER_DEVICE void load_row(Row& x, const Source& from, int64_t at, int width) {
  if (!from.bf16) return load_row(x, static_cast<const float*>(from.data) + at, width);
  const uint16_t* row = static_cast<const uint16_t*>(from.data) + at;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kElements; ++i) x[i] = lane + i * kWarp < width ? bf16_to_float(row[lane + i * kWarp]) : 0.0f;
}
template <class F>
TEMPER_DEVICE void each_element(int width, const F& f) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kElements; ++i)
    if (lane + i * kWarp < width) f(i, lane + i * kWarp);
}
TEMPER_DEVICE float dot(const Row& a, const Row& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kElements; ++i) sum = fused(a[i], b[i], sum);
  return warp_sum(sum);
}
TEMPER_DEVICE void add(Row& sum, float factor, const Row& x) {
#pragma unroll
  for (int i = 0; i < kElements; ++i) sum[i] = fused(factor, x[i], sum[i]);
}

// The block's rows are kWarps consecutive ones of a sequence: row r is query r / H, head r % H. False where this warp
// has none.
struct WideRow {
  Sequence s;
  int64_t row;
  int head, position, first;
};
TEMPER_DEVICE bool find_row(const Problem& p, WideRow& w) {
  int64_t tile;
  if (!find_sequence<kThreads>(
          p, blockIdx.x,
          [&](const Sequence& x) { return (static_cast<long long>(x.queries) * p.H + kWarps - 1) / kWarps; }, w.s,
          tile))
    return false;
  const int64_t r = tile * kWarps + threadIdx.x / kWarp;
  if (r >= static_cast<int64_t>(w.s.queries) * p.H) return false;
  w.row = w.s.row * p.H + r;
  w.head = static_cast<int>(r % p.H);
  w.position = position_of(w.s, static_cast<int>(r / p.H));
  w.first = first_key(p, w.position);
  return true;
}

__global__ void __launch_bounds__(kThreads) wide_forward(Forward f) {
  wait_for_previous();
  const Problem& p = f.p;
  WideRow w;
  if (!find_row(p, w)) return;
  Row q, k, v, out = {};
  load_row(q, f.q + w.row * p.Dh, p.Dh);
  float most = -INFINITY, sum = 0;
  const RowState sink = f.sinks.state(w.head);
  if (f.sinks.data) {
    most = sink.most * kLn2;
    sum = 1;
  }
  for (int j = w.first; j <= w.position; ++j) {
    const int64_t at = (key_row(p, w.s, j) * p.Hkv + w.head / p.group) * p.Dh;
    load_row(k, f.k, at, p.Dh);
    load_row(v, f.v, at, p.Dh);
    const float score = p.scale * dot(q, k), top = fmaxf(most, score), fade = expf(most - top),
                weight = expf(score - top);
#pragma unroll
    for (int i = 0; i < kElements; ++i) out[i] = fused(weight, v[i], out[i] * fade);
    sum = fused(sum, fade, weight);
    most = top;
  }
  const float inverse = 1.0f / sum;
  each_element(p.Dh, [&](int i, int d) { f.o[w.row * p.Dh + d] = out[i] * inverse; });
  if (f.lse && threadIdx.x % kWarp == 0) f.lse[w.row] = most + logf(sum);
}

__global__ void __launch_bounds__(kThreads) wide_backward_queries(Backward b) {
  wait_for_previous();
  const Problem& p = b.p;
  WideRow w;
  if (!find_row(p, w)) return;
  Row q, dout, k, v, dq = {};
  load_row(q, b.q + w.row * p.Dh, p.Dh);
  load_row(dout, b.dout + w.row * p.Dh, p.Dh);
  const float lse = b.lse[w.row], mean = b.dot[w.row];
  for (int j = w.first; j <= w.position; ++j) {
    const int64_t at = (key_row(p, w.s, j) * p.Hkv + w.head / p.group) * p.Dh;
    load_row(k, b.k + at, p.Dh);
    load_row(v, b.v + at, p.Dh);
    const float weight = expf(p.scale * dot(q, k) - lse);
    add(dq, weight * (dot(dout, v) - mean), k);
  }
  each_element(p.Dh, [&](int i, int d) { b.dq[w.row * p.Dh + d] = p.scale * dq[i]; });
}

// Items are the keys that this call's queries see, times the kv heads.
__global__ void __launch_bounds__(kThreads) wide_backward_keys(Backward b) {
  wait_for_previous();
  const Problem& p = b.p;
  Sequence s;
  int64_t tile;
  const auto seen_from = [&](const Sequence& x) { return first_key(p, position_of(x, 0)); };
  if (!find_sequence<kThreads>(
          p, blockIdx.x,
          [&](const Sequence& x) {
            return x.queries > 0 ? (static_cast<long long>(x.length - seen_from(x)) * p.Hkv + kWarps - 1) / kWarps : 0;
          },
          s, tile))
    return;
  const int64_t item = tile * kWarps + threadIdx.x / kWarp;
  if (item >= static_cast<int64_t>(s.length - seen_from(s)) * p.Hkv) return;
  const int j = seen_from(s) + static_cast<int>(item / p.Hkv), kv_head = static_cast<int>(item % p.Hkv);
  const int64_t at = ((s.key + j) * p.Hkv + kv_head) * p.Dh;
  Row k, v, q, dout, dk = {}, dv = {};
  load_row(k, b.k + at, p.Dh);
  load_row(v, b.v + at, p.Dh);
  const int position = position_of(s, 0), begin = j > position ? j - position : 0;
  const int end = p.window > 0 && p.window - 1 < s.length - 1 - j ? j + p.window - position : s.queries;
  for (int i = begin; i < end; ++i)
    for (int h = 0; h < p.group; ++h) {
      const int64_t row = (s.row + i) * p.H + kv_head * p.group + h;
      load_row(q, b.q + row * p.Dh, p.Dh);
      load_row(dout, b.dout + row * p.Dh, p.Dh);
      const float weight = expf(p.scale * dot(q, k) - b.lse[row]);
      add(dv, weight, dout);
      add(dk, weight * (dot(dout, v) - b.dot[row]), q);
    }
  each_element(p.Dh, [&](int i, int d) {
    b.dk[at + d] += p.scale * dk[i];
    b.dv[at + d] += dv[i];
  });
}

unsigned row_blocks(const Problem& p) {
  return static_cast<unsigned>(std::max<int64_t>(1, blocks_for(p.T * p.H, kWarps) + p.B));
}

}  // namespace

void forward_wide(const Forward& f) { launch(wide_forward, dim3(row_blocks(f.p)), dim3(kThreads), 0, f); }

void backward_wide(const Backward& b) {
  launch(wide_backward_queries, dim3(row_blocks(b.p)), dim3(kThreads), 0, b);
  launch(wide_backward_keys,
         dim3(static_cast<unsigned>(std::max<int64_t>(1, blocks_for(b.p.S * b.p.Hkv, kWarps) + b.p.B))), dim3(kThreads),
         0, b);
}

}  // namespace temper::gpu::attention
