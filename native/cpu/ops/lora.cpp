// Low-rank pairs of several adapters in one pass, for serving: rows of a run with the same adapter (and expert) are a
// Product each, on the core of matmul.h, and a row has the bits that it has alone.
#include <algorithm>

#include "cpu/host/lora.h"
#include "cpu/host/number.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

// Adds the pairs of rows that the caller cuts into runs.
class Runs {
 public:
  Runs(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, const LoraPool& pool, int64_t most)
      : y_(y),
        h_(h),
        x_(x),
        x_rows_(x_rows),
        pool_(pool),
        down_(static_cast<size_t>(most)),
        up_(static_cast<size_t>(most)) {}

  // Rows [begin, end) of one expert: each stretch of equal adapters is a pair of products.
  void add(const int32_t* rows, int64_t begin, int64_t end, int64_t expert) {
    for (int64_t stop; begin < end; begin = stop) {
      for (stop = begin + 1; stop < end && rows[stop] == rows[begin]; ++stop) {}
      if (rows[begin] < 0 || pool_.pair(rows[begin]).rank == 0) continue;
      const LoraPool::Pair p = pool_.pair(rows[begin]);
      const int64_t N = pool_.N, C = pool_.C, R = h_->shape[1], m = stop - begin;
      float* h = h_->f32() + begin * R;
      Product down{.m = m, .n = p.rank, .c = h, .ldc = R, .bits = RowBits::alone};
      down.terms[0] = {{.data = x_rows_ ? x_->f32() : x_->f32() + begin * C,
                        .ld = C,
                        .rows = x_rows_ ? x_rows_->i32() + begin : nullptr},
                       weights(p.A + expert * p.rank * C, C),
                       C,
                       1.0f};
      Product up{.m = m, .n = N, .c = y_->f32() + begin * N, .ldc = N, .accumulate = true, .bits = RowBits::alone};
      up.terms[0] = {{.data = h, .ld = R}, weights(p.B + expert * N * p.rank, p.rank), p.rank, p.scale};
      down_[static_cast<size_t>(count_)] = down;
      up_[static_cast<size_t>(count_++)] = up;
      work_ += m * p.rank * (N + C);
    }
  }
  void run(int64_t precision) const {
    if (work_ < kDirectMultiplies) return run_directly(precision);
    multiply(down_.data(), count_, precision);
    multiply(up_.data(), count_, precision);
  }
  // Bytes that run takes, and the products beside it.
  size_t workspace(int64_t precision) const {
    const size_t products = (down_.size() + up_.size()) * sizeof(Product);
    if (work_ < kDirectMultiplies)
      return products + static_cast<size_t>(direct_tasks() * prepared_units(few_rows(precision))) * sizeof(uint32_t);
    return products + std::max(multiply_workspace(down_.data(), count_, precision),
                               multiply_workspace(up_.data(), count_, precision));
  }

 private:
  Source weights(int64_t element, int64_t ld) const {
    const Tensor& params = pool_.params();
    if (params.dtype == DType::f32) return {.data = params.f32() + element, .ld = ld};
    return {.data = params.bf16() + element, .ld = ld, .kind = Kind::bf16, .as_f32 = true};
  }
  // Below this the pairs of a decode step go one after another: laying out products costs more than their work. Their
  // bits are those of multiply by RowBits::alone. A thread takes pairs of kTaskMultiplies at a time: less is done
  // sooner than another thread has begun.
  static constexpr int64_t kDirectMultiplies = 1 << 19, kTaskMultiplies = 1 << 14, kCols = 512;

