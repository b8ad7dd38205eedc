// Attention with sinks over varlen sequences, blocked over queries and keys with a running softmax (arXiv:2205.14135,
// 2307.08691). A task is one kv head and one block of queries (forward, dq) or of keys (dk, dv): nothing is shared
// between tasks, so results do not depend on threads. The backward forms the probabilities twice instead of adding into
// shared memory. Arithmetic: attention_tile.inc.
#include "cpu/attention/attention.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#include "cpu/attention/attention_lanes.h"
#include "cpu/host/isa.h"
#include "cpu/host/number.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kKeys = 64;  // keys of a block
constexpr int64_t kSplitColumns = 16;
constexpr int64_t kBlockRows = 128;  // rows of a query block, unless one query has more heads in its group

// A block of one sequence's queries: rows r = query·group + head of the group, padded to whole tiles of 4.
struct QueryBlock {
  int64_t row, queries, position, rows, padded;
};
struct Geometry {
  int64_t H, Hkv, group, Dh, Dp, window, block_queries;

  explicit Geometry(const AttentionShape& s)
      : H(s.H),
        Hkv(s.Hkv),
        group(s.H / s.Hkv),
        Dh(s.Dh),
        Dp((s.Dh + 15) / 16 * 16),
        window(s.window),
        block_queries(std::max<int64_t>(1, kBlockRows / (s.H / s.Hkv))) {}
  int64_t first_key(int64_t p) const { return window > 0 && p - window + 1 > 0 ? p - window + 1 : 0; }
  int64_t query_row(const QueryBlock& q, int64_t r) const {
    return ((q.row + r / group) * H + head * group + r % group) * Dh;
  }
  int64_t head = 0;
};
struct QuerySpan {
  int64_t row, queries, position;  // first row of q, how many, position of the first
  QueryBlock block(const Geometry& g, int64_t i) const {
    const int64_t n = std::min(g.block_queries, queries - i), rows = n * g.group;
    return {row + i, n, position + i, rows, (rows + 3) / 4 * 4};
  }
};
struct KeySource : KeyRows {
  int64_t head;
};

struct Forward {
  float *o, *lse;
  const float *q, *sinks;
  const Tensor *k, *v;
  float scale;
  bool bf16_keys() const { return k->dtype == DType::bf16; }
};
struct Backward {
  float *dq, *dk, *dv;
  const float *dout, *q, *k, *v, *lse, *dot;
  float scale;
};
// which queries meet which keys, and whose gradients are wanted
struct BackwardPart {
  int64_t query, query_end, key, key_end;
  bool queries, keys;
};
// A block of queries over the keys [first, last] in `blocks` blocks, with a score of every row and key, and per block
// and row the largest score, the sum of exponentials and what the sums before are worth then. largest and total: before
// the first key.
struct SplitBlock {
  QueryBlock q;
  int64_t first, last, blocks;
  float *qs, *scores, *top, *sum, *factor, *largest, *total;
};

// Floats of workspace that one task of each kernel takes.
size_t forward_floats(int64_t padded, int64_t Dp) {
  return static_cast<size_t>(padded * 2 * Dp + 8 * kKeys + 2 * kKeys * Dp + 2 * padded);
}
size_t split_scores_floats(int64_t Dp, bool bf16) { return static_cast<size_t>((bf16 ? 2 : 1) * kKeys * Dp); }
size_t split_output_floats(int64_t padded, int64_t Dp) { return static_cast<size_t>(padded * (Dp + 1) + kKeys * Dp); }
// of all tasks of a forward of few queries together
int64_t split_floats(int64_t padded, int64_t blocks, int64_t Dp) { return padded * (Dp + 2 + blocks * (kKeys + 3)); }
constexpr int64_t kBlocks = 4;  // key blocks that meet a block of queries while it is at hand
int64_t padded_block(const Geometry& g) { return (g.block_queries * g.group + 3) / 4 * 4; }
size_t backward_floats(const Geometry& g) {
  return static_cast<size_t>(padded_block(g) * (3 * g.Dp + 2 * kKeys + 2) + kBlocks * 5 * kKeys * g.Dp);
}

struct Kernels {
  void (*forward)(const Forward&, const Geometry&, const QueryBlock&, const KeySource&);
  void (*load_queries)(float*, const float*, const QueryBlock&, const Geometry&, float);
  void (*split_scores)(const Forward&, const Geometry&, const SplitBlock&, const KeySource&, int64_t block);
  void (*split_softmax)(const Geometry&, const SplitBlock&, int64_t block);
  void (*split_output)(const Forward&, const Geometry&, const SplitBlock&, const KeySource&, int64_t column);
  void (*backward)(const Backward&, const Geometry&, const QuerySpan&, const KeySource&, const BackwardPart&);
};

