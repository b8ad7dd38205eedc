// Cases: attention, forward and backward. The reference computes in double at either precision; at precision 1 a
// backend may round the operands of its products to bf16. What rounding q, k, v and dout does to a result is known: the
// same formula on rounded operands. What is not, the rounding of probabilities and their gradients, is bounded from the
// terms that they are factors of.
#include <cmath>
#include <map>
#include "cpu/host/bf16.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

struct Sequences {
  std::vector<int32_t> queries;  // per sequence
  std::vector<int32_t> extra;    // keys before its queries (a cache); empty: none
};
struct Heads {
  int64_t H, Hkv, Dh;
};

constexpr double kBf16Unit = 0x1p-8;
// probabilities below 2^-126 carry no relative precision: sums of a few of them differ by about this
constexpr double kSubnormal = 0x1p-130;

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

Value rounded(Value x) {
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, cpu::round_to_bf16(x.f32()[i]));
  return x;
}
std::string name_at(const std::string& name, int precision) { return name + (precision ? ", bf16" : ", f32"); }

// A sum whose terms each carry a factor rounded to bf16: no more than all errors of one sign; and as they are
// independent, with mean 0 and a third of the unit squared at most, no more than 4·√Σx² of a unit, nearly 7 deviations
// (Higham & Mary 2019).
struct RoundedSum {
  double all = 0, squares = 0;
  void add(double x) {
    all += std::fabs(x);
    squares += x * x;
  }
  double error() const { return kBf16Unit * std::fmin(all, 4 * std::sqrt(squares)); }
};

// o, lse?, q, k, v, sinks?, q_start, k_start, k_len, pages, window, ring, page, scale, precision. Each sequence's keys
// take as many rows of k as it has, or as the ring has.
Values forward_args(const Sequences& s, Heads h, double window, double ring, const Value& sinks, int precision,
                    double spread = 1, double scale = 0) {
  const int64_t B = static_cast<int64_t>(s.queries.size()), T = total(s.queries);
  std::vector<int32_t> k_start, k_len;
  int32_t rows = 0;
  for (int64_t b = 0; b < B; ++b) {
    const int32_t len = s.queries[static_cast<size_t>(b)] + (s.extra.empty() ? 0 : s.extra[static_cast<size_t>(b)]);
    k_start.push_back(rows);
    k_len.push_back(len);
    rows += ring > 0 ? static_cast<int32_t>(ring) : len;
  }
  return {out({T, h.H, h.Dh}),
          out({T, h.H}),
          smooth({T, h.H, h.Dh}, 1, spread),
          smooth({rows, h.Hkv, h.Dh}, 2, spread),
          floats({rows, h.Hkv, h.Dh}, 3),
          sinks,
          starts(s.queries),
          values_i32({B}, k_start),
          values_i32({B}, k_len),
          nullptr,
          window,
          ring,
          0,
          scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(h.Dh)),
          precision};
}

std::vector<int32_t> list(const Value& x) { return {x.i32(), x.i32() + x.numel()}; }
// The same call with its keys in pages, as bf16 where wanted; and back, as f32 in rows of their own.
Values paged(Values a, int64_t page, DType dtype) {
  const Paged p = in_pages(a[3], a[4], list(a[7]), list(a[8]), page, dtype);
  a[3] = p.k;
  a[4] = p.v;
  a[7] = nullptr;
  a[9] = p.pages;
  a[12] = page;
  return a;
}
Values unpaged(Values a) {
  if (a[3].tensor.dtype == DType::f32 && !a[9].is_tensor()) return a;
  const auto page = static_cast<int64_t>(a[12].number);
  const int64_t width = a[3].tensor.shape[1] * a[3].tensor.shape[2], B = a[8].numel();
  std::vector<int32_t> starts;
  int64_t rows = 0;
  for (int64_t b = 0; b < B; ++b) {
    starts.push_back(static_cast<int32_t>(rows));
    rows += a[8].i32()[b];
  }
  if (!a[9].is_tensor()) rows = a[3].tensor.shape[0];
  for (size_t i : {3, 4}) {
    Value line(DType::f32, {rows, a[i].tensor.shape[1], a[i].tensor.shape[2]}, Role::in);
    const auto copy = [&](int64_t to, int64_t from) {
      for (int64_t d = 0; d < width; ++d) line.set(to * width + d, a[i].at(from * width + d));
    };
    if (!a[9].is_tensor())
      for (int64_t r = 0; r < rows; ++r) copy(r, r);
    else
      for (int64_t b = 0; b < B; ++b)
        for (int64_t j = 0; j < a[8].i32()[b]; ++j)
          copy(starts[static_cast<size_t>(b)] + j, a[9].i32()[b * a[9].tensor.shape[1] + j / page] * page + j % page);
    a[i] = line;
  }
  if (a[9].is_tensor()) a[7] = values_i32({B}, starts);
  a[9] = nullptr;
  a[12] = 0;
  return a;
}

