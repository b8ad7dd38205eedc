// Cases: linear, grouped linear, fused linear cross-entropy, MXFP4. Integer cases ask for the very bits: every partial
// sum is exact in f32, so forward and transposed products must agree with the reference element by element, whatever
// the order of summation.
#include <algorithm>
#include <cmath>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr double kBf16Step = 0x1p-7;  // an f32 that differs in its last bits may round to the neighbouring bf16

Value integers(const Shape& shape, uint64_t seed, DType dtype = DType::f32) {  // −3 … 3
  Value v(dtype, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i)
    v.set(i, static_cast<double>(random_bits(seed, static_cast<uint64_t>(i)) % 7) - 3);
  return v;
}

// rounding(terms)·Σ|a·b|, by the reference on absolute values; the sign bit of MXFP4 codes is cleared for it. Outputs
// that pass through a rounded intermediate (h, dy·B) may also be one bf16 step off in that factor.
Bound products(double terms, int codes = -1, std::vector<size_t> through_intermediate = {}) {
  return [=](const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
    Values magnitude = before;
    for (size_t a = 0; a < magnitude.size(); ++a) {
      Value& v = magnitude[a];
      if (!v.is_tensor()) {
        if (!v.is_null) v.number = std::fabs(v.number);
        continue;
      }
      if (static_cast<int>(a) == codes && v.tensor.dtype == DType::u8)
        for (uint8_t& byte : v.bytes) byte &= 0x77;
      if (v.tensor.dtype == DType::f32 || v.tensor.dtype == DType::bf16)
        for (int64_t i = 0; i < v.numel(); ++i) v.set(i, std::fabs(v.at(i)));
    }
    magnitude = run_reference(c.op, std::move(magnitude));
    for (size_t a = 0; a < magnitude.size(); ++a) {
      const Value& v = magnitude[a];
      if (!v.is_tensor() || v.role == Role::in) continue;
      double relative = rounding(terms);
      for (size_t through : through_intermediate)
        if (through == a) relative += kBf16Step;
      tolerance[a].resize(static_cast<size_t>(v.numel()));
      for (int64_t i = 0; i < v.numel(); ++i) tolerance[a][static_cast<size_t>(i)] = relative * v.at(i);
    }
  };
}

struct Linear {
  const char* name;
  int64_t T, N, C, R;
  DType w;
  double dropout;
  bool slow;
  bool forward_alone = false;  // what it is about lies in the forward product
};

