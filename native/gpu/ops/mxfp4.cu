// The codecs of weights, whole tensors at a time: MXFP4 (format: cpu/mxfp4.h) and 8 bits (contract: q8_quantize). Run
// when a checkpoint is loaded or written. Four threads share a group of 32: eight elements each, so that every load and
// store of a warp is contiguous; the group's peak takes two shuffles. Bytes for each element: dequantise 0.53 read, 2
// or 4 written (about 6 instructions); quantise 2 or 4 read, 0.53 or 1.06 written.
#include "gpu/mxfp4.cuh"
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

constexpr int kEach = 8;  // elements to a thread
constexpr int64_t kGroup = 32, kLanes = kGroup / kEach;
// eights to a thread in the decoder: its loads are four bytes, so several are under way
constexpr int kWords = 4;

template <bool Wide, class Out>
TEMPER_DEVICE void store_eight(Out* p, const float (&v)[kEach]) {
  if constexpr (!Wide) {
    for (int k = 0; k < kEach; ++k) store<1>(p + k, Floats<1>{{v[k]}});
  } else if constexpr (sizeof(Out) == 2) {  // exact: the low half of each f32 is zero
    uint32_t pair[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) pair[k] = (float_to_bits(v[2 * k + 1]) & 0xffff0000u) | float_to_bits(v[2 * k]) >> 16;
    store_as(p, make_uint4(pair[0], pair[1], pair[2], pair[3]));
  } else {
    store<4>(p, Floats<4>{{v[0], v[1], v[2], v[3]}});
    store<4>(p + 4, Floats<4>{{v[4], v[5], v[6], v[7]}});
  }
}

template <bool Wide, class Out>
__global__ void __launch_bounds__(kThreads)
    mxfp4_dequantize_kernel(Out* w, const uint8_t* blocks, const uint8_t* scales, int64_t words, Fault* fault) {
  wait_for_previous();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kWords + threadIdx.x;
  uint32_t codes[kWords], scale[kWords];
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    const int64_t i = first + k * kThreads;
    codes[k] = scale[k] = 0;
    if (i >= words) continue;
    if constexpr (Wide) codes[k] = load_as<uint32_t>(blocks + 4 * i);
    else
      for (int b = 0; b < 4; ++b) codes[k] |= static_cast<uint32_t>(blocks[4 * i + b]) << (8 * b);
    scale[k] = scales[i / kLanes];
  }
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    const int64_t i = first + k * kThreads;
    if (i >= words) continue;
    if (scale[k] == 255) report_fault(fault, FaultCode::bad_scale, "mxfp4_dequantize", "scales", i / kLanes, 255, 255);
    float v[kEach];
    mxfp4_values(codes[k], scale[k], v);
    store_eight<Wide>(w + i * kEach, v);
  }
}

// This thread's eight elements, and the largest magnitude of the group as bits. Lanes past the end take part with
// zeros.
template <bool Wide, class Wf>
TEMPER_DEVICE uint32_t load_group(float (&v)[kEach], const Wf* w, int64_t i, bool active) {
#pragma unroll
  for (int k = 0; k < kEach; ++k) v[k] = 0;
  if (active) {
    constexpr int W = Wide ? 4 : 1;
#pragma unroll
    for (int k = 0; k < kEach; k += W) {
      const Floats<W> x = load<W>(w + i * kEach + k);
#pragma unroll
      for (int j = 0; j < W; ++j) v[k + j] = x.v[j];
    }
  }
  uint32_t peak = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const uint32_t bits = float_to_bits(v[k]) & 0x7fffffffu;
    peak = bits > peak ? bits : peak;
  }
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, peak, step);
    peak = other > peak ? other : peak;
  }
  return peak;
}
constexpr uint32_t kInfinity = 0x7f800000u;
TEMPER_DEVICE void report_not_finite(Fault* fault, const FaultName& op, const float (&v)[kEach], int64_t first) {
  for (int k = 0; k < kEach; ++k)
    if ((float_to_bits(v[k]) & 0x7fffffffu) >= kInfinity)
      return report_fault(fault, FaultCode::not_finite, op, "w", first + k, 0, 0);
}

