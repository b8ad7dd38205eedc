// Expert products on Hopper with the MXFP4 weights as the register operand: cᵀ = W·xᵀ by wgmma, 256 outputs by 128 rows of x to a block.
//
// wgmma takes its first operand from registers or from shared memory, the second from shared memory alone. A decoded weight that goes through shared memory is
// written once and read by two warpgroups, beside x: more than the 128 bytes a clock that shared memory has. So the product is turned: the weights are
// decoded straight into the fragments of the first operand, x [rows, 64 k] is the second one, and shared memory holds codes (half a byte) and x alone.
// Two warpgroups of 128 outputs each share x. A k-block of 64 is 4 steps of 16 k; while the products of one step run, the next step's fragments are decoded: 40
// to 48 issue slots a warp and step, 96 of a scheduler's 256 clocks at full tensor rate (4096 FLOP a clock).
//
// A lane (g, t) of warp w holds, of each 16 k, outputs 32w + 4g … + 3 and four k. Both orders are free as long as the operands agree:
//   forward  (rows of W are outputs): k slots 2t, 2t+1, 8+2t, 9+2t of step s are elements 16t + 8(s/2) + 2(s%2) + {0, 4, 1, 5} of the 64: what one shift of a
//            word of codes gives as pairs. x is staged with its k in that order (Source::interleaved).
//   backward (rows of W are k): the natural order; the codes of 4 neighbouring outputs in two rows of W make the pairs.
//   gate_up of gpt-oss, 4096 tokens: 0.54 TFLOP (0.69 ms at 790 TFLOP/s); 377 MB of results, 282 MB of weights: 0.15 ms of memory.
// Shared memory: 6 stages of x (16 KiB) and codes (8 KiB), and scales of two k-blocks: 153 KiB, one block a multiprocessor.
#include <type_traits>

#include "cuda/matmul_tiles.cuh"
#include "temper/error.h"

namespace temper::cuda {
namespace {

constexpr int kTokens = 128, kOutputs = 256, kThreadsHere = 256, kStages = 6, kAhead = kStages - 2;
constexpr int kXChunks = kTokens * 8, kCodeChunks = kOutputs * 2;  // 16-byte chunks of a stage; codes of 64 k: 8 KiB either way round
constexpr int kScales = kOutputs * 2;                              // of a k-block: forward 2 for each output; backward 8 for each of 64 rows
constexpr size_t kSharedBytes = static_cast<size_t>(kStages) * (kXChunks + kCodeChunks) * 16 + 2 * kScales * 8 + 1024;

#if defined(TEMPER_HAS_WGMMA)
// The codes in the top nibble of each half of q, as a pair of bf16.
template <bool kWide> TEMPER_DEVICE uint32_t pair_of(uint32_t q, uint32_t factor, uint32_t rest) {
  uint32_t v = multiply_bf16x2((q & 0x80008000u) | ((q >> 6) & 0x01c001c0u), factor);
  if constexpr (kWide) v = multiply_bf16x2(v, rest);
  return v;
}

template <bool Forward, int Tokens> TEMPER_DEVICE void expert_tile(const TileArgs& args, const Place& place, uint4* shared) {
  constexpr int kSums = Tokens / 2;
  const Extent& x = args.extent;
  uint4* const shared_codes = shared + kStages * kXChunks;
  uint32_t* const scale_memory = reinterpret_cast<uint32_t*>(shared_codes + kStages * kCodeChunks);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, g = lane / 4, t = lane % 4;
  const int own = __shfl_sync(kAllLanes, thread / kWarp, 0) * 32 + g * 4;  // this lane's four outputs, within the tile
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK, blocks = low_blocks + x.k / kBlockK;
  const uint8_t* const codes = static_cast<const uint8_t*>(args.b.data);
  const uint8_t* const scales = static_cast<const uint8_t*>(args.b.scales);
  const int64_t first_row = static_cast<int64_t>(place.group) * args.b.group_rows, code_row = args.b.ld / 2, scale_row = args.b.ld / 32;

  // ---- x and codes by cp.async. x: thread t takes chunk t%8 of rows t/8 + 32r; codes: two chunks ----
  const int chunk0 = thread % 8, row0 = thread / 8;
  const uint16_t* x_row[Tokens / 32];
#pragma unroll
  for (int r = 0; r < Tokens / 32; ++r) {
    const int row = row0 + 32 * r, at = place.row + row;
    const int64_t from = row >= place.rows ? 0 : args.a.index ? checked_index(args.fault, x.op, args.a.index_name, at, args.a.index[at], args.a.count) : at;
    x_row[r] = static_cast<const uint16_t*>(args.a.data) + from * args.a.ld + chunk0 * 8;
  }
  const auto copy = [&](int block) {
    if (block < blocks) {
      uint4* const to = shared + block % kStages * kXChunks;
      const bool low = block < low_blocks;
      const int k = (low ? block : block - low_blocks) * kBlockK;
#pragma unroll
      for (int r = 0; r < Tokens / 32; ++r) {
        const int row = row0 + 32 * r;
        const bool valid = row < place.rows && (!low || k + chunk0 * 8 < args.low_k);
        const uint16_t* from = low ? static_cast<const uint16_t*>(args.low_a.data) + (row < place.rows ? (static_cast<int64_t>(place.row) + row) * args.low_a.ld : 0) + chunk0 * 8 : x_row[r];
        cp_async16(to + row * 8 + (chunk0 ^ (row & 7)), from + k, valid);
      }
      if (!low) {
        uint4* const code_to = shared_codes + block % kStages * kCodeChunks;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int at = thread + c * kThreadsHere;
          if constexpr (Forward) {  // output `at/2`, half a row of 64 k; outputs that differ by 4 lie side by side
            const int output = at / 2;
            const bool valid = place.col + output < x.n;
            cp_async16(code_to + ((output % 4) * 64 + output / 4) * 2 + at % 2, codes + (valid ? (first_row + place.col + output) * code_row + k / 2 + at % 2 * 16 : 0), valid);
          } else {  // row `at/8` of W, 32 outputs
            const int row = at / 8, chunk = at % 8;
            const bool valid = place.col + chunk * 32 < x.n;
            cp_async16(code_to + row * 8 + (chunk ^ (row / 2 & 7)), codes + (valid ? (first_row + k + row) * code_row + (place.col + chunk * 32) / 2 : 0), valid);
          }
        }
      }
    }
    cp_async_commit();
  };