void linear_cases(Registry& reg) {
  const Linear all[] = {
      {"1×1×1", 1, 1, 1, 0, DType::f32, 0, false},
      {"1 row, ragged", 1, 37, 75, 3, DType::bf16, 0, false},
      {"no rows", 0, 5, 7, 2, DType::f32, 0, false},
      {"ragged, LoRA", 13, 37, 75, 3, DType::bf16, 0, false},
      {"ragged, LoRA, dropout", 13, 37, 75, 3, DType::f32, 0.3, false},
      {"8 rows", 8, 66, 130, 8, DType::bf16, 0, false},
      {"8 rows, f32 weights, LoRA", 8, 21, 128, 5, DType::f32, 0, false},
      {"2 rows, deep: several fillings of k", 2, 19, 5312, 2, DType::bf16, 0, false},
      {"8 rows, deep: several fillings of k", 8, 17, 5000, 0, DType::bf16, 0, false},
      {"4 rows, wide: several tiles of a block", 4, 530, 64, 2, DType::bf16, 0, false},
      {"9 rows", 9, 66, 130, 8, DType::bf16, 0.1, false},
      {"16 rows, several blocks of whole vectors", 16, 75, 1312, 4, DType::bf16, 0, false},
      {"12 rows, one tile", 12, 32, 64, 16, DType::bf16, 0, false},
      {"deep: several blocks of k", 17, 40, 1300, 4, DType::bf16, 0, false},
      {"tall: several blocks of rows", 301, 33, 65, 4, DType::f32, 0, false},
      {"wide: several blocks of columns", 14, 520, 40, 2, DType::bf16, 0, false},
      {"gpt-oss k_proj", 5, 512, 2880, 16, DType::bf16, 0, true},
      {"tiles of 128×192, LoRA of two blocks", 130, 200, 136, 70, DType::bf16, 0, false},
      {"tiles, LoRA, dropout", 130, 200, 72, 4, DType::f32, 0.2, false},
      {"narrow, rank 1", 66, 35, 137, 1, DType::bf16, 0, false},
      {"narrow, rank 3, dropout", 70, 72, 100, 3, DType::bf16, 0.3, false},
      {"narrow, rank 16, k of several rounds, rows in parts", 290, 24, 584, 16, DType::bf16, 0, false},
      {"narrow, rank 32", 70, 40, 130, 32, DType::bf16, 0, false},
      {"narrow, rank 64, dropout", 66, 68, 72, 64, DType::f32, 0.2, false},
      {"tiles, k in parts", 20, 40, 2100, 5, DType::bf16, 0, false},
      // just what the rule for a long k asks for: more than 64 rows, 96 columns, 128 blocks of k; the last part short
      {"tiles, long k in parts", 65, 97, 8200, 0, DType::bf16, 0, true, true},
  };
  for (const Linear& s : all)
    if (!reg.leaves_out(s.slow))
      for (int precision : {0, 1}) {
        const std::string name = std::string(s.name) + (precision ? ", bf16" : ", f32");
        const bool lora = s.R > 0;
        const double terms = static_cast<double>(s.C + s.R);
        const Value x = floats({s.T, s.C}, 1), w = floats({s.N, s.C}, 2, 1, s.w), bias = floats({s.N}, 3, 1, s.w),
                    dy = floats({s.T, s.N}, 6);
        const Value A = lora ? floats({s.R, s.C}, 4) : Value(nullptr),
                    B = lora ? floats({s.N, s.R}, 5) : Value(nullptr);
        std::vector<size_t> rounded_y, rounded_bwd;
        if (precision && lora) rounded_y = {0}, rounded_bwd = {0, 3};
        for (int by_row : {0, 1}) {
          if (by_row && (s.T <= 8 || s.T > 20)) continue;
          reg.check({"linear_fwd",
                     name + (by_row ? ", by row" : ""),
                     {out({s.T, s.N}), lora ? out({s.T, s.R}) : Value(nullptr), x, w, bias, A, B, 0.7, s.dropout, 11,
                      precision, by_row},
                     products(terms, -1, rounded_y),
                     0,
                     0,
                     "",
                     s.slow});
        }
        for (int accumulate : {0, 1}) {
          if (s.forward_alone) continue;
          const Value dx = accumulate ? update(floats({s.T, s.C}, 7)) : out({s.T, s.C});
          reg.check(
              {"linear_bwd",
               name + (accumulate ? ", dx added" : ""),
               {dx, update(floats({s.N, s.C}, 8)), update(floats({s.N}, 9)),
                lora ? update(floats({s.R, s.C}, 10)) : Value(nullptr),
                lora ? update(floats({s.N, s.R}, 11)) : Value(nullptr), dy, x,
                lora ? floats({s.T, s.R}, 12) : Value(nullptr), w, A, B, 0.7, s.dropout, 11, accumulate, precision},
               products(static_cast<double>(s.T + s.N + s.R), -1, rounded_bwd),
               0,
               0,
               "",
               s.slow});
        }
      }
  for (int precision : {0, 1}) {
    reg.check({"linear_fwd",
               "integers, to the bit",
               {out({25, 45}), nullptr, integers({25, 130}, 1), integers({45, 130}, 2, DType::bf16), integers({45}, 3),
                nullptr, nullptr, 1, 0, 0, precision, 0}});
    reg.check({"linear_fwd",
               "integers, 3 rows, to the bit",
               {out({3, 45}), nullptr, integers({3, 130}, 1), integers({45, 130}, 2, DType::bf16), nullptr, nullptr,
                nullptr, 1, 0, 0, precision, 0}});
    reg.check({"linear_bwd",
               "integers, to the bit",
               {out({25, 130}), update(integers({45, 130}, 4)), update(integers({45}, 5)), nullptr, nullptr,
                integers({25, 45}, 6), integers({25, 130}, 1), nullptr, integers({45, 130}, 2, DType::bf16), nullptr,
                nullptr, 1, 0, 0, 0, precision}});
  }
  reg.check({"linear_bwd",
             "nothing but dA",
             {nullptr, nullptr, nullptr, update(floats({3, 40}, 1)), nullptr, floats({9, 21}, 2), floats({9, 40}, 3),
              floats({9, 3}, 4), floats({21, 40}, 5), floats({3, 40}, 6), floats({21, 3}, 7), 0.5, 0, 0, 0, 0},
             products(30)});
  for (double dropout : {0.0, 0.4})
    reg.grad({"linear_bwd",
              dropout > 0 ? "LoRA, dropout" : "LoRA",
              "linear_fwd",
              {out({5, 7}), out({5, 3}), smooth({5, 9}, 1), smooth({7, 9}, 2), smooth({7}, 3), smooth({3, 9}, 4),
               smooth({7, 3}, 5), 0.7, dropout, 3, 0, 0},
              {0},
              {{2, 0}, {3, 1}, {4, 2}, {5, 3}, {6, 4}},
              [dropout](const Values& after, const Values& upstream) -> Values {
                return {out({5, 9}),
                        update(Value(DType::f32, {7, 9}, Role::in)),
                        update(Value(DType::f32, {7}, Role::in)),
                        update(Value(DType::f32, {3, 9}, Role::in)),
                        update(Value(DType::f32, {7, 3}, Role::in)),
                        upstream[0],
                        after[2],
                        after[1],
                        after[3],
                        after[5],
                        after[6],
                        0.7,
                        dropout,
                        3,
                        0,
                        0};
              }});
  if (!reg.for_bench) return;
  const auto bench = [&](const std::string& name, int64_t T, int64_t N, int64_t C, int precision) {
    const double flops = 2.0 * static_cast<double>(T * N * C), weight_bytes = 2.0 * static_cast<double>(N * C);
    const Value x = smooth({T, C}, 1), w = smooth({N, C}, 2, 0.02, DType::bf16);
    Case fwd{"linear_fwd", name, {out({T, N}), nullptr, x, w, nullptr, nullptr, nullptr, 1, 0, 0, precision, 0}};
    fwd.bench_only = true;
    fwd.bf16_products = precision == 1;
    if (T > 8) fwd.flops = flops;
    else fwd.bytes = weight_bytes;
    reg.check(fwd);
    if (T <= 8) return;
    Case bwd{"linear_bwd",
             name,
             {out({T, C}), nullptr, nullptr, nullptr, nullptr, smooth({T, N}, 3), x, nullptr, w, nullptr, nullptr, 1, 0,
              0, 0, precision}};
    bwd.bench_only = true;
    bwd.bf16_products = precision == 1;
    bwd.flops = flops;
    reg.check(bwd);
  };
  for (int64_t T : {1, 66, 132, 512}) bench("q_proj, " + std::to_string(T) + " rows, bf16", T, 4096, 2880, 1);
  bench("q_proj, 132 rows, f32", 132, 4096, 2880, 0);
  bench("nano, 64 rows, bf16", 64, 128, 128, 1);
}

