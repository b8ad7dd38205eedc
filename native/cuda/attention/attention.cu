// Attention forward for many queries, after the blocked softmax of arXiv:2205.14135 and 2307.08691, with the heads of a
// kv head packed into the rows of a tile. K and V are first written once as bf16 parts (pack_parts), so that the inner
// loop copies tiles and does nothing but mma and exponentials.
//
// The two numbers, one layer of gpt-oss (64 heads over 8, width 64), T tokens in one sequence, w keys seen on average
// (T/2, or 128 with a window): 256·64·T·w operations in products kept, times P(P+1)/2 for P parts, and 36 KB per token
// to move (q, o: 16 KB each, k, v: 2 KB each). T = 4096, full: 137 GF·P(P+1)/2 and 151 MB; at 790 TFLOP/s and 4.3 TB/s
// 0.17 ms for one part, 1.04 ms for three, and 0.035 ms. Exponentials are the third number: 64·T·w, 16 to a clock and
// multiprocessor: 0.15 ms on 132 of them at 1.75 GHz. H200, 4,096 tokens: 0.75 ms with one part, 2.0 with three;
// attention_fwd_wgmma.cu takes one part on request.
#include <cstdlib>
#include <string>

#include "cuda/attention/attention.h"
#include "gpu/ops.h"