namespace portable {
#include "cpu/attention/attention_tile.inc"
}

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "cpu/attention/attention_tile.inc"
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
#include "cpu/attention/attention_tile.inc"
}
#pragma GCC pop_options
#elif defined(__aarch64__)
namespace neon {
#include "cpu/attention/attention_tile.inc"
}
#endif

const Kernels& active_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512:
    case Isa::avx512bf16:
    case Isa::amx: return avx512::kernels;
    case Isa::avx2: return avx2::kernels;
    default: break;
  }
#elif defined(__aarch64__)
  if (active_isa() != Isa::portable) return neon::kernels;
#endif
  return portable::kernels;
}

// The sequences of a call, and how much work they are: what is small runs in few pieces or in one, for waking a thread
// costs microseconds.
class Sequences {
 public:
  Sequences(const AttentionShape& s, const Tensor& q_start, const Tensor* k_len)
      : spans_(static_cast<size_t>(s.B)), heads_(s.Hkv) {
    for (int64_t b = 0; b < s.B; ++b) {
      const int64_t row = q_start.i32()[b], n = q_start.i32()[b + 1] - row, len = k_len ? k_len->i32()[b] : n;
      add(s, b, {row, n, len - n});
    }
  }
  // Of a plan that does not know them: all alike, over all keys.
  explicit Sequences(const AttentionShape& s) : spans_(static_cast<size_t>(s.B)), heads_(s.Hkv) {
    const int64_t n = s.T / std::max<int64_t>(1, s.B), len = s.S / std::max<int64_t>(1, s.B);
    for (int64_t b = 0; b < s.B; ++b) add(s, b, {b * n, n, std::max<int64_t>(0, len - n)});
  }
  size_t bytes() const { return spans_.size() * sizeof(QuerySpan); }
  // Pairs of a query and a key that it sees.
  double pairs() const {
    double sum = 0;
    for (size_t b = 0; b < spans_.size(); ++b) {
      const double n = static_cast<double>(spans_[b].queries), before = static_cast<double>(spans_[b].position),
                   window = static_cast<double>(window_);
      const double all = window_ ? std::clamp(window - before, 0.0, n) : n;  // queries that see all before them
      sum += all * (before + (all + 1) / 2) + (n - all) * window;
    }
    return sum;
  }
  const QuerySpan& operator[](int64_t b) const { return spans_[b]; }

  // Whether the threads are done sooner with whole sequences of one kv head, 5 products each, than with blocks of them,
  // which share the work evenly but form scores and probabilities twice: 7 products.
  bool heads_keep_threads_busy() const {
    Scratch<double> busy(static_cast<size_t>(thread_count()));
    std::fill_n(busy.data(), busy.size(), 0.0);
    double all = 0;
    for (size_t b = 0; b < spans_.size(); ++b)
      for (int64_t h = 0; h < heads_; ++h) {
        const double work = products(spans_[b], window_);
        *std::min_element(busy.data(), busy.data() + busy.size()) += work;
        all += work;
      }
    return 5 * *std::max_element(busy.data(), busy.data() + busy.size()) <= 7 * all / static_cast<double>(busy.size());
  }
  // Whether the keys of a forward should be shared out: one block of queries per sequence, too few sequences and heads
  // for the threads, and long enough a wait.
  bool worth_splitting(int64_t block_queries) const {
    const int64_t tasks = static_cast<int64_t>(spans_.size()) * heads_, threads = thread_count();
    return longest_ <= block_queries && 2 * threads >= 3 * tasks &&
           products_ >= 4 * kProducts * static_cast<double>(tasks);
  }
  // Calls run(sequence, kv head) for every one that has queries, in parallel.
  template <class F>
  void each_head(F&& run) const {
    each_block(std::max<int64_t>(longest_, 1), [&](int64_t b, int64_t head, int64_t) { run(b, head); });
  }

