// Expert products on Hopper with the MXFP4 weights as the register operand: cᵀ = W·xᵀ by wgmma, 256 outputs by 128 rows
// of x to a block.
//
// wgmma takes its first operand from registers or from shared memory, the second from shared memory alone. A decoded
// weight that goes through shared memory is written once and read by two warpgroups, beside x: more than the 128 bytes
// a clock that shared memory has. So the product is turned: the weights are decoded straight into the fragments of the
// first operand, x [rows, 64 k] is the second one, and shared memory holds codes (half a byte) and x alone. Two
// warpgroups of 128 outputs each share x, a third one copies. A k-block of 64 is 4 steps of 16 k; while the products of
// one step run, the next step's fragments are decoded: about 50 issue slots a warp and step, 100 of a scheduler's 256
// clocks at full tensor rate (4096 FLOP a clock).
//
// A lane (g, t) of warp w holds, of each 16 k, outputs 32w + 4g … + 3 and four k. Both orders are free as long as the
// operands agree:
//   forward  (rows of W are outputs): k slots 2t, 2t+1, 8+2t, 9+2t of step s are elements 16t + 8(s/2) + 2(s%2) + {0,
//   4, 1, 5} of the 64: what one shift of a
//            word of codes gives as pairs. x is staged with its k in that order (Source::interleaved).
//   backward (rows of W are k): the natural order; the codes of 4 neighbouring outputs in two rows of W make the pairs.
// H200, 4,096 tokens of 20b, bias included: forward 404 TFLOP/s, backward 390 to 398, of 0.74 PFLOP/s that cuBLASLt
// reaches dense; copied by the multiplying warps themselves 370 and 352.
//   gate_up of gpt-oss, 4096 tokens: 0.54 TFLOP (0.69 ms at 790 TFLOP/s); 377 MB of results, 282 MB of weights: 0.15 ms
//   of memory.
// Shared memory: 6 stages of x (16 KiB), codes (8 KiB) and scales (4 KiB): 169 KiB, one block a multiprocessor.
#include <type_traits>

#include "cuda/device/tensor_cores.cuh"
#include "cuda/matmul/matmul_tiles.cuh"
#include "temper/error.h"

namespace temper::gpu {
namespace {

constexpr int kTokens = 128, kOutputs = 256, kGroup = 128, kThreadsHere = 3 * kGroup;
// of x and codes; k-blocks that the copying warps leave under way
constexpr int kStages = 6, kInFlight = 3;
// 16-byte chunks of a stage; codes of 64 k: 8 KiB either way round
constexpr int kXChunks = kTokens * 8, kCodeChunks = kOutputs * 2;
// of a stage, as words. Forward: 2 for each output; backward: 8 for each of 64 rows
constexpr int kScales = kOutputs * 2;
constexpr size_t kSharedBytes =
    static_cast<size_t>(kStages) * ((kXChunks + kCodeChunks) * 16 + 2 * kScales * 4 + 16 + 16) + 1024;

#if defined(TEMPER_HAS_WGMMA)
struct Stages {
  uint4 *x, *codes;
  uint32_t *factors, *rests;  // mxfp4_scale of each scale; rests count where one is beyond kMxfp4Narrow
  uint32_t* wide;             // [4] of a stage: whether a warp met such a scale
  uint64_t *full, *empty;

  TEMPER_DEVICE explicit Stages(uint4* shared) {
    x = shared, codes = x + kStages * kXChunks;
    factors = reinterpret_cast<uint32_t*>(codes + kStages * kCodeChunks), rests = factors + kStages * kScales;
    wide = rests + kStages * kScales;
    full = reinterpret_cast<uint64_t*>(wide + kStages * 4), empty = full + kStages;
  }
};
// Where a role stands in the ring.
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  TEMPER_DEVICE void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

// ---- the copying warpgroup ----
// Scales, one k-block ahead. Forward: outputs t and t+128, two groups of 32 k each; backward: row t/2, four groups of
// 32 outputs.
template <bool Forward>
struct Scales {
  const Place& place;
  const int n;
  const uint8_t* const scales;
  const uint32_t scale_row;
  uint32_t fetched[4];

