// The table of tiles: a byte for each class of products.
#include "cuda/matmul/tile_table.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <iterator>
#include <sstream>
#include <string>

#include "temper/error.h"

namespace temper::gpu {
namespace {

constexpr const char* kTiles[] = {"small", "large", "middle"};  // as TileSize
// What a class is: the kind of B, which way A and B lie, how rows are grouped, and how many rows (of a group) and
// columns there are, by powers of two from 64 on.
constexpr const char *kWeights[] = {"bf16", "mxfp4", "q8"}, *kForms[] = {"forward", "transposed", "gradient"},
                     *kSpreads[] = {"dense", "experts", "expert-sums"};
constexpr int kBuckets = 26, kClasses = 3 * 3 * 3 * kBuckets * kBuckets;

int bucket_of(int64_t extent) {
  return extent <= 64 ? 0 : static_cast<int>(std::bit_width(static_cast<uint64_t>(extent) - 1)) - 6;
}
int class_at(int weights, int form, int spread, int rows, int columns) {
  return (((weights * 3 + form) * 3 + spread) * kBuckets + rows) * kBuckets + columns;
}
int class_of(const Product& p, Kind weights) {
  const int form = !p.main.a.k_inner ? 2 : p.main.b.k_inner ? 0 : 1;
  return class_at(weights == Kind::mxfp4 ? 1
                  : weights == Kind::q8  ? 2
                                         : 0,
                  form, static_cast<int>(p.ragged), bucket_of(p.ragged == Ragged::rows ? p.m / p.groups : p.m),
                  bucket_of(p.n));
}
std::string name_of(int at) {
  const int columns = at % kBuckets, rows = at / kBuckets % kBuckets, kinds = at / (kBuckets * kBuckets);
  std::ostringstream name;
  name << kWeights[kinds / 9] << ' ' << kForms[kinds / 3 % 3] << ' ' << kSpreads[kinds % 3]
       << " rows<=" << (int64_t{64} << rows) << " columns<=" << (int64_t{64} << columns);
  return name.str();
}

int place_of(const std::string& name, const char* const* begin, const char* const* end) {
  const auto* found = std::find(begin, end, name);
  return found == end ? -1 : static_cast<int>(found - begin);
}
// −1: no class is called so
int class_named(const std::string& name) {
  std::istringstream words(name);
  std::string weights, form, spread, rows, columns;
  words >> weights >> form >> spread >> rows >> columns;
  const int w = place_of(weights, std::begin(kWeights), std::end(kWeights)),
            f = place_of(form, std::begin(kForms), std::end(kForms)),
            s = place_of(spread, std::begin(kSpreads), std::end(kSpreads));
  if (w < 0 || f < 0 || s < 0) return -1;
  for (int r = 0; r < kBuckets; ++r)
    for (int c = 0; c < kBuckets; ++c)
      if (rows == "rows<=" + std::to_string(int64_t{64} << r))
        if (const int at = class_at(w, f, s, r, c); name == name_of(at)) return at;
  return -1;
}

struct Entry {
  std::atomic<int8_t> chosen{-1};  // −1: by the rule
  std::atomic<int8_t> taken{-1};   // since the last report; −1: no product of the class came
};
std::array<Entry, kClasses>& entries() {
  static std::array<Entry, kClasses> all;
  return all;
}

}  // namespace

TileSize tile_of(const Product& p, Kind weights, TileSize by_rule) {
  Entry& entry = entries()[static_cast<size_t>(class_of(p, weights))];
  const int8_t chosen = entry.chosen.load(std::memory_order_relaxed);
  const TileSize size = chosen < 0 ? by_rule : static_cast<TileSize>(chosen);
  entry.taken.store(static_cast<int8_t>(size), std::memory_order_relaxed);
  return size;
}

void set_tile(const char* product, const char* tile) {
  const std::string name = product, wanted = tile;
  const int size = place_of(wanted, std::begin(kTiles), std::end(kTiles));
  require(size >= 0 || wanted.empty(), "bad_argument", "set_tile: got tile \"", wanted, "\", wanted one of ",
          kTileNames);
  if (name == "*") {
    for (Entry& e : entries()) e.chosen.store(static_cast<int8_t>(size), std::memory_order_relaxed);
    return;
  }
  const int at = class_named(name);
  require(at >= 0, "bad_argument", "set_tile: no class of products is called \"", name, '"');
  entries()[static_cast<size_t>(at)].chosen.store(static_cast<int8_t>(size), std::memory_order_relaxed);
}

const char* tiled_products() {
  thread_local std::string lines;
  lines.clear();
  for (int at = 0; at < kClasses; ++at)
    if (const int8_t taken = entries()[static_cast<size_t>(at)].taken.exchange(-1, std::memory_order_relaxed);
        taken >= 0)
      ((((lines += name_of(at)) += '\t') += kTiles[taken]) += '\n');
  return lines.c_str();
}

}  // namespace temper::gpu
