// c = A·Bᵀ with at most 64 columns: x·Aᵀ and g·B of a LoRA pair, dense and of experts, and the router. Bound by the
// bytes of A, so they are read once, into registers, as the staged copy lies: a lane takes 16 bytes of a row, which are
// pairs of k for two steps of mma.m16n8k16, and B is read in the same order of k. No shared memory but for the sums.
//
// A block has 32 or 64 rows and all columns; its 8 warps share k, every eighth 64 of it each, and their sums are added
// in order. So a row has the same bits in both sizes and whatever rows are beside it.
//   h of gpt-oss's q_proj, 4,096 tokens: 128 blocks, 24 MB of x out of L2 and half as many of A. Of gate_up's experts:
//   94 MB of gathered x; dy·B of gate_up: 189 MB, 48 µs at 3.9 TB/s.
#include "cuda/matmul/matmul_place.cuh"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

constexpr int kWarps = 8, kNarrowThreads = kWarps * kWarp, kMostColumns = 64;

struct NarrowArgs {
  Extent extent;
  const uint16_t* a;
  int64_t lda;
  const int32_t* index;
  FaultName index_name;
  int64_t count;
  const void* b;  // k inner: bf16, else f32
  int64_t ldb, group_rows;
  bool vectors;  // k across rows: those of B begin where 2 or 4 columns can be read at once
  float alpha;
  float* c;
  int64_t ldc;
  bool accumulate, bias_bf16;
  const void* bias;
  uint16_t* copy;  // of c, as Staging would make it; may be null
  int copy_ld;
  Fault* fault;
};

