// Attention for few queries over long keys (decode): the blocks of one query's keys are computed by many thread blocks
// at once. Runs of blocks are dealt out by the lengths found in device memory, so one captured graph serves every
// length. The first run folds its blocks as it goes; the others leave each block's largest score, sum and value sums,
// which a second kernel folds on in order: the same sums, bit for bit, as forward_rows forms.
//
// The two numbers, one layer of gpt-oss over n keys: 4 KB·n to read (k and v, f32) and 1/16 of it to write and read
// again where split, which is the floor (n = 4096: 16.8 MB, 3.9 µs at 4.3 TB/s); 2·2·16·64·8·n operations, times
// P(P+1)/2 for P parts (half of the 16 rows stand empty at one query of 8 heads): 0.8 GF for three, 1 µs at 790
// TFLOP/s.
#include "cuda/attention/attention.h"

namespace temper::gpu::attention {
namespace {

// kStride: floats between rows of scores, so that a warp's pairs lie in different banks
constexpr int kThreads = 128, kRows = 16, kStride = 72, kQueries = kRows * kWidth * 2;
constexpr int kDirect = 4;  // up to so many blocks one thread block takes them all
// thread blocks on a multiprocessor: each keeps 16 KiB of loads in flight
constexpr int kResident = 2;
static_assert(kRows == workspace::kSplitRows && kKeys == workspace::kSplitKeys && kDirect == workspace::kSplitDirect &&
              sizeof(RowState) == 8);

struct SplitArgs {
  Forward f;
  float* sums;       // [slot·Hkv + head][kRows][kWidth]
  RowState* states;  // [slot·Hkv + head][kRows]
  long long slots;
  int spread;  // thread blocks to deal runs to
};

TEMPER_DEVICE int tiles_of(const Problem& p, const Sequence& s) { return (s.queries * p.group + kRows - 1) / kRows; }
TEMPER_DEVICE int first_block(const Problem& p, const Sequence& s) { return first_key(p, position_of(s, 0)) / kKeys; }
TEMPER_DEVICE int blocks_of(const Problem& p, const Sequence& s) {
  return s.queries > 0 ? (s.length - 1) / kKeys - first_block(p, s) + 1 : 0;
}

struct Deal {
  long long work;  // Σ tiles · blocks
  int run;         // blocks in a run
  // A sequence whose blocks would need slots beyond the last is taken in one run.
  TEMPER_DEVICE int runs(long long slot, int tiles, int blocks, long long slots) const {
    return blocks <= kDirect || blocks <= run || slot + static_cast<long long>(tiles) * blocks > slots
               ? 1
               : (blocks + run - 1) / run;
  }
};
// False and a report when a sequence is wrong.
TEMPER_DEVICE bool make_deal(const SplitArgs& a, Deal& deal) {
  const Problem& p = a.f.p;
  deal.work = 0;
  for (int64_t base = 0; base < p.B; base += kThreads) {
    const int64_t b = base + threadIdx.x;
    Sequence s{0, 0, 0, 0, 0};
    const bool bad = b < p.B && !read_sequence(p, b, s);
    if (__syncthreads_or(bad)) return false;
    long long total;
    block_scan<kThreads>(b < p.B ? static_cast<long long>(tiles_of(p, s)) * blocks_of(p, s) : 0, total);
    deal.work += total;
  }
  const long long run = (deal.work * p.Hkv + a.spread - 1) / a.spread;
  deal.run = static_cast<int>(run<1 ? 1 : run>(1 << 24) ? 1 << 24 : run);
  return true;
}

struct Piece {
  Sequence s;
  long long slot;
  int place, tiles, blocks, runs;
};  // place: among the items of its sequence
// The piece that stands at `item`: of all runs, or, to be folded on, one per tile and head of what is split.
TEMPER_DEVICE bool find_piece(const SplitArgs& a, const Deal& deal, bool only_split, long long item, Piece& out) {
  const Problem& p = a.f.p;
  __shared__ Piece chosen;
  __shared__ int found;
  __syncthreads();  // an earlier call's piece is read
  if (threadIdx.x == 0) found = 0;
  long long slots = 0, items = 0;
  for (int64_t base = 0; base < p.B && items <= item; base += kThreads) {
    const int64_t b = base + threadIdx.x;
    Sequence s{0, 0, 0, 0, 0};
    if (b < p.B) read_sequence(p, b, s);
    const int tiles = tiles_of(p, s), blocks = blocks_of(p, s);
    long long total;
    const long long slot = slots + block_scan<kThreads>(static_cast<long long>(tiles) * blocks, total);
    slots += total;
    const int runs = deal.runs(slot, tiles, blocks, a.slots);
    const long long count = static_cast<long long>(tiles) * p.Hkv * (only_split ? runs > 1 : runs);
    const long long mine = items + block_scan<kThreads>(count, total);
    if (item >= mine && item < mine + count) {
      chosen = {s, slot, static_cast<int>(item - mine), tiles, blocks, runs};
      found = 1;
    }
    items += total;
  }
  __syncthreads();
  out = chosen;
  return found != 0;
}

// What a thread block works on: a tile of 16 rows of one head, and the blocks [begin, end) of the keys that they see.
struct Run {
  const Sequence& s;
  int head, tile_row, rows;  // rows: of the whole sequence
  int first, last;           // keys that the tile's rows see
  int base, begin, end;      // blocks count from block `base` of the sequence
  int high[2];               // the last keys that this thread's two rows see
};
TEMPER_DEVICE int64_t head_row(const Problem& p, const Run& run, int r) {
  return (run.s.row + r / p.group) * p.H + run.head * p.group + r % p.group;
}
// Row r, 0 or 1, of this thread's two in the tile.
TEMPER_DEVICE int own_row(const Run& run, int half) {
  return run.tile_row + static_cast<int>(threadIdx.x) % kWarp / 4 + half * 8;
}

// Q of the tile as parts; a barrier makes it visible.
template <int Parts>
TEMPER_DEVICE void put_queries(unsigned char* queries, const SplitArgs& a, const Run& run) {
  const Problem& p = a.f.p;
  const float sign = p.scale < 0 ? -1.0f : 1.0f;
  const int row = static_cast<int>(threadIdx.x) / 8, chunk = static_cast<int>(threadIdx.x) % 8, r = run.tile_row + row;
  const float* from = a.f.q + (r < run.rows ? head_row(p, run, r) * p.Dh : 0) + chunk * 8;
  uint32_t pair[4][Parts];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int d = chunk * 8 + 2 * e;
    split<Parts>(r < run.rows && d < p.Dh ? sign * from[2 * e] : 0.0f,
                 r < run.rows && d + 1 < p.Dh ? sign * from[2 * e + 1] : 0.0f, pair[e]);
  }
#pragma unroll
  for (int part = 0; part < Parts; ++part)
    store_as(tile_at(queries + part * kQueries, row, chunk),
             make_uint4(pair[0][part], pair[1][part], pair[2][part], pair[3][part]));
}

// A thread's share of 64 rows of K or V: 4 chunks of 8 floats, in flight while what came before is computed.
template <int W, class Key>
TEMPER_DEVICE void fetch(float (&x)[4][8], const Source& source, const Problem& p, const Run& run, int block) {
  const Key* from = static_cast<const Key*>(source.data);
  // A page holds whole blocks, so the rows of one follow one another; in a ring each is found by itself.
  const int begin = (run.base + block) * kKeys;
  const int64_t begin_row = p.pages && block < run.end ? paged_row(p, run.s.key + begin) : run.s.key + begin;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int chunk = i * kThreads + static_cast<int>(threadIdx.x), j = begin + chunk / 8, d = chunk % 8 * 8;
    const bool valid = block < run.end && j >= run.first && j <= run.last;
    const int64_t at = !valid ? 0 : p.ring > 0 ? run.s.key + j % p.ring : begin_row + chunk / 8;
    const Key* row = from + (at * p.Hkv + run.head) * p.Dh + d;
#pragma unroll
    for (int e = 0; e < 8; e += W) {
      if (valid && d + e < p.Dh) {
        const Floats<W> v = load<W>(row + e);
#pragma unroll
        for (int w = 0; w < W; ++w) x[i][e + w] = v.v[w];
      } else {
#pragma unroll
        for (int w = 0; w < W; ++w) x[i][e + w] = 0;
      }
    }
  }
}
template <int Parts>
TEMPER_DEVICE void put(unsigned char* tile, const float (&x)[4][8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int chunk = i * kThreads + static_cast<int>(threadIdx.x);
    uint32_t pair[4][Parts];
#pragma unroll
    for (int e = 0; e < 4; ++e) split<Parts>(x[i][2 * e], x[i][2 * e + 1], pair[e]);
#pragma unroll
    for (int part = 0; part < Parts; ++part)
      store_as(tile_at(tile + part * kTile, chunk / 8, chunk % 8),
               make_uint4(pair[0][part], pair[1][part], pair[2][part], pair[3][part]));
  }
}

