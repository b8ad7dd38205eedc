// c[e] += α·aᵀ·b over the rows of expert e, or over all rows, where one of a and b has at most 64 columns: dA and dB of
// a LoRA pair. Bound by the bytes of the wide one, so they are read once, 128 bytes of a row at a time.
//
// mma.m16n8k16 contracts over pairs of rows, while memory has pairs of columns: a lane takes 8 columns of four rows,
// and a byte permute of two rows makes the pairs. Lane (g, t) of a step of 16 rows has rows 4t … 4t + 3 and columns 8g
// … 8g + 7; column 8g + j is column g of the instruction's tile j. The narrow one is the first operand, read as f32,
// scaled and rounded on the way.
//
// A block has 128 wide columns (64 beside more than 16 narrow ones) and a stretch of the rows; its four warps take
// every fourth step and are added in order. Experts have one block for all their rows, so nothing is added later; a
// plain product is cut into parts by its shape alone, which are added in order.
//   gate_up's experts, 4,096 tokens: dB reads 189 MB (48 µs at 3.9 TB/s), dA 94 MB. q_proj: dA 24 MB, 368 blocks.
#include "cuda/matmul/matmul_place.cuh"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

constexpr int kWarps = 4, kGradientThreads = kWarps * kWarp, kStep = 16, kMostColumns = 64, kPad = 4;
constexpr int64_t kPartRows = 256, kMostParts = 32;

struct GradientArgs {
  Extent extent;      // k: rows
  bool narrow_first;  // c is [narrow, wide]
  int narrow_n, wide_n;
  const float* narrow;
  int64_t narrow_ld;
  const float* row_scale;
  const uint16_t* wide;
  int64_t wide_ld;
  const int32_t* index;
  FaultName index_name;
  int64_t count;
  float alpha;
  float* c;
  int64_t ldc;
  float* parts;  // [parts, m, n], or null
  int part_rows;
  Fault* fault;
};

template <int MT, int Chunks>
constexpr int kSums = MT * 16 * (Chunks * 64 + kPad);

// MT tiles of 16 narrow columns, Chunks times 64 wide ones. blockIdx: tile of wide columns, expert or part.
template <int MT, int Chunks>
__global__ void __launch_bounds__(kGradientThreads) gradient_kernel(const GradientArgs args) {
  wait_for_previous();
  constexpr int kWide = Chunks * 64, kRow = kWide + kPad;
  TEMPER_DYNAMIC_SHARED(float, sums);  // [kWarps][MT·16][kRow]
  const Extent& x = args.extent;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, g = thread % kWarp / 4, t = thread % 4;
  const int group = static_cast<int>(blockIdx.y), column = static_cast<int>(blockIdx.x) * kWide;
  int begin = 0, end = x.k;
  if (x.ragged == Ragged::k) {
    if (blockIdx.x == 0 && group == 0) check_offsets(x, x.k, thread, kGradientThreads, args.fault);
    begin = offset_at(x, group, x.k, 0);
    end = offset_at(x, group + 1, x.k, begin);
    if (begin == end) return;  // c stays as it is
  } else if (args.parts) {
    begin = group * args.part_rows;
    end = end - begin < args.part_rows ? end : begin + args.part_rows;
  }
  const auto line_of = [&](int row) -> const uint16_t* {
    if (row >= end) return nullptr;
    return args.wide +
           (args.index ? checked_index(args.fault, x.op, args.index_name, row, args.index[row], args.count) : row) *
               args.wide_ld;
  };

  float acc[MT][Chunks * 8][4] = {};
  const uint16_t* line[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) line[i] = line_of(begin + warp * kStep + 4 * t + i);
  for (int step = begin + warp * kStep; step < end; step += kWarps * kStep) {
    uint4 wide[Chunks][4];
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = column + c * 64 + g * 8;
        wide[c][i] = line[i] && at < args.wide_n ? load_as<uint4>(line[i] + at) : make_uint4(0, 0, 0, 0);
      }
    float narrow[MT][2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = step + 4 * t + i;
      const float* from = args.narrow + row * args.narrow_ld;
      const float scale = row < end && args.row_scale ? args.row_scale[row] : 1.0f;
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int at = m * 16 + h * 8 + g;
          narrow[m][h][i] = row < end && at < args.narrow_n ? from[at] * scale : 0.0f;
        }
    }
    // of the next step, so that its rows are known when their turn comes
#pragma unroll
    for (int i = 0; i < 4; ++i) line[i] = line_of(step + kWarps * kStep + 4 * t + i);
    uint32_t a[MT][4];
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        a[m][h] = pack_bf16(narrow[m][h][0], narrow[m][h][1]);
        a[m][2 + h] = pack_bf16(narrow[m][h][2], narrow[m][h][3]);
      }
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
      const auto words = [&](int word, const uint4& v) {
        return word == 0 ? v.x : word == 1 ? v.y : word == 2 ? v.z : v.w;
      };
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const unsigned half = j % 2 ? 0x7632 : 0x5410;
        const uint32_t pair[2] = {__byte_perm(words(j / 2, wide[c][0]), words(j / 2, wide[c][1]), half),
                                  __byte_perm(words(j / 2, wide[c][2]), words(j / 2, wide[c][3]), half)};
