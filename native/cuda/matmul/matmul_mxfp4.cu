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
#include "gpu/elements.cuh"
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
// Each k-block it has 1024 clocks at full tensor rate, so what it copies from is kept as pointers that move on, and
// nothing is worked out twice. A thread's part of a k-block: x, chunk t%8 of rows t/8 + 16r; codes, 4 chunks that lie
// code_step apart in memory; scales, two pairs of bytes.
template <bool Forward>
struct WeightCopies {
  const uint8_t *codes, *scales;                         // of this thread in the k-block to come
  int64_t code_step, code_next, scale_step, scale_next;  // bytes, to the next chunk or pair and to the next k-block
  int code_count;                                        // of the four chunks, those within n
  bool scale_valid[2];
  uint32_t pairs[2];  // scales of the k-block to come

  TEMPER_DEVICE static int thread() { return static_cast<int>(threadIdx.x) % kGroup; }
  TEMPER_DEVICE WeightCopies(const TileArgs& args, const Place& place) {
    const int64_t code_row = args.b.ld / 2, scale_row = args.b.ld / 32,
                  first = int64_t{place.group} * args.b.group_rows;
    const int t = thread(), n = args.extent.n;
    codes = static_cast<const uint8_t*>(args.b.data) + first * code_row;
    scales = static_cast<const uint8_t*>(args.b.scales) + first * scale_row;
    if constexpr (Forward) {  // codes: output t/2 + 64c, half t%2 of a row of 64 k; scales: outputs t and t + 128
      codes += (place.col + t / 2) * code_row + t % 2 * 16;
      code_step = 64 * code_row, code_next = 32;
      code_count = (n - place.col - t / 2 + 63) / 64;
      scales += (place.col + t) * scale_row;
      scale_step = kGroup * scale_row, scale_next = 2;
      scale_valid[0] = place.col + t < n, scale_valid[1] = place.col + t + kGroup < n;
    } else {  // codes: row t/8 + 16c of W, 32 outputs from 32·(t%8) on; scales: row t/2, two groups of 32 outputs twice
      codes += t / 8 * code_row + (place.col + t % 8 * 32) / 2;
      code_step = 16 * code_row, code_next = kBlockK * code_row;
      code_count = place.col + t % 8 * 32 < n ? 4 : 0;
      const int group = place.col / 32 + t % 2 * 4;
      scales += t / 2 * scale_row + group;
      scale_step = 2, scale_next = kBlockK * scale_row;
      scale_valid[0] = group * 32 < n, scale_valid[1] = (group + 2) * 32 < n;
    }
  }
  TEMPER_DEVICE void fetch_scales() {
#pragma unroll
    for (int i = 0; i < 2; ++i) pairs[i] = scale_valid[i] ? load_as<uint16_t>(scales + i * scale_step) : 0u;
    scales += scale_next;
  }
  TEMPER_DEVICE void store_scales(const Stages& stages, int slot) const {
    bool wide = false;
    Mxfp4Scale s[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t e = pairs[i / 2] >> (i % 2 * 8) & 0xffu;
      s[i] = mxfp4_scale<true>(e);
      wide = wide || e > kMxfp4Narrow;
    }
    if constexpr (Forward) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int output = thread() + i * kGroup, at = slot * kScales + (output % 4 * 64 + output / 4) * 2;
        store_as(stages.factors + at, make_uint2(s[2 * i].factor, s[2 * i + 1].factor));
        store_as(stages.rests + at, make_uint2(s[2 * i].rest, s[2 * i + 1].rest));
      }
    } else {  // [group][row]: two rows are read as one word
      const int at = 2 * slot * kScales + thread() % 2 * 4 * kBlockK + thread() / 2;
      uint16_t *factors = reinterpret_cast<uint16_t*>(stages.factors) + at,
               *rests = reinterpret_cast<uint16_t*>(stages.rests) + at;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        factors[i * kBlockK] = static_cast<uint16_t>(s[i].factor),
                    rests[i * kBlockK] = static_cast<uint16_t>(s[i].rest);
    }
    const unsigned any = __ballot_sync(kAllLanes, wide);
    if (thread() % kWarp == 0) stages.wide[slot * 4 + thread() / kWarp] = any;
  }
  TEMPER_DEVICE void copy_codes(const Stages& stages, int slot) {
    const int t = thread();
    // forward: outputs that differ by 4 lie side by side; backward: rows of 128 bytes, chunks permuted
    const int first = Forward ? (t / 2 % 4 * 64 + t / 8) * 2 + t % 2 : t / 8 * 8 + (t % 8 ^ (t / 16 & 7));
    uint4* const to = stages.codes + slot * kCodeChunks + first;
#pragma unroll
    for (int c = 0; c < 4; ++c) cp_async16(to + c * (Forward ? 32 : 128), codes + c * code_step, c < code_count);
    codes += code_next;
  }
};

