// The tensor-core product: c = A·Bᵀ in tiles, f32 accumulators in registers, bf16 operands in swizzled shared memory,
// mma.sync m16n8k16.
//
// One k-block is 64 deep. A (and a bf16 B) come by cp.async, Stages k-blocks ahead. A packed B (MXFP4, q8) is read into
// registers one k-block ahead and decoded into one of two shared tiles while the other one is multiplied. An operand
// whose k runs across memory rows lies in shared memory as it lies in device memory and is read by ldmatrix.trans: that
// is the whole difference between forward and transposed products. A low-rank pair (LoRA) is the first k-block(s) of
// the same loop.
//
// Large tile 128×192, 8 warps of 64×48: a k-block is 96 mma per warp against 28 ldmatrix.x4; 192 divides 2880 and 5760.
// Per k-block the block does 3.1 MFLOP and reads 16 KiB of A and 24 KiB of bf16 B or 6.4 KiB of MXFP4: 77 or 137
// operations a byte of L2. MXFP4 decode is 48 weights a thread and k-block, about 190 issue slots beside 96 mma that
// occupy a tensor core for 8 clocks each and more.
//   gate_up of gpt-oss, 8192 tokens: 1.09 TFLOP; 282 MB of weights, 47 MB of x, 755 MB of y in f32. Bound by the tensor
//   cores: at 300 TFLOP/s 3.6 ms, the bytes 0.25 ms.
// Small tile 64×64, 4 warps of 32×32: few rows or columns (LoRA A and B, router), and products with too few large tiles
// to fill the device.
// Middle tile 64×128, 4 warps of 32×64, two stages: taken where a table says so (tile_table.h). Meant for cards with
// 100 KiB of shared memory to a multiprocessor: as many warps as the large tile, in two blocks that do not wait for
// each other, so that the one computes while the other waits at a barrier or writes. 512 columns are four of it to the
// last one, of the large tile two and two thirds.
//
//                       registers (any arch.)  shared memory                             blocks on a multiprocessor
//   large, bf16 B       186–202, dW 199–228    160 KiB (4 stages), 80 KiB (2) under 163   1 (8 warps)
//   large, MXFP4, q8    208–246, q8 224–238    112 KiB (4 stages), 96 KiB (3)             1 (8 warps)
//   middle              144–214                48 KiB (2 stages)                         2 (4 warps each)
//   small               112–164                48 KiB (3 stages), packed 40 KiB           3, on 100 KiB cards 2
// No spills on sm_80, 86, 89, 90a, 120. H200: q_proj of gpt-oss at 4,096 tokens 244 TFLOP/s, experts at 512 rows 147 to
// 179, LoRA and staging included.
#pragma once
#include "cuda/matmul/matmul_place.cuh"
#include "cuda/matmul/tile_table.h"
#include "gpu/mxfp4.cuh"
#include "gpu/vector.cuh"