  // Calls run(sequence, kv head, block of it) for every block of `step` items of every sequence, of its items(b) or its
  // queries, in parallel.
  template <class F>
  void each_block(int64_t step, F&& run) const {
    each_block(step, [this](int64_t b) { return spans_[b].queries; }, run);
  }
  template <class N, class F>
  void each_block(int64_t step, N&& items, F&& run) const {
    const int64_t B = static_cast<int64_t>(spans_.size());
    Scratch<int64_t> before(static_cast<size_t>(B + 1));
    before[0] = 0;
    for (int64_t b = 0; b < B; ++b) before[b + 1] = before[b] + (items(b) + step - 1) / step;
    const int64_t tasks = before[B] * heads_;
    const int64_t grain = std::max<int64_t>(
        1, static_cast<int64_t>(std::min(1.0, kProducts / std::max(products_, 1.0)) * static_cast<double>(tasks)));
    parallel_ranges(tasks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t at = task / heads_,
                      b = std::upper_bound(before.data(), before.data() + B + 1, at) - before.data() - 1;
        run(b, task % heads_, (at - before[b]) * step);
      }
    });
  }

 private:
  void add(const AttentionShape& s, int64_t b, const QuerySpan& span) {
    spans_[b] = span;
    products_ += products(span, s.window) * static_cast<double>(s.H * s.Dh);
    longest_ = std::max(longest_, span.queries);
    window_ = s.window;
  }
  static constexpr double kProducts = 250000;  // multiply-adds of q·k of a piece at least: some ten microseconds

  static double products(const QuerySpan& q, int64_t window) {
    const double keys = static_cast<double>(q.position) + static_cast<double>(q.queries + 1) / 2;
    return static_cast<double>(q.queries) * (window > 0 ? std::min(keys, static_cast<double>(window)) : keys);
  }

  Scratch<QuerySpan> spans_;
  int64_t heads_, window_ = 0, longest_ = 0;
  double products_ = 0;  // multiply-adds of q·k
};

// Forward of few queries by more threads than there are kv heads of sequences.
void split_forward(const Kernels& kernels, const Forward& f, const Geometry& shape, const Sequences& spans,
                   const AttentionShape& s, const Tensor* k_start) {
  struct Task {
    SplitBlock block;
    Geometry g;
    KeySource source;
  };
  std::vector<Task> tasks;
  int64_t floats = 0, most = 0;
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t head = 0; head < shape.Hkv && spans[b].queries > 0; ++head) {
      const QueryBlock q = spans[b].block(shape, 0);
      const int64_t first = shape.first_key(q.position), last = q.position + q.queries - 1,
                    blocks = last / kKeys - first / kKeys + 1;
      Task t{{q, first, last, blocks, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
             shape,
             {key_rows(s, k_start, b), head}};
      t.g.head = head;
      tasks.push_back(t);
      floats += split_floats(q.padded, blocks, shape.Dp);
      most = std::max(most, blocks);
    }
  Scratch<float> memory(static_cast<size_t>(floats));
  float* at = memory.data();
  const auto take = [&](int64_t n) {
    float* p = at;
    at += n;
    return p;
  };
  for (Task& t : tasks) {
    SplitBlock& w = t.block;
    const int64_t rows = w.q.padded, each = w.blocks * rows;
    w.qs = take(rows * shape.Dp);
    w.scores = take(each * kKeys);
    w.top = take(each);
    w.sum = take(each);
    w.factor = take(each);
    w.largest = take(rows);
    w.total = take(rows);
    kernels.load_queries(w.qs, f.q, w.q, t.g, f.scale);
    for (int64_t r = 0; r < rows; ++r) {
      w.largest[r] = f.sinks ? f.sinks[t.source.head * shape.group + r % shape.group] : -INFINITY;
      w.total[r] = f.sinks ? 1.0f : 0.0f;
    }
  }
  const int64_t all = static_cast<int64_t>(tasks.size());
  const auto each_key_block = [&](auto&& run) {
    parallel_for(all * most, [&](int64_t i) {
      if (const Task& t = tasks[static_cast<size_t>(i % all)]; i / all < t.block.blocks) run(t, i / all);
    });
  };
  each_key_block([&](const Task& t, int64_t n) { kernels.split_scores(f, t.g, t.block, t.source, n); });
  each_key_block([&](const Task& t, int64_t n) { kernels.split_softmax(t.g, t.block, n); });
  parallel_for(all * (shape.Dp / kSplitColumns), [&](int64_t i) {
    const Task& t = tasks[static_cast<size_t>(i % all)];
    kernels.split_output(f, t.g, t.block, t.source, i / all * kSplitColumns);
  });
}

// Blocks of one head's queries, as each_block counts them.
int64_t blocks_of(const Sequences& spans, int64_t B, int64_t step) {
  int64_t blocks = 0;
  for (int64_t b = 0; b < B; ++b) blocks += (spans[b].queries + step - 1) / step;
  return blocks;
}

