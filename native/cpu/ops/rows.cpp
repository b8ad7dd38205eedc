// Moving rows and elements: gather, scatter, add, cast, fill.
#include <cstring>
#include <vector>
#include "cpu/host/variants.h"
#include "cpu/ops.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

struct Add {
  template <int>
  static TEMPER_INLINE void run(float* dst, const float* src, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dst[i] += src[i];
  }
};
struct ToBf16 {
  template <int>
  static TEMPER_INLINE void run(uint16_t* dst, const float* src, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dst[i] = float_to_bf16(src[i]);
  }
};
struct ToF32 {
  template <int>
  static TEMPER_INLINE void run(float* dst, const uint16_t* src, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dst[i] = load(src + i);
  }
};

size_t row_bytes(const Tensor& t) { return static_cast<size_t>(t.width()) * size_of(t.dtype); }
int64_t rows_per_copy(size_t bytes) { return rows_per_task(static_cast<int64_t>(bytes / 4)); }

size_t bit_per_row(int64_t rows) { return static_cast<size_t>(rows + 7) / 8; }

// Two sources for one row would race; a bit per row of dst finds them.
void check_distinct(const int32_t* rows, int64_t count, int64_t limit) {
  Scratch<uint8_t> seen(bit_per_row(limit));
  std::memset(seen.data(), 0, seen.size());
  for (int64_t i = 0; i < count; ++i) {
    uint8_t& byte = seen[rows[i] / 8];
    const uint8_t bit = static_cast<uint8_t>(1u << (rows[i] % 8));
    require(!(byte & bit), "bad_index", "scatter_rows: rows[", i, "] is ", rows[i],
            " a second time, wanted distinct rows");
    byte |= bit;
  }
}

void check_cast(const Tensor& dst, const Tensor& src) {
  const auto is_float = [](DType t) { return t == DType::f32 || t == DType::bf16; };
  require(dst.dtype == src.dtype || (is_float(dst.dtype) && is_float(src.dtype)), "bad_dtype", "cast: from ",
          name_of(src.dtype), " to ", name_of(dst.dtype), ", wanted f32 or bf16, or one dtype");
}

}  // namespace

Cost cost::gather_rows(const args::gather_rows& a) { return streamed(a); }
Cost cost::scatter_rows(const args::scatter_rows& a) {
  return streamed(a, a.rows->numel() > 1 ? static_cast<double>(bit_per_row(a.dst->rows())) : 0);
}
Cost cost::add(const args::add& a) { return streamed(a); }
Cost cost::cast(const args::cast& a) { return streamed(a); }
Cost cost::fill(const args::fill& a) { return streamed(a); }

void gather_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  check_indices("gather_rows", "rows", rows->i32(), rows->numel(), src->rows());
  const size_t bytes = row_bytes(*src);
  parallel_ranges(rows->numel(), rows_per_copy(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(dst->u8() + static_cast<size_t>(i) * bytes, src->u8() + static_cast<size_t>(rows->i32()[i]) * bytes,
                  bytes);
  });
}

void scatter_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  check_indices("scatter_rows", "rows", rows->i32(), rows->numel(), dst->rows());
  if (rows->numel() > 1) check_distinct(rows->i32(), rows->numel(), dst->rows());
  const size_t bytes = row_bytes(*dst);
  const bool rounds = dst->dtype != src->dtype;
  const int64_t width = dst->width();
  parallel_ranges(rows->numel(), rows_per_copy(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && rounds; ++i)
      run_kernel<ToBf16>(dst->bf16() + rows->i32()[i] * width, static_cast<const float*>(src->f32()) + i * width,
                         int64_t{0}, width);
    for (int64_t i = begin; i < end && !rounds; ++i)
      std::memcpy(dst->u8() + static_cast<size_t>(rows->i32()[i]) * bytes, src->u8() + static_cast<size_t>(i) * bytes,
                  bytes);
  });
}

void add(TensorRef dst, TensorRef src) {
  parallel_ranges(dst->numel(), kTaskElements, [&](int64_t begin, int64_t end) {
    run_kernel<Add>(dst->f32(), static_cast<const float*>(src->f32()), begin, end);
  });
}

