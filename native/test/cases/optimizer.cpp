// Cases: adamw, sum_squares.
#include <cmath>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

void adamw_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const double lr = a[4].number, beta1 = a[5].number, beta2 = a[6].number, eps = a[7].number, decay = a[8].number,
               step = a[9].number, scale = a[10].number;
  for (size_t o : {0, 1, 2}) tol[o].resize(static_cast<size_t>(a[0].numel()));
  for (int64_t i = 0; i < a[0].numel(); ++i) {
    const double d = std::fabs(a[3].at(i) * scale), m = beta1 * std::fabs(a[1].at(i)) + (1 - beta1) * d,
                 v = beta2 * std::fabs(a[2].at(i)) + (1 - beta2) * d * d;
    const double root = std::sqrt(want[2].at(i) / (1 - std::pow(beta2, step)));
    tol[1][static_cast<size_t>(i)] = rounding(2) * m + 0x1p-149;
    tol[2][static_cast<size_t>(i)] = rounding(2) * v + 0x1p-149;
    tol[0][static_cast<size_t>(i)] =
        rounding(4) * (std::fabs(a[0].at(i)) * (1 + lr * decay) + lr * m / (1 - std::pow(beta1, step)) / (root + eps));
  }
}

Values step_of(int64_t n, double step, double decay, double scale) {
  return {update(floats({n}, 1)),
          update(floats({n}, 2, 0.1)),
          update(positive({n}, 3, 0, 0.1)),
          floats({n}, 4),
          2e-4,
          0.9,
          0.999,
          1e-8,
          decay,
          step,
          scale};
}

const Suite suite{[](Registry& r) {
  for (int64_t n : {int64_t{1}, int64_t{37}, int64_t{70001}}) {
    r.check(
        {.op = "adamw", .name = std::to_string(n) + " first step", .args = step_of(n, 1, 0, 1), .bound = adamw_bound});
    r.check({.op = "adamw",
             .name = std::to_string(n) + " later, decay, scaled",
             .args = step_of(n, 1000, 0.1, 0.03),
             .bound = adamw_bound});
    r.check({.op = "sum_squares",
             .name = std::to_string(n),
             .args = {out({1}), floats({n}, 1)},
             .bound = sum_of_products(1)});
  }
  r.check({.op = "adamw",
           .name = "from zero",
           .args = {update(floats({8}, 1)), update(values_f32({8}, std::vector<float>(8))),
                    update(values_f32({8}, std::vector<float>(8))),
                    values_f32({8}, {0, 1, -1, 1e-12f, -1e-12f, 1e6f, -1e6f, 0}), 1e-3, 0.9, 0.95, 1e-8, 0.0, 1.0, 1.0},
           .bound = adamw_bound});
  r.check({.op = "adamw", .name = "step 0", .args = step_of(4, 0, 0, 1), .error = "bad_argument"});
  r.check({.op = "sum_squares",
           .name = "large values",
           .args = {out({1}), floats({5000}, 1, 1e15)},
           .bound = sum_of_products(1)});
  if (r.for_bench)
    r.check({.op = "adamw",
             .name = "4M",
             .args = {update(smooth({1 << 22}, 1)), update(smooth({1 << 22}, 2)), update(positive({1 << 22}, 3, 0, 1)),
                      smooth({1 << 22}, 4), 2e-4, 0.9, 0.999, 1e-8, 0.0, 10.0, 1.0},
             .bytes = (1 << 22) * 28.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "sum_squares",
             .name = "4M",
             .args = {out({1}), smooth({1 << 22}, 1)},
             .bytes = (1 << 22) * 4.0,
             .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
