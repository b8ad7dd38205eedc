// Cases: dense weights in 8 bits. Integer cases ask for the very bits, as in matmul.cpp.
#include <cmath>
#include <cstdlib>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr double kBf16Step = 0x1p-7;  // h may round to the neighbouring bf16

// rounding(terms)·Σ|a·b|, by the reference on absolute values.
Bound q8_products(double terms, bool rounded_h) {
  return [=](const Case& c, const Values& before, const Values&, Tolerance& tolerance) {
    Values magnitude = before;
    for (Value& v : magnitude) {
      if (!v.is_tensor()) continue;
      for (int64_t i = 0; i < v.numel(); ++i)
        v.set(i, v.tensor.dtype == DType::u8 ? std::abs(static_cast<int8_t>(v.bytes[static_cast<size_t>(i)]))
                                             : std::fabs(v.at(i)));
    }
    magnitude = run_reference(c.op, std::move(magnitude));
    for (size_t a = 0; a < 2; ++a) {
      const Value& v = magnitude[a];
      if (!v.is_tensor()) continue;
      tolerance[a].resize(static_cast<size_t>(v.numel()));
      for (int64_t i = 0; i < v.numel(); ++i)
        tolerance[a][static_cast<size_t>(i)] = (rounding(terms) + (a == 0 && rounded_h ? kBf16Step : 0)) * v.at(i);
    }
  };
}

