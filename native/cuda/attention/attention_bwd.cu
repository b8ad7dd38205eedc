// Attention backward in two kernels, each the only writer of what it writes, so that no sum depends on the order in
// which blocks run: dq by rows of queries, dk and dv by blocks of keys. Scores and dout·v are formed in both: 7
// products instead of the 5 of a kernel with atomics.
//
// The two numbers, one layer of gpt-oss, T tokens in one sequence, w keys seen on average: 7·128·64·T·w operations,
// times P(P+1)/2 for P parts, and about 0.1 MB per token to move (q, o, dout, dq and the packed q and dout 16 KB each,
// some twice; k, v, dk, dv 2 KB each). T = 4096, full: 481 GF, 0.61 ms at 790 TFLOP/s for one part and 3.7 ms for
// three; 0.4 GB, 0.1 ms at 4.3 TB/s; 1.1 G exponentials, 0.3 ms. H200: 3.5 ms and 12.9 ms; with one part it takes
// attention_bwd_wgmma.cu now.
#include "cuda/attention/attention.h"
#include "gpu/ops.h"

namespace temper::gpu {
namespace attention {
namespace {

constexpr int kDotThreads = 256, kDotRows = kDotThreads / kWarp, kSinkTokens = workspace::kSinkTokens;

// dot[t,h] = Σ_d dout·o, a warp to a row. stats (null: not wanted) gets (lse·log2 e, dot) in the order of pack_parts'
// rows: [kv head][token·group + head of it].
template <int W>
__global__ void __launch_bounds__(kDotThreads) dot_kernel(float* dot, Stats* stats, const float* dout, const float* o,
                                                          const float* lse, int64_t T, int H, int group, int Dh) {
  wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kDotRows + threadIdx.x / kWarp;
  if (row >= T * H) return;
  float sum = 0;
  for (int d = static_cast<int>(threadIdx.x) % kWarp * W; d < Dh; d += kWarp * W) {
    const Floats<W> a = load<W>(dout + row * Dh + d), b = load<W>(o + row * Dh + d);
#pragma unroll
    for (int i = 0; i < W; ++i) sum = fused(a.v[i], b.v[i], sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp != 0) return;
  dot[row] = sum;
  if (!stats) return;
  const int64_t token = row / H;
  const int head = static_cast<int>(row % H);
  stats[head / group * T * group + token * group + head % group] = {lse[row] * kLog2e, sum};
}

// Σ over a chunk of tokens of −exp(sink − lse)·dot, one thread to a head, then over the chunks: no order is left to
// chance.
__global__ void __launch_bounds__(kDotThreads)
    sink_chunks(double* partial, const float* dot, const float* lse, Sinks sinks, int64_t T, int H) {
  wait_for_previous();
  const int h = static_cast<int>(blockIdx.y) * kDotThreads + static_cast<int>(threadIdx.x);
  if (h >= H) return;
  const float sink = sinks.bf16 ? bf16_to_float(static_cast<const uint16_t*>(sinks.data)[h])
                                : static_cast<const float*>(sinks.data)[h];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSinkTokens,
                end = begin + kSinkTokens < T ? begin + kSinkTokens : T;
  double sum = 0;
  for (int64_t t = begin; t < end; ++t) sum -= exp(static_cast<double>(sink) - lse[t * H + h]) * dot[t * H + h];
  partial[static_cast<int64_t>(blockIdx.x) * H + h] = sum;
}
__global__ void __launch_bounds__(kDotThreads) sink_sum(float* dsinks, const double* partial, int64_t chunks, int H) {
  wait_for_previous();
  const int h = static_cast<int>(blockIdx.x) * kDotThreads + static_cast<int>(threadIdx.x);
  if (h >= H) return;
  double sum = dsinks[h];
  for (int64_t c = 0; c < chunks; ++c) sum += partial[c * H + h];
  dsinks[h] = static_cast<float>(sum);
}

struct BackwardArgs {
  Problem p;
  float *dq, *dk, *dv;
  const float *dout, *q, *k, *v;
  const Stats* stats;      // of all kv heads
  const uint16_t* packed;  // K and V for dq; Q and dout for dk and dv
  int first_head;
};

// A warp's M·16 rows: operands, the last key that each row sees and its statistics.
template <int Parts, int M>
struct OwnRows {
  uint32_t q[M][kSteps][Parts][4], dout[M][kSteps][Parts][4];
  int high[M][2];
  Stats stats[M][2];
};
template <int Parts, int M>
TEMPER_DEVICE void load_own(OwnRows<Parts, M>& own, const BackwardArgs& a, const Sequence& s, int kv_head,
                            int warp_row) {
  const Problem& p = a.p;
  const int g = static_cast<int>(threadIdx.x) % kWarp / 4, rows = s.queries * p.group;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int r0 = warp_row + m * 16 + g, r1 = r0 + 8;
    const int64_t at0 = r0 < rows ? head_row(p, s, kv_head, r0) * p.Dh : 0,
                  at1 = r1 < rows ? head_row(p, s, kv_head, r1) * p.Dh : 0;
    load_operand<Parts>(own.q[m], r0 < rows ? a.q + at0 : nullptr, r1 < rows ? a.q + at1 : nullptr, p.Dh,
                        p.scale < 0 ? -1.0f : 1.0f);
    load_operand<Parts>(own.dout[m], r0 < rows ? a.dout + at0 : nullptr, r1 < rows ? a.dout + at1 : nullptr, p.Dh,
                        1.0f);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = min(half ? r1 : r0, rows - 1);
      own.high[m][half] = position_of(s, r / p.group);
      own.stats[m][half] = a.stats[(kv_head * p.T + s.row) * p.group + r];
    }
  }
}
// ds of a warp's rows and the 16 keys from `from` on, which are rows `part16`… of the tiles; as operands.
template <int Parts, int M>
TEMPER_DEVICE void row_slopes(uint32_t (&ds)[M][Parts][4], const OwnRows<Parts, M>& own, unsigned char* keys,
                              unsigned char* values, int part16, const Problem& p, float c, int from, bool masked) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  float score[M][2][4], slope[M][2][4];
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int e = 0; e < 4; ++e) score[m][0][e] = score[m][1][e] = slope[m][0][e] = slope[m][1][e] = 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t b[Parts][4];
    load_rows<Parts>(b, keys, part16, step);
#pragma unroll
    for (int m = 0; m < M; ++m) multiply<Parts>(score[m][0], score[m][1], own.q[m][step], b);
    load_rows<Parts>(b, values, part16, step);
#pragma unroll
    for (int m = 0; m < M; ++m) multiply<Parts>(slope[m][0], slope[m][1], own.dout[m][step], b);
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = from + n * 8 + 2 * t + e % 2, high = own.high[m][e / 2];
        const Stats& stats = own.stats[m][e / 2];
        float weight = exp2_approx(fused(score[m][n][e], c, -stats.log_sum));
        if (masked && (j < first_key(p, high) || j > high)) weight = 0;
        slope[m][n][e] = weight * (slope[m][n][e] - stats.dot);
      }
    as_operand<Parts>(ds[m], slope[m][0], slope[m][1]);
  }
}

