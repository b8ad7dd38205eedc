// The emulation of CUDA itself: a small tile product through cp.async, ldmatrix and mma gives the sums of a plain loop
// to the bit, and kernels that are wrong (a barrier that not all reach, a copy that is not waited for) are caught.
#include <cmath>
#include <exception>
#include <string>
#include <vector>

#include "cuda/device/tensor_cores.cuh"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

using gpu::emulation::Order;

// c[16,8] = a[16,32]·b[8,32]ᵀ by one warp; b is also read transposed from [32,8] to see both forms of ldmatrix.
__global__ void tile_product(float* c, const uint16_t* a, const uint16_t* b, const uint16_t* b_outer, bool transposed,
                             bool wait) {
  TEMPER_DYNAMIC_SHARED(uint16_t, shared);
  uint16_t *as = shared, *bs = shared + 16 * 32;
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 16 * 32 / 8; i += 32) gpu::cp_async16(as + 8 * i, a + 8 * i);
  for (int i = lane; i < 8 * 32 / 8; i += 32) gpu::cp_async16(bs + 8 * i, (transposed ? b_outer : b) + 8 * i);
  gpu::cp_async_commit();
  if (wait) gpu::cp_async_wait<0>();
  __syncthreads();
  float d[4] = {};
  for (int k = 0; k < 32; k += 16) {
    uint32_t af[4], bf[4];
    gpu::ldmatrix_x4(af, as + (lane % 16) * 32 + k + (lane / 16) * 8);
    if (transposed) gpu::ldmatrix_x4_transposed(bf, bs + (k + lane % 16) * 8);
    else gpu::ldmatrix_x4(bf, bs + (lane % 8) * 32 + k + (lane / 8 % 2) * 8);
    const uint32_t pair[2] = {bf[0], bf[1]};
    gpu::mma_bf16(d, af, pair);
  }
  for (int i = 0; i < 4; ++i) c[(lane / 4 + (i / 2) * 8) * 8 + 2 * (lane % 4) + i % 2] = d[i];
}

__global__ void half_a_barrier(int* out) {
  if (threadIdx.x % 32 < 16) __syncthreads();
  else __syncwarp();
  out[threadIdx.x] = 1;
}
__global__ void divergent_shuffle(float* out) {
  const float x = threadIdx.x % 2 ? __shfl_sync(0x0000ffffu, 1.0f, 0) : gpu::warp_sum(1.0f);
  out[threadIdx.x] = x;
}
__global__ void sums(float* out, int* count) {
  const float x = static_cast<float>(threadIdx.x);
  const float total = gpu::block_sum<128>(x), most = gpu::block_max<128>(-x);
  const unsigned odd = __ballot_sync(gpu::kAllLanes, threadIdx.x & 1);
  if (threadIdx.x % 32 == 0) atomicAdd(count, __popc(odd));
  out[blockIdx.x * 128 + threadIdx.x] = total + most + __shfl_down_sync(gpu::kAllLanes, x, 1);
}

bool fails(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception&) {
    return true;
  }
  return false;
}

}  // namespace

void check_emulation(Tally& tally) {
  std::vector<uint16_t> a(16 * 32), b(8 * 32), b_outer(8 * 32);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = gpu::float_to_bf16(static_cast<float>(static_cast<int>(random_bits(1, i) % 17) - 8));
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 32; ++k)
      b_outer[static_cast<size_t>(k * 8 + n)] = b[static_cast<size_t>(n * 32 + k)] = gpu::float_to_bf16(
          static_cast<float>(static_cast<int>(random_bits(2, static_cast<uint64_t>(n * 32 + k)) % 17) - 8));
  for (Order order : {Order::rising, Order::falling}) {
    gpu::emulation::set_order(order);
    for (bool transposed : {false, true})
      for (bool wait : {true, false}) {
        std::vector<float> c(16 * 8, NAN);
        gpu::emulation::launch(nullptr, 1, 32, (16 + 8) * 32 * 2,
                               [&] { tile_product(c.data(), a.data(), b.data(), b_outer.data(), transposed, wait); });
        bool equal = true;
        for (int r = 0; r < 16; ++r)
          for (int n = 0; n < 8; ++n) {
            float sum = 0;
            for (int k = 0; k < 32; ++k)
              sum += gpu::bf16_to_float(a[static_cast<size_t>(r * 32 + k)]) *
                     gpu::bf16_to_float(b[static_cast<size_t>(n * 32 + k)]);
            equal = equal && sum == c[static_cast<size_t>(r * 8 + n)];
          }
        report(tally, equal == wait,
               std::string("emulation: tile product") + (transposed ? ", transposed" : "") +
                   (wait ? "" : ", without waiting for the copies"));
      }
    std::vector<float> out(256, NAN);
    int count = 0;
    gpu::emulation::launch(nullptr, 2, 128, 0, [&] { sums(out.data(), &count); });
    bool right = count == 2 * 4 * 16;
    for (int i = 0; i < 256; ++i)
      right =
          right && out[static_cast<size_t>(i)] == 8128.0f + static_cast<float>(i % 32 == 31 ? i % 128 : i % 128 + 1);
    report(tally, right, "emulation: block sum, block max, ballot, shuffle, atomics");
    std::vector<int> marks(64);
    report(tally, fails([&] { gpu::emulation::launch(nullptr, 1, 64, 0, [&] { half_a_barrier(marks.data()); }); }),
           "emulation: a barrier that half a warp misses must not pass");
    report(tally, fails([&] { gpu::emulation::launch(nullptr, 1, 32, 0, [&] { divergent_shuffle(out.data()); }); }),
           "emulation: a shuffle that not all its lanes reach must not pass");
  }
  gpu::emulation::set_order(Order::rising);
}

}  // namespace temper::test
