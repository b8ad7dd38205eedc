// The router's side of the mixture of experts: choosing experts, planning the rows by expert, and putting expert
// outputs together again.
#include <cmath>
#include <vector>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

// The K largest of a row, falling; insertion keeps a tie in the order of the experts. NaN takes part as −∞.
void choose(const float* logits, int64_t E, int64_t K, int32_t* ids, float* best) {
  int64_t filled = 0;
  for (int64_t e = 0; e < E; ++e) {
    const float x = logits[e] == logits[e] ? logits[e] : -INFINITY;
    if (filled == K && !(x > best[K - 1])) continue;
    int64_t at = filled < K ? filled++ : K - 1;
    for (; at > 0 && x > best[at - 1]; --at) {
      best[at] = best[at - 1];
      ids[at] = ids[at - 1];
    }
    best[at] = x;
    ids[at] = static_cast<int32_t>(e);
  }
}

void check_topk(const char* op, int64_t K, int64_t E) {
  require(K >= 1 && K <= E, "bad_argument", op, ": ", K, " experts per token of ", E, " experts, wanted 1 to ", E);
}

// Equal infinities have the difference 0, not NaN.
template <class Real>
void softmax_of_chosen(const float* best, int64_t K, float* weights) {
  Real total = 0;
  for (int64_t k = 0; k < K; ++k)
    total += best[k] == best[0] ? Real(1) : std::exp(static_cast<Real>(best[k]) - static_cast<Real>(best[0]));
  for (int64_t k = 0; k < K; ++k)
    weights[k] = static_cast<float>(
        (best[k] == best[0] ? Real(1) : std::exp(static_cast<Real>(best[k]) - static_cast<Real>(best[0]))) / total);
}

struct Combine {
  template <int>
  static TEMPER_INLINE void run(float* out, const float* y, const float* weights, const int32_t* slot_row, int64_t K,
                                int64_t D, bool accumulate, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* o = out + t * D;
      for (int64_t k = 0; k < K; ++k) {
        const float w = weights ? weights[t * K + k] : 1.0f;
        const float* row = y + slot_row[t * K + k] * D;
        if (k == 0 && !accumulate) {
#pragma omp simd
          for (int64_t d = 0; d < D; ++d) o[d] = w * row[d];
        } else {
#pragma omp simd
          for (int64_t d = 0; d < D; ++d) o[d] += w * row[d];
        }
      }
    }
  }
};

template <class Wf>
struct WeightBackward {
  template <int>
  static TEMPER_INLINE void run(float* dweights, const float* row_dot, const float* dout, const Wf* bias,
                                const int32_t* ids, const int32_t* slot_row, int64_t K, int64_t D, int64_t begin,
                                int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float sum = 0;
      if (bias) {
        const float* g = dout + i / K * D;
        const Wf* b = bias + ids[i] * D;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < D; ++d) sum += g[d] * load(b + d);
      }
      dweights[i] = row_dot[slot_row[i]] + sum;
    }
  }
};

}  // namespace

Cost cost::topk_fwd(const args::topk_fwd& a) { return streamed(a); }
Cost cost::topk_bwd(const args::topk_bwd& a) { return streamed(a); }
Cost cost::moe_combine(const args::moe_combine& a) { return streamed(a); }
Cost cost::moe_weight_bwd(const args::moe_weight_bwd& a) { return streamed(a); }

void topk_fwd(TensorRef weights, TensorRef ids, TensorRef logits) {
  const int64_t T = logits->shape[0], E = logits->shape[1], K = weights->shape[1];
  check_topk("topk_fwd", K, E);
  parallel_ranges(T, rows_per_task(E * 4), [&](int64_t begin, int64_t end) {
    float small[32];
    std::vector<float> large(K > 32 ? static_cast<size_t>(K) : 0);
    float* best = K > 32 ? large.data() : small;
    for (int64_t t = begin; t < end; ++t) {
      choose(logits->f32() + t * E, E, K, ids->i32() + t * K, best);
      softmax_of_chosen<float>(best, K, weights->f32() + t * K);
    }
  });
}

