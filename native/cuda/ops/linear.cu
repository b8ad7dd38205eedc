// Dense linear with an optional LoRA pair, on f32, bf16 or q8 weights, on the product core of matmul.h.
#include "cuda/matmul/matmul.h"
#include "gpu/ops.h"

namespace temper::gpu {
namespace {

Source rows_of(const float* data, int64_t count, int64_t ld) { return {.data = data, .ld = ld, .count = count}; }
Source columns_of(const float* data, int64_t count, int64_t ld) {
  return {.data = data, .ld = ld, .count = count, .k_inner = false};
}
// Activations, f32 or bf16.
Source rows_of(const Tensor& t, int64_t count, int64_t ld) {
  return {.data = t.data, .ld = ld, .count = count, .kind = kind_of(t)};
}
Source columns_of(const Tensor& t, int64_t count, int64_t ld) {
  return {.data = t.data, .ld = ld, .count = count, .kind = kind_of(t), .k_inner = false};
}

// y = x·Wᵀ + bias + scale·(h·Bᵀ), h = dropped·Aᵀ.
void forward(TensorRef y, TensorRef h, const Source& x, const Source& dropped, const Source& w, TensorRef bias,
             TensorRef A, TensorRef B, double scale, int64_t precision, const char* op) {
  const int64_t N = w.count, C = w.ld, T = x.count, R = A ? A->shape[0] : 0;
  Staging staging;
  Product p{.m = T, .n = N, .c = y->f32(), .ldc = N, .op = op};
  p.main = {x, w, C, 1.0f};
  if (bias) p.bias = bias->data, p.bias_kind = kind_of(*bias);
  if (A) {
    Product down{.m = T, .n = R, .c = h->f32(), .ldc = R, .op = op};
    down.main = {dropped, rows_of(A->f32(), R, C), C, 1.0f};
    down.staged = true;
    multiply(down, precision, staging);
    p.low_rank = {rows_of(h->f32(), T, R), rows_of(B->f32(), N, R), R, static_cast<float>(scale)};
  }
  multiply(p, precision, staging);
}

}  // namespace

void linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef w, TensorRef bias, TensorRef A, TensorRef B,
                double scale, double dropout, int64_t seed, int64_t precision, int64_t /*by_row*/) {
  const int64_t N = w->shape[0], C = w->shape[1], T = C ? x->numel() / C : 0;
  const Source xs = rows_of(*x, T, C);
  Source dropped = xs;
  dropped.mask = dropout_mask(dropout, seed);
  forward(y, h, xs, dropped, {.data = w->data, .ld = C, .count = N, .kind = kind_of(*w)}, bias, A, B, scale, precision,
          "linear_fwd");
}

void linear_q8_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef q, TensorRef scales, TensorRef bias, TensorRef A,
                   TensorRef B, double scale, int64_t precision, int64_t /*by_row*/) {
  const int64_t N = q->shape[0], C = q->shape[1];
  const Source xs = rows_of(x->f32(), x->rows(), C);
  forward(y, h, xs, xs, {.data = q->data, .q8_scales = scales->bf16(), .ld = C, .count = N, .kind = Kind::q8}, bias, A,
          B, scale, precision, "linear_q8_fwd");
}

void linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy, TensorRef x,
                TensorRef h, TensorRef w, TensorRef A, TensorRef B, double scale, double dropout, int64_t seed,
                int64_t accumulate_dx, int64_t precision) {
  constexpr const char* op = "linear_bwd";
  const int64_t N = w->shape[0], C = w->shape[1], T = N ? dy->numel() / N : 0, R = A ? A->shape[0] : 0;
  const float alpha = static_cast<float>(scale);
  const DropoutMask mask = dropout_mask(dropout, seed);
  Staging staging;
  Workspace<float> u(A && (dx || dA) ? static_cast<size_t>(T * R) : 0);  // dy·B
  if (u.size()) {
    Product p{.m = T, .n = R, .c = u.data(), .ldc = R, .op = op};
    p.main = {rows_of(*dy, T, N), columns_of(B->f32(), N, R), N, 1.0f};
    p.staged = dx != nullptr;
    multiply(p, precision, staging);
  }
  if (dx) {
    Product p{.m = T, .n = C, .c = dx->f32(), .ldc = C, .accumulate = accumulate_dx != 0, .op = op};
    p.main = {
        rows_of(*dy, T, N), {.data = w->data, .ld = C, .count = N, .kind = kind_of(*w), .k_inner = false}, N, 1.0f};
    if (A) {
      p.low_rank = {rows_of(u.data(), T, R), columns_of(A->f32(), R, C), R, alpha};
      p.low_rank_mask = mask;
    }
    multiply(p, precision, staging);
  }
  if (dw) {
    Product p{.m = N, .n = C, .c = dw->f32(), .ldc = C, .accumulate = true, .op = op};
    p.main = {columns_of(*dy, T, N), columns_of(*x, T, C), T, 1.0f};
    multiply(p, precision, staging);
  }
  if (dbias) add_column_sums(rows_of(*dy, T, N), N, T, nullptr, 1, dbias->f32(), op);
  if (dA) {
    Product p{.m = R, .n = C, .c = dA->f32(), .ldc = C, .accumulate = true, .op = op};
    p.main = {columns_of(u.data(), T, R), columns_of(*x, T, C), T, alpha};
    p.main.b.mask = mask;
    multiply(p, precision, staging);
  }
  if (dB) {
    Product p{.m = N, .n = R, .c = dB->f32(), .ldc = R, .accumulate = true, .op = op};
    p.main = {columns_of(*dy, T, N), columns_of(h->f32(), T, R), T, alpha};
    multiply(p, precision, staging);
  }
}

}  // namespace temper::gpu
