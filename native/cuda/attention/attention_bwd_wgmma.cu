// attention_bwd.cu's two kernels on Hopper's warpgroup products, one bf16 part: dq by rows of queries, dk and dv by
// keys, each the only writer of what it writes. Both form scores and dout·v: 7 products instead of 5, but no partial dq
// (67 MB of f32 a block of keys at 4,096 tokens), no atomics and no block that waits for another.
//
// Scores and dout·v of 64 own rows and a tile of 64 come out of wgmma with the own rows in registers and the tile in
// shared memory; p and ds become the register operand of the products that sum over the tile. Of one row or key the
// tile's 64 are summed in wgmma's order, the tiles in rising order.
//
// The numbers, one layer of gpt-oss, T tokens in one sequence, w keys seen on average: 64·T·w pairs of a row and a key,
// 128 operations for each of 7 products, 2 exponentials. A multiprocessor's clock has 4096 operations and 16
// exponentials: 96 + 64 clocks for 1,024 pairs of dq, 128 + 64 of dk and dv; the second number hides behind the first
// while one warpgroup multiplies and another does not. T = 4096, full: 0.22 + 0.29 ms at 1.75 GHz. Tiles of 16 KiB
// are read for 192 rows or 128 keys at a time, 14 and 16 bytes a clock and multiprocessor out of L2. Predicted, with
// packing and what warpgroups wait for each other: 1.0 to 1.2 ms.
#include "cuda/attention/attention.h"
#include "cuda/attention/attention_wgmma.cuh"
#include "gpu/vector.cuh"

namespace temper::gpu::attention {
namespace {

// ---- records ----
constexpr int kPackThreads = 256;

struct PackArgs {
  Problem p;
  unsigned char* records;  // [head][record]
  int64_t records_each;
  const float *first, *second;  // Q, dout or K, V
  const float *lse, *dot;       // of rows
  int first_head;
};

// A thread block: the record of 64 rows (tokens · heads of a kv head) or of 64 keys of one kv head.
template <bool Rows, int W>
__global__ void __launch_bounds__(kPackThreads) pack_records(PackArgs a) {
  wait_for_previous();
  const Problem& p = a.p;
  Sequence s;
  int64_t tile;
  const auto count = [&](const Sequence& x) {
    return Rows ? static_cast<long long>(x.queries) * p.group : x.queries > 0 ? static_cast<long long>(x.length) : 0;
  };
  if (!find_sequence<kPackThreads>(p, blockIdx.x, [&](const Sequence& x) { return (count(x) + 63) / 64; }, s, tile))
    return;
  const int head = static_cast<int>(blockIdx.y), kv_head = a.first_head + head, thread = static_cast<int>(threadIdx.x);
  const int64_t at = head * a.records_each + first_record(Rows ? s.row * p.group : s.key, s.index) + tile;
  unsigned char* record = a.records + at * (Rows ? kRowRecord : kKeyRecord);
  const int64_t first = tile * 64;
  const int rows = static_cast<int>(count(s) - first < 64 ? count(s) - first : 64);
  const auto source_row = [&](int row) {
    const int64_t r = first + row;
    return Rows ? (s.row + r / p.group) * p.H + kv_head * p.group + r % p.group : (s.key + r) * p.Hkv + kv_head;
  };
  const int chunk = thread % 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = thread / 8 + i % 2 * 32, tensor = i / 2;
    float x[8] = {};
    if (row < rows) {
      const float* from = (tensor ? a.second : a.first) + source_row(row) * p.Dh;
#pragma unroll
      for (int d = 0; d < 8; d += W) {
        if (chunk * 8 + d >= p.Dh) continue;
        const Floats<W> part = load<W>(from + chunk * 8 + d);
#pragma unroll
        for (int e = 0; e < W; ++e) x[d + e] = part.v[e];
      }
    }
    const float factor = Rows && tensor == 0 && p.scale < 0 ? -1.0f : 1.0f;
    store_as(tile_at(record + tensor * kTile, row, chunk),
             make_uint4(pack_bf16(factor * x[0], factor * x[1]), pack_bf16(factor * x[2], factor * x[3]),
                        pack_bf16(factor * x[4], factor * x[5]), pack_bf16(factor * x[6], factor * x[7])));
  }
  if (Rows && thread < 64) {  // a row that is not there weighs nothing: 2^(0 − ∞)
    float2 stats = make_float2(INFINITY, 0.0f);
    if (thread < rows) stats = make_float2(a.lse[source_row(thread)] * kLog2e, a.dot[source_row(thread)]);
    store_as(record + 2 * kTile + thread * sizeof(Stats), stats);
  }
}

struct TileArgs {
  Problem p;
  float *dq, *dk, *dv;
  const unsigned char *rows, *keys;  // records
  int64_t rows_each, keys_each;      // of a head
  int first_head, heads;             // of this launch
  int together;                      // heads whose blocks come side by side
  int pairs;                         // whether dq, dk and dv may be written two elements at a time
};

// Which head and which of its `tiles` a block has. The blocks of `together` heads come first, tile by tile, so that
// what they read stays in L2.
struct Turnout {
  int head;
  int64_t tile;
};
TEMPER_DEVICE Turnout turnout(const TileArgs& a, int64_t block, int64_t tiles) {
  const int64_t whole = tiles * a.together, group = block / whole;
  const int first = static_cast<int>(group) * a.together, heads = min(a.together, a.heads - first);
  return {first + static_cast<int>((block - group * whole) % heads), (block - group * whole) / heads};
}

// ---- dq ----
// A block: Groups·64 rows of one kv head, against the records of all keys that they see.
template <int Groups>
__global__ void __launch_bounds__((Groups + 1) * kWarpgroup, 1) rows_kernel(const TileArgs a, int64_t tiles) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  const Ring<kKeyRecord> ring(shared);
  const Problem& p = a.p;
  const Turnout turn_out = turnout(a, blockIdx.x, tiles);
  RowBlock<Groups> block;
  if (!block.find(p, turn_out.tile)) return;
  const Sequence& s = block.s;
  ring.set_up(Groups * 4);
  const int warp = uniform(static_cast<int>(threadIdx.x) / kWarp);
  if (warp >= Groups * 4) {
    give_registers<Groups == 2 ? 72 : 32>();
    if (threadIdx.x == Groups * kWarpgroup)
      ring.fill(a.keys + (turn_out.head * a.keys_each + first_record(s.key, s.index) + block.seen.begin) * kKeyRecord,
                block.seen.end - block.seen.begin);
    return;
  }
  take_registers<Groups == 2 ? 216 : 160>();
  const int kv_head = a.first_head + turn_out.head;
  const OwnRows own(p, block, warp);

