// Products with few rows (decode): every weight byte is read once, so the time is that of the weights. The weights are
// the A operand of mma.sync.m16n8k16 (16 outputs) and up to 8 rows are B's columns, or two or four groups of 8; a row's
// result does not depend on which other rows are there: alone and among 32 it has the same bits.
//
// Which k a fragment register stands for is free as long as A and B agree. Lane (g, t) = (lane/4, lane%4) takes kLane
// consecutive k of rows g and g+8, one 16-byte load each (MXFP4: a whole group), so no value changes lanes between
// memory and the tensor core; x is staged in shared memory in that order.
//
// One block: 16 outputs, 8 warps that take the k iterations in turn (4·kLane k each), kAhead iterations of weights in
// flight per warp, partial sums added over the warps in order. Issue slots set the limit for MXFP4: at 3.9 TB/s an H200
// has 4.0 lane instructions for each fp4 value (1.755 GHz), and a tile takes 4.0 (counted in the machine code, 4 rows),
// of them 2.4 to decode; it was 4.8 when experts were measured, at 2.8 TB/s.
//
//   weights  a value  a lane in flight  a matrix of 20b at 4.3 TB/s
//   bf16     2 B      4 × 2 × 16 B      q_proj 4096×2880, 1 row: 23.6 MB, 5.5 µs · head 201088×2880: 1158 MB, 269 µs
//   q8       1.06 B   3 × 2 × 16 B      q_proj 12.5 MB, 2.9 µs
//   MXFP4    0.53 B   3 × 2 × 16 B      gate_up 5760×2880, 4 rows of 4 experts: 35.3 MB, 0.13 GFLOP: 8.2 µs
// Registers by nvcc 13.0 up to 8 rows: 62 to 80 on sm_80, 86 and 90a, none spilled on sm_90a (all:
// bench/results/ptxas.md). Shared memory: 4 KiB of partial sums, 24 to 32 KiB of weights under way, and x: 6 KiB for
// one row of 2880, 46 KiB for eight. Three blocks a multiprocessor (H200), two at 8 rows of bf16; 182 KiB for
// 32 rows, one block. As it was on 2026-11-27, on an H200, one row of 20b, each kernel alone (ncu, cold caches): 33 µs
// on average with bf16 weights, the head included, 18 with MXFP4.
#include <algorithm>

#include "cuda/matmul/few_rows.cuh"

