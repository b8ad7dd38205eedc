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
//
//                       registers (any arch.)  shared memory                             blocks on a multiprocessor
//   large, bf16 B       186–202, dW 199–228    160 KiB (4 stages), 80 KiB (2) under 163   1 (8 warps)
//   large, MXFP4, q8    208–246, q8 224–238    112 KiB (4 stages), 96 KiB (3)             1 (8 warps)
//   small               112–164                48 KiB (3 stages), packed 40 KiB           3, on 100 KiB cards 2
// No spills on sm_80, 86, 89, 90a, 120. H200: q_proj of gpt-oss at 4,096 tokens 244 TFLOP/s, experts at 512 rows 147 to
// 179, LoRA and staging included.
#pragma once
#include "cuda/matmul/matmul_place.cuh"
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
  float* partial;    // split k: [splits, m, n], else null
  int split_blocks;  // k-blocks of one split
  Fault* fault;
};
using TileKernel = void (*)(TileArgs);
// one split of k, operands staged; low_inner: k of the low-rank B runs along rows
TileArgs tile_args(const Product& product, Staging& staging, bool low_inner);

enum class TileSize { small, large };
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

template <TileSize Size, Kind B, bool AInner, bool BInner, int Stages>
__global__ void __launch_bounds__(tile_threads<Size>(), TileShape<Size>::blocks) tile_kernel(const TileArgs args) {
  wait_for_previous();
  using Shape = TileShape<Size>;
  constexpr int TM = Shape::m, TN = Shape::n, Threads = tile_threads<Size>(), RowStep = Threads / 8;
  constexpr int WM = TM / Shape::warps_m, WN = TN / Shape::warps_n, MTiles = WM / 16, NPairs = WN / 16;
  constexpr bool packed = B != Kind::bf16;
  // Memory rows of a tile, and the chunks of 8 elements in one. Thread t copies chunks t%8 + 8c of rows t/8 +
  // r·RowStep.
  constexpr int ARows = (AInner ? TM : kBlockK) / RowStep, ACols = AInner ? 1 : TM / 64;
  constexpr int BRows = (BInner ? TN : kBlockK) / RowStep, BCols = BInner ? 1 : TN / 64;
  constexpr int ATile = TM * kBlockK / 8, BTile = TN * kBlockK / 8;  // in chunks
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  uint4* const shared_a = shared;                   // Stages tiles
  uint4* const shared_b = shared + Stages * ATile;  // Stages tiles, or 2 decoded ones
  const Extent& x = args.extent;
  const Place place = find_place<TM, TN>(x, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int warp_row = warp % Shape::warps_m * WM, warp_col = warp / Shape::warps_m * WN;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK;
  const int all_blocks = low_blocks + (place.k_end - place.k_begin + kBlockK - 1) / kBlockK;
  const int first = args.partial ? static_cast<int>(blockIdx.y) * args.split_blocks : 0;
  const int last = args.partial && first + args.split_blocks < all_blocks ? first + args.split_blocks : all_blocks;

  // ---- copies into shared memory: blocks are asked for in rising order, `aim` points at the term whose blocks follow
  const int chunk0 = thread % 8, row0 = thread / 8;
  int k_next = 0, k_stop = 0;                 // of the term, of the next block to copy
  const uint16_t* a_row[AInner ? ARows : 1];  // k inner: the rows of A, which may be gathered
  const uint16_t *a_data = nullptr, *b_data = nullptr;
  int lda = 0, ldb = 0;
  const auto aim = [&](int block) {
    const bool low = block < low_blocks;
    const TileOperand &a = low ? args.low_a : args.a, &b = low ? args.low_b : args.b;
    k_next = low ? block * kBlockK : place.k_begin + (block - low_blocks) * kBlockK;
    k_stop = low ? args.low_k : place.k_end;
    lda = static_cast<int>(a.ld), ldb = static_cast<int>(b.ld);
    a_data = static_cast<const uint16_t*>(a.data);
    b_data = static_cast<const uint16_t*>(b.data) + static_cast<int64_t>(place.group) * b.group_rows * b.ld +
             (BInner ? (place.col + row0) * b.ld : place.col) + chunk0 * 8;
    if constexpr (AInner) {
#pragma unroll
      for (int r = 0; r < ARows; ++r) {
        const int at = place.row + row0 + r * RowStep;
        const bool valid = row0 + r * RowStep < place.rows;
        const int64_t row = !valid    ? 0
                            : a.index ? checked_index(args.fault, x.op, a.index_name, at, a.index[at], a.count)
                                      : at;
        a_row[r] = a_data + row * lda + chunk0 * 8;
      }
    }
  };
  const auto copy_a = [&](int slot) {
    uint4* tile = shared_a + slot * ATile;
#pragma unroll
    for (int r = 0; r < ARows; ++r) {
      const int row = row0 + r * RowStep;
      if constexpr (AInner) {
        const bool valid = row < place.rows && k_next + chunk0 * 8 < k_stop;
        cp_async16(tile + chunk_at<TM, true>(row, chunk0), a_row[r] + k_next, valid);
      } else {
        const int at = k_next + row;
        const bool inside = at < k_stop;
        const int64_t from =
            !inside        ? 0
            : args.a.index ? checked_index(args.fault, x.op, args.a.index_name, at, args.a.index[at], args.a.count)
                           : at;
        const uint16_t* line = a_data + from * lda + place.row + chunk0 * 8;
#pragma unroll
        for (int c = 0; c < ACols; ++c)
          cp_async16(tile + chunk_at<TM, false>(row, chunk0 + 8 * c), line + 64 * c,
                     inside && place.row + (chunk0 + 8 * c) * 8 < x.m);
      }
    }
  };
  const auto copy_b = [&](int slot) {
    uint4* tile = shared_b + slot * BTile;
#pragma unroll
    for (int r = 0; r < BRows; ++r) {
      const int row = row0 + r * RowStep;
      if constexpr (BInner) {
        cp_async16(tile + chunk_at<TN, true>(row, chunk0), b_data + r * RowStep * ldb + k_next,
                   place.col + row < x.n && k_next + chunk0 * 8 < k_stop);
      } else {
        const int at = k_next + row;
        const bool inside = at < k_stop;
        const int64_t from =
            !inside        ? 0
            : args.b.index ? checked_index(args.fault, x.op, args.b.index_name, at, args.b.index[at], args.b.count)
                           : at;
        const uint16_t* line = b_data + from * ldb;
#pragma unroll
        for (int c = 0; c < BCols; ++c)
          cp_async16(tile + chunk_at<TN, false>(row, chunk0 + 8 * c), line + 64 * c,
                     inside && place.col + (chunk0 + 8 * c) * 8 < x.n);
      }
    }
  };
  const auto copy = [&](int block, int slot) {
    if (block == first || block == low_blocks) aim(block);
    copy_a(slot);
    if constexpr (!packed) copy_b(slot);
    k_next += kBlockK;
  };

  // ---- a packed B: units of 16 weights, thread t holds units t%4 + 4c of rows t/4 + r·Threads/4 ----
  constexpr int UnitCols = BInner ? 1 : TN / 64, Units = packed ? TN * kBlockK / 16 / Threads : 1;
  Packed<packed ? B : Kind::mxfp4> units[Units];
  const auto unit_row = [&](int j) { return thread / 4 + j / UnitCols * (Threads / 4); };
  const auto unit_column = [&](int j) { return thread % 4 * 16 + j % UnitCols * 64; };
  const auto fetch = [&](int block, int j) {
    if constexpr (packed) {
      const int k = (block - low_blocks) * kBlockK, outer = place.col + (BInner ? unit_row(j) : unit_column(j)),
                inner = k + (BInner ? unit_column(j) : unit_row(j));
      units[j] = {};
      if (block >= low_blocks && block < last && outer < x.n && inner < x.k)
        units[j] =
            fetch_packed(args.b, static_cast<int64_t>(place.group) * args.b.group_rows + (BInner ? outer : inner),
                         BInner ? inner : outer, units[j]);
    }
  };
  const auto unpack = [&](int block, int j) {
    if constexpr (packed) {
      uint4* tile = shared_b + (block & 1) * BTile;
      const int row = unit_row(j), chunk = unit_column(j) / 8;
      uint32_t low[4] = {}, high[4] = {};
      if (block >= low_blocks) {
        decode(units[j], low, high);
      } else {  // the low-rank B is bf16
        const int outer = place.col + (BInner ? row : unit_column(j)),
                  inner = block * kBlockK + (BInner ? unit_column(j) : row);
        const uint16_t* from =
            static_cast<const uint16_t*>(args.low_b.data) +
            (static_cast<int64_t>(place.group) * args.low_b.group_rows + (BInner ? outer : inner)) * args.low_b.ld +
            (BInner ? inner : outer);
        if (outer < x.n && inner < args.low_k) {
          const uint4 v = load_as<uint4>(from);
          low[0] = v.x, low[1] = v.y, low[2] = v.z, low[3] = v.w;
        }
        if (BInner ? outer < x.n && inner + 8 < args.low_k : outer + 8 < x.n && inner < args.low_k) {
          const uint4 v = load_as<uint4>(from + 8);
          high[0] = v.x, high[1] = v.y, high[2] = v.z, high[3] = v.w;
        }
      }
      tile[chunk_at<TN, BInner>(row, chunk)] = make_uint4(low[0], low[1], low[2], low[3]);
      tile[chunk_at<TN, BInner>(row, chunk + 1)] = make_uint4(high[0], high[1], high[2], high[3]);
    }
  };

  float acc[MTiles][NPairs * 2][4] = {};
  const bool busy = warp_row < place.rows && place.col + warp_col < x.n;  // of the whole warp
  const auto step = [&](const uint4* tile_a, const uint4* tile_b, int kk) {
    uint32_t a[MTiles][4], b[NPairs][4];
#pragma unroll
    for (int i = 0; i < MTiles; ++i) {
      const int outer = warp_row + i * 16;
      if constexpr (AInner) ldmatrix_x4(a[i], tile_a + chunk_at<TM, true>(outer + lane % 16, kk * 2 + lane / 16));
      else
        ldmatrix_x4_transposed(
            a[i], tile_a + chunk_at<TM, false>(kk * 16 + lane % 8 + lane / 16 * 8, outer / 8 + lane / 8 % 2));
    }
#pragma unroll
    for (int i = 0; i < NPairs; ++i) {
      const int outer = warp_col + i * 16;
      if constexpr (BInner)
        ldmatrix_x4(b[i], tile_b + chunk_at<TN, true>(outer + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
      else ldmatrix_x4_transposed(b[i], tile_b + chunk_at<TN, false>(kk * 16 + lane % 16, outer / 8 + lane / 16));
    }
#pragma unroll
    for (int i = 0; i < MTiles; ++i)
#pragma unroll
      for (int j = 0; j < NPairs * 2; ++j) {
        const uint32_t (&pair)[2] = reinterpret_cast<const uint32_t (&)[2]>(b[j / 2][j % 2 * 2]);
        mma_bf16(acc[i][j], a[i], pair);
      }
  };

  // ---- the loop: block i's tiles are complete at the barrier, the slot freed by block i−1 is refilled, block i+1 is d
#pragma unroll
  for (int s = 0; s < Stages - 1; ++s) {
    if (first + s < last) copy(first + s, s);
    cp_async_commit();
  }
  if constexpr (packed) {
#pragma unroll
    for (int j = 0; j < Units; ++j) {
      fetch(first, j);
      if (first < last) unpack(first, j);
      fetch(first + 1, j);
    }
  }
  int slot = 0, refill = Stages - 1;
  for (int block = first; block < last; ++block) {
    cp_async_wait<Stages - 2>();
    __syncthreads();
    if (block + Stages - 1 < last) copy(block + Stages - 1, refill);
    cp_async_commit();
    const uint4* tile_a = shared_a + slot * ATile;
    const uint4* tile_b = shared_b + (packed ? block & 1 : slot) * BTile;
    const int deep = block < low_blocks ? args.low_k - block * kBlockK
                                        : place.k_end - place.k_begin - (block - low_blocks) * kBlockK;
#pragma unroll
    for (int kk = 0; kk < kBlockK / 16; ++kk) {
      if (busy && kk * 16 < deep) step(tile_a, tile_b, kk);
      if constexpr (packed) {
        if (kk < Units && block + 1 < last) {
          unpack(block + 1, kk < Units ? kk : 0);
          fetch(block + 2, kk < Units ? kk : 0);
        }
      }
    }
    slot = slot + 1 == Stages ? 0 : slot + 1;
    refill = refill + 1 == Stages ? 0 : refill + 1;
    if (block < low_blocks && (block + 1 == low_blocks || block + 1 == last)) {
#pragma unroll
      for (int i = 0; i < MTiles; ++i)
#pragma unroll
        for (int j = 0; j < NPairs * 2; ++j)
#pragma unroll
          for (int v = 0; v < 4; ++v) acc[i][j][v] *= args.low_alpha;
    }
  }

  // ---- result ----
  if (!busy) return;
  float* c = args.partial ? args.partial + static_cast<int64_t>(blockIdx.y) * x.m * x.n
                          : args.c + (x.ragged == Ragged::k ? static_cast<int64_t>(place.group) * x.m * args.ldc : 0);
  const int64_t ldc = args.partial ? x.n : args.ldc;
  const bool pairs = ldc % 2 == 0 && reinterpret_cast<uintptr_t>(c) % 8 == 0;
  const int64_t bias_at = x.ragged == Ragged::rows ? static_cast<int64_t>(place.group) * x.n : 0;
#pragma unroll
  for (int j = 0; j < NPairs * 2; ++j) {
    const int col = place.col + warp_col + j * 8 + lane % 4 * 2;
    float bias[2] = {0, 0};
#pragma unroll
    for (int v = 0; v < 2; ++v)
      if (args.bias && !args.partial && col + v < x.n)
        bias[v] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col + v])
                                 : static_cast<const float*>(args.bias)[bias_at + col + v];
#pragma unroll
    for (int i = 0; i < MTiles; ++i)
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
