// Attention with sinks as plain loops in double, and the check of the sequences.
#include "cpu/attention/attention.h"
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>
#include "cpu/host/number.h"
#include "cpu/ops.h"

namespace temper::cpu {

AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Tensor& q_start, const Tensor* k_start,
                               const Tensor* k_len, int64_t window, int64_t ring, const Tensor* pages, int64_t page) {
  AttentionShape s{q_start.numel() - 1, q.shape[0], k.shape[0], q.shape[1], k.shape[1], q.shape[2], window, ring};
  require(s.Hkv > 0 && s.H > 0 && s.H % s.Hkv == 0, "shape_mismatch", "attention: ", s.H, " query heads over ", s.Hkv,
          " kv heads, wanted a multiple");
  require(s.Dh > 0, "shape_mismatch", "attention: heads of width 0, wanted 1 or more");
  require(window >= 0 && ring >= 0, "bad_argument", "attention: window ", window, ", ring ", ring,
          ", wanted 0 or more");
  if (pages) {
    s.pages = pages->i32();
    s.table = pages->shape[1];
    s.page_bits = std::countr_zero(static_cast<uint64_t>(page));
  }
  const int32_t* start = q_start.i32();
  require(start[0] == 0 && start[s.B] == s.T, "bad_index", "attention: q_start runs from ", start[0], " to ",
          start[s.B], ", wanted 0 to ", s.T);
  for (int64_t b = 0; b < s.B; ++b) {
    const int64_t n = static_cast<int64_t>(start[b + 1]) - start[b];
    require(n >= 0, "bad_index", "attention: q_start falls at sequence ", b, ", wanted rising");
    if (!k_len) continue;
    const int64_t len = k_len->i32()[b];
    require(len >= n, "bad_index", "attention: sequence ", b, " has ", n, " queries but k_len ", len,
            ", wanted at least as many keys");
    if (pages) {
      const int64_t used = (len + page - 1) / page;
      require(used <= s.table, "bad_index", "attention: sequence ", b, " has k_len ", len, ", its ", s.table,
              " pages hold ", s.table * page);
      for (int64_t i = 0; i < used; ++i)
        require(s.pages_of(b)[i] >= 0 && s.pages_of(b)[i] < s.S / page, "bad_index", "attention: page ", i,
                " of sequence ", b, " is ", s.pages_of(b)[i], ", wanted 0…", s.S / page - 1, ", as k has rows for");
      continue;
    }
    const int64_t first = k_start->i32()[b];
    require(first >= 0 && first + (ring > 0 ? std::min(len, ring) : len) <= s.S, "bad_index",
            "attention: keys of sequence ", b, " start at row ", first, " with k_len ", len, ", beyond the ", s.S,
            " rows of k");
    require(ring == 0 || n == 0 || len - s.first_key(len - n) <= ring, "bad_index", "attention: sequence ", b,
            " looks ", n == 0 ? 0 : len - s.first_key(len - n), " keys back, wanted at most the ring's ", ring);
  }
  return s;
}

void require_separate_keys(const AttentionShape& s, const Tensor& k_start, const Tensor& k_len) {
  for (int64_t b = 1; b < s.B; ++b)
    require(k_start.i32()[b] >= k_start.i32()[b - 1] + k_len.i32()[b - 1], "bad_index",
            "attention_bwd: keys of sequence ", b, " start at row ", k_start.i32()[b],
            ", inside those of the sequence before; wanted rising rows that do not overlap");
}