namespace temper::gpu {

struct TileOperand {
  const void* data;
  const void* scales;  // MXFP4: bytes; q8: bf16
  int64_t ld;          // elements
  const int32_t* index;
  FaultName index_name;
  int count;  // rows in memory
  int group_rows;
};

struct TileArgs {
  Extent extent;
  TileOperand a, b, low_a, low_b;
  int low_k;
  float alpha, low_alpha;
  float* c;
  int64_t ldc;
  bool accumulate, bias_bf16;
  const void* bias;
  Product::Activated activated;
  float* partial;    // split k: [splits, m, n], else null
  int split_blocks;  // k-blocks of one split
  Fault* fault;
};
using TileKernel = void (*)(TileArgs);
// one split of k, operands staged; low_inner: k of the low-rank B runs along rows
TileArgs tile_args(const Product& product, Staging& staging, bool low_inner);

constexpr int kBlockK = 64;
template <TileSize Size>
struct TileShape;
template <>
struct TileShape<TileSize::large> {
  static constexpr int m = 128, n = 192, warps_m = 2, warps_n = 4, blocks = 1;
};
template <>
struct TileShape<TileSize::small> {
  static constexpr int m = 64, n = 64, warps_m = 2, warps_n = 2, blocks = 3;
};
template <>
struct TileShape<TileSize::middle> {
  static constexpr int m = 64, n = 128, warps_m = 2, warps_n = 2, blocks = 2;
};

template <TileSize Size>
constexpr int tile_threads() {
  return TileShape<Size>::warps_m * TileShape<Size>::warps_n * kWarp;
}
template <TileSize Size, Kind B>
constexpr size_t tile_shared(int stages) {
  return static_cast<size_t>(stages * TileShape<Size>::m + (B == Kind::bf16 ? stages : 2) * TileShape<Size>::n) *
         kBlockK * 2;
}

// ---- decoding ----
// Sixteen weights along a memory row, as they come: 8 bytes of MXFP4 codes or 16 bytes of q8, and their scale.
template <Kind B>
struct Packed;
template <>
struct Packed<Kind::mxfp4> {
  uint2 codes;
  uint32_t scale;
};
template <>
struct Packed<Kind::q8> {
  uint4 codes;
  uint32_t scale;
};

template <bool kWide>
TEMPER_DEVICE void decode_mxfp4(uint32_t codes, Mxfp4Scale scale, uint32_t (&out)[4]) {
  uint32_t apart[4];  // elements (i, i+4)
  mxfp4_pairs<kWide>(codes, scale, apart);
  out[0] = __byte_perm(apart[0], apart[1], 0x5410), out[1] = __byte_perm(apart[2], apart[3], 0x5410);
  out[2] = __byte_perm(apart[0], apart[1], 0x7632), out[3] = __byte_perm(apart[2], apart[3], 0x7632);
}
TEMPER_DEVICE void decode(const Packed<Kind::mxfp4>& from, uint32_t (&low)[4], uint32_t (&high)[4]) {
  if (from.scale <= kMxfp4Narrow) {  // of the released weights all
    decode_mxfp4<false>(from.codes.x, mxfp4_scale<false>(from.scale), low);
    decode_mxfp4<false>(from.codes.y, mxfp4_scale<false>(from.scale), high);
  } else {
    decode_mxfp4<true>(from.codes.x, mxfp4_scale<true>(from.scale), low);
    decode_mxfp4<true>(from.codes.y, mxfp4_scale<true>(from.scale), high);
  }
}
TEMPER_DEVICE uint32_t decode_q8_pair(uint32_t codes, int byte, float scale) {
  const float x = static_cast<float>(static_cast<int8_t>(codes >> (8 * byte))),
              y = static_cast<float>(static_cast<int8_t>(codes >> (8 * byte + 8)));
  return pack_bf16(x * scale, y * scale);
}
TEMPER_DEVICE void decode(const Packed<Kind::q8>& from, uint32_t (&low)[4], uint32_t (&high)[4]) {
  const float scale = bits_to_float(from.scale << 16);
  const uint32_t words[4] = {from.codes.x, from.codes.y, from.codes.z, from.codes.w};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    low[2 * i] = decode_q8_pair(words[i], 0, scale), low[2 * i + 1] = decode_q8_pair(words[i], 2, scale);
    high[2 * i] = decode_q8_pair(words[i + 2], 0, scale), high[2 * i + 1] = decode_q8_pair(words[i + 2], 2, scale);
  }
}
TEMPER_DEVICE Packed<Kind::mxfp4> fetch_packed(const TileOperand& b, int64_t row, int column, Packed<Kind::mxfp4>) {
  Packed<Kind::mxfp4> p;
  p.codes = load_as<uint2>(static_cast<const uint8_t*>(b.data) + row * (b.ld / 2) + column / 2);
  p.scale = static_cast<const uint8_t*>(b.scales)[row * (b.ld / 32) + column / 32];
  return p;
}
TEMPER_DEVICE Packed<Kind::q8> fetch_packed(const TileOperand& b, int64_t row, int column, Packed<Kind::q8>) {
  Packed<Kind::q8> p;
  p.codes = load_as<uint4>(static_cast<const uint8_t*>(b.data) + row * b.ld + column);
  p.scale = static_cast<const uint16_t*>(b.scales)[row * (b.ld / 32) + column / 32];
  return p;
}

// ---- tiles in shared memory ----
// Chunks of 8 bf16. k inner: [outer][8 chunks]; k outer: [64][Outer/8 chunks]. The XOR spreads the eight rows that
// ldmatrix reads at once over all banks.
template <int Outer, bool KInner>
TEMPER_DEVICE int chunk_at(int row, int chunk) {
  return row * (KInner ? 8 : Outer / 8) + (chunk & ~7) + ((chunk ^ row) & 7);
}

