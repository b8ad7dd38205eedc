// A LoRA pair merged into its weights: contracts of mxfp4_merge and lora_merge, the bits those of the CPU. A thread
// makes eight inputs of four outputs, so that a value of A is used four times and one of B eight times; four threads
// share a group of 32. Bytes for each weight: 0.53 read and written; A comes from the caches. Per weight at rank 16:
// 16 multiply-adds and about 40 other instructions.
#include "gpu/mxfp4.cuh"
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {
namespace {

constexpr int kEach = 8, kOutputs = workspace::kMergeOutputs;  // inputs and outputs to a thread
constexpr int64_t kGroup = 32, kLanes = kGroup / kEach;
constexpr uint32_t kInfinity = 0x7f800000u;

struct Merge {
  uint8_t *blocks, *scales;
  double* parts;  // [E, blocks of the grid, 2], or null
  const uint8_t *base, *base_scales;
  const float *A, *B;
  float scale;
  int64_t N, G, R;
  Fault* fault;
};

// Over the four lanes of a group; every lane gets the result.
TEMPER_DEVICE uint32_t group_max(uint32_t x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}
TEMPER_DEVICE double group_sum(double x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Squared error of |W| under 2^(low−127) less that under the next, exactly (derived in cpu/ops/lora_merge.cpp).
TEMPER_DEVICE double gain_of(const float (&w)[kEach], uint32_t low) {
  const float inverse = bits_to_float((254 - low) << 23);
  double gain = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const float v = fabsf(w[k]) * inverse;
    const float half = 0.25f - fabsf(v - 0.5f), one = 0.25f - fabsf(v - 1.5f), over = v - 7.0f;
    const float lost = half > one ? half : one;
    gain += static_cast<double>((over > 0 ? 4.0f * over : 0.0f) - (lost > 0 ? lost : 0.0f));
  }
  return gain;
}
TEMPER_DEVICE uint32_t encode(const float (&w)[kEach], uint32_t exponent) {
  const float inverse = bits_to_float((254 - exponent) << 23);
  uint32_t codes = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const float v = w[k], a = fabsf(v * inverse);
    const uint32_t sign = v < 0 ? 8u : 0u;
    const uint32_t c = (a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f) + (a > 2.5f) + (a > 3.5f) + (a > 5.0f);
    codes |= (c ? c | sign : 0u) << (4 * k);
  }
  return codes;
}

template <bool Wide>
__global__ void __launch_bounds__(kThreads) mxfp4_merge_kernel(Merge m) {
  wait_for_previous();
  const int64_t e = blockIdx.y, eights = m.G * kLanes, tiles = (m.N + kOutputs - 1) / kOutputs;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool active = i < tiles * eights;  // of a group's lanes all or none
  const int64_t first = active ? i / eights * kOutputs : 0, c = active ? i % eights : 0;
  float sum[kOutputs][kEach];
#pragma unroll
  for (int j = 0; j < kOutputs; ++j)
#pragma unroll
    for (int k = 0; k < kEach; ++k) sum[j][k] = 0;
  for (int64_t r = 0; active && r < m.R; ++r) {
    const float* from = m.A + (e * m.R + r) * m.G * kGroup + c * kEach;
    float a[kEach];
    constexpr int W = Wide ? 4 : 1;
#pragma unroll
    for (int k = 0; k < kEach; k += W) {
      const Floats<W> x = load<W>(from + k);
#pragma unroll
      for (int l = 0; l < W; ++l) a[k + l] = x.v[l];
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
      if (first + j >= m.N) continue;
      const float b = m.B[(e * m.N + first + j) * m.R + r];
#pragma unroll
      for (int k = 0; k < kEach; ++k) sum[j][k] = fused(b, a[k], sum[j][k]);
    }
  }
  double survived = 0, whole = 0;
  for (int j = 0; j < kOutputs; ++j) {
    const bool here = active && first + j < m.N;
    const int64_t group = here ? (e * m.N + first + j) * m.G + c / kLanes : 0, word = group * kLanes + c % kLanes;
    uint32_t codes = 0, before = 127;
    if (here) {
      if constexpr (Wide) codes = load_as<uint32_t>(m.base + 4 * word);
      else
        for (int b = 0; b < 4; ++b) codes |= static_cast<uint32_t>(m.base[4 * word + b]) << (8 * b);
      before = m.base_scales[group];
      if (before == 255) {
        report_fault(m.fault, FaultCode::bad_scale, "mxfp4_merge", "base_scales", group, 255, 255);
        before = 127;
      }
    }
    float old[kEach], w[kEach];
    mxfp4_values(codes, before, old);
    uint32_t peak = 0, changed = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      w[k] = fused(m.scale, sum[j][k], old[k]);
      const uint32_t bits = float_to_bits(w[k]) & 0x7fffffffu;
      peak = bits > peak ? bits : peak;
      if (w[k] != old[k]) changed = 1;
    }
    peak = group_max(peak);
    changed = group_max(changed);
    if (here && peak >= kInfinity) report_fault(m.fault, FaultCode::not_finite, "mxfp4_merge", "W", group * 32, 0, 0);
    const uint32_t low = peak >= kInfinity ? 127 : (peak >> 23) > 3 ? (peak >> 23) - 2 : 1;
    const double gain = group_sum(gain_of(w, low));
    uint32_t after = before, written = codes;
    if (changed && peak < kInfinity) {
      after = low + (gain > 0 || (gain == 0 && before == low + 1) ? 1 : 0);
      written = encode(w, after);
    }
    if (!here) continue;
    if constexpr (Wide) store_as(m.blocks + 4 * word, written);
    else
      for (int b = 0; b < 4; ++b) m.blocks[4 * word + b] = static_cast<uint8_t>(written >> (8 * b));
    if (c % kLanes == 0) m.scales[group] = static_cast<uint8_t>(after);
    if (!m.parts) continue;
    mxfp4_values(written, after, w);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const double delta = m.scale * sum[j][k];
      survived += (static_cast<double>(w[k]) - static_cast<double>(old[k])) * delta;
      whole += delta * delta;
    }
  }
  if (!m.parts) return;
  survived = block_sum<kThreads>(survived);
  whole = block_sum<kThreads>(whole);
  if (threadIdx.x != 0) return;
  double* part = m.parts + 2 * (e * gridDim.x + blockIdx.x);
  part[0] = survived;
  part[1] = whole;
}

