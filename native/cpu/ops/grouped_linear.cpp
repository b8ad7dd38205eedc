// One linear per expert over rows sorted by expert: every expert is a Product, and their tiles share one queue, so
// skewed routing idles no core.
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

}  // namespace

void grouped_linear_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets, TensorRef w,
                        TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale, int64_t layout,
                        int64_t precision, int64_t by_row) {
  const int64_t E = offsets->numel() - 1, P = y->shape[0], N = y->shape[1], C = x->shape[x->ndim - 1],
                X = C ? x->numel() / C : 0, R = A ? A->shape[1] : 0;
  check_offsets(*offsets, P, "grouped_linear_fwd");
  check_rows(rows, X, "grouped_linear_fwd", "rows");
  Scratch<Product> products(static_cast<size_t>(E));
  const auto each = [&](auto&& make) {
    int64_t count = 0;
    for (int64_t e = 0; e < E; ++e) {
      const int64_t begin = offsets->i32()[e], m = offsets->i32()[e + 1] - begin;
      if (m) products[static_cast<size_t>(count++)] = make(e, begin, m);
    }
    multiply(products.data(), count, precision);
  };
  if (A)
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = m, .n = R, .c = h->f32() + begin * R, .ldc = R, .by_row = by_row != 0};
      p.terms[0] = {rows_from(x->f32(), C, rows, begin, true), {.data = A->f32() + e * R * C, .ld = C}, C, 1.0f};
      return p;
    });
  each([&](int64_t e, int64_t begin, int64_t m) {
    Product p{.m = m, .n = N, .c = y->f32() + begin * N, .ldc = N, .by_row = by_row != 0};
    p.terms[0] = {rows_from(x->f32(), C, rows, begin, true), weight(*w, scales, e, N, C, layout, true), C, 1.0f};
    if (bias)
      p.bias = static_cast<const char*>(bias->data) + static_cast<size_t>(e * N) * size_of(bias->dtype),
      p.bias_kind = kind_of(*bias);
    if (A) {
      p.terms[1] = {{.data = h->f32() + begin * R, .ld = R},
                    {.data = B->f32() + e * N * R, .ld = R},
                    R,
                    static_cast<float>(scale)};
      p.num_terms = 2;
    }
    return p;
  });
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
  check_offsets(*offsets, P, op);
  check_rows(dy_rows, G, op, "dy_rows");
  check_rows(x_rows, X, op, "x_rows");
  const float* g = dy->f32();
  const float* r_weight = row_weight ? row_weight->f32() : nullptr;
  const float alpha = static_cast<float>(scale);
  Scratch<Product> products(static_cast<size_t>(E));
  const auto each = [&](auto&& make) {
    int64_t count = 0;
    for (int64_t e = 0; e < E; ++e) {
      const int64_t begin = offsets->i32()[e], m = offsets->i32()[e + 1] - begin;
      if (m) products[static_cast<size_t>(count++)] = make(e, begin, m);
    }
    multiply(products.data(), count, precision);
  };
  Scratch<float> u(A && (dx || dA) ? static_cast<size_t>(P * R) : 0);  // g·B
  if (u.size())
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = m, .n = R, .c = u.data() + begin * R, .ldc = R};
      p.terms[0] = {
          rows_from(g, N, dy_rows, begin, true), {.data = B->f32() + e * N * R, .ld = R, .k_inner = false}, N, 1.0f};
      return p;
    });
  if (dx)
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = m, .n = C, .c = dx->f32() + begin * C, .ldc = C};
      p.terms[0] = {rows_from(g, N, dy_rows, begin, true), weight(*w, scales, e, N, C, layout, false), N, 1.0f};
      if (A) {
        p.terms[1] = {{.data = u.data() + begin * R, .ld = R},
                      {.data = A->f32() + e * R * C, .ld = C, .k_inner = false},
                      R,
                      alpha};
        p.num_terms = 2;
      }
      return p;
    });
  if (dw)
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = N, .n = C, .c = dw->f32() + e * N * C, .ldc = C, .accumulate = true};
      p.terms[0] = {rows_from(g, N, dy_rows, begin, false, r_weight), rows_from(x->f32(), C, x_rows, begin, false), m,
                    1.0f};
      return p;
    });
  if (dbias)
    add_column_sums(
        E, [&](int64_t e) { return RowGroup{offsets->i32()[e], offsets->i32()[e + 1], dbias->f32() + e * N}; }, N, g,
        dy_rows ? dy_rows->i32() : nullptr, r_weight);
  if (dA)
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = R, .n = C, .c = dA->f32() + e * R * C, .ldc = C, .accumulate = true};
      p.terms[0] = {rows_from(u.data(), R, nullptr, begin, false, r_weight),
                    rows_from(x->f32(), C, x_rows, begin, false), m, alpha};
      return p;
    });
  if (dB)
    each([&](int64_t e, int64_t begin, int64_t m) {
      Product p{.m = N, .n = R, .c = dB->f32() + e * N * R, .ldc = R, .accumulate = true};
      p.terms[0] = {rows_from(g, N, dy_rows, begin, false, r_weight), rows_from(h->f32(), R, nullptr, begin, false), m,
                    alpha};
      return p;
    });
}

}  // namespace temper::cpu
