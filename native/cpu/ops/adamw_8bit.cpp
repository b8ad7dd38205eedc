// AdamW with its moments in 8 bits by block (arXiv:2110.02861): adamw's step on the moments as their codes say them,
// then the codes of the new ones. A block of 256 elements is read, stepped and coded while it lies in the first cache.
// It moves 16 bytes an element where adamw moves 28.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/adamw.h"
#include "temper/memory.h"
#include "temper/moment_codes.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

using moments::kBlock;

template <bool Signed>
constexpr std::array<float, 256> code_book() {
  std::array<float, 256> book{};
  for (int code = 0; code < 256; ++code) book[static_cast<size_t>(code)] = moments::value_of<Signed>(code);
  return book;
}
alignas(64) constexpr std::array<float, 256> kFirst = code_book<true>(), kSecond = code_book<false>();

TEMPER_INLINE float scale_of(int32_t most) {
  return __builtin_bit_cast(float, most > moments::kInfinity ? moments::kNaN : most);
}
TEMPER_INLINE int32_t magnitude_bits(float x) { return __builtin_bit_cast(int32_t, x) & 0x7fffffff; }

struct Step {
  template <int>
  static TEMPER_INLINE void run(float* p, uint8_t* m, uint8_t* v, float* m_scales, float* v_scales, const float* g,
                                const AdamwStep& c, int64_t n, int64_t from, int64_t to) {
    alignas(64) float first[kBlock], second[kBlock];
    for (int64_t block = from; block < to; ++block) {
      const int64_t begin = block * kBlock;
      const int count = static_cast<int>(std::min<int64_t>(kBlock, n - begin));
      float* const w = p + begin;
      const float* const d = g + begin;
      uint8_t *const m_codes = m + begin, *const v_codes = v + begin;
      const float m_scale = m_scales[block], v_scale = v_scales[block];
#pragma omp simd
      for (int i = 0; i < count; ++i) first[i] = kFirst[m_codes[i]] * m_scale;
#pragma omp simd
      for (int i = 0; i < count; ++i) second[i] = kSecond[v_codes[i]] * v_scale;
      int32_t m_most = 0, v_most = 0;
#pragma omp simd reduction(max : m_most, v_most)
      for (int i = 0; i < count; ++i) {
        const float gradient = d[i] * c.grad_scale;
        const float one = c.beta1 * first[i] + c.rest1 * gradient;
        const float two = c.beta2 * second[i] + c.rest2 * gradient * gradient;
        first[i] = one;
        second[i] = two;
        w[i] = w[i] * c.decay - c.rate * one / (__builtin_sqrtf(two) * c.root2 + c.eps);
        const int32_t m_bits = magnitude_bits(one), v_bits = magnitude_bits(two);
        m_most = m_bits > m_most ? m_bits : m_most;
        v_most = v_bits > v_most ? v_bits : v_most;
      }
      const float m_next = scale_of(m_most), v_next = scale_of(v_most);
      m_scales[block] = m_next;
      v_scales[block] = v_next;
      const moments::Divisor by_m = moments::divisor_of(m_next), by_v = moments::divisor_of(v_next);
#pragma omp simd
      for (int i = 0; i < count; ++i) m_codes[i] = static_cast<uint8_t>(moments::first_code(first[i], by_m));
#pragma omp simd
      for (int i = 0; i < count; ++i) v_codes[i] = static_cast<uint8_t>(moments::second_code(second[i], by_v));
    }
  }
};

}  // namespace

Cost cost::adamw_8bit(const args::adamw_8bit& a) { return streamed(a); }

void adamw_8bit(TensorRef p, TensorRef m, TensorRef v, TensorRef m_scales, TensorRef v_scales, TensorRef g, double lr,
                double beta1, double beta2, double eps, double weight_decay, int64_t step, double grad_scale) {
  const AdamwStep c = adamw_step("adamw_8bit", lr, beta1, beta2, eps, weight_decay, step, grad_scale);
  const int64_t n = p->numel();
  parallel_ranges((n + kBlock - 1) / kBlock, kTaskElements / 4 / kBlock, [&](int64_t from, int64_t to) {
    run_kernel<Step>(p->f32(), m->u8(), v->u8(), m_scales->f32(), v_scales->f32(), static_cast<const float*>(g->f32()),
                     c, n, from, to);
  });
}

