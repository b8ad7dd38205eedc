// Products with few rows (decode): every weight byte is read once, so the time is that of the weights. The weights are
// the A operand of mma.sync.m16n8k16 (16 outputs) and up to 8 rows are B's columns; a row's result does not depend on
// which other rows are there: batch 1 and batch 8 give the same bits.
//
// Which k a fragment register stands for is free as long as A and B agree. Lane (g, t) = (lane/4, lane%4) takes kLane
// consecutive k of rows g and g+8, one 16-byte load each (MXFP4: a whole group), so no value changes lanes between
// memory and the tensor core; x is staged in shared memory in that order.
//
// One block: 16 outputs, 8 warps that take the k iterations in turn (4·kLane k each), kAhead iterations of weights in
// flight per warp, partial sums added over the warps in order. Issue slots set the limit for MXFP4: at 4.3 TB/s an H200
// has 3.65 lane instructions for each fp4 value.
//
//                    per value   per lane in flight   gate_up 5760×2880, 4 rows of 4 experts: 35.3 MB, 0.13 GFLOP: 8.2
//                    µs at 4.3 TB/s
//   bf16  2 B        ~1.3        4 × 2 × 16 B         q_proj 4096×2880, 1 row: 23.6 MB, 5.5 µs · head 201088×2880: 1158
//   MB, 269 µs q8    1.06 B     ~4.5        3 × 2 × 16 B         q_proj 12.5 MB, 2.9 µs
//   MXFP4 0.53 B     ~2.8        3 × 2 × 16 B
// Registers by nvcc 13.0: 60 to 80 on sm_80, 86 and 90a, none spilled. Shared memory: 10 KiB of partial sums, 24 to 32
// KiB of weights under way, and x: 6 KiB for one row of 2880, 46 KiB for eight. Three blocks a multiprocessor up to 4
// rows, two at 8 (H200). Instructions are counted by hand from the source. H200, one row of 20b, each kernel alone
// (ncu, cold caches): 33 µs on average with bf16 weights, the head included, 18 with MXFP4.
#include <algorithm>

#include "cuda/device/tensor_cores.cuh"
#include "cuda/matmul/matmul.h"
#include "gpu/mxfp4.cuh"

