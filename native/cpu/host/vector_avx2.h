// Eight f32 lanes, for the forms that are written over a vector type.
#pragma once
#include <immintrin.h>

namespace temper::cpu {
namespace {
struct Vector {
  using T = __m256;
  static constexpr int width = 8;
  static T zero() { return _mm256_setzero_ps(); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static T broadcast(float f) { return _mm256_set1_ps(f); }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
};
}  // namespace
}  // namespace temper::cpu
