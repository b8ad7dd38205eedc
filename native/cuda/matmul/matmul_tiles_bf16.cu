// The tile kernels whose B is bf16 in memory.
#include "cuda/matmul/matmul_tiles.cuh"

namespace temper::gpu {

TileChoice bf16_tiles(TileSize size, bool a_inner, bool b_inner, int shared_limit) {
  if (size == TileSize::small) {
    if (!a_inner) return tile_choice<TileSize::small, Kind::bf16, false, false, 3>();
    return b_inner ? tile_choice<TileSize::small, Kind::bf16, true, true, 3>()
                   : tile_choice<TileSize::small, Kind::bf16, true, false, 3>();
  }
  if (size == TileSize::middle) {
    if (!a_inner) return tile_choice<TileSize::middle, Kind::bf16, false, false, 2>();
    return b_inner ? tile_choice<TileSize::middle, Kind::bf16, true, true, 2>()
                   : tile_choice<TileSize::middle, Kind::bf16, true, false, 2>();
  }
  if (static_cast<size_t>(shared_limit) >= tile_shared<TileSize::large, Kind::bf16>(4)) {
    if (!a_inner) return tile_choice<TileSize::large, Kind::bf16, false, false, 4>();
    return b_inner ? tile_choice<TileSize::large, Kind::bf16, true, true, 4>()
                   : tile_choice<TileSize::large, Kind::bf16, true, false, 4>();
  }
  if (!a_inner) return tile_choice<TileSize::large, Kind::bf16, false, false, 2>();  // 80 KiB: sm_86, sm_89, sm_120
  return b_inner ? tile_choice<TileSize::large, Kind::bf16, true, true, 2>()
                 : tile_choice<TileSize::large, Kind::bf16, true, false, 2>();
}

}  // namespace temper::gpu