// offsets from the rows of each expert.
Value offsets_of(const std::vector<int64_t>& rows) {
  std::vector<int32_t> offsets{0};
  for (int64_t r : rows) offsets.push_back(offsets.back() + static_cast<int32_t>(r));
  return values_i32({static_cast<int64_t>(offsets.size())}, offsets);
}

struct Grouped {
  const char* name;
  std::vector<int64_t> rows;
  int64_t N, C, R;
  bool gather;
  int scale_low = 120, scale_high = 128;
  double x = 1;
  bool slow = false;
};

void grouped_cases(Registry& reg) {
  const Grouped all[] = {
      {"E=5, empty experts, LoRA, gathered", {0, 14, 1, 0, 30}, 37, 64, 3, true},
      {"E=5, no LoRA", {3, 0, 25, 2, 0}, 66, 96, 0, false},
      {"no rows at all", {0, 0}, 5, 32, 2, true},
      {"one row each", {1, 1, 0, 1}, 129, 160, 16, true},
      {"E=40, 8 tokens at most",
       {0, 1, 0, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 1, 0, 0, 1, 0, 0, 0, 3},
       33,
       128,
       4,
       true},
      {"few rows, 9 and 17 of one expert", {9, 0, 17}, 40, 3104, 2, true},
      {"skewed: several blocks of rows", {270, 2, 13}, 34, 32, 4, false},
      {"deep: several blocks of k", {15, 3}, 550, 1184, 4, true},
      {"scales at the lower end", {13, 4}, 33, 64, 0, false, 2, 9, 0x1p110},
      {"scales at the upper end", {13, 4}, 33, 64, 0, false, 246, 252, 0x1p-110},
      {"gpt-oss down_proj rows", {4, 30}, 96, 2880, 16, true, 118, 123, 1, true},
      {"tiles of 128×192, LoRA of two blocks", {140, 0, 131}, 200, 160, 66, true},
      {"register tiles, a tail of more and of less than half", {140, 0, 131, 70}, 320, 128, 16, true},
      {"register tiles, LoRA of two blocks, scales of both kinds", {130, 66}, 64, 192, 66, false, 125, 132},
      {"register tiles, all scales of the wide kind", {3, 65}, 576, 64, 0, true, 130, 140},
      {"narrow, rank 1, empty experts, gathered", {0, 66, 0, 1, 20}, 35, 96, 1, true},
      {"narrow, rank 8", {70, 0, 15}, 68, 64, 8, false},
      {"narrow, rank 32, gathered", {5, 80}, 40, 96, 32, true},
      {"narrow, rank 64, gathered", {70, 3}, 36, 160, 64, true},
      {"tiles, all rows in one expert", {0, 70, 0, 0}, 40, 96, 4, true},
      {"tiles, k over many rows", {10, 300}, 72, 160, 4, false},
  };
  for (const Grouped& s : all)
    if (!reg.leaves_out(s.slow))
      for (int layout : {0, 1, 2})
        for (int precision : {0, 1}) {
          if (layout != 0 && s.scale_low != 120) continue;
          const std::string name =
              std::string(s.name) + ", layout " + std::to_string(layout) + (precision ? ", bf16" : ", f32");
          int64_t P = 0;
          const int64_t E = static_cast<int64_t>(s.rows.size());
          for (int64_t r : s.rows) P += r;
          const bool lora = s.R > 0;
          const int64_t X = s.gather ? P / 2 + 3 : P, C = layout == 0 ? s.C : s.C - 3;
          const DType dtype = layout == 1 ? DType::bf16 : DType::f32;
          const Value offsets = offsets_of(s.rows), x = floats({X, C}, 1, s.x), dy = floats({X, s.N}, 2, s.x),
                      none(nullptr);
          const Value w = layout == 0 ? bytes_u8({E, s.N, C / 32, 16}, 3)
                                      : floats(layout == 1 ? Shape{E, s.N, C} : Shape{E, C, s.N}, 3, 1, dtype);
          const Value scales = layout == 0 ? bytes_u8({E, s.N, C / 32}, 4, s.scale_low, s.scale_high) : none;
          const Value A = lora ? floats({E, s.R, C}, 5) : none, B = lora ? floats({E, s.N, s.R}, 6) : none,
                      bias = floats({E, s.N}, 7, 1, DType::bf16);
          const Value rows = s.gather ? indices({P}, 8, X) : none, rows2 = s.gather ? indices({P}, 9, X) : none;
          std::vector<size_t> rounded_y, rounded_bwd;
          // r goes with rg or with h: two operands of dB round elsewhere
          if (precision && lora) rounded_y = {0}, rounded_bwd = {0, 3, 4, 4};
          const int64_t most = *std::max_element(s.rows.begin(), s.rows.end());
          for (int by_row : {0, 1}) {
            if (by_row && (most <= 8 || most > 30)) continue;
            reg.check({"grouped_linear_fwd",
                       name + (by_row ? ", by row" : ""),
                       {out({P, s.N}), lora ? out({P, s.R}) : none, x, rows, offsets, w, scales, bias, A, B, 0.7,
                        layout, precision, by_row},
                       products(static_cast<double>(C + s.R), 5, rounded_y),
                       0,
                       0,
                       "",
                       s.slow});
          }
          reg.check({"grouped_linear_bwd",
                     name,
                     {out({P, C}), update(floats({E, s.N, C}, 10)), update(floats({E, s.N}, 11)),
                      lora ? update(floats({E, s.R, C}, 12)) : none, lora ? update(floats({E, s.N, s.R}, 13)) : none,
                      dy, rows2, floats({P}, 14), floats({X, C}, 1), rows, lora ? floats({P, s.R}, 15) : none, offsets,
                      w, scales, A, B, 0.7, layout, precision},
                     products(static_cast<double>(P + s.N + s.R), 12, rounded_bwd),
                     0,
                     0,
                     "",
                     s.slow});
        }
  // Scale 127 ± 1 and small integers: every product is a multiple of 1/4, every sum exact.
  for (int precision : {0, 1})
    for (const std::vector<int64_t>& rows : {std::vector<int64_t>{13, 25}, std::vector<int64_t>{1, 3}}) {
      const int64_t P = rows[0] + rows[1];
      const Value w = bytes_u8({2, 45, 5, 16}, 1), scales = bytes_u8({2, 45, 5}, 2, 126, 128),
                  offsets = offsets_of(rows);
      reg.check({"grouped_linear_fwd",
                 "integers, to the bit",
                 {out({P, 45}), nullptr, integers({P, 160}, 3), nullptr, offsets, w, scales, nullptr, nullptr, nullptr,
                  1, 0, precision, 0}});
      reg.check({"grouped_linear_bwd",
                 "integers, to the bit",
                 {out({P, 160}), update(integers({2, 45, 160}, 4)), update(integers({2, 45}, 5)), nullptr, nullptr,
                  integers({P, 45}, 6), nullptr, integers({P}, 7), integers({P, 160}, 3), nullptr, nullptr, offsets, w,
                  scales, nullptr, nullptr, 1, 0, precision}});
    }
  // Every code under every scale: 8 rows that pick one column each, so that an output is one decoded weight, to the
  // bit. Weight row n has scale n; where 6·2^(n−127) leaves the range of f32, its codes stay below 2.
  for (int64_t at = 0; at < 8; ++at) {
    const int64_t precision = at % 2, half = at / 2 % 2, groups = at / 4 ? 17 : 1, C = 32 * groups;
    Value w(DType::u8, {1, 255, groups, 16}, Role::in), scales(DType::u8, {1, 255, groups}, Role::in),
        pick(DType::f32, {8, C}, Role::in);
    for (int64_t n = 0; n < 255; ++n)
      for (int64_t g = 0; g < groups; ++g) {
        scales.set(n * groups + g, static_cast<double>(n));
        for (int64_t j = 0; j < 16; ++j) {
          const int64_t low = (2 * j) % 16, high = (2 * j + 1) % 16, mask = n > 252 ? 0xb : 0xf;
          w.set((n * groups + g) * 16 + j, static_cast<double>((low & mask) | (high & mask) << 4));
        }
      }
    for (int64_t t = 0; t < 8; ++t) pick.set(t * C + half * (C - 8) + t, 1);
    reg.check({"grouped_linear_fwd",
               "16 codes × 255 scales, " + std::to_string(C) + " inputs, to the bit",
               {out({8, 255}), nullptr, pick, nullptr, offsets_of({8}), w, scales, nullptr, nullptr, nullptr, 1, 0,
                precision, 0}});
  }
  {
    const Value w = floats({2, 5, 32}, 1), x = floats({4, 32}, 2), none(nullptr);
    const auto bad = [&](const std::string& name, const Value& rows, const Value& offsets) {
      Case c{"grouped_linear_fwd", name, {out({4, 5}), none, x, rows, offsets, w, none, none, none, none, 1, 1, 0, 0}};
      c.error = "bad_index";
      reg.check(c);
      Case b{"grouped_linear_bwd",
             name,
             {out({4, 32}), none, none, none, none, floats({4, 5}, 3), rows, none, x, none, none, offsets, w, none,
              none, none, 1, 1, 0}};
      b.error = "bad_index";
      reg.check(b);
    };
    bad("row beyond x", values_i32({4}, {0, 1, 4, 0}), offsets_of({2, 2}));
    bad("negative row", values_i32({4}, {0, -1, 2, 0}), offsets_of({2, 2}));
    bad("offsets fall", none, values_i32({3}, {0, 5, 4}));
    bad("offsets end early", none, values_i32({3}, {0, 1, 3}));
    bad("offsets start late", none, values_i32({3}, {1, 2, 4}));
  }
  for (int layout : {0, 1, 2}) {
    const Value none(nullptr);
    const Shape shape = layout == 2 ? Shape{3, 32, 7} : Shape{3, 7, 32};
    const Value w = layout == 0 ? bytes_u8({3, 7, 1, 16}, 1) : smooth(shape, 1),
                scales = layout == 0 ? bytes_u8({3, 7, 1}, 2, 125, 128) : none;
    std::vector<GradPair> pairs{{2, 0}, {7, 2}, {8, 3}, {9, 4}};
    if (layout == 1) pairs.push_back({5, 1});
    // Row weights are powers of two and the upstream gradient is divided by them, so parameter gradients must be the
    // plain ones.
    reg.grad({"grouped_linear_bwd",
              "layout " + std::to_string(layout),
              "grouped_linear_fwd",
              {out({6, 7}), out({6, 2}), smooth({6, 32}, 3), none, offsets_of({2, 0, 4}), w, scales, smooth({3, 7}, 4),
               smooth({3, 2, 32}, 5), smooth({3, 7, 2}, 6), 0.7, layout, 0, 0},
              {0},
              pairs,
              [layout](const Values& after, const Values& upstream) -> Values {
                const bool with_weights = layout == 0;
                return {out({6, 32}),
                        update(Value(DType::f32, {3, 7, 32}, Role::in)),
                        update(Value(DType::f32, {3, 7}, Role::in)),
                        update(Value(DType::f32, {3, 2, 32}, Role::in)),
                        update(Value(DType::f32, {3, 7, 2}, Role::in)),
                        upstream[0],
                        nullptr,
                        with_weights ? values_f32({6}, {1, 1, 1, 1, 1, 1}) : Value(nullptr),
                        after[2],
                        nullptr,
                        after[1],
                        after[4],
                        after[5],
                        after[6],
                        after[8],
                        after[9],
                        0.7,
                        layout,
                        0};
              }});
  }
  reg.grad({"grouped_linear_bwd",
            "row weights",
            "grouped_linear_fwd",
            {out({6, 7}), out({6, 2}), smooth({6, 32}, 3), nullptr, offsets_of({2, 0, 4}), smooth({3, 7, 32}, 1),
             nullptr, smooth({3, 7}, 4), smooth({3, 2, 32}, 5), smooth({3, 7, 2}, 6), 0.7, 1, 0, 0},
            {0},
            {{5, 1}, {7, 2}, {8, 3}, {9, 4}},
            [](const Values& after, const Values& upstream) -> Values {
              const std::vector<float> weight{0.5f, 2, 1, 0.25f, 4, 1};
              Value dy = upstream[0];
              for (int64_t i = 0; i < dy.numel(); ++i) dy.set(i, dy.at(i) / weight[static_cast<size_t>(i / 7)]);
              return {out({6, 32}),
                      update(Value(DType::f32, {3, 7, 32}, Role::in)),
                      update(Value(DType::f32, {3, 7}, Role::in)),
                      update(Value(DType::f32, {3, 2, 32}, Role::in)),
                      update(Value(DType::f32, {3, 7, 2}, Role::in)),
                      dy,
                      nullptr,
                      values_f32({6}, weight),
                      after[2],
                      nullptr,
                      after[1],
                      after[4],
                      after[5],
                      nullptr,
                      after[8],
                      after[9],
                      0.7,
                      1,
                      0};
            }});
  if (!reg.for_bench) return;
  for (int64_t rows : {1, 66, 132, 512}) {  // of one expert of gpt-oss's gate_up
    const int64_t N = 5760, C = 2880, E = rows == 1 ? 8 : 1, P = rows * E;
    const Value w = bytes_u8({E, N, C / 32, 16}, 1), scales = bytes_u8({E, N, C / 32}, 2, 118, 122),
                offsets = offsets_of(std::vector<int64_t>(static_cast<size_t>(E), rows)), none(nullptr);
    const std::string name =
        "MXFP4 gate_up, " + std::to_string(rows) + (rows == 1 ? " row of each of 8 experts" : " rows");
    Case fwd{"grouped_linear_fwd",
             name,
             {out({P, N}), none, smooth({P, C}, 3), none, offsets, w, scales, none, none, none, 1, 0, 1, 0}};
    Case bwd{"grouped_linear_bwd",
             name,
             {out({P, C}), none, none, none, none, smooth({P, N}, 4), none, none, smooth({P, C}, 3), none, none,
              offsets, w, scales, none, none, 1, 0, 1}};
    fwd.bench_only = bwd.bench_only = fwd.bf16_products = bwd.bf16_products = true;
    if (rows == 1) {
      fwd.bytes = static_cast<double>(E * N * C) * 17 / 32;
      reg.check(fwd);
      continue;
    }
    fwd.flops = bwd.flops = 2.0 * static_cast<double>(P * N * C);
    reg.check(fwd);
    reg.check(bwd);
  }
}