  Kind kind() const { return kind_of(pool_.params()); }
  static const FewRows& few_rows(int64_t precision) { return precision ? kernels().few_rounded : kernels().few_exact; }
  int64_t prepared_units(const FewRows& few) const {
    return few.rows * std::max(few.units(kind(), pool_.C), few.units(kind(), h_->shape[1]));
  }
  int64_t direct_tasks() const { return std::clamp<int64_t>(work_ / kTaskMultiplies, 1, std::max<int64_t>(1, count_)); }
  void run_directly(int64_t precision) const {
    const FewRows& few = few_rows(precision);
    const int64_t tasks = direct_tasks(), units = prepared_units(few);
    Scratch<uint32_t> prepared(static_cast<size_t>(tasks * units));
    parallel_for(tasks, [&](int64_t t) {
      run_pairs(count_ * t / tasks, count_ * (t + 1) / tasks, few, prepared.data() + t * units);
    });
  }
  void run_pairs(int64_t begin, int64_t end, const FewRows& few, uint32_t* prepared) const {
    const auto fetch = [](const Product& p) {  // its weights are few, and come from far away
      const char* from = static_cast<const char*>(p.terms[0].b.data);
      const int64_t bytes = std::min<int64_t>(4096, p.n * p.terms[0].k * (p.terms[0].b.kind == Kind::f32 ? 4 : 2));
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at);
    };
    for (int64_t i = begin; i < end; ++i) {
      fetch(up_[static_cast<size_t>(i)]);
      direct(down_[static_cast<size_t>(i)], few, prepared);
      if (i + 1 < end) fetch(down_[static_cast<size_t>(i + 1)]);
      direct(up_[static_cast<size_t>(i)], few, prepared);
    }
  }
  static void direct(const Product& p, const FewRows& few, uint32_t* prepared) {
    alignas(64) float out[kMostFewRows * kCols];
    const Term& t = p.terms[0];
    const int64_t units = few.units(t.b.kind, t.k);
    for (int64_t row = 0; row < p.m; row += few.rows) {
      const int64_t rows = std::min<int64_t>(few.rows, p.m - row);
      for (int64_t r = 0; r < rows; ++r) few.prepare(prepared + r * units, t.a, row + r, t.k, t.b.kind);
      for (int64_t col = 0; col < p.n; col += kCols) {
        const int64_t cols = std::min(kCols, p.n - col);
        few.dots(out, kCols, static_cast<int>(rows), prepared, t.b, col, col + cols, t.k);
        for (int64_t r = 0; r < rows; ++r) {
          float* c = p.c + (row + r) * p.ldc + col;
          for (int64_t j = 0; j < cols; ++j) c[j] = (p.accumulate ? c[j] : 0.0f) + t.alpha * out[r * kCols + j];
        }
      }
    }
  }

  TensorRef y_, h_, x_, x_rows_;
  const LoraPool& pool_;
  Scratch<Product> down_, up_;
  int64_t count_ = 0, work_ = 0;
};

// Of P rows through pairs of rank R; each row reads a pair of its own at the worst.
Cost pairs_cost(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, size_t workspace) {
  const double P = static_cast<double>(y->shape[0]), N = static_cast<double>(y->shape[1]),
               R = static_cast<double>(h->shape[1]), C = static_cast<double>(x->shape[1]);
  const double element_bytes = pool->dtype == DType::f32 ? 4 : 2;
  return {.flops = 2 * P * R * (N + C),
          .bytes = 2 * bytes_of(y) + bytes_of(h) + bytes_of(x) + element_bytes * P * R * (N + C),
          .rows = P,
          .workspace = static_cast<double>(workspace)};
}
// Where a plan does not know which row takes which adapter: one of the highest rank takes them all.
size_t one_pair(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, int64_t precision) {
  const int64_t P = y->shape[0], N = y->shape[1], R = h->shape[1], C = x->shape[1];
  Product down{.m = P, .n = R, .bits = RowBits::alone}, up{.m = P, .n = N, .bits = RowBits::alone};
  down.terms[0].k = C;
  up.terms[0].k = R;
  down.terms[0].b.kind = up.terms[0].b.kind = kind_of(*pool);
  return 2 * static_cast<size_t>(P) * sizeof(Product) +
         std::max(multiply_workspace(&down, 1, precision), multiply_workspace(&up, 1, precision));
}

}  // namespace

Cost cost::lora_fwd(const args::lora_fwd& a) {
  if (!has_contents(a.rows) || !has_contents(a.table) || !has_contents(a.scales))
    return pairs_cost(a.y, a.h, a.x, a.pool, one_pair(a.y, a.h, a.x, a.pool, a.precision));
  const LoraPool lora("lora_fwd", *a.pool, *a.table, *a.scales, *a.rows, 1, a.y->shape[1], a.x->shape[1],
                      a.h->shape[1]);
  Runs runs(a.y, a.h, a.x, nullptr, lora, a.rows->numel());
  runs.add(a.rows->i32(), 0, a.rows->numel(), 0);
  return pairs_cost(a.y, a.h, a.x, a.pool, runs.workspace(a.precision));
}

