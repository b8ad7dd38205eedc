// 6×16 f32 tiles: 12 of the 16 registers accumulate.
#include "cpu/host/vector_avx2.h"
#include "cpu/matmul/few_rows.h"
#include "cpu/matmul/matmul_pack.h"
#include "cpu/matmul/matmul_tile.h"

namespace temper::cpu {
const Kernels kKernelsAvx2 = {
    {6, 16, 1, pack_any<1, false>, tile_f32<Vector, 6, 2>},
    {6, 16, 1, pack_any<1, true>, tile_f32<Vector, 6, 2>},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<false>>, few_rows_any<Vector, false>},
    {kFewRows, kFewRows, dot_units_any, each_row<dot_units_any, dot_prepare_any<true>>, few_rows_any<Vector, true>},
    row_max,
    sum_exp,
    exp_scaled,
};
}  // namespace temper::cpu
