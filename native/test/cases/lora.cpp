// Cases: low-rank pairs of several adapters in one pass. Every mix of rows, ranks that differ, an expert without rows,
// rows without an adapter; tables and rows that name what is not there.
#include <algorithm>
#include <cmath>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr double kBf16Step = 0x1p-7;  // h may round to the neighbouring bf16
constexpr int64_t kUnit = 16;         // elements of a table's offsets

// Σ|a·b| times rounding; y may also be one bf16 step off in h. The scales' magnitudes are those of the table.
Bound pair_sums(double terms, bool rounded) {
  return [=](const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
    Values magnitude = before;
    for (Value& v : magnitude)
      if (v.is_tensor() && (v.tensor.dtype == DType::f32 || v.tensor.dtype == DType::bf16))
        for (int64_t i = 0; i < v.numel(); ++i) v.set(i, std::fabs(v.at(i)));
    magnitude = run_reference(c.op, std::move(magnitude));
    for (size_t a = 0; a < 2; ++a) {
      const Value& v = magnitude[a];
      tolerance[a].resize(static_cast<size_t>(v.numel()));
      for (int64_t i = 0; i < v.numel(); ++i)
        tolerance[a][static_cast<size_t>(i)] = (rounding(terms) + (a == 0 && rounded ? kBf16Step : 0)) * v.at(i);
    }
  };
}

struct Pool {
  Value params, table, scales;
};
// Pairs of these ranks, the last first in memory; rank 0: a row of the table that is not used.
Pool pool_of(const std::vector<int32_t>& ranks, int64_t E, int64_t N, int64_t C, uint64_t seed,
             DType dtype = DType::f32) {
  std::vector<int32_t> table(3 * ranks.size());
  int64_t units = 1;
  for (size_t a = ranks.size(); a-- > 0;) {
    table[3 * a] = static_cast<int32_t>(units);
    units += (E * ranks[a] * C + kUnit - 1) / kUnit;
    table[3 * a + 1] = static_cast<int32_t>(units);
    units += (E * N * ranks[a] + kUnit - 1) / kUnit;
    table[3 * a + 2] = ranks[a];
  }
  const int64_t S = static_cast<int64_t>(ranks.size());
  return {floats({units * kUnit}, seed, 1, dtype), values_i32({S, 3}, table), positive({S}, seed + 1, 0.25, 2)};
}
// h begins as NaN would not do: what no pair writes is undefined, so it is given and compared as it was.
Value untouched(const Shape& shape) { return update(floats(shape, 99)); }

Value mix(int64_t T, int32_t adapters, int kind) {
  std::vector<int32_t> rows(static_cast<size_t>(T));
  for (size_t t = 0; t < rows.size(); ++t)
    rows[t] = kind == 0   ? -1
              : kind == 1 ? adapters - 1
              : kind == 2 ? static_cast<int32_t>(t % static_cast<size_t>(adapters + 1)) - 1
                          : static_cast<int32_t>(random_bits(5, t) % static_cast<uint64_t>(adapters + 1)) - 1;
  return values_i32({T}, rows);
}
const char* const kMixes[] = {"no adapter", "one adapter", "in turns", "at random"};

void dense_cases(Registry& reg) {
  struct Size {
    int64_t T, N, C;
    std::vector<int32_t> ranks;
    bool slow;
  };
  const Size all[] = {{1, 1, 1, {1}, false},         {5, 37, 75, {3, 0, 8}, false},
                      {0, 5, 7, {2}, false},         {16, 66, 130, {8, 1, 4, 5}, false},
                      {23, 530, 96, {16, 2}, false}, {8, 512, 2880, {16, 8, 32}, true}};
  for (const Size& s : all)
    if (!reg.leaves_out(s.slow))
      for (int kind : {0, 1, 2, 3})
        for (int form : {0, 1, 2, 3}) {
          const int precision = form & 1;
          const bool narrow = form > 1;  // the pool
          if (narrow && kind < 3) continue;
          const int32_t S = static_cast<int32_t>(s.ranks.size());
          const int64_t R = *std::max_element(s.ranks.begin(), s.ranks.end()) + (s.T == 5);
          const Pool pool = pool_of(s.ranks, 1, s.N, s.C, 3, narrow ? DType::bf16 : DType::f32);
          reg.check({"lora_fwd",
                     std::to_string(s.T) + "×" + std::to_string(s.C) + "×" + std::to_string(s.N) + ", " + kMixes[kind] +
                         (precision ? ", bf16" : ", f32") + (narrow ? ", pool bf16" : ""),
                     {update(floats({s.T, s.N}, 1)), untouched({s.T, R}), floats({s.T, s.C}, 2), pool.params,
                      pool.table, pool.scales, mix(s.T, S, kind), precision},
                     pair_sums(static_cast<double>(s.C + R), precision != 0),
                     0,
                     0,
                     "",
                     s.slow});
        }
}

