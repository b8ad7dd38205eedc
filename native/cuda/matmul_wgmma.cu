// The tile product of matmul_tiles.cuh on Hopper's warpgroup instructions: c = A·Bᵀ, A [m,k] with k inner, B bf16 or MXFP4 with k inner (forward) or not (dX).
//
// Tile 128×192, k-blocks of 64, two warpgroups of 64×192 (96 accumulators a thread). wgmma reads A and B from shared memory by itself, so the same 256 threads
// copy A (cp.async, kStages deep), decode B of the next k-block and issue: a k-block is 3.1 MFLOP = 768 clocks of the tensor cores at 4096 FLOP a clock; its
// decode is 48 weights a thread, about 170 issue slots of a warp, 340 of a scheduler's 768. One k-block's products run while the next one's are issued:
// a B tile is written two k-blocks after it was read (3 decoded tiles), a stage of A likewise. The transposed product reads the same memory layout of the
// weights; only where a decoded chunk lies in shared memory and one bit of the instruction differ.
// Shared memory: packed B 5·16 + 3·24 = 152 KiB, bf16 B 5·40 = 200 KiB, one block a multiprocessor. Bytes a k-block: A 16 KiB and B 24 KiB or 6.4 KiB from L2;
// shared memory about 137 bytes a clock at full rate (wgmma 85, copies and decode 52) of 128: 90 % of the tensor rate is the limit to expect.
// Registers by nvcc 13.0: 148 to 182, none spilled, products not serialised (no C75xx message). Runs under emulation; not run on a GPU yet.
#include "cuda/matmul_tiles.cuh"