  TEMPER_DEVICE static int thread() { return static_cast<int>(threadIdx.x) % kGroup; }
  TEMPER_DEVICE void fetch(int k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      fetched[i] = 0;
      if constexpr (Forward) {
        const int output = place.col + thread() + i / 2 * kGroup;
        if (output < n)
          fetched[i] = scales[static_cast<uint32_t>(output) * scale_row + static_cast<uint32_t>(k / 32 + i % 2)];
      } else {
        const int group = place.col / 32 + thread() % 2 * 4 + i;
        if (group * 32 < n)
          fetched[i] = scales[static_cast<uint32_t>(k + thread() / 2) * scale_row + static_cast<uint32_t>(group)];
      }
    }
  }
  TEMPER_DEVICE void store(const Stages& stages, int slot) const {
    bool wide = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Mxfp4Scale s = mxfp4_scale<true>(fetched[i]);
      wide = wide || fetched[i] > kMxfp4Narrow;
      if constexpr (Forward) {
        const int output = thread() + i / 2 * kGroup, at = slot * kScales + (output % 4 * 64 + output / 4) * 2 + i % 2;
        stages.factors[at] = s.factor, stages.rests[at] = s.rest;
      } else {  // [group][row]: two rows are read as one word
        const int at = 2 * slot * kScales + (thread() % 2 * 4 + i) * kBlockK + thread() / 2;
        reinterpret_cast<uint16_t*>(stages.factors)[at] = static_cast<uint16_t>(s.factor),
        reinterpret_cast<uint16_t*>(stages.rests)[at] = static_cast<uint16_t>(s.rest);
      }
    }
    const unsigned any = __ballot_sync(kAllLanes, wide);
    if (thread() % kWarp == 0) stages.wide[slot * 4 + thread() / kWarp] = any;
  }
};