namespace reference {
namespace {

// What the codes stand for as the papers say it: the middles of equal parts of [0.1, 1] in each decade, 0 and 1.
struct Book {
  std::vector<double> value;                // by code
  std::vector<std::pair<double, int>> all;  // rising, with their codes
  explicit Book(bool with_sign) : value(256) {
    value[with_sign ? 128 : 1] = 1;
    for (int decade = 0; decade < 7; ++decade) {
      const int cells = 1 << (with_sign ? decade : decade + 1);
      for (int k = 0; k < cells; ++k) {
        const double x = std::pow(10.0, decade - 6) * (0.1 + 0.9 * (k + 0.5) / cells);
        value[static_cast<size_t>(cells + k)] = x;
        if (with_sign) value[static_cast<size_t>(128 + cells + k)] = -x;
      }
    }
    for (int code = 0; code < 256; ++code) all.emplace_back(value[static_cast<size_t>(code)], code);
    std::sort(all.begin(), all.end());
  }
  int nearest(double x) const {
    const auto above = std::lower_bound(all.begin(), all.end(), std::pair(x, 0));
    if (above == all.begin()) return above->second;
    const auto below = above - 1;
    if (above == all.end()) return below->second;
    return above->first - x <= x - below->first ? above->second : below->second;
  }
};

}  // namespace

void adamw_8bit(TensorRef p, TensorRef m, TensorRef v, TensorRef m_scales, TensorRef v_scales, TensorRef g, double lr,
                double beta1, double beta2, double eps, double weight_decay, int64_t step, double grad_scale) {
  adamw_step("adamw_8bit", lr, beta1, beta2, eps, weight_decay, step, grad_scale);  // refuses what it refuses
  static const Book first_book(true), second_book(false);
  const double count = static_cast<double>(step);
  const int64_t n = p->numel();
  for (int64_t from = 0; from < n; from += kBlock) {
    const int64_t block = from / kBlock, to = std::min(n, from + kBlock);
    std::vector<double> first, second;
    double m_most = 0, v_most = 0;
    for (int64_t i = from; i < to; ++i) {
      const double d = g->f32()[i] * grad_scale;
      first.push_back(beta1 * first_book.value[m->u8()[i]] * m_scales->f32()[block] + (1.0 - beta1) * d);
      second.push_back(beta2 * second_book.value[v->u8()[i]] * v_scales->f32()[block] + (1.0 - beta2) * d * d);
      const double first_hat = first.back() / (1.0 - std::pow(beta1, count)),
                   second_hat = second.back() / (1.0 - std::pow(beta2, count));
      p->f32()[i] =
          static_cast<float>(p->f32()[i] * (1.0 - lr * weight_decay) - lr * first_hat / (std::sqrt(second_hat) + eps));
      m_most = std::isnan(m_most) || std::fabs(first.back()) <= m_most ? m_most : std::fabs(first.back());
      v_most = std::isnan(v_most) || second.back() <= v_most ? v_most : second.back();
    }
    m_scales->f32()[block] = static_cast<float>(m_most);
    v_scales->f32()[block] = static_cast<float>(v_most);
    for (int64_t i = from; i < to; ++i) {
      const double x = first[static_cast<size_t>(i - from)], y = second[static_cast<size_t>(i - from)];
      m->u8()[i] = static_cast<uint8_t>(m_most > 0 ? first_book.nearest(x / m_most) : 0);
      const int code = v_most > 0 ? second_book.nearest(y / v_most) : 0;
      v->u8()[i] = static_cast<uint8_t>(y > 0 && code == 0 ? 2 : code);
    }
  }
}

}  // namespace reference
}  // namespace temper::cpu