// Calls visit(b, t, h, p, first, row_of) for every query and head.
template <class F>
void each_query(const Values& a, const Value& q_start, const Value* k_start, const Value* k_len, int64_t window,
                int64_t ring, int64_t H, F&& visit) {
  (void)a;
  const int64_t B = q_start.numel() - 1;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t begin = q_start.i32()[b], end = q_start.i32()[b + 1], len = k_len ? k_len->i32()[b] : end - begin,
                  base = k_start ? k_start->i32()[b] : begin;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t p = len - (end - begin) + t - begin, first = window > 0 && p + 1 > window ? p + 1 - window : 0;
      for (int64_t h = 0; h < H; ++h)
        visit(t, h, p, first, [=](int64_t j) { return base + (ring > 0 ? j % ring : j); });
    }
  }
}

// Errors of the scores (sums over Dh) enter exponentials; those weigh sums over the keys. e = largest error of a score
// of this query.
struct QueryError {
  double score, log_sum;
};
template <class Rows>
QueryError query_error(const Value& q, const Value& k, int64_t t, int64_t h, int64_t p, int64_t first, const Rows& row,
                       double scale, double lse) {
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  double largest = 0;
  for (int64_t j = first; j <= p; ++j) {
    double sum = 0;
    for (int64_t d = 0; d < Dh; ++d)
      sum += std::fabs(static_cast<double>(q.f32()[(t * H + h) * Dh + d]) *
                       k.f32()[(row(j) * Hkv + h * Hkv / H) * Dh + d]);
    largest = std::fmax(largest, std::fabs(scale) * sum);
  }
  const double score = rounding(static_cast<double>(Dh)) * largest;
  return {score, score + rounding(static_cast<double>(p - first + 1)) + 4 * kUnit * (std::fabs(lse) + largest)};
}

// Adds what f32 sums may be off by, and with `bf16` what rounded probabilities may.
void add_forward_bound(const Values& a, const Value& lse, bool bf16, Tolerance& tol) {
  const Value &q = a[2], &k = a[3], &v = a[4];
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  const double scale = a[13].number;
  each_query(a, a[6], &a[7], &a[8], static_cast<int64_t>(a[10].number), static_cast<int64_t>(a[11].number), H,
             [&](int64_t t, int64_t h, int64_t p, int64_t first, auto row) {
               const double log_sum = lse.at(t * H + h);
               const QueryError e = query_error(q, k, t, h, p, first, row, scale, log_sum);
               if (a[1].is_tensor()) tol[1][static_cast<size_t>(t * H + h)] += e.log_sum;
               std::vector<RoundedSum> sum(static_cast<size_t>(Dh));
               for (int64_t j = first; j <= p; ++j) {
                 const int64_t at = (row(j) * Hkv + h * Hkv / H) * Dh;
                 double score = 0;
                 for (int64_t d = 0; d < Dh; ++d)
                   score += static_cast<double>(q.f32()[(t * H + h) * Dh + d]) * k.f32()[at + d];
                 const double weight = std::exp(scale * score - log_sum);
                 for (int64_t d = 0; d < Dh; ++d) sum[static_cast<size_t>(d)].add(weight * v.f32()[at + d]);
               }
               for (int64_t d = 0; d < Dh; ++d) {
                 const RoundedSum& of = sum[static_cast<size_t>(d)];
                 tol[0][static_cast<size_t>((t * H + h) * Dh + d)] +=
                     (rounding(static_cast<double>(p - first + 1)) + e.score + e.log_sum) * of.all +
                     (bf16 ? of.error() : 0) + kSubnormal;
               }
             });
}