// Rows as in forward_rows, M·16 to a warp; the keys of a block are taken 16 at a time, so that only 16·16 scores and
// their gradients are alive. Shared memory: Parts·32 KiB. 220–241 registers (three parts, 64 rows a block) and 220–224
// (one part, 128 rows), none spilled: 2 blocks of 4 warps on an H200's multiprocessor.
template <int Parts, int M, int Warps>
__global__ void __launch_bounds__(Warps* kWarp) backward_rows(BackwardArgs a) {
  wait_for_previous();
  constexpr int kThreads = Warps * kWarp, kRows = Warps * 16 * M, kStage = 2 * Parts * kTile;
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  const Problem& p = a.p;
  Sequence s;
  int64_t tile;
  if (!find_sequence<kThreads>(
          p, blockIdx.x,
          [&](const Sequence& x) { return (static_cast<long long>(x.queries) * p.group + kRows - 1) / kRows; }, s,
          tile))
    return;
  const int rows = s.queries * p.group, tiles = (rows + kRows - 1) / kRows;
  const int tile_row = (tiles - 1 - static_cast<int>(tile)) * kRows, tile_last = min(tile_row + kRows, rows) - 1;
  const int first = first_key(p, position_of(s, tile_row / p.group)), last = position_of(s, tile_last / p.group);
  const int head = static_cast<int>(blockIdx.y), kv_head = a.first_head + head;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, g = lane / 4,
            t = lane % 4;
  const int warp_row = tile_row + warp * 16 * M, warp_last = min(warp_row + 16 * M, rows) - 1;
  const bool active = warp_row < rows;

  OwnRows<Parts, M> own;
  load_own(own, a, s, kv_head, warp_row);
  float dq[M][8][4];
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) dq[m][n][e] = 0;
  const float c = score_factor(p.scale);
  const int warp_high = active ? position_of(s, warp_last / p.group) : -1,
            all_high = position_of(s, min(warp_row, rows - 1) / p.group);

  const uint16_t* packed = a.packed + (head * p.S + s.key) * kPacked<Parts>;
  const auto copy = [&](int block, int stage) {
    copy_tiles<Parts, kThreads>(packed, shared + stage * kStage,
                                [&](int row) { return block + row < first || block + row > last ? -1 : block + row; });
  };

  const int begin = first / kKeys * kKeys;
  copy(begin, 0);
  for (int block = begin, stage = 0; block <= last; block += kKeys, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this stage has come, and every warp is done with the other
    if (block + kKeys <= last) copy(block + kKeys, stage ^ 1);
    unsigned char *keys = shared + stage * kStage, *values = keys + Parts * kTile;
#pragma unroll 1
    for (int part16 = 0; part16 < kKeys; part16 += 16) {
      const int from = block + part16;
      if (from > warp_high || from + 15 < first_key(p, all_high)) continue;
      uint32_t ds[M][Parts][4];
      row_slopes(ds, own, keys, values, part16, p, c, from, from < first_key(p, warp_high) || from + 15 > all_high);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[Parts][4];
        load_columns<Parts>(b, keys, part16, n);
#pragma unroll
        for (int m = 0; m < M; ++m) multiply<Parts>(dq[m][2 * n], dq[m][2 * n + 1], ds[m], b);
      }
    }
  }

