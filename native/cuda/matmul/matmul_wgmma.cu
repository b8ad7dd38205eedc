// The tile product of matmul_tiles.cuh on Hopper's warpgroup instructions, for bf16 and f32 weights: c = A·Bᵀ, A [m,k]
// with k inner, B with k inner (forward) or not (dX).
//
// Tile 128×192, k-blocks of 64, two warpgroups of 64×192 (96 accumulators a thread). wgmma reads A and B from shared
// memory by itself: the same 256 threads copy both (cp.async, kStages deep) and issue. One k-block's products run while
// the next one's are issued, so a stage is written again two k-blocks after it was read. The transposed product differs
// in where a chunk lies in shared memory and in one bit of the instruction. Shared memory 200 KiB, one block a
// multiprocessor. An H200 ran q_proj of gpt-oss at 4096 tokens, LoRA and staging included, at 278 TFLOP/s with these,
// 244 with mma.sync, 408 with cuBLASLt, which `auto` takes where it is found. MXFP4 decoded into shared memory ran here
// at 165 TFLOP/s, below mma.sync, and is gone: matmul_mxfp4.cu decodes into registers.
#include "cuda/device/tensor_cores.cuh"
#include "cuda/matmul/matmul_tiles.cuh"

namespace temper::gpu {
namespace {

constexpr int kTileM = 128, kTileN = 192, kWide = 256, kStages = 5, kAhead = kStages - 2;
constexpr int kAChunks = kTileM * 8, kBChunks = kTileN * 8;  // 16-byte chunks of a tile
constexpr int kOuterBlock = 64 * 8;                          // k outer: chunks of 64 k × 64 outer elements

constexpr size_t kSharedBytes = static_cast<size_t>(kStages) * (kAChunks + kBChunks) * 16 + 1024;

// 16-byte chunk of 8 elements: k inner: (outer row, chunk of k); k outer: (k, chunk of outer).
TEMPER_DEVICE int inner_chunk(int row, int chunk) { return row * 8 + (chunk ^ (row & 7)); }
TEMPER_DEVICE int outer_chunk(int k, int chunk) { return chunk / 8 * kOuterBlock + k * 8 + ((chunk ^ k) & 7); }

#if defined(TEMPER_HAS_WGMMA)
// A k-block of A and B by cp.async, a group of its own even where there is none: thread t takes chunk t%8 of rows t/8 +
// 32r.
template <bool BInner>
TEMPER_DEVICE void copy_block(const TileArgs& args, const Place& place, uint4* shared, uint4* shared_b, int block,
                              int low_blocks, int blocks) {
  constexpr int kARows = kTileM / 32, kBRows = (BInner ? kTileN : kBlockK) / 32, kBCols = BInner ? 1 : 3;
  const Extent& x = args.extent;
  const int thread = static_cast<int>(threadIdx.x), chunk0 = thread % 8, row0 = thread / 8;
  if (block < blocks) {
    const bool low = block < low_blocks;
    const TileOperand& a = low ? args.low_a : args.a;
    const int k = (low ? block : block - low_blocks) * kBlockK, stop = low ? args.low_k : x.k;
    uint4* tile = shared + block % kStages * kAChunks;
#pragma unroll
    for (int r = 0; r < kARows; ++r) {
      const int row = row0 + 32 * r, at = place.row + row;
      const bool valid = row < place.rows && k + chunk0 * 8 < stop;
      const int64_t from = !valid    ? 0
                           : a.index ? checked_index(args.fault, x.op, a.index_name, at, a.index[at], a.count)
                                     : at;
      cp_async16(tile + inner_chunk(row, chunk0), static_cast<const uint16_t*>(a.data) + from * a.ld + k + chunk0 * 8,
                 valid);
    }
    const TileOperand& b = low ? args.low_b : args.b;
    const uint16_t* data =
        static_cast<const uint16_t*>(b.data) + static_cast<int64_t>(place.group) * b.group_rows * b.ld;
    uint4* to = shared_b + block % kStages * kBChunks;
#pragma unroll
    for (int r = 0; r < kBRows; ++r)
#pragma unroll
      for (int c = 0; c < kBCols; ++c) {
        const int row = row0 + 32 * r, chunk = chunk0 + 8 * c;
        if constexpr (BInner) {
          const bool valid = place.col + row < x.n && k + chunk * 8 < stop;
          cp_async16(to + inner_chunk(row, chunk), data + (valid ? (place.col + row) * b.ld + k + chunk * 8 : 0),
                     valid);
        } else {
          const bool valid = k + row < stop && place.col + chunk * 8 < x.n;
          cp_async16(to + outer_chunk(row, chunk), data + (valid ? (k + row) * b.ld + place.col + chunk * 8 : 0),
                     valid);
        }
      }
  }
  cp_async_commit();
}

TEMPER_DEVICE void store_sums(const TileArgs& args, const Place& place, const float (&acc)[96], int warp_row) {
  const Extent& x = args.extent;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool pairs = args.ldc % 2 == 0 && reinterpret_cast<uintptr_t>(args.c) % 8 == 0;
  const int64_t bias_at = x.ragged == Ragged::rows ? static_cast<int64_t>(place.group) * x.n : 0;
#pragma unroll
  for (int j = 0; j < kTileN / 8; ++j) {
    const int col = place.col + j * 8 + lane % 4 * 2;
    const bool both = col + 1 < x.n;
    float bias[2] = {0, 0};
#pragma unroll
    for (int v = 0; v < 2; ++v)
      if (args.bias && col + v < x.n)
        bias[v] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col + v])
                                 : static_cast<const float*>(args.bias)[bias_at + col + v];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + lane / 4 + half * 8;
      if (r >= place.rows || col >= x.n) continue;
      float* to = args.c + (static_cast<int64_t>(place.row) + r) * args.ldc + col;
      float base[2] = {bias[0], bias[1]};
      if (args.accumulate) base[0] = to[0], base[1] = both ? to[1] : 0.0f;
      const float low = fused(args.alpha, acc[4 * j + 2 * half], base[0]),
                  high = fused(args.alpha, acc[4 * j + 2 * half + 1], base[1]);
      if (pairs && both) {
        store_as(to, make_float2(low, high));
      } else {
        to[0] = low;
        if (both) to[1] = high;
      }
    }
  }
}
#endif