  const unsigned char* record =
      a.rows + (turn_out.head * a.rows_each + first_record(s.row * p.group, s.index) + own.first / 64) * kRowRecord;
  Operand q = {}, dout = {};
  Stats stats[2] = {};
  if (own.active) {
    load_operand(q, record, own.row);
    load_operand(dout, record + kTile, own.row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 x = load_as<float2>(record + 2 * kTile + (own.row + half * 8) * sizeof(Stats));
      stats[half] = {x.x, x.y};
    }
  }
  const float c = score_factor(p.scale);
  Sums dq;
#pragma unroll
  for (int i = 0; i < 32; ++i) dq[i] = 0;

  Turn turn;
  ring.pass_over(turn, own.seen.begin - block.seen.begin);
  for (int at = own.seen.begin; at < own.seen.end; ++at, turn.next()) {
    const uint32_t keys = shared_address(ring.await(turn));
    Sums score, slope;
    wgmma_fence();
    multiply_rows(score, q, keys);
    multiply_rows(slope, dout, keys + kTile);
    wgmma_wait<1>();
    own.mask(score, at);
#pragma unroll
    for (int i = 0; i < 32; ++i) score[i] = exp2_approx(fused(score[i], c, -stats[half_of(i)].log_sum));
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 32; ++i) score[i] *= slope[i] - stats[half_of(i)].dot;
    Operand ds;
    as_operand(ds, score);
    wgmma_fence();
    multiply_columns(dq, ds, keys);
    wgmma_wait<0>();
    ring.release(turn.slot);
  }
  ring.pass_over(turn, block.seen.end - own.seen.end);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = own.first + own.row + half * 8;
    if (r < block.rows) store_row<false>(a.dq + head_row(p, s, kv_head, r) * p.Dh, dq, half, p.scale, p.Dh, a.pairs);
  }
#endif
}

