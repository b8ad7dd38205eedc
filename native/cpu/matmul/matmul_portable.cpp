// Tiles in plain C++ over four-float vectors, which every compiler target maps to its own registers.
#include "cpu/matmul/few_rows.h"
#include "cpu/matmul/matmul_pack.h"
#include "cpu/matmul/matmul_tile.h"

namespace temper::cpu {
namespace {
struct Vector {
  using T = float __attribute__((vector_size(16)));
  static constexpr int width = 4;
  static T zero() { return T{}; }
  static T load(const float* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(float* p, T v) { std::memcpy(p, &v, sizeof v); }
  static T broadcast(float f) { return T{f, f, f, f}; }
  static T fma(T a, T b, T c) { return a * b + c; }
};
}  // namespace

const Kernels kKernelsPortable = {
    {4, 8, 1, pack_any<1, false>, tile_f32<Vector, 4, 2>},
    {4, 8, 1, pack_any<1, true>, tile_f32<Vector, 4, 2>},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<false>>, few_rows_any<Vector, false>},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<true>>, few_rows_any<Vector, true>},
    row_max,
    sum_exp,
    exp_scaled,
};
}  // namespace temper::cpu
