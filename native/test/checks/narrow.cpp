// Products with at most 64 columns (native/cuda/matmul/narrow.cu): a row of h has the same bits in tiles of 32 and of
// 64 rows and whatever rows are beside it, and a LoRA pair takes the launches that it is meant to take.
#include <string>

#include "cuda/matmul/matmul.h"
#include "emulation/emulation.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

Value first_rows(const Value& x, int64_t rows) {
  Shape shape(x.tensor.shape, x.tensor.shape + x.tensor.ndim);
  const size_t row = x.bytes.size() / static_cast<size_t>(shape[0]);
  shape[0] = rows;
  Value y(x.tensor.dtype, shape, Role::in);
  y.bytes.assign(x.bytes.begin(), x.bytes.begin() + static_cast<std::ptrdiff_t>(row) * rows);
  return y;
}

}  // namespace

void check_narrow(const Backend& emulated, Tally& tally) {
  emulated.variants[0].enter();
  gpu::Device& device = gpu::device();
  const gpu::Device as_opened = device;
  const auto with = [&](int multiprocessors, const std::string& op, const Values& args) {
    device.multiprocessors = multiprocessors;
    Values after = call(emulated, op, args);
    device = as_opened;
    return after;
  };
  const auto expect = [&](const std::string& what, int64_t got, int64_t wanted) {
    report(tally, got == wanted,
           "narrow: " + what + ": " + std::to_string(got) + " launches, wanted " + std::to_string(wanted));
  };
  // The sums of eight warps, the second round of two of them and a tail of k; more rows than the kernels of few rows
  // take, the last tiles of 64 and of 32 short. Bits are looked at in h alone, so y has few columns there; where
  // launches are counted it has more than 64, so that its product is no narrow one.
  const int64_t T = 180, N = 72, few = 8, C = 608, E = 3, some = 135;
  const auto packed = [&](int64_t n) { return bytes_u8({E, n, C / 32, 16}, 3); };
  const auto scales_of = [&](int64_t n) { return bytes_u8({E, n, C / 32}, 4, 118, 123); };
  const Value none(nullptr), x = floats({T, C}, 1), w = floats({N, C}, 2, 1, DType::bf16), blocks = packed(N),
                             scales = scales_of(N), few_blocks = packed(few), few_scales = scales_of(few),
                             rows = indices({T}, 5, T), offsets = values_i32({E + 1}, {0, 135, 135, 180}),
                             fewer = values_i32({E + 1}, {0, 135, 135, 135});
  // each kernel at its most columns (8, 16, 64) or fewest (17), and one column
  for (const int64_t R : {1, 8, 16, 17, 64}) {
    const std::string rank = "rank " + std::to_string(R);
    const Value A = floats({R, C}, 6), B = floats({N, R}, 7), As = floats({E, R, C}, 8), Bs = floats({E, N, R}, 9);
    const auto dense = [&](int64_t t, int multiprocessors, int64_t width) {
      return with(multiprocessors, "linear_fwd",
                  {out({t, few}), out({t, R}), width == C ? first_rows(x, t) : floats({t, width}, 1),
                   floats({few, width}, 2, 1, width == C ? DType::bf16 : DType::f32), none,
                   width == C ? A : floats({R, width}, 6), floats({few, R}, 7), 0.7, 0, 0, 1, 0})[1];
    };
    const auto experts = [&](int64_t t, int multiprocessors) {
      return with(multiprocessors, "grouped_linear_fwd",
                  {out({t, few}), out({t, R}), x, first_rows(rows, t), t == T ? offsets : fewer, few_blocks, few_scales,
                   none, As, floats({E, few, R}, 9), 0.7, 0, 1, 0})[1];
    };
    const int64_t odd = 581;  // not a multiple of 8: rows are padded
    const Value whole = dense(T, 1, C), all = experts(T, 1);
    report(tally, whole.bytes == dense(T, 1 << 20, C).bytes, "narrow: " + rank + ": other bits in tiles of 32 rows");
    report(tally, first_rows(whole, some).bytes == dense(some, 1, C).bytes,
           "narrow: " + rank + ": other bits beside fewer rows");
    report(tally, dense(T, 1, odd).bytes == dense(T, 1 << 20, odd).bytes,
           "narrow: " + rank + ", odd k: other bits in tiles of 32 rows");
    report(tally, all.bytes == experts(T, 1 << 20).bytes,
           "narrow: " + rank + " of experts: other bits in tiles of 32 rows");
    report(tally, first_rows(all, some).bytes == experts(some, 1).bytes,
           "narrow: " + rank + " of experts: other bits beside fewer rows");

    const auto launches = [&](const std::string& op, const Values& args) {
      const int64_t before = gpu::emulation::launches();
      call(emulated, op, args);
      return gpu::emulation::launches() - before;
    };
    const Value dy = floats({T, N}, 10), h = floats({T, R}, 11), dA = update(floats({R, C}, 12)),
                dB = update(floats({N, R}, 13)), dAs = update(floats({E, R, C}, 14)),
                dBs = update(floats({E, N, R}, 15));
    // x, A, h, B and the product; h's copy comes with h
    expect(rank + " forward", launches("linear_fwd", {out({T, N}), out({T, R}), x, w, none, A, B, 0.7, 0, 0, 1, 0}), 5);
    expect(rank + " of experts forward",
           launches("grouped_linear_fwd",
                    {out({T, N}), out({T, R}), x, rows, offsets, blocks, scales, none, As, Bs, 0.7, 0, 1, 0}),
           5);
    // dy, u, A, dx; x, dA; dB
    expect(rank + " backward",
           launches("linear_bwd", {out({T, C}), none, none, dA, dB, dy, x, h, w, A, B, 0.7, 0, 0, 0, 1}), 7);
    expect(rank + " of experts backward",
           launches("grouped_linear_bwd", {out({T, C}), none, none, dAs, dBs, dy, none, floats({T}, 16), x, rows, h,
                                           offsets, blocks, scales, As, Bs, 0.7, 0, 1}),
           7);
  }
}

}  // namespace temper::test
