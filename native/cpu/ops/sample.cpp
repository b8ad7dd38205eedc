// Choosing the next token. The candidate set is found without sorting the vocabulary; in it, u walks in the order of
// the ids.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kBins = 4096;  // of distances from the largest logit

struct Params {
  double temperature;
  int64_t top_k;
  double top_p, min_p, u;
};

Params params_of(TensorRef params, TensorRef u, int64_t b, int64_t V) {
  const float* p = params->f32() + 4 * b;
  require(p[0] >= 0 && p[0] <= FLT_MAX, "bad_argument", "sample: temperature of row ", b, " is ", p[0],
          ", wanted 0 or a finite positive number");
  require(p[1] >= 0, "bad_argument", "sample: top_k of row ", b, " is ", p[1], ", wanted 0 (all) or more");
  require(p[2] >= 0 && p[2] <= 1, "bad_argument", "sample: top_p of row ", b, " is ", p[2], ", wanted 0 to 1");
  require(p[3] >= 0 && p[3] <= 1, "bad_argument", "sample: min_p of row ", b, " is ", p[3], ", wanted 0 to 1");
  require(u->f32()[b] >= 0 && u->f32()[b] < 1, "bad_argument", "sample: u of row ", b, " is ", u->f32()[b],
          ", wanted 0 to below 1");
  const int64_t k = p[1] >= static_cast<float>(V) ? 0 : static_cast<int64_t>(p[1]);
  return {p[0], k, p[2], p[3], u->f32()[b]};
}

[[noreturn]] void no_candidate(int64_t b) {
  fail("bad_logits", "sample: row ", b,
       " has no finite allowed logit, wanted at least one; check the mask and whether the model's weights are sound");
}

