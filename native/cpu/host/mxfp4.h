// MXFP4 (OCP MX v1.0): 32 E2M1 codes share one E8M0 scale. Byte j holds element 2j in its low and 2j+1 in its high
// nibble.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace temper::cpu {

inline constexpr int64_t kGroup = 32;
inline constexpr float kE2M1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

// 2^(e−127); 255 is the format's NaN.
inline float e8m0_to_float(uint8_t e) {
  return e == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, static_cast<int>(e) - 127);
}

inline float mxfp4_element(const uint8_t* block, uint8_t scale, int i) {
  const int code = i & 1 ? block[i >> 1] >> 4 : block[i >> 1] & 15;
  return scale == 255 ? std::numeric_limits<float>::quiet_NaN()
                      : std::ldexp(kE2M1[code], static_cast<int>(scale) - 127);
}

}  // namespace temper::cpu
