// Moving rows and elements: gather, scatter, add, cast, fill. No arithmetic to speak of; every kernel reads and writes
// each byte once, 16 bytes to a thread where the addresses allow it. A warp's accesses are contiguous.
#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {
namespace {

constexpr int kVectorsPerThread = 4;  // of a long row, all loaded before the first is stored
// rows of a scatter up to which repeats are looked for among the row numbers themselves
constexpr int64_t kPairwise = workspace::kPairwise;

struct RowCopy {
  void* dst;
  const void* src;
  const int32_t* rows;
  int64_t count, limit, vectors;  // vectors: units of V in a row
  Fault* fault;
};

template <class V>
TEMPER_DEVICE void copy_row(const RowCopy& c, int64_t to, int64_t from) {
  V* dst = static_cast<V*>(c.dst) + to * c.vectors;
  const V* src = static_cast<const V*>(c.src) + from * c.vectors;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x;
  for (int64_t v = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; v < c.vectors;
       v += step * kVectorsPerThread) {
    V x[kVectorsPerThread] = {};
#pragma unroll
    for (int k = 0; k < kVectorsPerThread; ++k)
      if (v + k * step < c.vectors) x[k] = load_as<V>(src + v + k * step);
#pragma unroll
    for (int k = 0; k < kVectorsPerThread; ++k)
      if (v + k * step < c.vectors) store_as(dst + v + k * step, x[k]);
  }
}

// The same from f32 to bf16; `vectors` counts groups of W elements.
template <int W>
TEMPER_DEVICE void round_row(const RowCopy& c, int64_t to, int64_t from) {
  uint16_t* dst = static_cast<uint16_t*>(c.dst) + to * c.vectors * W;
  const float* src = static_cast<const float*>(c.src) + from * c.vectors * W;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x;
  for (int64_t v = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; v < c.vectors; v += step)
    store<W>(dst + v * W, load<W>(src + v * W));
}

template <class V>
__global__ void __launch_bounds__(kThreads) gather_kernel(RowCopy c) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= c.count) return;
  const int64_t row = c.rows[i];
  if (row < 0 || row >= c.limit)
    return report_fault(c.fault, FaultCode::bad_index, "gather_rows", "rows", i, row, c.limit);
  copy_row<V>(c, i, row);
}

// Two sources for one row would race. `seen` is a zeroed bit for each row of dst, or null: then earlier row numbers are
// compared.
template <class Move>
__global__ void __launch_bounds__(kThreads) scatter_kernel(RowCopy c, uint32_t* seen) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= c.count) return;
  const int64_t row = c.rows[i];
  if (row < 0 || row >= c.limit)
    return report_fault(c.fault, FaultCode::bad_index, "scatter_rows", "rows", i, row, c.limit);
  if (blockIdx.y == 0) {
    bool repeated = false;
    if (!seen) {
      for (int64_t j = threadIdx.x; j < i; j += blockDim.x) repeated |= c.rows[j] == row;
    } else if (threadIdx.x == 0) {
      repeated = atomicOr(seen + row / 32, 1u << (row % 32)) >> (row % 32) & 1u;
    }
    if (repeated) report_fault(c.fault, FaultCode::repeated_row, "scatter_rows", "rows", i, row, c.limit);
  }
  Move::row(c, row, i);
}

template <class V>
struct Copied {
  TEMPER_DEVICE static void row(const RowCopy& c, int64_t to, int64_t from) { copy_row<V>(c, to, from); }
};
template <int W>
struct Rounded {
  TEMPER_DEVICE static void row(const RowCopy& c, int64_t to, int64_t from) { round_row<W>(c, to, from); }
};

template <int W>
__global__ void __launch_bounds__(kThreads) add_kernel(float* dst, const float* src, int64_t n) {
  wait_for_previous();
  flat<W>(n, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    Floats<N> a = load<N>(dst + i);
    const Floats<N> b = load<N>(src + i);
    for (int k = 0; k < N; ++k) a.v[k] += b.v[k];
    store<N>(dst + i, a);
  });
}

template <int W, class To, class From>
__global__ void __launch_bounds__(kThreads) cast_kernel(To* dst, const From* src, int64_t n) {
  wait_for_previous();
  flat<W>(n, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    store<N>(dst + i, load<N>(src + i));
  });
}

template <class V>
__global__ void __launch_bounds__(kThreads) copy_kernel(V* dst, const V* src, int64_t n) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) store_as(dst + i, load_as<V>(src + i));
}

template <class V>
__global__ void __launch_bounds__(kThreads) fill_kernel(V* dst, V value, int64_t n) {
  wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) store_as(dst + i, value);
}

template <class V>
void fill_from(void* dst, V value, int64_t from, int64_t count) {
  launch(fill_kernel<V>, dim3(blocks_for(count, kThreads)), dim3(kThreads), 0, static_cast<V*>(dst) + from, value,
         count);
}
// `word` holds the element repeated to four bytes.
template <class Element>
void fill_elements(const Tensor& dst, uint32_t word) {
  const int64_t n = dst.numel(), per_vector = 16 / static_cast<int64_t>(sizeof(Element)),
                vectors = aligned(16, {dst.data}) ? n / per_vector : 0;
  fill_from(dst.data, make_uint4(word, word, word, word), 0, vectors);
  fill_from(dst.data, static_cast<Element>(word), vectors * per_vector, n - vectors * per_vector);
}

template <class V>
void copy_elements(const Tensor& dst, const Tensor& src, size_t begin, size_t end) {
  launch(copy_kernel<V>, dim3(blocks_for(static_cast<int64_t>((end - begin) / sizeof(V)), kThreads)), dim3(kThreads), 0,
         reinterpret_cast<V*>(dst.u8() + begin), reinterpret_cast<const V*>(src.u8() + begin),
         static_cast<int64_t>((end - begin) / sizeof(V)));
}