template <bool Forward, int Tokens>
TEMPER_DEVICE void fill_stages(const TileArgs& args, const Place& place, const Stages& stages) {
  const Extent& e = args.extent;
  const int thread = static_cast<int>(threadIdx.x) % kGroup, lane = thread % kWarp;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK, blocks = low_blocks + e.k / kBlockK;
  // Within one expert offsets are 32 bits wide (mxfp4_suits).
  const uint32_t code_row = static_cast<uint32_t>(args.b.ld / 2), scale_row = static_cast<uint32_t>(args.b.ld / 32);
  const uint8_t* const codes =
      static_cast<const uint8_t*>(args.b.data) + static_cast<int64_t>(place.group) * args.b.group_rows * code_row;
  const uint8_t* const scales =
      static_cast<const uint8_t*>(args.b.scales) + static_cast<int64_t>(place.group) * args.b.group_rows * scale_row;

  // x: thread t takes chunk t%8 of rows t/8 + 16r
  const int chunk0 = thread % 8, row0 = thread / 8;
  const uint4* const x = static_cast<const uint4*>(args.a.data);
  uint32_t x_row[Tokens / 16];  // in 16-byte units, of which a staged operand has fewer than 2³²
#pragma unroll
  for (int r = 0; r < Tokens / 16; ++r) {
    const int row = row0 + 16 * r, at = place.row + row;
    const int64_t from = row >= place.rows ? 0
                         : args.a.index
                             ? checked_index(args.fault, e.op, args.a.index_name, at, args.a.index[at], args.a.count)
                             : at;
    x_row[r] = static_cast<uint32_t>(from * (args.a.ld / 8)) + static_cast<uint32_t>(chunk0);
  }
  const auto copy_x = [&](int slot, int k) {
#pragma unroll
    for (int r = 0; r < Tokens / 16; ++r)
      cp_async16(stages.x + slot * kXChunks + row0 * 8 + (chunk0 ^ (row0 & 7)) + 128 * r,
                 x + (x_row[r] + static_cast<uint32_t>(k / 8)), row0 + 16 * r < place.rows);
  };
  const auto copy_low = [&](int slot, int k) {
#pragma unroll
    for (int r = 0; r < Tokens / 16; ++r) {
      const int row = row0 + 16 * r;
      const bool valid = row < place.rows && k + chunk0 * 8 < args.low_k;
      cp_async16(stages.x + slot * kXChunks + row * 8 + (chunk0 ^ (row & 7)),
                 static_cast<const uint16_t*>(args.low_a.data) +
                     (valid ? (static_cast<int64_t>(place.row) + row) * args.low_a.ld + k + chunk0 * 8 : 0),
                 valid);
    }
  };
  const auto copy_codes = [&](int slot, int k) {
    uint4* const to = stages.codes + slot * kCodeChunks;
#pragma unroll 1  // four at once would not fit this role's registers
    for (int c = 0; c < 4; ++c) {
      const int at = thread + c * kGroup;
      if constexpr (Forward) {  // output at/2, half a row of 64 k; outputs that differ by 4 lie side by side
        const int output = at / 2;
        const bool valid = place.col + output < e.n;
        cp_async16(to + (output % 4 * 64 + output / 4) * 2 + at % 2,
                   codes + (valid ? static_cast<uint32_t>(place.col + output) * code_row +
                                        static_cast<uint32_t>(k / 2 + at % 2 * 16)
                                  : 0),
                   valid);
      } else {  // row at/8 of W, 32 outputs
        const int row = at / 8, chunk = at % 8;
        const bool valid = place.col + chunk * 32 < e.n;
        cp_async16(to + row * 8 + (chunk ^ (row / 2 & 7)),
                   codes + (valid ? static_cast<uint32_t>(k + row) * code_row +
                                        static_cast<uint32_t>((place.col + chunk * 32) / 2)
                                  : 0),
                   valid);
      }
    }
  };
  Scales<Forward> ahead{place, e.n, scales, scale_row, {}};

  Turn turn, done;
  const auto finish = [&] {
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) counter_arrive(stages.full + done.slot);
    done.next();
  };
  ahead.fetch(0);
  for (int block = 0; block < blocks; ++block) {
    counter_wait(stages.empty + turn.slot, turn.parity ^ 1);
    const int k = (block - low_blocks) * kBlockK;
    if (block < low_blocks) {
      copy_low(turn.slot, block * kBlockK);
    } else {
      copy_x(turn.slot, k);
      copy_codes(turn.slot, k);
      ahead.store(stages, turn.slot);
      if (block + 1 < blocks) ahead.fetch(k + kBlockK);
    }
    cp_async_commit();
    turn.next();
    if (block >= kInFlight) {
      cp_async_wait<kInFlight>();
      finish();
    }
  }
  cp_async_wait<0>();
  for (int block = blocks < kInFlight ? 0 : blocks - kInFlight; block < blocks; ++block) finish();
}

// ---- the two multiplying warpgroups ----
// The codes in the top nibble of each half of q, as a pair of bf16.
template <bool kWide>
TEMPER_DEVICE uint32_t pair_of(uint32_t q, uint32_t factor, uint32_t rest) {
  uint32_t v = multiply_bf16x2((q & 0x80008000u) | ((q >> 6) & 0x01c001c0u), factor);
  if constexpr (kWide) v = multiply_bf16x2(v, rest);
  return v;
}

// Four outputs of a row at a time.
template <int Tokens>
TEMPER_DEVICE void store_outputs(const TileArgs& args, const Place& place, const float (&sums)[2][Tokens / 2],
                                 int col) {
  const int t = static_cast<int>(threadIdx.x) % 4, n = args.extent.n;
  if (col >= n) return;
  float bias[4] = {0, 0, 0, 0};
  if (args.bias)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t at = static_cast<int64_t>(place.group) * n + col + j;
      bias[j] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[at])
                               : static_cast<const float*>(args.bias)[at];
    }
#pragma unroll
  for (int j = 0; j < Tokens / 8; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = j * 8 + 2 * t + h;
      if (row >= place.rows) continue;
      float* to = args.c + (static_cast<int64_t>(place.row) + row) * args.ldc + col;
      const float4 base = args.accumulate ? load_as<float4>(to) : make_float4(bias[0], bias[1], bias[2], bias[3]);
      store_as(to, make_float4(sums[0][4 * j + h] + base.x, sums[0][4 * j + 2 + h] + base.y,
                               sums[1][4 * j + h] + base.z, sums[1][4 * j + 2 + h] + base.w));
    }
}

