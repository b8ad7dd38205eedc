// Attention on Hopper's warpgroup products, heads up to 64 wide, one bf16 part: what its kernels share. A record is two
// tiles of 64 rows under 128-byte swizzle, one after another, as wgmma reads them in shared memory.
//
// A block has warpgroups that multiply and one that copies. A warpgroup holds 64 rows of its own as register operands
// and meets one record after another; a row's sums take the tiles in rising order, whatever the batch around it.
//
// The backward pass packs its operands once into records that a single bulk copy brings. A sequence's begin at a tile
// of its own and are padded with zeros, so that no row of a tile belongs to another sequence and none is asked for that
// is not there. In the forward pass sequences may share keys or have them in a ring: there a warpgroup gathers rows.
#pragma once
#include "cuda/attention/attention.cuh"
#include "gpu/workspace.h"

namespace temper::gpu::attention {

constexpr int kWarpgroup = 4 * kWarp, kStages = 4;
// Q, dout and their Stats; K and V
constexpr int kRowRecord = workspace::kRowRecord, kKeyRecord = workspace::kKeyRecord;
static_assert(kKeyRecord == 2 * kTile && kRowRecord == kKeyRecord + 64 * static_cast<int>(sizeof(Stats)));

// The record at which a sequence's begin, counted over all of its head: sequence `index` whose rows are `row` and
// further of a tensor. Records of rows that rise and do not overlap do neither; workspace::tile_records counts them.
TEMPER_DEVICE int64_t first_record(int64_t row, int index) { return row / 64 + index; }

// Shared memory of a ring of kStages records, each at a multiple of 1024 bytes.
constexpr int record_stride(int bytes) { return (bytes + 1023) / 1024 * 1024; }
constexpr size_t ring_bytes(int bytes) {
  return static_cast<size_t>(kStages * record_stride(bytes)) + 2 * kStages * sizeof(uint64_t) + 1024;
}

#if defined(TEMPER_HAS_WGMMA)
// Where a role stands in the ring.
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  TEMPER_DEVICE void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};
// kStages records in shared memory. `full`: a record has come; `empty`: every multiplying warp is done with it.
template <int Bytes>
struct Ring {
  static constexpr int kStride = record_stride(Bytes);
  unsigned char* records;
  uint64_t *full, *empty;

  TEMPER_DEVICE explicit Ring(unsigned char* shared) {
    records = shared + (1024 - shared_address(shared) % 1024) % 1024;
    full = reinterpret_cast<uint64_t*>(records + kStages * kStride), empty = full + kStages;
  }
  // By the whole block. copying: how many arrive when a record has come.
  TEMPER_DEVICE void set_up(int multiplying_warps, int copying = 1) const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i)
        counter_init(full + i, static_cast<uint32_t>(copying)),
            counter_init(empty + i, static_cast<uint32_t>(multiplying_warps));
      fence_async_proxy();
    }
    __syncthreads();
  }
  // By one thread: `count` records that lie one after another.
  TEMPER_DEVICE void fill(const unsigned char* from, int count) const {
    Turn turn;
#pragma unroll 1
    for (int i = 0; i < count; ++i, turn.next()) {
      counter_wait(empty + turn.slot, turn.parity ^ 1);
      counter_expect(full + turn.slot, Bytes);
      bulk_copy(records + turn.slot * kStride, from + static_cast<int64_t>(i) * Bytes, Bytes, full + turn.slot);
    }
  }
  // By the threads of whole warps, each of which counts as copying: `count` records whose rows lie apart. copy(i,
  // record) starts this thread's copies of record i (cp.async) and commits them.
  template <class Copy>
  TEMPER_DEVICE void gather(int count, const Copy& copy) const {
    constexpr int kAhead = kStages - 2;  // under way; as many more wait to be multiplied
    Turn next, come;
#pragma unroll 1
    for (int i = 0; i < count + kAhead; ++i) {
      if (i < count) {
        counter_wait(empty + next.slot, next.parity ^ 1);
        copy(i, records + next.slot * kStride);
        next.next();
      } else {
        cp_async_commit();
      }
      if (i < kAhead) continue;
      cp_async_wait<kAhead>();
      fence_async_proxy();
      __syncwarp();
      if (threadIdx.x % kWarp == 0) counter_arrive(full + come.slot);
      come.next();
    }
  }
  TEMPER_DEVICE unsigned char* await(const Turn& turn) const {
    counter_wait(full + turn.slot, turn.parity);
    return records + turn.slot * kStride;
  }
  // By every multiplying warp.
  TEMPER_DEVICE void release(int slot) const {
    if (threadIdx.x % kWarp == 0) counter_arrive(empty + slot);
  }
  // Records that this warpgroup has nothing to do with.
  TEMPER_DEVICE void pass_over(Turn& turn, int count) const {
#pragma unroll 1
    for (int i = 0; i < count; ++i, turn.next()) {
      await(turn);
      release(turn.slot);
    }
  }
};

using Operand = uint32_t[kSteps][4];  // 64 rows of a warpgroup, 64 deep
using Sums = float[32];               // 64 rows of a warpgroup, 64 columns: as wgmma_registers says
// Of sum i: its column, and which of the thread's two rows (g and g + 8) it belongs to.
TEMPER_DEVICE int column_of(int i) { return i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2; }
constexpr int half_of(int i) { return i / 2 % 2; }
// The same by 8 columns, as softmax_block takes them.
TEMPER_DEVICE float (&by_columns(Sums& x))[8][4] { return reinterpret_cast<float (&)[8][4]>(x); }