AttentionShape planned_shape(TensorRef q, TensorRef k, TensorRef k_len, int64_t window) {
  return {k_len->numel(), q->shape[0], k->shape[0], q->shape[1], k->shape[1], q->shape[2], window, 0};
}
Sequences planned_sequences(const AttentionShape& s, TensorRef q_start, TensorRef k_len) {
  return has_contents(q_start) && has_contents(k_len) ? Sequences(s, *q_start, k_len) : Sequences(s);
}
// Bytes of `tasks` tasks on the threads of the pool.
double on_threads(int64_t tasks, size_t floats) {
  return static_cast<double>(std::min<int64_t>(tasks, thread_count())) * static_cast<double>(floats * sizeof(float));
}

// Workspace of split_forward, beside the sequences.
double split_bytes(const Sequences& spans, const Geometry& shape, int64_t B, bool bf16) {
  double floats = 0;
  int64_t tasks = 0, most = 0, padded = 0;
  for (int64_t b = 0; b < B; ++b) {
    if (spans[b].queries <= 0) continue;
    const QueryBlock q = spans[b].block(shape, 0);
    const int64_t blocks = (q.position + q.queries - 1) / kKeys - shape.first_key(q.position) / kKeys + 1;
    floats += static_cast<double>(shape.Hkv * split_floats(q.padded, blocks, shape.Dp));
    tasks += shape.Hkv;
    most = std::max(most, blocks);
    padded = std::max(padded, q.padded);
  }
  return floats * sizeof(float) +
         std::max(on_threads(tasks * most, split_scores_floats(shape.Dp, bf16)),
                  on_threads(tasks * (shape.Dp / kSplitColumns), split_output_floats(padded, shape.Dp)));
}

}  // namespace

Cost cost::attention_fwd(const args::attention_fwd& a) {
  const AttentionShape s = planned_shape(a.q, a.k, a.k_len, a.window);
  const Geometry shape(s);
  const Sequences spans = planned_sequences(s, a.q_start, a.k_len);
  int64_t padded = 0;
  for (int64_t b = 0; b < s.B; ++b)
    if (spans[b].queries > 0) padded = std::max(padded, spans[b].block(shape, 0).padded);
  const double tasks =
      spans.worth_splitting(shape.block_queries)
          ? split_bytes(spans, shape, s.B, a.k->dtype == DType::bf16)
          : static_cast<double>(s.B + 1) * sizeof(int64_t) +
                on_threads(blocks_of(spans, s.B, shape.block_queries) * s.Hkv, forward_floats(padded, shape.Dp));
  Cost cost = streamed(a, (a.sinks ? 4.0 * s.H : 0) + static_cast<double>(spans.bytes()) + tasks);
  cost.flops = 4 * spans.pairs() * static_cast<double>(s.H * s.Dh);
  cost.rows = static_cast<double>(s.T);
  return cost;
}

void attention_fwd(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks,
                   TensorRef q_start, TensorRef k_start, TensorRef k_len, TensorRef pages, int64_t window, int64_t ring,
                   int64_t page, double scale, int64_t) {
  const AttentionShape s = attention_shape(*q, *k, *q_start, k_start, k_len, window, ring, pages, page);
  const Geometry shape(s);
  Scratch<float> sink(sinks ? static_cast<size_t>(s.H) : 0);
  for (int64_t h = 0; sinks && h < s.H; ++h) sink[h] = static_cast<float>(element(*sinks, h));
  const Sequences spans(s, *q_start, k_len);
  const Forward f{o->f32(), lse ? lse->f32() : nullptr, q->f32(), sink.data(), k, v, static_cast<float>(scale)};
  const Kernels& kernels = active_kernels();
  if (spans.worth_splitting(shape.block_queries)) return split_forward(kernels, f, shape, spans, s, k_start);
  spans.each_block(shape.block_queries, [&](int64_t b, int64_t head, int64_t i) {
    Geometry g = shape;
    g.head = head;
    kernels.forward(f, g, spans[b].block(g, i), {key_rows(s, k_start, b), head});
  });
}

static int64_t dot_chunk(int64_t H, int64_t Dh) { return std::max<int64_t>(64, 32768 / (H * Dh)); }

