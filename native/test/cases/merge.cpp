// Cases: an adapter merged into its weights. All to the bit but the sums of the report.
#include <array>
#include <cmath>
#include "cpu/host/mxfp4.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

double code_value(const Value& blocks, const Value& scales, int64_t group, int i) {
  const std::array<uint8_t, 1> byte{blocks.bytes[static_cast<size_t>(group * 16 + i / 2)]};
  return std::ldexp(static_cast<double>(cpu::kE2M1[i & 1 ? byte[0] >> 4 : byte[0] & 15]),
                    scales.bytes[static_cast<size_t>(group)] - 127);
}

// The sums are double's, written as f32.
void kept_bound(const Case&, const Values& a, const Values& want, Tolerance& tol) {
  if (!a[2].is_tensor()) return;
  const int64_t E = a[5].tensor.shape[0], R = a[5].tensor.shape[1], C = a[5].tensor.shape[2], N = a[6].tensor.shape[1];
  tol[2].assign(static_cast<size_t>(2 * E), 0);
  for (int64_t e = 0; e < E; ++e) {
    double survived = 0, whole = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c) {
        const int64_t group = ((e * N + n) * C + c) / 32;
        const int i = static_cast<int>(c % 32);
        double delta = 0;
        for (int64_t r = 0; r < R; ++r) delta += std::fabs(a[6].at((e * N + n) * R + r) * a[5].at((e * R + r) * C + c));
        delta *= std::fabs(a[7].number);
        survived += std::fabs(code_value(want[0], want[1], group, i) - code_value(a[3], a[4], group, i)) * delta;
        whole += delta * delta;
      }
    const double terms = static_cast<double>(N * C);
    tol[2][static_cast<size_t>(2 * e)] = kUnit * std::fabs(want[2].at(2 * e)) + terms * 0x1p-52 * survived;
    tol[2][static_cast<size_t>(2 * e + 1)] = kUnit * std::fabs(want[2].at(2 * e + 1)) + terms * 0x1p-52 * whole;
  }
}

struct Size {
  int64_t E, N, C, R;
};
Shape blocks_of(const Size& s) { return {s.E, s.N, s.C / 32, 16}; }
Shape scales_of(const Size& s) { return {s.E, s.N, s.C / 32}; }

Case merge(const std::string& name, const Size& s, const Value& base, const Value& scales, const Value& A,
           const Value& B, double scale, bool kept) {
  return {.op = "mxfp4_merge",
          .name = name,
          .args = {out(blocks_of(s), DType::u8), out(scales_of(s), DType::u8), kept ? out({s.E, 2}) : Value(nullptr),
                   base, scales, A, B, scale},
          .bound = kept_bound};
}

