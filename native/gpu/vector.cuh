// Wide accesses of the ops that are bound by memory: 16 bytes to a thread where addresses allow, single elements where
// they do not. A kernel is written once for a width W of 4 or 1 elements; the host picks W from the addresses and the
// row's length.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "gpu/device.cuh"
#if defined(TEMPER_CUDA_EMULATION)
#include <cstring>
#include "temper/error.h"
#endif

namespace temper::gpu {

constexpr int kThreads = 256;  // of a block, where nothing asks for another number: 8 blocks fill a multiprocessor

// One access of sizeof(V) bytes; the address must be a multiple of it.
template <class V>
TEMPER_DEVICE V load_as(const void* p) {
#if defined(TEMPER_CUDA_EMULATION)
  require(reinterpret_cast<uintptr_t>(p) % alignof(V) == 0, "device_lost", "misaligned load of ", sizeof(V), " bytes");
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
#else
  return *static_cast<const V*>(p);
#endif
}
template <class V>
TEMPER_DEVICE void store_as(void* p, V v) {
#if defined(TEMPER_CUDA_EMULATION)
  require(reinterpret_cast<uintptr_t>(p) % alignof(V) == 0, "device_lost", "misaligned store of ", sizeof(V), " bytes");
  std::memcpy(p, &v, sizeof v);
#else
  *static_cast<V*>(p) = v;
#endif
}

template <int W>
struct Floats {
  float v[W];
};

template <int W>
TEMPER_DEVICE Floats<W> load(const float* p) {
  if constexpr (W == 4) {
    const float4 x = load_as<float4>(p);
    return {{x.x, x.y, x.z, x.w}};
  } else if constexpr (W == 2) {
    const float2 x = load_as<float2>(p);
    return {{x.x, x.y}};
  } else {
    return {{*p}};
  }
}
template <int W>
TEMPER_DEVICE Floats<W> load(const uint16_t* p) {  // bf16
  if constexpr (W == 4) {
    const uint2 x = load_as<uint2>(p);
    return {{bits_to_float(x.x << 16), bits_to_float(x.x & 0xffff0000u), bits_to_float(x.y << 16),
             bits_to_float(x.y & 0xffff0000u)}};
  } else {
    return {{bf16_to_float(*p)}};
  }
}
template <int W>
TEMPER_DEVICE void store(float* p, const Floats<W>& x) {
  if constexpr (W == 4) store_as(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
  else if constexpr (W == 2) store_as(p, make_float2(x.v[0], x.v[1]));
  else *p = x.v[0];
}
template <int W>
TEMPER_DEVICE void store(uint16_t* p, const Floats<W>& x) {  // bf16, nearest even
  if constexpr (W == 4) store_as(p, make_uint2(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3])));
  else if constexpr (W == 2) store_as(p, pack_bf16(x.v[0], x.v[1]));
  else *p = float_to_bf16(x.v[0]);
}

// Calls body(i, width) for the elements of [0, n) that fall to this thread: one group of W, or what is left of the last
// one element by element. A flat kernel is `flat<W>(n, [&](int64_t i, auto width) { constexpr int N = width.value; …
// load<N>(x + i) … })` on a grid of flat_blocks(n, W).
template <int W, class F>
TEMPER_DEVICE void flat(int64_t n, F&& body) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * W;
  if (i + W <= n) {
    body(i, std::integral_constant<int, W>{});
  } else if constexpr (W > 1) {
    for (int64_t j = i; j < n; ++j) body(j, std::integral_constant<int, 1>{});
  }
}
inline int64_t flat_blocks(int64_t n, int width) { return (n + kThreads * width - 1) / (kThreads * width); }

inline bool aligned(size_t bytes, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) return false;
  return true;
}
// Calls f with a width of 4 or 1 as a constant.
template <class F>
void with_width(bool wide, F&& f) {
  if (wide) f(std::integral_constant<int, 4>{});
  else f(std::integral_constant<int, 1>{});
}

// A block of kThreads as lanes over a row (x, a power of two) and rows (y).
struct RowShape {
  unsigned lanes, rows;
};
inline RowShape row_shape(int64_t vectors) {
  unsigned lanes = 1;
  while (lanes < kThreads && lanes < vectors) lanes *= 2;
  return {lanes, kThreads / lanes};
}

}  // namespace temper::gpu
