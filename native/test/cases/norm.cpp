// Cases: embedding, rmsnorm, rope.
#include <cmath>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// y = s·rstd·w with s = x + residual: both additions of s can cancel, the mean of squares cannot.
void rmsnorm_fwd_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const Value &x = a[3], &residual = a[4], &w = a[5];
  const int64_t T = x.tensor.shape[0], D = x.tensor.shape[1];
  for (int i : {0, 1, 2})
    tol[static_cast<size_t>(i)].resize(
        a[static_cast<size_t>(i)].is_tensor() ? static_cast<size_t>(a[static_cast<size_t>(i)].numel()) : 0);
  for (int64_t t = 0; t < T; ++t) {
    const double rstd = want[1].at(t);
    double squares = 0, loose = 0;
    for (int64_t d = 0; d < D; ++d) {
      const double r = residual.is_tensor() ? residual.at(t * D + d) : 0, s = x.at(t * D + d) + r,
                   m = std::fabs(x.at(t * D + d)) + std::fabs(r);
      squares += s * s;
      loose += m * std::fabs(s);
    }
    const double relative = rounding(static_cast<double>(D)) * (squares > 0 ? loose / squares : 1);
    tol[1][static_cast<size_t>(t)] = relative * rstd;
    for (int64_t d = 0; d < D; ++d) {
      const int64_t i = t * D + d;
      const double m = std::fabs(x.at(i)) + (residual.is_tensor() ? std::fabs(residual.at(i)) : 0);
      tol[0][static_cast<size_t>(i)] = (relative + 8 * kUnit) * m * rstd * std::fabs(w.at(d));
      if (a[2].is_tensor()) tol[2][static_cast<size_t>(i)] = residual.is_tensor() ? 2 * kUnit * m : 0;
    }
  }
}

void rmsnorm_bwd_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const Value &dy = a[2], &dres = a[3], &x = a[4], &w = a[5], &rstd = a[6];
  const int64_t T = x.tensor.shape[0], D = x.tensor.shape[1];
  tol[0].resize(static_cast<size_t>(T * D));
  if (a[1].is_tensor()) tol[1].resize(static_cast<size_t>(D));
  for (int64_t d = 0; d < D && a[1].is_tensor(); ++d) {
    double sum = std::fabs(a[1].at(d));
    for (int64_t t = 0; t < T; ++t) sum += std::fabs(dy.at(t * D + d) * x.at(t * D + d) * rstd.at(t));
    tol[1][static_cast<size_t>(d)] = rounding(static_cast<double>(T)) * sum;
  }
  for (int64_t t = 0; t < T; ++t) {
    const double r = rstd.at(t);
    double mean = 0;
    for (int64_t d = 0; d < D; ++d)
      mean += std::fabs(w.at(d) * dy.at(t * D + d) * x.at(t * D + d)) / static_cast<double>(D);
    for (int64_t d = 0; d < D; ++d) {
      const int64_t i = t * D + d;
      tol[0][static_cast<size_t>(i)] =
          8 * kUnit * ((dres.is_tensor() ? std::fabs(dres.at(i)) : 0) + r * std::fabs(w.at(d) * dy.at(i))) +
          rounding(static_cast<double>(D)) * std::fabs(x.at(i)) * mean * r * r * r;
    }
  }
}

void rope_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const int64_t T = a[1].tensor.shape[0], half = a[1].tensor.shape[1], H = static_cast<int64_t>(a[3].number);
  tol[0].resize(static_cast<size_t>(a[0].numel()));
  for (int64_t t = 0; t < T; ++t)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t j = 0; j < half; ++j) {
        const int64_t i = (t * H + h) * 2 * half + j;
        const double u = std::fabs(a[0].at(i)), v = std::fabs(a[0].at(i + half)), c = std::fabs(a[1].at(t * half + j)),
                     s = std::fabs(a[2].at(t * half + j));
        tol[0][static_cast<size_t>(i)] = rounding(2) * (u * c + v * s);
        tol[0][static_cast<size_t>(i + half)] = rounding(2) * (v * c + u * s);
      }
}

Value inverse_frequencies(int64_t half) {
  Value f = out({half});
  f.role = Role::in;
  for (int64_t j = 0; j < half; ++j) f.set(j, std::pow(150000.0, -static_cast<double>(j) / static_cast<double>(half)));
  return f;
}
Value positions(const std::vector<int32_t>& p) { return values_i32({static_cast<int64_t>(p.size())}, p); }
Value up_to(int64_t T) {
  std::vector<int32_t> p;
  for (int64_t t = 0; t < T; ++t) p.push_back(static_cast<int32_t>(t));
  return positions(p);
}