template <bool Forward, int Tokens>
TEMPER_DEVICE void multiply_stages(const TileArgs& args, const Place& place, const Stages& stages, int warp) {
  constexpr int kSums = Tokens / 2;
  const Extent& e = args.extent;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const int own = warp * 32 + g * 4;  // this lane's four outputs, within the tile
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK, main_blocks = e.k / kBlockK;

  uint32_t a[2][2][4];
  uint2 words[4];  // forward: this lane's codes of the k-block
  uint32_t factor[4];
  // Step s of a stage's weights into fragments a[s % 2]: of output 2i+h the pairs [i][h] and [i][2+h].
  const auto decode = [&](auto wide, int slot, int s) {
    constexpr bool kWideHere = decltype(wide)::value;
    const unsigned char* from = reinterpret_cast<const unsigned char*>(stages.codes + slot * kCodeChunks);
    const uint32_t *factors = stages.factors + slot * kScales, *rests = stages.rests + slot * kScales;
    if constexpr (Forward) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int line = j * 64 + own / 4;
        if (s == 0) words[j] = load_as<uint2>(from + line * 32 + t * 8), factor[j] = factors[line * 2 + t / 2];
        const uint32_t word = s / 2 ? words[j].y : words[j].x, rest = kWideHere ? rests[line * 2 + t / 2] : 0;
        a[s % 2][j / 2][j % 2] = pair_of<kWideHere>(word << (12 - 8 * (s % 2)), factor[j], rest);
        a[s % 2][j / 2][2 + j % 2] = pair_of<kWideHere>(s % 2 ? word : word << 8, factor[j], rest);
      }
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = s * 16 + half * 8 + 2 * t, at = row * 128 + ((warp ^ (row / 2 & 7)) << 4) + 2 * g;
        const uint32_t q = load_as<uint16_t>(from + at) | static_cast<uint32_t>(load_as<uint16_t>(from + at + 128))
                                                              << 16;
        const int pair = (warp * kBlockK + row) / 2;
        const uint32_t both = factors[pair], rest = kWideHere ? rests[pair] : 0;
#pragma unroll
        for (int j = 0; j < 4; ++j)
          a[s % 2][j / 2][2 * half + j % 2] = pair_of<kWideHere>(j == 3 ? q : q << (12 - 4 * j), both, rest);
      }
    }
  };
  // The low-rank operand, bf16 with k inner, from memory; zeros beyond low_k.
  const auto load_low = [&](int k, int s) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int output = place.col + own + j;
      const uint16_t* row =
          static_cast<const uint16_t*>(args.low_b.data) +
          (output < e.n ? (static_cast<int64_t>(place.group) * args.low_b.group_rows + output) * args.low_b.ld : 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = k + s * 16 + half * 8 + 2 * t;
        a[s % 2][j / 2][2 * half + j % 2] = output < e.n && at < args.low_k ? load_as<uint32_t>(row + at) : 0u;
      }
    }
  };

  float sums[2][kSums];
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < kSums; ++j) sums[i][j] = 0;
  const auto multiply = [&](int slot, int s) {
    const uint64_t tile =
        swizzled_matrix(shared_address(stages.x + slot * kXChunks) + 32 * static_cast<uint32_t>(s), 16, 1024);
    wgmma_fence();
    wgmma_registers<Tokens>(sums[0], a[s % 2][0], tile);
    wgmma_registers<Tokens>(sums[1], a[s % 2][1], tile);
    wgmma_commit();
    wgmma_wait<1>();  // the products before these are done: their fragments may be written
  };
  Turn turn;
  for (int block = 0; block < low_blocks; ++block, turn.next()) {
    counter_wait(stages.full + turn.slot, turn.parity);
#pragma unroll
    for (int s = 0; s < kBlockK / 16; ++s) {
      load_low(block * kBlockK, s);
      multiply(turn.slot, s);
    }
    wgmma_wait<0>();
    if (lane == 0) counter_arrive(stages.empty + turn.slot);
  }
  // without a branch: in one the compiler would let every product wait (C7515)
  const float low_alpha = low_blocks ? args.low_alpha : 1.0f;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < kSums; ++j) sums[i][j] *= low_alpha;
  int before = -1;  // the slot whose last products may be under way
  for (int block = 0; block < main_blocks; ++block, turn.next()) {
    counter_wait(stages.full + turn.slot, turn.parity);
    const uint4 flags = load_as<uint4>(stages.wide + turn.slot * 4);
    const bool wide = (flags.x | flags.y | flags.z | flags.w) != 0;
#pragma unroll
    for (int s = 0; s < kBlockK / 16; ++s) {
      if (wide) decode(std::true_type{}, turn.slot, s);
      else decode(std::false_type{}, turn.slot, s);
      multiply(turn.slot, s);
      if (s == 0 && before >= 0 && lane == 0) counter_arrive(stages.empty + before);
    }
    before = turn.slot;
  }
  wgmma_wait<0>();
  store_outputs<Tokens>(args, place, sums, place.col + own);
}
#endif

