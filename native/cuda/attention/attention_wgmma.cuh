// Attention on Hopper's warpgroup products, heads up to 64 wide, one bf16 part: what its kernels share. Operands are
// packed once into records that a single bulk copy brings to shared memory as wgmma reads them: tiles of 64 rows under
// 128-byte swizzle, one after another. A sequence's records begin at a tile of its own and are padded with zeros, so
// that no row of a tile belongs to another sequence and none is asked for that is not there.
//
// A block has warpgroups that multiply and one that copies. A warpgroup holds 64 rows of its own as register operands
// and meets one record after another; a row's sums take the tiles in rising order, whatever the batch around it.
#pragma once
#include "cuda/attention/attention.cuh"
#include "gpu/workspace.h"

namespace temper::gpu::attention {

constexpr int kWarpgroup = 4 * kWarp, kStages = 4;
// Q, dout and their Stats; K and V
constexpr int kRowRecord = workspace::kRowRecord, kKeyRecord = workspace::kKeyRecord;
static_assert(kKeyRecord == 2 * kTile && kRowRecord == kKeyRecord + 64 * static_cast<int>(sizeof(Stats)));

// The record at which a sequence's begin, counted over all of its head: sequence `index` whose rows are `row` and
// further of a tensor. Records of rows that rise and do not overlap do neither; workspace::tile_records counts them.
TEMPER_DEVICE int64_t first_record(int64_t row, int index) { return row / 64 + index; }

// Shared memory of a ring of kStages records, each at a multiple of 1024 bytes.
constexpr int record_stride(int bytes) { return (bytes + 1023) / 1024 * 1024; }
constexpr size_t ring_bytes(int bytes) {
  return static_cast<size_t>(kStages * record_stride(bytes)) + 2 * kStages * sizeof(uint64_t) + 1024;
}

#if defined(TEMPER_HAS_WGMMA)
// Where a role stands in the ring.
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  TEMPER_DEVICE void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};
// kStages records in shared memory. `full`: a record has come; `empty`: every multiplying warp is done with it.
template <int Bytes>
struct Ring {
  static constexpr int kStride = record_stride(Bytes);
  unsigned char* records;
  uint64_t *full, *empty;

  TEMPER_DEVICE explicit Ring(unsigned char* shared) {
    records = shared + (1024 - shared_address(shared) % 1024) % 1024;
    full = reinterpret_cast<uint64_t*>(records + kStages * kStride), empty = full + kStages;
  }
  // By the whole block.
  TEMPER_DEVICE void set_up(int multiplying_warps) const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i)
        counter_init(full + i, 1), counter_init(empty + i, static_cast<uint32_t>(multiplying_warps));
      fence_async_proxy();
    }
    __syncthreads();
  }
  // By one thread: `count` records that lie one after another.
  TEMPER_DEVICE void fill(const unsigned char* from, int count) const {
    Turn turn;
#pragma unroll 1
    for (int i = 0; i < count; ++i, turn.next()) {
      counter_wait(empty + turn.slot, turn.parity ^ 1);
      counter_expect(full + turn.slot, Bytes);
      bulk_copy(records + turn.slot * kStride, from + static_cast<int64_t>(i) * Bytes, Bytes, full + turn.slot);
    }
  }
  TEMPER_DEVICE unsigned char* await(const Turn& turn) const {
    counter_wait(full + turn.slot, turn.parity);
    return records + turn.slot * kStride;
  }
  // By every multiplying warp.
  TEMPER_DEVICE void release(int slot) const {
    if (threadIdx.x % kWarp == 0) counter_arrive(empty + slot);
  }
  // Records that this warpgroup has nothing to do with.
  TEMPER_DEVICE void pass_over(Turn& turn, int count) const {
#pragma unroll 1
    for (int i = 0; i < count; ++i, turn.next()) {
      await(turn);
      release(turn.slot);
    }
  }
};

using Operand = uint32_t[kSteps][4];  // 64 rows of a warpgroup, 64 deep
using Sums = float[32];               // 64 rows of a warpgroup, 64 columns: as wgmma_registers says
// Of sum i: its column, and which of the thread's two rows (g and g + 8) it belongs to.
TEMPER_DEVICE int column_of(int i) { return i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2; }
constexpr int half_of(int i) { return i / 2 % 2; }

// Rows `row` and `row` + 8 of a packed tile in memory.
TEMPER_DEVICE void load_operand(Operand& a, const unsigned char* tile, int row) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + i % 2 * 8, chunk = step * 2 + i / 2;
      a[step][i] = load_as<uint32_t>(tile + r * 128 + ((chunk ^ (r & 7)) << 4) + 4 * t);
    }
}
// Rounded to bf16.
TEMPER_DEVICE void as_operand(Operand& a, const Sums& x) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) a[step][i] = pack_bf16(x[step * 8 + 2 * i], x[step * 8 + 2 * i + 1]);
}
// d = a·tileᵀ
TEMPER_DEVICE void multiply_rows(Sums& d, const Operand& a, uint32_t tile) {
  wgmma_registers<64, true, true>(d, a[0], swizzled_matrix(tile, 16, 1024));
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step)
    wgmma_registers<64>(d, a[step], swizzled_matrix(tile + 32 * step, 16, 1024));
  wgmma_commit();
}
// d += a·tile
TEMPER_DEVICE void multiply_columns(Sums& d, const Operand& a, uint32_t tile) {
#pragma unroll
  for (uint32_t step = 0; step < kSteps; ++step)
    wgmma_registers<64, false>(d, a[step], swizzled_matrix(tile + 2048 * step, kTile, 1024));
  wgmma_commit();
}
#endif

}  // namespace temper::gpu::attention