void forward_bound(const Case&, const Values& given, const Values&, Tolerance& tol) {
  const Values a = unpaged(given);
  Values full = a;  // lse is needed even where the case leaves it out
  full[1] = out({a[2].tensor.shape[0], a[2].tensor.shape[1]});
  const Values want = run_reference("attention_fwd", full);
  for (size_t i : {0, 1})
    if (a[i].is_tensor()) tol[i].assign(static_cast<size_t>(a[i].numel()), 0.0);
  add_forward_bound(a, want[1], false, tol);
  if (a[14].number == 0) return;
  for (size_t i : {2, 3, 4}) full[i] = rounded(full[i]);
  const Values other = run_reference("attention_fwd", full);
  for (size_t i : {0, 1})
    for (int64_t at = 0; a[i].is_tensor() && at < a[i].numel(); ++at)
      tol[i][static_cast<size_t>(at)] += std::fabs(other[i].at(at) - want[i].at(at));
  if (!a[1].is_tensor()) full[1] = nullptr;
  add_forward_bound(full, other[1], true, tol);
}

// dq, dk, dv, dsinks?, dout, q, k, v, o, lse, sinks?, q_start, k_start, k_len, window, scale, precision
// Adds to the tolerances of dq, dk and dv (and dsinks, without `bf16`) what f32 sums may be off by, and with `bf16`
// what rounded p and ds may; `sums`, if wanted, receives what is added to them. D is formed from `whole`, dout before
// any rounding.
using Sums = std::vector<double>[3];
void add_backward_bound(const Values& a, const Value& whole, bool bf16, Sums* sums, Tolerance& tol) {
  const Value &dout = a[4], &q = a[5], &k = a[6], &v = a[7], &o = a[8], &lse = a[9], &sinks = a[10];
  const int64_t H = q.tensor.shape[1], Hkv = k.tensor.shape[1], Dh = q.tensor.shape[2];
  const double scale = a[15].number;
  std::vector<RoundedSum> terms[3];
  for (size_t i : {0, 1, 2}) {
    if (sums) (*sums)[i].assign(static_cast<size_t>(a[i].numel()), 0.0);
    if (bf16) terms[i].resize(static_cast<size_t>(a[i].numel()));
  }
  const double T = static_cast<double>(q.tensor.shape[0]), group = static_cast<double>(H / Hkv);
  const auto add = [&](size_t i, int64_t at, double term, double error) {
    tol[i][static_cast<size_t>(at)] += error;
    if (sums) (*sums)[i][static_cast<size_t>(at)] += term;
    if (bf16) terms[i][static_cast<size_t>(at)].add(term);
  };
  each_query(
      a, a[11], &a[12], &a[13], static_cast<int64_t>(a[14].number), 0, H,
      [&](int64_t t, int64_t h, int64_t p, int64_t first, auto row) {
        const int64_t at_q = (t * H + h) * Dh;
        const QueryError e = query_error(q, k, t, h, p, first, row, scale, lse.at(t * H + h));
        // of p: lse is given, not computed
        const double relative = e.score + 16 * kUnit + 4 * kUnit * std::fabs(lse.at(t * H + h));
        double D = 0, D_abs = 0;
        for (int64_t d = 0; d < Dh; ++d) {
          D += whole.at(at_q + d) * o.at(at_q + d);
          D_abs += std::fabs(whole.at(at_q + d) * o.at(at_q + d));
        }
        if (a[3].is_tensor() && !bf16)
          tol[3][static_cast<size_t>(h)] += (rounding(T) + rounding(static_cast<double>(Dh)) +
                                             4 * kUnit * (std::fabs(sinks.at(h)) + std::fabs(lse.at(t * H + h)))) *
                                            std::exp(sinks.at(h) - lse.at(t * H + h)) * D_abs;
        for (int64_t j = first; j <= p; ++j) {
          const int64_t at_k = (row(j) * Hkv + h * Hkv / H) * Dh;
          double score = 0, dp = 0, dp_abs = 0;
          for (int64_t d = 0; d < Dh; ++d) {
            score += static_cast<double>(q.f32()[at_q + d]) * k.f32()[at_k + d];
            dp += static_cast<double>(dout.f32()[at_q + d]) * v.f32()[at_k + d];
            dp_abs += std::fabs(static_cast<double>(dout.f32()[at_q + d]) * v.f32()[at_k + d]);
          }
          const double weight = std::exp(scale * score - lse.at(t * H + h)), slope = scale * weight * (dp - D);
          const double ds = std::fabs(slope), ds_error = relative * ds + rounding(static_cast<double>(Dh)) *
                                                                             std::fabs(scale) * weight *
                                                                             (dp_abs + D_abs);
          const double over_keys = rounding(static_cast<double>(p - first + 1)), over_queries = rounding(T * group);
          for (int64_t d = 0; d < Dh; ++d) {
            add(0, at_q + d, slope * k.f32()[at_k + d], (over_keys * ds + ds_error) * std::fabs(k.f32()[at_k + d]));
            add(1, at_k + d, slope * q.f32()[at_q + d], (over_queries * ds + ds_error) * std::fabs(q.f32()[at_q + d]));
            add(2, at_k + d, weight * dout.f32()[at_q + d],
                (over_queries + relative) * weight * std::fabs(dout.f32()[at_q + d]));
          }
        }
      });
  for (size_t i : {0, 1, 2})
    for (size_t at = 0; bf16 && at < tol[i].size(); ++at) tol[i][at] += terms[i][at].error();
}

