// Decode: a row of a product has the same bits whichever rows share the call, so that a reply does not depend on what
// else is served. Of pieces of prompts likewise, which are read as rows among many.
#include <array>
#include <utility>

#include "test/harness/harness.h"

namespace temper::test {
namespace {

Value row_of(const Value& x, int64_t row) {
  Shape shape(x.tensor.shape, x.tensor.shape + x.tensor.ndim);
  shape[0] = 1;
  Value y(x.tensor.dtype, shape, Role::in);
  y.bytes.assign(x.bytes.begin() + row * static_cast<std::ptrdiff_t>(y.bytes.size()),
                 x.bytes.begin() + (row + 1) * static_cast<std::ptrdiff_t>(y.bytes.size()));
  return y;
}

// Argument 0 of an op after its call.
Value run(const Backend& backend, const std::string& op, Values args) { return call(backend, op, std::move(args))[0]; }

// Adapters of ranks 3, 1, 8, 16 and 20 for E experts: pool, table and scales; the pair of one as linear_fwd takes it.
struct Adapters {
  Value pool, table, scales;
  Value A(int32_t a, int64_t E, int64_t C) const { return part(a, 0, E, C); }
  Value B(int32_t a, int64_t E, int64_t N) const { return part(a, 1, E, N); }
  Value part(int32_t a, int which, int64_t E, int64_t width) const {
    const int32_t rank = table.i32()[3 * a + 2];
    const Shape shape = which == 0 ? Shape{rank, width} : Shape{width, rank};
    Value v(DType::f32, E == 1 ? shape : Shape{E, shape[0], shape[1]}, Role::in);
    for (int64_t i = 0; i < v.numel(); ++i) v.set(i, pool.at(16 * table.i32()[3 * a + which] + i));
    return v;
  }
};
Adapters adapters(int64_t E, int64_t N, int64_t C) {
  std::vector<int32_t> table;
  int64_t units = 0;
  for (int32_t rank : {3, 1, 8, 16, 20}) {
    table.push_back(static_cast<int32_t>(units));
    units += (E * rank * C + 15) / 16;
    table.push_back(static_cast<int32_t>(units));
    units += (E * N * rank + 15) / 16;
    table.push_back(rank);
  }
  return {floats({16 * units}, 20), values_i32({5, 3}, table), values_f32({5}, {0.7f, 1.3f, 0.3f, 0.6f, 0.9f})};
}

Value rounded(const Value& v) {  // one dimension
  Value to(DType::bf16, {v.numel()}, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i) to.set(i, v.at(i));
  return to;
}

// One row or two of a pair in bf16 go through it as a whole where inputs are few: with the bits of the same pair in
// f32, which never does, and of rows among more.
void check_whole_pairs(const Backend& backend, Tally& tally) {
  const int64_t T = 16, R = 20, E = 3;
  const std::vector<int32_t> adapter = {2, 2, 3, 2, 2, 2, 3, 3, -1, 0, 0, 3, 4, 2, 3, 3};
  const Value rows = values_i32({T}, adapter), offsets = values_i32({E + 1}, {0, 5, 5, 16});
  for (const int64_t N : {32, 48, 40})
    for (const int64_t C : {64, 80, 512}) {
      const Value x = floats({T, C}, 1), y = update(floats({T, N}, 2));
      for (const int64_t experts : {int64_t{0}, E}) {
        const Adapters of = adapters(experts ? experts : 1, N, C);
        const auto call = [&](const Value& some_x, const Value& some_y, const Value& some_rows, const Value& pool) {
          Value some_h = out({some_x.tensor.shape[0], R});
          if (!experts)
            return run(backend, "lora_fwd", {some_y, some_h, some_x, pool, of.table, of.scales, some_rows, 1});
          return run(backend, "grouped_lora_fwd",
                     {some_y, some_h, some_x, Value(nullptr),
                      some_x.tensor.shape[0] == T ? offsets : values_i32({E + 1}, {0, 0, 0, 1}), pool, of.table,
                      of.scales, some_rows, 1});
        };
        for (const Variant& variant : backend.variants) {
          variant.enter();
          const std::string what = backend.name + " " + variant.name + ": pairs " + std::to_string(C) + "×" +
                                   std::to_string(N) + (experts ? " of experts" : "");
          const Value narrow = rounded(of.pool), whole = call(x, y, rows, narrow);
          report(tally, whole.bytes == call(x, y, rows, of.pool).bytes, what + ": other bits in bf16 than in f32");
          for (int64_t t = 13; t < T; ++t) {
            Value one = row_of(y, t);
            const Value alone = call(row_of(x, t), update(one), row_of(rows, t), narrow);
            report(tally, alone.bytes == row_of(whole, t).bytes, what + ": row " + std::to_string(t) + " alone");
          }
        }
      }
    }
}

// C: inputs
void check_inputs(const Backend& backend, Tally& tally, int64_t C) {
  const bool cpu = backend.name == "cpu";
  const int64_t T = 21, N = 37, R = 3, E = 5;  // a GPU promises it up to 32 rows
  std::vector<int32_t> expert(static_cast<size_t>(T), 1), adapter(static_cast<size_t>(T));  // of each row
  for (size_t t = 0; t < expert.size(); ++t) {
    adapter[t] = static_cast<int32_t>(random_bits(1, t) % 6) - 1;
    if (t < 2) expert[t] = 0;
    if (t + 2 >= expert.size()) expert[t] = t + 1 == expert.size() ? 4 : 3;
  }
  const Value none(nullptr), x = floats({T, C}, 1), dense = floats({N, C}, 2, 1, DType::bf16), A = floats({R, C}, 3),
                             B = floats({N, R}, 4), bias = floats({N}, 5);
  const Value q = bytes_u8({N, C}, 6, 1, 127), q_scales = positive({N, C / 32}, 7, 0.01, 0.02),
              w = bytes_u8({E, N, C / 32, 16}, 8), w_scales = bytes_u8({E, N, C / 32}, 9, 118, 123),
              w_across = floats({E, C, N}, 13, 1, DType::bf16);
  Value q_bf16(DType::bf16, {N, C / 32}, Role::in);
  for (int64_t i = 0; i < q_scales.numel(); ++i) q_bf16.set(i, q_scales.at(i));
  const auto offsets = [&](const std::vector<int32_t>& of) {
    std::vector<int32_t> o(static_cast<size_t>(E) + 1);
    for (int32_t e : of)
      for (int64_t i = e + 1; i <= E; ++i) ++o[static_cast<size_t>(i)];
    return values_i32({E + 1}, o);
  };
  const Value bias_e = floats({E, N}, 10), A_e = floats({E, R, C}, 11), B_e = floats({E, N, R}, 12);
  const Adapters dense_pool = adapters(1, N, C), expert_pool = adapters(E, N, C);
  const auto of_rows = [](const std::vector<int32_t>& a) { return values_i32({static_cast<int64_t>(a.size())}, a); };
  using Rows = std::vector<int32_t>;
  for (const Variant& variant : backend.variants) {
    variant.enter();
    for (int at = 0; at < (cpu ? 4 : 2); ++at) {  // a GPU knows no rows as among many
      const int precision = at % 2, bits = 1 + at / 2;
      const auto linear = [&](const Value& rows, const Value& a, const Value& b, double scale) {
        const int64_t t = rows.tensor.shape[0];
        return run(backend, "linear_fwd",
                   {out({t, N}), a.is_null ? none : out({t, a.tensor.shape[0]}), rows, dense, bias, a, b, scale, 0, 0,
                    precision, bits});
      };
      const auto q8 = [&](const Value& rows) {
        return run(backend, "linear_q8_fwd",
                   {out({rows.tensor.shape[0], N}), none, rows, q, q_bf16, bias, none, none, 1, precision, bits});
      };
      const auto grouped = [&](const Value& rows, const Rows& of, int layout, const Value& a, const Value& b,
                               double scale) {
        const int64_t P = rows.tensor.shape[0];
        return run(backend, "grouped_linear_fwd",
                   {out({P, N}), a.is_null ? none : out({P, a.tensor.shape[1]}), rows, none, offsets(of),
                    layout ? w_across : w, layout ? none : w_scales, bias_e, a, b, scale, layout, precision, bits});
      };
      const auto mixed = [&](const Value& rows, const Rows& of, const Value& pool) {
        return run(backend, "lora_fwd",
                   {update(linear(rows, none, none, 1)), out({rows.tensor.shape[0], 20}), rows, pool, dense_pool.table,
                    dense_pool.scales, of_rows(of), precision});
      };
      const auto mixed_experts = [&](const Value& rows, const Rows& experts, const Rows& of, const Value& pool) {
        return run(backend, "grouped_lora_fwd",
                   {update(grouped(rows, experts, 0, none, none, 1)), out({rows.tensor.shape[0], 20}), rows, none,
                    offsets(experts), pool, expert_pool.table, expert_pool.scales, of_rows(of), precision});
      };
      const auto same = [&](const Value& got, const Value& want, const char* what, int64_t t) {
        report(tally, got.bytes == want.bytes,
               backend.name + " " + variant.name + ": " + what + ", precision " + std::to_string(precision) + ": row " +
                   std::to_string(t) + " has other bits alone than among " + std::to_string(T));
      };
      const Value all[] = {linear(x, A, B, 0.7),
                           q8(x),
                           grouped(x, expert, 0, A_e, B_e, 0.7),
                           cpu ? grouped(x, expert, 2, A_e, B_e, 0.7) : none,
                           mixed(x, adapter, dense_pool.pool),
                           mixed_experts(x, expert, adapter, expert_pool.pool)};
      if (precision) {
        const auto equal = [&](const Value& got, const Value& want, const char* op) {
          report(tally, got.bytes == want.bytes,
                 backend.name + " " + variant.name + ": " + op + ": a pool rounded to bf16 gives other bits");
        };
        equal(mixed(x, adapter, rounded(dense_pool.pool)), all[4], "lora_fwd");
        equal(mixed_experts(x, expert, adapter, rounded(expert_pool.pool)), all[5], "grouped_lora_fwd");
      }
      for (int64_t t = 0; t < T; ++t) {
        const Value one = row_of(x, t);
        const int32_t e = expert[static_cast<size_t>(t)], a = adapter[static_cast<size_t>(t)];
        same(linear(one, A, B, 0.7), row_of(all[0], t), "linear_fwd", t);
        same(q8(one), row_of(all[1], t), "linear_q8_fwd", t);
        same(grouped(one, {e}, 0, A_e, B_e, 0.7), row_of(all[2], t), "grouped_linear_fwd", t);
        if (cpu) same(grouped(one, {e}, 2, A_e, B_e, 0.7), row_of(all[3], t), "grouped_linear_fwd, in×out", t);
        same(mixed(one, {a}, dense_pool.pool), row_of(all[4], t), "lora_fwd", t);
        same(mixed_experts(one, {e}, {a}, expert_pool.pool), row_of(all[5], t), "grouped_lora_fwd", t);
        if (!cpu || a < 0 || bits != 1) continue;
        const double scale = static_cast<double>(dense_pool.scales.f32()[a]);
        same(linear(one, dense_pool.A(a, 1, C), dense_pool.B(a, 1, N), scale), row_of(all[4], t),
             "linear_fwd with the pair that lora_fwd adds", t);
        same(grouped(one, {e}, 0, expert_pool.A(a, E, C), expert_pool.B(a, E, N), scale), row_of(all[5], t),
             "grouped_linear_fwd with the pair that grouped_lora_fwd adds", t);
      }
    }
  }
}

// Dense products of 17 to 32 rows, which a GPU takes together where its shared memory holds them, as of 544 inputs; of
// 5,760 it does not. As many outputs as give a block several tiles.
void check_together(const Backend& backend, Tally& tally) {
  for (const auto& [T, N, C] : {std::array<int64_t, 3>{32, 200, 544}, {25, 216, 544}, {17, 40, 5760}}) {
    const Value none(nullptr), x = floats({T, C}, 1), bias = floats({N}, 5), w = floats({N, C}, 2, 1, DType::bf16),
                               q = bytes_u8({N, C}, 6, 1, 127);
    const Value scales = rounded(positive({N * C / 32}, 7, 0.01, 0.02));
    Value q_scales(DType::bf16, {N, C / 32}, Role::in);
    q_scales.bytes = scales.bytes;
    for (const Variant& variant : backend.variants) {
      variant.enter();
      const auto product = [&](const Value& rows, bool eight) {
        const Value y = out({rows.tensor.shape[0], N});
        return eight ? run(backend, "linear_q8_fwd", {y, none, rows, q, q_scales, bias, none, none, 1, 1, 1})
                     : run(backend, "linear_fwd", {y, none, rows, w, bias, none, none, 1, 0, 0, 1, 1});
      };
      for (const bool eight : {false, true}) {
        const Value all = product(x, eight);
        for (int64_t t = 0; t < T; ++t)
          report(tally, product(row_of(x, t), eight).bytes == row_of(all, t).bytes,
                 backend.name + " " + variant.name + ": " + std::to_string(C) + " inputs in " + (eight ? "8" : "16") +
                     " bits: row " + std::to_string(t) + " has other bits alone than among " + std::to_string(T));
      }
    }
  }
}

}  // namespace

void check_few_rows(const Backend& backend, Tally& tally) {
  if (backend.name != "cpu") check_together(backend, tally);
  if (backend.name == "cpu") check_whole_pairs(backend, tally);
  check_inputs(backend, tally, 2592);
  check_inputs(backend, tally, 160);  // of a small model: sums of short rows are added up together
}

}  // namespace temper::test