template <bool Wide, class Wf>
__global__ void __launch_bounds__(kThreads)
    mxfp4_quantize_kernel(uint8_t* blocks, uint8_t* scales, const Wf* w, int64_t eights, Fault* fault) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool active = i < eights;
  float v[kEach];
  const uint32_t peak = load_group<Wide>(v, w, i, active);
  if (!active) return;
  if (peak >= kInfinity) return report_not_finite(fault, "mxfp4_quantize", v, i * kEach);
  const uint32_t exponent = (peak >> 23) > 3 ? (peak >> 23) - 2 : 1;  // at most 252
  const float inverse = bits_to_float((254 - exponent) << 23);        // 2^(127−e): exact
  uint32_t codes = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const float a = fabsf(v[k] * inverse);
    // Halfway points between neighbouring codes; a tie goes to the smaller one.
    const uint32_t c = (a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f) + (a > 2.5f) + (a > 3.5f) + (a > 5.0f);
    codes |= (c ? c | (v[k] < 0 ? 8u : 0u) : 0u) << (4 * k);
  }
  if constexpr (Wide) store_as(blocks + 4 * i, codes);
  else
    for (int b = 0; b < 4; ++b) blocks[4 * i + b] = static_cast<uint8_t>(codes >> (8 * b));
  if (i % kLanes == 0) scales[i / kLanes] = static_cast<uint8_t>(exponent);
}

template <bool Wide, class Wf>
__global__ void __launch_bounds__(kThreads)
    q8_quantize_kernel(uint8_t* q, uint16_t* scales, const Wf* w, int64_t eights, Fault* fault) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool active = i < eights;
  float v[kEach];
  const uint32_t peak = load_group<Wide>(v, w, i, active);
  if (!active) return;
  if (peak >= kInfinity) return report_not_finite(fault, "q8_quantize", v, i * kEach);
  // The smallest bf16 that is not below peak/127; rounding up keeps |w/scale| within 127.
  const uint32_t stored = (float_to_bits(bits_to_float(peak) / 127.0f) + 0xffffu) >> 16;
  const float scale = bits_to_float(stored << 16);
  uint32_t words[2] = {0, 0};
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    float x = scale > 0 ? rintf(v[k] / scale) : 0.0f;
    x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
    words[k / 4] |= (static_cast<uint32_t>(static_cast<int32_t>(x)) & 0xffu) << (8 * (k % 4));
  }
  if constexpr (Wide) store_as(q + kEach * i, make_uint2(words[0], words[1]));
  else
    for (int k = 0; k < kEach; ++k) q[kEach * i + k] = static_cast<uint8_t>(words[k / 4] >> (8 * (k % 4)));
  if (i % kLanes == 0) scales[i / kLanes] = static_cast<uint16_t>(stored);
}

template <class F>
void with_alignment(bool wide, F&& f) {
  if (wide) f(std::true_type{});
  else f(std::false_type{});
}

}  // namespace

void mxfp4_quantize(TensorRef blocks, TensorRef scales, TensorRef w) {
  const int64_t eights = scales->numel() * kLanes;
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    with_alignment(aligned(16, {w->data}) && aligned(4, {blocks->data}), [&](auto wide) {
      launch(mxfp4_quantize_kernel<decltype(wide)::value, Wf>, dim3(blocks_for(eights, kThreads)), dim3(kThreads), 0,
             blocks->u8(), scales->u8(), wp, eights, fault());
    });
  });
}

void mxfp4_dequantize(TensorRef w, TensorRef blocks, TensorRef scales) {
  const int64_t words = scales->numel() * kLanes;
  with_alignment(aligned(16, {w->data}) && aligned(4, {blocks->data}), [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    const dim3 grid(blocks_for(words, kThreads * kWords));
    if (w->dtype == DType::bf16)
      launch(mxfp4_dequantize_kernel<kWide, uint16_t>, grid, dim3(kThreads), 0, w->bf16(), blocks->u8(), scales->u8(),
             words, fault());
    else
      launch(mxfp4_dequantize_kernel<kWide, float>, grid, dim3(kThreads), 0, w->f32(), blocks->u8(), scales->u8(),
             words, fault());
  });
}

void q8_quantize(TensorRef q, TensorRef scales, TensorRef w) {
  const int64_t eights = scales->numel() * kLanes;
  with_wf(*w, [&](auto* wp) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(wp)>>;
    with_alignment(aligned(16, {w->data}) && aligned(8, {q->data}), [&](auto wide) {
      launch(q8_quantize_kernel<decltype(wide)::value, Wf>, dim3(blocks_for(eights, kThreads)), dim3(kThreads), 0,
             q->u8(), scales->bf16(), wp, eights, fault());
    });
  });
}

}  // namespace temper::gpu