#pragma unroll
        for (int m = 0; m < MT; ++m) mma_bf16(acc[m][c * 8 + j], a[m], pair);
      }
    }
  }

#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          float* to = sums + ((warp * MT + m) * 16 + h * 8 + g) * kRow + c * 64 + (2 * t + v) * 8;
#pragma unroll
          for (int j = 0; j < 8; j += 4)
            store_as(to + j, make_float4(acc[m][c * 8 + j][2 * h + v], acc[m][c * 8 + j + 1][2 * h + v],
                                         acc[m][c * 8 + j + 2][2 * h + v], acc[m][c * 8 + j + 3][2 * h + v]));
        }
  __syncthreads();
  const int left = args.wide_n - column, width = left < kWide ? left : kWide;
  for (int at = thread; at < args.narrow_n * width; at += kGradientThreads) {  // neighbours in c to neighbours
    const int n = args.narrow_first ? at / width : at % args.narrow_n,
              w = args.narrow_first ? at % width : at / args.narrow_n;
    float sum = sums[n * kRow + w];
    for (int i = 1; i < kWarps; ++i) sum += sums[i * kSums<MT, Chunks> + n * kRow + w];
    const int64_t row = args.narrow_first ? n : column + w, across = args.narrow_first ? column + w : n;
    if (args.parts) {
      args.parts[(group * int64_t{x.m} + row) * x.n + across] = sum;
    } else {
      float* to = args.c + (group * int64_t{x.m} + row) * args.ldc + across;
      *to = fused(args.alpha, sum, *to);
    }
  }
}

struct PartSums {
  const float* parts;
  int count;     // of parts
  int64_t size;  // m·n
  int n;
  float alpha;
  float* c;
  int64_t ldc;
};
__global__ void __launch_bounds__(kThreads) add_gradient_parts(const PartSums p) {
  wait_for_previous();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.size) return;
  float sum = p.parts[at];
  for (int i = 1; i < p.count; ++i) sum += p.parts[i * p.size + at];
  float* to = p.c + at / p.n * p.ldc + at % p.n;
  *to = fused(p.alpha, sum, *to);
}

template <int MT, int Chunks>
void start(const GradientArgs& args, unsigned second) {
  launch(gradient_kernel<MT, Chunks>, dim3(static_cast<unsigned>(blocks_for(args.wide_n, Chunks * 64)), second),
         dim3(kGradientThreads), sizeof(float) * kWarps * kSums<MT, Chunks>, args);
}

}  // namespace

bool multiply_narrow_gradient(const Product& p, Staging& staging) {
  if (p.main.a.k_inner || p.main.b.k_inner || p.ragged == Ragged::rows || !p.accumulate || p.low_rank.k || p.m < 1 ||
      p.n < 1 || p.main.k < 1)
    return false;
  const bool first = p.m <= p.n;
  const Source &narrow = first ? p.main.a : p.main.b, &wide = first ? p.main.b : p.main.a;
  const int64_t n = first ? p.m : p.n, width = first ? p.n : p.m;
  const auto activation = [](Kind kind) { return kind == Kind::f32 || kind == Kind::bf16; };
  if (n > kMostColumns || !activation(narrow.kind) || narrow.index || narrow.mask.limit || wide.interleaved ||
      !activation(wide.kind) || p.groups > 65535)
    return false;
  const Source factor = staging.f32(narrow, n);
  const Source staged = staging.bf16(wide, width, p.main.k, false, p.op);
  GradientArgs args{.extent = extent_of(p),
                    .narrow_first = first,
                    .narrow_n = static_cast<int>(n),
                    .wide_n = static_cast<int>(width),
                    .narrow = static_cast<const float*>(factor.data),
                    .narrow_ld = factor.ld,
                    .row_scale = factor.row_scale,
                    .wide = static_cast<const uint16_t*>(staged.data),
                    .wide_ld = staged.ld,
                    .index = staged.index,
                    .index_name = staged.index_name,
                    .count = staged.count,
                    .alpha = p.main.alpha,
                    .c = p.c,
                    .ldc = p.ldc,
                    .parts = nullptr,
                    .part_rows = 0,
                    .fault = device().fault};
  // the cut decides bits, so it depends on shapes alone
  const int64_t most = blocks_for(p.main.k, kPartRows),
                part = blocks_for(blocks_for(p.main.k, most < kMostParts ? most : kMostParts), kWarps * kStep) *
                       kWarps * kStep,
                parts = p.ragged == Ragged::k ? 1 : blocks_for(p.main.k, part);
  const Workspace<float> memory(parts > 1 ? static_cast<size_t>(parts * p.m * p.n) : 0);
  args.parts = memory.data();
  args.part_rows = static_cast<int>(part);
  const unsigned second = static_cast<unsigned>(p.ragged == Ragged::k ? p.groups : parts);
  if (n <= 16) start<1, 2>(args, second);
  else if (n <= 32) start<2, 1>(args, second);
  else start<4, 1>(args, second);
  if (parts > 1)
    launch(
        add_gradient_parts, dim3(static_cast<unsigned>(blocks_for(p.m * p.n, kThreads))), dim3(kThreads), 0,
        PartSums{memory.data(), static_cast<int>(parts), p.m * p.n, static_cast<int>(p.n), p.main.alpha, p.c, p.ldc});
  return true;
}

}  // namespace temper::gpu
