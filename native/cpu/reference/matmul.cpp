// The matrix ops as plain loops with double accumulators: what the fast paths in this folder are compared with.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/host/dropout.h"
#include "cpu/host/mxfp4.h"
#include "cpu/host/number.h"
#include "cpu/ops.h"

namespace temper::cpu::reference {
namespace {

// An operand of a product: at precision 1 it is rounded to bf16.
double operand(double v, int64_t precision) { return precision ? round_to_bf16(static_cast<float>(v)) : v; }

// One expert's weight as out × in, whatever its layout.
struct Weight {
  const Tensor& w;
  TensorRef scales;
  int64_t expert, N, C, layout;
  double at(int64_t n, int64_t c) const {
    if (layout == 0) {
      const int64_t group = (expert * N + n) * (C / kGroup) + c / kGroup;
      return mxfp4_element(w.u8() + group * 16, scales->u8()[group], static_cast<int>(c % kGroup));
    }
    return element(w, layout == 1 ? (expert * N + n) * C + c : (expert * C + c) * N + n);
  }
};

int32_t checked(const Tensor& index, int64_t i, int64_t limit, const char* op, const char* name) {
  const int32_t v = index.i32()[i];
  require(v >= 0 && v < limit, "bad_index", op, ": ", name, "[", i, "]: got ", v, ", wanted 0 to ", limit - 1);
  return v;
}

// to? += sums, from element `at` on.
void add(TensorRef to, int64_t at, const std::vector<double>& sums) {
  if (to)
    for (size_t i = 0; i < sums.size(); ++i)
      to->f32()[at + static_cast<int64_t>(i)] = static_cast<float>(to->f32()[at + static_cast<int64_t>(i)] + sums[i]);
}

std::vector<double> dropped(const Tensor& x, double dropout, int64_t seed) {
  std::vector<double> out(static_cast<size_t>(x.numel()));
  const Dropout mask(dropout, seed);
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = dropout > 0 ? x.f32()[i] * mask.factor(i) : x.f32()[i];
  return out;
}

}  // namespace

void linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef w, TensorRef bias, TensorRef A, TensorRef B,
                double scale, double dropout, int64_t seed, int64_t precision, int64_t /*by_row*/) {
  const int64_t N = w->shape[0], C = w->shape[1], T = x->numel() / C, R = A ? A->shape[0] : 0;
  const std::vector<double> xd = A ? dropped(*x, dropout, seed) : std::vector<double>();
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t r = 0; r < R; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < C; ++c)
        sum += operand(xd[t * C + c], precision) * operand(A->f32()[r * C + c], precision);
      h->f32()[t * R + r] = static_cast<float>(sum);
    }
    for (int64_t n = 0; n < N; ++n) {
      double sum = bias ? element(*bias, n) : 0.0, low_rank = 0;
      for (int64_t c = 0; c < C; ++c)
        sum += operand(x->f32()[t * C + c], precision) * operand(element(*w, n * C + c), precision);
      for (int64_t r = 0; r < R; ++r)
        low_rank += operand(h->f32()[t * R + r], precision) * operand(B->f32()[n * R + r], precision);
      y->f32()[t * N + n] = static_cast<float>(sum + scale * low_rank);
    }
  }
}

void linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy, TensorRef x,
                TensorRef h, TensorRef w, TensorRef A, TensorRef B, double scale, double dropout, int64_t seed,
                int64_t accumulate_dx, int64_t precision) {
  const int64_t N = w->shape[0], C = w->shape[1], T = dy->numel() / N, R = A ? A->shape[0] : 0;
  const Dropout mask(dropout, seed);
  const auto p = [&](double v) { return operand(v, precision); };
  const float* g = dy->f32();
  std::vector<double> u(static_cast<size_t>(T * R));  // dy·B
  for (int64_t t = 0; t < T; ++t)
    for (int64_t r = 0; r < R; ++r)
      for (int64_t n = 0; n < N; ++n) u[t * R + r] += p(g[t * N + n]) * p(B->f32()[n * R + r]);
  if (dx)
    for (int64_t t = 0; t < T; ++t)
      for (int64_t c = 0; c < C; ++c) {
        double sum = 0, low_rank = 0;
        for (int64_t n = 0; n < N; ++n) sum += p(g[t * N + n]) * p(element(*w, n * C + c));
        for (int64_t r = 0; r < R; ++r) low_rank += p(u[t * R + r]) * p(A->f32()[r * C + c]);
        const int64_t i = t * C + c;
        dx->f32()[i] = static_cast<float>((accumulate_dx ? dx->f32()[i] : 0.0) + sum +
                                          scale * low_rank * (dropout > 0 ? mask.factor(i) : 1.0f));
      }
  if (dw)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c) {
        double sum = 0;
        for (int64_t t = 0; t < T; ++t) sum += p(g[t * N + n]) * p(x->f32()[t * C + c]);
        dw->f32()[n * C + c] = static_cast<float>(dw->f32()[n * C + c] + sum);
      }
  if (dbias)
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t t = 0; t < T; ++t) sum += g[t * N + n];
      dbias->f32()[n] = static_cast<float>(dbias->f32()[n] + sum);
    }
  if (dA) {
    const std::vector<double> xd = dropped(*x, dropout, seed);
    for (int64_t r = 0; r < R; ++r)
      for (int64_t c = 0; c < C; ++c) {
        double sum = 0;
        for (int64_t t = 0; t < T; ++t) sum += p(u[t * R + r]) * p(xd[t * C + c]);
        dA->f32()[r * C + c] = static_cast<float>(dA->f32()[r * C + c] + scale * sum);
      }
  }
  if (dB)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t r = 0; r < R; ++r) {
        double sum = 0;
        for (int64_t t = 0; t < T; ++t) sum += p(g[t * N + n]) * p(h->f32()[t * R + r]);
        dB->f32()[n * R + r] = static_cast<float>(dB->f32()[n * R + r] + scale * sum);
      }
}

