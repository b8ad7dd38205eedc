// Dense linear with an optional LoRA pair, on the product core of matmul.h.
#include <algorithm>

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
size_t dropped_bytes(int64_t n, double p) { return p > 0 ? static_cast<size_t>(n) * sizeof(float) : 0; }

// The products of a call; cost and kernel are made of the same ones.
struct Forward {
  const args::linear_fwd& a;
  int64_t N = a.w->shape[0], C = a.w->shape[1], T = C ? a.x->numel() / C : 0, R = a.A ? a.A->shape[0] : 0;
  RowBits bits = static_cast<RowBits>(a.by_row);

  Product down(const float* x) const {  // h = dropout(x)·Aᵀ
    Product p{.m = T, .n = R, .c = a.h->f32(), .ldc = R, .bits = bits};
    p.terms[0] = {rows_of(x, C), rows_of(a.A->f32(), C), C, 1.0f};
    return p;
  }
  Product whole() const {
    Product p{.m = T, .n = N, .c = a.y->f32(), .ldc = N, .few_rows = kFewRowsOfOne, .bits = bits};
    p.terms[0] = {rows_of(a.x->f32(), C), {.data = a.w->data, .ld = C, .kind = kind_of(*a.w)}, C, 1.0f};
    if (a.bias) p.bias = a.bias->data, p.bias_kind = kind_of(*a.bias);
    if (a.A) {
      p.terms[1] = {rows_of(a.h->f32(), R), rows_of(a.B->f32(), R), R, static_cast<float>(a.scale)};
      p.num_terms = 2;
    }
    return p;
  }
};

struct Backward {
  const args::linear_bwd& a;
  int64_t N = a.w->shape[0], C = a.w->shape[1], T = N ? a.dy->numel() / N : 0, R = a.A ? a.A->shape[0] : 0;
  float alpha = static_cast<float>(a.scale);

  int64_t u_size() const { return a.A && (a.dx || a.dA) ? T * R : 0; }
  Product u(float* to) const {  // dy·B
    Product p{.m = T, .n = R, .c = to, .ldc = R};
    p.terms[0] = {rows_of(a.dy->f32(), N), columns_of(a.B->f32(), R), N, 1.0f};
    return p;
  }
  Term low_rank(const float* u) const { return {rows_of(u, R), columns_of(a.A ? a.A->f32() : nullptr, C), R, alpha}; }
  Product dx(const float* u) const {  // with dropout the low-rank part comes by itself: part
    Product p{.m = T, .n = C, .c = a.dx->f32(), .ldc = C, .accumulate = a.accumulate_dx != 0};
    p.terms[0] = {
        rows_of(a.dy->f32(), N), {.data = a.w->data, .ld = C, .kind = kind_of(*a.w), .k_inner = false}, N, 1.0f};
    if (a.A && a.dropout <= 0) p.terms[1] = low_rank(u), p.num_terms = 2;
    return p;
  }
  Product part(const float* u, float* to) const {
    Product p{.m = T, .n = C, .c = to, .ldc = C};
    p.terms[0] = low_rank(u);
    return p;
  }
  Product dw() const {
    Product p{.m = N, .n = C, .c = a.dw->f32(), .ldc = C, .accumulate = true};
    p.terms[0] = {columns_of(a.dy->f32(), N), columns_of(a.x->f32(), C), T, 1.0f};
    return p;
  }
  Product dA(const float* u, const float* x) const {
    Product p{.m = R, .n = C, .c = a.dA->f32(), .ldc = C, .accumulate = true};
    p.terms[0] = {columns_of(u, R), columns_of(x, C), T, alpha};
    return p;
  }
  Product dB() const {
    Product p{.m = N, .n = R, .c = a.dB->f32(), .ldc = R, .accumulate = true};
    p.terms[0] = {columns_of(a.dy->f32(), N), columns_of(a.h->f32(), R), T, alpha};
    return p;
  }
};

size_t workspace_of(const Product& p, int64_t precision) { return multiply_workspace(&p, 1, precision); }

}  // namespace

Cost cost::linear_fwd(const args::linear_fwd& a) {
  const Forward f{a};
  size_t most = workspace_of(f.whole(), a.precision);
  if (a.A) most = std::max(most, dropped_bytes(f.T * f.C, a.dropout) + workspace_of(f.down(no_memory()), a.precision));
  Cost cost = streamed(a, static_cast<double>(most) + widened({a.x}));
  cost.flops = 2.0 * f.T * (f.N * f.C + f.R * (f.N + f.C));
  cost.rows = f.T;
  return cost;
}

void linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef w, TensorRef bias, TensorRef A, TensorRef B,
                double scale, double dropout, int64_t seed, int64_t precision, int64_t by_row) {
  const args::linear_fwd a{y, h, x, w, bias, A, B, scale, dropout, seed, precision, by_row};
  const Forward f{a};
  if (A) {
    const Dropped xd(x->f32(), f.T * f.C, dropout, seed);
    const Product down = f.down(xd.data());
    multiply(&down, 1, precision);
  }
  const Product p = f.whole();
  multiply(&p, 1, precision);
}

Cost cost::linear_bwd(const args::linear_bwd& a) {
  const Backward b{a};
  const size_t u = static_cast<size_t>(b.u_size()) * sizeof(float), dropped = dropped_bytes(b.T * b.C, a.dropout);
  size_t most = 0;
  const auto add = [&](const Product& p, size_t beside) {
    most = std::max(most, beside + workspace_of(p, a.precision));
  };
  if (u) add(b.u(no_memory()), 0);
  if (a.dx) add(b.dx(no_memory()), 0);
  if (a.dx && a.A && a.dropout > 0) add(b.part(no_memory(), no_memory()), dropped);
  if (a.dw) add(b.dw(), 0);
  if (a.dA) add(b.dA(no_memory(), no_memory()), dropped);
  if (a.dB) add(b.dB(), 0);
  Cost cost = streamed(a, static_cast<double>(u + most) + widened({a.dy, a.x}));
  cost.flops = 2.0 * b.T * (((a.dx ? 1 : 0) + (a.dw ? 1 : 0)) * b.N * b.C + 2 * b.R * (b.N + b.C));
  cost.rows = b.T;
  return cost;
}

void linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy, TensorRef x,
                TensorRef h, TensorRef w, TensorRef A, TensorRef B, double scale, double dropout, int64_t seed,
                int64_t accumulate_dx, int64_t precision) {
  const args::linear_bwd a{dx, dw, dbias, dA, dB, dy, x, h, w, A, B, scale, dropout, seed, accumulate_dx, precision};
  const Backward b{a};
  const auto run = [&](const Product& p) { multiply(&p, 1, precision); };
  Scratch<float> u(static_cast<size_t>(b.u_size()));
  if (u.size()) run(b.u(u.data()));
  if (dx) {
    run(b.dx(u.data()));
    if (A && dropout > 0) {
      Scratch<float> part(static_cast<size_t>(b.T * b.C));
      run(b.part(u.data(), part.data()));
      const Dropout mask(dropout, seed);
      float* to = dx->f32();
      parallel_ranges(b.T * b.C, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] += part[static_cast<size_t>(i)] * mask.factor(i);
      });
    }
  }
  if (dw) run(b.dw());
  if (dbias)
    add_column_sums(1, [&](int64_t) { return RowGroup{0, b.T, dbias->f32()}; }, b.N, dy->f32(), nullptr, nullptr);
  if (dA) {
    const Dropped xd(x->f32(), b.T * b.C, dropout, seed);
    run(b.dA(u.data(), xd.data()));
  }
  if (dB) run(b.dB());
}

}  // namespace temper::cpu