// Calls f with a value of the widest unit that divides a row and both addresses.
template <class F>
void with_unit(size_t row_bytes, const void* a, const void* b, F&& f) {
  const auto fits = [&](size_t unit) { return row_bytes % unit == 0 && aligned(unit, {a, b}); };
  if (fits(16)) f(uint4{});
  else if (fits(4)) f(uint32_t{});
  else if (fits(2)) f(uint16_t{});
  else f(uint8_t{});
}

struct RowLaunch {
  dim3 grid, block;
};
RowLaunch shape_of(int64_t count, int64_t vectors) {
  const RowShape s = row_shape(vectors);
  const int64_t pieces = blocks_for(vectors, static_cast<int64_t>(s.lanes) * kVectorsPerThread);
  return {dim3(static_cast<unsigned>(blocks_for(count, s.rows)), static_cast<unsigned>(pieces < 1      ? 1
                                                                                       : pieces > 4096 ? 4096
                                                                                                       : pieces)),
          dim3(s.lanes, s.rows)};
}

}  // namespace

void gather_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  const size_t bytes = static_cast<size_t>(src->width()) * size_of(src->dtype);
  with_unit(bytes, dst->data, src->data, [&](auto unit) {
    using V = decltype(unit);
    const int64_t vectors = static_cast<int64_t>(bytes / sizeof(V));
    const RowLaunch l = shape_of(rows->numel(), vectors);
    launch(gather_kernel<V>, l.grid, l.block, 0,
           RowCopy{dst->data, src->data, rows->i32(), rows->numel(), src->rows(), vectors, fault()});
  });
}

void scatter_rows(TensorRef dst, TensorRef src, TensorRef rows) {
  const size_t bytes = static_cast<size_t>(dst->width()) * size_of(dst->dtype);
  const int64_t count = rows->numel();
  Workspace<uint32_t> seen(count > kPairwise ? static_cast<size_t>(blocks_for(dst->rows(), 32)) : 0);
  if (count > kPairwise) fill_from(seen.data(), uint32_t{0}, 0, static_cast<int64_t>(seen.size()));
  const auto run = [&](auto kernel, int64_t vectors) {
    const RowLaunch l = shape_of(count, vectors);
    launch(kernel, l.grid, l.block, 0, RowCopy{dst->data, src->data, rows->i32(), count, dst->rows(), vectors, fault()},
           seen.data());
  };
  if (dst->dtype != src->dtype)  // f32 to bf16
    return with_width(dst->width() % 4 == 0 && aligned(16, {src->data}) && aligned(8, {dst->data}), [&](auto width) {
      constexpr int W = decltype(width)::value;
      run(scatter_kernel<Rounded<W>>, dst->width() / W);
    });
  with_unit(bytes, dst->data, src->data, [&](auto unit) {
    using V = decltype(unit);
    run(scatter_kernel<Copied<V>>, static_cast<int64_t>(bytes / sizeof(V)));
  });
}

void add(TensorRef dst, TensorRef src) {
  const int64_t n = dst->numel();
  with_width(aligned(16, {dst->data, src->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(add_kernel<W>, dim3(flat_blocks(n, W)), dim3(kThreads), 0, dst->f32(), src->f32(), n);
  });
}

void cast(TensorRef dst, TensorRef src) {
  const int64_t n = dst->numel();
  const auto is_float = [](DType t) { return t == DType::f32 || t == DType::bf16; };
  require(dst->dtype == src->dtype || (is_float(dst->dtype) && is_float(src->dtype)), "bad_dtype", "cast: from ",
          name_of(src->dtype), " to ", name_of(dst->dtype), ", wanted f32 or bf16, or one dtype");
  if (dst->dtype == src->dtype) {
    const size_t bytes = dst->bytes(), wide = aligned(16, {dst->data, src->data}) ? bytes / 16 * 16 : 0;
    copy_elements<uint4>(*dst, *src, 0, wide);
    if (size_of(dst->dtype) == 4) copy_elements<uint32_t>(*dst, *src, wide, bytes);
    else if (size_of(dst->dtype) == 2) copy_elements<uint16_t>(*dst, *src, wide, bytes);
    else copy_elements<uint8_t>(*dst, *src, wide, bytes);
    return;
  }
  with_width(aligned(16, {dst->data, src->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (dst->dtype == DType::bf16)
      launch(cast_kernel<W, uint16_t, float>, dim3(flat_blocks(n, W)), dim3(kThreads), 0, dst->bf16(), src->f32(), n);
    else
      launch(cast_kernel<W, float, uint16_t>, dim3(flat_blocks(n, W)), dim3(kThreads), 0, dst->f32(), src->bf16(), n);
  });
}

void fill(TensorRef dst, double value) {
  require(dst->dtype != DType::u8 || (value >= 0 && value <= 255), "bad_argument", "fill: ", value,
          " does not fit u8, wanted 0 to 255");
  require(dst->dtype != DType::i32 || (value >= -2147483648.0 && value <= 2147483647.0), "bad_argument",
          "fill: ", value, " does not fit i32");
  switch (dst->dtype) {
    case DType::f32: return fill_elements<uint32_t>(*dst, __builtin_bit_cast(uint32_t, static_cast<float>(value)));
    case DType::i32: return fill_elements<uint32_t>(*dst, static_cast<uint32_t>(static_cast<int32_t>(value)));
    case DType::bf16: {
      const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(value));
      const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
      const uint32_t half = is_nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
      return fill_elements<uint16_t>(*dst, half << 16 | half);
    }
    case DType::u8: return fill_elements<uint8_t>(*dst, static_cast<uint32_t>(value) * 0x01010101u);
  }
}

}  // namespace temper::gpu
