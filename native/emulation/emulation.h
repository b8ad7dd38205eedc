// CUDA C++ on the CPU, for tests: the words of cuda/device.cuh and of the CUDA runtime that the backend uses. A block's
// threads are fibers of one OS thread that run until they meet a barrier or a warp operation; warp operations, mma and
// ldmatrix have the lane-by-lane meaning that the PTX ISA gives them. cp.async copies when it is waited for, so a
// missing wait shows. Threads start in rising or falling order: results must not differ. What it cannot show: races
// within a warp, bank conflicts, coalescing, speed, and memory ordering weaker than a barrier.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __constant__ static const
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define TEMPER_VECTOR(type, name)                                             \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                    \
  struct name##3 { type x, y, z; };                                           \
  struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };              \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
TEMPER_VECTOR(float, float)
TEMPER_VECTOR(int, int)
TEMPER_VECTOR(unsigned, uint)
TEMPER_VECTOR(unsigned short, ushort)
TEMPER_VECTOR(unsigned char, uchar)
#undef TEMPER_VECTOR
struct alignas(16) double2 {
  double x, y;
};
inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- the runtime ----
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorECCUncorrectable = 214
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout
};
enum cudaSharedCarveout { cudaSharedmemCarveoutMaxShared = 100 };
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrL2CacheSize = 38
};
constexpr unsigned cudaHostAllocMapped = 2, cudaHostAllocPortable = 1, cudaHostAllocDefault = 0,
                   cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaEventBlockingSync = 1,
                   cudaEventDefault = 0;
namespace temper::gpu::emulation {
struct Stream;
struct Event;
struct Graph;
}  // namespace temper::gpu::emulation
using cudaStream_t = temper::gpu::emulation::Stream*;
using cudaEvent_t = temper::gpu::emulation::Event*;
using cudaGraph_t = temper::gpu::emulation::Graph*;
using cudaGraphExec_t = temper::gpu::emulation::Graph*;
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount, l2CacheSize;
};
const char* cudaGetErrorString(cudaError_t);
const char* cudaGetErrorName(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int index);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int index);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** out, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void* p);
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags);
cudaError_t cudaMemcpy(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemsetAsync(void* dst, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceReset();  // a lost device is usable again; its memory is not freed here
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
// Capture records launches, copies and fills; nothing runs until the graph is launched.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out);
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);

namespace temper::gpu::emulation {

// What a machine of the tests looks like; set before a device is opened.
struct Machine {
  int devices = 1, major = 9, minor = 0, multiprocessors = 4, shared_per_block = 227 * 1024, driver = 13000;
  size_t memory = size_t{4} << 30;
  int64_t fail_allocation = -1;  // the n-th cudaMalloc from now on fails
  int64_t fail_launch = -1;      // the n-th launch from now on loses the device
};
Machine& machine();
enum class Order { rising, falling };
void set_order(Order order);
int64_t launches();  // kernels run since the start, those of graphs too

// ---- a running block ----
struct Uint3 {
  unsigned x, y, z;
};
struct Warp;
struct Block;
struct Thread {
  Uint3 index;
  int lane;
  Warp* warp;
  Block* block;
};
extern thread_local Thread* running;
extern thread_local Uint3 block_index;
extern thread_local dim3 block_shape, grid_shape;

void launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, std::function<void()> thread);
void* dynamic_shared();
void barrier();                                             // __syncthreads
void named_barrier(int id, int threads);                    // bar.sync id, threads
void counter_init(const void* counter, unsigned arrivals);  // mbarrier
void counter_arrive(const void* counter);
void counter_wait(const void* counter, unsigned parity);
void counter_expect(const void* counter, unsigned bytes);  // arrives; the phase also waits for that many bytes
// cp.async.bulk. Rising: the bytes come when no thread can go on without them. Falling: at once.
void bulk_copy(void* shared, const void* global, unsigned bytes, const void* counter);
int barrier_count(bool predicate);  // __syncthreads_count
// All lanes of `mask` meet; the last runs compute(slots), slots[lane] being what each gave.
void warp_operation(unsigned mask, const char* name, void* mine, void (*compute)(void* const* slots, unsigned mask));
unsigned live_lanes();

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed);
void cp_async(void* shared, const void* global, bool valid);
void cp_async_commit();
void cp_async_wait(int pending);
uint32_t shared_address(const void* p);  // in the block's dynamic shared memory
// Products of a warpgroup read shared memory and write d when they are waited for: a tile that is overwritten too
// early, or d read too early, shows. A missing fence_async_proxy() does not.
void fence_async_proxy();
void wgmma(float* d, int n, uint64_t a, uint64_t b, bool b_transposed);
// a's registers are read when d is written: too early a change of them shows. fresh: d's old value counts as 0
void wgmma(float* d, int n, const uint32_t* a, uint64_t b, bool b_transposed = false, bool fresh = false);
int64_t warpgroup_products();  // computed since the start, one for each warp
void wgmma_commit();
void wgmma_wait(int pending);

