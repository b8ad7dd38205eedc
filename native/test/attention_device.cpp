// A device's attention: a query has the same bits in training and in serving, whichever kernel computes it; and what rounding operands to bf16 costs.
#include <cmath>
#include <cstring>
#include "cuda/attention.h"
#include "cuda/emulation/emulation.h"
#include "test/harness.h"

namespace temper::test {
namespace {

constexpr int64_t kTokens = 450, kHeads = 6, kKvHeads = 2, kWidth = 20;

Value slice(const Value& x, int64_t begin, int64_t end) {
  Shape shape(x.tensor.shape, x.tensor.shape + x.tensor.ndim);
  shape[0] = end - begin;
  Value y(x.tensor.dtype, shape, Role::in);
  const size_t row = x.bytes.size() / static_cast<size_t>(x.tensor.shape[0]);
  std::memcpy(y.bytes.data(), x.bytes.data() + static_cast<size_t>(begin) * row, y.bytes.size());
  return y;
}

Values call(const Backend& backend, const std::string& op, Values args) {
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = backend.acquire(args[i].bytes.size() + 1);
    backend.put(storage[i].data, args[i].bytes.data(), args[i].bytes.size());
    tensors[i] = &storage[i];
  }
  const int status = settle(backend, invoke(*backend.ops, op, args, tensors));
  for (size_t i = 0; i < args.size(); ++i) {
    if (!tensors[i]) continue;
    if (!status) backend.get(args[i].bytes.data(), storage[i].data, args[i].bytes.size());
    backend.drop(storage[i].data);
  }
  if (status) throw last_error();
  return args;
}

struct Batch { std::vector<int32_t> q_start, k_start, k_len; };
Value attend(const Backend& backend, const Value& q, const Value& k, const Value& v, const Value& sinks, const Batch& b, int64_t window, int64_t ring) {
  const int64_t B = static_cast<int64_t>(b.k_len.size());
  return call(backend, "attention_fwd",
              {out({q.tensor.shape[0], kHeads, kWidth}), nullptr, q, k, v, sinks, values_i32({B + 1}, b.q_start), values_i32({B}, b.k_start), values_i32({B}, b.k_len), window, ring, 0.2})[0];
}

void check_bits(const Backend& backend, const std::string& how, Tally& tally) {
  const Value q = smooth({kTokens, kHeads, kWidth}, 1), k = smooth({kTokens, kKvHeads, kWidth}, 2), v = smooth({kTokens, kKvHeads, kWidth}, 3), sinks = smooth({kHeads}, 4);
  for (int64_t window : {int64_t{0}, int64_t{70}}) {
    const std::string where = backend.name + " attention, " + how + ", window " + std::to_string(window);
    const Value whole = attend(backend, q, k, v, sinks, {{0, kTokens}, {0}, {kTokens}}, window, 0);
    const auto same = [&](const Value& got, int64_t begin, int64_t end, const std::string& what) { report(tally, got.bytes == slice(whole, begin, end).bytes, where + ": " + what + " has other bits"); };
    for (int32_t t : {0, 63, 64, 127, 200, 255, 256, 449}) {
      same(attend(backend, slice(q, t, t + 1), k, v, sinks, {{0, 1}, {0}, {t + 1}}, window, 0), t, t + 1, "token " + std::to_string(t) + " decoded alone");
      if (window == 0) continue;
      Value ring_k(DType::f32, {window, kKvHeads, kWidth}, Role::in), ring_v = ring_k;
      for (int64_t j = 0; j <= t; ++j)
        for (int64_t d = 0; d < kKvHeads * kWidth; ++d) {
          ring_k.set(j % window * kKvHeads * kWidth + d, k.at(j * kKvHeads * kWidth + d));
          ring_v.set(j % window * kKvHeads * kWidth + d, v.at(j * kKvHeads * kWidth + d));
        }
      same(attend(backend, slice(q, t, t + 1), ring_k, ring_v, sinks, {{0, 1}, {0}, {t + 1}}, window, window), t, t + 1, "token " + std::to_string(t) + " over a ring");
    }
    same(attend(backend, slice(q, 437, 450), k, v, sinks, {{0, 13}, {0}, {kTokens}}, window, 0), 437, 450, "a few queries at the end");
    same(attend(backend, slice(q, 190, 450), k, v, sinks, {{0, 260}, {0}, {kTokens}}, window, 0), 190, 450, "a second part of a prompt");
    // Three sequences over the same keys, decoded together: more blocks than there are slots for, so one of them is taken in one run.
    Value three(DType::f32, {3, kHeads, kWidth}, Role::in);
    const std::vector<int32_t> last = {449, 300, 440};
    for (size_t i = 0; i < 3; ++i) {
      const Value one = slice(q, last[i], last[i] + 1);
      std::memcpy(three.bytes.data() + i * one.bytes.size(), one.bytes.data(), one.bytes.size());
    }
    const Value together = attend(backend, three, k, v, sinks, {{0, 1, 2, 3}, {0, 0, 0}, {450, 301, 441}}, window, 0);
    for (int64_t i = 0; i < 3; ++i) report(tally, slice(together, i, i + 1).bytes == slice(whole, last[static_cast<size_t>(i)], last[static_cast<size_t>(i)] + 1).bytes, where + ": a batch of three decodes other bits");
    const Value packed = attend(backend, q, k, v, sinks, {{0, 150, kTokens}, {0, 150}, {150, kTokens - 150}}, window, 0);
    report(tally, slice(packed, 0, 150).bytes == slice(whole, 0, 150).bytes, where + ": a packed sequence has other bits");
    const Value alone = attend(backend, slice(q, 150, kTokens), slice(k, 150, kTokens), slice(v, 150, kTokens), sinks, {{0, kTokens - 150}, {0}, {kTokens - 150}}, window, 0);
    report(tally, slice(packed, 150, kTokens).bytes == alone.bytes, where + ": the second packed sequence sees the first");
  }
}

// ‖got − want‖ / ‖want‖.
double distance(const Value& got, const Value& want) {
  double off = 0, all = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    off += (got.at(i) - want.at(i)) * (got.at(i) - want.at(i));
    all += want.at(i) * want.at(i);
  }
  return std::sqrt(off / all);
}