// Scores of the tile's rows and a block's keys, −∞ where a row does not see one; a warp takes 16 of the keys.
template <int Parts>
TEMPER_DEVICE void score_block(float* scores, unsigned char* keys, unsigned char* queries, const Problem& p,
                               const Run& run, int block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float score[2][4];
#pragma unroll
  for (int e = 0; e < 4; ++e) score[0][e] = score[1][e] = 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t q[Parts][4], b[Parts][4];
#pragma unroll
    for (int part = 0; part < Parts; ++part)
      ldmatrix_x4(q[part], tile_at(queries + part * kQueries, lane % 16, step * 2 + lane / 16));
    load_rows<Parts>(b, keys, warp * 16, step);
    multiply<Parts>(score[0], score[1], q, b);
  }
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = warp * 16 + n * 8 + 2 * (lane % 4), j = (run.base + block) * kKeys + column,
                low = first_key(p, run.high[half]);
      float* to = scores + (lane / 4 + half * 8) * kStride + column;
      to[0] = j < low || j > run.high[half] ? -INFINITY : score[n][2 * half];
      to[1] = j + 1 < low || j + 1 > run.high[half] ? -INFINITY : score[n][2 * half + 1];
    }
}
// sum = weights of all 64 keys times 16 columns of V, a warp's own.
template <int Parts>
TEMPER_DEVICE void weigh_values(float (&sum)[2][4], const float (&weight)[8][4], unsigned char* values) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int e = 0; e < 4; ++e) sum[0][e] = sum[1][e] = 0;
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    uint32_t b[Parts][4], operand[Parts][4];
    as_operand<Parts>(operand, weight[2 * step], weight[2 * step + 1]);
    load_columns<Parts>(b, values, step * 16, warp);
    multiply<Parts>(sum[0], sum[1], operand, b);
  }
}