// Every byte but −128, which the encoder never writes.
Value codes(const Shape& shape, uint64_t seed, int limit = 127) {
  Value v(DType::u8, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i)
    v.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(
        static_cast<int>(random_bits(seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(2 * limit + 1)) - limit);
  return v;
}
Value q8_scales(const Shape& shape, uint64_t seed) {
  Value v(DType::bf16, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i) v.set(i, 0.001 + 0.02 * random_unit(seed, static_cast<uint64_t>(i)));
  return v;
}
Value powers_of_two(const Shape& shape, uint64_t seed) {
  Value v(DType::bf16, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i)
    v.set(i, std::ldexp(1.0, static_cast<int>(random_bits(seed, static_cast<uint64_t>(i)) % 4)));
  return v;
}
Value whole_numbers(const Shape& shape, uint64_t seed) {  // −3 … 3
  Value v(DType::f32, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i)
    v.set(i, static_cast<double>(random_bits(seed, static_cast<uint64_t>(i)) % 7) - 3);
  return v;
}

struct Size {
  const char* name;
  int64_t T, N, C, R;
  DType bias;
  bool slow;
};

void product_cases(Registry& reg) {
  const Size all[] = {
      {"1 row, one group", 1, 1, 32, 0, DType::f32, false},
      {"1 row, LoRA", 1, 37, 96, 3, DType::bf16, false},
      {"no rows", 0, 5, 32, 2, DType::f32, false},
      {"3 rows", 3, 130, 224, 0, DType::bf16, false},
      {"2 rows, deep: several fillings of k", 2, 19, 5312, 2, DType::bf16, false},
      {"8 rows, deep: several fillings of k", 8, 17, 4992, 0, DType::f32, false},
      {"8 rows, LoRA", 8, 66, 160, 8, DType::bf16, false},
      {"9 rows, LoRA", 9, 66, 160, 8, DType::f32, false},
      {"deep: several blocks of k", 17, 40, 1312, 4, DType::bf16, false},
      {"tall: several blocks of rows", 301, 33, 64, 0, DType::f32, false},
      {"wide: several blocks of columns", 14, 520, 32, 2, DType::bf16, false},
      {"gpt-oss k_proj", 5, 512, 2880, 16, DType::bf16, true},
      {"11 rows, deep: more inputs than are decoded at once", 11, 23, 4992, 0, DType::bf16, false},
      {"16 rows, LoRA", 16, 67, 192, 8, DType::bf16, false},
      {"tiles of 128×192, LoRA", 130, 200, 160, 6, DType::bf16, false},
  };
  for (const Size& s : all)
    if (!reg.leaves_out(s.slow))
      for (int precision : {0, 1}) {
        const bool lora = s.R > 0;
        reg.check(
            {"linear_q8_fwd",
             std::string(s.name) + (precision ? ", bf16" : ", f32"),
             {out({s.T, s.N}), lora ? out({s.T, s.R}) : Value(nullptr), floats({s.T, s.C}, 1), codes({s.N, s.C}, 2),
              q8_scales({s.N, s.C / 32}, 3), floats({s.N}, 4, 1, s.bias), lora ? floats({s.R, s.C}, 5) : Value(nullptr),
              lora ? floats({s.N, s.R}, 6) : Value(nullptr), 0.7, precision, s.T == 16},
             q8_products(static_cast<double>(s.C + s.R), precision && lora),
             0,
             0,
             "",
             s.slow});
      }
  for (int precision : {0, 1})
    for (int64_t T : {3, 25})
      reg.check({"linear_q8_fwd",
                 std::to_string(T) + " rows of integers, to the bit",
                 {out({T, 45}), nullptr, whole_numbers({T, 160}, 1), codes({45, 160}, 2), powers_of_two({45, 5}, 3),
                  whole_numbers({45}, 4), nullptr, nullptr, 1, precision, 0}});
  Case ragged{"linear_q8_fwd",
              "inputs no multiple of 32",
              {out({1, 2}), nullptr, floats({1, 40}, 1), codes({2, 40}, 2), q8_scales({2, 1}, 3), nullptr, nullptr,
               nullptr, 1, 0, 0}};
  ragged.error = "shape_mismatch";
  reg.check(ragged);
  if (!reg.for_bench) return;
  for (int64_t T : {1, 512}) {
    Case bench{"linear_q8_fwd",
               "q_proj, " + std::to_string(T) + " rows, bf16",
               {out({T, 4096}), nullptr, smooth({T, 2880}, 1), codes({4096, 2880}, 2), q8_scales({4096, 90}, 3),
                nullptr, nullptr, nullptr, 1, 1, 0}};
    bench.bench_only = bench.bf16_products = true;
    if (T > 8) bench.flops = 2.0 * static_cast<double>(T) * 4096 * 2880;
    else bench.bytes = 4096.0 * 2880 * 34 / 32;
    reg.check(bench);
  }
}

void quantize_cases(Registry& reg) {
  const auto quantize = [&](const std::string& name, const Value& w) {
    const Tensor& t = w.tensor;
    reg.check({"q8_quantize",
               name,
               {out({t.shape[0], t.shape[1]}, DType::u8), out({t.shape[0], t.shape[1] / 32}, DType::bf16), w}});
  };
  quantize("f32", floats({9, 96}, 1));
  quantize("bf16", floats({9, 96}, 1, 0.02, DType::bf16));
  quantize("tiny", smooth({3, 64}, 2, 0x1p-110));
  quantize("huge", smooth({3, 64}, 3, 0x1p124));
  quantize("zeros", Value(DType::bf16, {2, 32}, Role::in));
  // multiples of half a step under a scale that is exact: the peak is 127 steps
  Value ties(DType::f32, {8, 32}, Role::in);
  for (int64_t i = 0; i < ties.numel(); ++i)
    ties.set(i, i % 32 == 0 ? 127 : (static_cast<double>(random_bits(4, static_cast<uint64_t>(i)) % 507) - 253) / 2);
  quantize("ties", ties);
  for (double x : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    Value w = floats({1, 64}, 5);
    w.set(40, x);
    Case c{"q8_quantize", "not finite", {out({1, 64}, DType::u8), out({1, 2}, DType::bf16), w}};
    c.error = "not_finite";
    reg.check(c);
  }
}

const Suite suite{[](Registry& reg) {
  product_cases(reg);
  quantize_cases(reg);
}};

}  // namespace
}  // namespace temper::test