namespace reference {

void attention_fwd(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks,
                   TensorRef q_start, TensorRef k_start, TensorRef k_len, TensorRef pages, int64_t window, int64_t ring,
                   int64_t page, double scale, int64_t) {
  const AttentionShape s = attention_shape(*q, *k, *q_start, k_start, k_len, window, ring, pages, page);
  for (int64_t b = 0; b < s.B; ++b) {
    const int64_t begin = q_start->i32()[b], end = q_start->i32()[b + 1], len = k_len->i32()[b];
    for (int64_t t = begin; t < end; ++t)
      for (int64_t h = 0; h < s.H; ++h) {
        const int64_t p = len - (end - begin) + (t - begin), first = s.first_key(p);
        std::vector<double> score, out(s.Dh, 0.0);
        double largest = sinks ? element(*sinks, h) : -INFINITY;
        const KeyRows keys = key_rows(s, k_start, b);
        const auto at = [&](int64_t j) { return (keys.row(j) * s.Hkv + s.kv_head(h)) * s.Dh; };
        for (int64_t j = first; j <= p; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < s.Dh; ++d)
            dot += static_cast<double>(q->f32()[(t * s.H + h) * s.Dh + d]) * element(*k, at(j) + d);
          score.push_back(scale * dot);
          largest = std::max(largest, score.back());
        }
        double sum = sinks ? std::exp(element(*sinks, h) - largest) : 0.0;
        for (double x : score) sum += std::exp(x - largest);
        const double log_sum = largest + std::log(sum);
        for (int64_t j = first; j <= p; ++j) {
          const double weight = std::exp(score[j - first] - log_sum);
          for (int64_t d = 0; d < s.Dh; ++d) out[d] += weight * element(*v, at(j) + d);
        }
        for (int64_t d = 0; d < s.Dh; ++d) o->f32()[(t * s.H + h) * s.Dh + d] = static_cast<float>(out[d]);
        if (lse) lse->f32()[t * s.H + h] = static_cast<float>(log_sum);
      }
  }
}

void attention_bwd(TensorRef dq, TensorRef dk, TensorRef dv, TensorRef dsinks, TensorRef dout, TensorRef q, TensorRef k,
                   TensorRef v, TensorRef o, TensorRef lse, TensorRef sinks, TensorRef q_start, TensorRef k_start,
                   TensorRef k_len, int64_t window, double scale, int64_t) {
  const AttentionShape s = attention_shape(*q, *k, *q_start, k_start, k_len, window, 0);
  require_separate_keys(s, *k_start, *k_len);
  std::vector<double> k_sum(k->numel(), 0.0), v_sum(v->numel(), 0.0), sink_sum(s.H, 0.0);
  for (int64_t b = 0; b < s.B; ++b) {
    const int64_t begin = q_start->i32()[b], end = q_start->i32()[b + 1], len = k_len->i32()[b];
    for (int64_t t = begin; t < end; ++t)
      for (int64_t h = 0; h < s.H; ++h) {
        const int64_t row = (t * s.H + h) * s.Dh;
        const double log_sum = lse->f32()[t * s.H + h];
        std::vector<double> q_sum(s.Dh, 0.0);
        double D = 0;
        for (int64_t d = 0; d < s.Dh; ++d) D += static_cast<double>(dout->f32()[row + d]) * o->f32()[row + d];
        if (sinks) sink_sum[h] -= std::exp(element(*sinks, h) - log_sum) * D;
        const int64_t position = len - (end - begin) + (t - begin);
        for (int64_t j = s.first_key(position); j <= position; ++j) {
          const int64_t key = (key_rows(s, k_start, b).row(j) * s.Hkv + s.kv_head(h)) * s.Dh;
          double score = 0, dp = 0;
          for (int64_t d = 0; d < s.Dh; ++d) {
            score += static_cast<double>(q->f32()[row + d]) * k->f32()[key + d];
            dp += static_cast<double>(dout->f32()[row + d]) * v->f32()[key + d];
          }
          const double p = std::exp(scale * score - log_sum), ds = scale * p * (dp - D);
          for (int64_t d = 0; d < s.Dh; ++d) {
            q_sum[d] += ds * k->f32()[key + d];
            k_sum[key + d] += ds * q->f32()[row + d];
            v_sum[key + d] += p * dout->f32()[row + d];
          }
        }
        for (int64_t d = 0; d < s.Dh; ++d) dq->f32()[row + d] = static_cast<float>(q_sum[d]);
      }
  }
  for (size_t i = 0; i < k_sum.size(); ++i) {
    dk->f32()[i] = static_cast<float>(dk->f32()[i] + k_sum[i]);
    dv->f32()[i] = static_cast<float>(dv->f32()[i] + v_sum[i]);
  }
  for (int64_t h = 0; dsinks && h < s.H; ++h) dsinks->f32()[h] = static_cast<float>(dsinks->f32()[h] + sink_sum[h]);
}

}  // namespace reference
}  // namespace temper::cpu
