// The machine's own limits, measured: what every bench row is a percentage of.
#pragma once
#include <cstddef>

namespace temper::cpu {
// GFLOP/s of the best multiply-add this CPU has (bf16 on matrix tiles or by dot products where active_isa() is amx or
// avx512bf16, else f32 FMA), on registers only, with `threads` threads at once. Takes about `seconds`.
double peak_gflops(int threads, double seconds = 0.2);
// GB/s read from a buffer of `bytes` (take one well beyond the last cache) by `threads` threads at once; the best of
// several passes.
double read_bandwidth(int threads, size_t bytes = size_t{1} << 30, double seconds = 0.5);
}  // namespace temper::cpu