const Suite suite{[](Registry& r) {
  // y, table, ids
  for (auto [T, V, D] : {std::array<int64_t, 3>{1, 1, 1}, {7, 5, 19}, {33, 300, 2880}}) {
    const std::string name = std::to_string(T) + "x" + std::to_string(D);
    r.check({.op = "embedding_fwd",
             .name = name + " bf16",
             .args = {out({T, D}), floats({V, D}, 1, 1, DType::bf16), indices({T}, 2, V)}});
    r.check(
        {.op = "embedding_fwd", .name = name + " f32", .args = {out({T, D}), floats({V, D}, 1), indices({T}, 2, V)}});
    r.check({.op = "embedding_bwd",
             .name = name,
             .args = {update(floats({V, D}, 3)), floats({T, D}, 4), indices({T}, 2, V)},
             .bound = sum_of_products(static_cast<double>(T))});
  }
  r.check({.op = "embedding_bwd",
           .name = "one id many times",
           .args = {update(floats({3, 40}, 3)), floats({500, 40}, 4), indices({500}, 2, 2)},
           .bound = sum_of_products(500)});
  // A token sort of several tiles and two digits; a few ids take most rows.
  Value skewed = indices({2500}, 5, 3000);
  for (int64_t t = 0; t < 2500; t += 3) skewed.set(t, 2999);
  r.check({.op = "embedding_bwd",
           .name = "2500 tokens, skewed",
           .args = {update(floats({3000, 4}, 3)), floats({2500, 4}, 4), skewed},
           .bound = sum_of_products(2500)});
  for (int32_t bad : {-1, 5}) {
    r.check({.op = "embedding_fwd",
             .name = "id " + std::to_string(bad),
             .args = {out({2, 3}), floats({5, 3}, 1), values_i32({2}, {0, bad})},
             .error = "bad_index"});
    r.check({.op = "embedding_bwd",
             .name = "id " + std::to_string(bad),
             .args = {update(floats({5, 3}, 1)), floats({2, 3}, 2), values_i32({2}, {0, bad})},
             .error = "bad_index"});
  }
  r.grad({.op = "embedding_bwd",
          .name = "repeated ids",
          .forward = "embedding_fwd",
          .args = {out({5, 6}), smooth({4, 6}, 1), values_i32({5}, {3, 0, 3, 2, 3})},
          .outputs = {0},
          .pairs = {{1, 0}},
          .backward = [](const Values& a, const Values& up) {
            return Values{update(values_f32({4, 6}, std::vector<float>(24))), up[0], a[2]};
          }});
  if (r.for_bench)
    r.check({.op = "embedding_fwd",
             .name = "gpt-oss 512x2880 bf16",
             .args = {out({512, 2880}), smooth({4096, 2880}, 1, 1, DType::bf16), indices({512}, 2, 4096)},
             .bytes = 512 * 2880 * 6.0,
             .bench_only = true});

  // y, rstd, sum?, x, residual?, w, eps
  for (auto [T, D] : {std::array<int64_t, 2>{1, 1},
                      {1, 64},
                      {5, 37},
                      {70, 1000},
                      {40, 2880},
                      {1100, 12},
                      {3, 2048},
                      {3, 4096},
                      {2, 4100}}) {
    const std::string name = std::to_string(T) + "x" + std::to_string(D);
    const Value y = out({T, D}), rstd = out({T}), x = floats({T, D}, 11), w32 = floats({D}, 12),
                w16 = floats({D}, 12, 1, DType::bf16), res = floats({T, D}, 13);
    r.check({.op = "rmsnorm_fwd",
             .name = name + " plain",
             .args = {y, rstd, nullptr, x, nullptr, w32, 1e-5},
             .bound = rmsnorm_fwd_bound});
    r.check({.op = "rmsnorm_fwd",
             .name = name + " sum, residual, bf16",
             .args = {y, rstd, out({T, D}), x, res, w16, 1e-5},
             .bound = rmsnorm_fwd_bound});
    r.check({.op = "rmsnorm_fwd",
             .name = name + " sum over x",
             .args = {y, rstd, out_alias({T, D}, 3), x, res, w16, 1e-5},
             .bound = rmsnorm_fwd_bound});
    r.check({.op = "rmsnorm_fwd",
             .name = name + " residual only",
             .args = {y, rstd, nullptr, x, res, w32, 1e-5},
             .bound = rmsnorm_fwd_bound});
    const Value dy = floats({T, D}, 14), r1 = positive({T}, 15, 0.2, 3);
    r.check({.op = "rmsnorm_bwd",
             .name = name + " plain",
             .args = {out({T, D}), nullptr, dy, nullptr, x, w16, r1},
             .bound = rmsnorm_bwd_bound});
    r.check({.op = "rmsnorm_bwd",
             .name = name + " dw, dres",
             .args = {out({T, D}), update(floats({D}, 16)), dy, res, x, w32, r1},
             .bound = rmsnorm_bwd_bound});
    r.check({.op = "rmsnorm_bwd",
             .name = name + " over dres",
             .args = {out_alias({T, D}, 3), update(floats({D}, 16)), dy, res, x, w16, r1},
             .bound = rmsnorm_bwd_bound});
    r.check({.op = "rmsnorm_bwd",
             .name = name + " over dy",
             .args = {out_alias({T, D}, 2), update(floats({D}, 16)), dy, res, x, w16, r1},
             .bound = rmsnorm_bwd_bound});
  }
  r.check({.op = "rmsnorm_fwd",
           .name = "zero row",
           .args = {out({2, 8}), out({2}), nullptr, values_f32({2, 8}, std::vector<float>(16)), nullptr, floats({8}, 1),
                    1e-5},
           .bound = rmsnorm_fwd_bound});
  r.grad(
      {.op = "rmsnorm_bwd",
       .name = "3x17",
       .forward = "rmsnorm_fwd",
       .args = {out({3, 17}), out({3}), out({3, 17}), smooth({3, 17}, 21), smooth({3, 17}, 22), smooth({17}, 23), 1e-5},
       .outputs = {0, 2},
       .pairs = {{3, 0}, {4, 0}, {5, 1}},
       .backward = [](const Values& a, const Values& up) {
         return Values{out({3, 17}), update(values_f32({17}, std::vector<float>(17))), up[0], up[1], a[2], a[5], a[1]};
       }});
  if (r.for_bench)
    r.check({.op = "rmsnorm_fwd",
             .name = "gpt-oss 512x2880 bf16",
             .args = {out({512, 2880}), out({512}), out({512, 2880}), smooth({512, 2880}, 1), smooth({512, 2880}, 2),
                      smooth({2880}, 3, 1, DType::bf16), 1e-5},
             .bytes = 512 * 2880 * 16.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "rmsnorm_fwd",
             .name = "nano 1x64",
             .args = {out({1, 64}), out({1}), nullptr, smooth({1, 64}, 1), nullptr, smooth({64}, 3), 1e-5},
             .bytes = 64 * 8.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "rmsnorm_bwd",
             .name = "gpt-oss 512x2880",
             .args = {out({512, 2880}), nullptr, smooth({512, 2880}, 1), smooth({512, 2880}, 2), smooth({512, 2880}, 3),
                      smooth({2880}, 4, 1, DType::bf16), positive({512}, 5, 0.5, 2)},
             .bytes = 512 * 2880 * 16.0,
             .bench_only = true});

  // cos, sin, positions, inv_freq, m. Angles up to 131071 rad: both sides round the same angle, so only the last bit
  // may differ.
  const Bound table_bound = [](const Case&, const Values&, const Values& want, Tolerance& tol) {
    for (size_t o : {0, 1}) {
      tol[o].resize(static_cast<size_t>(want[o].numel()));
      for (int64_t i = 0; i < want[o].numel(); ++i)
        tol[o][static_cast<size_t>(i)] = 2 * kUnit * std::fabs(want[o].at(i));
    }
  };
  r.check({.op = "rope_table",
           .name = "position 0",
           .args = {out({1, 1}), out({1, 1}), positions({0}), values_f32({1}, {1}), 1.0},
           .bound = table_bound});
  r.check({.op = "rope_table",
           .name = "far",
           .args = {out({6, 32}), out({6, 32}), positions({0, 1, 4095, 4096, 65537, 131071}), inverse_frequencies(32),
                    1.3465735902799727},
           .bound = table_bound});
  r.check({.op = "rope_table",
           .name = "300x32",
           .args = {out({300, 32}), out({300, 32}), up_to(300), inverse_frequencies(32), 1.3465735902799727},
           .bound = table_bound});
  // x, cos, sin, heads, direction
  for (auto [T, H, half] : {std::array<int64_t, 3>{1, 1, 1}, {5, 3, 7}, {40, 64, 32}, {600, 8, 8}})
    for (double direction : {1.0, -1.0})
      r.check({.op = "rope",
               .name = std::to_string(T) + "x" + std::to_string(H) + "x" + std::to_string(2 * half) +
                       (direction > 0 ? " forward" : " backward"),
               .args = {update(floats({T, H, 2 * half}, 31)), smooth({T, half}, 32), smooth({T, half}, 33),
                        static_cast<double>(H), direction},
               .bound = rope_bound});
  r.check({.op = "rope",
           .name = "flat",
           .args = {update(floats({4, 30}, 31)), smooth({4, 5}, 32), smooth({4, 5}, 33), 3.0, 1.0},
           .bound = rope_bound});
  r.grad({.op = "rope",
          .name = "transpose",
          .forward = "rope",
          .args = {update(smooth({3, 2, 8}, 41)), smooth({3, 4}, 42), smooth({3, 4}, 43), 2.0, 1.0},
          .outputs = {0},
          .pairs = {{0, 0}},
          .backward = [](const Values& a, const Values& up) { return Values{update(up[0]), a[1], a[2], 2.0, -1.0}; }});
  if (r.for_bench)
    r.check(
        {.op = "rope",
         .name = "gpt-oss 512x64x64",
         .args = {update(smooth({512, 64, 64}, 1)), smooth({512, 32}, 2, 0.4), smooth({512, 32}, 3, 0.4), 64.0, 1.0},
         .bytes = 512 * 64 * 64 * 8.0,
         .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