void backward_bound(const Case&, const Values& a, const Values&, Tolerance& tol) {
  const double T = static_cast<double>(a[5].tensor.shape[0]),
               group = static_cast<double>(a[5].tensor.shape[1] / a[6].tensor.shape[1]);
  for (size_t i : {0, 1, 2}) tol[i].assign(static_cast<size_t>(a[i].numel()), kSubnormal);
  for (size_t i : {1, 2})  // what was there before takes part in the sum
    for (int64_t at = 0; at < a[i].numel(); ++at)
      tol[i][static_cast<size_t>(at)] += rounding(T * group) * std::fabs(a[i].at(at));
  if (a[3].is_tensor()) {
    tol[3].assign(static_cast<size_t>(a[3].numel()), 0.0);
    for (int64_t h = 0; h < a[3].numel(); ++h) tol[3][static_cast<size_t>(h)] += 4 * kUnit * std::fabs(a[3].at(h));
  }
  Sums want, other;
  const bool bf16 = a[16].number == 1;
  add_backward_bound(a, a[4], false, bf16 ? &want : nullptr, tol);
  if (!bf16) return;
  Values full = a;
  for (size_t i : {4, 5, 6, 7}) full[i] = rounded(full[i]);
  add_backward_bound(full, a[4], true, &other, tol);
  for (size_t i : {0, 1, 2})
    for (size_t at = 0; at < tol[i].size(); ++at) tol[i][at] += std::fabs(other[i][at] - want[i][at]) + kSubnormal;
}

Values backward_args(const Values& after, const Value& dout, bool with_dsinks) {
  const auto shape = [&](size_t i) { return Shape(after[i].tensor.shape, after[i].tensor.shape + 3); };
  Value dsinks = nullptr;
  if (with_dsinks) dsinks = update(smooth({after[2].tensor.shape[1]}, 9));
  Values a = {out(shape(2)),
              update(smooth(shape(3), 10)),
              update(smooth(shape(4), 11)),
              dsinks,
              dout,
              after[2],
              after[3],
              after[4],
              after[0],
              after[1],
              after[5],
              after[6],
              after[7],
              after[8],
              after[10].number,
              after[13].number,
              after[14].number};
  for (Value& v : a)
    if (v.is_tensor() && &v > &a[3]) v.role = Role::in;
  return a;
}

void add_pair(Registry& r, const std::string& name, const Sequences& s, Heads h, double window, const Value& sinks,
              double spread = 1, bool slow = false, double scale = 0) {
  if (r.leaves_out(slow)) return;
  for (int precision : {0, 1}) {
    const Values a = forward_args(s, h, window, 0, sinks, precision, spread, scale);
    r.check({.op = "attention_fwd", .name = name_at(name, precision), .args = a, .bound = forward_bound, .slow = slow});
    const Values after = run_reference("attention_fwd", a);
    const bool has_sinks = sinks.is_tensor();
    r.check({.op = "attention_bwd",
             .name = name_at(name, precision),
             .args = backward_args(after, floats({total(s.queries), h.H, h.Dh}, 8), has_sinks),
             .bound = backward_bound,
             .slow = slow});
  }
}

