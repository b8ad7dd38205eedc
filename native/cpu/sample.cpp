// Choosing the next token. The candidate set is found by partial selection; among the candidates, u walks in the order of the ids.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>
#include "cpu/ops.h"
#include "cpu/variants.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct Params { double temperature; int64_t top_k; double top_p, min_p, u; };

Params params_of(TensorRef params, TensorRef u, int64_t b, int64_t V) {
  const float* p = params->f32() + 4 * b;
  require(p[0] >= 0 && p[0] <= FLT_MAX, "bad_argument", "sample: temperature of row ", b, " is ", p[0], ", wanted 0 or a finite positive number");
  require(p[1] >= 0, "bad_argument", "sample: top_k of row ", b, " is ", p[1], ", wanted 0 (all) or more");
  require(p[2] >= 0 && p[2] <= 1, "bad_argument", "sample: top_p of row ", b, " is ", p[2], ", wanted 0 to 1");
  require(p[3] >= 0 && p[3] <= 1, "bad_argument", "sample: min_p of row ", b, " is ", p[3], ", wanted 0 to 1");
  require(u->f32()[b] >= 0 && u->f32()[b] < 1, "bad_argument", "sample: u of row ", b, " is ", u->f32()[b], ", wanted 0 to below 1");
  const int64_t k = p[1] >= static_cast<float>(V) ? 0 : static_cast<int64_t>(p[1]);
  return {p[0], k, p[2], p[3], u->f32()[b]};
}

[[noreturn]] void no_candidate(int64_t b) {
  fail("bad_logits", "sample: row ", b, " has no finite allowed logit, wanted at least one; check the mask and whether the model's weights are sound");
}

// kept = logit where finite (and allowed), −∞ elsewhere.
struct Keep {
  template <int> static TEMPER_INLINE void run(float* kept, const float* logits, int64_t V) {
#pragma omp simd
    for (int64_t v = 0; v < V; ++v) kept[v] = __builtin_fabsf(logits[v]) <= FLT_MAX ? logits[v] : -INFINITY;
  }
};
struct Largest {
  template <int> static TEMPER_INLINE void run(float* out, const float* x, int64_t V) {
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int64_t v = 0; v < V; ++v) best = x[v] > best ? x[v] : best;
    *out = best;
  }
};
struct SumExp {
  template <int> static TEMPER_INLINE void run(double* out, const float* x, float shift, int64_t V) {
    double total = 0;
    for (int64_t begin = 0; begin < V; begin += 1024) {
      const int64_t end = begin + 1024 < V ? begin + 1024 : V;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t v = begin; v < end; ++v) sum += exp_approx(x[v] - shift);
      total += sum;
    }
    *out = total;
  }
};

// Weight of a logit relative to the largest; below e^−50 it could not move a double's sum over any vocabulary.
double weight(float x, float best, double temperature) {
  const double z = (static_cast<double>(x) - best) / temperature;
  return z < -50.0 ? 0.0 : std::exp(z);
}

// The n largest of kept, falling, a tie in the order of the ids; returns how many there are (−∞ is left out).
int64_t select_largest(const float* kept, int64_t V, int64_t n, int32_t* ids) {
  const auto before = [kept](int32_t a, int32_t b) { return kept[a] != kept[b] ? kept[a] > kept[b] : a < b; };
  int64_t size = 0;
  for (int64_t v = 0; v < V; ++v) {
    if (kept[v] == -INFINITY) continue;
    if (size < n) {
      ids[size++] = static_cast<int32_t>(v);
      std::push_heap(ids, ids + size, before);  // the last in order stands at the front
    } else if (kept[v] > kept[ids[0]]) {
      std::pop_heap(ids, ids + size, before);
      ids[size - 1] = static_cast<int32_t>(v);
      std::push_heap(ids, ids + size, before);
    }
  }
  std::sort(ids, ids + size, before);
  return size;
}

int32_t pick_restricted(const float* kept, int64_t V, float best, const Params& p) {
  double total = 0;  // mass of everything allowed; of the top_k, once they are chosen
  if (p.top_k == 0 && p.top_p < 1)
    for (int64_t v = 0; v < V; ++v) total += weight(kept[v], best, p.temperature);
  for (int64_t n = p.top_k ? p.top_k : p.top_p < 1 ? 64 : V;; n *= 8) {
    if (n > V) n = V;
    Scratch<int32_t> ids(static_cast<size_t>(n));
    int64_t count = select_largest(kept, V, n, ids.data());
    if (p.top_k) {
      total = 0;
      for (int64_t i = 0; i < count; ++i) total += weight(kept[ids[i]], best, p.temperature);
    }
    if (p.top_p < 1) {
      double mass = 0;
      int64_t i = 0;
      while (i < count && (i == 0 || mass < p.top_p * total)) mass += weight(kept[ids[i++]], best, p.temperature);
      if (i == count && mass < p.top_p * total && !p.top_k && n < V) continue;  // the set reaches further: select more
      count = i;
    }
    while (count > 1 && weight(kept[ids[count - 1]], best, p.temperature) < p.min_p) --count;
    std::sort(ids.data(), ids.data() + count);
    double sum = 0, walked = 0;
    for (int64_t i = 0; i < count; ++i) sum += weight(kept[ids[i]], best, p.temperature);
    for (int64_t i = 0; i < count; ++i) {
      walked += weight(kept[ids[i]], best, p.temperature);
      if (walked > p.u * sum) return ids[i];
    }
    return ids[count - 1];
  }
}

