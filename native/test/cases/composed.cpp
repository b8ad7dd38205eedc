// Cases: the ops that are several others in one. That they give the bits of those is checks/composed.cpp's to say; here
// they are held to the reference like any op, with shapes that a kernel of their own takes and shapes that it leaves.
#include <cmath>
#include <cstdlib>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr double kBf16Step = 0x1p-7, kAlpha = 1.702, kLimit = 7;

// A weight of 8 bits has no −128; the four dimensions of MXFP4 blocks tell them from their scales.
Values magnitudes(Values args) {
  for (Value& v : args) {
    if (!v.is_tensor()) continue;
    if (v.tensor.dtype == DType::u8 && v.tensor.ndim == 4)
      for (uint8_t& b : v.bytes) b &= 0x77;
    else if (v.tensor.dtype == DType::u8 && v.tensor.ndim == 2)
      for (uint8_t& b : v.bytes) b = static_cast<uint8_t>(std::abs(static_cast<int8_t>(b)));
    else if (v.tensor.dtype == DType::f32 || v.tensor.dtype == DType::bf16)
      for (int64_t i = 0; i < v.numel(); ++i) v.set(i, std::fabs(v.at(i)));
  }
  return args;
}

enum Qkv { kX = 3, kNorm, kEps, kWq, kCos = 15, kSin, kRows, kPrecision };
void qkv_bound(const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
  const double D = static_cast<double>(c.args[kX].tensor.shape[1]);
  // Σ|w·x| of what is multiplied by the cosine, and of what is by the sine
  Values straight = magnitudes(before), across = straight;
  for (int64_t i = 0; i < straight[kSin].numel(); ++i) straight[kSin].set(i, 0), across[kCos].set(i, 0);
  straight = run_reference(c.op, straight), across = run_reference(c.op, across);
  for (size_t a = 0; a < 3; ++a) {
    const Value& v = straight[a];
    double part = rounding(D + 16) + (precision_of(c) != 0 ? kBf16Step : 0);
    if (v.tensor.dtype == DType::bf16) part += kBf16Step;
    tolerance[a].resize(static_cast<size_t>(v.numel()));
    for (int64_t i = 0; i < v.numel(); ++i)
      tolerance[a][static_cast<size_t>(i)] = part * (std::fabs(v.at(i)) + std::fabs(across[a].at(i)));
  }
}

