// Cases: the router's choice and plan, SwiGLU, and the combination of expert outputs.
#include <array>
#include <cmath>
#include <limits>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr double kAlpha = 1.702, kLimit = 7;

// slot_row of a real plan: each row of [0, P) once.
Value permutation(int64_t T, int64_t K, uint64_t seed) {
  Value v(DType::i32, {T, K}, Role::in);
  const int64_t P = T * K;
  for (int64_t i = 0; i < P; ++i) v.set(i, static_cast<double>(i));
  for (int64_t i = P - 1; i > 0; --i) {
    const int64_t j = static_cast<int64_t>(random_bits(seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(i + 1));
    const double x = v.at(i);
    v.set(i, v.at(j));
    v.set(j, x);
  }
  return v;
}
// K different experts per token.
Value chosen(int64_t T, int64_t K, int64_t E, uint64_t seed) {
  Value v(DType::i32, {T, K}, Role::in);
  for (int64_t t = 0; t < T; ++t) {
    const int64_t first = static_cast<int64_t>(random_bits(seed, static_cast<uint64_t>(t)) % static_cast<uint64_t>(E));
    for (int64_t k = 0; k < K; ++k) v.set(t * K + k, static_cast<double>((first + k) % E));
  }
  return v;
}

// weights = softmax of K logits: each exponential is good to a few units, the sum adds a rounding per term.
void topk_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const int64_t T = a[0].tensor.shape[0], K = a[0].tensor.shape[1], E = a[2].tensor.shape[1];
  tol[0].resize(static_cast<size_t>(T * K));
  for (int64_t t = 0; t < T; ++t) {
    double largest = 0;  // of |logit|: the difference of two logits is rounded
    for (int64_t e = 0; e < E; ++e)
      if (std::isfinite(a[2].at(t * E + e))) largest = std::fmax(largest, std::fabs(a[2].at(t * E + e)));
    for (int64_t k = 0; k < K; ++k)
      tol[0][static_cast<size_t>(t * K + k)] =
          (rounding(static_cast<double>(K)) + 2 * kUnit * largest) * want[0].at(t * K + k);
  }
}

void topk_bwd_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const int64_t T = a[0].tensor.shape[0], E = a[0].tensor.shape[1], K = a[2].tensor.shape[1];
  tol[0].assign(static_cast<size_t>(T * E), 0.0);
  for (int64_t t = 0; t < T; ++t) {
    double sum = 0, total = 0;
    for (int64_t k = 0; k < K; ++k) {
      sum += std::fabs(a[1].at(t * K + k)) * a[2].at(t * K + k);
      total += a[2].at(t * K + k);
    }
    // Given weights sum to 1 only up to their own rounding, and the two forms of the Jacobian differ by that.
    for (int64_t k = 0; k < K; ++k)
      tol[0][static_cast<size_t>(t * E + static_cast<int64_t>(a[3].at(t * K + k)))] =
          a[2].at(t * K + k) * (rounding(static_cast<double>(K)) * (std::fabs(a[1].at(t * K + k)) + sum) +
                                std::fabs(1 - total) * std::fabs(a[1].at(t * K + k)));
  }
}

double clamp_gate(double g) { return g > kLimit ? kLimit : g; }
double clamp_lin(double u) { return u > kLimit ? kLimit : u < -kLimit ? -kLimit : u; }
double sigmoid_of(double g) { return 1 / (1 + std::exp(-kAlpha * g)); }
// Error of σ(αg) in f32: the argument is rounded, and below the smallest normal number (2^-126) the result may vanish.
double sigmoid_error(double g) { return (16 + 2 * kAlpha * std::fabs(g)) * kUnit * sigmoid_of(g) + 0x1p-126; }