void grouped_cases(Registry& reg) {
  struct Size {
    std::vector<int32_t> offsets;
    int64_t N, C;
    std::vector<int32_t> ranks;
    bool gather, slow;
  };
  const Size all[] = {{{0, 1}, 1, 1, {1}, false, false},
                      {{0, 3, 3, 12, 13}, 37, 64, {3, 0, 8}, true, false},
                      {{0, 0, 0}, 5, 8, {2}, true, false},
                      {{0, 14, 20}, 66, 96, {4, 2}, false, false},
                      {{0, 4, 8}, 96, 2880, {16, 4}, true, true}};
  for (const Size& s : all)
    if (!reg.leaves_out(s.slow))
      for (int kind : {0, 1, 2, 3})
        for (int form : {0, 1, 2, 3}) {
          const int precision = form & 1;
          const bool narrow = form > 1;  // the pool
          if (narrow && kind < 3) continue;
          const int32_t S = static_cast<int32_t>(s.ranks.size());
          const int64_t E = static_cast<int64_t>(s.offsets.size()) - 1, P = s.offsets.back(),
                        R = *std::max_element(s.ranks.begin(), s.ranks.end()), X = s.gather ? P / 2 + 3 : P;
          const Pool pool = pool_of(s.ranks, E, s.N, s.C, 4, narrow ? DType::bf16 : DType::f32);
          reg.check({"grouped_lora_fwd",
                     std::to_string(E) + " experts, " + std::to_string(P) + " rows, " + kMixes[kind] +
                         (precision ? ", bf16" : ", f32") + (narrow ? ", pool bf16" : ""),
                     {update(floats({P, s.N}, 1)), untouched({P, R}), floats({X, s.C}, 2),
                      s.gather ? indices({P}, 6, X) : Value(nullptr), values_i32({E + 1}, s.offsets), pool.params,
                      pool.table, pool.scales, mix(P, S, kind), precision},
                     pair_sums(static_cast<double>(s.C + R), precision != 0),
                     0,
                     0,
                     "",
                     s.slow});
        }
}

void hostile_cases(Registry& reg) {
  const Pool good = pool_of({2, 3}, 1, 5, 7, 1);
  const auto bad = [&](const std::string& name, const Value& table, const Value& rows) {
    Case c{"lora_fwd",
           name,
           {update(floats({3, 5}, 1)), untouched({3, 3}), floats({3, 7}, 2), good.params, table, good.scales, rows, 0}};
    c.error = "bad_index";
    reg.check(c);
    Case g{"grouped_lora_fwd",
           name,
           {update(floats({3, 5}, 1)), untouched({3, 3}), floats({3, 7}, 2), nullptr, values_i32({2}, {0, 3}),
            good.params, table, good.scales, rows, 0}};
    g.error = "bad_index";
    reg.check(g);
  };
  const Value rows = values_i32({3}, {0, -1, 1});
  bad("a row of no adapter", good.table, values_i32({3}, {0, 2, 1}));
  bad("a row below none", good.table, values_i32({3}, {-2, 0, 1}));
  const auto with = [&](int64_t at, int32_t x) {
    Value table = good.table;
    table.set(at, x);
    return table;
  };
  bad("A before the pool", with(3, -1), rows);
  bad("A past the pool", with(0, 1000), rows);
  bad("B past the pool by one unit", with(1, static_cast<int32_t>(good.params.numel() / kUnit)), rows);
  bad("an offset that would overflow", with(4, 0x7fffffff), rows);
  bad("a rank above h", with(2, 4), rows);
  bad("a rank below zero", with(5, -1), rows);
  for (const Value& offsets : {values_i32({2}, {0, 2}), values_i32({2}, {1, 3}), values_i32({3}, {0, 4, 3})}) {
    Case c{
        "grouped_lora_fwd",
        "offsets that do not rise from 0 to P",
        {update(floats({3, 5}, 1)), untouched({3, 3}), floats({3, 7}, 2), nullptr, offsets,
         pool_of({2}, offsets.numel() - 1, 5, 7, 1).params, good.table, good.scales, values_i32({3}, {-1, -1, -1}), 0}};
    c.error = "bad_index";
    reg.check(c);
  }
  Case c{"grouped_lora_fwd",
         "x_rows past x",
         {update(floats({3, 5}, 1)), untouched({3, 3}), floats({2, 7}, 2), values_i32({3}, {0, 2, 1}),
          values_i32({2}, {0, 3}), good.params, good.table, good.scales, rows, 0}};
  c.error = "bad_index";
  reg.check(c);
}

const Suite suite{[](Registry& reg) {
  dense_cases(reg);
  grouped_cases(reg);
  hostile_cases(reg);
}};

}  // namespace
}  // namespace temper::test