struct Heads {
  const char* name;
  int64_t T, H, Hkv, Dh, D;
};
void qkv_cases(Registry& r) {
  const Heads all[] = {{"smallest", 1, 1, 1, 2, 1},         {"odd", 3, 3, 1, 6, 37},
                       {"one token", 1, 4, 2, 32, 64},      {"a pass", 8, 2, 1, 16, 96},
                       {"three passes", 19, 4, 2, 32, 352}, {"no tokens", 0, 2, 1, 16, 32}};
  for (const Heads& s : all)
    for (const DType kv : {DType::f32, DType::bf16})
      for (const int precision : {0, 1})
        for (const bool q8 : {false, true}) {
          if (q8 && s.D % 32 != 0) continue;
          const int64_t S = s.T + 3, J = s.Dh / 2, N = s.H * s.Dh, M = s.Hkv * s.Dh, G = s.D / 32;
          std::vector<int32_t> rows;
          for (int64_t t = 0; t < s.T; ++t) rows.push_back(static_cast<int32_t>((t * 5 + 1) % S));
          if (S % 5 == 0)
            for (int64_t t = 0; t < s.T; ++t) rows[static_cast<size_t>(t)] = static_cast<int32_t>(S - 1 - t);
          const auto weight = [&](int64_t n, uint64_t seed) {
            return q8 ? bytes_u8({n, s.D}, seed, 1, 127) : floats({n, s.D}, seed, 0.5, DType::bf16);
          };
          const auto scales = [&](int64_t n, uint64_t seed) {
            return q8 ? smooth({n, G}, seed, 0.01, DType::bf16) : Value(nullptr);
          };
          r.check({.op = "linear_qkv_fwd",
                   .name = std::string(s.name) + (kv == DType::bf16 ? ", keys bf16" : "") + (q8 ? ", q8" : "") +
                           (precision ? ", bf16" : ", f32"),
                   .args = {out({s.T, s.H, s.Dh}), update(floats({S, s.Hkv, s.Dh}, 1, 1, kv)),
                            update(floats({S, s.Hkv, s.Dh}, 2, 1, kv)), floats({s.T, s.D}, 3), floats({s.D}, 4, 1, kv),
                            1e-5, weight(N, 5), scales(N, 6), floats({N}, 7, 1, DType::bf16), weight(M, 8),
                            scales(M, 9), floats({M}, 10), weight(M, 11), scales(M, 12), nullptr, floats({s.T, J}, 13),
                            floats({s.T, J}, 14), values_i32({s.T}, rows), precision},
                   .bound = qkv_bound});
        }
  for (const auto& [name, rows] :
       {std::pair{"row below", std::vector<int32_t>{0, -1}}, {"row beyond", {7, 1}}, {"row twice", {2, 2}}})
    for (const int64_t D : {32, 37})
      r.check({.op = "linear_qkv_fwd",
               .name = std::string(name) + ", " + std::to_string(D) + " wide",
               .args = {out({2, 1, 16}), update(floats({7, 1, 16}, 1)), update(floats({7, 1, 16}, 2)),
                        floats({2, D}, 3), floats({D}, 4), 1e-5, floats({16, D}, 5, 1, DType::bf16), nullptr, nullptr,
                        floats({16, D}, 6, 1, DType::bf16), nullptr, nullptr, floats({16, D}, 7, 1, DType::bf16),
                        nullptr, nullptr, floats({2, 8}, 8), floats({2, 8}, 9), values_i32({2}, rows), 1},
               .error = "bad_index"});
}

// What is chosen must be the same, and so must the plan; the softmax is as near as the logits are.
void router_bound(const Case& c, const Values&, const Values& want, Tolerance& tolerance) {
  const double D = static_cast<double>(want[1].tensor.shape[1]);
  for (const size_t a : {0, 1, 2, 7}) {
    const double part = a == 0 ? kUnit : a == 1 ? rounding(D) : precision_of(c) != 0 ? 0.05 : 1e-4;
    tolerance[a].resize(static_cast<size_t>(want[a].numel()));
    for (int64_t i = 0; i < want[a].numel(); ++i)
      tolerance[a][static_cast<size_t>(i)] = part * std::fabs(want[a].at(i)) + (a > 1 ? part : 0);
  }
}
void router_cases(Registry& r) {
  struct Size {
    int64_t T, D, E, K;
  };
  for (const auto& [T, D, E, K] : {Size{1, 1, 1, 1},
                                   {2, 37, 5, 2},
                                   {1, 96, 32, 4},
                                   {8, 64, 20, 4},
                                   {19, 160, 32, 4},
                                   {3, 128, 128, 4},
                                   {0, 32, 4, 2},
                                   {40, 32, 8, 2}})
    for (const int precision : {0, 1})
      for (const DType wf : {DType::f32, DType::bf16})
        r.check({.op = "linear_router_fwd",
                 .name = std::to_string(T) + "x" + std::to_string(D) + " to " + std::to_string(K) + " of " +
                         std::to_string(E) + (wf == DType::bf16 ? ", bf16 weights" : "") +
                         (precision ? ", bf16" : ", f32"),
                 .args = {out({T, D}), out({T, D}), out({T, K}), out({T, K}, DType::i32), out({E + 1}, DType::i32),
                          out({T * K}, DType::i32), out({T, K}, DType::i32), out({T * K}), floats({T, D}, 1),
                          floats({T, D}, 2), floats({D}, 3, 1, wf), 1e-5, floats({E, D}, 4, 1, wf),
                          floats({E}, 5, 1, wf), precision},
                 .bound = router_bound});
}

