// Cases: attention, forward and backward.
#include <cmath>
#include "test/harness.h"

namespace temper::test {
namespace {

struct Sequences {
  std::vector<int32_t> queries;   // per sequence
  std::vector<int32_t> extra;     // keys before its queries (a cache); empty: none
};
struct Heads { int64_t H, Hkv, Dh; };

constexpr double kSubnormal = 0x1p-130;  // probabilities below 2^-126 carry no relative precision: sums of a few of them differ by about this

int64_t total(const std::vector<int32_t>& n) {
  int64_t sum = 0;
  for (int32_t x : n) sum += x;
  return sum;
}
Value starts(const std::vector<int32_t>& n) {
  std::vector<int32_t> s{0};
  for (int32_t x : n) s.push_back(s.back() + x);
  return values_i32({static_cast<int64_t>(s.size())}, s);
}

// o, lse?, q, k, v, sinks?, q_start, k_start, k_len, window, ring, scale. Each sequence's keys take `capacity` rows of k (0: as many as it has).
Values forward_args(const Sequences& s, Heads h, double window, double ring, const Value& sinks, double spread = 1, double scale = 0) {
  const int64_t B = static_cast<int64_t>(s.queries.size()), T = total(s.queries);
  std::vector<int32_t> k_start, k_len;
  int32_t rows = 0;
  for (int64_t b = 0; b < B; ++b) {
    const int32_t len = s.queries[static_cast<size_t>(b)] + (s.extra.empty() ? 0 : s.extra[static_cast<size_t>(b)]);
    k_start.push_back(rows);
    k_len.push_back(len);
    rows += ring > 0 ? static_cast<int32_t>(ring) : len;
  }
  return {out({T, h.H, h.Dh}), out({T, h.H}), smooth({T, h.H, h.Dh}, 1, spread), smooth({rows, h.Hkv, h.Dh}, 2, spread), floats({rows, h.Hkv, h.Dh}, 3), sinks,
          starts(s.queries), values_i32({B}, k_start), values_i32({B}, k_len), window, ring, scale > 0 ? scale : 1 / std::sqrt(static_cast<double>(h.Dh))};
}

// Calls visit(b, t, h, p, first, row_of) for every query and head.
template <class F> void each_query(const Values& a, const Value& q_start, const Value* k_start, const Value* k_len, int64_t window, int64_t ring, int64_t H, F&& visit) {
  (void)a;
  const int64_t B = q_start.numel() - 1;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t begin = q_start.i32()[b], end = q_start.i32()[b + 1], len = k_len ? k_len->i32()[b] : end - begin, base = k_start ? k_start->i32()[b] : begin;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t p = len - (end - begin) + t - begin, first = window > 0 && p + 1 > window ? p + 1 - window : 0;
      for (int64_t h = 0; h < H; ++h) visit(t, h, p, first, [=](int64_t j) { return base + (ring > 0 ? j % ring : j); });
    }
  }
}

// Errors of the scores (sums over Dh) enter exponentials; those weigh sums over the keys. e = largest error of a score of this query.
struct QueryError { double score, log_sum; };
template <class Rows> QueryError query_error(const Value& q, const Value& k, int64_t t, int64_t h, int64_t p, int64_t first, const Rows& row, double scale, double lse) {
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  double largest = 0;
  for (int64_t j = first; j <= p; ++j) {
    double sum = 0;
    for (int64_t d = 0; d < Dh; ++d) sum += std::fabs(static_cast<double>(q.f32()[(t * H + h) * Dh + d]) * k.f32()[(row(j) * Hkv + h * Hkv / H) * Dh + d]);
    largest = std::fmax(largest, scale * sum);
  }
  const double score = rounding(static_cast<double>(Dh)) * largest;
  return {score, score + rounding(static_cast<double>(p - first + 1)) + 4 * kUnit * (std::fabs(lse) + largest)};
}

