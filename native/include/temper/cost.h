// What a call of an op takes, said from its arguments alone. Every backend says it beside its kernels, which size their
// workspace by the same functions; `temper plan` and the bench count with it.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "temper/tensor.h"

namespace temper {

struct Cost {
  double flops = 0;      // multiply-adds × 2 of matrix products and attention
  double bytes = 0;      // streamed: operands and results once each, weights once per use
  double rows = 0;       // that share one weight matrix: decides how far a product is from the arithmetic limit
  double workspace = 0;  // bytes held at the peak beside the arguments
};

// Tensors of a plan (native/plan) have addresses from here on and no memory behind them, but where the contents are
// known: index tensors that TypeScript wrote.
inline constexpr uintptr_t kNoMemory = uintptr_t{1} << 60;
inline bool has_contents(TensorRef t) { return t && reinterpret_cast<uintptr_t>(t->data) < kNoMemory; }

// What stands for a kernel's own workspace while its cost is worked out.
inline float* no_memory() { return reinterpret_cast<float*>(kNoMemory); }

inline double bytes_of(TensorRef t) { return t ? static_cast<double>(t->bytes()) : 0; }

// An op that reads and writes each argument once and multiplies no matrices.
template <class Args>
Cost streamed(const Args& args, double workspace = 0) {
  Cost cost{.workspace = workspace};
  args.each([&](const auto& a) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(a)>, TensorRef>) cost.bytes += bytes_of(a);
  });
  return cost;
}

}  // namespace temper
