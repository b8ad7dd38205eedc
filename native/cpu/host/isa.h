// Which instruction set the fast paths use. TEMPER_ISA=portable|avx2|avx512|avx512bf16|amx|neon|neonbf16 forces one (it
// must be supported).
#pragma once
namespace temper::cpu {
enum class Isa { portable, avx2, avx512, avx512bf16, amx, neon, neonbf16 };
// chosen once; throws Error{"bad_isa"} when TEMPER_ISA names one this CPU lacks or an unknown one
Isa active_isa();
const char* name_of(Isa);
bool supported(Isa);
void force_isa(Isa);  // tests and bench
}  // namespace temper::cpu