// kept = logit where finite (and allowed), −∞ elsewhere.
struct Keep {
  template <int>
  static TEMPER_INLINE void run(float* kept, const float* logits, int64_t V) {
#pragma omp simd
    for (int64_t v = 0; v < V; ++v) kept[v] = __builtin_fabsf(logits[v]) <= FLT_MAX ? logits[v] : -INFINITY;
  }
};
struct Largest {
  template <int>
  static TEMPER_INLINE void run(float* out, const float* x, int64_t V) {
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int64_t v = 0; v < V; ++v) best = x[v] > best ? x[v] : best;
    *out = best;
  }
};
struct SumExp {
  template <int>
  static TEMPER_INLINE void run(double* out, const float* x, float shift, int64_t V) {
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

// Where the candidate set ends: in are the logits above x, and those equal to x with an id up to `id`.
struct Cut {
  float x;
  int32_t id;
  bool holds(float y, int64_t v) const { return y > x || (y == x && v <= id); }
};

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

// The smallest prefix of ids (falling) whose mass is at least `wanted`, one at least; `mass` is what stands before
// them.
Cut cut_at_mass(const float* kept, const int32_t* ids, int64_t count, double mass, double wanted, float best,
                double temperature) {
  int64_t i = 0;
  while (i < count && (i == 0 || mass < wanted)) mass += weight(kept[ids[i++]], best, temperature);
  return {kept[ids[i - 1]], ids[i - 1]};
}

// top_p over the whole vocabulary without sorting it: masses are gathered in bins of the distance from the largest
// logit, and only the bin in which the sum passes top_p is sorted.
Cut cut_top_p(const float* kept, const double* mass, int64_t V, float best, const Params& p, double total) {
  const double per_bin = 50.0 / kBins;
  const auto bin_of = [&](int64_t v) {
    const double z = (static_cast<double>(best) - kept[v]) / p.temperature / per_bin;
    return z < kBins - 1 ? static_cast<int64_t>(z) : kBins - 1;
  };
  Scratch<double> bins(kBins);
  std::fill(bins.data(), bins.data() + kBins, 0.0);
  for (int64_t v = 0; v < V; ++v)
    if (mass[v] > 0) bins[bin_of(v)] += mass[v];
  double before = 0;
  int64_t bin = 0;
  while (bin < kBins - 1 && before + bins[bin] < p.top_p * total) before += bins[bin++];
  // rounding left the sum short of top_p: the last bin that holds anything
  while (bin > 0 && bins[bin] == 0) before -= bins[--bin];
  Scratch<int32_t> ids(static_cast<size_t>(V));
  int64_t count = 0;
  for (int64_t v = 0; v < V; ++v)
    if (mass[v] > 0 && bin_of(v) == bin) ids[count++] = static_cast<int32_t>(v);
  std::sort(ids.data(), ids.data() + count,
            [kept](int32_t a, int32_t b) { return kept[a] != kept[b] ? kept[a] > kept[b] : a < b; });
  return cut_at_mass(kept, ids.data(), count, before, p.top_p * total, best, p.temperature);
}

int32_t pick(const float* kept, int64_t V, float best, const Params& p) {
  Scratch<double> mass(static_cast<size_t>(V));
  Cut cut{-INFINITY, -1};  // everything finite
  if (p.top_k) {
    Scratch<int32_t> ids(static_cast<size_t>(p.top_k));
    const int64_t count = select_largest(kept, V, p.top_k, ids.data());
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += weight(kept[ids[i]], best, p.temperature);
    cut = p.top_p < 1 ? cut_at_mass(kept, ids.data(), count, 0, p.top_p * total, best, p.temperature)
                      : Cut{kept[ids[count - 1]], ids[count - 1]};
  }
  double sum = 0;
  for (int64_t v = 0; v < V; ++v) {
    mass[v] = cut.holds(kept[v], v) ? weight(kept[v], best, p.temperature) : 0;
    sum += mass[v];
  }
  if ((!p.top_k && p.top_p < 1) || p.min_p > 0) {
    if (!p.top_k && p.top_p < 1) cut = cut_top_p(kept, mass.data(), V, best, p, sum);
    sum = 0;
    for (int64_t v = 0; v < V; ++v) {
      if (mass[v] < p.min_p || !cut.holds(kept[v], v)) mass[v] = 0;
      sum += mass[v];
    }
  }
  double walked = 0;
  int32_t last = 0;
  for (int64_t v = 0; v < V; ++v) {
    if (mass[v] == 0) continue;
    walked += mass[v];
    last = static_cast<int32_t>(v);
    if (walked > p.u * sum) break;
  }
  return last;
}

// Bytes that a row takes at its peak, in the order of sample, pick and cut_top_p.
double row_bytes(const float* params, int64_t V) {
  const double kept = 4.0 * static_cast<double>(V), mass = 8.0 * static_cast<double>(V), bins = 8.0 * kBins + kept;
  if (!params) return kept + mass + bins;
  const double temperature = params[0], top_p = params[2];
  const double top_k = params[1] < static_cast<float>(V) ? std::floor(params[1]) : 0;
  if (temperature == 0) return kept;
  return kept + mass + (top_k > 0 ? 4 * top_k : top_p < 1 ? bins : 0);
}

}  // namespace

Cost cost::sample(const args::sample& a) {
  const int64_t B = a.logits->shape[0], V = a.logits->shape[1];
  std::vector<double> rows;  // the largest of them may run at once, one on each thread
  for (int64_t b = 0; b < B; ++b)
    rows.push_back(row_bytes(has_contents(a.params) ? a.params->f32() + 4 * b : nullptr, V));
  std::sort(rows.rbegin(), rows.rend());
  double workspace = 0;
  for (size_t b = 0; b < rows.size() && b < static_cast<size_t>(thread_count()); ++b) workspace += rows[b];
  return streamed(a, workspace);
}

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
    else token = pick(kept.data(), V, best, p);
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
      if (!mask || static_cast<uint32_t>(mask->i32()[b * words + v / 32]) >> (v % 32) & 1u)
        ids.push_back(static_cast<int32_t>(v));
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
