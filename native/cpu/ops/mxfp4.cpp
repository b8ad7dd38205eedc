// MXFP4 encoder and decoder by bits: ties and scale follow from the exponent and mantissa fields, no logarithm is
// taken.
#include <bit>
#include <cmath>

#include "cpu/host/mxfp4.h"
#include "cpu/host/number.h"
#include "cpu/ops.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {
constexpr int64_t kGroupsPerTask = 512;
}  // namespace

Cost cost::mxfp4_quantize(const args::mxfp4_quantize& a) { return streamed(a); }
Cost cost::mxfp4_dequantize(const args::mxfp4_dequantize& a) { return streamed(a); }

void mxfp4_quantize(TensorRef blocks, TensorRef scales, TensorRef w) {
  parallel_ranges(scales->numel(), kGroupsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      float x[kGroup];
      uint32_t peak = 0;
      for (int i = 0; i < kGroup; ++i) {
        x[i] = static_cast<float>(element(*w, g * kGroup + i));
        const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
        peak = bits > peak ? bits : peak;
      }
      if (peak >= 0x7f800000u)
        for (int i = 0; i < kGroup; ++i)
          require(std::isfinite(x[i]), "not_finite", "mxfp4_quantize: w[", g * kGroup + i, "]: got ", x[i],
                  ", wanted a finite number");
      const int exponent = static_cast<int>(peak >> 23) > 3 ? static_cast<int>(peak >> 23) - 2 : 1;  // at most 252
      // 2^(127−e): exact, for e ≤ 253
      const float inverse = std::bit_cast<float>(static_cast<uint32_t>(254 - exponent) << 23);
      scales->u8()[g] = static_cast<uint8_t>(exponent);
      uint8_t* out = blocks->u8() + g * 16;
      const auto code = [&](float v) {
        const float a = std::fabs(v * inverse);
        // Halfway points between neighbouring codes; a tie goes to the smaller one.
        const int c = (a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f) + (a > 2.5f) + (a > 3.5f) + (a > 5.0f);
        return static_cast<uint8_t>(c ? c | (v < 0 ? 8 : 0) : 0);
      };
      for (int j = 0; j < 16; ++j) out[j] = static_cast<uint8_t>(code(x[2 * j]) | code(x[2 * j + 1]) << 4);
    }
  });
}

void mxfp4_dequantize(TensorRef w, TensorRef blocks, TensorRef scales) {
  parallel_ranges(scales->numel(), kGroupsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const uint8_t scale = scales->u8()[g];
      require(scale != 255, "bad_scale", "mxfp4_dequantize: scales[", g,
              "]: got 255, the format's NaN; wanted 0 to 254");
      const float factor = std::bit_cast<float>(scale ? static_cast<uint32_t>(scale) << 23 : 0x00400000u);
      const uint8_t* block = blocks->u8() + g * 16;
      for (int i = 0; i < kGroup; ++i) {
        const float v = kE2M1[i & 1 ? block[i >> 1] >> 4 : block[i >> 1] & 15] * factor;
        if (w->dtype == DType::bf16) w->bf16()[g * kGroup + i] = float_to_bf16(v);
        else w->f32()[g * kGroup + i] = v;
      }
    }
  });
}

}  // namespace temper::cpu