Cost cost::attention_bwd(const args::attention_bwd& a) {
  const AttentionShape s = planned_shape(a.q, a.k, a.k_len, a.window);
  const Geometry shape(s);
  const Sequences spans = planned_sequences(s, a.q_start, a.k_len);
  const int64_t chunk = dot_chunk(s.H, s.Dh), chunks = (s.T + chunk - 1) / chunk;
  const double sums = 4.0 * s.T * s.H + (a.dsinks && a.sinks ? 8.0 * chunks * s.H : 0);
  // Whole heads or blocks of them: as many tasks as there are threads, where there is anything to do.
  const double tasks =
      std::max(8.0 * thread_count(), 8.0 * (s.B + 1) + on_threads(thread_count(), backward_floats(shape)));
  Cost cost = streamed(a, static_cast<double>(spans.bytes()) + sums + (s.T ? tasks : 0));
  cost.flops = 10 * spans.pairs() * static_cast<double>(s.H * s.Dh);
  cost.rows = static_cast<double>(s.T);
  return cost;
}

void attention_bwd(TensorRef dq, TensorRef dk, TensorRef dv, TensorRef dsinks, TensorRef dout, TensorRef q, TensorRef k,
                   TensorRef v, TensorRef o, TensorRef lse, TensorRef sinks, TensorRef q_start, TensorRef k_start,
                   TensorRef k_len, int64_t window, double scale, int64_t) {
  const AttentionShape s = attention_shape(*q, *k, *q_start, k_start, k_len, window, 0);
  require_separate_keys(s, *k_start, *k_len);
  const Geometry shape(s);
  const Sequences spans(s, *q_start, k_len);

  // D = Σ do∘o of every query head, and with it the sinks' gradient, summed over fixed chunks of tokens.
  const int64_t chunk = dot_chunk(s.H, s.Dh);
  const int64_t chunks = (s.T + chunk - 1) / chunk;
  const bool with_sinks = dsinks && sinks;
  Scratch<float> dot(static_cast<size_t>(s.T * s.H));
  Scratch<double> partial(with_sinks ? static_cast<size_t>(chunks * s.H) : 0);
  parallel_for(chunks, [&](int64_t c) {
    for (int64_t h = 0; h < s.H && with_sinks; ++h) partial[c * s.H + h] = 0;
    for (int64_t i = c * chunk * s.H; i < std::min(s.T, (c + 1) * chunk) * s.H; ++i) {
      const float *a = dout->f32() + i * s.Dh, *y = o->f32() + i * s.Dh;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < s.Dh; ++d) sum += a[d] * y[d];
      dot[i] = sum;
      if (with_sinks)
        partial[c * s.H + i % s.H] -= std::exp(element(*sinks, i % s.H) - static_cast<double>(lse->f32()[i])) * sum;
    }
  });
  for (int64_t h = 0; with_sinks && h < s.H; ++h) {
    double sum = dsinks->f32()[h];
    for (int64_t c = 0; c < chunks; ++c) sum += partial[c * s.H + h];
    dsinks->f32()[h] = static_cast<float>(sum);
  }

  const Backward f{dq->f32(), dk->f32(), dv->f32(),  dout->f32(), q->f32(),
                   k->f32(),  v->f32(),  lse->f32(), dot.data(),  static_cast<float>(scale)};
  const Kernels& kernels = active_kernels();
  const auto run = [&](int64_t b, int64_t head, const BackwardPart& part) {
    Geometry g = shape;
    g.head = head;
    kernels.backward(f, g, spans[b], {key_rows(s, k_start, b), head}, part);
  };
  // Only the keys that a query of this call sees, from the block of the first one on.
  const auto first_block = [&](int64_t b) { return shape.first_key(spans[b].position) / kKeys * kKeys; };
  const auto keys_end = [&](int64_t b) { return spans[b].position + spans[b].queries; };
  if (spans.heads_keep_threads_busy()) {
    spans.each_head(
        [&](int64_t b, int64_t head) { run(b, head, {0, spans[b].queries, first_block(b), keys_end(b), true, true}); });
    return;
  }
  spans.each_block(shape.block_queries, [&](int64_t b, int64_t head, int64_t i) {
    run(b, head, {i, std::min(i + shape.block_queries, spans[b].queries), first_block(b), keys_end(b), true, false});
  });
  spans.each_block(
      kKeys, [&](int64_t b) { return spans[b].queries > 0 ? keys_end(b) - first_block(b) : 0; },
      [&](int64_t b, int64_t head, int64_t i) {
        run(b, head, {0, spans[b].queries, first_block(b) + i, first_block(b) + i + kKeys, false, true});
      });
}

}  // namespace temper::cpu
