// Cases: sample.
#include <cmath>
#include <limits>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// log-softmax: the logit and the largest one are exact, the sum of exponentials is good to a few units, the result is
// rounded.
void sample_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const int64_t B = a[2].tensor.shape[0], V = a[2].tensor.shape[1];
  tol[1].resize(static_cast<size_t>(B));
  for (int64_t b = 0; b < B; ++b) {
    double largest = 0;
    for (int64_t v = 0; v < V; ++v)
      if (std::isfinite(a[2].at(b * V + v))) largest = std::fmax(largest, std::fabs(a[2].at(b * V + v)));
    tol[1][static_cast<size_t>(b)] =
        rounding(static_cast<double>(V)) + 4 * kUnit * (largest + std::fabs(want[1].at(b)));
  }
}

// One row of logits, B times, with u spread evenly; every row the same parameters.
Values calls(int64_t B, int64_t V, double spread, std::vector<float> params, const Value& mask) {
  Value logits = smooth({B, V}, 3, spread), u(DType::f32, {B}, Role::in), p(DType::f32, {B, 4}, Role::in);
  for (int64_t b = 0; b < B; ++b) {
    u.set(b, random_unit(71, static_cast<uint64_t>(b)));
    for (int64_t i = 0; i < 4; ++i) p.set(b * 4 + i, params[static_cast<size_t>(i)]);
  }
  return {out({B}, DType::i32), out({B}), logits, p, u, mask};
}