void topk_bwd(TensorRef dlogits, TensorRef dweights, TensorRef weights, TensorRef ids) {
  const int64_t T = dlogits->shape[0], E = dlogits->shape[1], K = weights->shape[1];
  check_indices("topk_bwd", "ids", ids->i32(), ids->numel(), E);
  parallel_ranges(T, rows_per_task(E), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* w = weights->f32() + t * K;
      const float* g = dweights->f32() + t * K;
      float* out = dlogits->f32() + t * E;
      std::fill(out, out + E, 0.0f);
      float mean = 0;
      for (int64_t k = 0; k < K; ++k) mean += w[k] * g[k];
      for (int64_t k = 0; k < K; ++k) out[ids->i32()[t * K + k]] = w[k] * (g[k] - mean);
    }
  });
}

Cost cost::moe_plan(const args::moe_plan& a) {
  return streamed(a, static_cast<double>(a.offsets->numel() - 1) * sizeof(int32_t));
}
// A counting sort; one pass over P small integers, which no thread would make faster.
void moe_plan(TensorRef offsets, TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef ids,
              TensorRef weights) {
  const int64_t E = offsets->numel() - 1, P = ids->numel(), K = ids->shape[1];
  check_indices("moe_plan", "ids", ids->i32(), P, E);
  const int32_t* id = ids->i32();
  int32_t* begin = offsets->i32();
  std::fill(begin, begin + E + 1, 0);
  for (int64_t i = 0; i < P; ++i) ++begin[id[i] + 1];
  for (int64_t e = 0; e < E; ++e) begin[e + 1] += begin[e];
  Scratch<int32_t> next(static_cast<size_t>(E));
  std::copy(begin, begin + E, next.data());
  for (int64_t i = 0; i < P; ++i) {
    const int32_t row = next[id[i]]++;
    row_token->i32()[row] = static_cast<int32_t>(i / K);
    row_weight->f32()[row] = weights->f32()[i];
    slot_row->i32()[i] = row;
  }
}

void moe_combine(TensorRef out, TensorRef y, TensorRef weights, TensorRef slot_row, int64_t accumulate) {
  const int64_t T = out->shape[0], D = out->shape[1], K = slot_row->shape[1];
  check_indices("moe_combine", "slot_row", slot_row->i32(), slot_row->numel(), y->shape[0]);
  parallel_ranges(T, rows_per_task(D * K), [&](int64_t begin, int64_t end) {
    run_kernel<Combine>(out->f32(), static_cast<const float*>(y->f32()),
                        static_cast<const float*>(weights ? weights->f32() : nullptr),
                        static_cast<const int32_t*>(slot_row->i32()), K, D, accumulate != 0, begin, end);
  });
}

void moe_weight_bwd(TensorRef dweights, TensorRef row_dot, TensorRef dout, TensorRef bias, TensorRef ids,
                    TensorRef slot_row) {
  const int64_t K = ids->shape[1], P = ids->numel(), D = dout->shape[1];
  check_indices("moe_weight_bwd", "slot_row", slot_row->i32(), P, row_dot->numel());
  if (bias) check_indices("moe_weight_bwd", "ids", ids->i32(), P, bias->shape[0]);
  const auto run = [&](auto* b) {
    using Wf = std::remove_const_t<std::remove_pointer_t<decltype(b)>>;
    parallel_ranges(P, rows_per_task(D), [&](int64_t begin, int64_t end) {
      run_kernel<WeightBackward<Wf>>(dweights->f32(), static_cast<const float*>(row_dot->f32()),
                                     static_cast<const float*>(dout->f32()), b, static_cast<const int32_t*>(ids->i32()),
                                     static_cast<const int32_t*>(slot_row->i32()), K, D, begin, end);
    });
  };
  if (bias) with_wf(*bias, run);
  else run(static_cast<const float*>(nullptr));
}

