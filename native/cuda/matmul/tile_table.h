// Which tile a product is cut into. A rule decides by shape and device; where a device was measured
// (`temper doctor --tune`), a table says what a class of products takes instead. The order of summation is the same in
// all tiles, so nothing here changes a bit.
#pragma once
#include <cstdint>

#include "cuda/matmul/matmul.h"

namespace temper::gpu {

enum class TileSize : int8_t { small, large, middle };
constexpr const char* kTileNames = "small large middle";
struct TileExtent {
  int m, n;
};
constexpr TileExtent extent_of_tile(TileSize size) {
  return size == TileSize::large ? TileExtent{128, 192} : TileExtent{64, size == TileSize::small ? 64 : 128};
}

// The tile of the table, or that of the rule where its class is not in it. Notes which one it was.
TileSize tile_of(const Product& product, Kind weights, TileSize by_rule);

// For temper/backend.h. Products of a class take the tile from here on; tile "": that of the rule. product "*": those
// of all classes. Throws Error{"bad_argument"}.
void set_tile(const char* product, const char* tile);
// A line "class<tab>tile" of each class that was multiplied since the last call, with the tile that it took last; valid
// until this thread's next call.
const char* tiled_products();

}  // namespace temper::gpu
