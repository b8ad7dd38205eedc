// One linear per expert over rows sorted by expert: one Product whose tiles find their expert in the offsets, so that
// nothing is read back to the host.
#include "cuda/matmul/matmul.h"
#include "gpu/ops.h"

namespace temper::gpu {
namespace {

// The experts' weights as the right operand: contracted over C (forward) or over N (backward).
Source weights(const Tensor& w, TensorRef scales, int64_t E, int64_t N, int64_t C, int64_t layout, bool over_c) {
  if (layout == 0)
    return {.data = w.data,
            .scales = scales->u8(),
            .ld = C,
            .count = E * N,
            .group_rows = N,
            .kind = Kind::mxfp4,
            .k_inner = over_c};
  const int64_t rows = layout == 1 ? N : C;
  return {.data = w.data,
          .ld = layout == 1 ? C : N,
          .count = E * rows,
          .group_rows = rows,
          .kind = kind_of(w),
          .k_inner = over_c == (layout == 1)};
}
Source rows_of(const float* data, int64_t count, int64_t ld, TensorRef index = nullptr, const char* name = "") {
  return {.data = data, .ld = ld, .count = count, .index = index ? index->i32() : nullptr, .index_name = name};
}
// Activations, f32 or bf16.
Source rows_of(const Tensor& t, int64_t count, int64_t ld, TensorRef index, const char* name) {
  Source s = rows_of(nullptr, count, ld, index, name);
  s.data = t.data, s.kind = kind_of(t);
  return s;
}
Source columns(Source s) {
  s.k_inner = false;
  return s;
}
// A low-rank matrix [E, rows, ld] as the right operand.
Source adapter(const Tensor& t, bool k_inner) {
  return {
      .data = t.data, .ld = t.shape[2], .count = t.shape[0] * t.shape[1], .group_rows = t.shape[1], .k_inner = k_inner};
}

}  // namespace

namespace {

// A forward product of P rows and N outputs; c goes to y, and what is activated of it elsewhere.
class Forward {
 public:
  Forward(const args::grouped_linear_fwd& a, int64_t P, int64_t N, const char* op, const Product::Activated& activated)
      : a_(a), P_(P), C_(a.x->shape[a.x->ndim - 1]), op_(op), main_(product(N, a.y ? a.y->f32() : nullptr)) {
    main_.main = {rows_of(*a.x, C_ ? a.x->numel() / C_ : 0, C_, a.rows, "rows"),
                  weights(*a.w, a.scales, a.offsets->numel() - 1, N, C_, a.layout, true), C_, 1.0f};
    main_.activated = activated;
    main_.main.a.interleaved = in_registers = mxfp4_suits(main_, a.precision);
    if (a.bias) main_.bias = a.bias->data, main_.bias_kind = kind_of(*a.bias);
  }
  void run() {
    Staging staging;
    if (a_.A) {
      const int64_t R = a_.A->shape[1];
      Product down = product(R, a_.h->f32());
      down.main = {main_.main.a, adapter(*a_.A, true), C_, 1.0f};
      down.main.b.interleaved = in_registers;
      down.staged = true;
      multiply(down, a_.precision, staging);
      main_.low_rank = {rows_of(a_.h->f32(), P_, R), adapter(*a_.B, true), R, static_cast<float>(a_.scale)};
    }
    multiply(main_, a_.precision, staging);
  }
  bool in_registers;  // by the kernel whose weights are the register operand

 private:
  Product product(int64_t n, float* c) const {
    return {.m = P_,
            .n = n,
            .c = c,
            .ldc = n,
            .ragged = Ragged::rows,
            .offsets = a_.offsets->i32(),
            .groups = a_.offsets->numel() - 1,
            .op = op_};
  }
  const args::grouped_linear_fwd& a_;
  int64_t P_, C_;
  const char* op_;
  Product main_;
};

}  // namespace

void grouped_linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets, TensorRef w,
                        TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale, int64_t layout,
                        int64_t precision, int64_t by_row) {
  const args::grouped_linear_fwd a{y, h, x, rows, offsets, w, scales, bias, A, B, scale, layout, precision, by_row};
  Forward(a, y->shape[0], y->shape[1], "grouped_linear_fwd", {}).run();
}