void swiglu_bound(const Case&, const Values& before, const Values&, Tolerance& tolerance) {
  const Value& a = before[0];
  const int64_t P = a.tensor.shape[0], F = a.tensor.shape[1], C = before[3].tensor.shape[1];
  const bool pair = before[9].is_tensor();
  const auto products = [&](const Values& of) {
    return run_reference("grouped_linear_fwd", {out({P, 2 * F}), of[2], of[3], of[4], of[5], of[6], of[7], of[8], of[9],
                                                of[10], of[11], of[14], of[15], 1});
  };
  const Values exact = products(before), loose = products(magnitudes(before));
  const Value &z = exact[0], &sums = loose[0];
  // the pair's h is rounded on its way to z, and may round to the neighbouring bf16
  const double part = rounding(static_cast<double>(C + 16)) + (pair && before[15].number ? 0x1p-7 : 0);
  for (const size_t i : {size_t{1}, size_t{2}}) {
    const Value& bound = i == 1 ? sums : loose[1];
    if (!before[i].is_tensor()) continue;
    tolerance[i].resize(static_cast<size_t>(bound.numel()));
    for (int64_t j = 0; j < bound.numel(); ++j)
      tolerance[i][static_cast<size_t>(j)] = (i == 1 ? part : rounding(static_cast<double>(C))) * bound.at(j);
  }
  tolerance[0].resize(static_cast<size_t>(P * F));
  for (int64_t i = 0; i < P * F; ++i) {
    const double gate = std::fmin(z.at(2 * i), kLimit), lin = std::fmin(std::fabs(z.at(2 * i + 1)), kLimit) + 1;
    // gate·σ(α·gate) rises by 1.2 at most
    tolerance[0][static_cast<size_t>(i)] = 1.2 * part * sums.at(2 * i) * (lin + part * sums.at(2 * i + 1)) +
                                           (std::fabs(gate) + 1) * (part * sums.at(2 * i + 1) + rounding(16) * lin);
  }
}
void swiglu_cases(Registry& r) {
  struct Size {
    std::vector<int32_t> offsets;
    int64_t X, F, C;
    bool gather;
  };
  for (const auto& [offsets, X, F, C, gather] : {Size{{0, 1}, 1, 1, 32, false},
                                                 {{0, 3, 3, 12, 13}, 5, 19, 64, true},
                                                 {{0, 0, 0}, 3, 8, 32, true},
                                                 {{0, 14, 20}, 20, 33, 96, false},
                                                 {{0, 1, 1, 2, 3, 4}, 1, 40, 352, true}})
    for (const int layout : {0, 1, 2})
      for (const int precision : {0, 1}) {
        const int64_t P = offsets.back(), E = static_cast<int64_t>(offsets.size()) - 1, N = 2 * F;
        r.check({.op = "grouped_linear_swiglu_fwd",
                 .name = std::to_string(P) + "x" + std::to_string(C) + "x" + std::to_string(F) + ", layout " +
                         std::to_string(layout) + (precision ? ", bf16" : ", f32"),
                 .args = {out({P, F}), nullptr, nullptr, floats({X, C}, 1),
                          gather ? indices({P}, 2, X) : Value(nullptr), values_i32({E + 1}, offsets),
                          layout == 0   ? bytes_u8({E, N, C / 32, 16}, 3)
                          : layout == 1 ? floats({E, N, C}, 3, 0.3, DType::bf16)
                                        : floats({E, C, N}, 3, 0.3, DType::bf16),
                          layout == 0 ? bytes_u8({E, N, C / 32}, 4, 118, 131) : Value(nullptr),
                          floats({E, N}, 5, 1, precision ? DType::bf16 : DType::f32), nullptr, nullptr, 0, kAlpha,
                          kLimit, layout, precision, 1},
                 .bound = swiglu_bound});
      }
  for (const int layout : {0, 1})
    for (const int precision : {0, 1})
      r.check({.op = "grouped_linear_swiglu_fwd",
               .name = std::string("with a pair and z, layout ") + std::to_string(layout) + (precision ? ", bf16" : ""),
               .args = {out({12, 20}), out({12, 40}), out({12, 3}), floats({7, 64}, 1), indices({12}, 2, 7),
                        values_i32({4}, {0, 9, 9, 12}),
                        layout ? floats({3, 40, 64}, 3, 0.3, DType::bf16) : bytes_u8({3, 40, 2, 16}, 3),
                        layout ? Value(nullptr) : bytes_u8({3, 40, 2}, 4, 118, 128), floats({3, 40}, 5),
                        floats({3, 3, 64}, 6), floats({3, 40, 3}, 7), 0.5, kAlpha, kLimit, layout, precision, 0},
               .bound = swiglu_bound});
  for (const auto& [name, offsets] :
       {std::pair{"offsets fall", std::vector<int32_t>{0, 2, 1}}, {"offsets end early", {0, 1, 1}}})
    r.check({.op = "grouped_linear_swiglu_fwd",
             .name = name,
             .args = {out({2, 4}), nullptr, nullptr, floats({2, 32}, 1), nullptr, values_i32({3}, offsets),
                      bytes_u8({2, 8, 1, 16}, 3), bytes_u8({2, 8, 1}, 4, 118, 128), nullptr, nullptr, nullptr, 0,
                      kAlpha, kLimit, 0, 1, 1},
             .error = "bad_index"});
}