// Leaves a row's sums and state in slot row `at`.
TEMPER_DEVICE void leave(const SplitArgs& a, int64_t at, const float (&sum)[2][4], const RowState& state, int half) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) a.sums[at * kWidth + warp * 16 + n * 8 + 2 * t + e] = sum[n][2 * half + e];
  if (warp == 0 && t == 0) a.states[at] = state;
}
// Writes the output of a tile whose blocks were all folded.
TEMPER_DEVICE void finish(const SplitArgs& a, const Run& run, const float (&out)[2][4], const RowState (&state)[2]) {
  const Problem& p = a.f.p;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = own_row(run, half);
    if (r >= run.rows) continue;
    const float inverse = 1.0f / state[half].sum;
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = warp * 16 + n * 8 + 2 * t + e;
        if (d < p.Dh) a.f.o[head_row(p, run, r) * p.Dh + d] = out[n][2 * half + e] * inverse;
      }
    if (a.f.lse && warp == 0 && t == 0) a.f.lse[head_row(p, run, r)] = log_sum(state[half]);
  }
}

// Shared memory: one tile of Parts, used by K and then by V, 16 rows of Q and of scores: Parts·10 KiB + 4.5 KiB.
// 168–228 registers at 16-byte loads, none spilled: 2 blocks of 4 warps on a multiprocessor.
template <int Parts, int W, class Key>
__global__ void __launch_bounds__(kThreads, kResident) split_kernel(SplitArgs a) {
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  unsigned char* queries = shared + Parts * kTile;
  float* scores = reinterpret_cast<float*>(queries + Parts * kQueries);
  const Problem& p = a.f.p;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const float c = score_factor(p.scale);
  Deal deal;
  if (!make_deal(a, deal)) return;
  Piece piece;
  for (long long item = blockIdx.x; find_piece(a, deal, false, item, piece); item += gridDim.x) {
    const int tile = piece.place / p.Hkv % piece.tiles, index = piece.place / p.Hkv / piece.tiles;
    const int run_blocks = piece.runs == 1 ? piece.blocks : deal.run, rows = piece.s.queries * p.group,
              tile_row = tile * kRows, tile_last = min(tile_row + kRows, rows) - 1;
    Run run{piece.s,
            piece.place % p.Hkv,
            tile_row,
            rows,
            first_key(p, position_of(piece.s, tile_row / p.group)),
            position_of(piece.s, tile_last / p.group),
            first_block(p, piece.s),
            index * run_blocks,
            min(index * run_blocks + run_blocks, piece.blocks),
            {}};
    put_queries<Parts>(queries, a, run);  // the barriers before the first product make it visible
    RowState state[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = min(own_row(run, half), rows - 1);
      run.high[half] = position_of(piece.s, r / p.group);
      state[half] = a.f.sinks.state(run.head * p.group + r % p.group);
    }
    float out[2][4];
#pragma unroll
    for (int e = 0; e < 4; ++e) out[0][e] = out[1][e] = 0;

    float fetched[4][8];  // K, then V, by turns
    fetch<W, Key>(fetched, a.f.k, p, run, run.begin);
    for (int block = run.begin; block < run.end; ++block) {
      __syncthreads();  // the V of the block before is read
      put<Parts>(shared, fetched);
      fetch<W, Key>(fetched, a.f.v, p, run, block);
      __syncthreads();
      score_block<Parts>(scores, shared, queries, p, run, block);
      __syncthreads();
      put<Parts>(shared, fetched);
      fetch<W, Key>(fetched, a.f.k, p, run, block + 1);
      float weight[8][4];  // of all 64 keys, in every warp: the sums are the ones forward_rows forms
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) weight[n][e] = scores[(g + e / 2 * 8) * kStride + n * 8 + 2 * t + e % 2];
      RowState one[2];
      softmax_block(weight, c, one);
      __syncthreads();
      float sum[2][4];
      weigh_values<Parts>(sum, weight, shared);
      const long long slot = (piece.slot + static_cast<long long>(tile) * piece.blocks + block) * p.Hkv + run.head;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (index == 0) {
          float before, here;
          fold(state[half], one[half], before, here);
#pragma unroll
          for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) out[n][e] = fold_value(out[n][e], sum[n][e], before, here);
        }
        if (own_row(run, half) >= rows || piece.runs == 1 || (index == 0 && block + 1 < run.end)) continue;
        const int64_t at = slot * kRows + g + half * 8;
        if (index == 0) leave(a, at, out, state[half], half);
        else leave(a, at, sum, one[half], half);
      }
    }
    if (piece.runs == 1) finish(a, run, out, state);
  }
}

