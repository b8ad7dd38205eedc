// What several kernels compute of one element alike, so that an op and a kernel that holds it within give the same
// bits.
#pragma once
#include "gpu/device.cuh"

namespace temper::gpu {

// rmsnorm of a row of D elements whose squares add up to `squares`
TEMPER_DEVICE float inverse_root_mean(float squares, int64_t D, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(D) + eps);
}

// rope of the elements j and j + Dh/2 of a head
struct Turned {
  float first, second;
};
TEMPER_DEVICE Turned turn(float first, float second, float cosine, float sine) {
  return {first * cosine - second * sine, second * cosine + first * sine};
}

struct Unit {
  float gate, lin, sigma;
};
TEMPER_DEVICE Unit unit_of(float g, float u, float alpha, float limit) {
  const float gate = g > limit ? limit : g;
  float lin = u > limit ? limit : u;
  lin = lin < -limit ? -limit : lin;
  return {gate, lin, 1.0f / (1.0f + expf(-(alpha * gate)))};
}
TEMPER_DEVICE float swiglu(float gate, float lin, float alpha, float limit) {
  const Unit x = unit_of(gate, lin, alpha, limit);
  return x.gate * x.sigma * (x.lin + 1.0f);
}

}  // namespace temper::gpu