namespace temper::gpu {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kColumns = 8, kOutputs = 16;
constexpr int kBlocks = 3;                    // per multiprocessor: 85 registers a thread
constexpr int kPartialStride = kOutputs + 4;  // keeps the four t of a store in different banks
// shared memory for x at most: 8 rows of 4096; less where a block may not have so much
constexpr size_t kStagedBytes = 72 * 1024;
// partial sums, and what the driver keeps of each block
constexpr size_t kStaticBytes = 2 * kWarps * kColumns * kPartialStride * 4 + 1024;
constexpr int64_t kFewGroupedRows = 64;  // grouped products up to this many rows, or …
constexpr int64_t kFewRowsPerGroup = 4;  // … this many per expert on average, come here

// A Product as the kernels see it.
struct Few {
  const float* x;
  int64_t ldx, x_count;
  const int32_t* index;
  FaultName index_name;
  const void* w;
  const uint8_t* scales;
  const uint16_t* q8_scales;
  int64_t ldw, group_rows;
  const float *h, *b;
  int64_t ldh, ldb;
  int rank;
  float alpha, low_alpha;
  const void* bias;
  bool bias_bf16, vector_x, accumulate;
  float* c;
  int64_t ldc;
  int m, n, k, row_units;  // row_units: 16-byte units from row to row of w
  const int32_t* offsets;
  int groups;
  // of k per block; rounds per warp and per filling of shared memory; units of 8 k from row to row there
  int iterations, rounds, chunk_rounds, stride;
  Fault* fault;
  FaultName op;
};

// ---- the weights, 16 bytes of a row at a time ----
// A row is kUnits of 16 bytes; a lane takes kPieces of them, kLane values of k, in one iteration; kAhead iterations are
// under way. decode: 8 of these values as bf16 pairs in the order in which x is staged. values: the same 8 as f32, in
// order.
struct Bf16Weights {
  static constexpr int kLane = 8, kPieces = 1, kAhead = 4;
  static constexpr bool kScaled = false, kInterleaved = false;
  using Scale = uint8_t;
  static TEMPER_DEVICE const Scale* scales(const Few&, int64_t) { return nullptr; }
  template <bool>
  static TEMPER_DEVICE void pairs(const uint4 (&raw)[1], uint32_t, int, uint32_t (&out)[4]) {
    out[0] = raw[0].x, out[1] = raw[0].y, out[2] = raw[0].z, out[3] = raw[0].w;
  }
  static TEMPER_DEVICE void values(const uint4 (&raw)[1], uint32_t, int, float (&v)[8]) {
    const uint32_t word[4] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      v[2 * i] = bits_to_float(word[i] << 16), v[2 * i + 1] = bits_to_float(word[i] & 0xffff0000u);
  }
  static TEMPER_DEVICE void ragged(const Few& p, int64_t row, int k, uint4 (&raw)[1]) {
    const uint16_t* from = static_cast<const uint16_t*>(p.w) + row * p.ldw + k;
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pair[i] = (k + 2 * i < p.k ? from[2 * i] : 0u) | (k + 2 * i + 1 < p.k ? from[2 * i + 1] : 0u) << 16;
    raw[0] = make_uint4(pair[0], pair[1], pair[2], pair[3]);
  }
};

struct F32Weights {
  static constexpr int kLane = 8, kPieces = 2, kAhead = 2;
  static constexpr bool kScaled = false, kInterleaved = false;
  using Scale = uint8_t;
  static TEMPER_DEVICE const Scale* scales(const Few&, int64_t) { return nullptr; }
  static TEMPER_DEVICE void values(const uint4 (&raw)[2], uint32_t, int, float (&v)[8]) {
    const uint32_t word[8] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w, raw[1].x, raw[1].y, raw[1].z, raw[1].w};
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = bits_to_float(word[i]);
  }
  template <bool>
  static TEMPER_DEVICE void pairs(const uint4 (&raw)[2], uint32_t scale, int unit, uint32_t (&out)[4]) {
    float v[8];
    values(raw, scale, unit, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
  }
  static TEMPER_DEVICE void ragged(const Few& p, int64_t row, int k, uint4 (&raw)[2]) {
    const float* from = static_cast<const float*>(p.w) + row * p.ldw + k;
    uint32_t v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = k + i < p.k ? float_to_bits(from[i]) : 0;
    raw[0] = make_uint4(v[0], v[1], v[2], v[3]), raw[1] = make_uint4(v[4], v[5], v[6], v[7]);
  }
};

struct Q8Weights {
  static constexpr int kLane = 16, kPieces = 1, kAhead = 3;
  static constexpr bool kScaled = true, kInterleaved = false;
  using Scale = uint16_t;
  static TEMPER_DEVICE const Scale* scales(const Few& p, int64_t row) { return p.q8_scales + row * (p.row_units / 2); }
  static constexpr int kUnitsPerScale = 2;
  // A byte under the exponent of 2²³ is an integer of f32: no conversion instruction.
  static TEMPER_DEVICE void values(const uint4 (&raw)[1], uint32_t scale, int unit, float (&v)[8]) {
    const uint32_t word[4] = {raw[0].x, raw[0].y, raw[0].z, raw[0].w};
    const float factor = bits_to_float(scale << 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t biased = word[2 * unit + i / 4] ^ 0x80808080u;
      v[i] = (bits_to_float(__byte_perm(biased, 0x4b000000u, 0x7440u + static_cast<unsigned>(i % 4))) - 8388736.0f) *
             factor;
    }
  }
  template <bool>
  static TEMPER_DEVICE void pairs(const uint4 (&raw)[1], uint32_t scale, int unit, uint32_t (&out)[4]) {
    float v[8];
    values(raw, scale, unit, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
  }
};

struct Mxfp4Weights {
  static constexpr int kLane = 32, kPieces = 1, kAhead = 3;
  static constexpr bool kScaled = true, kInterleaved = true;  // pair i of 8 values holds elements i and i+4
  using Scale = uint8_t;
  static TEMPER_DEVICE const Scale* scales(const Few& p, int64_t row) { return p.scales + row * p.row_units; }
  static constexpr int kUnitsPerScale = 1;
  static TEMPER_DEVICE uint32_t word(const uint4& raw, int unit) {
    return unit == 0 ? raw.x : unit == 1 ? raw.y : unit == 2 ? raw.z : raw.w;
  }
  template <bool kWide>
  static TEMPER_DEVICE void pairs(const uint4 (&raw)[1], uint32_t scale, int unit, uint32_t (&out)[4]) {
    mxfp4_pairs<kWide>(word(raw[0], unit), mxfp4_scale<kWide>(scale), out);
  }
  static TEMPER_DEVICE void values(const uint4 (&raw)[1], uint32_t scale, int unit, float (&v)[8]) {
    mxfp4_values(word(raw[0], unit), scale, v);
  }
};

// ---- the rows of a group ----
struct Group {
  int expert, begin, rows;
};

// The slot-th group that has rows; every warp finds it by itself. Block 0 says what is wrong with the offsets.
TEMPER_DEVICE Group find_group(const Few& p, int slot) {
  if (!p.offsets) return {0, 0, p.m};
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool check = blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < kWarp;
  Group found{0, 0, 0};
  int before = 0;
  for (int base = 0; base < p.groups; base += kWarp) {
    const int e = base + lane;
    const int from = e < p.groups ? p.offsets[e] : p.m, to = e < p.groups ? p.offsets[e + 1] : p.m;
    if (check && e < p.groups) {
      if (e == 0 && from != 0) report_fault(p.fault, FaultCode::bad_index, p.op, "offsets", 0, from, 1);
      if (to < from || to > p.m || (e + 1 == p.groups && to != p.m))
        report_fault(p.fault, FaultCode::bad_index, p.op, "offsets", e + 1, to, p.m + 1);
    }
    const int begin = from < 0 ? 0 : from < p.m ? from : p.m, end = to < begin ? begin : to < p.m ? to : p.m;
    const unsigned filled = __ballot_sync(kAllLanes, end > begin);
    const bool mine = end > begin && before + __popc(filled & ((1u << lane) - 1)) == slot;
    const unsigned winner = __ballot_sync(kAllLanes, mine);
    if (winner) {
      const int source = __ffs(static_cast<int>(winner)) - 1;
      found = {base + source, __shfl_sync(kAllLanes, begin, source), __shfl_sync(kAllLanes, end - begin, source)};
    }
    before += __popc(filled);
  }
  return found;
}

TEMPER_DEVICE const float* x_row(const Few& p, int row) {
  const int64_t r = p.index ? checked_index(p.fault, p.op, p.index_name, row, p.index[row], p.x_count) : row;
  return p.x + r * p.ldx;
}

TEMPER_DEVICE void load8(const Few& p, const float* row, int k, float (&v)[8]) {
  if (p.vector_x && k + 8 <= p.k) {
    const float4 a = *reinterpret_cast<const float4*>(row + k), b = *reinterpret_cast<const float4*>(row + k + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = k + i < p.k ? row[k + i] : 0.0f;
  }
}

// bias + the low-rank term + the sum, in this order.
template <bool kRounded>
TEMPER_DEVICE void store(const Few& p, const Group& group, int row, int n, float sum) {
  const int64_t weight_row = group.expert * p.group_rows + n;
  float total = 0;
  if (p.bias)
    total = p.bias_bf16
                ? bf16_to_float(static_cast<const uint16_t*>(p.bias)[static_cast<int64_t>(group.expert) * p.n + n])
                : static_cast<const float*>(p.bias)[static_cast<int64_t>(group.expert) * p.n + n];
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
// Rows first … first+rows−1 of the group, iterations [from, from + chunk): unit u (8 k) of a row as 4 pairs of bf16,
// where lane t finds its units.
template <class W>
TEMPER_DEVICE void stage(const Few& p, uint4* staged, int first_row, int rows, int from) {
  constexpr int kUnits = W::kLane / 8;  // of a lane in one iteration
  const int left = p.iterations - from, chunk = p.chunk_rounds * kWarps,
            units = 4 * kUnits * (left < chunk ? left : chunk);
  for (int r = 0; r < rows; ++r) {
    const float* row = x_row(p, first_row + r);
    for (int u = static_cast<int>(threadIdx.x); u < units; u += kThreads) {
      float v[8];
      load8(p, row, from * 4 * W::kLane + 8 * u, v);
      const int iteration = u / (4 * kUnits), t = u / kUnits % 4, j = u % kUnits;
      staged[r * p.stride + (iteration * kUnits + j) * 4 + t] =
          W::kInterleaved
              ? make_uint4(pack_bf16(v[0], v[4]), pack_bf16(v[1], v[5]), pack_bf16(v[2], v[6]), pack_bf16(v[3], v[7]))
              : make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    }
  }
}

// One iteration of a warp: 16 outputs × 4·kLane k × 8 columns. Even and odd steps have their own accumulators: shorter
// chains of dependent products.
template <class W, bool kWide>
TEMPER_DEVICE void multiply_step(float (&even)[4], float (&odd)[4], const uint4 (&raw)[2][W::kPieces],
                                 const uint32_t (&scale)[2], const uint4* column, bool present) {
#pragma unroll
  for (int j = 0; j < W::kLane / 8; ++j) {
    const uint4 x = present ? column[4 * j] : make_uint4(0, 0, 0, 0);
    uint32_t low[4], high[4];
    W::template pairs<kWide>(raw[0], scale[0], j, low);
    W::template pairs<kWide>(raw[1], scale[1], j, high);
    const uint32_t a0[4] = {low[0], high[0], low[1], high[1]}, a1[4] = {low[2], high[2], low[3], high[3]},
                   b0[2] = {x.x, x.y}, b1[2] = {x.z, x.w};
    mma_bf16(even, a0, b0);
    mma_bf16(odd, a1, b1);
  }
}

// Shared memory: the ring of weights under way, where every lane reads what it copied itself (no barrier), then the
// staged rows.
template <class W>
constexpr int kRing = kWarps * W::kAhead * 2 * W::kPieces * kWarp;  // 16-byte units

template <class W, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocks) few_rows(Few p) {
  wait_for_previous();
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  __shared__ float partial[2][kWarps][kColumns * kPartialStride];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, g = lane / 4,
            t = lane % 4;
  uint4* const ring = shared + warp * (W::kAhead * 2 * W::kPieces * kWarp) + lane;
  uint4* const staged = shared + kRing<W>;
  const Group group = find_group(p, static_cast<int>(blockIdx.y));
  const int64_t weight_row = group.expert * p.group_rows;
  const uint4* const weights = static_cast<const uint4*>(p.w) + weight_row * p.row_units;
  const auto* const scales = W::scales(p, weight_row);
  const int tiles = (p.n + kOutputs - 1) / kOutputs, grid = static_cast<int>(gridDim.x);
  int parity = 0;
  for (int first = 0; first < group.rows; first += kColumns) {
    const int rows = group.rows - first < kColumns ? group.rows - first : kColumns;
    uint32_t scale[W::kAhead][2];
    const auto fetch = [&](int slot, int tile, int round) {
      const int iteration = round * kWarps + warp, k = (iteration * 4 + t) * W::kLane;
      const bool valid = tile < tiles && iteration < p.iterations && k < p.k;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int n = tile * kOutputs + g + 8 * half;
        const int row = n < p.n ? n : p.n - 1;
        uint4* to = ring + (slot * 2 + half) * W::kPieces * kWarp;
        if constexpr (kAligned) {
          const int unit = row * p.row_units + (iteration * 4 + t) * W::kPieces;
#pragma unroll
          for (int piece = 0; piece < W::kPieces; ++piece)
            cp_async16(to + piece * kWarp, weights + unit + piece, valid);
          if constexpr (W::kScaled) scale[slot][half] = valid ? scales[unit / W::kUnitsPerScale] : 0;
        } else if (valid) {
          uint4 raw[W::kPieces];
          W::ragged(p, weight_row + row, k, raw);
#pragma unroll
          for (int piece = 0; piece < W::kPieces; ++piece) to[piece * kWarp] = raw[piece];
        } else {
#pragma unroll
          for (int piece = 0; piece < W::kPieces; ++piece) to[piece * kWarp] = make_uint4(0, 0, 0, 0);
        }
      }
      cp_async_commit();
    };
    int tile = static_cast<int>(blockIdx.x);
#pragma unroll
    for (int u = 0; u < W::kAhead; ++u) fetch(u, tile, u);
    bool filled = false;
    for (; tile < tiles; tile += grid) {
      float even[4] = {}, odd[4] = {};
      for (int round = 0; round < p.rounds; round += W::kAhead) {
        if (!filled || (p.rounds > p.chunk_rounds && round % p.chunk_rounds == 0)) {
          __syncthreads();  // the rows that were there are read
          stage<W>(p, staged, group.begin + first, rows, round * kWarps);
          __syncthreads();
          filled = true;
        }
        const uint4* column = staged + g * p.stride + (round % p.chunk_rounds * kWarps + warp) * (W::kLane / 2) + t;
#pragma unroll
        for (int u = 0; u < W::kAhead; ++u) {
          cp_async_wait<W::kAhead - 1>();
          if ((round + u) * kWarps + warp < p.iterations) {
            uint4 raw[2][W::kPieces];
#pragma unroll
            for (int i = 0; i < 2 * W::kPieces; ++i)
              raw[i / W::kPieces][i % W::kPieces] = ring[(u * 2 * W::kPieces + i) * kWarp];
            const uint4* at = column + u * kWarps * (W::kLane / 2);
            if constexpr (W::kInterleaved) {
              if (__any_sync(kAllLanes, scale[u][0] > kMxfp4Narrow || scale[u][1] > kMxfp4Narrow))
                multiply_step<W, true>(even, odd, raw, scale[u], at, g < rows);
              else multiply_step<W, false>(even, odd, raw, scale[u], at, g < rows);
            } else {
              multiply_step<W, false>(even, odd, raw, scale[u], at, g < rows);
            }
          }
          const int next = round + u + W::kAhead;
          if (next < p.rounds) fetch(u, tile, next);
          else fetch(u, tile + grid, next - p.rounds);
        }
      }
      float* mine = partial[parity][warp];
#pragma unroll
      for (int i = 0; i < 4; ++i) mine[(2 * t + i % 2) * kPartialStride + g + 8 * (i / 2)] = even[i] + odd[i];
      __syncthreads();
      const int o = static_cast<int>(threadIdx.x) % kOutputs, row = static_cast<int>(threadIdx.x) / kOutputs,
                n = tile * kOutputs + o;
      if (row < rows && n < p.n) {
        float sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += partial[parity][w][row * kPartialStride + o];
        store<true>(p, group, group.begin + first + row, n, sum);
      }
      parity ^= 1;  // the next tile's sums go where nobody reads
    }
    cp_async_wait<0>();
  }
}

// ---- f32 on CUDA cores ----
// A warp per output: lanes take kLane k in turn, then the lanes' sums are added.
template <class W, bool kAligned, int kRows>
__global__ void __launch_bounds__(kThreads) few_rows_exact(Few p) {
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const Group group = find_group(p, static_cast<int>(blockIdx.y));
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
      if (lane == 0) store<false>(p, group, group.begin + first + r, n, total);
    }
  }
}