Cost cost::grouped_lora_fwd(const args::grouped_lora_fwd& a) {
  if (!has_contents(a.rows) || !has_contents(a.table) || !has_contents(a.scales) || !has_contents(a.offsets))
    return pairs_cost(a.y, a.h, a.x, a.pool, one_pair(a.y, a.h, a.x, a.pool, a.precision));
  const int64_t E = a.offsets->numel() - 1;
  const LoraPool lora("grouped_lora_fwd", *a.pool, *a.table, *a.scales, *a.rows, E, a.y->shape[1], a.x->shape[1],
                      a.h->shape[1]);
  Runs runs(a.y, a.h, a.x, a.x_rows, lora, a.rows->numel());
  for (int64_t e = 0; e < E; ++e) runs.add(a.rows->i32(), a.offsets->i32()[e], a.offsets->i32()[e + 1], e);
  return pairs_cost(a.y, a.h, a.x, a.pool, runs.workspace(a.precision));
}

void lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, TensorRef table, TensorRef scales, TensorRef rows,
              int64_t precision) {
  const int64_t T = rows->numel();
  const LoraPool lora("lora_fwd", *pool, *table, *scales, *rows, 1, y->shape[1], x->shape[1], h->shape[1]);
  Runs runs(y, h, x, nullptr, lora, T);
  runs.add(rows->i32(), 0, T, 0);
  runs.run(precision);
}

void grouped_lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, TensorRef offsets, TensorRef pool,
                      TensorRef table, TensorRef scales, TensorRef rows, int64_t precision) {
  constexpr const char* op = "grouped_lora_fwd";
  const int64_t P = rows->numel(), E = offsets->numel() - 1, C = x->shape[1];
  check_offsets(*offsets, P, op);
  if (x_rows) check_indices(op, "x_rows", x_rows->i32(), P, x->shape[0]);
  const LoraPool lora(op, *pool, *table, *scales, *rows, E, y->shape[1], C, h->shape[1]);
  Runs runs(y, h, x, x_rows, lora, P);
  for (int64_t e = 0; e < E; ++e) runs.add(rows->i32(), offsets->i32()[e], offsets->i32()[e + 1], e);
  runs.run(precision);
}

namespace reference {
namespace {

double operand(double v, int64_t precision) { return precision ? round_to_bf16(static_cast<float>(v)) : v; }

// y[row] += scale·B·(A·x)
void add_pair(float* y, float* h, const float* x, const LoraPool& lora, int32_t adapter, int64_t expert,
              int64_t precision) {
  if (adapter < 0) return;
  const LoraPool::Pair p = lora.pair(adapter);
  const int64_t N = lora.N, C = lora.C, R = p.rank;
  const auto weight = [&](int64_t at) { return operand(element(lora.params(), at), precision); };
  for (int64_t r = 0; r < R; ++r) {
    double sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += operand(x[c], precision) * weight(p.A + (expert * R + r) * C + c);
    h[r] = static_cast<float>(sum);
  }
  for (int64_t n = 0; n < N; ++n) {
    double sum = 0;
    for (int64_t r = 0; r < R; ++r) sum += operand(h[r], precision) * weight(p.B + (expert * N + n) * R + r);
    y[n] = static_cast<float>(y[n] + static_cast<double>(p.scale) * sum);
  }
}

}  // namespace

void lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, TensorRef table, TensorRef scales, TensorRef rows,
              int64_t precision) {
  const int64_t N = y->shape[1], C = x->shape[1], R = h->shape[1];
  const LoraPool lora("lora_fwd", *pool, *table, *scales, *rows, 1, N, C, R);
  for (int64_t t = 0; t < rows->numel(); ++t)
    add_pair(y->f32() + t * N, h->f32() + t * R, x->f32() + t * C, lora, rows->i32()[t], 0, precision);
}

void grouped_lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, TensorRef offsets, TensorRef pool,
                      TensorRef table, TensorRef scales, TensorRef rows, int64_t precision) {
  constexpr const char* op = "grouped_lora_fwd";
  const int64_t P = rows->numel(), E = offsets->numel() - 1, N = y->shape[1], C = x->shape[1], R = h->shape[1];
  check_offsets(*offsets, P, op);
  if (x_rows) check_indices(op, "x_rows", x_rows->i32(), P, x->shape[0]);
  const LoraPool lora(op, *pool, *table, *scales, *rows, E, N, C, R);
  for (int64_t e = 0; e < E; ++e)
    for (int64_t p = offsets->i32()[e]; p < offsets->i32()[e + 1]; ++p)
      add_pair(y->f32() + p * N, h->f32() + p * R, x->f32() + C * (x_rows ? x_rows->i32()[p] : p), lora, rows->i32()[p],
               e, precision);
}

}  // namespace reference
}  // namespace temper::cpu
