// The product at precision 0: f32 multiply-adds on CUDA cores, any operand read element by element. 64×64 tiles, 256
// threads of 4×4 sums, k in steps of
// 16. Every element is summed in the order of k in f32. Made to be right on any device and layout; training runs at
// precision 1.
#include "cuda/matmul/matmul_place.cuh"
#include "gpu/dropout.cuh"

namespace temper::gpu {
namespace {

constexpr int kTile = 64, kDeep = 16, kThreads = 256, kPerThread = 4;

struct ExactArgs {
  Extent extent;
  Source a, b, low_a, low_b;
  int low_k;
  float alpha, low_alpha;
  DropoutMask low_mask;
  float* c;
  int64_t ldc;
  bool accumulate, bias_bf16;
  const void* bias;
  Fault* fault;
};

// 2^(s−127); s = 0 is the subnormal 2^−127, 255 the format's NaN.
TEMPER_DEVICE float scale_value(uint32_t s) {
  return bits_to_float(s == 255 ? 0x7fc00000u : s ? s << 23 : 0x00400000u);
}
// The code's bits where f32 has them are its value times 2^−126.
TEMPER_DEVICE float code_value(uint32_t code) {
  return bits_to_float((code & 8u) << 28 | (code & 7u) << 22) * bits_to_float(253u << 23);
}

// Element `column` of logical row `row` of a group.
TEMPER_DEVICE float element(const Source& s, int group, int64_t row, int64_t column, const FaultName& op,
                            Fault* fault) {
  const int64_t at =
      s.index ? checked_index(fault, op, s.index_name, row, s.index[row], s.count) : group * s.group_rows + row;
  float v;
  if (s.kind == Kind::f32) {
    v = static_cast<const float*>(s.data)[at * s.ld + column];
    if (s.mask.limit) v *= dropout_factor(s.mask, at * s.ld + column);
    if (s.row_scale) v *= s.row_scale[row];
  } else if (s.kind == Kind::bf16) {
    v = bf16_to_float(static_cast<const uint16_t*>(s.data)[at * s.ld + column]);
  } else if (s.kind == Kind::q8) {
    v = static_cast<float>(static_cast<const int8_t*>(s.data)[at * s.ld + column]) *
        bf16_to_float(s.q8_scales[at * (s.ld / 32) + column / 32]);
  } else {
    const uint32_t byte = static_cast<const uint8_t*>(s.data)[at * (s.ld / 2) + column / 2];
    v = code_value(column % 2 ? byte >> 4 : byte & 15u) * scale_value(s.scales[at * (s.ld / 32) + column / 32]);
  }
  return v;
}

__global__ void __launch_bounds__(kThreads) exact_kernel(const ExactArgs args) {
  wait_for_previous();
  __shared__ float tile_a[kDeep][kTile + 1], tile_b[kDeep][kTile + 1];
  const Extent& x = args.extent;
  const Place place = find_place<kTile, kTile>(x, static_cast<int>(blockIdx.x), args.fault);
  if (!place.work) return;
  // rows row0 + 16i, columns col0 + 16j
  const int thread = static_cast<int>(threadIdx.x), row0 = thread / 16, col0 = thread % 16;
  float sum[kPerThread][kPerThread] = {};
  // dst[k][outer] from outer indices [first, first + outs) and k in [k0, k_end).
  const auto load = [&](float (*dst)[kTile + 1], const Source& s, int first, int outs, int k0, int k_end) {
    for (int i = 0; i < kTile * kDeep / kThreads; ++i) {
      const int at = thread + i * kThreads;
      // neighbours in memory to neighbouring threads
      const int outer = s.k_inner ? at / kDeep : at % kTile, k = s.k_inner ? at % kDeep : at / kTile;
      const bool valid = outer < outs && k0 + k < k_end;
      dst[k][outer] = !valid      ? 0.0f
                      : s.k_inner ? element(s, place.group, first + outer, k0 + k, x.op, args.fault)
                                  : element(s, place.group, k0 + k, first + outer, x.op, args.fault);
    }
  };
  const auto term = [&](const Source& a, const Source& b, int k_begin, int k_end) {
    for (int k0 = k_begin; k0 < k_end; k0 += kDeep) {
      __syncthreads();
      load(tile_a, a, place.row, place.rows, k0, k_end);
      load(tile_b, b, place.col, x.n - place.col, k0, k_end);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDeep; ++k) {
        float left[kPerThread], right[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) left[i] = tile_a[k][row0 + 16 * i], right[i] = tile_b[k][col0 + 16 * i];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i)
#pragma unroll
          for (int j = 0; j < kPerThread; ++j) sum[i][j] = fused(left[i], right[j], sum[i][j]);
      }
    }
  };
  if (args.low_k) {
    term(args.low_a, args.low_b, 0, args.low_k);
    for (int i = 0; i < kPerThread; ++i)
      for (int j = 0; j < kPerThread; ++j) {
        sum[i][j] *= args.low_alpha;
        if (args.low_mask.limit)
          sum[i][j] *= dropout_factor(
              args.low_mask, static_cast<int64_t>(place.row + row0 + 16 * i) * x.n + place.col + col0 + 16 * j);
      }
  }
  term(args.a, args.b, place.k_begin, place.k_end);
  float* c = args.c + (x.ragged == Ragged::k ? static_cast<int64_t>(place.group) * x.m * args.ldc : 0);
  const int64_t bias_at = x.ragged == Ragged::rows ? static_cast<int64_t>(place.group) * x.n : 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i)
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const int r = row0 + 16 * i, col = place.col + col0 + 16 * j;
      if (r >= place.rows || col >= x.n) continue;
      float* to = c + (static_cast<int64_t>(place.row) + r) * args.ldc + col;
      float base = 0;
      if (args.accumulate) base = *to;
      else if (args.bias)
        base = args.bias_bf16 ? bf16_to_float(static_cast<const uint16_t*>(args.bias)[bias_at + col])
                              : static_cast<const float*>(args.bias)[bias_at + col];
      *to = fused(args.alpha, sum[i][j], base);
    }
}

}  // namespace

void multiply_exact(const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  const ExactArgs args{extent_of(p),
                       p.main.a,
                       p.main.b,
                       p.low_rank.a,
                       p.low_rank.b,
                       static_cast<int>(p.low_rank.k),
                       p.main.alpha,
                       p.low_rank.alpha,
                       p.low_rank_mask,
                       p.c,
                       p.ldc,
                       p.accumulate,
                       p.bias_kind == Kind::bf16,
                       p.bias,
                       device().fault};
  launch(exact_kernel, dim3(static_cast<unsigned>(tile_bound(p, kTile, kTile))), dim3(kThreads), 0, args);
}

}  // namespace temper::gpu