void add_bench(Registry& r, const std::string& name, int32_t T, double window) {
  const Heads h{64, 8, 64};
  Values a = forward_args({{T}, {}}, h, window, 0, smooth({64}, 4), 0);
  double pairs = 0;
  for (int32_t p = 0; p < T; ++p) pairs += window > 0 && p + 1 > window ? window : p + 1;
  r.check({.op = "attention_fwd", .name = name, .args = a, .flops = pairs * 64 * 64 * 4, .bench_only = true});
  a[0].role = a[1].role = Role::in;  // the values do not matter to the time: zeros stand for o and lse
  if (r.for_bench)
    r.check({.op = "attention_bwd",
             .name = name,
             .args = backward_args(a, smooth({T, 64, 64}, 8), false),
             .flops = pairs * 64 * 64 * 10,
             .bench_only = true});
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
  add_pair(r, "gpt-oss groups, window 128", {{140, 20}, {}}, {16, 2, 64}, 128, smooth({16}, 4, 1, DType::bf16), 1,
           true);
  add_pair(r, "gpt-oss heads, full", {{33}, {}}, gpt_oss, 0, smooth({64}, 4, 1, DType::bf16), 1, true);

  add_pair(r, "negative scale", {{20, 80}, {}}, {4, 2, 64}, 60, smooth({4}, 4), 1, false, -0.125);

  // Over several tiles of the warpgroup kernels: 192 rows of queries, 128 keys, 64 of each to a tile.
  for (double window : {0.0, 50.0}) {
    const std::string w = "eight heads to a kv head, window " + std::to_string(static_cast<int>(window));
    add_pair(r, w, {{71, 1, 18}, {}}, {8, 1, 64}, window, smooth({8}, 4, 1, DType::bf16));
    add_pair(r, w + ", pieces", {{25, 1, 9}, {110, 203, 0}}, {8, 1, 64}, window, smooth({8}, 4));
  }
  add_pair(r, "three heads of odd width, window 33", {{60, 30}, {29, 64}}, {3, 1, 33}, 33, smooth({3}, 4));

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
  const auto serving = [&](const std::string& name, const Sequences& s, Heads h, double window, double ring,
                           const Value& sinks, bool with_lse = true) {
    for (int precision : {0, 1}) {
      Values a = forward_args(s, h, window, ring, sinks, precision);
      if (!with_lse) a[1] = nullptr;
      r.check({.op = "attention_fwd", .name = name_at(name, precision), .args = a, .bound = forward_bound});
    }
  };
  for (double window : {0.0, 5.0, 128.0}) {
    const std::string w = ", window " + std::to_string(static_cast<int>(window));
    serving("decode" + w, {{1, 1, 1}, {0, 300, 77}}, {8, 2, 16}, window, 0, smooth({8}, 4));
    serving("prefill on a cache" + w, {{40, 3}, {100, 64}}, {4, 4, 8}, window, 0, smooth({4}, 4));
    serving("lse left out" + w, {{3}, {10}}, small, window, 0, none, false);
  }
  serving("ring", {{1, 1, 1, 1}, {2, 127, 128, 1000}}, {8, 2, 16}, 128, 128, smooth({8}, 4));
  serving("ring with room for several queries", {{7, 2}, {50, 3}}, small, 5, 11, smooth({4}, 4));

  serving("decode over 1000 keys", {{3}, {1000}}, {8, 2, 16}, 0, 0, smooth({8}, 4));
  serving("decode, one sequence idle", {{1, 0, 2}, {70, 500, 3}}, {24, 1, 8}, 0, 0, smooth({24}, 4));
  serving("decode of 200 sequences", {std::vector<int32_t>(200, 1), std::vector<int32_t>(200, 5)}, {2, 1, 4}, 0, 0,
          none);
  serving("many queries over a ring", {{40, 30}, {100, 0}}, {4, 2, 8}, 20, 64, smooth({4}, 4));
  for (int precision : {0, 1}) {
    Values a = forward_args({{40, 30}, {75, 101}}, {4, 2, 24}, 0, 0, smooth({4}, 4), precision);
    a[7] = values_i32({2}, {9, 9});
    r.check({.op = "attention_fwd",
             .name = name_at("many queries of two sequences over the same keys", precision),
             .args = a,
             .bound = forward_bound});
  }

  // The same over pages, and keys and values in bf16 in any layout.
  const auto cached = [&](const std::string& name, const Sequences& s, Heads h, double window, double ring,
                          int64_t page, DType dtype) {
    for (int precision : {0, 1}) {
      Values a = forward_args(s, h, window, ring, smooth({h.H}, 4), precision);
      if (page > 0) {
        a = paged(a, page, dtype);
      } else if (dtype == DType::bf16) {
        a[3] = smooth({a[3].tensor.shape[0], h.Hkv, h.Dh}, 2, 1, dtype);
        a[4] = floats({a[4].tensor.shape[0], h.Hkv, h.Dh}, 3, 1, dtype);
      }
      const std::string how =
          (page > 0 ? ", pages of " + std::to_string(page) : "") + (dtype == DType::bf16 ? ", bf16 keys" : "");
      r.check({.op = "attention_fwd", .name = name_at(name + how, precision), .args = a, .bound = forward_bound});
    }
  };
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t page : {64, 128}) {
      cached("decode", {{1, 1, 1}, {0, 300, 77}}, {8, 2, 16}, 0, 0, page, dtype);
      cached("decode, one sequence idle", {{1, 0, 2}, {70, 500, 3}}, {24, 1, 8}, 0, 0, page, dtype);
      cached("decode of odd heads", {{2}, {130}}, {3, 1, 7}, 0, 0, page, dtype);
      cached("prefill on a cache", {{40, 3}, {100, 64}}, {4, 4, 8}, 0, 0, page, dtype);
      cached("prefill on a cache, window 100", {{70, 3}, {100, 264}}, {4, 2, 20}, 100, 0, page, dtype);
      cached("heads of width 80", {{5, 9}, {100, 3}}, {4, 2, 80}, 0, 0, page, dtype);
    }
    cached("gpt-oss decode over 1000", {{1, 2}, {1000, 129}}, {16, 2, 64}, 0, 0, 64, dtype);
    cached("gpt-oss prefill", {{140}, {90}}, {16, 2, 64}, 0, 0, 64, dtype);
  }
  cached("in a line", {{1, 30}, {300, 40}}, {8, 2, 16}, 0, 0, 0, DType::bf16);
  cached("in a ring", {{1, 1}, {300, 40}}, {8, 2, 16}, 50, 64, 0, DType::bf16);

  const auto bad = [&](const std::string& name, const std::function<void(Values&)>& change) {
    Values a = forward_args({{3, 2}, {4, 0}}, small, 0, 0, none, 0);
    change(a);
    r.check({.op = "attention_fwd", .name = name, .args = a, .error = "bad_index"});
  };
  bad("q_start falls", [](Values& a) { a[6] = values_i32({3}, {0, 6, 5}); });
  bad("q_start begins late", [](Values& a) { a[6] = values_i32({3}, {1, 3, 5}); });
  bad("q_start ends early", [](Values& a) { a[6] = values_i32({3}, {0, 3, 4}); });
  bad("fewer keys than queries", [](Values& a) { a[8] = values_i32({2}, {2, 2}); });
  bad("keys beyond k", [](Values& a) { a[8] = values_i32({2}, {7, 3}); });
  bad("negative k_start", [](Values& a) { a[7] = values_i32({2}, {-1, 7}); });
  bad("ring shorter than the view", [](Values& a) {
    a[11] = Value(4.0);
    a[7] = values_i32({2}, {0, 4});
  });
  for (int32_t page : {-1, 3, 2147483647})  // of the 3 there are
    for (int64_t at : {0, 1})
      bad("page " + std::to_string(page) + " of sequence " + std::to_string(at), [=](Values& a) {
        a = paged(a, 64, DType::f32);
        a[9].set(at, page);
      });
  bad("more keys than pages", [](Values& a) {
    a = paged(a, 64, DType::f32);
    a[8] = values_i32({2}, {65, 2});
  });
  const Values b = backward_args(run_reference("attention_fwd", forward_args({{3, 2}, {4, 0}}, small, 0, 0, none, 0)),
                                 floats({5, 4, 6}, 8), false);
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
    GradCase g{.op = "attention_bwd",
               .name = name,
               .forward = "attention_fwd",
               .args = forward_args(s, h, window, 0, sinks ? smooth({h.H}, 4) : Value(nullptr), 0, 0.5),
               .outputs = {0},
               .pairs = {{2, 0}, {3, 1}, {4, 2}},
               .backward = [sinks](const Values& a, const Values& up) {
                 Values v = backward_args(a, up[0], false);
                 for (size_t i : {1, 2}) std::fill(v[i].bytes.begin(), v[i].bytes.end(), uint8_t{0});
                 if (sinks)
                   v[3] = update(values_f32({a[2].tensor.shape[1]},
                                            std::vector<float>(static_cast<size_t>(a[2].tensor.shape[1]))));
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
  if (r.for_bench)
    r.check({.op = "attention_fwd",
             .name = "gpt-oss decode over 4096",
             .args = forward_args({{1}, {4095}}, gpt_oss, 0, 0, smooth({64}, 4), 0),
             .bytes = 4096 * 8 * 64 * 8.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "attention_fwd",
             .name = "nano decode over 128",
             .args = forward_args({{1}, {127}}, {4, 2, 16}, 0, 0, smooth({4}, 4), 0),
             .bytes = 128 * 2 * 16 * 8.0,
             .bench_only = true});
}};

