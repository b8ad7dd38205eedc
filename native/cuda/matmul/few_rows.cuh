// What kernels of few rows are made of (few_rows.cu says how they work): the weights, 16 bytes of a row at a time; the
// rows of a group; and the loop over tiles of 16 outputs. A kernel brings a Job: where its weights lie, what its rows
// are, and what becomes of a sum.
#pragma once
#include <algorithm>

#include "cuda/device/tensor_cores.cuh"
#include "cuda/matmul/matmul.h"
#include "gpu/mxfp4.cuh"

namespace temper::gpu::few {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kColumns = 8, kOutputs = 16;
constexpr int kBlocks = 3;  // per multiprocessor: 85 registers a thread
// shared memory for x at most: 8 rows of 4096 a group of columns; less where a block may not have so much
constexpr size_t kStagedBytes = 72 * 1024;

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
  // the kernel ahead wrote x, one before it the offsets: they may be read while the one ahead still runs
  bool settled;
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

// The product as these kernels see it, and whether its weights can be read 16 bytes at a time; false: not for them.
bool describe(const Product& product, Few& p, bool& aligned);

// ---- the rows of a group ----
struct Group {
  int expert, begin, rows;
};

// Rows [begin, end) of group e, within those there are whatever the offsets say.
struct Extent {
  int begin, end;
};
TEMPER_DEVICE Extent extent_of(const Few& p, int e) {
  const int from = e < p.groups ? p.offsets[e] : p.m, to = e < p.groups ? p.offsets[e + 1] : p.m;
  const int begin = from < 0 ? 0 : from < p.m ? from : p.m;
  return {begin, to < begin ? begin : to < p.m ? to : p.m};
}
// Groups that have rows; every warp counts them by itself.
TEMPER_DEVICE int filled_groups(const Few& p) {
  if (!p.offsets) return 1;
  int count = 0;
  for (int base = 0; base < p.groups; base += kWarp) {
    const Extent rows = extent_of(p, base + static_cast<int>(threadIdx.x) % kWarp);
    count += __popc(__ballot_sync(kAllLanes, rows.end > rows.begin));
  }
  return count;
}
// The slot-th group that has rows; every warp finds it by itself. Block 0 says what is wrong with the offsets, where
// `reports`.
TEMPER_DEVICE Group find_group(const Few& p, int slot, bool reports) {
  if (!p.offsets) return {0, 0, p.m};
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool check = reports && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < kWarp;
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
    const auto [begin, end] = extent_of(p, e);
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

// A bias as it was read, 0 where there is none: widened where it is used, so that nothing waits for it before.
TEMPER_DEVICE uint32_t bias_bits(const void* bias, bool bf16, int64_t n) {
  if (!bias) return 0;
  return bf16 ? static_cast<const uint16_t*>(bias)[n] : static_cast<const uint32_t*>(bias)[n];
}
TEMPER_DEVICE float bias_of(uint32_t bits, bool bf16) { return bits_to_float(bf16 ? bits << 16 : bits); }

// Rows of one group and its weights, for a Job that adds what becomes of a sum.
template <class W>
struct GroupRows {
  const Few& p;
  Group group;
  int first = 0;  // of the group's rows, in this pass
  TEMPER_DEVICE explicit GroupRows(const Few& few, const Group& of = {}) : p(few), group(of) {}
  TEMPER_DEVICE int64_t weight_row() const { return group.expert * p.group_rows; }
  TEMPER_DEVICE const uint4* weights(int) const { return static_cast<const uint4*>(p.w) + weight_row() * p.row_units; }
  TEMPER_DEVICE auto scales(int) const { return W::scales(p, weight_row()); }
  TEMPER_DEVICE int row(int tile, int output) const {
    const int n = tile * kOutputs + output;
    return n < p.n ? n : p.n - 1;
  }
  TEMPER_DEVICE void ragged(int row, int k, uint4 (&raw)[W::kPieces]) const {
    W::ragged(p, weight_row() + row, k, raw);
  }
  TEMPER_DEVICE void prepare() const {}
  TEMPER_DEVICE const float* staged_row(int r) const { return x_row(p, group.begin + first + r); }
  TEMPER_DEVICE void load(const float* row, int k, float (&v)[8]) const { load8(p, row, k, v); }
  // Output n's bias as it is read; 0 also beyond the last output.
  TEMPER_DEVICE uint32_t bias_ahead(int n) const {
    return bias_bits(n < p.n ? p.bias : nullptr, p.bias_bf16, static_cast<int64_t>(group.expert) * p.n + n);
  }
  TEMPER_DEVICE float bias(uint32_t had) const { return bias_of(had, p.bias_bf16); }
};

// ---- the loop ----
// A Job has, for a pass of up to 8·kGroups rows:
//   weights(tile), scales(tile)    the matrix that a tile is of, and what scales it
//   row(tile, output)              an output's row in it; of any tile and output, also beyond the last
//   ragged(row, k, raw)            its 16 bytes from k on, where weights are not aligned
//   prepare()                      by all threads, once, before rows are staged
//   staged_row(r)                  what load takes for row r of the pass
//   load(row, k, v)                8 values from k on, zeros beyond the row's end
//   ahead(tile, r, output)         what finish takes beside the sum, asked for before the tile is multiplied; r < rows
//   finish(tile, r, output, ahead, sum)
//                                  by one thread for each row and output; sum(o) of any output o of the tile

// A block's share of `total` tiles: as many as the others', or one more.
struct Share {
  int begin, end;
};
TEMPER_DEVICE Share share_of(int total) {
  const auto part = [&](unsigned block) {
    return static_cast<int>(static_cast<unsigned long long>(block) * static_cast<unsigned>(total) / gridDim.x);
  };
  return {part(blockIdx.x), part(blockIdx.x + 1)};
}

// Before a kernel waits for those ahead: the weights of its block's first tile go to L2, where nothing can make them
// stale.
template <class Job>
TEMPER_DEVICE void ask_for_tile(const Few& p, const Job& job, int tile) {
  constexpr int kLine = 8;  // units
  const int lines = (p.row_units + kLine - 1) / kLine;
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs * lines; i += kThreads)
    prefetch_l2(job.weights(tile) + static_cast<int64_t>(job.row(tile, i / lines)) * p.row_units + i % lines * kLine);
}

// Rows of the pass, iterations [from, from + chunk): unit u (8 k) of a row as 4 pairs of bf16, where lane t finds its
// units. kTogether rows are asked for before the first of them is waited for.
template <class W, int kTogether, class Job>
TEMPER_DEVICE void stage(const Few& p, const Job& job, uint4* staged, int rows, int from) {
  constexpr int kUnits = W::kLane / 8;  // of a lane in one iteration
  const int left = p.iterations - from, chunk = p.chunk_rounds * kWarps,
            units = 4 * kUnits * (left < chunk ? left : chunk);
  for (int r = 0; r < rows; r += kTogether) {
    decltype(job.staged_row(0)) row[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) row[i] = job.staged_row(i == 0 ? r : min(r + i, rows - 1));
    for (int u = static_cast<int>(threadIdx.x); u < units; u += kThreads) {
      float v[kTogether][8];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) job.load(row[i], from * 4 * W::kLane + 8 * u, v[i]);
      const int iteration = u / (4 * kUnits), t = u / kUnits % 4, j = u % kUnits;
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (i > 0 && r + i >= rows) break;
        staged[(r + i) * p.stride + (iteration * kUnits + j) * 4 + t] =
            W::kInterleaved ? make_uint4(pack_bf16(v[i][0], v[i][4]), pack_bf16(v[i][1], v[i][5]),
                                         pack_bf16(v[i][2], v[i][6]), pack_bf16(v[i][3], v[i][7]))
                            : make_uint4(pack_bf16(v[i][0], v[i][1]), pack_bf16(v[i][2], v[i][3]),
                                         pack_bf16(v[i][4], v[i][5]), pack_bf16(v[i][6], v[i][7]));
      }
    }
  }
}