namespace temper::cuda {
namespace {

constexpr int kTileM = 128, kTileN = 192, kWide = 256, kStages = 5, kAhead = kStages - 2, kDecoded = 3;
constexpr int kAChunks = kTileM * 8, kBChunks = kTileN * 8;  // 16-byte chunks of a tile
constexpr int kOuterBlock = 64 * 8;                          // k outer: chunks of 64 k × 64 outer elements

template <Kind B> constexpr size_t wgmma_shared() { return static_cast<size_t>(kStages * kAChunks + (B == Kind::bf16 ? kStages : kDecoded) * kBChunks) * 16 + 1024; }

// 16-byte chunk of 8 elements: k inner: (outer row, chunk of k); k outer: (k, chunk of outer).
TEMPER_DEVICE int inner_chunk(int row, int chunk) { return row * 8 + (chunk ^ (row & 7)); }
TEMPER_DEVICE int outer_chunk(int k, int chunk) { return chunk / 8 * kOuterBlock + k * 8 + ((chunk ^ k) & 7); }

template <Kind B, bool BInner> __global__ void __launch_bounds__(kWide, 1) wgmma_kernel(const TileArgs args) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  constexpr bool kPacked = B != Kind::bf16;
  constexpr int kARows = kTileM / 32, kBRows = (BInner ? kTileN : kBlockK) / 32, kBCols = BInner ? 1 : 3, kUnits = 3;
  TEMPER_DYNAMIC_SHARED(uint4, dynamic);
  uint4* const shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024 / 16;
  uint4* const shared_b = shared + kStages * kAChunks;
  const Extent& x = args.extent;
  const Place place = find_place<kTileM, kTileN>(x, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, group_row = thread / 128 * 64;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK, blocks = low_blocks + (x.k + kBlockK - 1) / kBlockK;

  // ---- A, and a bf16 B, by cp.async: thread t takes chunk t%8 of rows t/8 + 32r ----
  const int chunk0 = thread % 8, row0 = thread / 8;
  const auto copy = [&](int block) {
    if (block < blocks) {
      const bool low = block < low_blocks;
      const TileOperand& a = low ? args.low_a : args.a;
      const int k = (low ? block : block - low_blocks) * kBlockK, stop = low ? args.low_k : x.k;
      uint4* tile = shared + block % kStages * kAChunks;
#pragma unroll
      for (int r = 0; r < kARows; ++r) {
        const int row = row0 + 32 * r, at = place.row + row;
        const bool valid = row < place.rows && k + chunk0 * 8 < stop;
        const int64_t from = !valid ? 0 : a.index ? checked_index(args.fault, x.op, a.index_name, at, a.index[at], a.count) : at;
        cp_async16(tile + inner_chunk(row, chunk0), static_cast<const uint16_t*>(a.data) + from * a.ld + k + chunk0 * 8, valid);
      }
      if constexpr (!kPacked) {
        const TileOperand& b = low ? args.low_b : args.b;
        const uint16_t* data = static_cast<const uint16_t*>(b.data) + static_cast<int64_t>(place.group) * b.group_rows * b.ld;
        uint4* to = shared_b + block % kStages * kBChunks;
#pragma unroll
        for (int r = 0; r < kBRows; ++r)
#pragma unroll
          for (int c = 0; c < kBCols; ++c) {
            const int row = row0 + 32 * r, chunk = chunk0 + 8 * c;
            if constexpr (BInner) {
              const bool valid = place.col + row < x.n && k + chunk * 8 < stop;
              cp_async16(to + inner_chunk(row, chunk), data + (valid ? (place.col + row) * b.ld + k + chunk * 8 : 0), valid);
            } else {
              const bool valid = k + row < stop && place.col + chunk * 8 < x.n;
              cp_async16(to + outer_chunk(row, chunk), data + (valid ? (k + row) * b.ld + place.col + chunk * 8 : 0), valid);
            }
          }
      }
    }
    cp_async_commit();
  };

  // ---- a packed B: units of 16 weights along a memory row, fetched two k-blocks ahead, decoded one ahead ----
  Packed<kPacked ? B : Kind::mxfp4> units[kUnits];
  const auto unit_row = [&](int j) { return thread / 4 + (BInner ? 64 * j : 0); };
  const auto unit_column = [&](int j) { return thread % 4 * 16 + (BInner ? 0 : 64 * j); };
  const auto fetch = [&](int block, int j) {
    if constexpr (kPacked) {
      const int k = (block - low_blocks) * kBlockK, outer = place.col + (BInner ? unit_row(j) : unit_column(j)), inner = k + (BInner ? unit_column(j) : unit_row(j));
      units[j] = {};
      if (block >= low_blocks && block < blocks && outer < x.n && inner < x.k)
        units[j] = fetch_packed(args.b, static_cast<int64_t>(place.group) * args.b.group_rows + (BInner ? outer : inner), BInner ? inner : outer, units[j]);
    }
  };
  const auto unpack = [&](int block, int j) {
    if constexpr (kPacked) {
      uint4* tile = shared_b + block % kDecoded * kBChunks;
      const int row = unit_row(j), chunk = unit_column(j) / 8;
      uint32_t low[4] = {}, high[4] = {};
      if (block >= low_blocks) {
        decode(units[j], low, high);
      } else {  // the low-rank B is bf16
        const int outer = place.col + (BInner ? row : unit_column(j)), inner = block * kBlockK + (BInner ? unit_column(j) : row);
        const uint16_t* from = static_cast<const uint16_t*>(args.low_b.data) + (static_cast<int64_t>(place.group) * args.low_b.group_rows + (BInner ? outer : inner)) * args.low_b.ld + (BInner ? inner : outer);
        if (outer < x.n && inner < args.low_k) {
          const uint4 v = load_as<uint4>(from);
          low[0] = v.x, low[1] = v.y, low[2] = v.z, low[3] = v.w;
        }
        if (BInner ? outer < x.n && inner + 8 < args.low_k : outer + 8 < x.n && inner < args.low_k) {
          const uint4 v = load_as<uint4>(from + 8);
          high[0] = v.x, high[1] = v.y, high[2] = v.z, high[3] = v.w;
        }
      }
      tile[BInner ? inner_chunk(row, chunk) : outer_chunk(row, chunk)] = make_uint4(low[0], low[1], low[2], low[3]);
      tile[BInner ? inner_chunk(row, chunk + 1) : outer_chunk(row, chunk + 1)] = make_uint4(high[0], high[1], high[2], high[3]);
    }
  };

  float acc[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) acc[i] = 0;
  for (int s = 0; s < kAhead; ++s) copy(s);
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    fetch(0, j);
    if (blocks) unpack(0, j);
    fetch(1, j);
  }
  const auto advance = [&](int begin, int end) {
    for (int block = begin; block < end; ++block) {
      cp_async_wait<kAhead - 1>();
      fence_async_proxy();
      __syncthreads();  // this block's tiles are complete; the products of block − 2 are done in both warpgroups
      // Never skipped, even where the warpgroup has no rows: in a branch that the compiler cannot prove uniform it would wait after every product (C7520).
      const uint32_t a = shared_address(shared + block % kStages * kAChunks) + static_cast<uint32_t>(group_row) * 128;
      const uint32_t b = shared_address(shared_b + block % (kPacked ? kDecoded : kStages) * kBChunks);
      wgmma_fence();
#pragma unroll
      for (uint32_t kk = 0; kk < kBlockK / 16; ++kk)
        wgmma_m64n192k16<BInner>(acc, swizzled_matrix(a + 32 * kk, 16, 1024), BInner ? swizzled_matrix(b + 32 * kk, 16, 1024) : swizzled_matrix(b + 2048 * kk, kOuterBlock * 16, 1024));
      wgmma_commit();
      copy(block + kAhead);
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        if (block + 1 < blocks) unpack(block + 1, j);
        fetch(block + 2, j);
      }
      wgmma_wait<1>();
    }
    wgmma_wait<0>();
  };
  if (low_blocks) {  // a loop of its own: sums that are touched inside the loop would make the compiler wait after every product (C7515)
    advance(0, low_blocks);
#pragma unroll
    for (int i = 0; i < 96; ++i) acc[i] *= args.low_alpha;
  }
  advance(low_blocks, blocks);
  cp_async_wait<0>();