// Arguments that a kernel with a wrong mask or without the sink would seem to have been given.
std::vector<std::pair<std::string, Values>> mistakes(const Case& c) {
  const bool forward = c.op == "attention_fwd";
  const size_t sinks = 5, k_len = forward ? 8 : 13, window = forward ? 10 : 14;
  std::vector<std::pair<std::string, Values>> all;
  const auto add = [&](const std::string& name, const std::function<void(Values&)>& change) {
    Values a = c.args;
    change(a);
    all.emplace_back(name, std::move(a));
  };
  if (forward && c.args[sinks].is_tensor()) add("no sink", [&](Values& a) { a[sinks] = nullptr; });
  int32_t longest = 0;
  for (int64_t b = 0; b < c.args[k_len].numel(); ++b) longest = std::max(longest, c.args[k_len].i32()[b]);
  const double w = c.args[window].number;
  if (w > 1) add("window a key narrower", [&](Values& a) { a[window] = w - 1; });
  if (w > 0) add("window a key wider", [&](Values& a) { a[window] = w + 1; });
  if (w == 0 && longest > 1) add("a window where there is none", [&](Values& a) { a[window] = (longest + 1) / 2; });
  for (int by : {1, -1})
    add(by > 0 ? "a key too many" : "a key too few", [&](Values& a) {
      std::vector<int32_t> lengths(a[k_len].i32(), a[k_len].i32() + a[k_len].numel());
      for (int32_t& n : lengths) n += by;
      if (by > 0) --lengths.back();  // the last sequence's keys end where k does
      a[k_len] = values_i32({a[k_len].numel()}, lengths);
    });
  return all;
}

}  // namespace