template <class T>
struct Shuffle {
  T value, result;
  int source;
};
template <class T>
T shuffle(unsigned mask, T value, int source) {
  Shuffle<T> mine{value, value, source};
  warp_operation(mask, "shuffle", &mine, [](void* const* slots, unsigned lanes) {
    for (int i = 0; i < 32; ++i) {
      if (!(lanes >> i & 1)) continue;
      auto* s = static_cast<Shuffle<T>*>(slots[i]);
      if (s->source >= 0 && s->source < 32 && (lanes >> s->source & 1))
        s->result = static_cast<Shuffle<T>*>(slots[s->source])->value;
    }
  });
  return mine.result;
}
unsigned ballot(unsigned mask, bool predicate);

}  // namespace temper::gpu::emulation

#define threadIdx (::temper::gpu::emulation::running->index)
#define blockIdx (::temper::gpu::emulation::block_index)
#define blockDim (::temper::gpu::emulation::block_shape)
#define gridDim (::temper::gpu::emulation::grid_shape)

inline void __syncthreads() { ::temper::gpu::emulation::barrier(); }
inline int __syncthreads_count(int p) { return ::temper::gpu::emulation::barrier_count(p != 0); }
inline int __syncthreads_or(int p) { return ::temper::gpu::emulation::barrier_count(p != 0) > 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::temper::gpu::emulation::ballot(mask, true); }
inline unsigned __ballot_sync(unsigned mask, int p) { return ::temper::gpu::emulation::ballot(mask, p != 0); }
inline int __any_sync(unsigned mask, int p) { return ::temper::gpu::emulation::ballot(mask, p != 0) != 0; }
inline int __all_sync(unsigned mask, int p) { return ::temper::gpu::emulation::ballot(mask, p == 0) == 0; }
template <class T>
T __shfl_sync(unsigned mask, T x, int source, int width = 32) {
  const int lane = ::temper::gpu::emulation::running->lane;
  return ::temper::gpu::emulation::shuffle(mask, x, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32) {
  const int lane = ::temper::gpu::emulation::running->lane, to = lane ^ bits;
  return ::temper::gpu::emulation::shuffle(mask, x, (to & ~(width - 1)) > (lane & ~(width - 1)) ? lane : to);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const int lane = ::temper::gpu::emulation::running->lane, to = lane - static_cast<int>(by);
  return ::temper::gpu::emulation::shuffle(mask, x, to < (lane & ~(width - 1)) ? lane : to);
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const int lane = ::temper::gpu::emulation::running->lane, to = lane + static_cast<int>(by);
  return ::temper::gpu::emulation::shuffle(mask, x, to >= (lane & ~(width - 1)) + width ? lane : to);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T x) {
  *p = x;
}

#define TEMPER_ATOMIC(name, T, update)                                                                                 \
  inline T name(T* p, T x) {                                                                                           \
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                                      \
    while (!__atomic_compare_exchange_n(p, &old, static_cast<T>(update), false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) { \
    }                                                                                                                  \
    return old;                                                                                                        \
  }
#define TEMPER_ATOMICS(T)                                                                \
  TEMPER_ATOMIC(atomicAdd, T, old + x)                                                   \
  TEMPER_ATOMIC(atomicMax, T, old > x ? old : x)                                         \
  TEMPER_ATOMIC(atomicMin, T, old < x ? old : x)                                         \
  TEMPER_ATOMIC(atomicOr, T, old | x)                                                    \
  TEMPER_ATOMIC(atomicAnd, T, old& x)                                                    \
  TEMPER_ATOMIC(atomicExch, T, x)                                                        \
  inline T atomicCAS(T* p, T want, T x) {                                                \
    __atomic_compare_exchange_n(p, &want, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return want;                                                                         \
  }
TEMPER_ATOMICS(int)
TEMPER_ATOMICS(unsigned)
TEMPER_ATOMICS(unsigned long long)
#undef TEMPER_ATOMICS
#undef TEMPER_ATOMIC

// Single-rounding arithmetic and bit words.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1u) << (31 - i);
  return out;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> (4 * i) & 0xfu;
    const unsigned byte = static_cast<unsigned>(bytes >> (8 * (s & 7u))) & 0xffu;
    out |= (s & 8u ? (byte & 0x80u ? 0xffu : 0u) : byte) << (8 * i);
  }
  return out;
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
