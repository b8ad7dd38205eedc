// The adapters of a pool as ops lora_fwd and grouped_lora_fwd read them; what a table says is checked before it is
// used.
#pragma once
#include "temper/error.h"
#include "temper/tensor.h"

namespace temper::cpu {

class LoraPool {
 public:
  static constexpr int64_t kUnit = 16;  // elements
  struct Pair {
    int64_t A, B;  // elements of the pool at which [E, rank, C] and [E, N, rank] begin
    int64_t rank;
    float scale;
  };
  const int64_t N, C;

  // Throws Error{"bad_index"} where a row names no adapter, or one that lies outside the pool or has too high a rank.
  LoraPool(const char* op, const Tensor& params, const Tensor& table, const Tensor& scales, const Tensor& rows,
           int64_t experts, int64_t outputs, int64_t inputs, int64_t most_rank)
      : N(outputs), C(inputs), params_(params), table_(table), scales_(scales) {
    const int64_t count = scales.numel();
    for (int64_t t = 0; t < rows.numel(); ++t) {
      const int32_t a = rows.i32()[t];
      require(a >= -1 && a < count, "bad_index", op, ": rows[", t, "]: got ", a, ", wanted -1 to ", count - 1);
      if (a < 0 || (t > 0 && a == rows.i32()[t - 1])) continue;
      const int32_t* at = table.i32() + 3 * a;
      require(at[2] >= 0 && at[2] <= most_rank, "bad_index", op, ": table[", a, ",2], the rank: got ", at[2],
              ", wanted 0 to ", most_rank);
      const int64_t elements[2] = {experts * at[2] * C, experts * N * at[2]};
      for (int i = 0; i < 2; ++i)
        require(at[i] >= 0 && at[i] * kUnit + elements[i] <= params.numel(), "bad_index", op, ": table[", a, ",", i,
                "]: got ", at[i], ", wanted ", elements[i], " elements from its ", kUnit, "th on inside the pool of ",
                params.numel());
    }
  }
  const Tensor& params() const { return params_; }
  Pair pair(int32_t adapter) const {
    const int32_t* at = table_.i32() + 3 * adapter;
    return {at[0] * kUnit, at[1] * kUnit, at[2], scales_.f32()[adapter]};
  }

 private:
  const Tensor &params_, &table_, &scales_;
};

}  // namespace temper::cpu
