// AdamW with its moments in 8 bits by block (arXiv:2110.02861), in one kernel: a warp reads the codes of a block of 256
// elements, steps them in registers, finds the block's new scale by shuffles and writes the new codes. 16 bytes an
// element cross the memory where adamw moves 28; with the comparisons of seven decades arithmetic and memory come near
// each other on an H200. Not run on a GPU. What a code stands for lies in shared memory, computed by the block: 2 KB.
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "temper/adamw.h"
#include "temper/moment_codes.h"

namespace temper::gpu {
namespace {

constexpr int kMomentBlock = moments::kBlock, kWarps = kThreads / kWarp, kEach = kMomentBlock / kWarp;
static_assert(kThreads == 256);  // one thread fills an entry of each table

template <int W>
TEMPER_DEVICE uint32_t load_codes(const uint8_t* p) {
  if constexpr (W == 4) return load_as<uint32_t>(p);
  else return *p;
}
template <int W>
TEMPER_DEVICE void store_codes(uint8_t* p, uint32_t codes) {
  if constexpr (W == 4) store_as(p, codes);
  else *p = static_cast<uint8_t>(codes);
}

TEMPER_DEVICE int32_t warp_most(int32_t x) {
  for (int step = 16; step; step /= 2) {
    const int32_t other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}
TEMPER_DEVICE int32_t magnitude_bits(float x) { return static_cast<int32_t>(float_to_bits(x) & 0x7fffffffu); }
TEMPER_DEVICE float scale_of(int32_t most) {
  return bits_to_float(static_cast<uint32_t>(most > moments::kInfinity ? moments::kNaN : most));
}

// One block of moments by a warp, `count` elements of it; W = 4: all 256 of them.
template <int W>
TEMPER_DEVICE void step_block(float* p, uint8_t* m, uint8_t* v, float* m_scale, float* v_scale, const float* g,
                              const AdamwStep& s, int count, const float* first_book, const float* second_book) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const float m_before = *m_scale, v_before = *v_scale;
  float first[kEach], second[kEach];
  int32_t m_most = 0, v_most = 0;
#pragma unroll
  for (int r = 0; r < kEach / W; ++r) {
    const int at = (r * kWarp + lane) * W;
    if (W == 1 && at >= count) break;
    const uint32_t m_codes = load_codes<W>(m + at), v_codes = load_codes<W>(v + at);
    Floats<W> weight = load<W>(p + at);
    const Floats<W> gradient = load<W>(g + at);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float d = gradient.v[k] * s.grad_scale;
      const float one = s.beta1 * (first_book[m_codes >> 8 * k & 255u] * m_before) + s.rest1 * d;
      const float two = s.beta2 * (second_book[v_codes >> 8 * k & 255u] * v_before) + s.rest2 * d * d;
      weight.v[k] = weight.v[k] * s.decay - s.rate * one / (sqrtf(two) * s.root2 + s.eps);
      const int32_t m_bits = magnitude_bits(one), v_bits = magnitude_bits(two);
      m_most = m_bits > m_most ? m_bits : m_most;
      v_most = v_bits > v_most ? v_bits : v_most;
      first[r * W + k] = one;
      second[r * W + k] = two;
    }
    store<W>(p + at, weight);
  }
  const float m_after = scale_of(warp_most(m_most)), v_after = scale_of(warp_most(v_most));
  const moments::Divisor by_m = moments::divisor_of(m_after), by_v = moments::divisor_of(v_after);
#pragma unroll
  for (int r = 0; r < kEach / W; ++r) {
    const int at = (r * kWarp + lane) * W;
    if (W == 1 && at >= count) break;
    uint32_t m_codes = 0, v_codes = 0;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      m_codes |= static_cast<uint32_t>(moments::first_code(first[r * W + k], by_m)) << 8 * k;
      v_codes |= static_cast<uint32_t>(moments::second_code(second[r * W + k], by_v)) << 8 * k;
    }
    store_codes<W>(m + at, m_codes);
    store_codes<W>(v + at, v_codes);
  }
  if (lane == 0) {
    *m_scale = m_after;
    *v_scale = v_after;
  }
}

template <int W>
__global__ void __launch_bounds__(kThreads) adamw_8bit_kernel(float* p, uint8_t* m, uint8_t* v, float* m_scales,
                                                              float* v_scales, const float* g, AdamwStep s, int64_t n) {
  wait_for_previous();
  __shared__ float first_book[256], second_book[256];
  first_book[threadIdx.x] = moments::value_of<true>(static_cast<int>(threadIdx.x));
  second_book[threadIdx.x] = moments::value_of<false>(static_cast<int>(threadIdx.x));
  __syncthreads();
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, at = block * kMomentBlock;
  if (at >= n) return;
  const int count = n - at < kMomentBlock ? static_cast<int>(n - at) : kMomentBlock;
  if (W == 4 && count == kMomentBlock)
    step_block<W>(p + at, m + at, v + at, m_scales + block, v_scales + block, g + at, s, count, first_book,
                  second_book);
  else
    step_block<1>(p + at, m + at, v + at, m_scales + block, v_scales + block, g + at, s, count, first_book,
                  second_book);
}

}  // namespace

void adamw_8bit(TensorRef p, TensorRef m, TensorRef v, TensorRef m_scales, TensorRef v_scales, TensorRef g, double lr,
                double beta1, double beta2, double eps, double weight_decay, int64_t step, double grad_scale) {
  const AdamwStep s = adamw_step("adamw_8bit", lr, beta1, beta2, eps, weight_decay, step, grad_scale);
  const int64_t n = p->numel();
  const int64_t blocks = (n + kMomentBlock * kWarps - 1) / (kMomentBlock * kWarps);
  with_width(aligned(16, {p->data, g->data}) && aligned(4, {m->data, v->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(adamw_8bit_kernel<W>, dim3(blocks), dim3(kThreads), 0, p->f32(), m->u8(), v->u8(), m_scales->f32(),
           v_scales->f32(), g->f32(), s, n);
  });
}

}  // namespace temper::gpu
