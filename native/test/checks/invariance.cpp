// A query's attention has the same bits wherever it is computed: in one pass over the sequence (training), in a packed
// batch, or token by token over cached keys, in rows of their own or in a ring (serving). And the CPU computes in f32
// at either precision.
#include "cpu/host/bf16.h"
#include "cpu/host/isa.h"
#include "cpu/ops.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr int64_t kTokens = 210, kHeads = 6, kKvHeads = 2, kWidth = 20;

Value slice(const Value& x, int64_t begin, int64_t end) {
  Shape shape(x.tensor.shape, x.tensor.shape + x.tensor.ndim);
  shape[0] = end - begin;
  Value y(x.tensor.dtype, shape, Role::in);
  const auto row = static_cast<std::ptrdiff_t>(x.bytes.size() / static_cast<size_t>(x.tensor.shape[0]));
  y.bytes.assign(x.bytes.begin() + begin * row, x.bytes.begin() + end * row);
  return y;
}

Values run(const std::string& op, Values args) {
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = args[i].bytes.data();
    tensors[i] = &storage[i];
  }
  if (invoke(cpu::table(), op, args, tensors) != 0) throw last_error();
  return args;
}

// The call's o. Over pages it must have the same bits, and keys of bf16 those of the same keys in f32.
Value attend(const Value& q, const Value& k, const Value& v, const Value& sinks, std::vector<int32_t> q_start,
             std::vector<int32_t> k_start, std::vector<int32_t> k_len, int64_t window, int64_t ring, Tally& tally) {
  const int64_t B = static_cast<int64_t>(k_len.size());
  Values args = {out({q.tensor.shape[0], q.tensor.shape[1], q.tensor.shape[2]}),
                 out({q.tensor.shape[0], q.tensor.shape[1]}),
                 q,
                 k,
                 v,
                 sinks,
                 values_i32({B + 1}, q_start),
                 values_i32({B}, k_start),
                 values_i32({B}, k_len),
                 nullptr,
                 window,
                 ring,
                 0,
                 0.2,
                 0};
  const Value o = run("attention_fwd", args)[0];
  if (ring > 0) return o;
  const auto over_pages = [&](Values a, int64_t page, DType dtype) {
    const Paged p = in_pages(a[3], a[4], k_start, k_len, page, dtype);
    a[3] = p.k;
    a[4] = p.v;
    a[7] = nullptr;
    a[9] = p.pages;
    a[12] = page;
    return run("attention_fwd", std::move(a))[0].bytes;
  };
  for (int64_t page : {64, 128})
    report(tally, over_pages(args, page, DType::f32) == o.bytes,
           "attention of " + std::to_string(q.tensor.shape[0]) + " queries, window " + std::to_string(window) +
               ": other bits over pages of " + std::to_string(page));
  const std::vector<uint8_t> narrow = over_pages(args, 64, DType::bf16);
  for (size_t i : {3, 4})
    for (int64_t at = 0; at < args[i].numel(); ++at) args[i].set(at, cpu::round_to_bf16(args[i].f32()[at]));
  report(tally, run("attention_fwd", args)[0].bytes == narrow && narrow != o.bytes,
         "attention of " + std::to_string(q.tensor.shape[0]) + " queries, window " + std::to_string(window) +
             ": keys in bf16 give other bits than the same in f32");
  return o;
}

void check_precisions(const std::string& isa, Tally& tally) {
  int64_t count = 0;
  for (const Case& c : registry().cases) {
    if (!c.op.starts_with("attention_") || !c.error.empty() || c.bench_only || c.slow || c.args.back().number != 1)
      continue;
    Values exact = c.args;
    exact.back() = 0;
    const Values got = run(c.op, c.args), want = run(c.op, std::move(exact));
    for (size_t i = 0; i < got.size(); ++i)
      if (got[i].is_tensor() && got[i].role != Role::in) {
        ++count;
        report(tally, got[i].bytes == want[i].bytes,
               c.op + " [" + c.name + "], " + isa + ": output " + std::to_string(i) + " has other bits at precision 0");
      }
  }
  report(tally, count > 0, "attention, " + isa + ": no case at precision 1");
}

}  // namespace

