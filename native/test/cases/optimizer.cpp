// Cases: adamw, adamw_8bit, sum_squares.
#include <algorithm>
#include <cmath>
#include "temper/moment_codes.h"
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

// Arguments p, m, v, m_scales, v_scales, g, lr, beta1, beta2, eps, decay, step, scale. A code may be another one where
// what it stands for lies as near to the middle of two as f32 can tell; everywhere else it is the reference's.
void adamw_8bit_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const double lr = a[6].number, beta1 = a[7].number, beta2 = a[8].number, eps = a[9].number, decay = a[10].number,
               step = a[11].number, scale = a[12].number;
  const int64_t n = a[0].numel();
  for (size_t o : {0, 1, 2}) tol[o].resize(static_cast<size_t>(n));
  for (size_t o : {3, 4}) tol[o].resize(static_cast<size_t>(a[o].numel()));
  std::vector<double> edges[2];  // between codes' values, rising
  for (int which : {0, 1}) {
    std::vector<double> value;
    for (int code = 0; code < 256; ++code)
      value.push_back(which == 0 ? moments::value_of<true>(code) : moments::value_of<false>(code));
    std::sort(value.begin(), value.end());
    for (size_t i = 1; i < value.size(); ++i) edges[which].push_back((value[i - 1] + value[i]) / 2);
  }
  const auto doubtful = [&](int which, double y, double error) {
    const std::vector<double>& e = edges[which];
    const auto above = std::lower_bound(e.begin(), e.end(), y);
    return (above != e.end() && *above - y <= error) || (above != e.begin() && y - *(above - 1) <= error);
  };
  for (int64_t from = 0; from < n; from += moments::kBlock) {
    const int64_t block = from / moments::kBlock, to = std::min<int64_t>(n, from + moments::kBlock);
    double m_size = 0, v_size = 0;  // the largest sums of magnitudes, which bound what rounding does to the scales
    std::vector<double> m, v, m_error, v_error;
    for (int64_t i = from; i < to; ++i) {
      const double d = a[5].at(i) * scale, m0 = moments::value_of<true>(static_cast<int>(a[1].at(i))) * a[3].at(block),
                   v0 = moments::value_of<false>(static_cast<int>(a[2].at(i))) * a[4].at(block);
      const double sum = beta1 * std::fabs(m0) + (1 - beta1) * std::fabs(d);
      m.push_back(beta1 * m0 + (1 - beta1) * d);
      v.push_back(beta2 * v0 + (1 - beta2) * d * d);
      m_error.push_back(rounding(3) * sum + 0x1p-148);
      v_error.push_back(rounding(3) * v.back() + 0x1p-148);
      m_size = std::max(m_size, sum);
      v_size = std::max(v_size, v.back());
      const double root = std::sqrt(v.back() / (1 - std::pow(beta2, step)));
      tol[0][static_cast<size_t>(i)] = rounding(6) * (std::fabs(a[0].at(i)) * (1 + lr * decay) +
                                                      lr * sum / (1 - std::pow(beta1, step)) / (root + eps));
    }
    tol[3][static_cast<size_t>(block)] = rounding(3) * m_size + 0x1p-148;
    tol[4][static_cast<size_t>(block)] = rounding(3) * v_size + 0x1p-148;
    const double m_scale = want[3].at(block), v_scale = want[4].at(block);
    for (int64_t i = from; i < to; ++i) {
      const size_t at = static_cast<size_t>(i - from), o = static_cast<size_t>(i);
      const double y = m_scale > 0 ? m[at] / m_scale : 0, z = v_scale > 0 ? v[at] / v_scale : 0;
      const double m_off =
                       m_scale > 0 ? (m_error[at] + std::fabs(y) * tol[3][static_cast<size_t>(block)]) / m_scale : 0,
                   v_off = v_scale > 0 ? (v_error[at] + z * tol[4][static_cast<size_t>(block)]) / v_scale : 0;
      tol[1][o] = doubtful(0, y, m_off + rounding(4) * std::fabs(y)) ? 1 : 0;
      tol[2][o] = v[at] < 0x1p-148 ? 2 : doubtful(1, z, v_off + rounding(4) * z) ? 1 : 0;  // 2: what f32 says is 0
    }
  }
}