void combine_bound(const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
  const Value sums = run_reference(c.op, magnitudes(before))[0];
  const double part = rounding(static_cast<double>(before[1].tensor.shape[1] + 16));
  tolerance[0].resize(static_cast<size_t>(sums.numel()));
  for (int64_t i = 0; i < sums.numel(); ++i) tolerance[0][static_cast<size_t>(i)] = part * sums.at(i);
}
void combine_cases(Registry& r) {
  struct Size {
    std::vector<int32_t> offsets;
    int64_t T, K, D, C;
  };
  for (const auto& [offsets, T, K, D, C] : {Size{{0, 1}, 1, 1, 1, 32},
                                            {{0, 1, 1, 2, 3, 4}, 1, 4, 40, 352},
                                            {{0, 3, 3, 12}, 6, 2, 37, 64},
                                            {{0, 0, 0}, 0, 2, 8, 32},
                                            {{0, 14, 20}, 10, 2, 33, 96}})
    for (const int layout : {0, 1, 2})
      for (const int precision : {0, 1}) {
        const int64_t P = T * K, E = static_cast<int64_t>(offsets.size()) - 1;
        std::vector<int32_t> rows;
        for (int64_t i = 0; i < P; ++i) rows.push_back(static_cast<int32_t>(P - 1 - i));
        r.check({.op = "grouped_linear_combine_fwd",
                 .name = std::to_string(T) + "x" + std::to_string(K) + "x" + std::to_string(C) + "x" +
                         std::to_string(D) + ", layout " + std::to_string(layout) + (precision ? ", bf16" : ", f32"),
                 .args = {update(floats({T, D}, 1)), floats({P, C}, 2), values_i32({E + 1}, offsets),
                          layout == 0   ? bytes_u8({E, D, C / 32, 16}, 3)
                          : layout == 1 ? floats({E, D, C}, 3, 1, DType::bf16)
                                        : floats({E, C, D}, 3, 1, DType::bf16),
                          layout == 0 ? bytes_u8({E, D, C / 32}, 4, 118, 131) : Value(nullptr),
                          floats({E, D}, 5, 1, precision ? DType::bf16 : DType::f32), positive({T, K}, 6, 0, 1),
                          values_i32({T, K}, rows), layout, precision},
                 .bound = combine_bound});
      }
  for (const int32_t bad : {-1, 2})
    r.check({.op = "grouped_linear_combine_fwd",
             .name = "row " + std::to_string(bad),
             .args = {update(floats({1, 16}, 1)), floats({2, 32}, 2), values_i32({3}, {0, 1, 2}),
                      bytes_u8({2, 16, 1, 16}, 3), bytes_u8({2, 16, 1}, 4, 118, 128), nullptr,
                      positive({1, 2}, 6, 0, 1), values_i32({1, 2}, {0, bad}), 0, 1},
             .error = "bad_index"});
}

const Suite suite{[](Registry& r) {
  qkv_cases(r);
  combine_cases(r);
  router_cases(r);
  swiglu_cases(r);
}};

}  // namespace
}  // namespace temper::test
