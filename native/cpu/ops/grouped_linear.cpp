// One linear per expert over rows sorted by expert: every expert is a Product, and their tiles share one queue, so
// skewed routing idles no core.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "cpu/host/mxfp4.h"
#include "cpu/host/number.h"
#include "cpu/matmul/column_sum.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"

namespace temper::cpu {
namespace {

void check_rows(TensorRef rows, int64_t limit, const char* op, const char* name) {
  if (!rows) return;
  for (int64_t i = 0; i < rows->numel(); ++i) {
    const int32_t v = rows->i32()[i];
    require(v >= 0 && v < limit, "bad_index", op, ": ", name, "[", i, "]: got ", v, ", wanted 0 to ", limit - 1);
  }
}

// Expert e of w as the right operand: contracted over C (forward) or over N (backward).
Source weight(const Tensor& w, TensorRef scales, int64_t e, int64_t N, int64_t C, int64_t layout, bool over_c) {
  Source s;
  if (layout == 0) {
    s = {.data = w.u8() + e * N * (C / 2),
         .scales = scales->u8() + e * N * (C / kGroup),
         .ld = C,
         .kind = Kind::mxfp4,
         .k_inner = over_c};
  } else {
    const char* data = static_cast<const char*>(w.data) + static_cast<size_t>(e * N * C) * size_of(w.dtype);
    s = {.data = data, .ld = layout == 1 ? C : N, .kind = kind_of(w), .k_inner = over_c == (layout == 1)};
  }
  return s;
}

// Rows [begin, …) of a row-major f32 matrix, gathered when rows is given, as an operand.
Source rows_from(const float* data, int64_t ld, TensorRef rows, int64_t begin, bool k_inner,
                 const float* row_scale = nullptr) {
  return {.data = rows ? data : data + begin * ld,
          .ld = ld,
          .rows = rows ? rows->i32() + begin : nullptr,
          .row_scale = row_scale ? row_scale + begin : nullptr,
          .k_inner = k_inner};
}

// Rows of each expert: as the offsets say, or, where a plan does not know them, alike.
class ExpertRows {
 public:
  ExpertRows(TensorRef offsets, int64_t P)
      : experts(offsets->numel() - 1), offsets_(has_contents(offsets) ? offsets->i32() : nullptr), P_(P) {}
  int64_t begin(int64_t e) const { return offsets_ ? offsets_[e] : e * P_ / experts; }
  // Calls multiply for what make(expert, first row, rows) gives for every expert that has rows.
  template <class Make>
  void each(Product* products, int64_t precision, Make&& make) const {
    multiply(products, fill(products, make), precision);
  }
  template <class Make>
  size_t workspace(Product* products, int64_t precision, Make&& make) const {
    return multiply_workspace(products, fill(products, make), precision);
  }
  const int64_t experts;

 private:
  template <class Make>
  int64_t fill(Product* products, Make&& make) const {
    int64_t count = 0;
    for (int64_t e = 0; e < experts; ++e)
      if (const int64_t m = begin(e + 1) - begin(e)) products[count++] = make(e, begin(e), m);
    return count;
  }
  const int32_t* offsets_;
  int64_t P_;
};

// The products of a call; cost and kernel are made of the same ones.
struct Forward {
  const args::grouped_linear_fwd& a;
  int64_t P = a.y->shape[0], N = a.y->shape[1], C = a.x->shape[a.x->ndim - 1], R = a.A ? a.A->shape[1] : 0;
  RowBits bits = static_cast<RowBits>(a.by_row);

  Product down(int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = m, .n = R, .c = a.h->f32() + begin * R, .ldc = R, .bits = bits};
    p.terms[0] = {rows_from(a.x->f32(), C, a.rows, begin, true), {.data = a.A->f32() + e * R * C, .ld = C}, C, 1.0f};
    return p;
  }
  Product whole(int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = m, .n = N, .c = a.y->f32() + begin * N, .ldc = N, .bits = bits};
    p.terms[0] = {rows_from(a.x->f32(), C, a.rows, begin, true), weight(*a.w, a.scales, e, N, C, a.layout, true), C,
                  1.0f};
    if (a.bias)
      p.bias = static_cast<const char*>(a.bias->data) + static_cast<size_t>(e * N) * size_of(a.bias->dtype),
      p.bias_kind = kind_of(*a.bias);
    if (a.A) {
      p.terms[1] = {{.data = a.h->f32() + begin * R, .ld = R},
                    {.data = a.B->f32() + e * N * R, .ld = R},
                    R,
                    static_cast<float>(a.scale)};
      p.num_terms = 2;
    }
    return p;
  }
};