// ---- dk and dv ----
// A block: 128 keys of one kv head, against the records of all rows that see them. scoresᵀ = K·Qᵀ leaves p and ds as
// the register operands of dv = pᵀ·dout and dk = dsᵀ·Q.
constexpr int kKeyGroups = 2, kOwnKeys = kKeyGroups * 64;
__global__ void __launch_bounds__((kKeyGroups + 1) * kWarpgroup, 1) keys_kernel(const TileArgs a, int64_t tiles) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  const Ring<kRowRecord> ring(shared);
  const Problem& p = a.p;
  const Turnout own = turnout(a, blockIdx.x, tiles);
  Sequence s;
  const Sequence* kept;
  int64_t tile;
  const auto own_begin = [&](const Sequence& x) { return first_key(p, position_of(x, 0)) / kOwnKeys * kOwnKeys; };
  if (!find_sequence<(kKeyGroups + 1) * kWarpgroup>(
          p, own.tile,
          [&](const Sequence& x) { return x.queries > 0 ? (x.length - own_begin(x) + kOwnKeys - 1) / kOwnKeys : 0; }, s,
          tile, &kept))
    return;
  const int rows = s.queries * p.group, position = position_of(s, 0);
  const int begin = own_begin(s) + static_cast<int>(tile) * kOwnKeys;
  // the rows that see key j: from row_begin(j) to before row_end(j), both of which rise with j
  const auto row_begin = [&](int j) { return (j > position ? j - position : 0) * p.group; };
  const auto row_end = [&](int j) {
    return p.window > 0 && p.window - 1 < s.length - 1 - j ? (j + p.window - position) * p.group : rows;
  };
  const auto tiles_of = [&](int from, int last) {
    return Range{row_begin(from) / 64, (max(row_end(last), 0) + 63) / 64};
  };
  Range all = tiles_of(begin, min(begin + kOwnKeys, s.length) - 1);
  all.end = max(all.begin, all.end);
  ring.set_up(kKeyGroups * 4);
  const int warp = uniform(static_cast<int>(threadIdx.x) / kWarp);
  if (warp >= kKeyGroups * 4) {
    give_registers<72>();  // 168 at the launch: what two warpgroups take beyond it the third one gives
    if (threadIdx.x == kKeyGroups * kWarpgroup)
      ring.fill(
          a.rows + (own.head * a.rows_each + first_record(kept->row * p.group, kept->index) + all.begin) * kRowRecord,
          all.end - all.begin);
    return;
  }
  take_registers<216>();
  const int kv_head = a.first_head + own.head, first = begin + warp / 4 * 64, last = min(first + 64, kept->length) - 1,
            key = warp % 4 * 16 + static_cast<int>(threadIdx.x) % kWarp / 4;
  const bool active = first < kept->length;
  const Range mine = within(active ? tiles_of(first, last) : Range{all.end, all.end}, all);

  Operand k = {}, v = {};
  int from[2] = {}, end[2] = {};  // rows that see the thread's two keys
  if (active) {
    const unsigned char* record =
        a.keys + (own.head * a.keys_each + first_record(kept->key, kept->index) + first / 64) * kKeyRecord;
    load_operand(k, record, key);
    load_operand(v, record + kTile, key);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int j = min(first + key + half * 8, last);
      from[half] = row_begin(j), end[half] = row_end(j);
    }
  }
  // rows from all_from to before all_end see every key of the warpgroup; what is beyond the last row weighs nothing
  const int all_from = active ? row_begin(last) : 0, all_end = active ? row_end(first) : 0;
  const bool open = all_end >= rows;
  const float c = score_factor(p.scale);
  Sums dk, dv;