void check_invariance(Tally& tally) {
  const Value q = smooth({kTokens, kHeads, kWidth}, 1), k = smooth({kTokens, kKvHeads, kWidth}, 2),
              v = smooth({kTokens, kKvHeads, kWidth}, 3), sinks = smooth({kHeads}, 4);
  set_thread_count(2);
  for (cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::avx2, cpu::Isa::avx512, cpu::Isa::neon}) {
    if (!cpu::supported(isa)) continue;
    cpu::force_isa(isa);
    check_precisions(cpu::name_of(isa), tally);
    for (int64_t window : {int64_t{0}, int64_t{70}}) {
      const std::string where = std::string("attention, ") + cpu::name_of(isa) + ", window " + std::to_string(window);
      const Value whole = attend(q, k, v, sinks, {0, kTokens}, {0}, {kTokens}, window, 0, tally);
      for (int32_t t : {0, 1, 63, 64, 127, 128, 200, 209}) {
        const Value one = attend(slice(q, t, t + 1), k, v, sinks, {0, 1}, {0}, {t + 1}, window, 0, tally);
        report(tally, one.bytes == slice(whole, t, t + 1).bytes,
               where + ": token " + std::to_string(t) + " alone has other bits than in its sequence");
        if (window == 0) continue;
        Value ring_k(DType::f32, {window, kKvHeads, kWidth}, Role::in), ring_v = ring_k;
        for (int64_t j = 0; j <= t; ++j)
          for (int64_t d = 0; d < kKvHeads * kWidth; ++d) {
            ring_k.set(j % window * kKvHeads * kWidth + d, k.at(j * kKvHeads * kWidth + d));
            ring_v.set(j % window * kKvHeads * kWidth + d, v.at(j * kKvHeads * kWidth + d));
          }
        const Value ring =
            attend(slice(q, t, t + 1), ring_k, ring_v, sinks, {0, 1}, {0}, {t + 1}, window, window, tally);
        report(tally, ring.bytes == one.bytes, where + ": token " + std::to_string(t) + " over a ring has other bits");
      }
      const Value chunked = attend(slice(q, 90, 210), k, v, sinks, {0, 120}, {0}, {kTokens}, window, 0, tally);
      report(tally, chunked.bytes == slice(whole, 90, 210).bytes, where + ": a second part of a prompt has other bits");
      const Value packed = attend(q, k, v, sinks, {0, 150, kTokens}, {0, 150}, {150, kTokens - 150}, window, 0, tally);
      report(tally, slice(packed, 0, 150).bytes == slice(whole, 0, 150).bytes,
             where + ": a packed sequence has other bits");
      const Value alone = attend(slice(q, 150, kTokens), slice(k, 150, kTokens), slice(v, 150, kTokens), sinks,
                                 {0, kTokens - 150}, {0}, {kTokens - 150}, window, 0, tally);
      report(tally, slice(packed, 150, kTokens).bytes == alone.bytes,
             where + ": the second packed sequence sees the first");
    }
    // With more threads than kv heads the keys of a long sequence are shared out.
    for (int64_t ring : {int64_t{0}, int64_t{2112}}) {
      constexpr int64_t kLong = 2100;
      const int64_t window = ring > 0 ? ring - 10 : 0, rows = ring > 0 ? ring : kLong;
      const Value lq = smooth({3, 16, 64}, 5), lk = smooth({rows, 2, 64}, 6), lv = smooth({rows, 2, 64}, 7),
                  lsinks = smooth({16}, 8);
      std::vector<Value> by_threads;
      for (int threads : {1, 2, 5}) {
        set_thread_count(threads);
        by_threads.push_back(
            attend(lq, lk, lv, lsinks, {0, 3}, {0}, {static_cast<int32_t>(kLong)}, window, ring, tally));
      }
      set_thread_count(2);
      for (size_t i : {1, 2})
        report(tally, by_threads[i].bytes == by_threads[0].bytes,
               std::string("attention, ") + cpu::name_of(isa) + ", ring " + std::to_string(ring) + ": other bits on " +
                   (i == 1 ? "2" : "5") + " threads than on one");
    }
  }
}

}  // namespace temper::test