  // ---- scales: fetched two k-blocks ahead, written as factors one ahead. Forward: output `thread`, two groups of 32 k. Backward: row thread/4, groups 2(thread%4) and one more ----
  uint32_t fetched[2];
  const auto fetch_scales = [&](int block) {
    const int k = (block - low_blocks) * kBlockK;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      fetched[i] = 0;
      if (block < low_blocks || block >= blocks) continue;
      if constexpr (Forward) {
        if (place.col + thread < x.n) fetched[i] = scales[(first_row + place.col + thread) * scale_row + k / 32 + i];
      } else {
        const int at = place.col / 32 + thread % 4 * 2 + i;
        if (at * 32 < x.n) fetched[i] = scales[(first_row + k + thread / 4) * scale_row + at];
      }
    }
  };
  const auto store_scales = [&](int block) {
    uint32_t* const to = scale_memory + (block & 1) * 2 * kScales;
    bool wide = false;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Mxfp4Scale s = mxfp4_scale<true>(fetched[i]);
      wide = wide || fetched[i] > kMxfp4Narrow;
      if constexpr (Forward) {
        const int at = ((thread % 4) * 64 + thread / 4) * 2 + i;
        to[at] = s.factor, to[kScales + at] = s.rest;
      } else {  // [group of 32 outputs][row]: pairs of rows are read as one word
        const int at = (thread % 4 * 2 + i) * kBlockK + thread / 4;
        reinterpret_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(s.factor), reinterpret_cast<uint16_t*>(to + kScales)[at] = static_cast<uint16_t>(s.rest);
      }
    }
    return wide;
  };

  uint32_t a[2][2][4];
  uint2 words[4];  // forward: this lane's codes of the k-block
  // Step s of a k-block's weights into fragment set `of`.
  const auto decode = [&](auto wide, int block, int s, int of) {
    constexpr bool kWideHere = decltype(wide)::value;
    const unsigned char* from = reinterpret_cast<const unsigned char*>(shared_codes + block % kStages * kCodeChunks);
    const uint32_t* factors = scale_memory + (block & 1) * 2 * kScales;
    if constexpr (Forward) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int line = j * 64 + own / 4;
        if (s == 0) words[j] = load_as<uint2>(from + line * 32 + t * 8);
        const uint32_t word = s / 2 ? words[j].y : words[j].x;
        const uint32_t factor = factors[line * 2 + t / 2], rest = kWideHere ? factors[kScales + line * 2 + t / 2] : 0;
        a[of][j / 2][j % 2] = pair_of<kWideHere>(word << (12 - 8 * (s % 2)), factor, rest);
        a[of][j / 2][2 + j % 2] = pair_of<kWideHere>(word << (8 - 8 * (s % 2)), factor, rest);
      }
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = s * 16 + half * 8 + 2 * t, chunk = own / 32 ^ (row / 2 & 7), byte = own % 32 / 2;
        const uint32_t q = load_as<uint16_t>(from + row * 128 + chunk * 16 + byte) | static_cast<uint32_t>(load_as<uint16_t>(from + (row + 1) * 128 + chunk * 16 + byte)) << 16;
        const int at = (own / 32 * kBlockK + row) / 2;
        const uint32_t factor = factors[at], rest = kWideHere ? factors[kScales + at] : 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) a[of][j / 2][2 * half + j % 2] = pair_of<kWideHere>(j == 3 ? q : q << (12 - 4 * j), factor, rest);
      }
    }
  };
  // The low-rank operand, bf16 with k inner, from memory.
  const auto load_low = [&](int k, int of) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int output = place.col + own + j;
      const uint16_t* row = static_cast<const uint16_t*>(args.low_b.data) + (output < x.n ? (static_cast<int64_t>(place.group) * args.low_b.group_rows + output) * args.low_b.ld : 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = k + half * 8 + 2 * t;
        a[of][j / 2][2 * half + j % 2] = output < x.n && at < args.low_k ? load_as<uint32_t>(row + at) : 0u;
      }
    }
  };

  float sums[2][kSums];
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < kSums; ++j) sums[i][j] = 0;
  for (int s = 0; s < kAhead; ++s) copy(s);
  fetch_scales(low_blocks);
  bool wide = store_scales(low_blocks);
  fetch_scales(low_blocks + 1);

  const auto multiply = [&](int block, int s, int of) {
    const uint64_t tile = swizzled_matrix(shared_address(shared + block % kStages * kXChunks) + 32 * static_cast<uint32_t>(s), 16, 1024);
    wgmma_fence();
    wgmma_registers<Tokens>(sums[0], a[of][0], tile);
    wgmma_registers<Tokens>(sums[1], a[of][1], tile);
    wgmma_commit();
    wgmma_wait<1>();  // the products before these are done: their fragments may be written
  };
  for (int block = 0; block < low_blocks; ++block) {
    cp_async_wait<kAhead - 1>();
    fence_async_proxy();
    __syncthreads();
    copy(block + kAhead);
#pragma unroll
    for (int s = 0; s < kBlockK / 16; ++s) {
      load_low(block * kBlockK + s * 16, s % 2);  // beyond low_k: zeros
      multiply(block, s, s % 2);
    }
  }
  if (low_blocks) {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < kSums; ++j) sums[i][j] *= args.low_alpha;
  }
  for (int block = low_blocks; block < blocks; ++block) {
    cp_async_wait<kAhead - 1>();
    fence_async_proxy();
    const bool any_wide = __syncthreads_or(wide);  // this block's tiles and scales are complete; the products of block − 2 are done in both warpgroups
    copy(block + kAhead);
    wide = store_scales(block + 1);
    fetch_scales(block + 2);
#pragma unroll
    for (int s = 0; s < kBlockK / 16; ++s) {
      if (any_wide) decode(std::true_type{}, block, s, s % 2);
      else decode(std::false_type{}, block, s, s % 2);
      multiply(block, s, s % 2);
    }
  }
  wgmma_wait<0>();
  cp_async_wait<0>();

  // ---- result: four outputs of a row at a time ----
  const int col = place.col + own;
  if (col >= x.n) return;
  float bias[4] = {0, 0, 0, 0};
  if (args.bias)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t at = static_cast<int64_t>(place.group) * x.n + col + j;
      bias[j] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[at]) : static_cast<const float*>(args.bias)[at];
    }
