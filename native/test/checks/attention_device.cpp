// A device's attention: at either precision a query has the same bits in training and in serving, whichever kernel
// computes it; and precision 1 rounds the operands, no more and no less.
#include <cstring>
#include "cpu/host/bf16.h"
#include "temper/error.h"
#include "test/harness/harness.h"

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

struct Batch {
  std::vector<int32_t> q_start, k_start, k_len;
};
// The call's o. Over pages it must have the same bits; so must keys of bf16 where they are rounded anyway.
Value attend(const Backend& backend, const Value& q, const Value& k, const Value& v, const Value& sinks, const Batch& b,
             int64_t window, int64_t ring, int precision, Tally& tally) {
  const int64_t B = static_cast<int64_t>(b.k_len.size());
  const Values args = {out({q.tensor.shape[0], kHeads, kWidth}),
                       nullptr,
                       q,
                       k,
                       v,
                       sinks,
                       values_i32({B + 1}, b.q_start),
                       values_i32({B}, b.k_start),
                       values_i32({B}, b.k_len),
                       nullptr,
                       window,
                       ring,
                       0,
                       0.2,
                       precision};
  const Value o = call(backend, "attention_fwd", args)[0];
  if (ring > 0) return o;
  const auto over_pages = [&](int64_t page, DType dtype) {
    Values a = args;
    const Paged p = in_pages(k, v, b.k_start, b.k_len, page, dtype);
    a[3] = p.k;
    a[4] = p.v;
    a[7] = nullptr;
    a[9] = p.pages;
    a[12] = page;
    return call(backend, "attention_fwd", std::move(a))[0].bytes;
  };
  const std::string where = backend.name + " attention, precision " + std::to_string(precision) + ", " +
                            std::to_string(q.tensor.shape[0]) + " queries, window " + std::to_string(window) + ": ";
  for (int64_t page : {64, 128}) {
    if (kSanitized && page == 128) continue;  // as many accesses again, in the same places
    report(tally, over_pages(page, DType::f32) == o.bytes, where + "other bits over pages of " + std::to_string(page));
  }
  report(tally, (over_pages(64, DType::bf16) == o.bytes) == (precision == 1),
         where + "keys in bf16 have " + (precision ? "other bits than rounded ones" : "the bits of f32"));
  return o;
}

void check_bits(const Backend& backend, int precision, Tally& tally) {
  const Value q = smooth({kTokens, kHeads, kWidth}, 1), k = smooth({kTokens, kKvHeads, kWidth}, 2),
              v = smooth({kTokens, kKvHeads, kWidth}, 3), sinks = smooth({kHeads}, 4);
  for (int64_t window : {int64_t{0}, int64_t{70}}) {
    const std::string where =
        backend.name + " attention, precision " + std::to_string(precision) + ", window " + std::to_string(window);
    const Value whole = attend(backend, q, k, v, sinks, {{0, kTokens}, {0}, {kTokens}}, window, 0, precision, tally);
    const auto same = [&](const Value& got, int64_t begin, int64_t end, const std::string& what) {
      report(tally, got.bytes == slice(whole, begin, end).bytes, where + ": " + what + " has other bits");
    };
    for (int32_t t : {0, 63, 64, 127, 200, 255, 256, 449}) {
      same(attend(backend, slice(q, t, t + 1), k, v, sinks, {{0, 1}, {0}, {t + 1}}, window, 0, precision, tally), t,
           t + 1, "token " + std::to_string(t) + " decoded alone");
      if (window == 0) continue;
      Value ring_k(DType::f32, {window, kKvHeads, kWidth}, Role::in), ring_v = ring_k;
      for (int64_t j = 0; j <= t; ++j)
        for (int64_t d = 0; d < kKvHeads * kWidth; ++d) {
          ring_k.set(j % window * kKvHeads * kWidth + d, k.at(j * kKvHeads * kWidth + d));
          ring_v.set(j % window * kKvHeads * kWidth + d, v.at(j * kKvHeads * kWidth + d));
        }
      same(attend(backend, slice(q, t, t + 1), ring_k, ring_v, sinks, {{0, 1}, {0}, {t + 1}}, window, window, precision,
                  tally),
           t, t + 1, "token " + std::to_string(t) + " over a ring");
    }
    same(attend(backend, slice(q, 437, 450), k, v, sinks, {{0, 13}, {0}, {kTokens}}, window, 0, precision, tally), 437,
         450, "a few queries at the end");
    same(attend(backend, slice(q, 190, 450), k, v, sinks, {{0, 260}, {0}, {kTokens}}, window, 0, precision, tally), 190,
         450, "a second part of a prompt");
    // Three sequences over the same keys, decoded together: more blocks than there are slots for, so one of them is
    // taken in one run.
    Value three(DType::f32, {3, kHeads, kWidth}, Role::in);
    const std::vector<int32_t> last = {449, 300, 440};
    for (size_t i = 0; i < 3; ++i) {
      const Value one = slice(q, last[i], last[i] + 1);
      std::memcpy(three.bytes.data() + i * one.bytes.size(), one.bytes.data(), one.bytes.size());
    }
    const Value together =
        attend(backend, three, k, v, sinks, {{0, 1, 2, 3}, {0, 0, 0}, {450, 301, 441}}, window, 0, precision, tally);
    for (int64_t i = 0; i < 3; ++i)
      report(tally,
             slice(together, i, i + 1).bytes ==
                 slice(whole, last[static_cast<size_t>(i)], last[static_cast<size_t>(i)] + 1).bytes,
             where + ": a batch of three decodes other bits");
    const Value packed = attend(backend, q, k, v, sinks, {{0, 150, kTokens}, {0, 150}, {150, kTokens - 150}}, window, 0,
                                precision, tally);
    report(tally, slice(packed, 0, 150).bytes == slice(whole, 0, 150).bytes,
           where + ": a packed sequence has other bits");
    const Value alone = attend(backend, slice(q, 150, kTokens), slice(k, 150, kTokens), slice(v, 150, kTokens), sinks,
                               {{0, kTokens - 150}, {0}, {kTokens - 150}}, window, 0, precision, tally);
    report(tally, slice(packed, 150, kTokens).bytes == alone.bytes,
           where + ": the second packed sequence sees the first");
  }
}