#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + m * 16 + g + half * 8;
      if (r >= rows) continue;
      float* to = a.dq + head_row(p, s, kv_head, r) * p.Dh;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (n * 8 + 2 * t + e < p.Dh) to[n * 8 + 2 * t + e] = p.scale * dq[m][n][2 * half + e];
    }
}

// A warp owns 16 keys, with K and V as A operands, and takes the rows that see them Sub at a time: scoresᵀ = K·Qᵀ
// leaves the probabilities as the A operand of dv = Pᵀ·dout and dk = dSᵀ·Q. Row tiles begin at multiples of 64 rows of
// the sequence's queries. Shared memory: two stages of Q and dout tiles and of 64 rows' stats, Parts·32 KiB + 1 KiB.
// 255 registers (three parts, 64 keys a block, 2 blocks on an H200's multiprocessor) and 204 (one part, 128 keys, 1
// block), none spilled; in functions of its own the middle of it spills.
template <int Parts, int Warps, int Sub>
__global__ void __launch_bounds__(Warps* kWarp) backward_keys(BackwardArgs a) {
  wait_for_previous();
  constexpr int kThreads = Warps * kWarp, kOwn = Warps * 16, kStage = 2 * Parts * kTile, kPairs = Sub / 16;
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  Stats* shared_stats = reinterpret_cast<Stats*>(shared + 2 * kStage);
  const Problem& p = a.p;
  Sequence s;
  const Sequence* kept;
  int64_t tile;
  const auto own_begin = [&](const Sequence& x) { return first_key(p, position_of(x, 0)) / kOwn * kOwn; };
  if (!find_sequence<kThreads>(
          p, blockIdx.x,
          [&](const Sequence& x) { return x.queries > 0 ? (x.length - own_begin(x) + kOwn - 1) / kOwn : 0; }, s, tile,
          &kept))
    return;
  const int begin = own_begin(s) + static_cast<int>(tile) * kOwn, last = min(begin + kOwn, s.length) - 1;
  const int head = static_cast<int>(blockIdx.y), kv_head = a.first_head + head;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, g = lane / 4,
            t = lane % 4;
  const int warp_key = begin + warp * 16, position = position_of(s, 0);
  const bool active = warp_key <= last;

  const int j0 = warp_key + g, j1 = j0 + 8;
  const auto at = [&](int j) { return ((kept->key + j) * p.Hkv + kv_head) * p.Dh; };
  KeptRows<Parts> k, v;
  k.load(j0 <= last ? a.k + at(j0) : nullptr, j1 <= last ? a.k + at(j1) : nullptr, p.Dh);
  v.load(j0 <= last ? a.v + at(j0) : nullptr, j1 <= last ? a.v + at(j1) : nullptr, p.Dh);
  float dk[8][4], dv[8][4];
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) dk[n][e] = dv[n][e] = 0;
  const float c = score_factor(p.scale);

  // The rows that see a key of this block.
  const int rows = s.queries * p.group;
  const int row_begin = (begin > position ? begin - position : 0) * p.group / 64 * 64;
  const int row_end =
      p.window > 0 && p.window - 1 < s.length - 1 - last ? (last + p.window - position) * p.group : rows;

  const auto copy = [&](int begin_row, int stage) {
    const uint16_t* packed = a.packed + (head * p.T + kept->row) * p.group * kPacked<Parts>;
    copy_tiles<Parts, kThreads>(packed, shared + stage * kStage,
                                [&](int row) { return begin_row + row < row_end ? begin_row + row : -1; });
    const int r = begin_row + static_cast<int>(threadIdx.x);
    if (threadIdx.x < 64 && r < row_end)
      shared_stats[stage * 64 + threadIdx.x] = a.stats[(kv_head * p.T + kept->row) * p.group + r];
  };

  copy(row_begin, 0);
  for (int row = row_begin, stage = 0; row < row_end; row += 64, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this stage has come, and every warp is done with the other
    if (row + 64 < row_end) copy(row + 64, stage ^ 1);
    if (!active) continue;
    unsigned char *queries = shared + stage * kStage, *slopes = queries + Parts * kTile;
#pragma unroll 1
    for (int sub = 0; sub < 64; sub += Sub) {
      const int r = row + sub, r_last = min(r + Sub, row_end) - 1;
      if (r > r_last) break;
      const int p_first = position + r / p.group, p_last = position + r_last / p.group;
      if (warp_key > p_last || warp_key + 15 < first_key(p, p_first)) continue;
      const bool masked = r + Sub > row_end || warp_key + 15 > p_first || warp_key < first_key(p, p_last);
      float score[2 * kPairs][4], slope[2 * kPairs][4];
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) score[n][e] = slope[n][e] = 0;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        uint32_t keys[Parts][4], values[Parts][4];
        k.operand(keys, step);
        v.operand(values, step);
#pragma unroll
        for (int n = 0; n < kPairs; ++n) {
          uint32_t b[Parts][4];
          load_rows<Parts>(b, queries, sub + n * 16, step);
          multiply<Parts>(score[2 * n], score[2 * n + 1], keys, b);
          load_rows<Parts>(b, slopes, sub + n * 16, step);
          multiply<Parts>(slope[2 * n], slope[2 * n + 1], values, b);
        }
      }
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const int column = n * 8 + 2 * t + side;
          const Stats x = shared_stats[stage * 64 + sub + column];
          int row_high = 0, row_low = 0;
          if (masked) {
            row_high = r + column < row_end ? position + (r + column) / p.group : -1;
            row_low = first_key(p, row_high);
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int e = half * 2 + side, j = half ? j1 : j0;
            const bool seen = !masked || (j >= row_low && j <= row_high);  // where not, x may be anything
            const float weight = seen ? exp2_approx(fused(score[n][e], c, -x.log_sum)) : 0.0f;
            score[n][e] = weight;
            slope[n][e] = seen ? weight * (slope[n][e] - x.dot) : 0.0f;
          }
        }
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        uint32_t weight[Parts][4];
        as_operand<Parts>(weight, score[2 * n], score[2 * n + 1]);
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          uint32_t b[Parts][4];
          load_columns<Parts>(b, slopes, sub + n * 16, d);
          multiply<Parts>(dv[2 * d], dv[2 * d + 1], weight, b);
        }
        as_operand<Parts>(weight, slope[2 * n], slope[2 * n + 1]);
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          uint32_t b[Parts][4];
          load_columns<Parts>(b, queries, sub + n * 16, d);
          multiply<Parts>(dk[2 * d], dk[2 * d + 1], weight, b);
        }
      }
    }
  }

  const float factor = p.scale < 0 ? -p.scale : p.scale;  // its sign is in the packed Q
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = half ? j1 : j0;
    if (j >= begin + kOwn || j >= kept->length) continue;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = n * 8 + 2 * t + e;
        if (d >= p.Dh) continue;
        a.dk[at(j) + d] = fused(factor, dk[n][2 * half + e], a.dk[at(j) + d]);
        a.dv[at(j) + d] += dv[n][2 * half + e];
      }
  }
}