void cast(TensorRef dst, TensorRef src) {
  check_cast(*dst, *src);
  parallel_ranges(dst->numel(), kTaskElements, [&](int64_t begin, int64_t end) {
    const size_t width = size_of(dst->dtype);
    if (dst->dtype == src->dtype)
      std::memmove(dst->u8() + static_cast<size_t>(begin) * width, src->u8() + static_cast<size_t>(begin) * width,
                   static_cast<size_t>(end - begin) * width);
    else if (dst->dtype == DType::bf16)
      run_kernel<ToBf16>(dst->bf16(), static_cast<const float*>(src->f32()), begin, end);
    else run_kernel<ToF32>(dst->f32(), static_cast<const uint16_t*>(src->bf16()), begin, end);
  });
}

void fill(TensorRef dst, double value) {
  require(dst->dtype != DType::u8 || (value >= 0 && value <= 255), "bad_argument", "fill: ", value,
          " does not fit u8, wanted 0 to 255");
  require(dst->dtype != DType::i32 || (value >= -2147483648.0 && value <= 2147483647.0), "bad_argument",
          "fill: ", value, " does not fit i32");
  parallel_ranges(dst->numel(), 4 * kTaskElements, [&](int64_t begin, int64_t end) {
    switch (dst->dtype) {
      case DType::f32: std::fill(dst->f32() + begin, dst->f32() + end, static_cast<float>(value)); break;
      case DType::bf16:
        std::fill(dst->bf16() + begin, dst->bf16() + end, float_to_bf16(static_cast<float>(value)));
        break;
      case DType::i32: std::fill(dst->i32() + begin, dst->i32() + end, static_cast<int32_t>(value)); break;
      case DType::u8: std::fill(dst->u8() + begin, dst->u8() + end, static_cast<uint8_t>(value)); break;
    }
  });
}

namespace reference {

void gather_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  check_indices("gather_rows", "rows", rows->i32(), rows->numel(), src->rows());
  const int64_t bytes = static_cast<int64_t>(row_bytes(*src));
  for (int64_t i = 0; i < rows->numel(); ++i)
    for (int64_t b = 0; b < bytes; ++b) dst->u8()[i * bytes + b] = src->u8()[rows->i32()[i] * bytes + b];
}

void scatter_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  check_indices("scatter_rows", "rows", rows->i32(), rows->numel(), dst->rows());
  check_distinct(rows->i32(), rows->numel(), dst->rows());
  const int64_t bytes = static_cast<int64_t>(row_bytes(*dst)), width = dst->width();
  if (dst->dtype != src->dtype) {
    for (int64_t i = 0; i < src->numel(); ++i)
      dst->bf16()[rows->i32()[i / width] * width + i % width] = float_to_bf16(src->f32()[i]);
    return;
  }
  for (int64_t i = 0; i < rows->numel(); ++i)
    for (int64_t b = 0; b < bytes; ++b) dst->u8()[rows->i32()[i] * bytes + b] = src->u8()[i * bytes + b];
}

void add(TensorRef dst, TensorRef src) {
  for (int64_t i = 0; i < dst->numel(); ++i)
    dst->f32()[i] = static_cast<float>(static_cast<double>(dst->f32()[i]) + src->f32()[i]);
}

void cast(TensorRef dst, TensorRef src) {
  check_cast(*dst, *src);
  for (int64_t i = 0; i < dst->numel(); ++i) switch (dst->dtype) {
      case DType::f32: dst->f32()[i] = src->dtype == DType::f32 ? src->f32()[i] : load(src->bf16() + i); break;
      case DType::bf16:
        dst->bf16()[i] = src->dtype == DType::f32 ? float_to_bf16(src->f32()[i]) : src->bf16()[i];
        break;
      case DType::i32: dst->i32()[i] = src->i32()[i]; break;
      case DType::u8: dst->u8()[i] = src->u8()[i]; break;
    }
}

void fill(TensorRef dst, double value) { cpu::fill(dst, value); }

}  // namespace reference
}  // namespace temper::cpu
