// bf16 copies of f32 operands: gathered, scaled, masked or transposed on the way, rows padded with zeros to 16 bytes.
// Bound by memory: 4 bytes read and 2 written per element; 8 elements a thread, 16-byte accesses where the rows allow
// them.
#include "cuda/matmul/matmul.h"
#include "gpu/dropout.cuh"
#include "gpu/vector.cuh"
#include "temper/error.h"

namespace temper::gpu {
namespace {

constexpr int kChunk = 8;

struct StageArgs {
  const void* from;
  bool from_bf16, wide;  // wide: rows of f32 begin at 16-byte steps
  bool interleaved;
  int64_t ld;
  int width;
  const int32_t* index;
  FaultName index_name;
  int64_t count;
  const float* row_scale;
  DropoutMask mask;
  uint16_t* to;
  int64_t rows;    // of `to`
  int chunks;      // of one row of `to`
  int group_rows;  // transposed: memory rows of a group
  FaultName op;
  Fault* fault;
};

TEMPER_DEVICE float stage_element(const StageArgs& s, int64_t row, int column) {
  const int64_t at = row * s.ld + column;
  float v =
      s.from_bf16 ? bf16_to_float(static_cast<const uint16_t*>(s.from)[at]) : static_cast<const float*>(s.from)[at];
  if (s.mask.limit) v *= dropout_factor(s.mask, at);
  return v;
}

__global__ void __launch_bounds__(kThreads) stage_rows(const StageArgs s) {
  wait_for_previous();
  const uint32_t at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= static_cast<uint64_t>(s.rows) * static_cast<uint64_t>(s.chunks)) return;
  const uint32_t row = at / static_cast<uint32_t>(s.chunks);
  const int column = static_cast<int>(at - row * static_cast<uint32_t>(s.chunks)) * kChunk;
  const int64_t from =
      s.index ? checked_index(s.fault, s.op, s.index_name, row, s.index[row], s.count) : static_cast<int64_t>(row);
  const float scale = s.row_scale ? s.row_scale[row] : 1.0f;
  float v[kChunk];
  // chunk c of 64 k: see matmul_mxfp4.cu; the eight threads of these 64 read whole sectors between them
  if (s.interleaved) {
    const int first = column / 64 * 64 + column % 64 / 32 * 8 + column / 8 % 4;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = stage_element(s, from, first + i / 2 * 16 + i % 2 * 4);
  } else if (s.wide && !s.mask.limit && column + kChunk <= s.width) {
    const float* line = static_cast<const float*>(s.from) + from * s.ld + column;
    const float4 low = load_as<float4>(line), high = load_as<float4>(line + 4);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w, v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = column + i < s.width ? stage_element(s, from, column + i) : 0.0f;
  }
  uint32_t pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pair[i] = pack_bf16(v[2 * i] * scale, v[2 * i + 1] * scale);
  store_as(s.to + static_cast<int64_t>(at) * kChunk, make_uint4(pair[0], pair[1], pair[2], pair[3]));
}

// Row r of `to` is column r % width of group r / width: only ever a low-rank matrix, so reads across rows do not
// matter.
__global__ void __launch_bounds__(kThreads) stage_transposed(const StageArgs s) {
  wait_for_previous();
  const uint32_t at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= static_cast<uint64_t>(s.rows) * static_cast<uint64_t>(s.chunks)) return;
  const uint32_t row = at / static_cast<uint32_t>(s.chunks), group = row / static_cast<uint32_t>(s.width);
  const int first = static_cast<int>(at - row * static_cast<uint32_t>(s.chunks)) * kChunk,
            column = static_cast<int>(row - group * static_cast<uint32_t>(s.width));
  uint32_t pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float v[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int within = first + 2 * i + j;
      v[j] =
          within < s.group_rows ? stage_element(s, static_cast<int64_t>(group) * s.group_rows + within, column) : 0.0f;
    }
    pair[i] = pack_bf16(v[0], v[1]);
  }
  store_as(s.to + static_cast<int64_t>(at) * kChunk, make_uint4(pair[0], pair[1], pair[2], pair[3]));
}

bool same(const Source& a, const Source& b) {
  return a.data == b.data && a.ld == b.ld && a.count == b.count && a.group_rows == b.group_rows &&
         a.row_scale == b.row_scale && a.kind == b.kind && a.mask.key == b.mask.key && a.mask.limit == b.mask.limit &&
         a.interleaved == b.interleaved && (!a.row_scale || a.index == b.index);
}

struct WidenArgs {
  const uint16_t* from;
  int64_t ld;
  int width;
  float* to;
  int64_t total;  // elements of `to`, whose rows are `width` long
};
__global__ void __launch_bounds__(kThreads) widen_rows(const WidenArgs w) {
  wait_for_previous();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= w.total) return;
  const int64_t row = at / w.width;
  w.to[at] = bf16_to_float(w.from[row * w.ld + (at - row * w.width)]);
}

}  // namespace

