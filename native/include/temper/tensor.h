// A tensor as the op table sees it: a dense row-major block of memory, its dtype and its shape. Owns nothing.
#pragma once
#include <cstddef>
#include <cstdint>

namespace temper {

enum class DType : int32_t { f32 = 0, bf16 = 1, i32 = 2, u8 = 3 };
inline size_t size_of(DType t) { return t == DType::u8 ? 1 : t == DType::bf16 ? 2 : 4; }
inline const char* name_of(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
  }
  return "?";
}

inline constexpr int kMaxDims = 4;
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int32_t ndim = 0;
  int64_t shape[kMaxDims] = {1, 1, 1, 1};

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype); }
  int64_t rows() const { return ndim ? shape[0] : 1; }             // first dimension
  int64_t width() const { return rows() ? numel() / rows() : 0; }  // elements per row of the first dimension
  float* f32() const { return static_cast<float*>(data); }
  uint16_t* bf16() const { return static_cast<uint16_t*>(data); }
  int32_t* i32() const { return static_cast<int32_t*>(data); }
  uint8_t* u8() const { return static_cast<uint8_t*>(data); }
};

}  // namespace temper

using TensorRef = const temper::Tensor*;  // null where an op's contract marks the argument with `?`