// Integers from −most to most times `unit`.
Value whole(const Shape& shape, uint64_t seed, int most, double unit = 1) {
  Value v(DType::f32, shape, Role::in);
  for (int64_t i = 0; i < v.numel(); ++i)
    v.set(i, (static_cast<double>(random_bits(seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(2 * most + 1)) -
              most) *
                 unit);
  return v;
}

void merge_cases(Registry& reg) {
  for (const Size& s : {Size{1, 1, 32, 1}, {2, 5, 64, 3}, {3, 70, 96, 16}, {1, 3, 320, 0}, {2, 130, 64, 5}}) {
    const std::string name =
        std::to_string(s.E) + "x" + std::to_string(s.N) + "x" + std::to_string(s.C) + " rank " + std::to_string(s.R);
    const Value base = bytes_u8(blocks_of(s), 1), scales = bytes_u8(scales_of(s), 2, 118, 124);
    for (double size : {1e-3, 0.02, 0.5})
      reg.check(merge(name + " ΔW " + std::to_string(size), s, base, scales, floats({s.E, s.R, s.C}, 3),
                      floats({s.E, s.N, s.R}, 4, size), 0.7, size != 0.02));
  }
  // W in eighths of the scale: every halfway point between codes, and scales that lose alike.
  {
    const Size s{1, 300, 64, 2};
    reg.check(merge("ties", s, bytes_u8(blocks_of(s), 5), bytes_u8(scales_of(s), 6, 126, 128), whole({1, 2, 64}, 7, 1),
                    whole({1, 300, 2}, 8, 3), 0.125, true));
    // base far below the top of its scale: the next exponent is base's own
    Value low(DType::u8, blocks_of(s), Role::in), sparse = whole({1, 2, 64}, 9, 1);
    for (int64_t i = 0; i < low.numel(); ++i)
      low.set(i, static_cast<double>(random_bits(10, static_cast<uint64_t>(i)) & 0x33));
    for (int64_t i = 0; i < sparse.numel(); ++i)
      if (i % 32 > 1) sparse.set(i, 0);
    reg.check(merge("ties, base's scale is the next", s, low, bytes_u8(scales_of(s), 11, 127, 127), sparse,
                    whole({1, 300, 2}, 12, 3), 0.125, true));
    Value few = whole({1, 300, 2}, 13, 1);
    for (int64_t i = 0; i < few.numel(); ++i)
      if (i % 5) few.set(i, 0);
    reg.check(merge("most rows untouched", s, bytes_u8(blocks_of(s), 14), bytes_u8(scales_of(s), 15, 0, 254 - 3),
                    sparse, few, 0.5, true));
  }
  // Every scale that leaves room, with ΔW of its size.
  {
    const Size s{1, 252, 64, 1};
    Value scales(DType::u8, scales_of(s), Role::in), B(DType::f32, {1, 252, 1}, Role::in);
    for (int64_t n = 0; n < 252; ++n) {
      for (int64_t g = 0; g < 2; ++g) scales.set(2 * n + g, static_cast<double>(n));
      B.set(n, std::ldexp(1.0, static_cast<int>(n) - 128));
    }
    reg.check(merge("every scale", s, bytes_u8(blocks_of(s), 16), scales, smooth({1, 1, 64}, 17), B, 1, false));
    // W vanishes: the pair is minus base, whose rows are the same
    Value base(DType::u8, blocks_of(s), Role::in), A(DType::f32, {1, 1, 64}, Role::in);
    for (int64_t i = 0; i < base.numel(); ++i)
      base.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(random_bits(18, static_cast<uint64_t>(i % 32)));
    for (int64_t c = 0; c < 64; ++c) {
      const int byte = base.bytes[static_cast<size_t>(c / 2)];
      A.set(c, cpu::kE2M1[c & 1 ? byte >> 4 : byte & 15]);
    }
    for (int64_t n = 0; n < 252; ++n) B.set(n, std::ldexp(-1.0, static_cast<int>(n) - 127));
    reg.check(merge("W vanishes", s, base, scales, A, B, 1, false));
  }
  const Size s{2, 3, 64, 2};
  const auto fails = [&](const char* name, const char* code, auto&& spoil) {
    Case c = merge(name, s, bytes_u8(blocks_of(s), 1), bytes_u8(scales_of(s), 2, 120, 124), floats({2, 2, 64}, 3),
                   floats({2, 3, 2}, 4), 1, true);
    spoil(c.args);
    c.error = code;
    reg.check(c);
  };
  fails("scale 255", "bad_scale", [](Values& a) { a[4].set(7, 255); });
  fails("NaN in A", "not_finite", [](Values& a) { a[5].set(70, NAN); });
  fails("infinity in B", "not_finite", [](Values& a) { a[6].set(5, INFINITY); });
  fails("W overflows", "not_finite", [](Values& a) { a[6].set(5, 3e38), a[5].set(200, 1e9); });
  if (!reg.for_bench) return;
  const Size large{2, 5760, 2880, 16};
  Case bench = merge("gpt-oss gate_up, 2 experts, rank 16", large, bytes_u8(blocks_of(large), 1),
                     bytes_u8(scales_of(large), 2, 118, 124), floats({2, 16, 2880}, 3), floats({2, 5760, 16}, 4, 1e-3),
                     1, false);
  bench.bench_only = true;
  bench.flops = 2.0 * 2 * 5760 * 2880 * 16;
  reg.check(bench);
  bench.name += ", kept";
  bench.args[2] = out({2, 2});
  reg.check(bench);
}

void dense_cases(Registry& reg) {
  struct From {
    int layout;
    DType dtype;
  };
  for (const Size& s : {Size{1, 1, 32, 1}, {2, 70, 96, 3}, {1, 5, 64, 0}, {1, 67, 45, 4}})
    for (const From& from : {From{0, DType::u8}, {1, DType::f32}, {1, DType::bf16}, {2, DType::bf16}})
      for (int to : {1, 2})
        for (DType dtype : {DType::f32, DType::bf16}) {
          if (from.layout == 0 && s.C % 32) continue;
          const Shape given = from.layout == 2 ? Shape{s.E, s.C, s.N} : Shape{s.E, s.N, s.C};
          reg.check({.op = "lora_merge",
                     .name = std::to_string(s.E) + "x" + std::to_string(s.N) + "x" + std::to_string(s.C) + " layout " +
                             std::to_string(from.layout) + " to " + std::to_string(to) + " " + name_of(dtype),
                     .args = {out(to == 1 ? Shape{s.E, s.N, s.C} : Shape{s.E, s.C, s.N}, dtype),
                              from.layout == 0 ? bytes_u8(blocks_of(s), 1) : floats(given, 1, 1, from.dtype),
                              from.layout == 0 ? bytes_u8(scales_of(s), 2, 0, 251) : Value(nullptr),
                              floats({s.E, s.R, s.C}, 3), floats({s.E, s.N, s.R}, 4, 0.1), 0.7, from.layout, to}});
        }
  const auto fails = [&](const char* name, const char* code, auto&& spoil) {
    Case c{.op = "lora_merge",
           .name = name,
           .args = {out({1, 4, 32}, DType::bf16), bytes_u8({1, 4, 1, 16}, 1), bytes_u8({1, 4, 1}, 2, 120, 124),
                    floats({1, 2, 32}, 3), floats({1, 4, 2}, 4), 1, 0, 1},
           .error = code};
    spoil(c.args);
    reg.check(c);
  };
  fails("scale 255", "bad_scale", [](Values& a) { a[2].set(3, 255); });
  fails("NaN in B", "not_finite", [](Values& a) { a[4].set(5, NAN); });
  if (!reg.for_bench) return;
  for (int to : {1, 2}) {
    Case bench{.op = "lora_merge",
               .name = "gpt-oss gate_up, 1 expert, rank 16, to " + std::to_string(to),
               .args = {out(to == 1 ? Shape{1, 5760, 2880} : Shape{1, 2880, 5760}, DType::bf16),
                        bytes_u8({1, 5760, 90, 16}, 1), bytes_u8({1, 5760, 90}, 2, 118, 124), floats({1, 16, 2880}, 3),
                        floats({1, 5760, 16}, 4, 1e-3), 1, 0, to},
               .flops = 2.0 * 5760 * 2880 * 16};
    bench.bench_only = true;
    reg.check(bench);
  }
}

const Suite suite{[](Registry& reg) {
  merge_cases(reg);
  dense_cases(reg);
}};

}  // namespace
}  // namespace temper::test
