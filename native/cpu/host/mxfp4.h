// MXFP4 (OCP MX v1.0): 32 E2M1 codes share one E8M0 scale. Byte j holds element 2j in its low and 2j+1 in its high
// nibble.
#pragma once
#include <cstdint>
#include <limits>

namespace temper::cpu {

inline constexpr int64_t kGroup = 32;
inline constexpr float kE2M1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

// 2^(e−127); 255 is the format's NaN.
inline float e8m0_to_float(uint8_t e) {
  if (e == 255) return std::numeric_limits<float>::quiet_NaN();
  return __builtin_bit_cast(float, e ? uint32_t{e} << 23 : uint32_t{1} << 22);  // 2^−127 is subnormal
}

inline float mxfp4_element(const uint8_t* block, uint8_t scale, int i) {
  const int code = i & 1 ? block[i >> 1] >> 4 : block[i >> 1] & 15;
  return kE2M1[code] * e8m0_to_float(scale);
}

}  // namespace temper::cpu
