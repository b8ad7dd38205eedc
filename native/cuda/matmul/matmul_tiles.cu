// Host side of the tensor-core product: operands are staged as bf16 where they must be, a tile size and a split of k
// are chosen, partial sums are added.
#include "cuda/matmul/matmul_tiles.cuh"
#include "temper/error.h"

namespace temper::gpu {
namespace {

constexpr int64_t kSplitTiles = 128, kSplitBlocks = 16, kMaxSplits = 32, kLongBlocks = 128;

struct AddParts {
  const float* parts;
  int splits;
  int64_t count;  // m·n
  int n;
  float alpha;
  float* c;
  int64_t ldc;
  bool accumulate, bias_bf16;
  const void* bias;
};
__global__ void __launch_bounds__(kThreads) add_parts(const AddParts a) {
  wait_for_previous();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= a.count) return;
  float sum = a.parts[at];
  for (int s = 1; s < a.splits; ++s) sum += a.parts[s * a.count + at];
  const int64_t row = at / a.n, column = at - row * a.n;
  float* to = a.c + row * a.ldc + column;
  float base = 0;
  if (a.accumulate) base = *to;
  else if (a.bias)
    base = a.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(a.bias)[column])
                       : static_cast<const float*>(a.bias)[column];
  *to = fused(a.alpha, sum, base);
}

TileOperand operand(const Source& s) {
  return {s.data,
          s.kind == Kind::mxfp4 ? static_cast<const void*>(s.scales) : s.q8_scales,
          s.ld,
          s.index,
          s.index_name,
          static_cast<int>(s.count),
          static_cast<int>(s.group_rows)};
}

}  // namespace

Extent extent_of(const Product& p) {
  constexpr int64_t kLimit = INT32_MAX - 256;
  require(p.m < kLimit && p.n < kLimit && p.main.k < kLimit && p.main.a.count < kLimit && p.main.b.count < kLimit,
          "too_large", p.op, ": a product of ", p.m, "×", p.n, "×", p.main.k, ", wanted extents below 2^31");
  return {static_cast<int>(p.m),
          static_cast<int>(p.n),
          static_cast<int>(p.main.k),
          p.ragged,
          p.offsets,
          static_cast<int>(p.groups),
          p.op};
}

TileArgs tile_args(const Product& p, Staging& staging, bool low_inner) {
  const bool a_inner = p.main.a.k_inner, b_inner = p.main.b.k_inner;
  TileArgs args{};
  args.extent = extent_of(p);
  args.a = operand(staging.bf16(p.main.a, a_inner ? p.main.k : p.m, a_inner ? p.m : p.main.k, a_inner, p.op));
  args.b = operand(staging.bf16(p.main.b, b_inner ? p.main.k : p.n, b_inner ? p.n : p.main.k, b_inner, p.op));
  if (p.low_rank.k) {
    const Source a = staging.bf16(p.low_rank.a, p.low_rank.k, p.m, true, p.op);
    const Source b = staging.bf16(p.low_rank.b, p.low_rank.b.k_inner ? p.low_rank.k : p.n,
                                  p.low_rank.b.k_inner ? p.n : p.low_rank.k, low_inner, p.op);
    args.low_a = operand(a);
    args.low_b = operand(b);
    args.low_k = static_cast<int>(p.low_rank.k);
    args.low_alpha = p.low_rank.alpha;
  }
  args.alpha = p.main.alpha;
  args.c = p.c;
  args.ldc = p.ldc;
  args.accumulate = p.accumulate;
  args.bias = p.bias;
  args.bias_bf16 = p.bias_kind == Kind::bf16;
  args.activated = p.activated;
  args.fault = device().fault;
  return args;
}

void multiply_tiles(const Product& p, Staging& staging) {
  if (p.m == 0 || p.n == 0) return;
  // the hash of 96 sums a thread does not fit into the tile kernel's registers
  if (p.low_rank.k && p.low_rank_mask.limit) {
    add_low_rank(p);
    Product rest = p;
    rest.low_rank = {}, rest.bias = nullptr, rest.accumulate = true;
    return multiply_tiles(rest, staging);
  }
  const bool a_inner = p.main.a.k_inner, b_inner = p.main.b.k_inner;
  const Kind kind = p.main.b.kind == Kind::mxfp4 || p.main.b.kind == Kind::q8 ? p.main.b.kind : Kind::bf16;
  // a low-rank B that lies the other way round than the main one is turned: one loop reads both
  TileArgs args = tile_args(p, staging, b_inner);

  // How k is split decides bits, so it depends on shapes alone. A long k is split until tiles come by the hundred, so
  // that the last wave is a small part.
  const int64_t blocks = blocks_for(p.low_rank.k, kBlockK) + blocks_for(p.main.k, kBlockK),
                rows = p.ragged == Ragged::rows ? p.m / p.groups : p.m;
  const bool roomy = rows > 64 && p.n > 96;
  const int64_t small_tiles = tile_bound(p, 64, 64), large_tiles = tile_bound(p, 128, 192);
  int64_t splits = 1;
  if (p.ragged == Ragged::none) {
    const int64_t tiles = blocks >= kLongBlocks && roomy ? large_tiles : small_tiles,
                  wanted = (blocks >= kLongBlocks ? 4 : 2) * kSplitTiles;
    if (tiles < kSplitTiles) splits = blocks_for(wanted, tiles);
    if (splits > blocks / kSplitBlocks) splits = blocks / kSplitBlocks;
    splits = splits < 1 ? 1 : splits > kMaxSplits ? kMaxSplits : splits;
  }
  // The order of summation is the same in all tiles: large ones where rows fill them and they fill the device, or what
  // was measured.
  const bool fills = roomy && large_tiles * splits >= device().multiprocessors;
  const TileSize size = tile_of(p, kind, fills ? TileSize::large : TileSize::small);
  const int limit = device().shared_per_block;
  const TileChoice choice = kind == Kind::mxfp4 ? mxfp4_tiles(size, b_inner, limit)
                            : kind == Kind::q8  ? q8_tiles(size, limit)
                                                : bf16_tiles(size, a_inner, b_inner, limit);
  const int64_t tiles = tile_bound(p, extent_of_tile(size).m, extent_of_tile(size).n);
  Workspace<float> parts(splits > 1 ? static_cast<size_t>(splits * p.m * p.n) : 0);
  args.partial = parts.data();
  args.split_blocks = static_cast<int>(blocks_for(blocks, splits));
  launch(choice.kernel, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(splits)),
         dim3(static_cast<unsigned>(choice.threads)), choice.shared, args);
  if (splits == 1) return;
  const AddParts add{parts.data(), static_cast<int>(splits), p.m * p.n, static_cast<int>(p.n), p.main.alpha, p.c, p.ldc,
                     p.accumulate, args.bias_bf16,           p.bias};
  launch(add_parts, dim3(static_cast<unsigned>(blocks_for(p.m * p.n, kThreads))), dim3(kThreads), 0, add);
}

}  // namespace temper::gpu
