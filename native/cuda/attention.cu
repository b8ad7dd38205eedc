// Attention forward for many queries, after the blocked softmax of arXiv:2205.14135 and 2307.08691, with the heads of a kv head packed into the rows of a
// tile. K and V are first written once as bf16 parts (pack_parts), so that the inner loop copies tiles and does nothing but mma and exponentials.
//
// The two numbers, one layer of gpt-oss (64 heads over 8, width 64), T tokens in one sequence, w keys seen on average (T/2, or 128 with a window):
// 256·64·T·w operations in products kept, times P(P+1)/2 for P parts, and 36 KB per token to move (q, o: 16 KB each, k, v: 2 KB each).
// T = 4096, full: 34 GF·P(P+1)/2 and 151 MB; at 790 TFLOP/s and 4.3 TB/s, one part: 43 µs and 35 µs. Exponentials are the third: 64·T·w of them, 16 to a
// clock and multiprocessor, on 132 of them at 1.75 GHz: 145 µs for T = 4096. So one part is bound by exp, six products by the tensor cores.
#include "cuda/attention.h"
#include "cuda/ops.h"

namespace temper::cuda {
namespace attention {
namespace {

constexpr int kPackThreads = 256;

struct Pack {
  Problem p;
  uint16_t* planes;
  int64_t part_step, rows;
  const float* src;
  int group, first_head, heads, keys;
  float factor;
};

template <int Parts, int W> __global__ void __launch_bounds__(kPackThreads) pack_kernel(Pack a) {
  const int per_row = a.heads * a.group * 8;  // 16-byte chunks of one part
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (a.keys) {  // a cache holds far more rows than are in use
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kPackThreads / per_row, last = (static_cast<int64_t>(blockIdx.x) * kPackThreads + kPackThreads - 1) / per_row;
    bool used = false;
    for (int64_t b = threadIdx.x; b < a.p.B; b += kPackThreads) {
      const int64_t start = a.p.k_start[b], length = a.p.k_len[b];
      used = used || (first < start + length && last >= start);
    }
    if (!__syncthreads_or(used)) return;
  }
  if (i >= a.rows * per_row) return;
  const int64_t row = i / per_row;
  const int within = static_cast<int>(i % per_row), head = within / 8, d = within % 8 * 8;
  const float* from = a.src + (row * a.p.Hkv * a.group + a.first_head * a.group + head) * a.p.Dh + d;
  float x[8];
#pragma unroll
  for (int j = 0; j < 8; j += W) {
    if (W == 4 ? d + j < a.p.Dh : true) {
      if constexpr (W == 4) {
        const Floats<4> four = load<4>(from + j);
#pragma unroll
        for (int e = 0; e < 4; ++e) x[j + e] = a.factor * four.v[e];
      } else {
        x[j] = d + j < a.p.Dh ? a.factor * from[j] : 0.0f;
      }
    } else {
#pragma unroll
      for (int e = 0; e < W; ++e) x[j + e] = 0.0f;
    }
  }
  uint32_t pair[4][Parts];
#pragma unroll
  for (int j = 0; j < 4; ++j) split<Parts>(x[2 * j], x[2 * j + 1], pair[j]);
  const int64_t to = head / a.group * (a.rows * a.group * kWidth) + (row * a.group + head % a.group) * kWidth + d;
#pragma unroll
  for (int part = 0; part < Parts; ++part) store_as(a.planes + part * a.part_step + to, make_uint4(pair[0][part], pair[1][part], pair[2][part], pair[3][part]));
}

struct RowsArgs {
  Problem p;
  float *o, *lse;
  const float* q;
  Sinks sinks;
  Planes k, v;
  int first_head;
};

// A block: Warps·16·M rows of one kv head against all blocks of keys they see. Shared memory: two stages of K and V tiles, Parts·32 KiB.
// Registers (ptxas, sm_90a) and tiles: docs/log.md.
template <int Parts, int M, int Warps> __global__ void __launch_bounds__(Warps* kWarp) forward_rows(RowsArgs a) {
  constexpr int kThreads = Warps * kWarp, kRows = Warps * 16 * M, kStage = 2 * Parts * kTile;
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  const Problem& p = a.p;
  Sequence s;
  int64_t tile;
  if (!find_sequence<kThreads>(p, blockIdx.x, [&](const Sequence& x) { return (static_cast<long long>(x.queries) * p.group + kRows - 1) / kRows; }, s, tile)) return;
  const int rows = s.queries * p.group, tiles = (rows + kRows - 1) / kRows;
  const int tile_row = (tiles - 1 - static_cast<int>(tile)) * kRows;  // the last rows see the most keys: they go first
  const int tile_last = min(tile_row + kRows, rows) - 1;
  const int first = first_key(p, position_of(s, tile_row / p.group)), last = position_of(s, tile_last / p.group);
  const int head = static_cast<int>(blockIdx.y), kv_head = a.first_head + head;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, g = lane / 4, t = lane % 4;
  const int warp_row = tile_row + warp * 16 * M;
  const bool active = warp_row < rows;
  const int warp_last = min(warp_row + 16 * M, rows) - 1;

  const auto head_row = [&](int r) { return (s.row + r / p.group) * p.H + kv_head * p.group + r % p.group; };  // of q, o and lse
  uint32_t q[M][kSteps][Parts][4];
  int low[M][2], high[M][2];  // keys that this thread's rows see
  RowState state[M][2];
  float out[M][8][4];
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int r0 = warp_row + m * 16 + g, r1 = r0 + 8;
    load_operand<Parts>(q[m], r0 < rows ? a.q + head_row(r0) * p.Dh : nullptr, r1 < rows ? a.q + head_row(r1) * p.Dh : nullptr, p.Dh, p.scale < 0 ? -1.0f : 1.0f);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = min(half ? r1 : r0, rows - 1);
      high[m][half] = position_of(s, r / p.group);
      low[m][half] = first_key(p, high[m][half]);
      state[m][half] = a.sinks.state(kv_head * p.group + r % p.group);
    }
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[m][n][e] = 0;
  }
  const float c = score_factor(p.scale);
  // Of the warp: no row sees a key outside [warp_low, warp_high], every row sees all of [all_low, all_high].
  const int warp_high = active ? position_of(s, warp_last / p.group) : -1, all_high = position_of(s, min(warp_row, rows - 1) / p.group);
  const int warp_low = first_key(p, all_high), all_low = first_key(p, warp_high);

