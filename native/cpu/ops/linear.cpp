// Dense linear with an optional LoRA pair, on the product core of matmul.h.
#include "cpu/host/dropout.h"
#include "cpu/matmul/column_sum.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements per elementwise task

Source rows_of(const float* data, int64_t ld) { return {.data = data, .ld = ld}; }
Source columns_of(const float* data, int64_t ld) { return {.data = data, .ld = ld, .k_inner = false}; }

// x itself, or dropout(x) in workspace.
class Dropped {
 public:
  Dropped(const float* x, int64_t n, double p, int64_t seed) : copy_(p > 0 ? static_cast<size_t>(n) : 0), data_(x) {
    if (p <= 0) return;
    const Dropout mask(p, seed);
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) copy_[static_cast<size_t>(i)] = x[i] * mask.factor(i);
    });
    data_ = copy_.data();
  }
  const float* data() const { return data_; }

 private:
  Scratch<float> copy_;
  const float* data_;
};

}  // namespace

void linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef w, TensorRef bias, TensorRef A, TensorRef B,
                double scale, double dropout, int64_t seed, int64_t precision, int64_t by_row) {
  const int64_t N = w->shape[0], C = w->shape[1], T = C ? x->numel() / C : 0, R = A ? A->shape[0] : 0;
  Product p{.m = T, .n = N, .c = y->f32(), .ldc = N, .few_rows = kMostFewRows, .by_row = by_row != 0};
  p.terms[0] = {rows_of(x->f32(), C), {.data = w->data, .ld = C, .kind = kind_of(*w)}, C, 1.0f};
  if (bias) p.bias = bias->data, p.bias_kind = kind_of(*bias);
  if (A) {
    const Dropped xd(x->f32(), T * C, dropout, seed);
    Product down{.m = T, .n = R, .c = h->f32(), .ldc = R, .by_row = by_row != 0};
    down.terms[0] = {rows_of(xd.data(), C), rows_of(A->f32(), C), C, 1.0f};
    multiply(&down, 1, precision);
    p.terms[1] = {rows_of(h->f32(), R), rows_of(B->f32(), R), R, static_cast<float>(scale)};
    p.num_terms = 2;
  }
  multiply(&p, 1, precision);
}

void linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy, TensorRef x,
                TensorRef h, TensorRef w, TensorRef A, TensorRef B, double scale, double dropout, int64_t seed,
                int64_t accumulate_dx, int64_t precision) {
  const int64_t N = w->shape[0], C = w->shape[1], T = N ? dy->numel() / N : 0, R = A ? A->shape[0] : 0;
  const float* g = dy->f32();
  const float alpha = static_cast<float>(scale);
  Scratch<float> u(A && (dx || dA) ? static_cast<size_t>(T * R) : 0);  // dy·B
  if (u.size()) {
    Product p{.m = T, .n = R, .c = u.data(), .ldc = R};
    p.terms[0] = {rows_of(g, N), columns_of(B->f32(), R), N, 1.0f};
    multiply(&p, 1, precision);
  }
  if (dx) {
    Product p{.m = T, .n = C, .c = dx->f32(), .ldc = C, .accumulate = accumulate_dx != 0};
    p.terms[0] = {rows_of(g, N), {.data = w->data, .ld = C, .kind = kind_of(*w), .k_inner = false}, N, 1.0f};
    const Term low_rank{rows_of(u.data(), R), columns_of(A ? A->f32() : nullptr, C), R, alpha};
    if (A && dropout <= 0) p.terms[1] = low_rank, p.num_terms = 2;
    multiply(&p, 1, precision);
    if (A && dropout > 0) {
      Scratch<float> part(static_cast<size_t>(T * C));
      Product q{.m = T, .n = C, .c = part.data(), .ldc = C};
      q.terms[0] = low_rank;
      multiply(&q, 1, precision);
      const Dropout mask(dropout, seed);
      float* to = dx->f32();
      parallel_ranges(T * C, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] += part[static_cast<size_t>(i)] * mask.factor(i);
      });
    }
  }
  if (dw) {
    Product p{.m = N, .n = C, .c = dw->f32(), .ldc = C, .accumulate = true};
    p.terms[0] = {columns_of(g, N), columns_of(x->f32(), C), T, 1.0f};
    multiply(&p, 1, precision);
  }
  if (dbias) add_column_sums(1, [&](int64_t) { return RowGroup{0, T, dbias->f32()}; }, N, g, nullptr, nullptr);
  if (dA) {
    const Dropped xd(x->f32(), T * C, dropout, seed);
    Product p{.m = R, .n = C, .c = dA->f32(), .ldc = C, .accumulate = true};
    p.terms[0] = {columns_of(u.data(), R), columns_of(xd.data(), C), T, alpha};
    multiply(&p, 1, precision);
  }
  if (dB) {
    Product p{.m = N, .n = R, .c = dB->f32(), .ldc = R, .accumulate = true};
    p.terms[0] = {columns_of(g, N), columns_of(h->f32(), R), T, alpha};
    multiply(&p, 1, precision);
  }
}

}  // namespace temper::cpu