struct Backward {
  const args::grouped_linear_bwd& a;
  int64_t N = a.dy->shape[a.dy->ndim - 1], C = a.x->shape[a.x->ndim - 1], R = a.A ? a.A->shape[1] : 0;
  int64_t X = C ? a.x->numel() / C : 0, G = N ? a.dy->numel() / N : 0;
  int64_t P = a.dx ? a.dx->shape[0] : a.dy_rows ? a.dy_rows->numel() : a.x_rows ? a.x_rows->numel() : G;
  const float* r_weight = a.row_weight ? a.row_weight->f32() : nullptr;
  float alpha = static_cast<float>(a.scale);

  int64_t u_size() const { return a.A && (a.dx || a.dA) ? P * R : 0; }
  Product u(float* to, int64_t e, int64_t begin, int64_t m) const {  // g·B
    Product p{.m = m, .n = R, .c = to + begin * R, .ldc = R};
    p.terms[0] = {rows_from(a.dy->f32(), N, a.dy_rows, begin, true),
                  {.data = a.B->f32() + e * N * R, .ld = R, .k_inner = false},
                  N,
                  1.0f};
    return p;
  }
  Product dx(const float* u, int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = m, .n = C, .c = a.dx->f32() + begin * C, .ldc = C};
    p.terms[0] = {rows_from(a.dy->f32(), N, a.dy_rows, begin, true), weight(*a.w, a.scales, e, N, C, a.layout, false),
                  N, 1.0f};
    if (a.A) {
      p.terms[1] = {
          {.data = u + begin * R, .ld = R}, {.data = a.A->f32() + e * R * C, .ld = C, .k_inner = false}, R, alpha};
      p.num_terms = 2;
    }
    return p;
  }
  Product dw(int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = N, .n = C, .c = a.dw->f32() + e * N * C, .ldc = C, .accumulate = true};
    p.terms[0] = {rows_from(a.dy->f32(), N, a.dy_rows, begin, false, r_weight),
                  rows_from(a.x->f32(), C, a.x_rows, begin, false), m, 1.0f};
    return p;
  }
  Product dA(const float* u, int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = R, .n = C, .c = a.dA->f32() + e * R * C, .ldc = C, .accumulate = true};
    p.terms[0] = {rows_from(u, R, nullptr, begin, false, r_weight), rows_from(a.x->f32(), C, a.x_rows, begin, false), m,
                  alpha};
    return p;
  }
  Product dB(int64_t e, int64_t begin, int64_t m) const {
    Product p{.m = N, .n = R, .c = a.dB->f32() + e * N * R, .ldc = R, .accumulate = true};
    p.terms[0] = {rows_from(a.dy->f32(), N, a.dy_rows, begin, false, r_weight),
                  rows_from(a.h->f32(), R, nullptr, begin, false), m, alpha};
    return p;
  }
};

// Bytes of expert weights that P routed rows touch: each row at most one expert more.
double touched(std::initializer_list<TensorRef> weights, int64_t P, int64_t E) {
  double bytes = 0;
  for (TensorRef w : weights) bytes += bytes_of(w);
  return bytes * std::min(1.0, static_cast<double>(P) / static_cast<double>(std::max<int64_t>(1, E)));
}

}  // namespace

Cost cost::grouped_linear_fwd(const args::grouped_linear_fwd& a) {
  const Forward f{a};
  const ExpertRows experts(a.offsets, f.P);
  std::vector<Product> products(static_cast<size_t>(experts.experts));
  size_t most = experts.workspace(products.data(), a.precision, [&](auto... at) { return f.whole(at...); });
  if (a.A)
    most = std::max(most, experts.workspace(products.data(), a.precision, [&](auto... at) { return f.down(at...); }));
  const double E = static_cast<double>(std::max<int64_t>(1, experts.experts));
  return {.flops = 2.0 * f.P * (f.N * f.C + f.R * (f.N + f.C)),
          .bytes = bytes_of(a.y) + bytes_of(a.h) + bytes_of(a.x) +
                   touched({a.w, a.scales, a.bias, a.A, a.B}, f.P, experts.experts),
          .rows = static_cast<double>(f.P) / E,
          .workspace = static_cast<double>(products.size() * sizeof(Product) + most) + widened({a.x})};
}