// ---- the parts of a kernel; all of them are inlined into tile_kernel ----
// What one of its kinds knows when it is compiled.
template <TileSize Size, Kind Weights, bool ARunsAlongK, bool BRunsAlongK, int StageCount>
struct TileForm {
  using Shape = TileShape<Size>;
  static constexpr Kind B = Weights;
  static constexpr bool AInner = ARunsAlongK, BInner = BRunsAlongK, packed = B != Kind::bf16;
  static constexpr int Stages = StageCount;
  static constexpr int TM = Shape::m, TN = Shape::n, Threads = tile_threads<Size>(), RowStep = Threads / 8;
  static constexpr int WM = TM / Shape::warps_m, WN = TN / Shape::warps_n, MTiles = WM / 16, NPairs = WN / 16;
  // Memory rows of a tile, and the chunks of 8 elements in one. Thread t copies chunks t%8 + 8c of rows t/8 +
  // r·RowStep.
  static constexpr int ARows = (AInner ? TM : kBlockK) / RowStep, ACols = AInner ? 1 : TM / 64;
  static constexpr int BRows = (BInner ? TN : kBlockK) / RowStep, BCols = BInner ? 1 : TN / 64;
  static constexpr int ATile = TM * kBlockK / 8, BTile = TN * kBlockK / 8;  // in chunks
  // a packed B: units of 16 weights, thread t holds units t%4 + 4c of rows t/4 + r·Threads/4
  static constexpr int UnitCols = BInner ? 1 : TN / 64, Units = packed ? TN * kBlockK / 16 / Threads : 1;
};

// The k-blocks of this block: `low` of the low-rank pair come first.
struct TileBlocks {
  int low, first, last;
  TEMPER_DEVICE TileBlocks(const TileArgs& args, const Place& place) {
    low = (args.low_k + kBlockK - 1) / kBlockK;
    const int all = low + (place.k_end - place.k_begin + kBlockK - 1) / kBlockK;
    first = args.partial ? static_cast<int>(blockIdx.y) * args.split_blocks : 0;
    last = args.partial && first + args.split_blocks < all ? first + args.split_blocks : all;
  }
};

// Copies into shared memory: blocks are asked for in rising order, `aim` points at the term whose blocks follow.
template <class F>
struct TileCopies {
  const TileArgs& args;
  const Place& place;
  const TileBlocks& blocks;
  uint4 *const shared_a, *const shared_b;  // Stages tiles of each
  const int chunk0, row0;
  int k_next = 0, k_stop = 0;                       // of the term, of the next block to copy
  const uint16_t* a_row[F::AInner ? F::ARows : 1];  // k inner: the rows of A, which may be gathered
  const uint16_t *a_data = nullptr, *b_data = nullptr;
  int lda = 0, ldb = 0;

  TEMPER_DEVICE TileCopies(const TileArgs& args, const Place& place, const TileBlocks& blocks, uint4* shared_a,
                           uint4* shared_b)
      : args(args),
        place(place),
        blocks(blocks),
        shared_a(shared_a),
        shared_b(shared_b),
        chunk0(static_cast<int>(threadIdx.x) % 8),
        row0(static_cast<int>(threadIdx.x) / 8) {}