namespace temper::gpu {
namespace attention {
namespace {

constexpr int kPackThreads = 256;

template <class From>
struct Pack {
  Problem p;
  uint16_t* packed;
  int64_t rows;
  const From* src;
  int group, first_head, heads, keys, second;
  float factor;
};

template <int Parts, int W, class From>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(Pack<From> a) {
  wait_for_previous();
  const int per_row = a.heads * a.group * 8;  // 16-byte chunks of one part
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (a.keys) {  // a cache holds far more rows than are in use
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kPackThreads / per_row,
                  last = (static_cast<int64_t>(blockIdx.x) * kPackThreads + kPackThreads - 1) / per_row;
    bool used = false;
    for (int64_t b = threadIdx.x; b < a.p.B; b += kPackThreads) {
      const int64_t start = a.p.pages ? b * a.p.table : a.p.k_start[b], length = a.p.k_len[b];
      used = used || (first < start + length && last >= start);
    }
    if (!__syncthreads_or(used)) return;
  }
  if (i >= a.rows * per_row) return;
  const int64_t row = i / per_row;
  const int within = static_cast<int>(i % per_row), head = within / 8, d = within % 8 * 8;
  int64_t from_row = row;
  if (a.keys && a.p.pages) {
    if (row % a.p.table >= a.p.k_len[row / a.p.table]) return;
    from_row = paged_row(a.p, row);
  }
  const From* from = a.src + (from_row * a.p.Hkv * a.group + a.first_head * a.group + head) * a.p.Dh + d;
  float x[8];
#pragma unroll
  for (int j = 0; j < 8; j += W) {
    if (W == 4 ? d + j < a.p.Dh : true) {
      if constexpr (W == 4) {
        const Floats<4> four = load<4>(from + j);
#pragma unroll
        for (int e = 0; e < 4; ++e) x[j + e] = a.factor * four.v[e];
      } else {
        x[j] = d + j < a.p.Dh ? a.factor * load<1>(from + j).v[0] : 0.0f;
      }
    } else {
#pragma unroll
      for (int e = 0; e < W; ++e) x[j + e] = 0.0f;
    }
  }
  uint32_t pair[4][Parts];
#pragma unroll
  for (int j = 0; j < 4; ++j) split<Parts>(x[2 * j], x[2 * j + 1], pair[j]);
  const int64_t to = head / a.group * a.rows * a.group + row * a.group + head % a.group;
#pragma unroll
  for (int part = 0; part < Parts; ++part)
    store_as(a.packed + to * kPacked<Parts> + (a.second * Parts + part) * kWidth + d,
             make_uint4(pair[0][part], pair[1][part], pair[2][part], pair[3][part]));
}

// A block: Warps·16 rows of one kv head against all blocks of keys they see; a warp has 16 of the rows. Shared memory:
// two stages of K and V tiles, Parts·32 KiB. Three parts: 245–249 registers, 96 KiB, so 2 blocks (8 warps) on an H200's
// multiprocessor and 1 where it has 100 KiB. One part: 2 blocks.
template <int Parts, int Warps>
__global__ void __launch_bounds__(Warps* kWarp, 2) forward_rows(RowsArgs a) {
  wait_for_previous();
  constexpr int kThreads = Warps * kWarp, kRows = Warps * 16, kStage = 2 * Parts * kTile;
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
  const int tile_row = (tiles - 1 - static_cast<int>(tile)) * kRows;  // the last rows see the most keys: they go first
  const int tile_last = min(tile_row + kRows, rows) - 1;
  const int first = first_key(p, position_of(s, tile_row / p.group)), last = position_of(s, tile_last / p.group);
  const int head = static_cast<int>(blockIdx.y), kv_head = a.first_head + head;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const int warp_row = tile_row + static_cast<int>(threadIdx.x) / kWarp * 16, warp_last = min(warp_row + 16, rows) - 1;
  const bool active = warp_row < rows;

  uint32_t q[kSteps][Parts][4];
  RowState state[2];
  float out[8][4];
  {
    const int r0 = warp_row + g, r1 = r0 + 8;
    load_operand<Parts>(q, r0 < rows ? a.q + head_row(p, s, kv_head, r0) * p.Dh : nullptr,
                        r1 < rows ? a.q + head_row(p, s, kv_head, r1) * p.Dh : nullptr, p.Dh,
                        p.scale < 0 ? -1.0f : 1.0f);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      state[half] = a.sinks.state(kv_head * p.group + min(half ? r1 : r0, rows - 1) % p.group);
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[n][e] = 0;
  }
  const float c = score_factor(p.scale);
  // No row of the warp sees a key beyond warp_high or before first_key(all_high); every row sees all from
  // first_key(warp_high) to all_high.
  const int warp_high = active ? position_of(s, warp_last / p.group) : -1,
            all_high = position_of(s, min(warp_row, rows - 1) / p.group);

  const uint16_t* packed = a.packed + (head * p.S + s.key) * kPacked<Parts>;
  const auto copy = [&](int block, int stage) {
    copy_tiles<Parts, kThreads>(packed, shared + stage * kStage, [&](int row) {
      const int j = block + row;
      return j < first || j > last ? -1 : p.ring > 0 ? j % p.ring : j;
    });
  };

  const int begin = first / kKeys * kKeys;
  copy(begin, 0);
  for (int block = begin, stage = 0; block <= last; block += kKeys, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this stage has come, and every warp is done with the other
    if (block + kKeys <= last) copy(block + kKeys, stage ^ 1);
    if (!active || block > warp_high || block + kKeys - 1 < first_key(p, all_high)) continue;
    unsigned char *keys = shared + stage * kStage, *values = keys + Parts * kTile;
    float score[8][4];
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) score[n][e] = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[Parts][4];
        load_rows<Parts>(b, keys, n * 16, step);
        multiply<Parts>(score[2 * n], score[2 * n + 1], q[step], b);
      }
    if (block < first_key(p, warp_high) || block + kKeys - 1 > all_high) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int high = position_of(s, min(warp_row + half * 8 + g, rows - 1) / p.group),
                  low = first_key(p, high) - block - 2 * t, end = high - block - 2 * t;
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (n * 8 + e < low || n * 8 + e > end) score[n][2 * half + e] = -INFINITY;
      }
    }
    RowState one[2];
    softmax_block(score, c, one);
    float before[2], here[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) fold(state[half], one[half], before[half], here[half]);
    constexpr int kAtOnce = Parts == 1 ? 1 : 4;  // times 16 columns of V: more sums alive, or all weights' parts
#pragma unroll
    for (int column = 0; column < 4; column += kAtOnce) {
      float sum[2 * kAtOnce][4];
#pragma unroll
      for (int n = 0; n < 2 * kAtOnce; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[n][e] = 0;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t weight[Parts][4];
        as_operand<Parts>(weight, score[2 * step], score[2 * step + 1]);
#pragma unroll
        for (int n = 0; n < kAtOnce; ++n) {
          uint32_t b[Parts][4];
          load_columns<Parts>(b, values, step * 16, column + n);
          multiply<Parts>(sum[2 * n], sum[2 * n + 1], weight, b);
        }
      }
#pragma unroll
      for (int n = 0; n < 2 * kAtOnce; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          out[2 * column + n][e] = fold_value(out[2 * column + n][e], sum[n][e], before[e / 2], here[e / 2]);
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp_row + g + half * 8;
    if (r >= rows) continue;
    const float inverse = 1.0f / state[half].sum;
    float* to = a.o + head_row(p, s, kv_head, r) * p.Dh;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (n * 8 + 2 * t + e < p.Dh) to[n * 8 + 2 * t + e] = out[n][2 * half + e] * inverse;
    if (a.lse && t == 0) a.lse[head_row(p, s, kv_head, r)] = log_sum(state[half]);
  }
}

template <int Parts, int Warps>
void forward(const Forward& f) {
  const int64_t tiles = std::max<int64_t>(1, blocks_for(rows_of(f.p), Warps * 16) + f.p.B);
  with_packed_keys(f, [&](const RowsArgs& a, int heads) {
    launch(forward_rows<Parts, Warps>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(heads)),
           dim3(Warps * kWarp), 4 * Parts * kTile, a);
  });
}