template <int Parts, int M, int Warps, int KeyWarps, int Sub>
void backward(const Backward& b, const Stats* stats) {
  const Problem& p = b.p;
  BackwardArgs a{p, b.dq, b.dk, b.dv, b.dout, b.q, b.k, b.v, stats, nullptr, 0};
  {
    const int heads = heads_at_a_time(p, p.S, Parts);
    Workspace<uint16_t> packed(static_cast<size_t>(heads * p.S * kPacked<Parts>));
    const int64_t tiles = std::max<int64_t>(1, blocks_for(rows_of(p), Warps * 16 * M) + p.B);
    a.packed = packed.data();
    for (a.first_head = 0; a.first_head < p.Hkv; a.first_head += heads) {
      const int n = std::min(heads, p.Hkv - a.first_head);
      pack_parts(Parts, packed.data(), false, p, {b.k, false}, p.S, 1, a.first_head, n, 1.0f, b.key_vectors, true);
      pack_parts(Parts, packed.data(), true, p, {b.v, false}, p.S, 1, a.first_head, n, 1.0f, b.key_vectors, true);
      launch(backward_rows<Parts, M, Warps>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(n)),
             dim3(Warps * kWarp), 4 * Parts * kTile, a);
    }
  }
  const int heads = heads_at_a_time(p, rows_of(p), Parts);
  Workspace<uint16_t> packed(static_cast<size_t>(heads * rows_of(p) * kPacked<Parts>));
  const int64_t tiles = std::max<int64_t>(1, blocks_for(p.S, KeyWarps * 16) + 2 * p.B);
  a.packed = packed.data();
  for (a.first_head = 0; a.first_head < p.Hkv; a.first_head += heads) {
    const int n = std::min(heads, p.Hkv - a.first_head);
    pack_parts(Parts, packed.data(), false, p, {b.q, false}, p.T, p.group, a.first_head, n, p.scale < 0 ? -1.0f : 1.0f,
               b.query_vectors, false);
    pack_parts(Parts, packed.data(), true, p, {b.dout, false}, p.T, p.group, a.first_head, n, 1.0f, b.query_vectors,
               false);
    launch(backward_keys<Parts, KeyWarps, Sub>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(n)),
           dim3(KeyWarps * kWarp), 4 * Parts * kTile + 128 * sizeof(Stats), a);
  }
}

}  // namespace
}  // namespace attention