// A block per expert.
__global__ void __launch_bounds__(kThreads) add_parts_kernel(float* kept, const double* parts, int64_t count) {
  wait_for_previous();
  double sum[2] = {0, 0};
  for (int64_t i = threadIdx.x; i < count; i += kThreads)
    for (int k = 0; k < 2; ++k) sum[k] += parts[2 * (blockIdx.x * count + i) + k];
  for (int k = 0; k < 2; ++k) {
    const double total = block_sum<kThreads>(sum[k]);
    if (threadIdx.x == 0) kept[2 * blockIdx.x + k] = static_cast<float>(total);
  }
}

// A thread makes one input of four outputs.
template <class Out, class In>
__global__ void __launch_bounds__(kThreads)
    lora_merge_kernel(Out* y, const In* w, const uint8_t* scales, const float* A, const float* B, float scale,
                      int layout, int to, int64_t N, int64_t C, int64_t R, Fault* fault) {
  wait_for_previous();
  const int64_t e = blockIdx.y, tiles = (N + kOutputs - 1) / kOutputs;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= tiles * C) return;
  const int64_t first = i / C * kOutputs, c = i % C;
  float sum[kOutputs] = {};
  for (int64_t r = 0; r < R; ++r) {
    const float a = A[(e * R + r) * C + c];
#pragma unroll
    for (int j = 0; j < kOutputs; ++j)
      if (first + j < N) sum[j] = fused(B[(e * N + first + j) * R + r], a, sum[j]);
  }
  for (int j = 0; j < kOutputs && first + j < N; ++j) {
    const int64_t by_output = (e * N + first + j) * C + c, by_input = (e * C + c) * N + first + j;
    float from;
    if constexpr (sizeof(In) == 1) {
      const uint32_t at = scales[by_output / kGroup];
      if (at == 255) report_fault(fault, FaultCode::bad_scale, "lora_merge", "scales", by_output / kGroup, 255, 255);
      const uint32_t byte = w[by_output / 2];
      float v[kEach];
      mxfp4_values(by_output % 2 ? byte >> 4 : byte, at == 255 ? 127 : at, v);
      from = v[0];
    } else {
      from = load_wf(w + (layout == 1 ? by_output : by_input));
    }
    const float out = fused(scale, sum[j], from);
    if ((float_to_bits(out) & 0x7fffffffu) >= kInfinity)
      report_fault(fault, FaultCode::not_finite, "lora_merge", "W", by_output, 0, 0);
    store<1>(y + (to == 1 ? by_output : by_input), Floats<1>{{out}});
  }
}

}  // namespace

void mxfp4_merge(TensorRef blocks, TensorRef scales, TensorRef kept, TensorRef base, TensorRef base_scales, TensorRef A,
                 TensorRef B, double scale) {
  const int64_t E = A->shape[0], N = B->shape[1], G = base_scales->shape[2], R = A->shape[1];
  const int64_t grid = workspace::merge_blocks(N, G);
  Workspace<double> parts(kept ? static_cast<size_t>(2 * E * grid) : 0);
  const Merge m{.blocks = blocks->u8(),
                .scales = scales->u8(),
                .parts = parts.data(),
                .base = base->u8(),
                .base_scales = base_scales->u8(),
                .A = A->f32(),
                .B = B->f32(),
                .scale = static_cast<float>(scale),
                .N = N,
                .G = G,
                .R = R,
                .fault = fault()};
  const dim3 shape(static_cast<unsigned>(grid), static_cast<unsigned>(E));
  if (aligned(16, {A->data}) && aligned(4, {blocks->data, base->data}))
    launch(mxfp4_merge_kernel<true>, shape, dim3(kThreads), 0, m);
  else launch(mxfp4_merge_kernel<false>, shape, dim3(kThreads), 0, m);
  if (kept)
    launch(add_parts_kernel, dim3(static_cast<unsigned>(E)), dim3(kThreads), 0, kept->f32(), parts.data(), grid);
}

void lora_merge(TensorRef y, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale, int64_t layout,
                int64_t to) {
  const int64_t E = A->shape[0], N = B->shape[1], C = A->shape[2], R = A->shape[1];
  const dim3 grid(static_cast<unsigned>(blocks_for((N + kOutputs - 1) / kOutputs * C, kThreads)),
                  static_cast<unsigned>(E));
  const auto run = [&](auto* out, const auto* in) {
    launch(
        lora_merge_kernel<std::remove_pointer_t<decltype(out)>, std::remove_cv_t<std::remove_pointer_t<decltype(in)>>>,
        grid, dim3(kThreads), 0, out, in, scales ? scales->u8() : nullptr, A->f32(), B->f32(),
        static_cast<float>(scale), static_cast<int>(layout), static_cast<int>(to), N, C, R, fault());
  };
  const auto from = [&](auto* out) {
    if (layout == 0) run(out, static_cast<const uint8_t*>(w->u8()));
    else with_wf(*w, [&](auto* in) { run(out, in); });
  };
  if (y->dtype == DType::bf16) from(y->bf16());
  else from(y->f32());
}

}  // namespace temper::gpu