AttentionChoice& choice() {
  static AttentionChoice chosen = [] {
    const char* named = std::getenv("TEMPER_CUDA_ATTENTION");
    const std::string name = named ? named : "auto";
    require(name == "auto" || name == "mma" || name == "wgmma", "bad_option", "TEMPER_CUDA_ATTENTION: got ", name,
            ", wanted auto, mma or wgmma");
    return name == "mma" ? AttentionChoice::mma : name == "wgmma" ? AttentionChoice::wgmma : AttentionChoice::automatic;
  }();
  return chosen;
}

}  // namespace

AttentionChoice attention_choice() { return choice(); }
void set_attention_choice(AttentionChoice wanted) { choice() = wanted; }

void pack_parts(int parts, uint16_t* packed, bool second, const Problem& p, const Source& src, int64_t rows, int group,
                int first_head, int heads, float factor, bool vectors, bool keys) {
  const unsigned blocks = static_cast<unsigned>(blocks_for(rows * heads * group * 8, kPackThreads));
  with_source(src, [&](auto* from) {
    using From = std::remove_cv_t<std::remove_pointer_t<decltype(from)>>;
    const Pack<From> a{p, packed, rows, from, group, first_head, heads, keys, second, factor};
    with_width(vectors, [&](auto width) {
      constexpr int W = decltype(width)::value;
      if (parts == 1) launch(pack_kernel<1, W, From>, dim3(blocks), dim3(kPackThreads), 0, a);
      else launch(pack_kernel<kPartsF32, W, From>, dim3(blocks), dim3(kPackThreads), 0, a);
    });
  });
}

}  // namespace attention

void attention_fwd(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks,
                   TensorRef q_start, TensorRef k_start, TensorRef k_len, TensorRef pages, int64_t window, int64_t ring,
                   int64_t page, double scale, int64_t precision) {
  using namespace attention;
  const Forward f{problem("attention_fwd", *q, *k, *q_start, k_start, *k_len, window, ring, scale, {pages, page}),
                  o->f32(),
                  lse ? lse->f32() : nullptr,
                  q->f32(),
                  source_of(*k),
                  source_of(*v),
                  sinks_of(sinks),
                  vectors(*k) && vectors(*v),
                  parts_of(precision)};
  if (f.p.Dh > kWidth) forward_wide(f);
  else if (split_fits(f.p)) forward_split(f);
  else if (attention_choice() == AttentionChoice::wgmma && wgmma_suits(f.p, f.parts)) forward_wgmma(f);
  else if (f.parts == 1) forward<1, 4>(f);
  else forward<kPartsF32, 4>(f);
}

}  // namespace temper::gpu