void swiglu_fwd_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  tol[0].resize(static_cast<size_t>(a[0].numel()));
  for (int64_t i = 0; i < a[0].numel(); ++i) {
    const double g = clamp_gate(a[1].at(2 * i)), u = clamp_lin(a[1].at(2 * i + 1));
    tol[0][static_cast<size_t>(i)] = sigmoid_error(g) * std::fabs(g) * (std::fabs(u) + 1);
  }
}
void swiglu_bwd_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const Value &da = a[2], &z = a[3], &weight = a[4];
  const int64_t P = da.tensor.shape[0], F = da.tensor.shape[1];
  tol[0].resize(static_cast<size_t>(2 * P * F));
  if (a[1].is_tensor()) tol[1].assign(static_cast<size_t>(P), 0.0);
  for (int64_t p = 0; p < P; ++p)
    for (int64_t k = 0; k < F; ++k) {
      const int64_t i = p * F + k;
      const double g = clamp_gate(z.at(2 * i)), u = clamp_lin(z.at(2 * i + 1)), s = sigmoid_of(g),
                   d = std::fabs(da.at(i));
      const double r = weight.is_tensor() ? std::fabs(weight.at(p)) : 1;
      tol[0][static_cast<size_t>(2 * i)] = sigmoid_error(g) * r * d * (std::fabs(u) + 1) * (1 + kAlpha * std::fabs(g));
      tol[0][static_cast<size_t>(2 * i + 1)] = sigmoid_error(g) * r * d * std::fabs(g);
      if (a[1].is_tensor())
        tol[1][static_cast<size_t>(p)] +=
            (rounding(static_cast<double>(F)) * s + sigmoid_error(g)) * d * std::fabs(g) * (std::fabs(u) + 1);
    }
}

// Inputs away from the clamps, where a difference quotient would step over the kink.
Value off_the_clamps(const Shape& shape, uint64_t seed) {
  Value z = smooth(shape, seed, 5);
  for (int64_t i = 0; i < z.numel(); ++i)
    if (std::fabs(std::fabs(z.at(i)) - kLimit) < 0.25) z.set(i, z.at(i) * 0.9);
  return z;
}

Value plan_ids(int64_t T, int64_t K, int64_t E) { return chosen(T, K, E, 5); }

void plan_case(Registry& r, const std::string& name, int64_t T, int64_t K, int64_t E, const Value& ids) {
  r.check({.op = "moe_plan",
           .name = name,
           .args = {out({E + 1}, DType::i32), out({T * K}, DType::i32), out({T, K}, DType::i32), out({T * K}), ids,
                    positive({T, K}, 6, 0.1, 1)}});
}