void linear_cross_entropy(TensorRef nll, TensorRef dx, TensorRef dw, TensorRef x, TensorRef w, TensorRef targets,
                          TensorRef weights, int64_t precision) {
  const int64_t V = w->shape[0], D = w->shape[1], S = x->numel() / D;
  const auto p = [&](double v) { return operand(v, precision); };
  for (int64_t s = 0; s < S; ++s) checked(*targets, s, V, "linear_cross_entropy", "targets");
  std::vector<double> logits(static_cast<size_t>(V)), sum_dx(static_cast<size_t>(D)),
      sum_dw(static_cast<size_t>(dw ? V * D : 0));
  for (int64_t s = 0; s < S; ++s) {
    const float* row = x->f32() + s * D;
    const int32_t target = targets->i32()[s];
    double peak = -INFINITY, total = 0;
    for (int64_t v = 0; v < V; ++v) {
      double sum = 0;
      for (int64_t d = 0; d < D; ++d) sum += p(row[d]) * p(element(*w, v * D + d));
      logits[v] = sum;
      peak = std::max(peak, sum);
    }
    for (int64_t v = 0; v < V; ++v) total += std::exp(logits[v] - peak);
    const double lse = peak + std::log(total), weight = weights ? weights->f32()[s] : 1.0;
    nll->f32()[s] = static_cast<float>(lse - logits[target]);
    if (!dx && !dw) continue;
    std::fill(sum_dx.begin(), sum_dx.end(), 0.0);
    for (int64_t v = 0; v < V; ++v) {
      const double g = p(weight * (std::exp(logits[v] - lse) - (v == target)));
      for (int64_t d = 0; d < D; ++d) {
        sum_dx[d] += g * p(element(*w, v * D + d));
        if (dw) sum_dw[v * D + d] += g * p(row[d]);
      }
    }
    if (dx)
      for (int64_t d = 0; d < D; ++d) dx->f32()[s * D + d] = static_cast<float>(sum_dx[d]);
  }
  add(dw, 0, sum_dw);
}

void grouped_linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets, TensorRef w,
                        TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale, int64_t layout,
                        int64_t precision, int64_t /*by_row*/) {
  const int64_t E = offsets->numel() - 1, P = y->shape[0], N = y->shape[1], C = x->shape[x->ndim - 1],
                X = x->numel() / C, R = A ? A->shape[1] : 0;
  check_offsets(*offsets, P, "grouped_linear_fwd");
  for (int64_t e = 0; e < E; ++e) {
    const Weight W{*w, scales, e, N, C, layout};
    for (int64_t q = offsets->i32()[e]; q < offsets->i32()[e + 1]; ++q) {
      const float* row = x->f32() + C * (rows ? checked(*rows, q, X, "grouped_linear_fwd", "rows") : q);
      for (int64_t r = 0; r < R; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < C; ++c)
          sum += operand(row[c], precision) * operand(A->f32()[(e * R + r) * C + c], precision);
        h->f32()[q * R + r] = static_cast<float>(sum);
      }
      for (int64_t n = 0; n < N; ++n) {
        double sum = bias ? element(*bias, e * N + n) : 0.0, low_rank = 0;
        for (int64_t c = 0; c < C; ++c) sum += operand(row[c], precision) * operand(W.at(n, c), precision);
        for (int64_t r = 0; r < R; ++r)
          low_rank += operand(h->f32()[q * R + r], precision) * operand(B->f32()[(e * N + n) * R + r], precision);
        y->f32()[q * N + n] = static_cast<float>(sum + scale * low_rank);
      }
    }
  }
}