// A logit is off by rounding(D)·Σ|x·w| at most; the largest of a row carries over to its loss and, times p, to its
// gradients.
void cross_entropy_bound(const Case& c, const Values& a, const Values&, Tolerance& tol) {
  const int64_t S = a[3].tensor.shape[0], D = a[3].tensor.shape[1], V = a[4].tensor.shape[0];
  const bool bf16 = a[7].number != 0;
  std::vector<double> logits(static_cast<size_t>(V));
  tol[0].assign(static_cast<size_t>(S), 0);
  if (a[1].is_tensor()) tol[1].assign(static_cast<size_t>(S * D), 0);
  if (a[2].is_tensor()) {
    tol[2].resize(static_cast<size_t>(V * D));
    for (int64_t i = 0; i < V * D; ++i)
      tol[2][static_cast<size_t>(i)] = rounding(static_cast<double>(S)) * std::fabs(a[2].at(i));
  }
  for (int64_t s = 0; s < S; ++s) {
    double slack = 0, peak = -INFINITY, total = 0;
    for (int64_t v = 0; v < V; ++v) {
      double sum = 0, magnitude = 0;
      for (int64_t d = 0; d < D; ++d) {
        const double product = a[3].at(s * D + d) * a[4].at(v * D + d);
        sum += product;
        magnitude += std::fabs(product);
      }
      logits[static_cast<size_t>(v)] = sum;
      peak = std::fmax(peak, sum);
      slack = std::fmax(slack, rounding(static_cast<double>(D)) * magnitude);
    }
    for (double l : logits) total += std::exp(l - peak);
    const int64_t target = static_cast<int64_t>(a[5].at(s));
    const double lse = peak + std::log(total), nll = lse - logits[static_cast<size_t>(target)],
                 weight = a[6].is_tensor() ? a[6].at(s) : 1;
    tol[0][static_cast<size_t>(s)] = 2 * slack + 8 * kUnit * (1 + std::fabs(nll) + std::fabs(peak));
    const double off = 2 * slack + (16 + std::fabs(peak)) * kUnit;
    // bf16: operands were rounded above, so p itself may differ from the estimate here; a factor of two covers it.
    for (int64_t v = 0; v < V; ++v) {
      const double p = std::exp(logits[static_cast<size_t>(v)] - lse), g = std::fabs(weight) * (p + (v == target));
      const double error = (bf16 ? 2 : 1) * (std::fabs(weight) * p * off +
                                             (rounding(static_cast<double>(V)) + (bf16 ? kBf16Step : 0)) * g);
      for (int64_t d = 0; d < D; ++d) {
        if (!tol[1].empty()) tol[1][static_cast<size_t>(s * D + d)] += error * std::fabs(a[4].at(v * D + d));
        if (!tol[2].empty()) tol[2][static_cast<size_t>(v * D + d)] += error * std::fabs(a[3].at(s * D + d));
      }
    }
  }
  (void)c;
}