const Suite suite{[](Registry& r) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  // weights, ids, logits
  for (auto [T, E, K] :
       {std::array<int64_t, 3>{1, 1, 1}, {1, 5, 5}, {9, 5, 2}, {70, 32, 4}, {600, 128, 4}, {3, 100, 40}})
    r.check({.op = "topk_fwd",
             .name = std::to_string(T) + "x" + std::to_string(E) + " top " + std::to_string(K),
             .args = {out({T, K}), out({T, K}, DType::i32), floats({T, E}, 1, 2)},
             .bound = topk_bound});
  r.check({.op = "topk_fwd",
           .name = "ties",
           .args = {out({2, 3}), out({2, 3}, DType::i32), values_f32({2, 5}, {1, 2, 2, 1, 2, 0, 0, 0, 0, 0})},
           .bound = topk_bound});
  r.check({.op = "topk_fwd",
           .name = "NaN and infinities",
           .args = {out({4, 2}), out({4, 2}, DType::i32),
                    values_f32({4, 3}, {nan, 1, nan, nan, nan, nan, inf, inf, 0, -inf, 3, -inf})},
           .bound = topk_bound});
  for (auto [T, E, K] : {std::array<int64_t, 3>{1, 1, 1}, {9, 5, 2}, {300, 128, 4}})
    r.check({.op = "topk_bwd",
             .name = std::to_string(T) + "x" + std::to_string(E),
             .args = {out({T, E}), floats({T, K}, 1), positive({T, K}, 2, 0, 1), chosen(T, K, E, 3)},
             .bound = topk_bwd_bound});
  for (int32_t bad : {-1, 4})
    r.check({.op = "topk_bwd",
             .name = "id " + std::to_string(bad),
             .args = {out({1, 4}), floats({1, 2}, 1), positive({1, 2}, 2, 0, 1), values_i32({1, 2}, {0, bad})},
             .error = "bad_index"});
  r.grad({.op = "topk_bwd",
          .name = "2x6 top 3",
          .forward = "topk_fwd",
          .args = {out({2, 3}), out({2, 3}, DType::i32),
                   values_f32({2, 6}, {0.5f, -1, 2, 1.2f, -0.3f, 0.9f, 3, -2, 0, 1, 2, -1})},
          .outputs = {0},
          .pairs = {{2, 0}},
          .backward = [](const Values& a, const Values& up) { return Values{out({2, 6}), up[0], a[0], a[1]}; }});
  if (r.for_bench)
    r.check({.op = "topk_fwd",
             .name = "gpt-oss 512x128",
             .args = {out({512, 4}), out({512, 4}, DType::i32), smooth({512, 128}, 1)},
             .bytes = 512 * 128 * 4.0,
             .bench_only = true});

  // offsets, row_token, slot_row, row_weight, ids, weights
  plan_case(r, "1x1 of 1", 1, 1, 1, plan_ids(1, 1, 1));
  plan_case(r, "7x2 of 5", 7, 2, 5, plan_ids(7, 2, 5));
  plan_case(r, "300x4 of 128", 300, 4, 128, plan_ids(300, 4, 128));
  plan_case(r, "2100x4 of 32", 2100, 4, 32, plan_ids(2100, 4, 32));
  plan_case(r, "1500x2 of 1500", 1500, 2, 1500, plan_ids(1500, 2, 1500));
  plan_case(r, "all of 5000 to the last", 2500, 2, 7, values_i32({2500, 2}, std::vector<int32_t>(5000, 6)));
  plan_case(r, "no tokens", 0, 2, 4, values_i32({0, 2}, {}));
  plan_case(r, "all to one", 6, 2, 4, values_i32({6, 2}, std::vector<int32_t>(12, 3)));
  for (int32_t bad : {-1, 4})
    r.check({.op = "moe_plan",
             .name = "id " + std::to_string(bad),
             .args = {out({5}, DType::i32), out({2}, DType::i32), out({1, 2}, DType::i32), out({2}),
                      values_i32({1, 2}, {0, bad}), positive({1, 2}, 6, 0, 1)},
             .error = "bad_index"});
  if (r.for_bench)
    r.check({.op = "moe_plan",
             .name = "gpt-oss 512x4 of 128",
             .args = {out({129}, DType::i32), out({2048}, DType::i32), out({512, 4}, DType::i32), out({2048}),
                      plan_ids(512, 4, 128), positive({512, 4}, 6, 0, 1)},
             .bytes = 2048 * 20.0,
             .bench_only = true});

  // a, z, alpha, limit
  for (auto [P, F] : {std::array<int64_t, 2>{1, 1}, {3, 19}, {17, 2880}}) {
    const std::string name = std::to_string(P) + "x" + std::to_string(F);
    r.check({.op = "swiglu_fwd",
             .name = name,
             .args = {out({P, F}), floats({P, 2 * F}, 1, 3), kAlpha, kLimit},
             .bound = swiglu_fwd_bound});
    r.check({.op = "swiglu_bwd",
             .name = name + " weighted",
             .args = {out({P, 2 * F}), out({P}), floats({P, F}, 2), floats({P, 2 * F}, 1, 3), positive({P}, 3, 0, 1),
                      kAlpha, kLimit},
             .bound = swiglu_bwd_bound});
    r.check({.op = "swiglu_bwd",
             .name = name + " plain",
             .args = {out({P, 2 * F}), nullptr, floats({P, F}, 2), floats({P, 2 * F}, 1, 3), nullptr, kAlpha, kLimit},
             .bound = swiglu_bwd_bound});
  }
  const Value edges = values_f32({1, 12}, {7, 7, 7, -7, 1000, 1000, -1000, -1000, -60, 3, 0, 0});
  r.check({.op = "swiglu_fwd",
           .name = "at the clamps",
           .args = {out({1, 6}), edges, kAlpha, kLimit},
           .bound = swiglu_fwd_bound});
  r.check({.op = "swiglu_bwd",
           .name = "at the clamps",
           .args = {out({1, 12}), out({1}), smooth({1, 6}, 2), edges, nullptr, kAlpha, kLimit},
           .bound = swiglu_bwd_bound});
  r.grad({.op = "swiglu_bwd",
          .name = "3x8",
          .forward = "swiglu_fwd",
          .args = {out({3, 8}), off_the_clamps({3, 16}, 7), kAlpha, kLimit},
          .outputs = {0},
          .pairs = {{1, 0}},
          .backward = [](const Values& a, const Values& up) {
            return Values{out({3, 16}), nullptr, up[0], a[1], nullptr, kAlpha, kLimit};
          }});
  if (r.for_bench)
    r.check({.op = "swiglu_fwd",
             .name = "gpt-oss 512x2880",
             .args = {out({512, 2880}), smooth({512, 5760}, 1), kAlpha, kLimit},
             .bytes = 512 * 2880 * 12.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "swiglu_bwd",
             .name = "gpt-oss 512x2880",
             .args = {out({512, 5760}), out({512}), smooth({512, 2880}, 2), smooth({512, 5760}, 1),
                      positive({512}, 3, 0, 1), kAlpha, kLimit},
             .bytes = 512 * 2880 * 20.0,
             .bench_only = true});

  // out, y, weights?, slot_row, accumulate
  for (auto [T, K, D] : {std::array<int64_t, 3>{1, 1, 1}, {7, 2, 19}, {40, 4, 2880}}) {
    const std::string name = std::to_string(T) + "x" + std::to_string(K) + "x" + std::to_string(D);
    const Value y = floats({T * K, D}, 1), weights = floats({T, K}, 2), rows = permutation(T, K, 3);
    r.check({.op = "moe_combine",
             .name = name,
             .args = {out({T, D}), y, weights, rows, 0.0},
             .bound = sum_of_products(static_cast<double>(K))});
    r.check({.op = "moe_combine",
             .name = name + " added, no weights",
             .args = {update(floats({T, D}, 4)), y, nullptr, rows, 1.0},
             .bound = sum_of_products(static_cast<double>(K + 1))});
    // dweights, row_dot, dout, bias?, ids, slot_row
    const Value dots = floats({T * K}, 5), dout = floats({T, D}, 6), ids = chosen(T, K, 6, 7);
    for (DType wf : {DType::f32, DType::bf16})
      r.check({.op = "moe_weight_bwd",
               .name = name + (wf == DType::f32 ? " f32" : " bf16"),
               .args = {out({T, K}), dots, dout, floats({6, D}, 8, 1, wf), ids, rows},
               .bound = sum_of_products(static_cast<double>(D + 1))});
    r.check({.op = "moe_weight_bwd", .name = name + " no bias", .args = {out({T, K}), dots, dout, nullptr, ids, rows}});
  }
  for (int32_t bad : {-1, 2}) {
    const Value rows = values_i32({1, 2}, {0, bad});
    r.check({.op = "moe_combine",
             .name = "row " + std::to_string(bad),
             .args = {out({1, 3}), floats({2, 3}, 1), nullptr, rows, 0.0},
             .error = "bad_index"});
    r.check({.op = "moe_weight_bwd",
             .name = "row " + std::to_string(bad),
             .args = {out({1, 2}), floats({2}, 1), floats({1, 3}, 2), nullptr, values_i32({1, 2}, {0, 1}), rows},
             .error = "bad_index"});
    r.check(
        {.op = "moe_weight_bwd",
         .name = "id " + std::to_string(bad),
         .args = {out({1, 2}), floats({2}, 1), floats({1, 3}, 2), floats({2, 3}, 3), rows, values_i32({1, 2}, {0, 1})},
         .error = "bad_index"});
  }
  // The router's gradient as the model forms it: out = Σ_k w·(y + bias), dweights from row_dot = Σ dout·y and the bias.
  r.grad({.op = "moe_weight_bwd",
          .name = "combine of 4x2",
          .forward = "moe_combine",
          .args = {out({4, 6}), smooth({8, 6}, 1), smooth({4, 2}, 2), permutation(4, 2, 3), 0.0},
          .outputs = {0},
          .pairs = {{2, 0}},
          .backward = [](const Values& a, const Values& up) {
            Value dots(DType::f32, {8}, Role::in);
            for (int64_t i = 0; i < 8; ++i) {
              const int64_t row = static_cast<int64_t>(a[3].at(i));
              double sum = 0;
              for (int64_t d = 0; d < 6; ++d) sum += up[0].at(i / 2 * 6 + d) * a[1].at(row * 6 + d);
              dots.set(row, sum);
            }
            return Values{out({4, 2}), dots, up[0], nullptr, chosen(4, 2, 3, 7), a[3]};
          }});
  if (r.for_bench)
    r.check(
        {.op = "moe_combine",
         .name = "gpt-oss 512x4x2880",
         .args = {out({512, 2880}), smooth({2048, 2880}, 1), positive({512, 4}, 2, 0, 1), permutation(512, 4, 3), 0.0},
         .bytes = 512 * 2880 * 20.0,
         .bench_only = true});
  if (r.for_bench)
    r.check({.op = "moe_weight_bwd",
             .name = "gpt-oss 512x4x2880",
             .args = {out({512, 4}), smooth({2048}, 1), smooth({512, 2880}, 2), smooth({128, 2880}, 3, 1, DType::bf16),
                      chosen(512, 4, 128, 4), permutation(512, 4, 3)},
             .bytes = 512 * 2880 * 4.0 + 2048 * 2880 * 2.0,
             .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