void forward_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  const Value &q = a[2], &k = a[3], &v = a[4];
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  const double scale = a[11].number;
  Values full = a;  // lse is needed even where the case leaves it out
  full[1] = out({q.tensor.shape[0], H});
  const Value lse = run_reference("attention_fwd", full)[1];
  tol[0].resize(static_cast<size_t>(a[0].numel()));
  if (a[1].is_tensor()) tol[1].resize(static_cast<size_t>(a[1].numel()));
  (void)want;
  each_query(a, a[6], &a[7], &a[8], static_cast<int64_t>(a[9].number), static_cast<int64_t>(a[10].number), H, [&](int64_t t, int64_t h, int64_t p, int64_t first, auto row) {
    const double log_sum = lse.at(t * H + h);
    const QueryError e = query_error(q, k, t, h, p, first, row, scale, log_sum);
    if (a[1].is_tensor()) tol[1][static_cast<size_t>(t * H + h)] = e.log_sum;
    std::vector<double> sum(static_cast<size_t>(Dh), 0.0);
    for (int64_t j = first; j <= p; ++j) {
      const int64_t at = (row(j) * Hkv + h * Hkv / H) * Dh;
      double score = 0;
      for (int64_t d = 0; d < Dh; ++d) score += static_cast<double>(q.f32()[(t * H + h) * Dh + d]) * k.f32()[at + d];
      const double weight = std::exp(scale * score - log_sum);
      for (int64_t d = 0; d < Dh; ++d) sum[static_cast<size_t>(d)] += weight * std::fabs(v.f32()[at + d]);
    }
    for (int64_t d = 0; d < Dh; ++d)
      tol[0][static_cast<size_t>((t * H + h) * Dh + d)] = (rounding(static_cast<double>(p - first + 1)) + e.score + e.log_sum) * sum[static_cast<size_t>(d)] + kSubnormal;
  });
}

// dq, dk, dv, dsinks?, dout, q, k, v, o, lse, sinks?, q_start, k_start, k_len, window, scale
void backward_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const Value &dout = a[4], &q = a[5], &k = a[6], &v = a[7], &o = a[8], &lse = a[9], &sinks = a[10];
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  const double scale = a[15].number;
  for (size_t i : {0, 1, 2}) tol[i].assign(static_cast<size_t>(a[i].numel()), kSubnormal);
  if (a[3].is_tensor()) tol[3].assign(static_cast<size_t>(H), 0.0);
  const double T = static_cast<double>(q.tensor.shape[0]), group = static_cast<double>(H / Hkv);
  for (size_t i : {1, 2})  // what was there before takes part in the sum
    for (int64_t at = 0; at < a[i].numel(); ++at) tol[i][static_cast<size_t>(at)] += rounding(T * group) * std::fabs(a[i].at(at));
  each_query(a, a[11], &a[12], &a[13], static_cast<int64_t>(a[14].number), 0, H, [&](int64_t t, int64_t h, int64_t p, int64_t first, auto row) {
    const int64_t at_q = (t * H + h) * Dh;
    const QueryError e = query_error(q, k, t, h, p, first, row, scale, lse.at(t * H + h));
    const double relative = e.score + 16 * kUnit + 4 * kUnit * std::fabs(lse.at(t * H + h));  // of p: lse is given, not computed
    double D = 0, D_abs = 0;
    for (int64_t d = 0; d < Dh; ++d) {
      D += dout.at(at_q + d) * o.at(at_q + d);
      D_abs += std::fabs(dout.at(at_q + d) * o.at(at_q + d));
    }
    if (a[3].is_tensor()) tol[3][static_cast<size_t>(h)] += (rounding(T) + rounding(static_cast<double>(Dh)) + 4 * kUnit * (std::fabs(sinks.at(h)) + std::fabs(lse.at(t * H + h)))) * std::exp(sinks.at(h) - lse.at(t * H + h)) * D_abs;
    for (int64_t j = first; j <= p; ++j) {
      const int64_t at_k = (row(j) * Hkv + h * Hkv / H) * Dh;
      double score = 0, dp = 0, dp_abs = 0;
      for (int64_t d = 0; d < Dh; ++d) {
        score += static_cast<double>(q.f32()[at_q + d]) * k.f32()[at_k + d];
        dp += static_cast<double>(dout.f32()[at_q + d]) * v.f32()[at_k + d];
        dp_abs += std::fabs(static_cast<double>(dout.f32()[at_q + d]) * v.f32()[at_k + d]);
      }
      const double weight = std::exp(scale * score - lse.at(t * H + h));
      const double ds = scale * weight * std::fabs(dp - D), ds_error = relative * ds + rounding(static_cast<double>(Dh)) * scale * weight * (dp_abs + D_abs);
      const double over_keys = rounding(static_cast<double>(p - first + 1)), over_queries = rounding(T * group);
      for (int64_t d = 0; d < Dh; ++d) {
        tol[0][static_cast<size_t>(at_q + d)] += (over_keys * ds + ds_error) * std::fabs(k.f32()[at_k + d]);
        tol[1][static_cast<size_t>(at_k + d)] += (over_queries * ds + ds_error) * std::fabs(q.f32()[at_q + d]);
        tol[2][static_cast<size_t>(at_k + d)] += (over_queries + relative) * weight * std::fabs(dout.f32()[at_q + d]);
      }
    }
  });
  if (a[3].is_tensor())
    for (int64_t h = 0; h < H; ++h) tol[3][static_cast<size_t>(h)] += 4 * kUnit * std::fabs(a[3].at(h));
}

