// Low-rank pairs of several adapters in one pass, for serving: rows of a run with the same adapter (and expert) go
// together, as products of few rows (matmul.h), and a row has the bits that it has alone.
#include <algorithm>

#include "cpu/host/lora.h"
#include "cpu/host/number.h"
#include "cpu/host/variants.h"
#include "cpu/matmul/matmul.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct AddScaled {
  template <int>
  static TEMPER_INLINE void run(float* c, const float* x, float alpha, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) c[i] += alpha * x[i];
  }
};

const FewRows& few_rows(int64_t precision) { return precision ? kernels().few_rounded : kernels().few_exact; }

// Rows of one adapter and expert, as many as a call of few rows takes at most. A and B are elements of the pool.
struct Group {
  int64_t begin, A, B, rank;
  int rows;
  float scale;
};
// 32-bit units of a prepared row of x, and of one of h.
int64_t row_units(const FewRows& few, Kind kind, int64_t C, int64_t R) {
  return few.units(kind, C) + few.units(kind, R);
}
size_t workspace_of(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, int64_t precision) {
  const int64_t units = row_units(few_rows(precision), kind_of(*pool), x->shape[1], h->shape[1]);
  return static_cast<size_t>(y->shape[0]) * (sizeof(Group) + static_cast<size_t>(units) * sizeof(uint32_t));
}

// Adds the pairs of rows that the caller cuts into runs.
class Pairs {
 public:
  Pairs(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, const LoraPool& pool, int64_t precision)
      : y_(y),
        h_(h),
        x_{.data = x->f32(), .ld = pool.C, .rows = x_rows ? x_rows->i32() : nullptr},
        pool_(pool),
        few_(few_rows(precision)),
        groups_(static_cast<size_t>(y->shape[0])),
        prepared_(static_cast<size_t>(y->shape[0] * units())) {}

  // Rows [begin, end) of one expert.
  void add(const int32_t* rows, int64_t begin, int64_t end, int64_t expert) {
    for (int64_t stop; begin < end; begin = stop) {
      for (stop = begin + 1; stop < end && rows[stop] == rows[begin] && stop - begin < few_.rows; ++stop) {}
      if (rows[begin] < 0) continue;
      const LoraPool::Pair p = pool_.pair(rows[begin]);
      if (p.rank == 0) continue;
      const int m = static_cast<int>(stop - begin);
      groups_[static_cast<size_t>(count_++)] = {
          begin, p.A + expert * p.rank * pool_.C, p.B + expert * pool_.N * p.rank, p.rank, m, p.scale};
      work_ += m * p.rank * (pool_.N + pool_.C);
    }
  }
  void run() const {
    const int64_t blocks = (pool_.N + kCols - 1) / kCols;
    if (work_ < kDirectMultiplies) {
      const int64_t tasks = std::clamp<int64_t>(work_ / kTaskMultiplies, 1, std::max<int64_t>(1, count_));
      parallel_for(tasks, [&](int64_t t) {
        const int64_t end = count_ * (t + 1) / tasks;
        for (int64_t i = count_ * t / tasks; i < end; ++i) {
          if (whole(i, std::min(i + 1, end - 1))) continue;
          down(i);
          for (int64_t block = 0; block < blocks; ++block) up(i, block);
        }
      });
    } else {
      parallel_for(count_, [&](int64_t i) { down(i); });
      parallel_for(count_ * blocks, [&](int64_t i) { up(i / blocks, i % blocks); });
    }
  }

 private:
  // Below this a pair goes as a whole, one after another. A thread takes pairs of kTaskMultiplies at a time: less is
  // done sooner than another thread has begun and has the rows and the pairs in its caches.
  static constexpr int64_t kDirectMultiplies = 1 << 19, kTaskMultiplies = 1 << 17, kCols = 512;