namespace temper::gpu {
namespace few {
namespace {

constexpr int64_t kFewGroupedRows = 128;  // grouped products up to this many rows, or …
constexpr int64_t kFewRowsPerGroup = 4;   // … this many per expert on average, come here
constexpr int64_t kFewDenseRows = 32;     // dense ones

// bias + the low-rank term + the sum, in this order.
template <bool kRounded>
TEMPER_DEVICE void store(const Few& p, const Group& group, int row, int n, float bias, float sum) {
  const int64_t weight_row = group.expert * p.group_rows + n;
  float total = bias;
  if (p.rank) {
    const float *h = p.h + row * p.ldh, *b = p.b + weight_row * p.ldb;
    float low = 0;
    for (int r = 0; r < p.rank; ++r)
      low = fused(kRounded ? bf16_to_float(float_to_bf16(h[r])) : h[r],
                  kRounded ? bf16_to_float(float_to_bf16(b[r])) : b[r], low);
    total += p.low_alpha * low;
  }
  total += p.alpha * sum;
  float* to = p.c + row * p.ldc + n;
  *to = p.accumulate ? *to + total : total;
}

// ---- bf16 on tensor cores ----
template <class W>
struct PlainJob : GroupRows<W> {
  using GroupRows<W>::GroupRows;
  TEMPER_DEVICE uint32_t ahead(int tile, int, int output) const { return this->bias_ahead(tile * kOutputs + output); }
  template <class Sum>
  TEMPER_DEVICE void finish(int tile, int r, int output, uint32_t had, Sum&& sum) const {
    const int n = tile * kOutputs + output;
    if (n < this->p.n)
      store<true>(this->p, this->group, this->group.begin + this->first + r, n, this->bias(had), sum(output));
  }
};

template <class W, bool kAligned>
TEMPER_DEVICE void ask_ahead(const Few& p) {
  if (!kStartsEarly || !kAligned || !p.settled) return;
  const int tiles = (p.n + kOutputs - 1) / kOutputs;
  const Share share = share_of(filled_groups(p) * tiles);
  if (share.begin < share.end)
    ask_for_tile(p, PlainJob<W>(p, find_group(p, share.begin / tiles, false)), share.begin % tiles);
}

template <class W, bool kAligned, int kGroups>
__global__ void __launch_bounds__(kThreads, kGroups > 1 ? 1
                                            : kAligned  ? kBlocks
                                                        : 2) few_rows(Few p) {
  ask_ahead<W, kAligned>(p);
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  PlainJob<W> job(p);
  multiply_groups<W, kAligned, kGroups>(p, job, shared);
}

// ---- f32 on CUDA cores ----
// A warp per output: lanes take kLane k in turn, then the lanes' sums are added.
template <class W, bool kAligned, int kRows>
__global__ void __launch_bounds__(kThreads) few_rows_exact(Few p) {
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const Group group = find_group(p, static_cast<int>(blockIdx.y), true);
  const int n = static_cast<int>(blockIdx.x) * kWarps + warp;
  if (n >= p.n) return;
  for (int first = 0; first < group.rows; first += kRows) {
    const int rows = group.rows - first < kRows ? group.rows - first : kRows;
    const float* x[kRows];
    float sum[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) x[r] = r < rows ? x_row(p, group.begin + first + r) : nullptr, sum[r] = 0;
    for (int k = lane * W::kLane; k < p.k; k += kWarp * W::kLane) {
      uint4 raw[W::kPieces];
      uint32_t scale = 0;
      const int64_t row = group.expert * p.group_rows + n, unit = row * p.row_units + k / W::kLane * W::kPieces;
      if constexpr (kAligned) {
#pragma unroll
        for (int piece = 0; piece < W::kPieces; ++piece)
          raw[piece] = load_streaming(static_cast<const uint4*>(p.w) + unit + piece);
        if constexpr (W::kScaled) scale = W::scales(p, row)[k / 32];
      } else {
        W::ragged(p, row, k, raw);
      }
#pragma unroll
      for (int j = 0; j < W::kLane / 8; ++j) {
        float w[8];
        W::values(raw, scale, j, w);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= rows) continue;
          float v[8];
          load8(p, x[r], k + 8 * j, v);
#pragma unroll
          for (int i = 0; i < 8; ++i) sum[r] = fused(v[i], w[i], sum[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      const float total = warp_sum(sum[r]);
      if (lane == 0)
        store<false>(p, group, group.begin + first + r, n,
                     bias_of(bias_bits(p.bias, p.bias_bf16, static_cast<int64_t>(group.expert) * p.n + n), p.bias_bf16),
                     total);
    }
  }
}

template <class W, bool kAligned>
void run(Few& p, int64_t slots, int64_t most_rows, int64_t precision) {
  if (precision == 0) {
    const dim3 grid(static_cast<unsigned>(blocks_for(p.n, kWarps)), static_cast<unsigned>(slots));
    if (most_rows == 1) launch(few_rows_exact<W, kAligned, 1>, grid, kThreads, 0, p);
    else launch(few_rows_exact<W, kAligned, kColumns>, grid, kThreads, 0, p);
    return;
  }
  const int64_t tiles = slots * blocks_for(p.n, kOutputs);
  if (p.offsets || most_rows <= kColumns) {
    const size_t shared = cut<W, 1>(p, std::min<int64_t>(most_rows, kColumns));
    launch(few_rows<W, kAligned, 1>, blocks_of<1>(tiles, kBlocks, shared), kThreads, shared, p);
  } else if constexpr (!W::kInterleaved) {  // MXFP4 are experts
    // Up to 32 rows at once where shared memory holds them whole: the head of 20b, whose weights L2 does not.
    if constexpr (kAligned && W::kPieces == 1)
      if (most_rows > 2 * kColumns) {
        const size_t shared = cut<W, 4>(p, std::min<int64_t>(most_rows, 4 * kColumns));
        if (p.chunk_rounds == p.rounds)
          return launch(few_rows<W, kAligned, 4>, blocks_of<4>(tiles, 1, shared), kThreads, shared, p);
      }
    const size_t shared = cut<W, 2>(p, std::min<int64_t>(most_rows, 2 * kColumns));
    launch(few_rows<W, kAligned, 2>, blocks_of<2>(tiles, 1, shared), kThreads, shared, p);
  }
}

bool plain(const Source& s) { return s.kind == Kind::f32 && s.k_inner && !s.row_scale && s.mask.limit == 0; }

int64_t most_rows(const Product& product) {
  return product.ragged == Ragged::rows ? std::max(kFewGroupedRows, kFewRowsPerGroup * product.groups) : kFewDenseRows;
}

}  // namespace

bool describe(const Product& product, Few& p, bool& aligned) {
  const Source &a = product.main.a, &b = product.main.b, &h = product.low_rank.a, &low = product.low_rank.b;
  const bool grouped = product.ragged == Ragged::rows;
  if (product.ragged == Ragged::k || product.m < 1 || product.n < 1 || product.main.k < 1) return false;
  if (product.m > most_rows(product)) return false;
  if (!plain(a) || !b.k_inner || b.index || b.row_scale || b.mask.limit) return false;
  if (product.low_rank.k && (!plain(h) || !plain(low) || h.index || low.index || product.low_rank_mask.limit))
    return false;
  const auto address = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  const int64_t row_bytes = b.kind == Kind::bf16  ? 2 * b.ld
                            : b.kind == Kind::f32 ? 4 * b.ld
                            : b.kind == Kind::q8  ? b.ld
                                                  : b.ld / 2;
  aligned = address(b.data) % 16 == 0 && row_bytes % 16 == 0 && product.main.k % 8 == 0;
  if (product.n * (row_bytes / 16) > INT32_MAX) return false;  // units of one group are counted in 32 bits
  if ((b.kind == Kind::q8 || b.kind == Kind::mxfp4) && !(aligned && product.main.k % 32 == 0 && b.ld % 32 == 0))
    return false;
  p = {};
  p.x = static_cast<const float*>(a.data), p.ldx = a.ld, p.x_count = a.count, p.index = a.index,
  p.index_name = a.index_name;
  p.w = b.data, p.scales = b.scales, p.q8_scales = b.q8_scales, p.ldw = b.ld,
  p.row_units = static_cast<int>(row_bytes / 16), p.group_rows = b.group_rows;
  p.h = static_cast<const float*>(h.data), p.ldh = h.ld, p.b = static_cast<const float*>(low.data), p.ldb = low.ld,
  p.rank = static_cast<int>(product.low_rank.k);
  p.alpha = product.main.alpha, p.low_alpha = product.low_rank.alpha;
  p.bias = product.bias, p.bias_bf16 = product.bias_kind == Kind::bf16, p.accumulate = product.accumulate;
  p.vector_x = address(a.data) % 16 == 0 && a.ld % 4 == 0;
  p.c = product.c, p.ldc = product.ldc;
  p.m = static_cast<int>(product.m), p.n = static_cast<int>(product.n), p.k = static_cast<int>(product.main.k);
  p.offsets = grouped ? product.offsets : nullptr, p.groups = static_cast<int>(product.groups);
  p.fault = device().fault, p.op = product.op;
  // Rows that are sorted by expert already were made by a kernel that read the same offsets.
  p.settled = !grouped || !a.index;
  return true;
}

}  // namespace few

int64_t most_few_rows(const Product& product) { return few::most_rows(product); }

bool multiply_few_rows(const Product& product, int64_t precision) {
  using namespace few;
  Few p;
  bool aligned;
  if (!describe(product, p, aligned)) return false;
  const int64_t slots = p.offsets ? std::min(product.groups, product.m) : 1;
  switch (product.main.b.kind) {
    case Kind::bf16:
      aligned ? run<Bf16Weights, true>(p, slots, product.m, precision)
              : run<Bf16Weights, false>(p, slots, product.m, precision);
      break;
    case Kind::f32:
      aligned ? run<F32Weights, true>(p, slots, product.m, precision)
              : run<F32Weights, false>(p, slots, product.m, precision);
      break;
    case Kind::q8: run<Q8Weights, true>(p, slots, product.m, precision); break;
    case Kind::mxfp4: run<Mxfp4Weights, true>(p, slots, product.m, precision); break;
  }
  return true;
}

}  // namespace temper::gpu