// One iteration of a warp: 16 outputs × 4·kLane k × 8 columns for each group of them, each lane's column where `column`
// says. Even and odd steps have their own accumulators: shorter chains of dependent products.
template <class W, bool kWide, int kGroups>
TEMPER_DEVICE void multiply_step(float (&even)[kGroups][4], float (&odd)[kGroups][4], const uint4 (&raw)[2][W::kPieces],
                                 const uint32_t (&scale)[2], const uint4* const (&column)[kGroups], int at) {
#pragma unroll
  for (int j = 0; j < W::kLane / 8; ++j) {
    uint32_t low[4], high[4];
    W::template pairs<kWide>(raw[0], scale[0], j, low);
    W::template pairs<kWide>(raw[1], scale[1], j, high);
    const uint32_t a0[4] = {low[0], high[0], low[1], high[1]}, a1[4] = {low[2], high[2], low[3], high[3]};
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
      const uint4 x = column[c][at + 4 * j];
      const uint32_t b0[2] = {x.x, x.y}, b1[2] = {x.z, x.w};
      mma_bf16(even[c], a0, b0);
      mma_bf16(odd[c], a1, b1);
    }
  }
}

// Shared memory: the ring of weights under way, where every lane reads what it copied itself (no barrier), then the
// staged rows.
template <class W>
constexpr int kRing = kWarps * W::kAhead * 2 * W::kPieces * kWarp;  // 16-byte units
// Groups of columns whose partial sums lie there at a time: with 32 rows of 2880 there is no room for more.
template <int kGroups>
constexpr int kAtOnce = kGroups < 2 ? kGroups : 2;
template <int kGroups>
constexpr int kPartials = kWarps * kAtOnce<kGroups> * kColumns * kOutputs;
// Where a partial sum lies among its warp's: what 32 lanes store at once is in 32 banks, and so are two columns.
TEMPER_DEVICE constexpr int partial_at(int column, int output) {
  return (column ^ (column >> 2 & 1)) * kOutputs + (output ^ (column << 2 & 8));
}
// partial sums, and what the driver keeps of each block
template <int kGroups>
constexpr size_t kStaticBytes = kPartials<kGroups> * 4 + 1024;
// what a joined op has beside these at most
constexpr size_t kOwnBytes = 2048;