void attention_bwd(TensorRef dq, TensorRef dk, TensorRef dv, TensorRef dsinks, TensorRef dout, TensorRef q, TensorRef k,
                   TensorRef v, TensorRef o, TensorRef lse, TensorRef sinks, TensorRef q_start, TensorRef k_start,
                   TensorRef k_len, int64_t window, double scale, int64_t precision) {
  using namespace attention;
  Problem p = problem("attention_bwd", *q, *k, *q_start, k_start, *k_len, window, 0, scale);
  p.separate = 1;
  const bool wide = p.Dh > kWidth, query_vectors = vectors(*q) && vectors(*dout),
             warpgroups = attention_choice() != AttentionChoice::mma && wgmma_suits(p, parts_of(precision));
  Workspace<float> dot(static_cast<size_t>(p.T * p.H));
  Workspace<Stats> stats(wide || warpgroups ? 0 : static_cast<size_t>(p.T * p.H));
  with_width(vectors(*dout) && vectors(*o), [&](auto width) {
    launch(dot_kernel<decltype(width)::value>, dim3(static_cast<unsigned>(blocks_for(p.T * p.H, kDotRows))),
           dim3(kDotThreads), 0, dot.data(), stats.data(), dout->f32(), o->f32(), lse->f32(), p.T, p.H, p.group, p.Dh);
  });
  if (dsinks && sinks) {
    const int64_t chunks = blocks_for(p.T, kSinkTokens);
    const unsigned columns = static_cast<unsigned>(blocks_for(p.H, kDotThreads));
    Workspace<double> partial(static_cast<size_t>(chunks * p.H));
    launch(sink_chunks, dim3(static_cast<unsigned>(chunks), columns), dim3(kDotThreads), 0, partial.data(), dot.data(),
           lse->f32(), sinks_of(sinks), p.T, p.H);
    launch(sink_sum, dim3(columns), dim3(kDotThreads), 0, dsinks->f32(), partial.data(), chunks, p.H);
  }
  const Backward b{p,
                   dq->f32(),
                   dk->f32(),
                   dv->f32(),
                   dout->f32(),
                   q->f32(),
                   k->f32(),
                   v->f32(),
                   lse->f32(),
                   dot.data(),
                   query_vectors,
                   vectors(*k) && vectors(*v),
                   parts_of(precision)};
  if (wide) backward_wide(b);
  else if (warpgroups) backward_wgmma(b);
  else if (b.parts == 1) backward<1, 2, 4, 8, 32>(b, stats.data());
  else backward<kPartsF32, 1, 4, 4, 16>(b, stats.data());
}

}  // namespace temper::gpu