void grouped_linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy,
                        TensorRef dy_rows, TensorRef row_weight, TensorRef x, TensorRef x_rows, TensorRef h,
                        TensorRef offsets, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale,
                        int64_t layout, int64_t precision) {
  const int64_t E = offsets->numel() - 1, N = dy->shape[dy->ndim - 1], C = x->shape[x->ndim - 1],
                R = A ? A->shape[1] : 0;
  const int64_t G = dy->numel() / N, X = x->numel() / C;
  const int64_t P = dx ? dx->shape[0] : dy_rows ? dy_rows->numel() : x_rows ? x_rows->numel() : G;
  check_offsets(*offsets, P, "grouped_linear_bwd");
  const auto p = [&](double v) { return operand(v, precision); };
  for (int64_t e = 0; e < E; ++e) {
    const Weight W{*w, scales, e, N, C, layout};
    std::vector<double> sum_w(static_cast<size_t>(dw ? N * C : 0)), sum_bias(static_cast<size_t>(N)),
        sum_A(static_cast<size_t>(R * C)), sum_B(static_cast<size_t>(N * R));
    for (int64_t q = offsets->i32()[e]; q < offsets->i32()[e + 1]; ++q) {
      const float* g = dy->f32() + N * (dy_rows ? checked(*dy_rows, q, G, "grouped_linear_bwd", "dy_rows") : q);
      const float* row = x->f32() + C * (x_rows ? checked(*x_rows, q, X, "grouped_linear_bwd", "x_rows") : q);
      const float r_weight = row_weight ? row_weight->f32()[q] : 1.0f;
      std::vector<double> u(static_cast<size_t>(R)), ru(static_cast<size_t>(R));  // g·B and (r∘g)·B
      for (int64_t n = 0; n < N; ++n)
        for (int64_t r = 0; r < R; ++r) {
          const double b = p(B->f32()[(e * N + n) * R + r]);
          u[r] += p(g[n]) * b;
          ru[r] += p(g[n]) * b * r_weight;
        }
      if (dx)
        for (int64_t c = 0; c < C; ++c) {
          double sum = 0, low_rank = 0;
          for (int64_t n = 0; n < N; ++n) sum += p(g[n]) * p(W.at(n, c));
          for (int64_t r = 0; r < R; ++r) low_rank += p(u[r]) * p(A->f32()[(e * R + r) * C + c]);
          dx->f32()[q * C + c] = static_cast<float>(sum + scale * low_rank);
        }
      for (int64_t n = 0; n < N; ++n) {
        if (dw)
          for (int64_t c = 0; c < C; ++c) sum_w[n * C + c] += p(r_weight * g[n]) * p(row[c]);
        sum_bias[n] += static_cast<double>(r_weight) * g[n];
        if (dB)
          for (int64_t r = 0; r < R; ++r) sum_B[n * R + r] += scale * p(r_weight * g[n]) * p(h->f32()[q * R + r]);
      }
      for (int64_t r = 0; r < R; ++r)
        for (int64_t c = 0; c < C; ++c) sum_A[r * C + c] += scale * p(ru[r]) * p(row[c]);
    }
    add(dw, e * N * C, sum_w);
    add(dbias, e * N, sum_bias);
    add(dA, e * R * C, sum_A);
    add(dB, e * N * R, sum_B);
  }
}

void mxfp4_quantize(TensorRef blocks, TensorRef scales, TensorRef w) {
  for (int64_t g = 0; g < scales->numel(); ++g) {
    double peak = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      const double v = element(*w, g * kGroup + i);
      require(std::isfinite(v), "not_finite", "mxfp4_quantize: w[", g * kGroup + i, "]: got ", v,
              ", wanted a finite number");
      peak = std::max(peak, std::fabs(v));
    }
    const int exponent = peak > 0 ? std::clamp(std::ilogb(peak) - 2 + 127, 1, 254) : 1;
    scales->u8()[g] = static_cast<uint8_t>(exponent);
    for (int64_t i = 0; i < kGroup; ++i) {
      const double v = std::ldexp(static_cast<double>(element(*w, g * kGroup + i)), 127 - exponent),
                   magnitude = std::fabs(v);
      int code = 0;
      for (int c = 1; c < 8; ++c)
        // strict: a tie stays with the smaller
        if (std::fabs(magnitude - kE2M1[c]) < std::fabs(magnitude - kE2M1[code])) code = c;
      if (v < 0 && code) code |= 8;
      uint8_t& byte = blocks->u8()[g * 16 + i / 2];
      byte = static_cast<uint8_t>(i & 1 ? (byte & 15) | code << 4 : code);
    }
  }
}

void mxfp4_dequantize(TensorRef w, TensorRef blocks, TensorRef scales) {
  for (int64_t g = 0; g < scales->numel(); ++g) {
    const uint8_t scale = scales->u8()[g];
    require(scale != 255, "bad_scale", "mxfp4_dequantize: scales[", g, "]: got 255, the format's NaN; wanted 0 to 254");
    for (int i = 0; i < kGroup; ++i) {
      const float v = mxfp4_element(blocks->u8() + g * 16, scale, i);
      if (w->dtype == DType::bf16) w->bf16()[g * kGroup + i] = float_to_bf16(v);
      else w->f32()[g * kGroup + i] = v;
    }
  }
}

}  // namespace temper::cpu::reference