#pragma unroll
  for (int j = 0; j < Tokens / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = j * 8 + 2 * t + e;
      if (row >= place.rows) continue;
      float* to = args.c + (static_cast<int64_t>(place.row) + row) * args.ldc + col;
      const float4 base = args.accumulate ? load_as<float4>(to) : make_float4(bias[0], bias[1], bias[2], bias[3]);
      store_as(to, make_float4(sums[0][4 * j + e] + base.x, sums[0][4 * j + 2 + e] + base.y, sums[1][4 * j + e] + base.z, sums[1][4 * j + 2 + e] + base.w));
    }
}

#endif

template <bool Forward> __global__ void __launch_bounds__(kThreadsHere, 1) mxfp4_kernel(const TileArgs args) {
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(uint4, dynamic);
  uint4* const shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024 / 16;
  const Place place = find_place<kTokens, kOutputs>(args.extent, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  // Uniform in the warp, and the compiler can see it: products in a branch that it cannot prove uniform would wait for each other.
  if (__shfl_sync(kAllLanes, place.rows, 0) > kTokens / 2) expert_tile<Forward, kTokens>(args, place, shared);
  else expert_tile<Forward, kTokens / 2>(args, place, shared);
#endif
}

}  // namespace

bool mxfp4_suits(const Product& p, int64_t precision) {
  const MatmulChoice chosen = matmul_choice();
  const Source& w = p.main.b;
  if (precision != 1 || (chosen != MatmulChoice::automatic && chosen != MatmulChoice::wgmma) || device().major != 9 || p.ragged != Ragged::rows || w.kind != Kind::mxfp4) return false;
  if (p.main.k % kBlockK || p.n % 4 || p.ldc % 4 || reinterpret_cast<uintptr_t>(p.c) % 16 || p.main.alpha != 1.0f || p.low_rank_mask.limit || static_cast<size_t>(device().shared_per_block) < kSharedBytes) return false;
  return p.m > most_few_rows(p) || chosen == MatmulChoice::wgmma;
}

void multiply_mxfp4(const Product& p, Staging& staging) {
  require(p.main.b.k_inner == p.main.a.interleaved, "internal", p.op, ": rows of x and weights do not agree in the order of k");
  const TileArgs args = tile_args(p, staging, true);
  launch(p.main.b.k_inner ? mxfp4_kernel<true> : mxfp4_kernel<false>, dim3(static_cast<unsigned>(tile_bound(p, kTokens, kOutputs))), dim3(kThreadsHere), kSharedBytes, args);
}

}  // namespace temper::cuda