template <class W, bool kAligned>
void run(Few& p, int64_t slots, int64_t most_rows, int64_t precision) {
  const auto slot_count = static_cast<unsigned>(slots);
  if (precision == 0) {
    const dim3 grid(static_cast<unsigned>(blocks_for(p.n, kWarps)), slot_count);
    if (most_rows == 1) launch(few_rows_exact<W, kAligned, 1>, grid, kThreads, 0, p);
    else launch(few_rows_exact<W, kAligned, kColumns>, grid, kThreads, 0, p);
    return;
  }
  // of 8 k in one iteration
  const int rows = static_cast<int>(std::min<int64_t>(most_rows, kColumns)), units = W::kLane / 2;
  p.iterations = static_cast<int>(blocks_for(p.k, 4 * W::kLane));
  p.rounds = static_cast<int>(blocks_for(blocks_for(p.iterations, kWarps), W::kAhead)) * W::kAhead;
  const size_t room =
      std::min(kStagedBytes, static_cast<size_t>(device().shared_per_block) - kStaticBytes - kRing<W> * 16);
  const int64_t fit = static_cast<int64_t>(room) / 16 / rows / (units * kWarps * W::kAhead) * W::kAhead;
  p.chunk_rounds = static_cast<int>(std::clamp<int64_t>(fit, W::kAhead, p.rounds));
  // rows start 64 bytes apart, modulo the banks
  p.stride =
      static_cast<int>(blocks_for(static_cast<int64_t>(std::min(p.iterations, p.chunk_rounds * kWarps)) * units, 8)) *
          8 +
      4;
  // As many blocks as run at once, each with the same number of tiles: x is staged once, and the loads of the next tile
  // are under way while this one ends.
  const int64_t tiles = blocks_for(p.n, kOutputs),
                resident = std::max<int64_t>(kBlocks * device().multiprocessors / slots, 1),
                turns = blocks_for(tiles, resident);
  launch(few_rows<W, kAligned>, dim3(static_cast<unsigned>(blocks_for(tiles, turns)), slot_count), kThreads,
         (kRing<W> + static_cast<size_t>(rows) * p.stride) * 16, p);
}

