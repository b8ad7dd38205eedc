// The tensor-core product: c = A·Bᵀ in tiles, f32 accumulators in registers, bf16 operands in swizzled shared memory, mma.sync m16n8k16.
//
// One k-block is 64 deep. A (and a bf16 B) come by cp.async, Stages k-blocks ahead. A packed B (MXFP4, q8) is read into registers one k-block ahead and
// decoded into one of two shared tiles while the other one is multiplied. An operand whose k runs across memory rows lies in shared memory as it lies
// in device memory and is read by ldmatrix.trans: that is the whole difference between forward and transposed products. A low-rank pair (LoRA) is the
// first k-block(s) of the same loop.
//
// Large tile 128×192, 8 warps of 64×48: a k-block is 96 mma per warp against 28 ldmatrix.x4; 192 divides 2880 and 5760. Per k-block the block does
// 3.1 MFLOP and reads 16 KiB of A and 24 KiB of bf16 B or 6.4 KiB of MXFP4: 77 or 137 operations a byte of L2. MXFP4 decode is 48 weights a thread and k-block,
// about 170 issue slots beside 96 mma that occupy a tensor core for 8 clocks each and more.
// Small tile 64×64, 4 warps of 32×32: few rows or columns (LoRA A and B, router), and products with too few large tiles to fill the device.
// Registers and shared memory by nvcc 13: see docs/log.md, CUDA, matrix products. Not run on a GPU yet.
#pragma once
#include "cuda/dropout.cuh"
#include "cuda/matmul_place.cuh"
#include "cuda/mxfp4.cuh"
#include "cuda/vector.cuh"