bool grouped_linear_activated(const args::grouped_linear_swiglu_fwd& a) {
  const args::grouped_linear_fwd product{a.z,    a.h, a.x, a.rows,  a.offsets, a.w,         a.scales,
                                         a.bias, a.A, a.B, a.scale, a.layout,  a.precision, a.by_row};
  Forward forward(product, a.a->shape[0], 2 * a.a->shape[1], "grouped_linear_swiglu_fwd",
                  {a.a->data, kind_of(*a.a), static_cast<float>(a.alpha), static_cast<float>(a.limit)});
  if (!forward.in_registers || reinterpret_cast<uintptr_t>(a.a->data) % 8) return false;
  forward.run();
  return true;
}

void grouped_linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy,
                        TensorRef dy_rows, TensorRef row_weight, TensorRef x, TensorRef x_rows, TensorRef h,
                        TensorRef offsets, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale,
                        int64_t layout, int64_t precision) {
  constexpr const char* op = "grouped_linear_bwd";
  const int64_t E = offsets->numel() - 1, N = dy->shape[dy->ndim - 1], C = x->shape[x->ndim - 1],
                R = A ? A->shape[1] : 0;
  const int64_t X = C ? x->numel() / C : 0, G = N ? dy->numel() / N : 0;
  const int64_t P = dx ? dx->shape[0] : dy_rows ? dy_rows->numel() : x_rows ? x_rows->numel() : G;
  const float alpha = static_cast<float>(scale);
  const Source g = rows_of(*dy, G, N, dy_rows, "dy_rows"), xs = columns(rows_of(*x, X, C, x_rows, "x_rows"));
  const auto weighted = [&](Source of) {  // r∘of
    of.row_scale = row_weight ? row_weight->f32() : nullptr;
    return of;
  };
  const auto over_rows = [&](int64_t n, float* c) {
    return Product{
        .m = P, .n = n, .c = c, .ldc = n, .ragged = Ragged::rows, .offsets = offsets->i32(), .groups = E, .op = op};
  };
  // c[e] += alpha·aᵀ·b over the rows of expert e
  const auto gradient = [&](int64_t m, int64_t n, float* c, const Source& a, const Source& b, float factor,
                            Staging& staging) {
    Product p{.m = m,
              .n = n,
              .c = c,
              .ldc = n,
              .accumulate = true,
              .ragged = Ragged::k,
              .offsets = offsets->i32(),
              .groups = E,
              .op = op};
    p.main = {columns(a), b, P, factor};
    multiply(p, precision, staging);
  };
  Staging staging;
  Workspace<float> u(A && (dx || dA) ? static_cast<size_t>(P * R) : 0);  // g·B
  if (u.size()) {
    Product p = over_rows(R, u.data());
    p.main = {g, adapter(*B, false), N, 1.0f};
    p.staged = dx != nullptr;
    multiply(p, precision, staging);
  }
  if (dx) {
    Product p = over_rows(C, dx->f32());
    p.main = {g, weights(*w, scales, E, N, C, layout, false), N, 1.0f};
    if (A) p.low_rank = {rows_of(u.data(), P, R), adapter(*A, false), R, alpha};
    multiply(p, precision, staging);
  }
  if (dw) gradient(N, C, dw->f32(), weighted(g), xs, 1.0f, staging);
  if (dbias) add_column_sums(weighted(g), N, P, offsets->i32(), E, dbias->f32(), op);
  if (dA) gradient(R, C, dA->f32(), weighted(rows_of(u.data(), P, R)), xs, alpha, staging);
  // r goes with h, which is narrow: a copy of g for its sake would be as large as what is multiplied.
  if (dB) gradient(N, R, dB->f32(), g, columns(weighted(rows_of(h->f32(), P, R))), alpha, staging);
}

}  // namespace temper::gpu