void cross_entropy_cases(Registry& reg) {
  struct Size {
    const char* name;
    int64_t S, V, D;
    DType w;
    double scale;
    bool gradients, slow;
  };
  const Size all[] = {{"1×1×1", 1, 1, 1, DType::f32, 1, true, false},
                      {"ragged", 7, 53, 35, DType::bf16, 0.3, true, false},
                      {"no rows", 0, 5, 3, DType::f32, 1, true, false},
                      {"large logits", 9, 100, 32, DType::f32, 4, true, false},
                      {"nano vocabulary", 40, 1536, 128, DType::bf16, 0.1, true, true},
                      {"loss only", 21, 333, 64, DType::bf16, 0.2, false, false},
                      {"tiles, long k in parts", 70, 2100, 100, DType::bf16, 0.1, true, false},
                      {"more rows than a chunk", 2100, 3, 2, DType::f32, 1, true, true}};
  for (const Size& s : all)
    if (!reg.leaves_out(s.slow))
      for (int precision : {0, 1})
        reg.check({"linear_cross_entropy",
                   std::string(s.name) + (precision ? ", bf16" : ", f32"),
                   {out({s.S}), s.gradients ? out({s.S, s.D}) : Value(nullptr),
                    s.gradients ? update(smooth({s.V, s.D}, 1)) : Value(nullptr), smooth({s.S, s.D}, 2, s.scale),
                    smooth({s.V, s.D}, 3, 1, s.w), indices({s.S}, 4, s.V),
                    s.gradients ? positive({s.S}, 5, 0, 2) : Value(nullptr), precision},
                   cross_entropy_bound,
                   0,
                   0,
                   "",
                   s.slow});
  for (int32_t target : {-1, 6}) {
    Case c{
        "linear_cross_entropy",
        "target out of range",
        {out({2}), nullptr, nullptr, smooth({2, 4}, 1), smooth({6, 4}, 2), values_i32({2}, {0, target}), nullptr, 0}};
    c.error = "bad_index";
    reg.check(c);
  }
  reg.grad(
      {"linear_cross_entropy",
       "x and w",
       "linear_cross_entropy",
       {out({4}), nullptr, nullptr, smooth({4, 9}, 1, 0.5), smooth({11, 9}, 2, 0.5), indices({4}, 3, 11), nullptr, 0},
       {0},
       {{3, 1}, {4, 2}},
       [](const Values& after, const Values& upstream) -> Values {
         return {out({4}),
                 out({4, 9}),
                 update(Value(DType::f32, {11, 9}, Role::in)),
                 after[3],
                 after[4],
                 after[5],
                 upstream[0],
                 0};
       }});
  if (!reg.for_bench) return;
  Case bench{"linear_cross_entropy",
             "64 rows, 20000 words, loss and dx",
             {out({64}), out({64, 2880}), nullptr, smooth({64, 2880}, 1), smooth({20000, 2880}, 2, 0.02, DType::bf16),
              indices({64}, 3, 20000), nullptr, 1}};
  bench.bench_only = bench.bf16_products = true;
  bench.flops = 4.0 * 64 * 20000 * 2880;
  reg.check(bench);
}