// One part is bf16: off by more than f32 would be, by no more than bf16 should be. Negative scale: its sign goes another way through the kernels.
void check_one_part(const Backend& backend, Tally& tally) {
  for (double scale : {0.125, -0.125})
    for (int64_t width : {64, 80}) {
      const int64_t T = 150;
      const auto in = [&](int64_t heads, uint64_t seed) { return smooth({T, heads, width}, seed); };
      const Value q = in(8, 1), k = in(2, 2), v = in(2, 3), dout = in(8, 4), sinks = smooth({8}, 5), q_start = values_i32({3}, {0, 30, 150}), k_start = values_i32({2}, {0, 30}), k_len = values_i32({2}, {30, 120});
      const Values forward = {out({T, 8, width}), out({T, 8}), q, k, v, sinks, q_start, k_start, k_len, int64_t{100}, int64_t{0}, scale};
      const Values want = run_reference("attention_fwd", forward);
      Value o = want[0], lse = want[1];
      o.role = lse.role = Role::in;
      const auto zeros = [&](int64_t heads) { return update(Value(DType::f32, {T, heads, width}, Role::in)); };
      const Values backward = {out({T, 8, width}), zeros(2), zeros(2), nullptr, dout, q, k, v, o, lse, sinks, q_start, k_start, k_len, int64_t{100}, scale};
      const Values want_back = run_reference("attention_bwd", backward);
      for (int parts : {1, cuda::attention::kPartsF32}) {
        cuda::attention::set_parts(parts);
        const Values got = call(backend, "attention_fwd", forward), got_back = call(backend, "attention_bwd", backward);
        const double low = parts == 1 && width <= 64 ? 1e-4 : 0, high = parts == 1 && width <= 64 ? 1e-2 : 1e-6;
        const auto within = [&](const std::string& what, double d) {
          report(tally, d >= low && d <= high, backend.name + " attention, " + std::to_string(parts) + " parts, width " + std::to_string(width) + ": " + what + " is off by " + std::to_string(d * 1e6) + "e-6");
        };
        within("o", distance(got[0], want[0]));
        within("dq", distance(got_back[0], want_back[0]));
        within("dk", distance(got_back[1], want_back[1]));
        within("dv", distance(got_back[2], want_back[2]));
      }
    }
}

}  // namespace

void check_device_attention(const Backend& backend, Tally& tally) {
  backend.variants[0].enter();
  check_bits(backend, "f32", tally);
  if (backend.name != "cuda-emulation") return;  // the rest reaches into the backend
  check_one_part(backend, tally);
  cuda::attention::set_parts(1);
  check_bits(backend, "bf16", tally);
  cuda::attention::set_parts(cuda::attention::kPartsF32);
}

}  // namespace temper::test
