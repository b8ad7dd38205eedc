// What kernels are written with: the words below mean a PTX instruction when nvcc compiles them and plain C++ when the
// emulation does (emulation/), so that every kernel runs in the tests of a machine without a GPU; another maker's
// compiler would be a third meaning here. Kernels use nothing that is not here (tensor cores: cuda/device) or in CUDA
// C++'s core, which HIP has too: threadIdx, __syncthreads, __shfl_*_sync, __ballot_sync, atomicAdd on integers,
// float4/uint4. No inline assembly elsewhere.
#pragma once
#include <cstdint>
#if defined(TEMPER_CUDA_EMULATION)
#include "emulation/emulation.h"
#else
#include <cuda_runtime.h>
#endif

namespace temper::gpu {

#if defined(TEMPER_CUDA_EMULATION)
#define TEMPER_DEVICE inline
#define TEMPER_BOTH inline
// A block's dynamic shared memory, 128-byte aligned: one per kernel.
#define TEMPER_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(::temper::gpu::emulation::dynamic_shared())
#else
#define TEMPER_DEVICE __device__ __forceinline__
#define TEMPER_BOTH __host__ __device__ __forceinline__
#define TEMPER_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char temper_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(temper_dynamic_shared)
#endif

#if defined(TEMPER_CUDA_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
constexpr bool kStartsEarly = true;
#else
constexpr bool kStartsEarly = false;
#endif
// First in every kernel, but for what asks for memory ahead: a launch lets it begin while the kernels before it end
// (runtime.h), so it waits here for what they write. From then on the kernel behind it may begin as soon as there is
// room for it; it waits here in its turn, so no more than two are ever under way. Nothing before sm_90.
TEMPER_DEVICE void wait_for_previous() {
#if !defined(TEMPER_CUDA_EMULATION) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Asks for the line at p to be in L2 soon. It may be written to meanwhile: all read and write through there.
TEMPER_DEVICE void prefetch_l2(const void* p) {
#if defined(TEMPER_CUDA_EMULATION)
  static_cast<void>(*static_cast<const volatile unsigned char*>(p));
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// ---- bf16 as raw bits ----
TEMPER_DEVICE float bits_to_float(uint32_t bits) {
#if defined(TEMPER_CUDA_EMULATION)
  return __builtin_bit_cast(float, bits);
#else
  return __uint_as_float(bits);
#endif
}
TEMPER_DEVICE uint32_t float_to_bits(float x) {
#if defined(TEMPER_CUDA_EMULATION)
  return __builtin_bit_cast(uint32_t, x);
#else
  return __float_as_uint(x);
#endif
}
TEMPER_DEVICE float bf16_to_float(uint16_t x) { return bits_to_float(static_cast<uint32_t>(x) << 16); }
// Nearest, ties to even; NaN stays NaN.
TEMPER_DEVICE uint16_t float_to_bf16(float x) {
  const uint32_t bits = float_to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
// Two floats as a pair of bf16, `low` in the low half: the order in which they lie in memory.
TEMPER_DEVICE uint32_t pack_bf16(float low, float high) {
#if defined(TEMPER_CUDA_EMULATION)
  return static_cast<uint32_t>(float_to_bf16(low)) | static_cast<uint32_t>(float_to_bf16(high)) << 16;
#else
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
#endif
}
// Two products of bf16, each rounded once; subnormals are kept. (fma: sm_80 and sm_86 have no mul.bf16x2.)
TEMPER_DEVICE uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
#if defined(TEMPER_CUDA_EMULATION)
  return pack_bf16(bits_to_float(a << 16) * bits_to_float(b << 16),
                   bits_to_float(a & 0xffff0000u) * bits_to_float(b & 0xffff0000u));
#else
  uint32_t out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(0x80008000u));
  return out;
#endif
}
// 16 bytes that are read once: kept out of L1, which serves what is shared.
TEMPER_DEVICE uint4 load_streaming(const void* p) {
#if defined(TEMPER_CUDA_EMULATION)
  return *static_cast<const uint4*>(p);
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
#endif
}
TEMPER_DEVICE float load_wf(const float* p) { return *p; }
TEMPER_DEVICE float load_wf(const uint16_t* p) { return bf16_to_float(*p); }

// a·b + c rounded once. Kernels say which sums are fused: nvcc runs with -fmad=false, so that a compiler's mood cannot
// change results.
TEMPER_DEVICE float fused(float a, float b, float c) {
#if defined(TEMPER_CUDA_EMULATION)
  return __builtin_fmaf(a, b, c);
#else
  return __fmaf_rn(a, b, c);
#endif
}

// x, of which the compiler knows nothing: what is computed from it inside a loop stays there instead of filling
// registers before it.
TEMPER_DEVICE float opaque(float x) {
#if !defined(TEMPER_CUDA_EMULATION)
  asm volatile("" : "+f"(x));
#endif
  return x;
}
// 2^x to about 2 units in the last place (PTX ISA, ex2.approx.ftz); below 2^-126 it is 0. Exact at 0 and at −∞.
TEMPER_DEVICE float exp2_approx(float x) {
#if defined(TEMPER_CUDA_EMULATION)
  const float y = __builtin_exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// ---- sums in a fixed order ----
// Every lane gets the result; all 32 lanes take part.
TEMPER_DEVICE float warp_sum(float x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
TEMPER_DEVICE double warp_sum(double x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
TEMPER_DEVICE float warp_max(float x) {
  for (int step = 16; step; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}
// Over a block of `Threads` (a multiple of 32, at most 1024); every thread gets the result. Two barriers.
template <int Threads, class T>
TEMPER_DEVICE T block_sum(T x) {
  __shared__ T parts[Threads / kWarp];
  x = warp_sum(x);
  __syncthreads();  // the parts of an earlier call are read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  T total = parts[0];
  for (int i = 1; i < Threads / kWarp; ++i) total += parts[i];
  return total;
}
template <int Threads>
TEMPER_DEVICE float block_max(float x) {
  __shared__ float parts[Threads / kWarp];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  float most = parts[0];
  for (int i = 1; i < Threads / kWarp; ++i) most = parts[i] > most ? parts[i] : most;
  return most;
}

// ---- faults ----
// What a kernel found wrong in its data (an index out of range, NaN where none may be). The first report wins; the host
// raises it as a typed error at the next point where it waits. A kernel that reports goes on with a harmless value,
// never with a wild address. bad_number: value holds a float's bits
enum class FaultCode : int32_t { none = 0, bad_index, not_finite, bad_scale, no_candidate, repeated_row, bad_number };
// An op's or an argument's name by value, up to 23 letters: a pointer to a literal of device code means nothing to the
// host that reads the report.
struct FaultName {
  char letters[24];
  TEMPER_BOTH FaultName(const char* text = "") {
    bool ended = false;
    for (int i = 0; i < 24; ++i) {
      ended = ended || i == 23 || text[i] == '\0';
      letters[i] = ended ? '\0' : text[i];
    }
  }
};
struct Fault {
  int32_t code;   // FaultCode, claimed with a compare-and-swap
  int32_t ready;  // the rest is written
  FaultName op, argument;
  long long at, value, limit;
};
TEMPER_DEVICE void report_fault(Fault* fault, FaultCode code, const FaultName& op, const FaultName& argument,
                                long long at, long long value, long long limit) {
  if (atomicCAS(&fault->code, 0, static_cast<int32_t>(code)) != 0) return;
  fault->op = op;
  fault->argument = argument;
  fault->at = at;
  fault->value = value;
  fault->limit = limit;
  __threadfence_system();
  fault->ready = 1;
}
// The index if it is in [0, limit), else 0 and a report.
TEMPER_DEVICE int64_t checked_index(Fault* fault, const FaultName& op, const FaultName& argument, int64_t at,
                                    int64_t index, int64_t limit) {
  if (index >= 0 && index < limit) return index;
  report_fault(fault, FaultCode::bad_index, op, argument, at, index, limit);
  return 0;
}

}  // namespace temper::gpu