// Folds the later runs' blocks onto the first run's, in order: of each row and column a chain of one product and one
// fused product to a block (131,072 keys: 2,048 blocks), which waits for nothing else, as its operands are asked for
// kAhead to 2·kAhead blocks before they are used and exponentials depend on the largest scores alone. A thread block:
// kFoldRows rows of one head, a thread one column.
constexpr int kFoldRows = kThreads / kWidth, kFoldParts = kRows / kFoldRows, kAhead = 12;
struct Ahead {
  RowState state[kAhead];
  float sum[kAhead];
};
__global__ void __launch_bounds__(kThreads) fold_kernel(SplitArgs a) {
  wait_for_previous();
  const Problem& p = a.f.p;
  Deal deal;
  if (!make_deal(a, deal)) return;
  Piece piece;
  for (long long item = blockIdx.x; find_piece(a, deal, true, item / kFoldParts, piece); item += gridDim.x) {
    const Sequence& s = piece.s;
    const int head = piece.place % p.Hkv, tile = piece.place / p.Hkv,
              row = static_cast<int>(item % kFoldParts) * kFoldRows + static_cast<int>(threadIdx.x) / kWidth,
              column = static_cast<int>(threadIdx.x) % kWidth;
    const int r = tile * kRows + row, rows = s.queries * p.group;
    if (r >= rows) continue;
    const auto at = [&](int block) {
      return ((piece.slot + static_cast<long long>(tile) * piece.blocks + block) * p.Hkv + head) * kRows + row;
    };
    const auto ask = [&](Ahead& x, int block) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (block + i >= piece.blocks) continue;
        x.state[i] = a.states[at(block + i)];
        x.sum[i] = a.sums[at(block + i) * kWidth + column];
      }
    };
    RowState state = a.states[at(deal.run - 1)];
    float out = a.sums[at(deal.run - 1) * kWidth + column];
    Ahead now{}, next{};
    ask(now, deal.run);
    for (int block = deal.run; block < piece.blocks; block += kAhead) {
      ask(next, block + kAhead);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (block + i >= piece.blocks) continue;
        float before, here;
        fold(state, now.state[i], before, here);
        out = fold_value(out, now.sum[i], before, here);
      }
      now = next;
    }
    const int64_t to = (s.row + r / p.group) * p.H + head * p.group + r % p.group;
    if (column < p.Dh) a.f.o[to * p.Dh + column] = out * (1.0f / state.sum);
    if (a.f.lse && column == 0) a.f.lse[to] = log_sum(state);
  }
}

}  // namespace

