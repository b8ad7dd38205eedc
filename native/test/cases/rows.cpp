// Cases: gather, scatter, add, cast, fill and the random fills.
#include <cmath>
#include <limits>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// All 65536 bf16 codes, or f32 values around every rounding decision.
Value every_bf16() {
  Value v(DType::bf16, {65536}, Role::in);
  for (int64_t i = 0; i < 65536; ++i) {
    const uint16_t code = static_cast<uint16_t>(i);
    const bool is_nan = (code & 0x7fff) > 0x7f80;
    v.bytes[static_cast<size_t>(2 * i)] = static_cast<uint8_t>(is_nan ? 0 : code & 0xff);
    v.bytes[static_cast<size_t>(2 * i + 1)] = static_cast<uint8_t>(is_nan ? 0 : code >> 8);
  }
  return v;
}
Value around_every_bf16() {
  Value v(DType::f32, {65536 * 4}, Role::in);
  for (uint32_t code = 0; code < 65536; ++code)
    for (uint32_t k = 0; k < 4; ++k) {
      const bool is_nan = (code & 0x7fff) >= 0x7f80;
      const uint32_t bits = is_nan ? 0 : (code << 16) | (k == 0 ? 0u : k == 1 ? 0x7fffu : k == 2 ? 0x8000u : 0x8001u);
      for (size_t b = 0; b < 4; ++b) v.bytes[(code * 4 + k) * 4 + b] = static_cast<uint8_t>(bits >> (8 * b));
    }
  return v;
}
Value around_every_bf16_rows() {
  Value v(DType::f32, {4032, 65}, Role::in);
  const Value all = around_every_bf16();
  std::copy_n(all.bytes.begin(), v.bytes.size(), v.bytes.begin());
  return v;
}
Value distinct(int64_t n, int64_t limit) {
  Value v(DType::i32, {n}, Role::in);
  // 7 shares no factor with the limits used
  for (int64_t i = 0; i < n; ++i) v.set(i, static_cast<double>((i * 7 + 3) % limit));
  return v;
}

