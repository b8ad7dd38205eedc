// Which piece of a product a block computes: its group, rows, columns and stretch of k, read from the offsets in device
// memory.
#pragma once
#include "cuda/device/tensor_cores.cuh"
#include "cuda/matmul/matmul.h"

namespace temper::gpu {

// The shape of a product as kernels see it; int holds every extent (checked on the host), offsets into memory are
// 64-bit.
struct Extent {
  int m, n, k;  // ragged rows: m = P; ragged k: k = P
  Ragged ragged;
  const int32_t* offsets;
  int groups;
  FaultName op;
};

Extent extent_of(const Product& product);  // throws where an extent does not fit

struct Place {
  int group;
  // first row of the tile among all of C's rows of its group's memory, rows that exist in the tile
  int row, rows;
  int col;
  int k_begin, k_end;  // of the main term; ragged k: logical rows of A and B
  bool work;
};

// tiles along m that are taken before the next column of tiles: a wave's operands then stay in L2
constexpr int kBandTiles = 16;

// offsets[i], never outside [low, P].
TEMPER_DEVICE int offset_at(const Extent& x, int i, int limit, int low) {
  const int at = x.offsets[i];
  return at < low ? low : at > limit ? limit : at;
}

// One thread reports what is wrong with the offsets: they must rise from 0 to P.
TEMPER_DEVICE void check_offsets(const Extent& x, int limit, int first, int step, Fault* fault) {
  for (int i = first; i <= x.groups; i += step) {
    const int at = x.offsets[i], before = i ? x.offsets[i - 1] : 0;
    const bool bad = i == 0 ? at != 0 : at < before || (i == x.groups && at != limit);
    if (bad) report_fault(fault, FaultCode::bad_index, x.op, "offsets", i, at, limit);
  }
}

// Tile `tile` of a grid of m_tiles × n_tiles, band by band.
TEMPER_DEVICE void in_bands(int tile, int m_tiles, int n_tiles, int& m_tile, int& n_tile) {
  const int per_band = kBandTiles * n_tiles, band = tile / per_band, left = m_tiles - band * kBandTiles;
  const int high = left < kBandTiles ? left : kBandTiles, within = tile - band * per_band;
  n_tile = within / high;
  m_tile = band * kBandTiles + within - n_tile * high;
}

// All warps of the block call it with the same arguments and get the same answer; no barrier.
template <int TileM, int TileN>
TEMPER_DEVICE Place find_place(const Extent& x, int tile, Fault* fault) {
  Place p{0, 0, 0, 0, 0, x.k, true};
  const int n_tiles = (x.n + TileN - 1) / TileN, lane = static_cast<int>(threadIdx.x) % kWarp;
  int m_tile = 0, n_tile = 0;
  if (x.ragged != Ragged::none && tile == 0 && threadIdx.x < kWarp)
    check_offsets(x, x.ragged == Ragged::rows ? x.m : x.k, lane, kWarp, fault);
  if (x.ragged == Ragged::rows) {
    int left = tile;
    p.work = false;
    for (int base = 0; base < x.groups; base += kWarp) {
      const int e = base + lane;
      int begin = 0, end = 0;
      if (e < x.groups) begin = offset_at(x, e, x.m, 0), end = offset_at(x, e + 1, x.m, begin);
      const int tiles = (end - begin + TileM - 1) / TileM * n_tiles;
      int sum = tiles;  // of this lane's group and those before it
      for (int step = 1; step < kWarp; step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, sum, static_cast<unsigned>(step));
        if (lane >= step) sum += other;
      }
      const unsigned past = __ballot_sync(kAllLanes, sum > left);
      if (!past) {
        left -= __shfl_sync(kAllLanes, sum, kWarp - 1);
        continue;
      }
      const int owner = __ffs(static_cast<int>(past)) - 1;
      left -= __shfl_sync(kAllLanes, sum - tiles, owner);
      begin = __shfl_sync(kAllLanes, begin, owner);
      end = __shfl_sync(kAllLanes, end, owner);
      in_bands(left, (end - begin + TileM - 1) / TileM, n_tiles, m_tile, n_tile);
      p.group = base + owner;
      p.row = begin + m_tile * TileM;
      p.rows = end - p.row < TileM ? end - p.row : TileM;
      p.work = true;
      break;
    }
  } else {
    const int m_tiles = (x.m + TileM - 1) / TileM;
    if (x.ragged == Ragged::k) {
      p.group = tile / (m_tiles * n_tiles);
      tile -= p.group * m_tiles * n_tiles;
      p.k_begin = offset_at(x, p.group, x.k, 0);
      p.k_end = offset_at(x, p.group + 1, x.k, p.k_begin);
      p.work = p.k_end > p.k_begin;  // C accumulates: an empty group leaves it as it is
    }
    in_bands(tile, m_tiles, n_tiles, m_tile, n_tile);
    p.row = m_tile * TileM;
    p.rows = x.m - p.row < TileM ? x.m - p.row : TileM;
  }
  p.col = n_tile * TileN;
  return p;
}

// Blocks that suffice whatever the offsets: a group of r > 0 rows has at most (r − 1)/TileM + 1 tiles of rows.
inline int64_t tile_bound(const Product& p, int64_t tile_m, int64_t tile_n) {
  const int64_t n_tiles = blocks_for(p.n, tile_n);
  if (p.ragged == Ragged::rows) return (p.m / tile_m + (p.m < p.groups ? p.m : p.groups)) * n_tiles;
  return blocks_for(p.m, tile_m) * n_tiles * (p.ragged == Ragged::k ? p.groups : 1);
}

}  // namespace temper::gpu
