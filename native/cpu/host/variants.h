// Compiles a kernel once per instruction set and runs the active one. A kernel is a struct with
//   template <int W> static TEMPER_INLINE void run(args by value…)      W = f32 lanes of a vector register
// written as plain loops (`#pragma omp simd reduction` where a sum may be split over lanes); the compiler vectorises
// each copy.
#pragma once
#include "cpu/host/isa.h"
#include "cpu/host/number.h"

namespace temper::cpu {

#if defined(__x86_64__)
template <class Kernel, class... A>
__attribute__((noinline,
               target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) void run_avx512(A... a) {
  Kernel::template run<16>(a...);
}
template <class Kernel, class... A>
__attribute__((noinline, target("avx2,fma"))) void run_avx2(A... a) {
  Kernel::template run<8>(a...);
}
#endif
template <class Kernel, class... A>
// SSE2 or NEON, whatever the target guarantees
__attribute__((noinline)) void run_portable(A... a) {
  Kernel::template run<4>(a...);
}

template <class Kernel, class... A>
void run_kernel(A... a) {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512:
    case Isa::avx512bf16:
    case Isa::amx: return run_avx512<Kernel, A...>(a...);
    case Isa::avx2: return run_avx2<Kernel, A...>(a...);
    default: break;
  }
#endif
  run_portable<Kernel, A...>(a...);
}

// Elements a task should touch at least, so that waking a thread costs less than it saves.
inline constexpr int64_t kTaskElements = 32768;
inline int64_t rows_per_task(int64_t width) {
  return width >= kTaskElements ? 1 : kTaskElements / (width > 0 ? width : 1);
}

}  // namespace temper::cpu