void mxfp4_cases(Registry& reg) {
  // Every code in every position of a byte (256 bytes = 16 groups) under every scale there is.
  Value blocks(DType::u8, {255, 16, 16}, Role::in), scales(DType::u8, {255, 16}, Role::in);
  for (int64_t s = 0; s < 255; ++s)
    for (int64_t b = 0; b < 256; ++b) {
      blocks.set(s * 256 + b, static_cast<double>(b));
      scales.set(s * 16 + b / 16, static_cast<double>(s));
    }
  for (DType dtype : {DType::f32, DType::bf16})
    reg.check({"mxfp4_dequantize", "16 codes × 255 scales, to the bit", {out({255, 512}, dtype), blocks, scales}});
  Case nan{"mxfp4_dequantize", "scale 255", {out({1, 32}), bytes_u8({1, 1, 16}, 1), values_i32({1}, {0})}};
  nan.args[2] = bytes_u8({1, 1}, 1, 255, 255);
  nan.error = "bad_scale";
  reg.check(nan);
  const auto quantize = [&](const std::string& name, const Value& w) {
    const Tensor& t = w.tensor;
    reg.check({"mxfp4_quantize",
               name,
               {out({t.shape[0], t.shape[1] / 32, 16}, DType::u8), out({t.shape[0], t.shape[1] / 32}, DType::u8), w}});
  };
  quantize("f32", floats({9, 96}, 1));
  quantize("bf16", floats({9, 96}, 1, 0.02, DType::bf16));
  quantize("tiny", floats({3, 64}, 2, 0x1p-126));
  quantize("huge", smooth({3, 64}, 3, 0x1p124));
  Value ties(DType::f32, {64, 32}, Role::in), zeros(DType::f32, {1, 32}, Role::in);
  // multiples of 1/8 of the scale: every halfway point and saturation, under many scales
  for (int64_t i = 0; i < ties.numel(); ++i)
    ties.set(i, std::ldexp(static_cast<double>(random_bits(4, static_cast<uint64_t>(i)) % 127) - 63,
                           static_cast<int>(i / 32) - 40));
  quantize("ties and saturation", ties);
  quantize("zeros", zeros);
  for (double x : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    Value w = floats({1, 64}, 5);
    w.set(40, x);
    Case c{"mxfp4_quantize", "not finite", {out({1, 2, 16}, DType::u8), out({1, 2}, DType::u8), w}};
    c.error = "not_finite";
    reg.check(c);
  }
}

const Suite suite{[](Registry& reg) {
  linear_cases(reg);
  grouped_cases(reg);
  cross_entropy_cases(reg);
  mxfp4_cases(reg);
}};

}  // namespace
}  // namespace temper::test