template <bool Forward>
__global__ void __launch_bounds__(kThreadsHere, 1) mxfp4_kernel(const TileArgs args) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(uint4, dynamic);
  const Stages stages(dynamic + (1024 - shared_address(dynamic) % 1024) % 1024 / 16);
  const Place place = find_place<kTokens, kOutputs>(args.extent, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  // Uniform in the warp, and the compiler can see it: products in a branch that it cannot prove uniform would wait for
  // each other.
  const bool tall = __shfl_sync(kAllLanes, place.rows, 0) > kTokens / 2;
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0),
            groups = __shfl_sync(kAllLanes, place.col, 0) + kGroup < args.extent.n ? 2 : 1;
  if (threadIdx.x == 0)
    for (int i = 0; i < kStages; ++i)
      counter_init(stages.full + i, kGroup / kWarp),
          counter_init(stages.empty + i, static_cast<uint32_t>(groups * kGroup / kWarp));
  __syncthreads();
  if (warp >= 2 * kGroup / kWarp) {
    give_registers<72>();  // 168 at the launch: what two warpgroups take beyond it the third one gives
    if (tall) fill_stages<Forward, kTokens>(args, place, stages);
    else fill_stages<Forward, kTokens / 2>(args, place, stages);
  } else {
    take_registers<216>();
    if (warp * kWarp >= groups * kGroup) return;  // a warpgroup without outputs
    if (tall) multiply_stages<Forward, kTokens>(args, place, stages, warp);
    else multiply_stages<Forward, kTokens / 2>(args, place, stages, warp);
  }
#endif
}

}  // namespace

bool mxfp4_suits(const Product& p, int64_t precision) {
  const MatmulChoice chosen = matmul_choice();
  const Source& w = p.main.b;
  if (precision != 1 || (chosen != MatmulChoice::automatic && chosen != MatmulChoice::wgmma) || device().major != 9 ||
      p.ragged != Ragged::rows || w.kind != Kind::mxfp4)
    return false;
  if (p.main.k < kBlockK || p.main.k % kBlockK || p.n < 1 || p.n % 4 || w.group_rows * w.ld > INT32_MAX || p.ldc % 4 ||
      reinterpret_cast<uintptr_t>(p.c) % 16 || p.main.alpha != 1.0f || p.low_rank_mask.limit ||
      static_cast<size_t>(device().shared_per_block) < kSharedBytes)
    return false;
  return p.m > most_few_rows(p) || chosen == MatmulChoice::wgmma;
}

void multiply_mxfp4(const Product& p, Staging& staging) {
  require(p.main.b.k_inner == p.main.a.interleaved, "internal", p.op,
          ": rows of x and weights do not agree in the order of k");
  const TileArgs args = tile_args(p, staging, true);
  launch(p.main.b.k_inner ? mxfp4_kernel<true> : mxfp4_kernel<false>,
         dim3(static_cast<unsigned>(tile_bound(p, kTokens, kOutputs))), dim3(kThreadsHere), kSharedBytes, args);
}

}  // namespace temper::gpu