  const auto copy = [&](int block, int stage) {
#pragma unroll
    for (int i = 0; i < 512 / kThreads; ++i) {
      const int chunk = i * kThreads + static_cast<int>(threadIdx.x), row = chunk / 8, at = chunk % 8, j = block + row;
      const bool valid = j >= first && j <= last;
      const int64_t from = valid ? key_row(p, s, j) : 0;
#pragma unroll
      for (int part = 0; part < Parts; ++part) {
        cp_async16(tile_at(shared + stage * kStage + part * kTile, row, at), a.k.row(head, from) + part * a.k.part + at * 8, valid);
        cp_async16(tile_at(shared + stage * kStage + (Parts + part) * kTile, row, at), a.v.row(head, from) + part * a.v.part + at * 8, valid);
      }
    }
    cp_async_commit();
  };

  const int begin = first / kKeys * kKeys;
  copy(begin, 0);
  for (int block = begin, stage = 0; block <= last; block += kKeys, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this stage has come, and every warp is done with the other
    if (block + kKeys <= last) copy(block + kKeys, stage ^ 1);
    if (!active || block > warp_high || block + kKeys - 1 < warp_low) continue;
    unsigned char *keys = shared + stage * kStage, *values = keys + Parts * kTile;
    float score[M][8][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) score[m][n][e] = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[Parts][4];
        load_rows<Parts>(b, keys, n * 16, step);
#pragma unroll
        for (int m = 0; m < M; ++m) multiply<Parts>(score[m][2 * n], score[m][2 * n + 1], q[m][step], b);
      }
    if (block < all_low || block + kKeys - 1 > all_high) {
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int j = block + n * 8 + 2 * t + e % 2;
            if (j < low[m][e / 2] || j > high[m][e / 2]) score[m][n][e] = -INFINITY;
          }
    }
    float before[M][2], here[M][2];
    uint32_t weight[M][4][Parts][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      RowState one[2];
      softmax_block(score[m], c, one);
#pragma unroll
      for (int half = 0; half < 2; ++half) fold(state[m][half], one[half], before[m][half], here[m][half]);
#pragma unroll
      for (int step = 0; step < 4; ++step) as_operand<Parts>(weight[m][step], score[m][2 * step], score[m][2 * step + 1]);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      float sum[M][2][4];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[m][0][e] = sum[m][1][e] = 0;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t b[Parts][4];
        load_columns<Parts>(b, values, step * 16, n);
#pragma unroll
        for (int m = 0; m < M; ++m) multiply<Parts>(sum[m][0], sum[m][1], weight[m][step], b);
      }
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int side = 0; side < 2; ++side)
#pragma unroll
          for (int e = 0; e < 4; ++e) out[m][2 * n + side][e] = fold_value(out[m][2 * n + side][e], sum[m][side][e], before[m][e / 2], here[m][e / 2]);
    }
  }