Values step_8bit_of(int64_t n, double step, double decay, double scale, double size = 1) {
  const int64_t blocks = (n + moments::kBlock - 1) / moments::kBlock;
  return {update(floats({n}, 1)),
          update(bytes_u8({n}, 2)),
          update(bytes_u8({n}, 3)),
          update(positive({blocks}, 5, 0, 0.1 * size)),
          update(positive({blocks}, 6, 0, 0.1 * size * size)),
          floats({n}, 4, size),
          2e-4,
          0.9,
          0.999,
          1e-8,
          decay,
          step,
          scale};
}
Values first_8bit_step(const std::vector<float>& gradients) {
  const int64_t n = static_cast<int64_t>(gradients.size()), blocks = (n + moments::kBlock - 1) / moments::kBlock;
  const std::vector<float> none(static_cast<size_t>(blocks));
  return {update(floats({n}, 1)),
          update(bytes_u8({n}, 2, 0, 0)),
          update(bytes_u8({n}, 3, 0, 0)),
          update(values_f32({blocks}, none)),
          update(values_f32({blocks}, none)),
          values_f32({n}, gradients),
          1e-3,
          0.9,
          0.95,
          1e-8,
          0.0,
          1.0,
          1.0};
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
  for (int64_t n : {int64_t{1}, int64_t{37}, int64_t{256}, int64_t{257}, int64_t{2048 + 255}, int64_t{70001}}) {
    r.check({.op = "adamw_8bit",
             .name = std::to_string(n) + " first step",
             .args = step_8bit_of(n, 1, 0, 1),
             .bound = adamw_8bit_bound});
    r.check({.op = "adamw_8bit",
             .name = std::to_string(n) + " later, decay, scaled",
             .args = step_8bit_of(n, 1000, 0.1, 0.03),
             .bound = adamw_8bit_bound});
  }
  for (double size : {1e-19, 1e-12, 1e12, 1e18})
    r.check({.op = "adamw_8bit",
             .name = "gradients of " + std::to_string(size),
             .args = step_8bit_of(1000, 10, 0, 1, size),
             .bound = adamw_8bit_bound});
  {
    std::vector<float> all;  // every size there is, from denormals on, and blocks of zeros alone
    for (int i = 0; i < 1024; ++i)
      all.push_back(i >= 512 && i < 768 ? 0.0f : std::ldexp(i % 3 == 0 ? -1.0f : 1.0f + 0.001f * i, i % 60 - 70));
    r.check({.op = "adamw_8bit", .name = "from zero", .args = first_8bit_step(all), .bound = adamw_8bit_bound});
    for (float& x : all) x *= 0x1p-40f;
    r.check({.op = "adamw_8bit", .name = "squares below f32", .args = first_8bit_step(all), .bound = adamw_8bit_bound});
  }
  r.check({.op = "adamw_8bit", .name = "step 0", .args = step_8bit_of(4, 0, 0, 1), .error = "bad_argument"});
  {
    Values few = step_8bit_of(257, 1, 0, 1);
    few[3] = update(positive({1}, 5, 0, 0.1));
    r.check({.op = "adamw_8bit", .name = "a scale too few", .args = few, .error = "shape_mismatch"});
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
    r.check({.op = "adamw_8bit",
             .name = "4M",
             .args = {update(smooth({1 << 22}, 1)), update(bytes_u8({1 << 22}, 2)), update(bytes_u8({1 << 22}, 3)),
                      update(positive({1 << 14}, 5, 0, 1)), update(positive({1 << 14}, 6, 0, 1)), smooth({1 << 22}, 4),
                      2e-4, 0.9, 0.999, 1e-8, 0.0, 10.0, 1.0},
             .bytes = (1 << 22) * 16.0 + (1 << 14) * 16.0,
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