  Kind kind() const { return kind_of(pool_.params()); }
  int64_t units() const { return row_units(few_, kind(), pool_.C, h_->shape[1]); }
  uint32_t* prepared_x(const Group& g) const { return prepared_.data() + g.begin * units(); }
  uint32_t* prepared_h(const Group& g) const { return prepared_x(g) + g.rows * few_.units(kind(), pool_.C); }
  Source weights(int64_t element, int64_t ld) const {
    const Tensor& params = pool_.params();
    if (params.dtype == DType::f32) return {.data = params.f32() + element, .ld = ld};
    return {.data = params.bf16() + element, .ld = ld, .kind = Kind::bf16, .as_f32 = true};
  }
  // Asks for the beginning of weights, which are few and come from far away.
  void fetch(int64_t element, int64_t count) const {
    const int64_t size = kind() == Kind::f32 ? 4 : 2, bytes = std::min<int64_t>(4096, count * size);
    const char* from = static_cast<const char*>(pool_.params().data) + element * size;
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at);
  }
  void prepare(uint32_t* to, const Source& from, const Group& g, int64_t first, int64_t k) const {
    few_.prepare(to, from, first, g.rows, k, kind());
  }

  // down and up at once, where there is a form for both; memory is asked for the pair of group `next` meanwhile.
  bool whole(int64_t i, int64_t next) const {
    if (!few_.add_pair || kind() != Kind::bf16) return false;
    const Group& g = groups_[static_cast<size_t>(i)];
    const int64_t N = pool_.N, R = h_->shape[1];
    prepare(prepared_x(g), x_, g, g.begin, pool_.C);
    return few_.add_pair(y_->f32() + g.begin * N, N, h_->f32() + g.begin * R, R, g.rows, prepared_x(g), low_rank(g),
                         low_rank(groups_[static_cast<size_t>(next)]));
  }
  LowRank low_rank(const Group& g) const {
    const uint16_t* params = pool_.params().bf16();
    return {params + g.A, params + g.B, g.rank, pool_.C, pool_.N, g.scale};
  }
  // h of a group, and what up reads of it.
  void down(int64_t i) const {
    const Group& g = groups_[static_cast<size_t>(i)];
    const int64_t C = pool_.C, R = h_->shape[1];
    float* h = h_->f32() + g.begin * R;
    fetch(g.B, pool_.N * g.rank);
    prepare(prepared_x(g), x_, g, g.begin, C);
    few_.dots(h, R, g.rows, prepared_x(g), weights(g.A, C), 0, g.rank, C);
    prepare(prepared_h(g), {.data = h, .ld = R}, g, 0, g.rank);
    if (i + 1 < count_) fetch(groups_[static_cast<size_t>(i + 1)].A, g.rank * C);
  }
  // Columns of a block.
  void up(int64_t i, int64_t block) const {
    const Group& g = groups_[static_cast<size_t>(i)];
    const int64_t N = pool_.N, col = block * kCols, cols = std::min(kCols, N - col);
    alignas(64) float out[kMostFewRows * kCols];
    few_.dots(out, kCols, g.rows, prepared_h(g), weights(g.B, g.rank), col, col + cols, g.rank);
    for (int64_t r = 0; r < g.rows; ++r)
      run_kernel<AddScaled>(y_->f32() + (g.begin + r) * N + col, static_cast<const float*>(out + r * kCols), g.scale,
                            cols);
  }

  TensorRef y_, h_;
  const Source x_;
  const LoraPool& pool_;
  const FewRows& few_;
  Scratch<Group> groups_;
  Scratch<uint32_t> prepared_;
  int64_t count_ = 0, work_ = 0;
};

// Of P rows through pairs of rank R; each row reads a pair of its own at the worst.
Cost pairs_cost(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, int64_t precision) {
  const double P = static_cast<double>(y->shape[0]), N = static_cast<double>(y->shape[1]),
               R = static_cast<double>(h->shape[1]), C = static_cast<double>(x->shape[1]);
  const double element_bytes = pool->dtype == DType::f32 ? 4 : 2;
  return {.flops = 2 * P * R * (N + C),
          .bytes = 2 * bytes_of(y) + bytes_of(h) + bytes_of(x) + element_bytes * P * R * (N + C),
          .rows = P,
          .workspace = static_cast<double>(workspace_of(y, h, x, pool, precision))};
}

}  // namespace

Cost cost::lora_fwd(const args::lora_fwd& a) { return pairs_cost(a.y, a.h, a.x, a.pool, a.precision); }
Cost cost::grouped_lora_fwd(const args::grouped_lora_fwd& a) { return pairs_cost(a.y, a.h, a.x, a.pool, a.precision); }

void lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef pool, TensorRef table, TensorRef scales, TensorRef rows,
              int64_t precision) {
  const LoraPool lora("lora_fwd", *pool, *table, *scales, *rows, 1, y->shape[1], x->shape[1], h->shape[1]);
  Pairs pairs(y, h, x, nullptr, lora, precision);
  pairs.add(rows->i32(), 0, rows->numel(), 0);
  pairs.run();
}

void grouped_lora_fwd(TensorRef y, TensorRef h, TensorRef x, TensorRef x_rows, TensorRef offsets, TensorRef pool,
                      TensorRef table, TensorRef scales, TensorRef rows, int64_t precision) {
  constexpr const char* op = "grouped_lora_fwd";
  const int64_t P = rows->numel(), E = offsets->numel() - 1, C = x->shape[1];
  check_offsets(*offsets, P, op);
  if (x_rows) check_indices(op, "x_rows", x_rows->i32(), P, x->shape[0]);
  const LoraPool lora(op, *pool, *table, *scales, *rows, E, y->shape[1], C, h->shape[1]);
  Pairs pairs(y, h, x, x_rows, lora, precision);
  for (int64_t e = 0; e < E; ++e) pairs.add(rows->i32(), offsets->i32()[e], offsets->i32()[e + 1], e);
  pairs.run();
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