// Rows `row` and `row` + 8 of a packed tile in memory.
TEMPER_DEVICE void load_operand(Operand& a, const unsigned char* tile, int row) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + i % 2 * 8, chunk = step * 2 + i / 2;
      a[step][i] = load_as<uint32_t>(tile + r * 128 + ((chunk ^ (r & 7)) << 4) + 4 * t);
    }
}
// Rounded to bf16.
TEMPER_DEVICE void as_operand(Operand& a, const Sums& x) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) a[step][i] = pack_bf16(x[step * 8 + 2 * i], x[step * 8 + 2 * i + 1]);
}
// A tile's part `bytes` further on. The address is in the low word, which shared memory's size does not fill.
TEMPER_DEVICE uint64_t further(uint64_t matrix, uint32_t bytes) {
  return (matrix >> 32 << 32) | (static_cast<uint32_t>(matrix) + (bytes >> 4));
}
// d = a·tileᵀ
TEMPER_DEVICE void multiply_rows(Sums& d, const Operand& a, uint32_t tile) {
  const uint64_t rows = swizzled_matrix(tile, 16, 1024);
  wgmma_registers<64, true, true>(d, a[0], rows);
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step) wgmma_registers<64>(d, a[step], further(rows, 32 * step));
  wgmma_commit();
}
// d += a·tile; d = a·tile where fresh
template <bool fresh = false>
TEMPER_DEVICE void multiply_columns(Sums& d, const Operand& a, uint32_t tile) {
  const uint64_t columns = swizzled_matrix(tile, kTile, 1024);
  wgmma_registers<64, false, fresh>(d, a[0], columns);
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step) wgmma_registers<64, false>(d, a[step], further(columns, 2048 * step));
  wgmma_commit();
}

// x, the same in all of a warp, in a way that the compiler sees: products in a branch or loop that it cannot prove
// uniform would wait for each other.
TEMPER_DEVICE int uniform(int x) { return __shfl_sync(kAllLanes, x, 0); }

struct Range {
  int begin, end;
};
TEMPER_DEVICE Range within(Range own, Range all) {
  const int begin = min(max(own.begin, all.begin), all.end);
  return {uniform(begin), uniform(max(begin, min(own.end, all.end)))};
}

// ---- rows of queries against the keys that they see ----
// A thread block's Groups·64 rows of one kv head.
template <int Groups>
struct RowBlock {
  static constexpr int kRows = Groups * 64, kThreads = (Groups + 1) * kWarpgroup;
  Sequence s;
  int rows, begin, end;  // the sequence's; those of this block
  Range seen;            // blocks of 64 keys

  // Which of all sequences' blocks is number `item`. False: none is. By the whole thread block.
  TEMPER_DEVICE bool find(const Problem& p, int64_t item) {
    int64_t tile;
    if (!find_sequence<kThreads>(
            p, item,
            [&](const Sequence& x) { return (static_cast<long long>(x.queries) * p.group + kRows - 1) / kRows; }, s,
            tile))
      return false;
    rows = s.queries * p.group;
    // the last rows see the most keys: they go first
    begin = ((rows + kRows - 1) / kRows - 1 - static_cast<int>(tile)) * kRows;
    end = min(begin + kRows, rows);
    seen = blocks_of(p, begin, end);
    return true;
  }
  TEMPER_DEVICE Range blocks_of(const Problem& p, int from, int to) const {
    return {first_key(p, position_of(s, from / p.group)) / kKeys, position_of(s, (to - 1) / p.group) / kKeys + 1};
  }
};
// A warpgroup's 64 of them. The thread's are `row` and row + 8.
struct OwnRows {
  int first, row;
  bool active;            // some of the 64 are there
  Range seen;             // blocks of keys, of those of the thread block
  int low[2], high[2];    // keys that the thread's rows see
  int all_low, all_high;  // keys that every row of the warpgroup sees

  template <int Groups>
  TEMPER_DEVICE OwnRows(const Problem& p, const RowBlock<Groups>& block, int warp)
      : first(block.begin + warp / 4 * 64),
        row(warp % 4 * 16 + static_cast<int>(threadIdx.x) % kWarp / 4),
        active(first < block.rows) {
    const int last = min(first + 64, block.rows) - 1;
    seen = within(active ? block.blocks_of(p, first, last + 1) : Range{block.seen.end, block.seen.end}, block.seen);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      high[half] = position_of(block.s, min(first + row + half * 8, block.rows - 1) / p.group);
      low[half] = first_key(p, high[half]);
    }
    all_low = first_key(p, position_of(block.s, max(last, 0) / p.group));
    all_high = position_of(block.s, min(first, block.rows - 1) / p.group);
  }
  // −∞ where a row does not see a key of block `at`.
  TEMPER_DEVICE void mask(Sums& score, int at) const {
    if (at * kKeys >= all_low && at * kKeys + kKeys - 1 <= all_high) return;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int j = at * kKeys + column_of(i);
      if (j < low[half_of(i)] || j > high[half_of(i)]) score[i] = -INFINITY;
    }
  }
};

// Two elements of a row at `to`: of sum i. add: to what is there.
template <bool add>
TEMPER_DEVICE void store_row(float* to, const Sums& x, int half, float factor, int width, bool pairs) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int d = column_of(n * 4), i = n * 4 + 2 * half;
    float2 old = make_float2(0.0f, 0.0f);
    if (pairs) {
      if (d >= width) continue;
      if (add) old = load_as<float2>(to + d);
      store_as(to + d, add ? make_float2(fused(factor, x[i], old.x), fused(factor, x[i + 1], old.y))
                           : make_float2(factor * x[i], factor * x[i + 1]));
    } else {
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (d + e < width) to[d + e] = add ? fused(factor, x[i + e], to[d + e]) : factor * x[i + e];
    }
  }
}
#endif

}  // namespace temper::gpu::attention