namespace temper::cuda {

struct TileOperand {
  const void* data;
  const void* scales;      // MXFP4: bytes; q8: bf16
  int64_t ld;              // elements
  const int32_t* index;
  const char* index_name;
  int count;               // rows in memory
  int group_rows;
};

struct TileArgs {
  Extent extent;
  TileOperand a, b, low_a, low_b;
  int low_k;
  float alpha, low_alpha;
  DropoutMask low_mask;
  float* c;
  int64_t ldc;
  bool accumulate, bias_bf16;
  const void* bias;
  float* partial;          // split k: [splits, m, n], else null
  int split_blocks;        // k-blocks of one split
  Fault* fault;
};
using TileKernel = void (*)(TileArgs);

enum class TileSize { small, large };
constexpr int kBlockK = 64;
template <TileSize Size> struct TileShape;
template <> struct TileShape<TileSize::large> { static constexpr int m = 128, n = 192, warps_m = 2, warps_n = 4, blocks = 1; };
template <> struct TileShape<TileSize::small> { static constexpr int m = 64, n = 64, warps_m = 2, warps_n = 2, blocks = 3; };

template <TileSize Size> constexpr int tile_threads() { return TileShape<Size>::warps_m * TileShape<Size>::warps_n * kWarp; }
template <TileSize Size, Kind B> constexpr size_t tile_shared(int stages) {
  return static_cast<size_t>(stages * TileShape<Size>::m + (B == Kind::bf16 ? stages : 2) * TileShape<Size>::n) * kBlockK * 2;
}

// ---- decoding ---------------------------------------------------------------------------------------------------------------
// Sixteen weights along a memory row, as they come: 8 bytes of MXFP4 codes or 16 bytes of q8, and their scale.
template <Kind B> struct Packed;
template <> struct Packed<Kind::mxfp4> { uint2 codes; uint32_t scale; };
template <> struct Packed<Kind::q8> { uint4 codes; uint32_t scale; };

template <bool kWide> TEMPER_DEVICE void decode_mxfp4(uint32_t codes, Mxfp4Scale scale, uint32_t (&out)[4]) {
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
  const float x = static_cast<float>(static_cast<int8_t>(codes >> (8 * byte))), y = static_cast<float>(static_cast<int8_t>(codes >> (8 * byte + 8)));
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

// ---- tiles in shared memory -------------------------------------------------------------------------------------------------
// Chunks of 8 bf16. k inner: [outer][8 chunks]; k outer: [64][Outer/8 chunks]. The XOR spreads the eight rows that ldmatrix reads at once over all banks.
template <int Outer, bool KInner> TEMPER_DEVICE int chunk_at(int row, int chunk) {
  if constexpr (KInner) return row * 8 + (chunk ^ (row & 7));
  else return row * (Outer / 8) + (chunk & ~7) + ((chunk ^ row ^ (chunk >> 3)) & 7);
}

template <TileSize Size, Kind B, bool AInner, bool BInner, int Stages>
__global__ void __launch_bounds__(tile_threads<Size>(), TileShape<Size>::blocks) tile_kernel(const TileArgs args) {
  using Shape = TileShape<Size>;
  constexpr int TM = Shape::m, TN = Shape::n, Threads = tile_threads<Size>();
  constexpr int WM = TM / Shape::warps_m, WN = TN / Shape::warps_n, MTiles = WM / 16, NPairs = WN / 16;
  constexpr bool packed = B != Kind::bf16;
  constexpr int AChunks = TM * kBlockK / 8 / Threads, BChunks = TN * kBlockK / 8 / Threads, Units = TN * kBlockK / 16 / Threads;
  constexpr int ARows = AInner ? TM : kBlockK, BRows = BInner ? TN : kBlockK;  // memory rows of a tile
  constexpr int AWidth = TM * kBlockK / ARows / 8, BWidth = TN * kBlockK / BRows / 8;  // chunks of one
  TEMPER_DYNAMIC_SHARED(uint4, shared);
  uint4* const shared_a = shared;                                  // Stages tiles
  uint4* const shared_b = shared + Stages * (TM * kBlockK / 8);    // Stages tiles, or 2 decoded ones
  const Extent& x = args.extent;
  const Place place = find_place<TM, TN>(x, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int warp_row = warp % Shape::warps_m * WM, warp_col = warp / Shape::warps_m * WN;
  const int low_blocks = (args.low_k + kBlockK - 1) / kBlockK;
  const int all_blocks = low_blocks + (place.k_end - place.k_begin + kBlockK - 1) / kBlockK;
  const int first = args.partial ? static_cast<int>(blockIdx.y) * args.split_blocks : 0;
  const int last = args.partial && first + args.split_blocks < all_blocks ? first + args.split_blocks : all_blocks;

  // A's memory rows of this thread's chunks; −1: none. k outer: known only block by block.
  int a_row[AInner ? AChunks : 1];
  if constexpr (AInner)
#pragma unroll
    for (int j = 0; j < AChunks; ++j) {
      const int r = thread / 8 + j * (Threads / 8), at = place.row + r;
      a_row[j] = r >= place.rows ? -1 : args.a.index ? static_cast<int>(checked_index(args.fault, x.op, args.a.index_name, at, args.a.index[at], args.a.count)) : at;
    }

  // Memory row of logical k-row `at`, and the chunk's first column, of an operand whose k runs across rows.
  const auto k_row = [&](const TileOperand& o, int at) -> int64_t {
    return o.index ? checked_index(args.fault, x.op, o.index_name, at, o.index[at], o.count) : static_cast<int64_t>(place.group) * o.group_rows + at;
  };
  const auto load_a = [&](int block, int slot) {
    const bool low = block < low_blocks;
    const TileOperand& o = low ? args.low_a : args.a;
    const int k0 = low ? block * kBlockK : place.k_begin + (block - low_blocks) * kBlockK, k_end = low ? args.low_k : place.k_end;
    const uint16_t* data = static_cast<const uint16_t*>(o.data);
    uint4* tile = shared_a + slot * (TM * kBlockK / 8);
#pragma unroll
    for (int j = 0; j < AChunks; ++j) {
      const int row = thread / AWidth + j * (Threads / AWidth), chunk = thread % AWidth;
      bool valid;
      int64_t from = 0;
      if constexpr (AInner) {
        valid = a_row[j] >= 0 && k0 + chunk * 8 < k_end;
        from = static_cast<int64_t>(low ? place.row + row : a_row[j]) * o.ld + k0 + chunk * 8;
      } else {
        valid = k0 + row < k_end && place.row + chunk * 8 < x.m;
        if (valid) from = k_row(o, k0 + row) * o.ld + place.row + chunk * 8;
      }
      cp_async16(tile + chunk_at<TM, AInner>(row, chunk), data + (valid ? from : 0), valid);
    }
  };
  // B as bf16: the main operand, or the low-rank one of a packed product (then with plain loads, into a decoded tile).
  const auto b_chunk = [&](int block, int row, int chunk, bool& valid) -> const uint16_t* {
    const bool low = block < low_blocks;
    const TileOperand& o = low ? args.low_b : args.b;
    const int k0 = low ? block * kBlockK : place.k_begin + (block - low_blocks) * kBlockK, k_end = low ? args.low_k : place.k_end;
    int64_t from = 0;
    if constexpr (BInner) {
      valid = place.col + row < x.n && k0 + chunk * 8 < k_end;
      from = (static_cast<int64_t>(place.group) * o.group_rows + place.col + row) * o.ld + k0 + chunk * 8;
    } else {
      valid = k0 + row < k_end && place.col + chunk * 8 < x.n;
      if (valid) from = k_row(o, k0 + row) * o.ld + place.col + chunk * 8;
    }
    return static_cast<const uint16_t*>(o.data) + (valid ? from : 0);
  };
  const auto load_b = [&](int block, int slot) {
    uint4* tile = shared_b + slot * (TN * kBlockK / 8);
#pragma unroll
    for (int j = 0; j < BChunks; ++j) {
      const int at = thread + j * Threads, row = at / BWidth, chunk = at % BWidth;
      bool valid;
      const uint16_t* from = b_chunk(block, row, chunk, valid);
      cp_async16(tile + chunk_at<TN, BInner>(row, chunk), from, valid);
    }
  };

  constexpr int PackedUnits = packed ? Units : 1;
  Packed<packed ? B : Kind::mxfp4> units[PackedUnits];
  // Unit j of this thread of main block `block`, into registers.
  const auto fetch = [&](int block, int j) {
    if constexpr (packed) {
      const int at = thread + j * Threads, row = at / (BWidth / 2), column = at % (BWidth / 2) * 16;
      const int k0 = (block - low_blocks) * kBlockK;
      units[j] = {};
      const bool valid = block >= low_blocks && block < last && (BInner ? place.col + row < x.n && k0 + column < x.k : k0 + row < x.k && place.col + column < x.n);
      if (valid) units[j] = fetch_packed(args.b, static_cast<int64_t>(place.group) * args.b.group_rows + (BInner ? place.col : k0) + row, (BInner ? k0 : place.col) + column, units[j]);
    }
  };
  const auto unpack = [&](int block, int j) {
    if constexpr (packed) {
      uint4* tile = shared_b + (block & 1) * (TN * kBlockK / 8);
      const int at = thread + j * Threads, row = at / (BWidth / 2), chunk = at % (BWidth / 2) * 2;
      uint4* to[2] = {tile + chunk_at<TN, BInner>(row, chunk), tile + chunk_at<TN, BInner>(row, chunk + 1)};
      if (block < low_blocks) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          bool valid;
          const uint16_t* from = b_chunk(block, row, chunk + i, valid);
          *to[i] = valid ? load_as<uint4>(from) : make_uint4(0, 0, 0, 0);
        }
        return;
      }
      uint32_t low[4], high[4];
      decode(units[j], low, high);
      *to[0] = make_uint4(low[0], low[1], low[2], low[3]);
      *to[1] = make_uint4(high[0], high[1], high[2], high[3]);
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
      else ldmatrix_x4_transposed(a[i], tile_a + chunk_at<TM, false>(kk * 16 + lane % 8 + lane / 16 * 8, outer / 8 + lane / 8 % 2));
    }
#pragma unroll
    for (int i = 0; i < NPairs; ++i) {
      const int outer = warp_col + i * 16;
      if constexpr (BInner) ldmatrix_x4(b[i], tile_b + chunk_at<TN, true>(outer + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
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

  // ---- the loop: block i's tiles are complete at the barrier, the slot freed by block i−1 is refilled, block i+1 is decoded between the steps ----
#pragma unroll
  for (int s = 0; s < Stages - 1; ++s) {
    if (first + s < last) {
      load_a(first + s, s);
      if constexpr (!packed) load_b(first + s, s);
    }
    cp_async_commit();
  }
  if constexpr (packed)
#pragma unroll
    for (int j = 0; j < Units; ++j) {
      fetch(first, j);
      if (first < last) unpack(first, j);
      fetch(first + 1, j);
    }
  int slot = 0, refill = Stages - 1;
  for (int block = first; block < last; ++block) {
    cp_async_wait<Stages - 2>();
    __syncthreads();
    if (block + Stages - 1 < last) {
      load_a(block + Stages - 1, refill);
      if constexpr (!packed) load_b(block + Stages - 1, refill);
    }
    cp_async_commit();
    const uint4* tile_a = shared_a + slot * (TM * kBlockK / 8);
    const uint4* tile_b = shared_b + (packed ? block & 1 : slot) * (TN * kBlockK / 8);
    const int deep = block < low_blocks ? args.low_k - block * kBlockK : place.k_end - place.k_begin - (block - low_blocks) * kBlockK;
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
          for (int v = 0; v < 4; ++v) {
            acc[i][j][v] *= args.low_alpha;
            if (args.low_mask.limit) {
              const int row = place.row + warp_row + i * 16 + lane / 4 + v / 2 * 8, col = place.col + warp_col + j * 8 + lane % 4 * 2 + v % 2;
              acc[i][j][v] *= dropout_factor(args.low_mask, static_cast<int64_t>(row) * x.n + col);
            }
          }
    }
  }

  // ---- result ----
  if (!busy) return;
  float* c = args.partial ? args.partial + static_cast<int64_t>(blockIdx.y) * x.m * x.n : args.c + (x.ragged == Ragged::k ? static_cast<int64_t>(place.group) * x.m * args.ldc : 0);
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
        bias[v] = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col + v]) : static_cast<const float*>(args.bias)[bias_at + col + v];
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

template <TileSize Size, Kind B, bool AInner, bool BInner, int Stages> TileChoice tile_choice() {
  return {tile_kernel<Size, B, AInner, BInner, Stages>, tile_shared<Size, B>(Stages), tile_threads<Size>()};
}

}  // namespace temper::cuda