#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + m * 16 + g + half * 8;
      if (r >= rows) continue;
      const float inverse = 1.0f / state[m][half].sum;
      float* to = a.o + head_row(r) * p.Dh;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (n * 8 + 2 * t + e < p.Dh) to[n * 8 + 2 * t + e] = out[m][n][2 * half + e] * inverse;
      if (a.lse && t == 0) a.lse[head_row(r)] = log_sum(state[m][half]);
    }
}

template <int Parts, int M, int Warps> void forward(const Forward& f) {
  const Problem& p = f.p;
  const int64_t plane = p.S * kWidth;  // elements of one part of one head
  const int heads = heads_at_a_time(p, 2 * Parts * plane * 2);
  Workspace<uint16_t> planes(static_cast<size_t>(2 * Parts * heads * plane));
  const int64_t tiles = std::max<int64_t>(1, blocks_for(rows_of(p), Warps * 16 * M) + p.B);
  for (int head = 0; head < p.Hkv; head += heads) {
    const int n = std::min(heads, p.Hkv - head);
    const int64_t part = n * plane;
    pack_parts(Parts, planes.data(), part, p, f.k, p.S, 1, head, n, 1.0f, f.vectors, true);
    pack_parts(Parts, planes.data() + Parts * part, part, p, f.v, p.S, 1, head, n, 1.0f, f.vectors, true);
    const RowsArgs a{p, f.o, f.lse, f.q, f.sinks, {planes.data(), part, plane}, {planes.data() + Parts * part, part, plane}, head};
    launch(forward_rows<Parts, M, Warps>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(n)), dim3(Warps * kWarp), 4 * Parts * kTile, a);
  }
}

}  // namespace

void pack_parts(int parts, uint16_t* planes, int64_t part_step, const Problem& p, const float* src, int64_t rows, int group, int first_head, int heads, float factor, bool vectors, bool keys) {
  const Pack a{p, planes, part_step, rows, src, group, first_head, heads, keys, factor};
  const unsigned blocks = static_cast<unsigned>(blocks_for(rows * heads * group * 8, kPackThreads));
  with_width(vectors, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (parts == 1) launch(pack_kernel<1, W>, dim3(blocks), dim3(kPackThreads), 0, a);
    else launch(pack_kernel<kPartsF32, W>, dim3(blocks), dim3(kPackThreads), 0, a);
  });
}

}  // namespace attention

void attention_fwd(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks, TensorRef q_start, TensorRef k_start, TensorRef k_len, int64_t window,
                   int64_t ring, double scale) {
  using namespace attention;
  const Forward f{problem("attention_fwd", *q, *k, *q_start, *k_start, *k_len, window, ring, scale), o->f32(), lse ? lse->f32() : nullptr, q->f32(), k->f32(), v->f32(),
                  sinks_of(sinks), vectors(*k) && vectors(*v), kPartsF32};
  if (f.p.Dh > kWidth) forward_wide(f);
  else if (f.parts == 1) forward<1, 2, 4>(f);
  else forward<kPartsF32, 1, 4>(f);
}

}  // namespace temper::cuda