// The tolerances at precision 1 see what those at precision 0 see: a wrong mask, a missing sink.
void check_attention_tolerances(Tally& tally) {
  constexpr int64_t kLargest = 1 << 14;  // elements of q
  std::map<std::string, int> seen;
  for (const Case& c : registry().cases) {
    if (!c.op.starts_with("attention_") || !c.error.empty() || c.bench_only || c.slow || c.args.back().number != 1 ||
        c.args[c.op == "attention_fwd" ? 2 : 5].numel() > kLargest)
      continue;
    Case exact = c;
    exact.args.back() = 0;
    const Values want = run_reference(c.op, c.args);
    Tolerance loose = no_tolerance(c), tight = loose;
    c.bound(c, c.args, want, loose);
    exact.bound(exact, exact.args, want, tight);
    for (const auto& [name, args] : mistakes(c)) {
      Values wrong;
      try {
        wrong = run_reference(c.op, args);
      } catch (const std::exception&) {
        continue;  // keys that are not there
      }
      const auto refused = [&](const Tolerance& tolerance) {
        bool any = false;
        for (size_t i = 0; i < (c.op == "attention_fwd" ? 2 : 3); ++i)
          any = any || (want[i].is_tensor() && !compare(wrong[i], want[i], tolerance[i]).empty());
        return any;
      };
      if (!refused(tight)) continue;
      ++seen[c.op + ", " + name];
      report(tally, refused(loose), c.op + " [" + c.name + "]: a result passes with " + name);
    }
  }
  for (const char* op : {"attention_fwd", "attention_bwd"})
    for (const char* name :
         {"window a key narrower", "window a key wider", "a window where there is none", "a key too few"})
      report(tally, seen[op + std::string(", ") + name] > 0, std::string(op) + ": no case shows " + name);
  for (const char* name : {"no sink", "a key too many"})
    report(tally, seen[std::string("attention_fwd, ") + name] > 0, std::string("attention_fwd: no case shows ") + name);
}

}  // namespace temper::test