// One pass over tiles of this block. Instructions are its limit where weights are MXFP4: addresses are worked out once
// a tile, and a round is a constant further on.
template <class W, bool kAligned, int kGroups, class Job>
TEMPER_DEVICE void multiply_pass(const Few& p, Job& job, int rows, Share tiles, uint4* shared) {
  // One buffer without gaps and a second barrier: else an H200's multiprocessor would hold two blocks of MXFP4 with 8
  // rows of 2880, not three.
  __shared__ float partial[kWarps][kAtOnce<kGroups> * kColumns * kOutputs];
  constexpr int kRound = kWarps * 4, kRoundK = kRound * W::kLane;  // lanes and k from a warp's iteration to its next
  constexpr int kRoundStaged = kRoundK / 8;                        // units of x
  const unsigned thread = threadIdx.x;                             // unsigned: divisions are shifts
  const int lane = static_cast<int>(thread % kWarp), warp = static_cast<int>(thread / kWarp), g = lane / 4u,
            t = lane % 4u, first = warp * 4 + t;
  uint4* const ring = shared + warp * (W::kAhead * 2 * W::kPieces * kWarp) + lane;
  uint4* const staged = shared + kRing<W>;
  const int lane_rounds = static_cast<int>(static_cast<unsigned>(p.k + kRoundK - 1 - first * W::kLane) / kRoundK),
            warp_rounds = static_cast<int>(static_cast<unsigned>(p.iterations + kWarps - 1 - warp) / kWarps);

  // What is asked for next: where the lane's two rows go on, and how many rounds of them are left.
  const uint4* from[2];
  const typename W::Scale* scales_from[2];
  int left, asked_tile, asked_round;
  const auto point_at = [&](int tile) {
    left = tile < tiles.end ? lane_rounds : 0, asked_tile = tile, asked_round = 0;
    if constexpr (kAligned) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int unit = job.row(tile, g + 8 * half) * p.row_units + first * W::kPieces;
        from[half] = job.weights(tile) + unit;
        if constexpr (W::kScaled) scales_from[half] = job.scales(tile) + unit / W::kUnitsPerScale;
      }
    }
  };
  const auto move_on = [&] {
    left -= W::kAhead, asked_round += W::kAhead;
    if constexpr (kAligned) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        from[half] += W::kAhead * kRound * W::kPieces;
        if constexpr (W::kScaled) scales_from[half] += W::kAhead * kRound / W::kUnitsPerScale;
      }
    }
  };
  uint32_t scale[W::kAhead][2];
  const auto fetch = [&](int slot) {  // that many rounds further on
    const bool valid = slot < left;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4* to = ring + (slot * 2 + half) * W::kPieces * kWarp;
      if constexpr (kAligned) {
#pragma unroll
        for (int piece = 0; piece < W::kPieces; ++piece)
          cp_async16(to + piece * kWarp, from[half] + slot * kRound * W::kPieces + piece, valid);
        if constexpr (W::kScaled) scale[slot][half] = valid ? scales_from[half][slot * kRound / W::kUnitsPerScale] : 0;
      } else if (valid) {
        uint4 raw[W::kPieces];
        job.ragged(job.row(asked_tile, g + 8 * half), (asked_round + slot) * kRoundK + first * W::kLane, raw);
#pragma unroll
        for (int piece = 0; piece < W::kPieces; ++piece) to[piece * kWarp] = raw[piece];
      } else {
#pragma unroll
        for (int piece = 0; piece < W::kPieces; ++piece) to[piece * kWarp] = make_uint4(0, 0, 0, 0);
      }
    }
    cp_async_commit();
  };

  point_at(tiles.begin);