void grouped_linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets, TensorRef w,
                        TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale, int64_t layout,
                        int64_t precision, int64_t by_row) {
  const args::grouped_linear_fwd a{y, h, x, rows, offsets, w, scales, bias, A, B, scale, layout, precision, by_row};
  const Forward f{a};
  check_offsets(*offsets, f.P, "grouped_linear_fwd");
  check_rows(rows, f.C ? x->numel() / f.C : 0, "grouped_linear_fwd", "rows");
  const ExpertRows experts(offsets, f.P);
  Scratch<Product> products(static_cast<size_t>(experts.experts));
  if (A) experts.each(products.data(), precision, [&](auto... at) { return f.down(at...); });
  experts.each(products.data(), precision, [&](auto... at) { return f.whole(at...); });
}

Cost cost::grouped_linear_bwd(const args::grouped_linear_bwd& a) {
  const Backward b{a};
  const ExpertRows experts(a.offsets, b.P);
  std::vector<Product> products(static_cast<size_t>(experts.experts));
  const size_t u = static_cast<size_t>(b.u_size()) * sizeof(float);
  size_t most = 0;
  const auto add = [&](auto&& make) { most = std::max(most, experts.workspace(products.data(), a.precision, make)); };
  if (u) add([&](auto... at) { return b.u(no_memory(), at...); });
  if (a.dx) add([&](auto... at) { return b.dx(no_memory(), at...); });
  if (a.dw) add([&](auto... at) { return b.dw(at...); });
  if (a.dA) add([&](auto... at) { return b.dA(no_memory(), at...); });
  if (a.dB) add([&](auto... at) { return b.dB(at...); });
  Cost cost = streamed(a, static_cast<double>(products.size() * sizeof(Product) + u + most) + widened({a.dy, a.x}));
  cost.flops = 2.0 * b.P * (((a.dx ? 1 : 0) + (a.dw ? 1 : 0)) * b.N * b.C + 2 * b.R * (b.N + b.C));
  cost.rows = static_cast<double>(b.P) / static_cast<double>(std::max<int64_t>(1, experts.experts));
  return cost;
}

void grouped_linear_bwd(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy,
                        TensorRef dy_rows, TensorRef row_weight, TensorRef x, TensorRef x_rows, TensorRef h,
                        TensorRef offsets, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale,
                        int64_t layout, int64_t precision) {
  constexpr const char* op = "grouped_linear_bwd";
  const args::grouped_linear_bwd a{dx, dw,      dbias, dA,     dB, dy, dy_rows, row_weight, x,        x_rows,
                                   h,  offsets, w,     scales, A,  B,  scale,   layout,     precision};
  const Backward b{a};
  check_offsets(*offsets, b.P, op);
  check_rows(dy_rows, b.G, op, "dy_rows");
  check_rows(x_rows, b.X, op, "x_rows");
  const ExpertRows experts(offsets, b.P);
  Scratch<Product> products(static_cast<size_t>(experts.experts));
  const auto each = [&](auto&& make) { experts.each(products.data(), precision, make); };
  Scratch<float> u(static_cast<size_t>(b.u_size()));
  if (u.size()) each([&](auto... at) { return b.u(u.data(), at...); });
  if (dx) each([&](auto... at) { return b.dx(u.data(), at...); });
  if (dw) each([&](auto... at) { return b.dw(at...); });
  if (dbias)
    add_column_sums(
        experts.experts,
        [&](int64_t e) { return RowGroup{experts.begin(e), experts.begin(e + 1), dbias->f32() + e * b.N}; }, b.N,
        dy->f32(), dy_rows ? dy_rows->i32() : nullptr, b.r_weight);
  if (dA) each([&](auto... at) { return b.dA(u.data(), at...); });
  if (dB) each([&](auto... at) { return b.dB(at...); });
}

}  // namespace temper::cpu
