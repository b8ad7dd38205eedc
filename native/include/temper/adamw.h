// What a step of AdamW (arXiv:1711.05101) multiplies by, worked out once in f64 for all elements and every backend.
#pragma once
#include <cmath>
#include <cstdint>

#include "temper/error.h"

namespace temper {

struct AdamwStep {
  float decay, beta1, rest1, beta2, rest2, rate, root2, eps, grad_scale;
};
// Throws Error{"bad_argument"} where step is below 1.
inline AdamwStep adamw_step(const char* op, double lr, double beta1, double beta2, double eps, double weight_decay,
                            int64_t step, double grad_scale) {
  require(step >= 1, "bad_argument", op, ": step is ", step, ", wanted 1 or more: steps are counted from 1");
  const double count = static_cast<double>(step);
  return {static_cast<float>(1.0 - lr * weight_decay),
          static_cast<float>(beta1),
          static_cast<float>(1.0 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1.0 - beta2),
          static_cast<float>(lr / (1.0 - std::pow(beta1, count))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, count))),
          static_cast<float>(eps),
          static_cast<float>(grad_scale)};
}

}  // namespace temper
