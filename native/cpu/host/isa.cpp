// Picks the instruction set once from what the CPU and the operating system allow; TEMPER_ISA or force_isa override it.
#include "cpu/host/isa.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "temper/error.h"
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace temper::cpu {
namespace {

constexpr Isa kAll[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amx, Isa::neon, Isa::neonbf16};

Isa choose() {
  const char* wanted = std::getenv("TEMPER_ISA");
  if (wanted && *wanted) {
    for (Isa isa : kAll) {
      if (std::strcmp(wanted, name_of(isa)) != 0) continue;
      require(supported(isa), "bad_isa", "TEMPER_ISA: this CPU has no '", wanted,
              "'; unset it to use the best there is");
      return isa;
    }
    fail("bad_isa", "TEMPER_ISA: got '", wanted, "', wanted portable, avx2, avx512, avx512bf16, amx, neon or neonbf16");
  }
  for (Isa isa : {Isa::amx, Isa::avx512bf16, Isa::avx512, Isa::avx2, Isa::neonbf16, Isa::neon})
    if (supported(isa)) return isa;
  return Isa::portable;
}

#if defined(__x86_64__)
// Matrix tiles of bf16, and the kernel's leave to use them: it is a process's, and is asked for once.
bool has_tiles() {
#if defined(__linux__)
  static const bool has = [] {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    constexpr uint32_t kTile = 1u << 24, kTileBf16 = 1u << 22;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kTile) == 0 || (edx & kTileBf16) == 0) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has;
#else
  return false;
#endif
}
#endif

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{choose()};
  return isa;
}

}  // namespace

Isa active_isa() { return current().load(std::memory_order_relaxed); }

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::portable: return "portable";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
    case Isa::neonbf16: return "neonbf16";
  }
  return "?";
}

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::portable: return true;
    case Isa::avx2: return avx2;
    case Isa::avx512: return avx512;
    case Isa::avx512bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::amx: return avx512 && __builtin_cpu_supports("avx512bf16") && has_tiles();
    case Isa::neon:
    case Isa::neonbf16: return false;
  }
  return false;
#elif defined(__aarch64__)
#if defined(__linux__)
  if (isa == Isa::neonbf16) return getauxval(AT_HWCAP2) & HWCAP2_BF16;
#endif
  return isa == Isa::portable || isa == Isa::neon;
#else
  return isa == Isa::portable;
#endif
}

void force_isa(Isa isa) {
  require(supported(isa), "bad_isa", "this CPU has no '", name_of(isa), "'");
  current().store(isa, std::memory_order_relaxed);
}

}  // namespace temper::cpu
