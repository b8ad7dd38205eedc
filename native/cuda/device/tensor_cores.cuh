// The words of NVIDIA's tensor cores and of what feeds them, as gpu/device.cuh has those of every GPU.
#pragma once
#include "gpu/device.cuh"

namespace temper::gpu {

// ---- tensor cores ----
// d[16,8] += a[16,16]·b[16,8]ᵀ-style fragments of mma.sync.m16n8k16.row.col (PTX ISA, bf16 fragments). Lane l, g = l/4,
// t = l%4:
//   a[0] = A[g][2t,2t+1]  a[1] = A[g+8][2t,2t+1]  a[2] = A[g][2t+8,2t+9]  a[3] = A[g+8][2t+8,2t+9]
//   b[0] = B[k=2t,2t+1][n=g]  b[1] = B[k=2t+8,2t+9][n=g];   d[0,1] = D[g][2t,2t+1]  d[2,3] = D[g+8][2t,2t+1]
TEMPER_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::mma_bf16(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
// Four 8×8 matrices of 16-bit elements from shared memory: lanes 8i…8i+7 give the 16-byte rows of matrix i; r[i] of
// lane l = its row l/4, columns 2(l%4), 2(l%4)+1. The transposed form gives r[i] = column l/4, rows 2(l%4), 2(l%4)+1.
// Rows must be 16-byte aligned.
TEMPER_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::ldmatrix(r, row, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}
TEMPER_DEVICE void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::ldmatrix(r, row, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

// ---- warpgroup products (sm_90a) ----
// A warpgroup is 4 consecutive warps. Both operands lie in shared memory under 128-byte swizzle, in tiles that begin at
// multiples of 1024 bytes: rows of 128 bytes (64 bf16), 16-byte chunk c of row r at chunk c ^ (r % 8). The hardware
// reads them after the issue, through another path than ordinary stores take.
#if defined(TEMPER_CUDA_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TEMPER_HAS_WGMMA 1
#endif
TEMPER_DEVICE uint32_t shared_address(const void* p) {
#if defined(TEMPER_CUDA_EMULATION)
  return emulation::shared_address(p);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
#endif
}
// Matrix descriptor (PTX ISA, wgmma, shared memory matrix layout): start address, leading and stride offset in 16-byte
// units, layout 1 = 128-byte swizzle. Rows along the outer index (k inner): stride = bytes between groups of 8 rows;
// leading is not used. Rows along k: stride = bytes between groups of 8 k, leading = bytes between blocks of 64 outer
// elements. A step of 16 k is +32 bytes in the first form, two groups in the second.
TEMPER_DEVICE uint64_t swizzled_matrix(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | uint64_t{1} << 62;
}
#if defined(TEMPER_HAS_WGMMA)
// Shared memory that this thread wrote is what the tensor cores read after the next barrier.
TEMPER_DEVICE void fence_async_proxy() {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::fence_async_proxy();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// Before the first product on accumulators that ordinary instructions touched.
TEMPER_DEVICE void wgmma_fence() {
#if !defined(TEMPER_CUDA_EMULATION)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
TEMPER_DEVICE void wgmma_commit() {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::wgmma_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Waits until at most `pending` committed groups are under way.
template <int pending>
TEMPER_DEVICE void wgmma_wait() {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::wgmma_wait(pending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#endif
}
// d[64,192] += a[64,16]·b[192,16]ᵀ, a with k inner, b with k inner or not. Warp w of the warpgroup, lane (g, t) =
// (lane/4, lane%4) holds d[4j], d[4j+1] = D[16w+g][8j+2t, +1] and d[4j+2], d[4j+3] the same of row 16w+g+8.
// Asynchronous: d is defined after wgmma_wait.
template <bool b_inner>
TEMPER_DEVICE void wgmma_m64n192k16(float (&d)[96], uint64_t a, uint64_t b) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::wgmma(d, 192, a, b, !b_inner);
#else
#define TEMPER_D8(how, i) \
  how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3]), how(d[i + 4]), how(d[i + 5]), how(d[i + 6]), how(d[i + 7])
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
      "%46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
      "%70, %71, "
      "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, "
      "%94, %95"
      "}, %96, %97, 1, 1, 1, 0, %98;"
      : TEMPER_D8("+f", 0), TEMPER_D8("+f", 8), TEMPER_D8("+f", 16), TEMPER_D8("+f", 24), TEMPER_D8("+f", 32),
        TEMPER_D8("+f", 40), TEMPER_D8("+f", 48), TEMPER_D8("+f", 56), TEMPER_D8("+f", 64), TEMPER_D8("+f", 72),
        TEMPER_D8("+f", 80), TEMPER_D8("+f", 88)
      : "l"(a), "l"(b), "n"(b_inner ? 0 : 1));
#endif
}
// d[64,N] += a[64,16]·b[N,16]ᵀ with a in registers as mma_bf16 takes it (warp w has rows 16w …) and b with k inner; N
// is 64 or 128. Of N = 64 also with b's rows along k, and d = a·bᵀ where fresh. `a` must stay until wgmma_wait as well.
template <int N, bool b_inner = true, bool fresh = false>
TEMPER_DEVICE void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(N == 64 || (N == 128 && b_inner && !fresh));
#if defined(TEMPER_CUDA_EMULATION)
  emulation::wgmma(d, N, a, b, !b_inner, fresh);
#else
#define TEMPER_N64                                                                                                 \
  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, "                                                                                                          \
  "%25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, "
  if constexpr (fresh)
    asm volatile(TEMPER_N64 "0, 1, 1, %37;"
                 : TEMPER_D8("=f", 0), TEMPER_D8("=f", 8), TEMPER_D8("=f", 16), TEMPER_D8("=f", 24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(b_inner ? 0 : 1));
  else if constexpr (N == 64)
    asm volatile(TEMPER_N64 "1, 1, 1, %37;"
                 : TEMPER_D8("+f", 0), TEMPER_D8("+f", 8), TEMPER_D8("+f", 16), TEMPER_D8("+f", 24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(b_inner ? 0 : 1));
#undef TEMPER_N64
  else
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
        "%46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, "
        "1, 1, 1, 0;"
        : TEMPER_D8("+f", 0), TEMPER_D8("+f", 8), TEMPER_D8("+f", 16), TEMPER_D8("+f", 24), TEMPER_D8("+f", 32),
          TEMPER_D8("+f", 40), TEMPER_D8("+f", 48), TEMPER_D8("+f", 56)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
#undef TEMPER_D8

// ---- roles within a block (sm_90a) ----
// A counter in shared memory: a phase ends when `arrivals` threads have arrived; what they wrote before is seen by who
// waited. `parity` of the phases from the first on: 0, 1, 0, … Waiting for parity 1 before the first phase ends passes
// at once.
TEMPER_DEVICE void counter_init(uint64_t* counter, uint32_t arrivals) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::counter_init(counter, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(counter)), "r"(arrivals) : "memory");
#endif
}
TEMPER_DEVICE void counter_arrive(uint64_t* counter) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::counter_arrive(counter);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(counter)) : "memory");
#endif
}
TEMPER_DEVICE void counter_wait(uint64_t* counter, uint32_t parity) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::counter_wait(counter, parity);
#else
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra "
      "again;\nover:\n}" ::"r"(shared_address(counter)),
      "r"(parity)
      : "memory");