const Suite suite{[](Registry& r) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const struct {
    const char* name;
    std::vector<float> params;
  } settings[] = {
      {"greedy", {0, 0, 1, 0}},          {"plain", {1, 0, 1, 0}},        {"hot", {2.5, 0, 1, 0}},
      {"cold", {1e-3f, 0, 1, 0}},        {"top_k 1", {1, 1, 1, 0}},      {"top_k 7", {0.8f, 7, 1, 0}},
      {"top_k over V", {1, 1e9f, 1, 0}}, {"top_p 0.9", {1, 0, 0.9f, 0}}, {"top_p 0", {1, 0, 0, 0}},
      {"min_p 0.1", {1, 0, 1, 0.1f}},    {"min_p 1", {1, 0, 1, 1}},      {"all three", {1.3f, 50, 0.95f, 0.02f}}};
  for (const auto& s : settings)
    for (int64_t V : {1, 70, 1537}) {
      r.check({.op = "sample",
               .name = std::string(s.name) + " of " + std::to_string(V),
               .args = calls(16, V, 3, s.params, nullptr),
               .bound = sample_bound});
      Value mask(DType::i32, {16, (V + 31) / 32}, Role::in);
      for (int64_t i = 0; i < mask.numel(); ++i)
        mask.set(i, static_cast<int32_t>(random_bits(5, static_cast<uint64_t>(i)) | 1u));
      r.check({.op = "sample",
               .name = std::string(s.name) + " masked of " + std::to_string(V),
               .args = calls(16, V, 3, s.params, mask),
               .bound = sample_bound});
    }
  r.check({.op = "sample",
           .name = "vocabulary, plain",
           .args = calls(2, 201088, 6, {1, 0, 1, 0}, nullptr),
           .bound = sample_bound,
           .slow = true});
  r.check({.op = "sample",
           .name = "vocabulary, top_p",
           .args = calls(2, 201088, 6, {1, 0, 0.95f, 0}, nullptr),
           .bound = sample_bound,
           .slow = true});
  r.check({.op = "sample",
           .name = "vocabulary, top_k and top_p",
           .args = calls(2, 201088, 6, {0.7f, 50, 0.9f, 0.01f}, nullptr),
           .bound = sample_bound,
           .slow = true});
  // Equal logits at every cut: the set ends inside a run of ties, by id.
  const auto tied = [&](const std::string& name, int64_t V, int levels, std::vector<float> params) {
    Values v = calls(12, V, 1, params, nullptr);
    for (int64_t i = 0; i < 12 * V; ++i)
      v[2].set(i, std::floor(random_unit(91, static_cast<uint64_t>(i)) * levels) / 2);
    r.check({.op = "sample", .name = name, .args = v, .bound = sample_bound});
  };
  tied("ties, top_k", 5000, 9, {1, 700, 1, 0});
  tied("ties, top_p", 5000, 9, {1, 0, 0.7f, 0});
  tied("ties, top_k and top_p", 5000, 9, {0.5f, 900, 0.6f, 0});
  tied("all equal, top_p", 3001, 1, {1, 0, 0.37f, 0});
  tied("all equal, top_k", 3001, 1, {1, 1234, 0.37f, 0});
  r.check({.op = "sample",
           .name = "very hot, top_k and top_p",
           .args = calls(12, 5000, 6, {1e6f, 3000, 0.8f, 0}, nullptr),
           .bound = sample_bound});
  r.check({.op = "sample",
           .name = "very cold, top_p",
           .args = calls(12, 5000, 6, {1e-30f, 0, 0.8f, 0}, nullptr),
           .bound = sample_bound});
  r.check({.op = "sample",
           .name = "large k",
           .args = calls(12, 5000, 6, {1, 4900, 0.99f, 0}, nullptr),
           .bound = sample_bound});
  r.check(
      {.op = "sample",
       .name = "ties, NaN and infinities",
       .args = {out({3}, DType::i32), out({3}), values_f32({3, 4}, {1, 2, 2, 2, nan, 1, -inf, 3, inf, 0, nan, -inf}),
                values_f32({3, 4}, {0, 0, 1, 0, 1, 0, 1, 0, 1, 2, 0.5f, 0}), values_f32({3}, {0, 0.999f, 0.5f}),
                nullptr},
       .bound = sample_bound});
  const auto one = [&](const std::vector<float>& logits, const std::vector<float>& params, float u, const Value& mask) {
    return Values{out({1}, DType::i32),
                  out({1}),
                  values_f32({1, static_cast<int64_t>(logits.size())}, logits),
                  values_f32({1, 4}, params),
                  values_f32({1}, {u}),
                  mask};
  };
  r.check({.op = "sample",
           .name = "no finite logit",
           .args = one({nan, -inf, inf}, {1, 0, 1, 0}, 0, nullptr),
           .error = "bad_logits"});
  r.check({.op = "sample",
           .name = "nothing allowed",
           .args = one({1, 2, 3}, {1, 0, 1, 0}, 0, values_i32({1, 1}, {8})),
           .error = "bad_logits"});
  for (const std::vector<float>& p : {std::vector<float>{-1, 0, 1, 0},
                                      {nan, 0, 1, 0},
                                      {inf, 0, 1, 0},
                                      {1, -1, 1, 0},
                                      {1, 0, 1.5f, 0},
                                      {1, 0, nan, 0},
                                      {1, 0, 1, -0.1f}})
    r.check({.op = "sample", .name = "bad parameters", .args = one({1, 2}, p, 0.5f, nullptr), .error = "bad_argument"});
  for (float u : {1.0f, -0.1f, nan})
    r.check({.op = "sample",
             .name = "u out of range",
             .args = one({1, 2}, {1, 0, 1, 0}, u, nullptr),
             .error = "bad_argument"});
  if (r.for_bench)
    r.check({.op = "sample",
             .name = "vocabulary 201088, plain",
             .args = calls(1, 201088, 6, {1, 0, 1, 0}, nullptr),
             .bytes = 201088 * 4.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "sample",
             .name = "vocabulary 201088, top_p 0.95",
             .args = calls(1, 201088, 6, {1, 0, 0.95f, 0}, nullptr),
             .bytes = 201088 * 4.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "sample",
             .name = "vocabulary 201088, top_k 50",
             .args = calls(1, 201088, 6, {1, 50, 1, 0}, nullptr),
             .bytes = 201088 * 4.0,
             .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
