// Dense linear on 8-bit weights (q·scale, 32 inputs to a scale): the encoder, and the product on the core of matmul.h,
// which decodes as it packs.
#include <algorithm>
#include <cmath>

#include "cpu/host/number.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kInputs = 32, kGroupsPerTask = 512;  // elements to a scale

// The smallest bf16 that is not below f ≥ 0; rounding up keeps |w/scale| within 127.
uint16_t bf16_at_least(float f) { return static_cast<uint16_t>((__builtin_bit_cast(uint32_t, f) + 0xffffu) >> 16); }

// The products of a call; cost and kernel are made of the same ones.
struct Forward {
  const args::linear_q8_fwd& a;
  int64_t N = a.q->shape[0], C = a.q->shape[1], T = a.x->rows(), R = a.A ? a.A->shape[0] : 0;
  RowBits bits = static_cast<RowBits>(a.by_row);

  Product down() const {
    Product p{.m = T, .n = R, .c = a.h->f32(), .ldc = R, .bits = bits};
    p.terms[0] = {{.data = a.x->data, .ld = C}, {.data = a.A->data, .ld = C}, C, 1.0f};
    return p;
  }
  Product whole() const {
    Product p{.m = T, .n = N, .c = a.y->f32(), .ldc = N, .few_rows = kFewRowsOfOne, .bits = bits};
    p.terms[0] = {{.data = a.x->data, .ld = C},
                  {.data = a.q->data, .q8_scales = a.scales->bf16(), .ld = C, .kind = Kind::q8},
                  C,
                  1.0f};
    if (a.bias) p.bias = a.bias->data, p.bias_kind = kind_of(*a.bias);
    if (a.A) {
      p.terms[1] = {{.data = a.h->data, .ld = R}, {.data = a.B->data, .ld = R}, R, static_cast<float>(a.scale)};
      p.num_terms = 2;
    }
    return p;
  }
};

}  // namespace

Cost cost::q8_quantize(const args::q8_quantize& a) { return streamed(a); }

void q8_quantize(TensorRef q, TensorRef scales, TensorRef w) {
  with_wf(*w, [&](const auto* from) {
    parallel_ranges(scales->numel(), kGroupsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        float x[kInputs], peak = 0;
        uint32_t bits = 0;
        for (int64_t i = 0; i < kInputs; ++i) {
          x[i] = load(from + g * kInputs + i);
          bits = std::max(bits, __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffffu);
        }
        if (bits >= 0x7f800000u)
          for (int64_t i = 0; i < kInputs; ++i)
            require(std::isfinite(x[i]), "not_finite", "q8_quantize: w[", g * kInputs + i, "]: got ", x[i],
                    ", wanted a finite number");
        peak = __builtin_bit_cast(float, bits);
        const uint16_t stored = bf16_at_least(peak / 127.0f);
        const float scale = load(&stored);
        scales->bf16()[g] = stored;
        int8_t* to = reinterpret_cast<int8_t*>(q->u8()) + g * kInputs;
        for (int64_t i = 0; i < kInputs; ++i)
          to[i] =
              scale > 0 ? static_cast<int8_t>(std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f)) : int8_t{0};
      }
    });
  });
}

Cost cost::linear_q8_fwd(const args::linear_q8_fwd& a) {
  const Forward f{a};
  const Product whole = f.whole();
  size_t most = multiply_workspace(&whole, 1, a.precision);
  if (a.A) {
    const Product down = f.down();
    most = std::max(most, multiply_workspace(&down, 1, a.precision));
  }
  Cost cost = streamed(a, static_cast<double>(most));
  cost.flops = 2.0 * f.T * (f.N * f.C + f.R * (f.N + f.C));
  cost.rows = f.T;
  return cost;
}

void linear_q8_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef q, TensorRef scales, TensorRef bias, TensorRef A,
                   TensorRef B, double scale, int64_t precision, int64_t by_row) {
  const args::linear_q8_fwd a{y, h, x, q, scales, bias, A, B, scale, precision, by_row};
  const Forward f{a};
  if (A) {
    const Product down = f.down();
    multiply(&down, 1, precision);
  }
  const Product whole = f.whole();
  multiply(&whole, 1, precision);
}

namespace reference {

void q8_quantize(TensorRef q, TensorRef scales, TensorRef w) {
  for (int64_t g = 0; g < scales->numel(); ++g) {
    float peak = 0;
    for (int64_t i = g * kInputs; i < (g + 1) * kInputs; ++i) {
      const double v = element(*w, i);
      require(std::isfinite(v), "not_finite", "q8_quantize: w[", i, "]: got ", v, ", wanted a finite number");
      peak = std::fmax(peak, static_cast<float>(std::fabs(v)));
    }
    const float exact = peak / 127.0f;
    uint16_t stored = float_to_bf16(exact);
    if (bf16_to_float(stored) < exact) ++stored;
    const float scale = bf16_to_float(stored);
    scales->bf16()[g] = stored;
    for (int64_t i = g * kInputs; i < (g + 1) * kInputs; ++i) {
      const double v = scale > 0 ? std::nearbyint(static_cast<float>(element(*w, i)) / scale) : 0;
      q->u8()[i] = static_cast<uint8_t>(static_cast<int>(std::clamp(v, -127.0, 127.0)));
    }
  }
}

void linear_q8_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef q, TensorRef scales, TensorRef bias, TensorRef A,
                   TensorRef B, double scale, int64_t precision, int64_t /*by_row*/) {
  const int64_t N = q->shape[0], C = q->shape[1], T = x->rows(), R = A ? A->shape[0] : 0;
  const auto operand = [&](double v) {
    return precision ? static_cast<double>(round_to_bf16(static_cast<float>(v))) : v;
  };
  const auto weight = [&](int64_t n, int64_t c) {
    const int byte = q->u8()[n * C + c];
    return (byte < 128 ? byte : byte - 256) * static_cast<double>(bf16_to_float(scales->bf16()[(n * C + c) / kInputs]));
  };
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t r = 0; r < R; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < C; ++c) sum += operand(x->f32()[t * C + c]) * operand(A->f32()[r * C + c]);
      h->f32()[t * R + r] = static_cast<float>(sum);
    }
    for (int64_t n = 0; n < N; ++n) {
      double sum = bias ? element(*bias, n) : 0.0, low_rank = 0;
      for (int64_t c = 0; c < C; ++c) sum += operand(x->f32()[t * C + c]) * operand(weight(n, c));
      for (int64_t r = 0; r < R; ++r) low_rank += operand(h->f32()[t * R + r]) * operand(B->f32()[n * R + r]);
      y->f32()[t * N + n] = static_cast<float>(sum + scale * low_rank);
    }
  }
}

}  // namespace reference
}  // namespace temper::cpu