bool split_fits(const Problem& p) { return p.Dh <= kWidth && p.B > 0 && p.T <= std::max<int64_t>(4 * p.B, 16); }

void forward_split(const Forward& f) {
  const Problem& p = f.p;
  const int64_t held = p.pages ? p.table : p.S,  // keys of a sequence at most
      seen = p.window > 0 ? std::min<int64_t>(held, p.window + p.T) : held;
  const int64_t most = blocks_for(seen, kKeys) + 1, tiles = blocks_for(rows_of(p), kRows) + p.B;
  const int64_t slots = workspace::split_slots(p.T, p.S, p.B, p.Hkv, p.group, p.window);
  Workspace<float> sums(static_cast<size_t>(slots * p.Hkv * kRows * kWidth));
  Workspace<RowState> states(static_cast<size_t>(slots * p.Hkv * kRows));
  const int64_t spread = std::min<int64_t>(kResident * device().multiprocessors, tiles * most * p.Hkv);
  const SplitArgs a{f, sums.data(), states.data(), slots, static_cast<int>(spread)};
  with_width(f.vectors, [&](auto width) {
    constexpr int W = decltype(width)::value;
    const dim3 grid(static_cast<unsigned>(spread)), block(kThreads);
    const auto shared = [](int parts) { return static_cast<size_t>(parts * (kTile + kQueries) + kRows * kStride * 4); };
    with_source(f.k, [&](auto* k) {
      using Key = std::remove_cv_t<std::remove_pointer_t<decltype(k)>>;
      if (f.parts == 1) launch(split_kernel<1, W, Key>, grid, block, shared(1), a);
      else launch(split_kernel<kPartsF32, W, Key>, grid, block, shared(kPartsF32), a);
    });
  });
  if (slots > 0)
    launch(fold_kernel,
           dim3(static_cast<unsigned>(std::min<int64_t>(tiles * p.Hkv * kFoldParts, 8 * device().multiprocessors))),
           dim3(kThreads), 0, a);
}

}  // namespace temper::gpu::attention