  TEMPER_DEVICE void aim(int block) {
    const bool low = block < blocks.low;
    const TileOperand &a = low ? args.low_a : args.a, &b = low ? args.low_b : args.b;
    k_next = low ? block * kBlockK : place.k_begin + (block - blocks.low) * kBlockK;
    k_stop = low ? args.low_k : place.k_end;
    lda = static_cast<int>(a.ld), ldb = static_cast<int>(b.ld);
    a_data = static_cast<const uint16_t*>(a.data);
    b_data = static_cast<const uint16_t*>(b.data) + static_cast<int64_t>(place.group) * b.group_rows * b.ld +
             (F::BInner ? (place.col + row0) * b.ld : place.col) + chunk0 * 8;
    if constexpr (F::AInner) {
#pragma unroll
      for (int r = 0; r < F::ARows; ++r) {
        const int at = place.row + row0 + r * F::RowStep;
        const bool valid = row0 + r * F::RowStep < place.rows;
        const int64_t row = !valid ? 0
                            : a.index
                                ? checked_index(args.fault, args.extent.op, a.index_name, at, a.index[at], a.count)
                                : at;
        a_row[r] = a_data + row * lda + chunk0 * 8;
      }
    }
  }
  // Where logical k of an operand whose k runs across rows lies.
  TEMPER_DEVICE int64_t line_of(const TileOperand& operand, int at, bool inside) const {
    return !inside ? 0
           : operand.index
               ? checked_index(args.fault, args.extent.op, operand.index_name, at, operand.index[at], operand.count)
               : at;
  }
  TEMPER_DEVICE void copy_a(int slot) const {
    uint4* tile = shared_a + slot * F::ATile;
#pragma unroll
    for (int r = 0; r < F::ARows; ++r) {
      const int row = row0 + r * F::RowStep;
      if constexpr (F::AInner) {
        const bool valid = row < place.rows && k_next + chunk0 * 8 < k_stop;
        cp_async16(tile + chunk_at<F::TM, true>(row, chunk0), a_row[r] + k_next, valid);
      } else {
        const bool inside = k_next + row < k_stop;
        const uint16_t* line = a_data + line_of(args.a, k_next + row, inside) * lda + place.row + chunk0 * 8;
#pragma unroll
        for (int c = 0; c < F::ACols; ++c)
          cp_async16(tile + chunk_at<F::TM, false>(row, chunk0 + 8 * c), line + 64 * c,
                     inside && place.row + (chunk0 + 8 * c) * 8 < args.extent.m);
      }
    }
  }
  TEMPER_DEVICE void copy_b(int slot) const {
    uint4* tile = shared_b + slot * F::BTile;
#pragma unroll
    for (int r = 0; r < F::BRows; ++r) {
      const int row = row0 + r * F::RowStep;
      if constexpr (F::BInner) {
        cp_async16(tile + chunk_at<F::TN, true>(row, chunk0), b_data + r * F::RowStep * ldb + k_next,
                   place.col + row < args.extent.n && k_next + chunk0 * 8 < k_stop);
      } else {
        const bool inside = k_next + row < k_stop;
        const uint16_t* line = b_data + line_of(args.b, k_next + row, inside) * ldb;
#pragma unroll
        for (int c = 0; c < F::BCols; ++c)
          cp_async16(tile + chunk_at<F::TN, false>(row, chunk0 + 8 * c), line + 64 * c,
                     inside && place.col + (chunk0 + 8 * c) * 8 < args.extent.n);
      }
    }
  }
  TEMPER_DEVICE void copy(int block, int slot) {
    if (block == blocks.first || block == blocks.low) aim(block);
    copy_a(slot);
    if constexpr (!F::packed) copy_b(slot);
    k_next += kBlockK;
  }
};

// A packed B: read into registers one k-block ahead, decoded into one of two tiles.
template <class F>
struct TileUnits {
  const TileArgs& args;
  const Place& place;
  const TileBlocks& blocks;
  uint4* const tiles;
  Packed<F::packed ? F::B : Kind::mxfp4> units[F::Units];

  TEMPER_DEVICE static int row(int j) { return static_cast<int>(threadIdx.x) / 4 + j / F::UnitCols * (F::Threads / 4); }
  TEMPER_DEVICE static int column(int j) { return static_cast<int>(threadIdx.x) % 4 * 16 + j % F::UnitCols * 64; }

  TEMPER_DEVICE void fetch(int block, int j) {
    if constexpr (F::packed) {
      const int k = (block - blocks.low) * kBlockK, outer = place.col + (F::BInner ? row(j) : column(j)),
                inner = k + (F::BInner ? column(j) : row(j));
      units[j] = {};
      if (block >= blocks.low && block < blocks.last && outer < args.extent.n && inner < args.extent.k)
        units[j] =
            fetch_packed(args.b, static_cast<int64_t>(place.group) * args.b.group_rows + (F::BInner ? outer : inner),
                         F::BInner ? inner : outer, units[j]);
    }
  }
  // Sixteen weights of the low-rank B, which is bf16.
  TEMPER_DEVICE void read_low(int block, int j, uint32_t (&low)[4], uint32_t (&high)[4]) const {
    const int outer = place.col + (F::BInner ? row(j) : column(j)),
              inner = block * kBlockK + (F::BInner ? column(j) : row(j)), n = args.extent.n;
    const uint16_t* from =
        static_cast<const uint16_t*>(args.low_b.data) +
        (static_cast<int64_t>(place.group) * args.low_b.group_rows + (F::BInner ? outer : inner)) * args.low_b.ld +
        (F::BInner ? inner : outer);
    if (outer < n && inner < args.low_k) {
      const uint4 v = load_as<uint4>(from);
      low[0] = v.x, low[1] = v.y, low[2] = v.z, low[3] = v.w;
    }
    if (F::BInner ? outer < n && inner + 8 < args.low_k : outer + 8 < n && inner < args.low_k) {
      const uint4 v = load_as<uint4>(from + 8);
      high[0] = v.x, high[1] = v.y, high[2] = v.z, high[3] = v.w;
    }
  }
  TEMPER_DEVICE void unpack(int block, int j) const {
    if constexpr (F::packed) {
      uint4* tile = tiles + (block & 1) * F::BTile;
      uint32_t low[4] = {}, high[4] = {};
      if (block >= blocks.low) decode(units[j], low, high);
      else read_low(block, j, low, high);
      const int chunk = column(j) / 8;
      tile[chunk_at<F::TN, F::BInner>(row(j), chunk)] = make_uint4(low[0], low[1], low[2], low[3]);
      tile[chunk_at<F::TN, F::BInner>(row(j), chunk + 1)] = make_uint4(high[0], high[1], high[2], high[3]);
    }
  }
};