template <bool BInner>
__global__ void __launch_bounds__(kWide, 1) wgmma_kernel(const TileArgs args) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(uint4, dynamic);
  uint4* const shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024 / 16;
  uint4* const shared_b = shared + kStages * kAChunks;
  const Place place = find_place<kTileM, kTileN>(args.extent, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const int thread = static_cast<int>(threadIdx.x), group_row = thread / 128 * 64;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK,
            blocks = low_blocks + (args.extent.k + kBlockK - 1) / kBlockK;
  const auto copy = [&](int block) { copy_block<BInner>(args, place, shared, shared_b, block, low_blocks, blocks); };

  float acc[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) acc[i] = 0;
  for (int s = 0; s < kAhead; ++s) copy(s);
  const auto advance = [&](int begin, int end) {
    for (int block = begin; block < end; ++block) {
      cp_async_wait<kAhead - 1>();
      fence_async_proxy();
      __syncthreads();  // this block's tiles are complete; the products of block − 2 are done in both warpgroups
      // Never skipped, even where the warpgroup has no rows: in a branch that the compiler cannot prove uniform it
      // would wait after every product (C7520).
      const uint32_t a = shared_address(shared + block % kStages * kAChunks) + static_cast<uint32_t>(group_row) * 128;
      const uint32_t b = shared_address(shared_b + block % kStages * kBChunks);
      wgmma_fence();
#pragma unroll
      for (uint32_t kk = 0; kk < kBlockK / 16; ++kk)
        wgmma_m64n192k16<BInner>(
            acc, swizzled_matrix(a + 32 * kk, 16, 1024),
            BInner ? swizzled_matrix(b + 32 * kk, 16, 1024) : swizzled_matrix(b + 2048 * kk, kOuterBlock * 16, 1024));
      wgmma_commit();
      copy(block + kAhead);
      wgmma_wait<1>();
    }
    wgmma_wait<0>();
  };
  // a loop of its own: sums that are touched inside the loop would make the compiler wait after every product (C7515)
  if (low_blocks) {
    advance(0, low_blocks);
#pragma unroll
    for (int i = 0; i < 96; ++i) acc[i] *= args.low_alpha;
  }
  advance(low_blocks, blocks);
  cp_async_wait<0>();

  store_sums(args, place, acc, group_row + thread / kWarp % 4 * 16);
#endif
}

}  // namespace

bool multiply_wgmma(const Product& p, Staging& staging, bool whenever_possible) {
  const Kind kind = p.main.b.kind == Kind::f32 ? Kind::bf16 : p.main.b.kind;
  if (!device().warpgroups || p.ragged == Ragged::k || kind != Kind::bf16 || !p.main.a.k_inner || p.main.b.index ||
      p.low_rank_mask.limit || p.m < 1 || p.n < 1)
    return false;
  const int64_t tiles = tile_bound(p, kTileM, kTileN), rows = p.ragged == Ragged::rows ? p.m / p.groups : p.m;
  if (!whenever_possible && (rows <= 64 || p.n <= 96 || tiles < device().multiprocessors)) return false;
  if (static_cast<size_t>(device().shared_per_block) < kSharedBytes) return false;
  const TileArgs args = tile_args(p, staging, p.main.b.k_inner);
  launch(p.main.b.k_inner ? wgmma_kernel<true> : wgmma_kernel<false>, dim3(static_cast<unsigned>(tiles)), dim3(kWide),
         kSharedBytes, args);
  return true;
}

}  // namespace temper::gpu