#pragma unroll
  for (int u = 0; u < W::kAhead; ++u) fetch(u);
  job.prepare();
  // A column without a row takes the last one's: its sums go nowhere.
  const uint4* column[kGroups];
#pragma unroll
  for (int c = 0; c < kGroups; ++c)
    column[c] = staged + min(kColumns * c + g, rows - 1) * p.stride + warp * (W::kLane / 2) + t;
  const int o = static_cast<int>(thread % kOutputs), row = static_cast<int>(thread / kOutputs);
  constexpr int kTurns = kGroups / kAtOnce<kGroups>, kTurnRows = kAtOnce<kGroups> * kColumns;  // of adding sums up
  static_assert(kTurnRows * kOutputs <= kThreads && kTurns * kAtOnce<kGroups> == kGroups);
  decltype(job.ahead(0, 0, 0)) ahead[kTurns] = {};
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn)
    if (row + turn * kTurnRows < rows) ahead[turn] = job.ahead(tiles.begin, row + turn * kTurnRows, o);
  float even[kGroups][4] = {}, odd[kGroups][4] = {};
  bool filled = false;
  // One loop over the rounds of all tiles: of two, the next tile's addresses would be held as long as the tile lasts.
  for (int tile = tiles.begin, round = 0, in_chunk = 0; tile < tiles.end;) {
    if (in_chunk == 0 && (!filled || p.rounds > p.chunk_rounds)) {
      __syncthreads();  // the rows that were there are read
      stage<W, kTurns == 1 ? 1 : 4>(p, job, staged, rows, round * kWarps);
      __syncthreads();
      filled = true;
    }
    // A block that is alone on its multiprocessor has 32 KB on their way, hardly what memory's latency wants.
    if constexpr (kTurns > 1 && kAligned)
      if (round == 0 && tile + 1 < tiles.end) ask_for_tile(p, job, tile + 1);
    if (round + W::kAhead < p.rounds) move_on();
    else point_at(tile + 1);
#pragma unroll
    for (int u = 0; u < W::kAhead; ++u) {
      cp_async_wait<W::kAhead - 1>();
      if (round + u < warp_rounds) {
        uint4 raw[2][W::kPieces];
#pragma unroll
        for (int i = 0; i < 2 * W::kPieces; ++i)
          raw[i / W::kPieces][i % W::kPieces] = ring[(u * 2 * W::kPieces + i) * kWarp];
        const int at = (in_chunk + u) * kRoundStaged;
        if constexpr (W::kInterleaved) {
          if (__any_sync(kAllLanes, scale[u][0] > kMxfp4Narrow || scale[u][1] > kMxfp4Narrow))
            multiply_step<W, true, kGroups>(even, odd, raw, scale[u], column, at);
          else multiply_step<W, false, kGroups>(even, odd, raw, scale[u], column, at);
        } else {
          multiply_step<W, false, kGroups>(even, odd, raw, scale[u], column, at);
        }
      }
      fetch(u);
    }
    round += W::kAhead, in_chunk += W::kAhead;
    if (in_chunk == p.chunk_rounds) in_chunk = 0;
    if (round < p.rounds) continue;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      __syncthreads();  // the sums before these are read
#pragma unroll
      for (int c = 0; c < kAtOnce<kGroups>; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float &a = even[turn * kAtOnce<kGroups> + c][i], &b = odd[turn * kAtOnce<kGroups> + c][i];
          partial[warp][partial_at(kColumns * c + 2 * t + i % 2, g + 8 * (i / 2))] = a + b;
          a = b = 0;
        }
      __syncthreads();
      const int r = row + turn * kTurnRows;
      if (r < rows) {
        job.finish(tile, r, o, ahead[turn], [&](int output) {
          float sum = 0;
          for (int w = 0; w < kWarps; ++w) sum += partial[w][partial_at(row, output)];
          return sum;
        });
        if (tile + 1 < tiles.end) ahead[turn] = job.ahead(tile + 1, r, o);
      }
    }
    ++tile, round = in_chunk = 0;
  }
  cp_async_wait<0>();
}