// What a warp adds up: its WM×WN of the tile.
template <class F>
struct TileSums {
  const int lane, warp_row, warp_col;
  float acc[F::MTiles][F::NPairs * 2][4] = {};

  TEMPER_DEVICE TileSums()
      : lane(static_cast<int>(threadIdx.x) % kWarp),
        warp_row(static_cast<int>(threadIdx.x) / kWarp % F::Shape::warps_m * F::WM),
        warp_col(static_cast<int>(threadIdx.x) / kWarp / F::Shape::warps_m * F::WN) {}

  TEMPER_DEVICE void add(const uint4* tile_a, const uint4* tile_b, int kk) {
    uint32_t a[F::MTiles][4], b[F::NPairs][4];
#pragma unroll
    for (int i = 0; i < F::MTiles; ++i) {
      const int outer = warp_row + i * 16;
      if constexpr (F::AInner) ldmatrix_x4(a[i], tile_a + chunk_at<F::TM, true>(outer + lane % 16, kk * 2 + lane / 16));
      else
        ldmatrix_x4_transposed(
            a[i], tile_a + chunk_at<F::TM, false>(kk * 16 + lane % 8 + lane / 16 * 8, outer / 8 + lane / 8 % 2));
    }
#pragma unroll
    for (int i = 0; i < F::NPairs; ++i) {
      const int outer = warp_col + i * 16;
      if constexpr (F::BInner)
        ldmatrix_x4(b[i], tile_b + chunk_at<F::TN, true>(outer + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
      else ldmatrix_x4_transposed(b[i], tile_b + chunk_at<F::TN, false>(kk * 16 + lane % 16, outer / 8 + lane / 16));
    }
#pragma unroll
    for (int i = 0; i < F::MTiles; ++i)
#pragma unroll
      for (int j = 0; j < F::NPairs * 2; ++j) {
        const uint32_t (&pair)[2] = reinterpret_cast<const uint32_t (&)[2]>(b[j / 2][j % 2 * 2]);
        mma_bf16(acc[i][j], a[i], pair);
      }
  }
  TEMPER_DEVICE void scale(float alpha) {
#pragma unroll
    for (int i = 0; i < F::MTiles; ++i)
#pragma unroll
      for (int j = 0; j < F::NPairs * 2; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) acc[i][j][v] *= alpha;
  }
  TEMPER_DEVICE void store(const TileArgs& args, const Place& place) const {
    const Extent& x = args.extent;
    float* c = args.partial ? args.partial + static_cast<int64_t>(blockIdx.y) * x.m * x.n
                            : args.c + (x.ragged == Ragged::k ? static_cast<int64_t>(place.group) * x.m * args.ldc : 0);
    const int64_t ldc = args.partial ? x.n : args.ldc;
    const bool pairs = ldc % 2 == 0 && reinterpret_cast<uintptr_t>(c) % 8 == 0;
    const int64_t bias_at = x.ragged == Ragged::rows ? static_cast<int64_t>(place.group) * x.n : 0;
#pragma unroll
    for (int j = 0; j < F::NPairs * 2; ++j) {
      const int col = place.col + warp_col + j * 8 + lane % 4 * 2;
      float bias[2] = {0, 0};
#pragma unroll
      for (int v = 0; v < 2; ++v)
        if (args.bias && !args.partial && col + v < x.n)
          bias[v] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col + v])
                                   : static_cast<const float*>(args.bias)[bias_at + col + v];
#pragma unroll
      for (int i = 0; i < F::MTiles; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = warp_row + i * 16 + lane / 4 + half * 8;
          if (r >= place.rows || col >= x.n) continue;
          float* to = c + (static_cast<int64_t>(place.row) + r) * ldc + col;
          float value[2] = {acc[i][j][half * 2], acc[i][j][half * 2 + 1]};
          const bool both = col + 1 < x.n;
          if (!args.partial) {
            float base[2] = {bias[0], bias[1]};
            if (args.accumulate) base[0] = to[0], base[1] = both ? to[1] : 0.0f;
            value[0] = fused(args.alpha, value[0], base[0]);
            value[1] = fused(args.alpha, value[1], base[1]);
          }
          if (pairs && both) {
            store_as(to, make_float2(value[0], value[1]));
          } else {
            to[0] = value[0];
            if (both) to[1] = value[1];
          }
        }
    }
  }
};