// Over many blocks of keys: what was dealt out is folded in several rounds.
void check_long(const Backend& backend, int precision, Tally& tally) {
  constexpr int32_t kLong = 2885, kFew = 20;
  const Value q = smooth({kFew, kHeads, kWidth}, 1), k = smooth({kLong, kKvHeads, kWidth}, 2),
              v = smooth({kLong, kKvHeads, kWidth}, 3), sinks = smooth({kHeads}, 4);
  const Value rows = attend(backend, q, k, v, sinks, {{0, kFew}, {0}, {kLong}}, 0, 0, precision, tally);
  for (int32_t t : {0, kFew - 1}) {
    const Value alone =
        attend(backend, slice(q, t, t + 1), k, v, sinks, {{0, 1}, {0}, {kLong - kFew + 1 + t}}, 0, 0, precision, tally);
    report(tally, alone.bytes == slice(rows, t, t + 1).bytes,
           backend.name + " attention, precision " + std::to_string(precision) + ": decoded over " +
               std::to_string(kLong) + " keys, query " + std::to_string(t) + " has other bits");
  }
}

Value rounded(Value x) {
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, cpu::round_to_bf16(x.f32()[i]));
  return x;
}

// At precision 1 operands that are rounded beforehand change no bit, and at precision 0 they do; heads too wide for the
// tensor cores have the same bits at both.
void check_rounding(const Backend& backend, Tally& tally) {
  for (int64_t width : {64, 80})
    for (int64_t T : {3, 150}) {  // by either forward kernel
      const auto in = [&](int64_t rows, int64_t heads, uint64_t seed) { return smooth({rows, heads, width}, seed); };
      const Value sinks = smooth({8}, 5), q_start = values_i32({2}, {0, static_cast<int32_t>(T)}),
                  k_start = values_i32({1}, {0}), k_len = values_i32({1}, {150});
      const Values plain = {out({T, 8, width}),
                            out({T, 8}),
                            in(T, 8, 1),
                            in(150, 2, 2),
                            in(150, 2, 3),
                            sinks,
                            q_start,
                            k_start,
                            k_len,
                            nullptr,
                            int64_t{100},
                            int64_t{0},
                            0,
                            0.125,
                            0};
      Value o = run_reference("attention_fwd", plain)[0], lse = run_reference("attention_fwd", plain)[1];
      o.role = lse.role = Role::in;
      const auto zeros = [&] { return update(Value(DType::f32, {150, 2, width}, Role::in)); };
      const Values back = {out({T, 8, width}), zeros(), zeros(), nullptr, in(T, 8, 4), plain[2], plain[3],
                           plain[4],           o,       lse,     sinks,   q_start,     k_start,  k_len,
                           int64_t{100},       0.125,   0};
      const auto at = [&](const std::string& op, Values args, std::vector<size_t> operands, int precision) {
        for (size_t i : operands) args[i] = rounded(args[i]);
        args.back() = precision;
        return call(backend, op, std::move(args));
      };
      const auto check = [&](const std::string& op, const Values& args, const std::vector<size_t>& operands,
                             const std::vector<size_t>& outputs) {
        const Values f32 = at(op, args, {}, 0), f32_rounded = at(op, args, operands, 0), bf16 = at(op, args, {}, 1),
                     bf16_rounded = at(op, args, operands, 1);
        const std::string where = backend.name + " " + op + ", width " + std::to_string(width) + ", " +
                                  std::to_string(T) + " queries: output ";
        for (size_t i : outputs) {
          const std::string output = where + std::to_string(i);
          report(tally, f32[i].bytes != f32_rounded[i].bytes, output + ": operands are rounded at precision 0");
          if (width > 64) report(tally, f32[i].bytes == bf16[i].bytes, output + " has other bits at precision 1");
          else
            report(tally, bf16[i].bytes == bf16_rounded[i].bytes && bf16[i].bytes != f32_rounded[i].bytes,
                   output + ": precision 1 does not round, or rounds more than once");
        }
      };
      check("attention_fwd", plain, {2, 3, 4}, {0});
      check("attention_bwd", back, {5, 6, 7}, {0, 1, 2});  // dout also makes D, in f32
    }
}

