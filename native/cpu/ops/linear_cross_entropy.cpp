// Logits, softmax, loss and both gradients for a chunk of rows at a time: memory is a chunk's logits, never [S,V].
#include <algorithm>
#include <cmath>

#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {

void linear_cross_entropy(TensorRef nll, TensorRef dx, TensorRef dw, TensorRef x, TensorRef w, TensorRef targets,
                          TensorRef weights, int64_t precision) {
  constexpr int64_t kLogitBytes = int64_t{96} << 20;  // of one chunk: 120 rows of a 201088-token vocabulary
  const int64_t V = w->shape[0], D = w->shape[1], S = nll->numel();
  for (int64_t s = 0; s < S; ++s) {
    const int32_t t = targets->i32()[s];
    require(t >= 0 && t < V, "bad_index", "linear_cross_entropy: targets[", s, "]: got ", t, ", wanted 0 to ", V - 1);
  }
  if (S == 0) return;
  const int64_t chunk = std::min(S, std::clamp<int64_t>(kLogitBytes / (4 * V) / 12 * 12, 12, 1020));
  const Kernels& k = kernels();
  Scratch<float> logits(static_cast<size_t>(chunk * V));
  for (int64_t from = 0; from < S; from += chunk) {
    const int64_t rows = std::min(chunk, S - from);
    const float* xs = x->f32() + from * D;
    Product p{.m = rows, .n = V, .c = logits.data(), .ldc = V};
    p.terms[0] = {{.data = xs, .ld = D}, {.data = w->data, .ld = D, .kind = kind_of(*w)}, D, 1.0f};
    multiply(&p, 1, precision);
    parallel_for(rows, [&](int64_t i) {
      float* row = logits.data() + i * V;
      const int64_t s = from + i;
      const int32_t target = targets->i32()[s];
      const float peak = k.row_max(row, V);
      const double log_total = std::log(k.sum_exp(row, V, peak));
      nll->f32()[s] = static_cast<float>(log_total + (static_cast<double>(peak) - row[target]));
      if (!dx && !dw) return;
      const float weight = weights ? weights->f32()[s] : 1.0f;
      // exp(logit − peak)·e^(−log total): the shift alone would lose the logarithm's low bits.
      k.exp_scaled(row, V, peak, static_cast<float>(weight * std::exp(-log_total)));
      row[target] -= weight;
    });
    if (dx) {
      Product q{.m = rows, .n = D, .c = dx->f32() + from * D, .ldc = D};
      q.terms[0] = {
          {.data = logits.data(), .ld = V}, {.data = w->data, .ld = D, .kind = kind_of(*w), .k_inner = false}, V, 1.0f};
      multiply(&q, 1, precision);
    }
    if (dw) {
      Product q{.m = V, .n = D, .c = dw->f32(), .ldc = D, .accumulate = true};
      q.terms[0] = {
          {.data = logits.data(), .ld = V, .k_inner = false}, {.data = xs, .ld = D, .k_inner = false}, rows, 1.0f};
      multiply(&q, 1, precision);
    }
  }
}

}  // namespace temper::cpu
