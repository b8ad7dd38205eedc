// The op contracts of temper/ops.def in a form that can be checked: names, dtypes, shapes, what may be null, what is
// written, what may alias. The binding checks every call against it before the op runs; ops themselves check only what
// needs the data (indices in range).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "temper/tensor.h"

namespace temper::contract {

enum class Kind : uint8_t { tensor, integer, number };

struct Arg {
  std::string name;
  Kind kind = Kind::tensor;
  bool output = false, nullable = false;
  bool on_host = false;     // may lie on the host while the others lie on a device
  bool activation = false;  // "af" of ops.def
};

inline constexpr int kMaxArgs = 24;
int op_count();
const char* op_name(int op);
std::span<const Arg> args_of(int op);

// What an index tensor of a call may hold: values in [0, limit), or bounds that rise from 0 to limit.
struct Index {
  enum Kind : uint8_t { none, below, rising } kind = none;
  int64_t limit = 0;
};
// By argument, of a call that passes check.
std::vector<Index> indices(int op, const TensorRef* tensors, const double* numbers);

// tensors[i] is argument i where it is a tensor (null allowed), numbers[i] where it is a scalar.
// Throws Error: shape_mismatch, bad_dtype, missing_tensor, bad_argument, aliasing.
void check(int op, const TensorRef* tensors, const double* numbers);

}  // namespace temper::contract