#endif
}
// Arrives, and lets the phase wait for `bytes` of bulk copies too.
TEMPER_DEVICE void counter_expect(uint64_t* counter, uint32_t bytes) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::counter_expect(counter, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(counter)), "r"(bytes)
               : "memory");
#endif
}
// One thread copies `bytes` (a multiple of 16) that lie one after another; addresses aligned to 16. They are there when
// the counter's phase ends. What kernels before this one wrote may be copied; counters are set up with
// fence_async_proxy() and a barrier before the first copy.
TEMPER_DEVICE void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* counter) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::bulk_copy(shared, global, bytes, counter);
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(counter))
               : "memory");
#endif
}
// All four warps of a warpgroup; N a multiple of 8. The kernel's launch bounds must name one block a multiprocessor.
template <int N>
TEMPER_DEVICE void take_registers() {
#if !defined(TEMPER_CUDA_EMULATION)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
template <int N>
TEMPER_DEVICE void give_registers() {
#if !defined(TEMPER_CUDA_EMULATION)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
#endif

// ---- asynchronous copies, global to shared ----
// 16 bytes, both addresses 16-byte aligned; zeros where !valid (the source is then not read). The bytes are there after
// cp_async_wait and a barrier.
TEMPER_DEVICE void cp_async16(void* shared, const void* global, bool valid = true) {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::cp_async(shared, global, valid);
#else
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
      "l"(global), "r"(valid ? 16 : 0)
      : "memory");
#endif
}
TEMPER_DEVICE void cp_async_commit() {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::cp_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `pending` of this thread's committed groups are under way.
template <int pending>
TEMPER_DEVICE void cp_async_wait() {
#if defined(TEMPER_CUDA_EMULATION)
  emulation::cp_async_wait(pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

}  // namespace temper::gpu
