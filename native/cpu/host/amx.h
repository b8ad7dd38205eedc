// Intel's matrix tiles: eight registers of 16 rows of 64 bytes. Instructions as functions; GCC's own say nothing of the
// memory that they touch. A kernel sets their shapes first and gives them up at its end.
#pragma once
#include <cstdint>

namespace temper::cpu {
namespace {

struct TileShape {
  uint8_t rows;    // up to 16; 0: no tile
  uint16_t bytes;  // of a row, up to 64
};
// Shapes of the tiles of this thread from now on; what they held is lost.
inline void set_tiles(const TileShape (&shapes)[8]) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  static_assert(sizeof config == 64);
  for (int t = 0; t < 8; ++t)
    if (shapes[t].rows && shapes[t].bytes) config.bytes[t] = shapes[t].bytes, config.rows[t] = shapes[t].rows;
  asm volatile("ldtilecfg %0" ::"m"(config));
}
inline void release_tiles() { asm volatile("tilerelease"); }

template <int Tile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
// Rows that lie `stride` bytes apart.
template <int Tile>
inline void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
inline void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
}
// f32 C[16][n] += bf16 A[16][32] · B, whose row l holds of each of n columns elements 2l and 2l + 1.
template <int C, int A, int B>
inline void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace
}  // namespace temper::cpu
