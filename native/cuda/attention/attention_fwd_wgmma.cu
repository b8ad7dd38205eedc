// forward_rows of attention.cu on Hopper's warpgroup products, one bf16 part. Of each row the same sums in the same
// order: a block of 64 keys has its own largest score, sum and value sums from zero, and blocks are folded in rising
// order. Where wgmma adds the 16 products of a step as mma does, every bit is the same (under emulation it is; on a GPU
// `TEMPER_CUDA_ATTENTION=wgmma temper_native_test --backend cuda --filter attention` says so or not).
//
// The numbers, one layer of gpt-oss, T tokens in one sequence, w keys seen on average: 64·T·w pairs of a row and a key,
// 128 operations for each of 2 products, 1 exponential. A multiprocessor's clock has 4096 operations and 16
// exponentials: 256 clocks of products and 256 of exponentials for a tile of 64 rows by 64 keys, which the three
// warpgroups of a block have in turns. T = 4096, full: 0.15 ms of each at 1.75 GHz and 132 multiprocessors.
#include "cuda/attention/attention.h"
#include "cuda/attention/attention_wgmma.cuh"

namespace temper::gpu::attention {
namespace {

// A block: Groups·64 rows of one kv head, against the blocks of keys that they see.
template <int Groups>
__global__ void __launch_bounds__((Groups + 1) * kWarpgroup, 1) forward_tiles(const RowsArgs a, int pairs) {
  wait_for_previous();
#if defined(TEMPER_HAS_WGMMA)
  TEMPER_DYNAMIC_SHARED(unsigned char, shared);
  const Ring<kKeyRecord> ring(shared);
  const Problem& p = a.p;
  RowBlock<Groups> block;
  if (!block.find(p, blockIdx.x)) return;
  const Sequence& s = block.s;
  ring.set_up(Groups * 4, kWarpgroup / kWarp);
  const int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), head = static_cast<int>(blockIdx.y);
  if (warp >= Groups * 4) {
    give_registers<56>();
    const int first = first_key(p, position_of(s, block.begin / p.group)),
              last = position_of(s, (block.end - 1) / p.group);
    const uint16_t* packed = a.packed + (head * p.S + s.key) * kPacked<1>;
    ring.gather(block.seen.end - block.seen.begin, [&](int i, unsigned char* record) {
      copy_tiles<1, kWarpgroup>(
          packed, record,
          [&](int row) {
            const int j = (block.seen.begin + i) * kKeys + row;
            return j < first || j > last ? -1 : p.ring > 0 ? j % p.ring : j;
          },
          static_cast<int>(threadIdx.x) - Groups * kWarpgroup);
    });
    return;
  }
  take_registers<152>();
  const int kv_head = a.first_head + head;
  const OwnRows own(p, block, warp);
  const auto row_of = [&](int half) { return own.first + own.row + half * 8; };

  Operand q;
  RowState state[2];
  {
    const auto query = [&](int half) {
      return row_of(half) < block.rows ? a.q + head_row(p, s, kv_head, row_of(half)) * p.Dh : nullptr;
    };
    uint32_t part[kSteps][1][4];
    load_operand<1>(part, query(0), query(1), p.Dh, p.scale < 0 ? -1.0f : 1.0f);
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) q[step][i] = part[step][0][i];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      state[half] = a.sinks.state(kv_head * p.group + min(row_of(half), block.rows - 1) % p.group);
  }
  const float c = score_factor(p.scale);
  Sums out;
#pragma unroll
  for (int i = 0; i < 32; ++i) out[i] = 0;

  Turn turn;
  ring.pass_over(turn, own.seen.begin - block.seen.begin);
  for (int at = own.seen.begin; at < own.seen.end; ++at, turn.next()) {
    const uint32_t keys = shared_address(ring.await(turn));
    Sums score, sum;
    wgmma_fence();
    multiply_rows(score, q, keys);
    wgmma_wait<0>();
    own.mask(score, at);
    RowState one[2];
    float before[2], here[2];
    softmax_block(by_columns(score), c, one);
#pragma unroll
    for (int half = 0; half < 2; ++half) fold(state[half], one[half], before[half], here[half]);
    // fold_value in two steps, the first of which the largest score seldom asks for after a row's first blocks
    if (__any_sync(kAllLanes, before[0] != 1 || before[1] != 1)) {
#pragma unroll
      for (int i = 0; i < 32; ++i) out[i] *= before[half_of(i)];
    }
    Operand weight;
    as_operand(weight, score);
    wgmma_fence();
    multiply_columns<true>(sum, weight, keys + kTile);
    wgmma_wait<0>();
    ring.release(turn.slot);
#pragma unroll
    for (int i = 0; i < 32; ++i) out[i] = fused(sum[i], here[half_of(i)], out[i]);
  }
  ring.pass_over(turn, block.seen.end - own.seen.end);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (row_of(half) >= block.rows) continue;
    const int64_t at = head_row(p, s, kv_head, row_of(half));
    store_row<false>(a.o + at * p.Dh, out, half, 1.0f / state[half].sum, p.Dh, pairs);
    if (a.lse && threadIdx.x % 4 == 0) a.lse[at] = log_sum(state[half]);
  }
#endif
}

}  // namespace

void forward_wgmma(const Forward& f) {
  constexpr int kGroups = 3;
  const int64_t tiles = std::max<int64_t>(1, blocks_for(rows_of(f.p), kGroups * 64) + f.p.B);
  const int pairs = f.p.Dh % 2 == 0 && aligned(8, {f.o});
  with_packed_keys(f, [&](const RowsArgs& a, int heads) {
    launch(forward_tiles<kGroups>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(heads)),
           dim3((kGroups + 1) * kWarpgroup), ring_bytes(kKeyRecord), a, pairs);
  });
}

}  // namespace temper::gpu::attention
