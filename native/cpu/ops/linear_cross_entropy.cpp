// Logits, softmax, loss and both gradients for a chunk of rows at a time: memory is a chunk's logits, never [S,V].
#include <algorithm>
#include <cmath>

#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kLogitBytes = int64_t{96} << 20;  // of one chunk: 120 rows of a 201088-token vocabulary

// The products of one chunk of rows; cost and kernel are made of the same ones.
struct Chunk {
  const args::linear_cross_entropy& a;
  int64_t V = a.w->shape[0], D = a.w->shape[1], S = a.nll->numel();

  int64_t most_rows() const { return std::min(S, std::clamp<int64_t>(kLogitBytes / (4 * V) / 12 * 12, 12, 1020)); }
  Product logits(float* to, int64_t from, int64_t rows) const {
    Product p{.m = rows, .n = V, .c = to, .ldc = V};
    p.terms[0] = {
        {.data = a.x->f32() + from * D, .ld = D}, {.data = a.w->data, .ld = D, .kind = kind_of(*a.w)}, D, 1.0f};
    return p;
  }
  Product dx(const float* logits, int64_t from, int64_t rows) const {
    Product p{.m = rows, .n = D, .c = a.dx->f32() + from * D, .ldc = D};
    p.terms[0] = {
        {.data = logits, .ld = V}, {.data = a.w->data, .ld = D, .kind = kind_of(*a.w), .k_inner = false}, V, 1.0f};
    return p;
  }
  Product dw(const float* logits, int64_t from, int64_t rows) const {
    Product p{.m = V, .n = D, .c = a.dw->f32(), .ldc = D, .accumulate = true};
    p.terms[0] = {{.data = logits, .ld = V, .k_inner = false},
                  {.data = a.x->f32() + from * D, .ld = D, .k_inner = false},
                  rows,
                  1.0f};
    return p;
  }
};

}  // namespace

Cost cost::linear_cross_entropy(const args::linear_cross_entropy& a) {
  const Chunk c{a};
  const int64_t rows = c.most_rows();
  size_t most = 0;
  const auto add = [&](const Product& p) { most = std::max(most, multiply_workspace(&p, 1, a.precision)); };
  if (c.S) add(c.logits(no_memory(), 0, rows));
  if (c.S && a.dx) add(c.dx(no_memory(), 0, rows));
  if (c.S && a.dw) add(c.dw(no_memory(), 0, rows));
  Cost cost = streamed(a, static_cast<double>(static_cast<size_t>(rows * c.V) * sizeof(float) + most));
  cost.flops = 2.0 * c.S * c.V * c.D * (1 + (a.dx ? 1 : 0) + (a.dw ? 1 : 0));
  cost.rows = rows;
  return cost;
}

void linear_cross_entropy(TensorRef nll, TensorRef dx, TensorRef dw, TensorRef x, TensorRef w, TensorRef targets,
                          TensorRef weights, int64_t precision) {
  const args::linear_cross_entropy a{nll, dx, dw, x, w, targets, weights, precision};
  const Chunk c{a};
  const int64_t V = c.V, S = c.S;
  for (int64_t s = 0; s < S; ++s) {
    const int32_t t = targets->i32()[s];
    require(t >= 0 && t < V, "bad_index", "linear_cross_entropy: targets[", s, "]: got ", t, ", wanted 0 to ", V - 1);
  }
  if (S == 0) return;
  const int64_t chunk = c.most_rows();
  const Kernels& k = kernels();
  Scratch<float> logits(static_cast<size_t>(chunk * V));
  for (int64_t from = 0; from < S; from += chunk) {
    const int64_t rows = std::min(chunk, S - from);
    const Product p = c.logits(logits.data(), from, rows);
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
      const Product q = c.dx(logits.data(), from, rows);
      multiply(&q, 1, precision);
    }
    if (dw) {
      const Product q = c.dw(logits.data(), from, rows);
      multiply(&q, 1, precision);
    }
  }
}

}  // namespace temper::cpu