// Units from row to row of x in shared memory: rows start 64 bytes apart, modulo the banks.
template <class W>
constexpr int64_t stride_of(int64_t iterations) {
  return (iterations * (W::kLane / 2) + 7) / 8 * 8 + 4;
}
// Eight rows of an expert of 20b or 120b, 2880 wide: so many blocks are to fit an H200's multiprocessor, 228 KiB.
static_assert(kBlocks * ((kRing<Mxfp4Weights> + 8 * stride_of<Mxfp4Weights>(23)) * 16 + kStaticBytes<1>) <= 228 * 1024);
// And 32 rows of the head, 2880 wide, are to fit a block.
static_assert((kRing<Bf16Weights> + 32 * stride_of<Bf16Weights>(90)) * 16 + kStaticBytes<4> <= 228 * 1024);

// How a product of `rows` rows at a time is cut; what it says of shared memory is for launch.
template <class W, int kGroups>
size_t cut(Few& p, int64_t rows) {
  const int units = W::kLane / 2;  // of 8 k in one iteration
  p.iterations = static_cast<int>(blocks_for(p.k, 4 * W::kLane));
  p.rounds = static_cast<int>(blocks_for(blocks_for(p.iterations, kWarps), W::kAhead)) * W::kAhead;
  const size_t room = std::min(kGroups * kStagedBytes, static_cast<size_t>(device().shared_per_block) -
                                                           kStaticBytes<kGroups> - kOwnBytes - kRing<W> * 16);
  const int64_t fit = static_cast<int64_t>(room) / 16 / rows;  // units of a row
  const int64_t chunk = (fit - 4) / (units * kWarps * W::kAhead) * W::kAhead;
  p.chunk_rounds =
      stride_of<W>(p.iterations) <= fit ? p.rounds : static_cast<int>(std::clamp<int64_t>(chunk, W::kAhead, p.rounds));
  p.stride = static_cast<int>(stride_of<W>(std::min(p.iterations, p.chunk_rounds * kWarps)));
  return (kRing<W> + static_cast<size_t>(rows) * p.stride) * 16;
}
// As many blocks as run at once, each with the same number of tiles: x is staged once, and the loads of the next tile
// are under way while this one ends. `most` to a multiprocessor, or as many as its shared memory holds: a last wave of
// a few would take as long as a full one.
template <int kGroups>
dim3 blocks_of(int64_t tiles, int most, size_t shared) {
  const int64_t room = device().shared_per_block + 1024,
                fit = room / static_cast<int64_t>(shared + kStaticBytes<kGroups>),
                at_once = std::max<int64_t>(std::min<int64_t>(most, fit), 1) * std::max(device().multiprocessors, 1);
  return dim3(static_cast<unsigned>(blocks_for(tiles, blocks_for(tiles, at_once))));
}

// All rows of a block's share of the tiles of all groups that have any: where rows are few most have none, and who they
// are is known on the device alone.
template <class W, bool kAligned, int kGroups, class Job>
TEMPER_DEVICE void multiply_groups(const Few& p, Job& job, uint4* shared) {
  const int tiles = (p.n + kOutputs - 1) / kOutputs;
  const Share share = share_of(filled_groups(p) * tiles);
  if (p.offsets && blockIdx.x == 0) find_group(p, 0, true);
  for (int at = share.begin; at < share.end;) {
    const int begin = at % tiles, end = min(tiles, begin + share.end - at);
    job.group = find_group(p, at / tiles, false);
    for (job.first = 0; job.first < job.group.rows; job.first += kGroups * kColumns)
      multiply_pass<W, kAligned, kGroups>(p, job, min(job.group.rows - job.first, kGroups * kColumns),
                                          Share{begin, end}, shared);
    at += end - begin;
  }
}

}  // namespace temper::gpu::few