const Suite suite{[](Registry& r) {
  for (int64_t D : {1, 5, 576, 2880}) {
    const std::string name = "rows of " + std::to_string(D);
    r.check({.op = "gather_rows", .name = name, .args = {out({9, D}), floats({13, D}, 1), indices({9}, 2, 13)}});
    r.check({.op = "gather_rows",
             .name = name + " bf16",
             .args = {out({9, D}, DType::bf16), floats({13, D}, 1, 1, DType::bf16), indices({9}, 2, 13)}});
    r.check(
        {.op = "scatter_rows", .name = name, .args = {update(floats({13, D}, 1)), floats({9, D}, 3), distinct(9, 13)}});
    r.check({.op = "scatter_rows",
             .name = name + " bf16",
             .args = {update(floats({13, D}, 1, 1, DType::bf16)), floats({9, D}, 3, 1, DType::bf16), distinct(9, 13)}});
  }
  r.check(
      {.op = "gather_rows", .name = "many", .args = {out({3000, 64}), floats({200, 64}, 1), indices({3000}, 2, 200)}});
  r.check({.op = "scatter_rows",
           .name = "many",
           .args = {update(floats({4096, 64}, 1)), floats({3000, 64}, 3), distinct(3000, 4096)}});
  r.check({.op = "gather_rows",
           .name = "i32 scalars",
           .args = {out({4}, DType::i32), values_i32({3}, {5, -6, 7}), values_i32({4}, {2, 2, 0, 1})}});
  for (int64_t D : {1, 5, 576, 2880})
    r.check({.op = "scatter_rows",
             .name = "rows of " + std::to_string(D) + " rounded to bf16",
             .args = {update(floats({13, D}, 1, 1, DType::bf16)), floats({9, D}, 3), distinct(9, 13)}});
  r.check({.op = "scatter_rows",
           .name = "around every bf16",
           .args = {update(floats({4096, 65}, 1, 1, DType::bf16)), around_every_bf16_rows(), distinct(4032, 4096)}});
  r.check({.op = "scatter_rows",
           .name = "one",
           .args = {update(floats({1, 1}, 1)), floats({1, 1}, 3), values_i32({1}, {0})}});
  for (int32_t bad : {-1, 3}) {
    r.check({.op = "gather_rows",
             .name = "row " + std::to_string(bad),
             .args = {out({2, 4}), floats({3, 4}, 1), values_i32({2}, {0, bad})},
             .error = "bad_index"});
    r.check({.op = "scatter_rows",
             .name = "row " + std::to_string(bad),
             .args = {update(floats({3, 4}, 1)), floats({2, 4}, 1), values_i32({2}, {0, bad})},
             .error = "bad_index"});
  }
  r.check({.op = "scatter_rows",
           .name = "a row twice",
           .args = {update(floats({3, 4}, 1)), floats({2, 4}, 1), values_i32({2}, {1, 1})},
           .error = "bad_index"});

  for (int64_t n : {1, 37, 100003})
    r.check({.op = "add", .name = std::to_string(n), .args = {update(floats({n}, 1)), floats({n}, 2)}});
  r.check({.op = "cast", .name = "every bf16 to f32", .args = {out({65536}), every_bf16()}});
  r.check({.op = "cast", .name = "around every bf16", .args = {out({65536 * 4}, DType::bf16), around_every_bf16()}});
  r.check({.op = "cast", .name = "i32 copy", .args = {out({3}, DType::i32), values_i32({3}, {1, -2, 3})}});
  r.check({.op = "cast", .name = "f32 copy", .args = {out({70000}), floats({70000}, 1)}});
  r.check({.op = "cast", .name = "bf16 copy", .args = {out({5}, DType::bf16), floats({5}, 1, 1, DType::bf16)}});
  r.check({.op = "fill", .name = "f32", .args = {out({200003}), -0.1}});
  r.check({.op = "fill", .name = "bf16", .args = {out({77}, DType::bf16), 0.3}});
  r.check({.op = "fill", .name = "i32", .args = {out({77}, DType::i32), -5.0}});
  r.check({.op = "fill", .name = "u8", .args = {out({77}, DType::u8), 255.0}});
  r.check({.op = "fill", .name = "u8 overflow", .args = {out({7}, DType::u8), 256.0}, .error = "bad_argument"});

  for (DType t : {DType::f32, DType::bf16}) {
    const std::string name = t == DType::f32 ? "f32" : "bf16";
    r.check({.op = "random_uniform", .name = name, .args = {out({20001}, t), 5.0, -0.25, 0.75}});
    r.check({.op = "random_normal", .name = name, .args = {out({20001}, t), 5.0, 0.02}});
  }
  r.check({.op = "random_bytes", .name = "scales", .args = {out({70001}, DType::u8), 9.0, 118.0, 123.0}});
  r.check({.op = "random_bytes", .name = "all", .args = {out({4097}, DType::u8), 9.0, 0.0, 255.0}});
  r.check({.op = "random_uniform", .name = "empty range", .args = {out({4}), 1.0, 1.0, 0.0}, .error = "bad_argument"});
  r.check(
      {.op = "random_bytes", .name = "256", .args = {out({4}, DType::u8), 1.0, 0.0, 256.0}, .error = "bad_argument"});

  constexpr int64_t kMany = 1 << 22;
  if (r.for_bench)
    r.check({.op = "add",
             .name = "4M",
             .args = {update(smooth({kMany}, 1)), smooth({kMany}, 2)},
             .bytes = kMany * 12.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "cast",
             .name = "4M f32 to bf16",
             .args = {out({kMany}, DType::bf16), smooth({kMany}, 2)},
             .bytes = kMany * 6.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "gather_rows",
             .name = "2048x2880",
             .args = {out({2048, 2880}), smooth({512, 2880}, 1), indices({2048}, 2, 512)},
             .bytes = 2048 * 2880 * 8.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "random_normal",
             .name = "1M bf16",
             .args = {out({1 << 20}, DType::bf16), 1.0, 0.02},
             .bytes = (1 << 20) * 2.0,
             .bench_only = true});
  if (r.for_bench)
    r.check({.op = "random_bytes",
             .name = "4M",
             .args = {out({kMany}, DType::u8), 1.0, 0.0, 255.0},
             .bytes = kMany * 1.0,
             .bench_only = true});
  if (r.for_bench)
    r.check(
        {.op = "fill", .name = "one element (op overhead)", .args = {out({1}), 0.0}, .bytes = 4, .bench_only = true});
}};

}  // namespace
}  // namespace temper::test