#pragma unroll
  for (int i = 0; i < 32; ++i) dk[i] = dv[i] = 0;

  Turn turn;
  ring.pass_over(turn, mine.begin - all.begin);
  for (int t = mine.begin; t < mine.end; ++t, turn.next()) {
    const unsigned char* record = ring.await(turn);
    const uint32_t queries = shared_address(record);
    Sums weight, slope;
    wgmma_fence();
    multiply_rows(weight, k, queries);
    multiply_rows(slope, v, queries + kTile);
    wgmma_wait<1>();
    if (t * 64 < all_from || (t * 64 + 63 >= all_end && !open)) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = t * 64 + column_of(i);
        if (r < from[half_of(i)] || r >= end[half_of(i)]) weight[i] = -INFINITY;
      }
    }
    const auto stats_of = [&](int n) {  // of columns 8n + 2t and the next: two log_sum, dot
      return load_as<float4>(record + 2 * kTile + column_of(n * 4) * static_cast<int>(sizeof(Stats)));
    };
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float4 x = stats_of(n);
#pragma unroll
      for (int i = n * 4; i < n * 4 + 4; ++i) weight[i] = exp2_approx(fused(weight[i], c, -(i % 2 ? x.z : x.x)));
    }
    Operand rounded, ds;
    as_operand(rounded, weight);
    wgmma_fence();
    multiply_columns(dv, rounded, queries + kTile);
    wgmma_wait<1>();
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float4 x = stats_of(n);
#pragma unroll
      for (int i = n * 4; i < n * 4 + 4; ++i) weight[i] *= slope[i] - (i % 2 ? x.w : x.y);
    }
    as_operand(ds, weight);
    wgmma_fence();
    multiply_columns(dk, ds, queries);
    wgmma_wait<0>();
    ring.release(turn.slot);
  }
  ring.pass_over(turn, all.end - mine.end);
  const float factor = p.scale < 0 ? -p.scale : p.scale;  // its sign is in the packed Q
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = first + key + half * 8;
    if (j >= kept->length) continue;
    const int64_t to = ((kept->key + j) * p.Hkv + kv_head) * p.Dh;
    store_row<true>(a.dk + to, dk, half, factor, p.Dh, a.pairs);
    store_row<true>(a.dv + to, dv, half, 1.0f, p.Dh, a.pairs);
  }
#endif
}

template <bool Rows>
void pack(const Backward& b, unsigned char* records, int64_t each, int first_head, int heads) {
  const PackArgs a{b.p, records, each, Rows ? b.q : b.k, Rows ? b.dout : b.v, b.lse, b.dot, first_head};
  with_width(Rows ? b.query_vectors : b.key_vectors, [&](auto width) {
    launch(pack_records<Rows, decltype(width)::value>,
           dim3(static_cast<unsigned>(std::max<int64_t>(each, 1)), static_cast<unsigned>(heads)), dim3(kPackThreads), 0,
           a);
  });
}

}  // namespace

bool wgmma_suits(const Problem& p, int parts) {
  return parts == 1 && p.Dh <= kWidth && device().warpgroups &&
         static_cast<size_t>(device().shared_per_block) >= ring_bytes(kRowRecord);
}

void backward_wgmma(const Backward& b) {
  constexpr int kRowGroups = 3, kRows = kRowGroups * 64;
  const Problem& p = b.p;
  const int64_t rows_each = workspace::tile_records(rows_of(p), p.B), keys_each = workspace::tile_records(p.S, p.B);
  const int heads = static_cast<int>(workspace::record_heads(rows_of(p), p.S, p.B, p.Hkv));
  Workspace<unsigned char> rows(static_cast<size_t>(heads * rows_each * kRowRecord)),
      keys(static_cast<size_t>(heads * keys_each * kKeyRecord));
  TileArgs a{p, b.dq, b.dk, b.dv, rows.data(), keys.data(), rows_each, keys_each, 0, 0, 0, 0};
  a.pairs = p.Dh % 2 == 0 && aligned(8, {b.dq, b.dk, b.dv});
  const int64_t row_tiles = std::max<int64_t>(1, blocks_for(rows_of(p), kRows) + p.B),
                key_tiles = std::max<int64_t>(1, blocks_for(p.S, kOwnKeys) + 2 * p.B);
  for (a.first_head = 0; a.first_head < p.Hkv; a.first_head += heads) {
    a.heads = std::min(heads, p.Hkv - a.first_head);
    pack<true>(b, rows.data(), rows_each, a.first_head, a.heads);
    pack<false>(b, keys.data(), keys_each, a.first_head, a.heads);
    // rows' records of as many heads as two thirds of L2 hold, of which every block of keys reads most
    const int64_t head_bytes = std::max<int64_t>(rows_each * kRowRecord, 1);
    a.together = a.heads;
    launch(rows_kernel<kRowGroups>, dim3(static_cast<unsigned>(row_tiles * a.heads)),
           dim3((kRowGroups + 1) * kWarpgroup), ring_bytes(kKeyRecord), a, row_tiles);
    a.together =
        static_cast<int>(std::clamp<int64_t>(static_cast<int64_t>(device().l2_bytes) * 2 / 3 / head_bytes, 1, a.heads));
    launch(keys_kernel, dim3(static_cast<unsigned>(key_tiles * a.heads)), dim3((kKeyGroups + 1) * kWarpgroup),
           ring_bytes(kRowRecord), a, key_tiles);
  }
}

}  // namespace temper::gpu::attention