Values backward_args(const Values& after, const Value& dout, bool with_dsinks) {
  const auto shape = [&](size_t i) { return Shape(after[i].tensor.shape, after[i].tensor.shape + 3); };
  Value dsinks = nullptr;
  if (with_dsinks) dsinks = update(smooth({after[2].tensor.shape[1]}, 9));
  Values a = {out(shape(2)), update(smooth(shape(3), 10)), update(smooth(shape(4), 11)), dsinks, dout, after[2], after[3], after[4], after[0], after[1], after[5], after[6], after[7], after[8],
              after[9].number, after[11].number};
  for (Value& v : a)
    if (v.is_tensor() && &v > &a[3]) v.role = Role::in;
  return a;
}

void add_pair(Registry& r, const std::string& name, const Sequences& s, Heads h, double window, const Value& sinks, double spread = 1, bool slow = false) {
  const Values a = forward_args(s, h, window, 0, sinks, spread);
  r.check({.op = "attention_fwd", .name = name, .args = a, .bound = forward_bound, .slow = slow});
  const Values after = run_reference("attention_fwd", a);
  const bool has_sinks = sinks.is_tensor();
  r.check({.op = "attention_bwd", .name = name, .args = backward_args(after, floats({total(s.queries), h.H, h.Dh}, 8), has_sinks), .bound = backward_bound, .slow = slow});
}

void add_bench(Registry& r, const std::string& name, int32_t T, double window) {
  const Heads h{64, 8, 64};
  Values a = forward_args({{T}, {}}, h, window, 0, smooth({64}, 4));
  double pairs = 0;
  for (int32_t p = 0; p < T; ++p) pairs += window > 0 && p + 1 > window ? window : p + 1;
  r.check({.op = "attention_fwd", .name = name, .args = a, .flops = pairs * 64 * 64 * 4, .bench_only = true});
  a[0].role = a[1].role = Role::in;  // the values do not matter to the time: zeros stand for o and lse
  if (r.for_bench) r.check({.op = "attention_bwd", .name = name, .args = backward_args(a, smooth({T, 64, 64}, 8), false), .flops = pairs * 64 * 64 * 10, .bench_only = true});
}