  // ---- result ----
  const int warp_row = group_row + thread / kWarp % 4 * 16;
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
        bias[v] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col + v]) : static_cast<const float*>(args.bias)[bias_at + col + v];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + lane / 4 + half * 8;
      if (r >= place.rows || col >= x.n) continue;
      float* to = args.c + (static_cast<int64_t>(place.row) + r) * args.ldc + col;
      float base[2] = {bias[0], bias[1]};
      if (args.accumulate) base[0] = to[0], base[1] = both ? to[1] : 0.0f;
      const float low = fused(args.alpha, acc[4 * j + 2 * half], base[0]), high = fused(args.alpha, acc[4 * j + 2 * half + 1], base[1]);
      if (pairs && both) {
        store_as(to, make_float2(low, high));
      } else {
        to[0] = low;
        if (both) to[1] = high;
      }
    }
  }
#endif
}

}  // namespace

bool multiply_wgmma(const Product& p, Staging& staging, bool whenever_possible) {
  const Kind kind = p.main.b.kind == Kind::f32 ? Kind::bf16 : p.main.b.kind;
  if (device().major != 9 || p.ragged == Ragged::k || kind == Kind::q8 || !p.main.a.k_inner || p.main.b.index || p.low_rank_mask.limit || p.m < 1 || p.n < 1) return false;
  const int64_t tiles = tile_bound(p, kTileM, kTileN), rows = p.ragged == Ragged::rows ? p.m / p.groups : p.m;
  if (!whenever_possible && (rows <= 64 || p.n <= 96 || tiles < device().multiprocessors)) return false;
  const size_t shared = kind == Kind::mxfp4 ? wgmma_shared<Kind::mxfp4>() : wgmma_shared<Kind::bf16>();
  if (static_cast<size_t>(device().shared_per_block) < shared) return false;
  const TileArgs args = tile_args(p, staging, p.main.b.k_inner);
  const auto kernel = kind == Kind::mxfp4 ? (p.main.b.k_inner ? wgmma_kernel<Kind::mxfp4, true> : wgmma_kernel<Kind::mxfp4, false>)
                                          : (p.main.b.k_inner ? wgmma_kernel<Kind::bf16, true> : wgmma_kernel<Kind::bf16, false>);
  launch(kernel, dim3(static_cast<unsigned>(tiles)), dim3(kWide), shared, args);
  return true;
}

}  // namespace temper::cuda