uint16_t* Staging::room(const Source& source, int64_t width) {
  Source to = source;
  to.ld = blocks_for(width, kChunk) * kChunk;
  to.kind = Kind::bf16;
  to.zero_padded = true;
  auto memory = std::make_unique<Workspace<uint16_t>>(static_cast<size_t>(to.count * to.ld));
  uint16_t* const data = memory->data();
  to.data = data;
  copies_.push_back({source, width, false, to, std::move(memory)});
  return data;
}
Source Staging::f32(const Source& source, int64_t width) {
  if (source.kind != Kind::bf16) return source;
  Source to = source;
  to.kind = Kind::f32;
  to.ld = width;
  const int64_t total = source.count * width;
  auto memory = std::make_unique<Workspace<uint16_t>>(static_cast<size_t>(2 * total));
  to.data = memory->data();
  const WidenArgs args{static_cast<const uint16_t*>(source.data), source.ld, static_cast<int>(width),
                       reinterpret_cast<float*>(memory->data()), total};
  if (total) launch(widen_rows, dim3(static_cast<unsigned>(blocks_for(total, kThreads))), dim3(kThreads), 0, args);
  wide_.push_back(std::move(memory));
  return to;
}

Source Staging::bf16(const Source& source, int64_t width, int64_t logical_rows, bool k_inner, const char* op) {
  const bool transposed = source.k_inner != k_inner;
  const bool packed = source.kind == Kind::mxfp4 || source.kind == Kind::q8;
  const uintptr_t address = reinterpret_cast<uintptr_t>(source.data);
  if (packed && address % 16 == 0) return source;
  const bool as_it_lies = !source.interleaved && !source.row_scale && !source.mask.limit;
  if (source.kind == Kind::bf16 && as_it_lies && !transposed && source.ld % kChunk == 0 &&
      (width % kChunk == 0 || source.zero_padded) && address % 16 == 0)
    return source;
  Source to = source;
  for (const Copy& copy : copies_)
    if (same(copy.from, source) && copy.width == width && copy.transposed == transposed) {
      const bool resolved = source.row_scale != nullptr;
      to = copy.to;
      to.k_inner = k_inner;
      to.index = resolved ? nullptr : source.index;
      to.index_name = source.index_name;
      return to;
    }
  if (packed) {  // its rows may begin at any byte of a file: moved to an aligned address
    const size_t bytes = static_cast<size_t>(source.count * source.ld) / (source.kind == Kind::q8 ? 1 : 2);
    auto memory = std::make_unique<Workspace<uint16_t>>(bytes / 2);
    to.data = memory->data();
    check(cudaMemcpyAsync(memory->data(), source.data, bytes, cudaMemcpyDeviceToDevice, device().stream),
          "cudaMemcpyAsync");
    copies_.push_back({source, width, transposed, to, std::move(memory)});
    return to;
  }
  const bool resolved = source.row_scale != nullptr;  // the copy then has a row for every logical one
  const int64_t group_rows = source.group_rows ? source.group_rows : source.count;
  to.count = transposed ? (group_rows ? source.count / group_rows : 0) * width : resolved ? logical_rows : source.count;
  to.ld = blocks_for(transposed ? group_rows : width, kChunk) * kChunk;
  if (transposed && source.group_rows) to.group_rows = width;
  to.kind = Kind::bf16;
  to.k_inner = k_inner;
  to.mask = {};
  to.row_scale = nullptr;
  to.zero_padded = true;
  if (resolved) to.index = nullptr;
  const int64_t total = to.count * (to.ld / kChunk);
  require(total < int64_t{1} << 32, "too_large", op, ": an operand of ", to.count, " rows of ", to.ld,
          " elements, wanted fewer than 2^35 elements");
  auto memory = std::make_unique<Workspace<uint16_t>>(static_cast<size_t>(to.count * to.ld));
  to.data = memory->data();
  const StageArgs args{
      .from = source.data,
      .from_bf16 = source.kind == Kind::bf16,
      .wide = source.kind == Kind::f32 && source.ld % 4 == 0 && reinterpret_cast<uintptr_t>(source.data) % 16 == 0,
      .interleaved = source.interleaved,
      .ld = source.ld,
      .width = static_cast<int>(width),
      .index = resolved ? source.index : nullptr,
      .index_name = source.index_name,
      .count = source.count,
      .row_scale = source.row_scale,
      .mask = source.mask,
      .to = memory->data(),
      .rows = to.count,
      .chunks = static_cast<int>(to.ld / kChunk),
      .group_rows = static_cast<int>(group_rows),
      .op = op,
      .fault = device().fault};
  launch(transposed ? stage_transposed : stage_rows, dim3(static_cast<unsigned>(blocks_for(total, kThreads))),
         dim3(kThreads), 0, args);
  copies_.push_back({source, width, transposed, to, std::move(memory)});
  return to;
}

}  // namespace temper::gpu