template <bool Forward, int Tokens>
TEMPER_DEVICE void fill_stages(const TileArgs& args, const Place& place, const Stages& stages) {
  const Extent& e = args.extent;
  const int thread = static_cast<int>(threadIdx.x) % kGroup, lane = thread % kWarp;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK, blocks = low_blocks + e.k / kBlockK;
  const int chunk0 = thread % 8, row0 = thread / 8, swizzled = row0 * 8 + (chunk0 ^ (row0 & 7));
  const auto valid = [&](int r) { return row0 + 16 * r < place.rows; };

  const uint4* x = static_cast<const uint4*>(args.a.data);
  uint32_t x_row[Tokens / 16];  // in 16-byte units, of which a staged operand has fewer than 2³²
#pragma unroll
  for (int r = 0; r < Tokens / 16; ++r) {
    const int at = place.row + row0 + 16 * r;
    const int64_t from = !valid(r) ? 0
                         : args.a.index
                             ? checked_index(args.fault, e.op, args.a.index_name, at, args.a.index[at], args.a.count)
                             : at;
    x_row[r] = static_cast<uint32_t>(from * (args.a.ld / 8)) + static_cast<uint32_t>(chunk0);
  }
  WeightCopies<Forward> weights(args, place);

  Turn turn, done;
  const auto finish = [&] {
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) counter_arrive(stages.full + done.slot);
    done.next();
  };
  const auto copy_low = [&](int slot, int k) {
#pragma unroll 1
    for (int r = 0; r < Tokens / 16; ++r) {
      const bool inside = valid(r) && k < args.low_k;
      cp_async16(stages.x + slot * kXChunks + swizzled + 128 * r,
                 static_cast<const uint16_t*>(args.low_a.data) +
                     (inside ? (int64_t{place.row} + row0 + 16 * r) * args.low_a.ld + k : 0),
                 inside);
    }
  };
  weights.fetch_scales();
  for (int block = 0; block < blocks; ++block) {
    counter_wait(stages.empty + turn.slot, turn.parity ^ 1);
    if (block < low_blocks) {
      copy_low(turn.slot, block * kBlockK + chunk0 * 8);
    } else {
      uint4* const to = stages.x + turn.slot * kXChunks + swizzled;
#pragma unroll
      for (int r = 0; r < Tokens / 16; ++r) cp_async16(to + 128 * r, x + x_row[r], valid(r));
      x += kBlockK / 8;
      weights.copy_codes(stages, turn.slot);
      weights.store_scales(stages, turn.slot);
      if (block + 1 < blocks) weights.fetch_scales();
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

// Two units of a row, of their gates and linear parts.
TEMPER_DEVICE void store_activated(const Product::Activated& a, int64_t at, float4 z) {
  const float first = swiglu(z.x, z.y, a.alpha, a.limit), second = swiglu(z.z, z.w, a.alpha, a.limit);
  if (a.kind == Kind::bf16) store_as(static_cast<uint16_t*>(a.to) + at, pack_bf16(first, second));
  else store_as(static_cast<float*>(a.to) + at, make_float2(first, second));
}

// Four outputs of a row at a time.
template <bool Activated, int Tokens>
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
      const int64_t at = static_cast<int64_t>(place.row) + row;
      float* to = args.c + at * args.ldc + col;
      const float4 base =
          !Activated && args.accumulate ? load_as<float4>(to) : make_float4(bias[0], bias[1], bias[2], bias[3]);
      const float4 z = make_float4(sums[0][4 * j + h] + base.x, sums[0][4 * j + 2 + h] + base.y,
                                   sums[1][4 * j + h] + base.z, sums[1][4 * j + 2 + h] + base.w);
      if (!Activated || args.c) store_as(to, z);
      if constexpr (Activated) store_activated(args.activated, (at * n + col) / 2, z);
    }
}

template <bool Forward, bool Activated, int Tokens>
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
    load_low(block * kBlockK, 0);  // under way while x is
    counter_wait(stages.full + turn.slot, turn.parity);
#pragma unroll
    for (int s = 0; s < kBlockK / 16; ++s) {
      if (block * kBlockK + s * 16 >= args.low_k) break;  // rank 16 is one step of the four
      if (s) load_low(block * kBlockK, s);
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
  store_outputs<Activated, Tokens>(args, place, sums, place.col + own);
}
#endif

template <bool Forward, bool Activated>
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
    if (tall) multiply_stages<Forward, Activated, kTokens>(args, place, stages, warp);
    else multiply_stages<Forward, Activated, kTokens / 2>(args, place, stages, warp);
  }
#endif
}

}  // namespace

bool mxfp4_suits(const Product& p, int64_t precision) {
  const MatmulChoice chosen = matmul_choice();
  const Source& w = p.main.b;
  if (precision != 1 || (chosen != MatmulChoice::automatic && chosen != MatmulChoice::wgmma) || !device().warpgroups ||
      p.ragged != Ragged::rows || w.kind != Kind::mxfp4)
    return false;
  // scales are read in pairs: ld % 64
  if (p.main.k < kBlockK || p.main.k % kBlockK || w.ld % 64 || reinterpret_cast<uintptr_t>(w.scales) % 2 || p.n < 1 ||
      p.n % 4 || p.ldc % 4 || reinterpret_cast<uintptr_t>(p.c) % 16 || p.main.alpha != 1.0f || p.low_rank_mask.limit ||
      static_cast<size_t>(device().shared_per_block) < kSharedBytes)
    return false;
  return p.m > most_few_rows(p) || chosen == MatmulChoice::wgmma;
}

void multiply_mxfp4(const Product& p, Staging& staging) {
  require(p.main.b.k_inner == p.main.a.interleaved, "internal", p.op,
          ": rows of x and weights do not agree in the order of k");
  const TileArgs args = tile_args(p, staging, true);
  require(!p.activated.to || (p.main.b.k_inner && !p.accumulate), "internal", p.op,
          ": only a forward product is activated");
  launch(p.activated.to     ? mxfp4_kernel<true, true>
         : p.main.b.k_inner ? mxfp4_kernel<true, false>
                            : mxfp4_kernel<false, false>,
         dim3(static_cast<unsigned>(tile_bound(p, kTokens, kOutputs))), dim3(kThreadsHere), kSharedBytes, args);
}

}  // namespace temper::gpu
