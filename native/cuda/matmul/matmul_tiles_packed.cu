// The tile kernels whose B is MXFP4 or q8 in memory: two decoded tiles, three stages of A (96 KiB, so that every
// architecture holds it) or four.
#include "cuda/matmul/matmul_tiles.cuh"

namespace temper::gpu {

TileChoice mxfp4_tiles(TileSize size, bool b_inner, int shared_limit) {
  if (size == TileSize::small)
    return b_inner ? tile_choice<TileSize::small, Kind::mxfp4, true, true, 3>()
                   : tile_choice<TileSize::small, Kind::mxfp4, true, false, 3>();
  if (size == TileSize::middle)
    return b_inner ? tile_choice<TileSize::middle, Kind::mxfp4, true, true, 2>()
                   : tile_choice<TileSize::middle, Kind::mxfp4, true, false, 2>();
  if (static_cast<size_t>(shared_limit) >= tile_shared<TileSize::large, Kind::mxfp4>(4))
    return b_inner ? tile_choice<TileSize::large, Kind::mxfp4, true, true, 4>()
                   : tile_choice<TileSize::large, Kind::mxfp4, true, false, 4>();
  return b_inner ? tile_choice<TileSize::large, Kind::mxfp4, true, true, 3>()
                 : tile_choice<TileSize::large, Kind::mxfp4, true, false, 3>();
}

TileChoice q8_tiles(TileSize size, int) {
  if (size == TileSize::small) return tile_choice<TileSize::small, Kind::q8, true, true, 3>();
  if (size == TileSize::middle) return tile_choice<TileSize::middle, Kind::q8, true, true, 2>();
  return tile_choice<TileSize::large, Kind::q8, true, true, 3>();
}

}  // namespace temper::gpu