namespace reference {

void topk_fwd(TensorRef weights, TensorRef ids, TensorRef logits) {
  const int64_t T = logits->shape[0], E = logits->shape[1], K = weights->shape[1];
  check_topk("topk_fwd", K, E);
  for (int64_t t = 0; t < T; ++t) {
    std::vector<float> row(logits->f32() + t * E, logits->f32() + (t + 1) * E), best;
    std::vector<bool> taken(E, false);
    for (float& x : row)
      if (std::isnan(x)) x = -INFINITY;
    for (int64_t k = 0; k < K; ++k) {
      int64_t at = -1;
      for (int64_t e = 0; e < E; ++e)
        if (!taken[e] && (at < 0 || row[e] > row[at])) at = e;
      taken[at] = true;
      best.push_back(row[at]);
      ids->i32()[t * K + k] = static_cast<int32_t>(at);
    }
    softmax_of_chosen<double>(best.data(), K, weights->f32() + t * K);
  }
}

void topk_bwd(TensorRef dlogits, TensorRef dweights, TensorRef weights, TensorRef ids) {
  const int64_t T = dlogits->shape[0], E = dlogits->shape[1], K = weights->shape[1];
  check_indices("topk_bwd", "ids", ids->i32(), ids->numel(), E);
  for (int64_t i = 0; i < T * E; ++i) dlogits->f32()[i] = 0;
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < K; ++k) {
      double sum = 0;
      for (int64_t j = 0; j < K; ++j) {
        const double wj = weights->f32()[t * K + j], wk = weights->f32()[t * K + k];
        sum += dweights->f32()[t * K + j] * wj * ((j == k ? 1.0 : 0.0) - wk);
      }
      dlogits->f32()[t * E + ids->i32()[t * K + k]] = static_cast<float>(sum);
    }
}

void moe_plan(TensorRef offsets, TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef ids,
              TensorRef weights) {
  const int64_t E = offsets->numel() - 1, P = ids->numel(), K = ids->shape[1];
  check_indices("moe_plan", "ids", ids->i32(), P, E);
  int32_t row = 0;
  for (int64_t e = 0; e < E; ++e) {
    offsets->i32()[e] = row;
    for (int64_t i = 0; i < P; ++i) {
      if (ids->i32()[i] != e) continue;
      row_token->i32()[row] = static_cast<int32_t>(i / K);
      row_weight->f32()[row] = weights->f32()[i];
      slot_row->i32()[i] = row++;
    }
  }
  offsets->i32()[E] = row;
}

void moe_combine(TensorRef out, TensorRef y, TensorRef weights, TensorRef slot_row, int64_t accumulate) {
  const int64_t T = out->shape[0], D = out->shape[1], K = slot_row->shape[1];
  check_indices("moe_combine", "slot_row", slot_row->i32(), slot_row->numel(), y->shape[0]);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t d = 0; d < D; ++d) {
      double sum = accumulate ? out->f32()[t * D + d] : 0.0;
      for (int64_t k = 0; k < K; ++k)
        sum += (weights ? weights->f32()[t * K + k] : 1.0) *
               static_cast<double>(y->f32()[slot_row->i32()[t * K + k] * D + d]);
      out->f32()[t * D + d] = static_cast<float>(sum);
    }
}

void moe_weight_bwd(TensorRef dweights, TensorRef row_dot, TensorRef dout, TensorRef bias, TensorRef ids,
                    TensorRef slot_row) {
  const int64_t K = ids->shape[1], P = ids->numel(), D = dout->shape[1];
  check_indices("moe_weight_bwd", "slot_row", slot_row->i32(), P, row_dot->numel());
  if (bias) check_indices("moe_weight_bwd", "ids", ids->i32(), P, bias->shape[0]);
  for (int64_t i = 0; i < P; ++i) {
    double sum = row_dot->f32()[slot_row->i32()[i]];
    for (int64_t d = 0; bias && d < D; ++d)
      sum += static_cast<double>(dout->f32()[i / K * D + d]) * element(*bias, ids->i32()[i] * D + d);
    dweights->f32()[i] = static_cast<float>(sum);
  }
}

}  // namespace reference
}  // namespace temper::cpu
