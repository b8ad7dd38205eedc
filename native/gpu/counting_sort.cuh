// Stable sort of n small keys by counting, at most 2^kDigitBits of them to a pass: the mixture of experts sorts its
// (token, slot) pairs by expert with one pass, the embedding gradient its tokens by id with two. Two launches a pass
// (one when a block holds all items), nothing but integer sums, so the order is the same on every run:
//   histogram  counts[tile][key] of each tile of kSortTile items
//   scatter    each block adds up the counts before its tile and below each key (the table is small and in L2), ranks
//   its items and hands
//              (item, key, row) to the pass's own `place`
// Bytes: the keys twice, counts once per block; at P = 16384 pairs and 32 experts 0.2 MB, so launches are the cost
// (about 2 × 3 µs, not measured).
#pragma once
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {

constexpr int kDigitBits = workspace::kDigitBits;
constexpr int kSortWarps = kThreads / kWarp, kSortRounds = 8;  // a warp takes kSortRounds × 32 consecutive items
constexpr int kSortTile = kThreads * kSortRounds;
static_assert(kSortTile == workspace::kSortTile);

inline int bits_of(int64_t keys) {
  int b = 1;
  while ((int64_t{1} << b) < keys) ++b;
  return b;
}
inline int64_t sort_tiles(int64_t n) { return blocks_for(n, kSortTile); }

// Order of this lane's item among the warp's items with the same key, and their mask. All lanes take part; inactive
// ones give key −1.
TEMPER_DEVICE unsigned lanes_with_key(int key, int bits) {
  unsigned same = __ballot_sync(kAllLanes, key >= 0);
  for (int b = 0; b < bits; ++b) {
    const bool set = key >> b & 1;
    const unsigned ballot = __ballot_sync(kAllLanes, set);
    same &= set ? ballot : ~ballot;
  }
  return same;
}

template <class KeyOf>
__global__ void __launch_bounds__(kThreads) sort_histogram_kernel(KeyOf key_of, int32_t* counts, int64_t n, int keys) {
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(int, bins);
  for (int k = threadIdx.x; k < keys; k += kThreads) bins[k] = 0;
  __syncthreads();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSortTile,
                end = begin + kSortTile < n ? begin + kSortTile : n;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) atomicAdd(bins + key_of(i), 1);
  __syncthreads();
  for (int k = threadIdx.x; k < keys; k += kThreads) counts[static_cast<int64_t>(blockIdx.x) * keys + k] = bins[k];
}

// offsets (null: not wanted) receives where each key's rows begin, and n at its end.
template <class KeyOf, class Place>
__global__ void __launch_bounds__(kThreads, 4) sort_scatter_kernel(KeyOf key_of, Place place, const int32_t* counts,
                                                                   int32_t* offsets, int64_t n, int keys, int bits) {
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(int, shared);
  // [kSortWarps][keys]: items of this tile by warp; then the first row of each
  int* own = shared;
  int* before = shared + kSortWarps * keys;  // items of earlier tiles with this key
  int* total = before + keys;                // items with this key; then the key's first row
  __shared__ int warp_totals[kSortWarps];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int k = threadIdx.x; k < (kSortWarps + 2) * keys; k += kThreads) shared[k] = 0;
  __syncthreads();

  // Ranks within the warp's items; a key's leader lane is the only one to count it.
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSortTile + warp * kSortRounds * kWarp;
  int key[kSortRounds], rank[kSortRounds];
#pragma unroll
  for (int r = 0; r < kSortRounds; ++r) {
    const int64_t i = first + r * kWarp + lane;
    key[r] = i < n ? key_of(i) : -1;
  }