// Columns N·g … N·g + N − 1 of a row of B, zeros from column `n` on.
template <int N>
TEMPER_DEVICE void load_columns(float (&to)[N], const float* row, int column, int n, bool vectors) {
  constexpr int W = N < 4 ? N : 4;
  if (vectors && column + N <= n) {
#pragma unroll
    for (int i = 0; i < N; i += W) {
      const Floats<W> some = load<W>(row + column + i);
#pragma unroll
      for (int j = 0; j < W; ++j) to[i + j] = some.v[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = column + i < n ? row[column + i] : 0.0f;
  }
}

// MT tiles of 16 rows, NT tiles of 8 columns: lane g of tile j stands for column NT·g + j.
template <int MT, int NT, bool Inner>
__global__ void __launch_bounds__(kNarrowThreads, MT == 2 && NT <= 2 ? 2 : 1) narrow_kernel(const NarrowArgs args) {
  wait_for_previous();
  constexpr int kRows = MT * 16, kColumns = NT * 8;
  TEMPER_DYNAMIC_SHARED(float, parts);  // [kWarps][kRows][kColumns]
  const Extent& x = args.extent;
  const Place place = find_place<kRows, kMostColumns>(x, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, g = thread % kWarp / 4, t = thread % 4;

  const uint16_t* rows[2 * MT];
#pragma unroll
  for (int i = 0; i < 2 * MT; ++i) {
    const int at = place.row + i * 8 + g;
    rows[i] = nullptr;
    if (i * 8 + g < place.rows)
      rows[i] = args.a +
                (args.index ? checked_index(args.fault, x.op, args.index_name, at, args.index[at], args.count) : at) *
                    args.lda;
  }
  const int64_t first = static_cast<int64_t>(place.group) * args.group_rows;

  float acc[MT][NT][4] = {};
  for (int unit = warp * 64; unit < x.k; unit += kWarps * 64) {
    uint4 a[2][2 * MT];
    uint32_t b[2][NT][4];  // of 8 k at lane t: pairs
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = unit + half * 32 + t * 8;
#pragma unroll
      for (int i = 0; i < 2 * MT; ++i)
        a[half][i] = rows[i] && k < x.k ? load_as<uint4>(rows[i] + k) : make_uint4(0, 0, 0, 0);
      if constexpr (Inner) {
#pragma unroll
        for (int j = 0; j < NT; ++j) {
          const int column = NT * g + j;
          uint4 v = make_uint4(0, 0, 0, 0);
          if (column < x.n && k < x.k)
            v = load_as<uint4>(static_cast<const uint16_t*>(args.b) + (first + column) * args.ldb + k);
          b[half][j][0] = v.x, b[half][j][1] = v.y, b[half][j][2] = v.z, b[half][j][3] = v.w;
        }
      } else {
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          float low[NT], high[NT];
          const int row = k + 2 * pair;
          const float* from = static_cast<const float*>(args.b) + (first + row) * args.ldb;
          load_columns<NT>(low, from, NT * g, row < x.k ? x.n : 0, args.vectors);
          load_columns<NT>(high, from + args.ldb, NT * g, row + 1 < x.k ? x.n : 0, args.vectors);
#pragma unroll
          for (int j = 0; j < NT; ++j) b[half][j][pair] = pack_bf16(low[j], high[j]);
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < MT; ++i) {
        const uint4 &upper = a[half][2 * i], &lower = a[half][2 * i + 1];
        const uint32_t one[4] = {upper.x, lower.x, upper.y, lower.y}, two[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
        for (int j = 0; j < NT; ++j) {
          const uint32_t (&pairs)[4] = b[half][j];
          mma_bf16(acc[i][j], one, {pairs[0], pairs[1]});
          mma_bf16(acc[i][j], two, {pairs[2], pairs[3]});
        }
      }
  }

#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int v = 0; v < 2; ++v)
#pragma unroll
        for (int j = 0; j < NT; ++j)
          parts[(warp * kRows + i * 16 + h * 8 + g) * kColumns + NT * (2 * t + v) + j] = acc[i][j][2 * h + v];
  __syncthreads();
  const int64_t bias_at = x.ragged == Ragged::rows ? static_cast<int64_t>(place.group) * x.n : 0;
  for (int at = thread; at < kRows * kColumns; at += kNarrowThreads) {
    const int row = at / kColumns, column = at % kColumns;
    if (row >= place.rows) break;
    float sum = parts[at];
    for (int w = 1; w < kWarps; ++w) sum += parts[w * kRows * kColumns + at];
    const int64_t to = static_cast<int64_t>(place.row) + row;
    float value = 0;
    if (column < x.n) {
      float base = 0;
      if (args.accumulate) base = args.c[to * args.ldc + column];
      else if (args.bias)
        base = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + column])
                              : static_cast<const float*>(args.bias)[bias_at + column];
      value = fused(args.alpha, sum, base);
      args.c[to * args.ldc + column] = value;
    }
    if (args.copy && column < args.copy_ld) args.copy[to * args.copy_ld + column] = float_to_bf16(value);
  }
}

template <int MT, int NT>
void start(const Product& p, const NarrowArgs& args) {
  launch(p.main.b.k_inner ? narrow_kernel<MT, NT, true> : narrow_kernel<MT, NT, false>,
         dim3(static_cast<unsigned>(tile_bound(p, MT * 16, kMostColumns))), dim3(kNarrowThreads),
         sizeof(float) * kWarps * MT * 16 * NT * 8, args);
}

}  // namespace

bool multiply_narrow(const Product& p, Staging& staging) {
  const Source& b = p.main.b;
  if (p.n > kMostColumns || p.n < 1 || p.m < 1 || p.main.k < 1 || p.ragged == Ragged::k || p.low_rank.k ||
      !p.main.a.k_inner || b.index || b.row_scale || b.mask.limit || (b.kind != Kind::f32 && b.kind != Kind::bf16) ||
      (b.kind == Kind::bf16 && !b.k_inner))
    return false;
  const int tiles = static_cast<int>(blocks_for(p.n, 8)), columns = tiles <= 2 ? tiles : tiles <= 4 ? 4 : 8;
  const Source a = staging.bf16(p.main.a, p.main.k, p.m, true, p.op),
               staged = b.k_inner ? staging.bf16(b, p.main.k, p.n, true, p.op) : b;
  const int step = columns < 4 ? columns : 4;
  const NarrowArgs args{
      .extent = extent_of(p),
      .a = static_cast<const uint16_t*>(a.data),
      .lda = a.ld,
      .index = a.index,
      .index_name = a.index_name,
      .count = a.count,
      .b = staged.data,
      .ldb = staged.ld,
      .group_rows = staged.group_rows,
      .vectors = b.ld % step == 0 && reinterpret_cast<uintptr_t>(b.data) % (4 * static_cast<size_t>(step)) == 0,
      .alpha = p.main.alpha,
      .c = p.c,
      .ldc = p.ldc,
      .accumulate = p.accumulate,
      .bias_bf16 = p.bias_kind == Kind::bf16,
      .bias = p.bias,
      .copy = p.staged ? staging.room({.data = p.c, .ld = p.ldc, .count = p.m}, p.n) : nullptr,
      .copy_ld = static_cast<int>(blocks_for(p.n, 8) * 8),
      .fault = device().fault};
  const bool tall = tile_bound(p, 64, kMostColumns) >= device().multiprocessors;
  switch (columns) {
    case 1: tall ? start<4, 1>(p, args) : start<2, 1>(p, args); break;
    case 2: tall ? start<4, 2>(p, args) : start<2, 2>(p, args); break;
    case 4: start<2, 4>(p, args); break;
    default: start<2, 8>(p, args); break;
  }
  return true;
}

}  // namespace temper::gpu