const Suite suite{[](Registry& r) {
  const Heads small{4, 2, 6}, gpt_oss{64, 8, 64};
  const Value none = nullptr;
  add_pair(r, "one token", {{1}, {}}, {1, 1, 2}, 0, none);
  add_pair(r, "one token, sink", {{1}, {}}, {2, 1, 4}, 0, smooth({2}, 4));
  add_pair(r, "ragged packing", {{5, 1, 0, 17, 2}, {}}, small, 0, smooth({4}, 4));
  add_pair(r, "ragged packing, window 4, bf16 sinks", {{5, 1, 0, 17, 2}, {}}, small, 4, smooth({4}, 4, 1, DType::bf16));
  add_pair(r, "window 1", {{9}, {}}, small, 1, smooth({4}, 4));
  add_pair(r, "window as long as the sequence", {{9}, {}}, small, 9, none);
  add_pair(r, "over several blocks", {{200, 131}, {}}, {6, 2, 32}, 0, smooth({6}, 4));
  add_pair(r, "over several blocks, window 128", {{300, 129}, {}}, {2, 1, 16}, 128, smooth({2}, 4));
  add_pair(r, "window edge inside a block", {{150}, {}}, {2, 2, 20}, 67, smooth({2}, 4));
  add_pair(r, "scores of both signs and large", {{90}, {}}, {2, 1, 16}, 0, smooth({2}, 4, 10), 8);
  add_pair(r, "sink far above the scores", {{20}, {}}, small, 0, values_f32({4}, {60, 60, 60, 60}));
  add_pair(r, "sink far below the scores", {{20}, {}}, small, 0, values_f32({4}, {-200, -200, -200, -200}));
  add_pair(r, "gpt-oss groups, window 128", {{140, 20}, {}}, {16, 2, 64}, 128, smooth({16}, 4, 1, DType::bf16), 1, true);
  add_pair(r, "gpt-oss heads, full", {{33}, {}}, gpt_oss, 0, smooth({64}, 4, 1, DType::bf16), 1, true);

  // Shapes that no gpt-oss has, and more sequences than a thread block has threads.
  add_pair(r, "heads of width 80, window 30", {{40, 9}, {}}, {4, 2, 80}, 30, smooth({4}, 4));
  add_pair(r, "heads of width 256", {{5, 3}, {}}, {2, 1, 256}, 0, none);
  add_pair(r, "24 heads to a kv head", {{6, 11}, {}}, {24, 1, 8}, 0, smooth({24}, 4));
  std::vector<int32_t> many;
  for (int32_t b = 0; b < 300; ++b) many.push_back(b % 3);
  add_pair(r, "300 sequences", {many, {}}, {2, 1, 4}, 0, none);

  // The last queries of longer sequences: how a backward takes a sequence in pieces.
  for (double window : {0.0, 5.0, 128.0}) {
    const std::string w = ", window " + std::to_string(static_cast<int>(window));
    add_pair(r, "piece" + w, {{7, 2, 1}, {3, 0, 30}}, small, window, smooth({4}, 4));
    add_pair(r, "piece over several blocks" + w, {{70, 140}, {200, 67}}, {4, 2, 16}, window, smooth({4}, 4));
  }

  // Serving: few queries over cached keys, in rows of their own or in a ring.
  for (double window : {0.0, 5.0, 128.0}) {
    const std::string w = ", window " + std::to_string(static_cast<int>(window));
    r.check({.op = "attention_fwd", .name = "decode" + w, .args = forward_args({{1, 1, 1}, {0, 300, 77}}, {8, 2, 16}, window, 0, smooth({8}, 4)), .bound = forward_bound});
    r.check({.op = "attention_fwd", .name = "prefill on a cache" + w, .args = forward_args({{40, 3}, {100, 64}}, {4, 4, 8}, window, 0, smooth({4}, 4)), .bound = forward_bound});
    Values no_lse = forward_args({{3}, {10}}, small, window, 0, none);
    no_lse[1] = nullptr;
    r.check({.op = "attention_fwd", .name = "lse left out" + w, .args = no_lse, .bound = forward_bound});
  }
  r.check({.op = "attention_fwd", .name = "ring", .args = forward_args({{1, 1, 1, 1}, {2, 127, 128, 1000}}, {8, 2, 16}, 128, 128, smooth({8}, 4)), .bound = forward_bound});
  r.check({.op = "attention_fwd", .name = "ring with room for several queries", .args = forward_args({{7, 2}, {50, 3}}, small, 5, 11, smooth({4}, 4)), .bound = forward_bound});

  r.check({.op = "attention_fwd", .name = "decode over 1000 keys", .args = forward_args({{3}, {1000}}, {8, 2, 16}, 0, 0, smooth({8}, 4)), .bound = forward_bound});
  r.check({.op = "attention_fwd", .name = "decode, one sequence idle", .args = forward_args({{1, 0, 2}, {70, 500, 3}}, {24, 1, 8}, 0, 0, smooth({24}, 4)), .bound = forward_bound});
  r.check({.op = "attention_fwd", .name = "decode of 200 sequences", .args = forward_args({std::vector<int32_t>(200, 1), std::vector<int32_t>(200, 5)}, {2, 1, 4}, 0, 0, none), .bound = forward_bound});
  r.check({.op = "attention_fwd", .name = "many queries over a ring", .args = forward_args({{40, 30}, {100, 0}}, {4, 2, 8}, 20, 64, smooth({4}, 4)), .bound = forward_bound});

  const auto bad = [&](const std::string& name, const std::function<void(Values&)>& change) {
    Values a = forward_args({{3, 2}, {4, 0}}, small, 0, 0, none);
    change(a);
    r.check({.op = "attention_fwd", .name = name, .args = a, .error = "bad_index"});
  };
  bad("q_start falls", [](Values& a) { a[6] = values_i32({3}, {0, 6, 5}); });
  bad("q_start begins late", [](Values& a) { a[6] = values_i32({3}, {1, 3, 5}); });
  bad("q_start ends early", [](Values& a) { a[6] = values_i32({3}, {0, 3, 4}); });
  bad("fewer keys than queries", [](Values& a) { a[8] = values_i32({2}, {2, 2}); });
  bad("keys beyond k", [](Values& a) { a[8] = values_i32({2}, {7, 3}); });
  bad("negative k_start", [](Values& a) { a[7] = values_i32({2}, {-1, 7}); });
  bad("ring shorter than the view", [](Values& a) { a[10] = Value(4.0); a[7] = values_i32({2}, {0, 4}); });
  const Values b = backward_args(run_reference("attention_fwd", forward_args({{3, 2}, {4, 0}}, small, 0, 0, none)), floats({5, 4, 6}, 8), false);
  const auto bad_backward = [&](const std::string& name, const std::function<void(Values&)>& change) {
    Values a = b;
    change(a);
    r.check({.op = "attention_bwd", .name = name, .args = a, .error = "bad_index"});
  };
  bad_backward("q_start beyond q", [](Values& a) { a[11] = values_i32({3}, {0, 3, 6}); });
  bad_backward("keys beyond k", [](Values& a) { a[13] = values_i32({2}, {7, 3}); });
  bad_backward("keys of two sequences overlap", [](Values& a) { a[12] = values_i32({2}, {0, 6}); });
  bad_backward("keys of the second sequence first", [](Values& a) { a[12] = values_i32({2}, {2, 0}); });

  const auto gradient = [&](const std::string& name, const Sequences& s, Heads h, double window, bool sinks) {
    GradCase g{.op = "attention_bwd", .name = name, .forward = "attention_fwd", .args = forward_args(s, h, window, 0, sinks ? smooth({h.H}, 4) : Value(nullptr), 0.5), .outputs = {0},
               .pairs = {{2, 0}, {3, 1}, {4, 2}}, .backward = [sinks](const Values& a, const Values& up) {
                 Values v = backward_args(a, up[0], false);
                 for (size_t i : {1, 2}) std::fill(v[i].bytes.begin(), v[i].bytes.end(), uint8_t{0});
                 if (sinks) v[3] = update(values_f32({a[2].tensor.shape[1]}, std::vector<float>(static_cast<size_t>(a[2].tensor.shape[1]))));
                 return v;
               }};
    if (sinks) g.pairs.push_back({5, 3});
    r.grad(std::move(g));
  };
  gradient("no sinks", {{5, 3}, {}}, small, 0, false);
  gradient("sinks", {{5, 3}, {}}, small, 0, true);
  gradient("sinks, window 3", {{9}, {}}, {4, 1, 8}, 3, true);
  gradient("a piece of the queries, sinks", {{3, 2}, {4, 1}}, small, 0, true);

  if (r.for_bench) add_bench(r, "gpt-oss 512, full", 512, 0);
  if (r.for_bench) add_bench(r, "gpt-oss 512, window 128", 512, 128);
  if (r.for_bench) add_bench(r, "gpt-oss 2048, window 128", 2048, 128);
  if (r.for_bench) r.check({.op = "attention_fwd", .name = "gpt-oss decode over 4096", .args = forward_args({{1}, {4095}}, gpt_oss, 0, 0, smooth({64}, 4)), .bytes = 4096 * 8 * 64 * 8.0, .bench_only = true});
  if (r.for_bench) r.check({.op = "attention_fwd", .name = "nano decode over 128", .args = forward_args({{1}, {127}}, {4, 2, 16}, 0, 0, smooth({4}, 4)), .bytes = 128 * 2 * 16 * 8.0, .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