int32_t pick_any(const float* kept, int64_t V, float best, const Params& p) {
  constexpr int64_t kBlock = 1024;
  const int64_t blocks = (V + kBlock - 1) / kBlock;
  Scratch<double> mass(static_cast<size_t>(blocks));
  double sum = 0, walked = 0;
  for (int64_t k = 0; k < blocks; ++k) {
    mass[k] = 0;
    for (int64_t v = k * kBlock; v < std::min(V, (k + 1) * kBlock); ++v) mass[k] += weight(kept[v], best, p.temperature);
    sum += mass[k];
  }
  int32_t last = 0;
  for (int64_t k = 0; k < blocks; ++k) {
    if (walked + mass[k] <= p.u * sum) { walked += mass[k]; continue; }
    for (int64_t v = k * kBlock; v < std::min(V, (k + 1) * kBlock); ++v) {
      const double w = weight(kept[v], best, p.temperature);
      if (w == 0) continue;
      walked += w;
      last = static_cast<int32_t>(v);
      if (walked > p.u * sum) return last;
    }
  }
  if (weight(kept[last], best, p.temperature) > 0) return last;  // u·sum was lost in rounding: the last token that has mass
  for (int64_t v = V - 1;; --v)
    if (weight(kept[v], best, p.temperature) > 0) return static_cast<int32_t>(v);
}

}  // namespace

void sample(TensorRef tokens, TensorRef logprobs, TensorRef logits, TensorRef params, TensorRef u, TensorRef mask) {
  const int64_t B = logits->shape[0], V = logits->shape[1], words = (V + 31) / 32;
  for (int64_t b = 0; b < B; ++b) params_of(params, u, b, V);
  parallel_for(B, [&](int64_t b) {
    const Params p = params_of(params, u, b, V);
    const float* row = logits->f32() + b * V;
    Scratch<float> kept(static_cast<size_t>(V));
    run_kernel<Keep>(kept.data(), row, V);
    float best, shift;
    double total;
    run_kernel<Largest>(&shift, static_cast<const float*>(kept.data()), V);
    if (shift == -INFINITY) no_candidate(b);
    run_kernel<SumExp>(&total, static_cast<const float*>(kept.data()), shift, V);
    best = shift;
    if (mask) {
      const int32_t* bits = mask->i32() + b * words;
      for (int64_t v = 0; v < V; ++v)
        if (!(static_cast<uint32_t>(bits[v / 32]) >> (v % 32) & 1u)) kept[v] = -INFINITY;
      run_kernel<Largest>(&best, static_cast<const float*>(kept.data()), V);
      if (best == -INFINITY) no_candidate(b);
    }
    int32_t token;
    if (p.temperature == 0) token = static_cast<int32_t>(std::find(kept.data(), kept.data() + V, best) - kept.data());
    else if (p.top_k == 0 && p.top_p == 1 && p.min_p == 0) token = pick_any(kept.data(), V, best, p);
    else token = pick_restricted(kept.data(), V, best, p);
    tokens->i32()[b] = token;
    logprobs->f32()[b] = static_cast<float>(static_cast<double>(row[token]) - shift - std::log(total));
  });
}

namespace reference {

void sample(TensorRef tokens, TensorRef logprobs, TensorRef logits, TensorRef params, TensorRef u, TensorRef mask) {
  const int64_t B = logits->shape[0], V = logits->shape[1], words = (V + 31) / 32;
  for (int64_t b = 0; b < B; ++b) {
    const Params p = params_of(params, u, b, V);
    const float* row = logits->f32() + b * V;
    std::vector<int32_t> ids;
    double shift = -INFINITY, total = 0;
    for (int64_t v = 0; v < V; ++v) {
      if (!std::isfinite(row[v])) continue;
      shift = std::max<double>(shift, row[v]);
      if (!mask || static_cast<uint32_t>(mask->i32()[b * words + v / 32]) >> (v % 32) & 1u) ids.push_back(static_cast<int32_t>(v));
    }
    if (ids.empty()) no_candidate(b);
    for (int64_t v = 0; v < V; ++v)
      if (std::isfinite(row[v])) total += std::exp(row[v] - shift);
    std::stable_sort(ids.begin(), ids.end(), [row](int32_t a, int32_t c) { return row[a] > row[c]; });
    const auto keep = [&ids](size_t n) { ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(n), ids.end()); };
    if (p.temperature == 0) keep(1);
    if (p.top_k > 0 && p.top_k < static_cast<int64_t>(ids.size())) keep(static_cast<size_t>(p.top_k));
    const double best = row[ids[0]];
    const auto mass = [&](int32_t v) { return p.temperature == 0 ? 1.0 : std::exp((row[v] - best) / p.temperature); };
    double sum = 0, reached = 0;
    for (int32_t v : ids) sum += mass(v);
    if (p.top_p < 1) {
      size_t n = 0;
      while (n < ids.size() && (n == 0 || reached < p.top_p * sum)) reached += mass(ids[n++]);
      keep(n);
    }
    while (ids.size() > 1 && mass(ids.back()) < p.min_p) ids.pop_back();
    std::sort(ids.begin(), ids.end());
    sum = 0;
    for (int32_t v : ids) sum += mass(v);
    double walked = 0;
    int32_t token = -1;
    for (int32_t v : ids) {
      if (mass(v) == 0) continue;
      walked += mass(v);
      token = v;
      if (walked > p.u * sum) break;
    }
    tokens->i32()[b] = token;
    logprobs->f32()[b] = static_cast<float>(row[token] - shift - std::log(total));
  }
}

}  // namespace reference
}  // namespace temper::cpu