#pragma unroll
  for (int r = 0; r < kSortRounds; ++r) {
    const unsigned same = lanes_with_key(key[r], bits);
    const unsigned lower = same & ((1u << lane) - 1u);
    rank[r] = key[r] >= 0 ? own[warp * keys + key[r]] + __popc(lower) : 0;
    __syncwarp();
    if (key[r] >= 0 && !lower) own[warp * keys + key[r]] += __popc(same);
    __syncwarp();
  }
  __syncthreads();

  if (gridDim.x > 1) {
    for (int k = lane; k < keys; k += kWarp) {
      int earlier = 0, all = 0;
#pragma unroll 4
      for (int tile = warp; tile < static_cast<int>(gridDim.x); tile += kSortWarps) {
        const int c = counts[static_cast<int64_t>(tile) * keys + k];
        all += c;
        earlier += tile < static_cast<int>(blockIdx.x) ? c : 0;
      }
      atomicAdd(before + k, earlier);
      atomicAdd(total + k, all);
    }
  } else {
    for (int k = threadIdx.x; k < keys; k += kThreads) {
      int all = 0;
      for (int w = 0; w < kSortWarps; ++w) all += own[w * keys + k];
      total[k] = all;
    }
  }
  __syncthreads();

  // Exclusive sum of the totals: a thread takes consecutive keys.
  const int per_thread = (keys + kThreads - 1) / kThreads, from = threadIdx.x * per_thread,
            to = from + per_thread < keys ? from + per_thread : keys;
  int sum = 0;
  for (int k = from; k < to; ++k) sum += total[k];
  int inclusive = sum;
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  if (lane == kWarp - 1) warp_totals[warp] = inclusive;
  __syncthreads();
  int row = inclusive - sum;
  for (int w = 0; w < warp; ++w) row += warp_totals[w];
  for (int k = from; k < to; ++k) {
    const int begins = row;
    row += total[k];
    if (offsets && blockIdx.x == 0) offsets[k] = begins;
    int next = begins + before[k];
    for (int w = 0; w < kSortWarps; ++w) {
      const int mine = own[w * keys + k];
      own[w * keys + k] = next;
      next += mine;
    }
  }
  if (offsets && blockIdx.x == 0 && threadIdx.x == 0) offsets[keys] = static_cast<int32_t>(n);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kSortRounds; ++r)
    if (key[r] >= 0) place(first + r * kWarp + lane, own[warp * keys + key[r]] + rank[r]);
}

// key_of(i) → key in [0, keys); place(i, row) is told the row of item i. Both are device functors. counts:
// sort_tiles(n)·keys integers.
template <class KeyOf, class Place>
void counting_sort(KeyOf key_of, Place place, int32_t* counts, int32_t* offsets, int64_t n, int keys) {
  const int64_t tiles = sort_tiles(n);
  require(keys <= 1 << kDigitBits && n <= INT32_MAX, "internal", "counting_sort: ", n, " items by ", keys, " keys");
  if (tiles > 1)
    launch(sort_histogram_kernel<KeyOf>, dim3(tiles), dim3(kThreads), keys * sizeof(int), key_of, counts, n, keys);
  // One block even for no items: the offsets are wanted all the same.
  launch(sort_scatter_kernel<KeyOf, Place>, dim3(tiles > 0 ? tiles : 1), dim3(kThreads),
         (kSortWarps + 2) * keys * sizeof(int), key_of, place, counts, offsets, n, keys, bits_of(keys));
}

// order[row] = item, by all bits of the keys ids[i] < limit: passes over digits, the lowest first. A bad id is a fault
// and counts as 0.
struct SortedDigit {
  const int32_t* ids;
  const int32_t* order;  // of the pass before; null in the first
  int64_t limit;
  int shift, mask;
  FaultName op;
  Fault* fault;
  TEMPER_DEVICE int operator()(int64_t i) const {
    const int64_t at = order ? order[i] : i;
    return static_cast<int>(checked_index(fault, op, "ids", at, ids[at], limit) >> shift) & mask;
  }
};
struct PlaceOrder {
  const int32_t* from;
  int32_t* to;
  TEMPER_DEVICE void operator()(int64_t i, int row) const { to[row] = from ? from[i] : static_cast<int32_t>(i); }
};
// Writes the order to `out`; `spare` is as long. counts: sort_tiles(n) << kDigitBits integers.
inline void sort_by_id(const char* op, const int32_t* ids, int64_t n, int64_t limit, int32_t* out, int32_t* spare,
                       int32_t* counts) {
  const int bits = bits_of(limit), passes = (bits + kDigitBits - 1) / kDigitBits, digit = (bits + passes - 1) / passes;
  const int32_t* from = nullptr;
  for (int p = 0; p < passes; ++p) {
    int32_t* to = (passes - p) % 2 ? out : spare;
    counting_sort(SortedDigit{ids, from, limit, p * digit, (1 << digit) - 1, op, fault()}, PlaceOrder{from, to}, counts,
                  nullptr, n, 1 << digit);
    from = to;
  }
}

}  // namespace temper::gpu