bool plain(const Source& s) { return s.kind == Kind::f32 && s.k_inner && !s.row_scale && s.mask.limit == 0; }

}  // namespace

int64_t most_few_rows(const Product& product) {
  return product.ragged == Ragged::rows ? std::max(kFewGroupedRows, kFewRowsPerGroup * product.groups) : kColumns;
}

bool multiply_few_rows(const Product& product, int64_t precision) {
  const Source &a = product.main.a, &b = product.main.b, &h = product.low_rank.a, &low = product.low_rank.b;
  const bool grouped = product.ragged == Ragged::rows;
  if (product.ragged == Ragged::k || product.m < 1 || product.n < 1 || product.main.k < 1) return false;
  if (product.m > most_few_rows(product)) return false;
  if (!plain(a) || !b.k_inner || b.index || b.row_scale || b.mask.limit) return false;
  if (product.low_rank.k && (!plain(h) || !plain(low) || h.index || low.index || product.low_rank_mask.limit))
    return false;
  const auto address = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  const int64_t row_bytes = b.kind == Kind::bf16  ? 2 * b.ld
                            : b.kind == Kind::f32 ? 4 * b.ld
                            : b.kind == Kind::q8  ? b.ld
                                                  : b.ld / 2;
  const bool aligned = address(b.data) % 16 == 0 && row_bytes % 16 == 0 && product.main.k % 8 == 0;
  if (product.n * (row_bytes / 16) > INT32_MAX) return false;  // units of one group are counted in 32 bits
  if ((b.kind == Kind::q8 || b.kind == Kind::mxfp4) && !(aligned && product.main.k % 32 == 0 && b.ld % 32 == 0))
    return false;
  Few p{};
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
  const int64_t slots = grouped ? std::min(product.groups, product.m) : 1;
  switch (b.kind) {
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