// Block i's tiles are complete at the barrier, the slot freed by block i−1 is refilled, block i+1 is decoded while i is
// multiplied.
template <TileSize Size, Kind B, bool AInner, bool BInner, int Stages>
__global__ void __launch_bounds__(tile_threads<Size>(), TileShape<Size>::blocks) tile_kernel(const TileArgs args) {
  wait_for_previous();
  using F = TileForm<Size, B, AInner, BInner, Stages>;
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  uint4* const shared_a = shared;                      // Stages tiles
  uint4* const shared_b = shared + Stages * F::ATile;  // Stages tiles, or 2 decoded ones
  const Place place = find_place<F::TM, F::TN>(args.extent, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const TileBlocks blocks(args, place);
  TileSums<F> sums;
  TileCopies<F> copies(args, place, blocks, shared_a, shared_b);
  TileUnits<F> units{args, place, blocks, shared_b, {}};
  const bool busy = sums.warp_row < place.rows && place.col + sums.warp_col < args.extent.n;  // of the whole warp
#pragma unroll
  for (int s = 0; s < Stages - 1; ++s) {
    if (blocks.first + s < blocks.last) copies.copy(blocks.first + s, s);
    cp_async_commit();
  }
  if constexpr (F::packed) {
#pragma unroll
    for (int j = 0; j < F::Units; ++j) {
      units.fetch(blocks.first, j);
      if (blocks.first < blocks.last) units.unpack(blocks.first, j);
      units.fetch(blocks.first + 1, j);
    }
  }
  int slot = 0, refill = Stages - 1;
  for (int block = blocks.first; block < blocks.last; ++block) {
    cp_async_wait<Stages - 2>();
    __syncthreads();
    if (block + Stages - 1 < blocks.last) copies.copy(block + Stages - 1, refill);
    cp_async_commit();
    const uint4* tile_a = shared_a + slot * F::ATile;
    const uint4* tile_b = shared_b + (F::packed ? block & 1 : slot) * F::BTile;
    const int deep = block < blocks.low ? args.low_k - block * kBlockK
                                        : place.k_end - place.k_begin - (block - blocks.low) * kBlockK;
#pragma unroll
    for (int kk = 0; kk < kBlockK / 16; ++kk) {
      if (busy && kk * 16 < deep) sums.add(tile_a, tile_b, kk);
      if constexpr (F::packed) {
        if (kk < F::Units && block + 1 < blocks.last) {
          units.unpack(block + 1, kk < F::Units ? kk : 0);
          units.fetch(block + 2, kk < F::Units ? kk : 0);
        }
      }
    }
    slot = slot + 1 == Stages ? 0 : slot + 1;
    refill = refill + 1 == Stages ? 0 : refill + 1;
    if (block < blocks.low && (block + 1 == blocks.low || block + 1 == blocks.last)) sums.scale(args.low_alpha);
  }
  if (!busy) return;
  sums.store(args, place);
}

// The kernels of one kind of B, in a translation unit each. Stages: as many as the device's shared memory holds.
struct TileChoice {
  TileKernel kernel;
  size_t shared;
  int threads;
};
TileChoice bf16_tiles(TileSize size, bool a_inner, bool b_inner, int shared_limit);
TileChoice mxfp4_tiles(TileSize size, bool b_inner, int shared_limit);
TileChoice q8_tiles(TileSize size, int shared_limit);

template <TileSize Size, Kind B, bool AInner, bool BInner, int Stages>
TileChoice tile_choice() {
  return {tile_kernel<Size, B, AInner, BInner, Stages>, tile_shared<Size, B>(Stages), tile_threads<Size>()};
}

}  // namespace temper::gpu