// Gradients of a sequence have the same bits alone and packed between others.
void check_gradient_bits(const Backend& backend, int precision, Tally& tally) {
  constexpr int32_t kBefore = 37, kOwn = 101, kAfter = 20, kAll = kBefore + kOwn + kAfter;
  const auto in = [&](int64_t heads, uint64_t seed) { return smooth({kAll, heads, kWidth}, seed); };
  const Value dout = in(kHeads, 1), q = in(kHeads, 2), k = in(kKvHeads, 3), v = in(kKvHeads, 4),
              sinks = smooth({kHeads}, 5);
  for (int64_t window : {int64_t{0}, int64_t{40}}) {
    const auto gradients = [&](int32_t begin, int32_t end, const std::vector<int32_t>& starts) {
      const int64_t B = static_cast<int64_t>(starts.size()) - 1, T = end - begin;
      std::vector<int32_t> lengths;
      for (size_t b = 0; b + 1 < starts.size(); ++b) lengths.push_back(starts[b + 1] - starts[b]);
      const Value q_start = values_i32({B + 1}, starts),
                  k_start = values_i32({B}, std::vector<int32_t>(starts.begin(), starts.end() - 1)),
                  k_len = values_i32({B}, lengths);
      const auto part = [&](const Value& x) { return slice(x, begin, end); };
      Values forward = call(backend, "attention_fwd",
                            {out({T, kHeads, kWidth}), out({T, kHeads}), part(q), part(k), part(v), sinks, q_start,
                             k_start, k_len, nullptr, window, 0, 0, 0.2, precision});
      forward[0].role = forward[1].role = Role::in;
      const Value zeros = update(Value(DType::f32, {T, kKvHeads, kWidth}, Role::in));
      return call(backend, "attention_bwd",
                  {out({T, kHeads, kWidth}), zeros, zeros, nullptr, part(dout), part(q), part(k), part(v), forward[0],
                   forward[1], sinks, q_start, k_start, k_len, window, 0.2, precision});
    };
    const Values packed = gradients(0, kAll, {0, kBefore, kBefore + kOwn, kAll}),
                 alone = gradients(kBefore, kBefore + kOwn, {0, kOwn});
    for (size_t i : {0, 1, 2})
      report(tally, slice(packed[i], kBefore, kBefore + kOwn).bytes == alone[i].bytes,
             backend.name + " attention_bwd, precision " + std::to_string(precision) + ", window " +
                 std::to_string(window) + ": output " + std::to_string(i) + " of a packed sequence has other bits");
  }
}

}  // namespace

void check_device_attention(const Backend& backend, Tally& tally) {
  backend.variants[0].enter();
  for (int precision : {0, 1})
    if (!kSanitized || precision == 1) check_bits(backend, precision, tally);
  if (!kSanitized)  // the same accesses, more of them
    for (int precision : {0, 1}) check_long(backend, precision, tally);
  for (int precision : {0, 1}) check_gradient_bits(backend, precision, tally);
  check_rounding(backend, tally);
}

}  // namespace temper::test
