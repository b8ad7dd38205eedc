// Large products through cuBLASLt: dense ones on the weights as they lie, MXFP4 ones expert by expert on an exact bf16
// copy (a code times its scale is a bf16).
//
// One expert's copy is in use at a time: gate_up of gpt-oss 33.2 MB, down 16.6 MB, written and read again while it is
// still in the L2 of an H200 (50 MB). At 4.3 TB/s and 600 TFLOP/s the copy adds 35 % to a product of 512 rows per
// expert, 17 % at 1024, 9 % at 2048: below kRowsPerExpert the fused kernels decode in the tile. The rows of each expert
// are needed on the host: one small copy and wait per call, so never for decode and never while a graph is captured.
// Low-rank term and bias are written to c first, by low_rank.cu (of experts by multiply_tiles), and the library adds to
// them: one more write and read of c. H200, 4,096 tokens: q_proj 429 TFLOP/s, experts 191 to 373 at 512 rows, bias,
// LoRA and staging included. On Hopper the experts go to matmul_mxfp4.cu; logits of 256 rows gain 1.8 from the library,
// hence kDenseRows.
#include <algorithm>
#include <vector>

#include "cuda/matmul/cublaslt.h"
#include "cuda/matmul/matmul.h"
#include "gpu/ops.h"
#include "gpu/vector.cuh"

namespace temper::gpu {
namespace {

// rows, and outputs and inputs, from which a dense product goes to the library
constexpr int64_t kDenseRows = 128, kDenseWidth = 256;
constexpr int64_t kRowsPerExpert = 512;  // on average

struct Gather {
  const uint4* from;
  uint4* to;
  const int32_t* index;
  FaultName index_name;
  int units;        // of 16 bytes in a row
  int rows, first;  // logical row of `to`'s first
  int64_t count;
  FaultName op;
  Fault* fault;
};
__global__ void __launch_bounds__(kThreads) gather_bf16(const Gather g) {
  wait_for_previous();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= static_cast<int64_t>(g.rows) * g.units) return;
  const int row = static_cast<int>(at / g.units), unit = static_cast<int>(at - static_cast<int64_t>(row) * g.units);
  g.to[at] =
      g.from[checked_index(g.fault, g.op, g.index_name, g.first + row, g.index[g.first + row], g.count) * g.units +
             unit];
}

bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(device().stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

// c = bias + low_rank, or c += low_rank; whether the main term is to be added to what c then holds.
bool begin_result(const Product& p, Staging& staging) {
  if (p.low_rank.k && p.ragged == Ragged::none) {
    add_low_rank(p);
  } else if (p.low_rank.k || p.bias) {
    Product first = p;
    first.main = {};
    multiply_tiles(first, staging);
  }
  return p.low_rank.k || p.bias || p.accumulate;
}

bool multiply_dense(const Product& p, Staging& staging) {
  if (p.main.a.index || p.main.b.index) return false;
  const bool a_inner = p.main.a.k_inner, b_inner = p.main.b.k_inner;
  const Source a = staging.bf16(p.main.a, a_inner ? p.main.k : p.m, a_inner ? p.m : p.main.k, a_inner, p.op);
  const Source b = staging.bf16(p.main.b, b_inner ? p.main.k : p.n, b_inner ? p.n : p.main.k, b_inner, p.op);
  if (a.kind != Kind::bf16 || b.kind != Kind::bf16) return false;
  const bool add = begin_result(p, staging);
  DenseProduct d{static_cast<const uint16_t*>(a.data),
                 static_cast<const uint16_t*>(b.data),
                 a.ld,
                 b.ld,
                 a.k_inner,
                 b.k_inner,
                 p.c,
                 p.ldc,
                 p.m,
                 p.n,
                 p.main.k,
                 p.main.alpha,
                 add ? 1.0f : 0.0f};
  if (multiply_cublaslt(d)) return true;
  if (!add) return false;
  Product rest = p;  // what begin_result wrote is kept
  rest.low_rank = {}, rest.bias = nullptr, rest.accumulate = true;
  multiply_tiles(rest, staging);
  return true;
}

bool multiply_experts(const Product& p, Staging& staging) {
  const Source& weights = p.main.b;
  if ((weights.kind != Kind::mxfp4 && weights.kind != Kind::bf16) || weights.index || !p.main.a.k_inner) return false;
  std::vector<int32_t> offsets(static_cast<size_t>(p.groups) + 1);
  check(cudaMemcpyAsync(offsets.data(), p.offsets, offsets.size() * sizeof(int32_t), cudaMemcpyDeviceToHost,
                        device().stream),
        "cudaMemcpyAsync");
  check(cudaStreamSynchronize(device().stream), "cudaStreamSynchronize");
  // the tile kernels say what is wrong
  if (offsets.front() != 0 || offsets.back() != p.m || !std::is_sorted(offsets.begin(), offsets.end())) return false;
  int64_t most = 0;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) most = std::max<int64_t>(most, offsets[e + 1] - offsets[e]);

  const Source a = staging.bf16(p.main.a, p.main.k, p.m, true, p.op);
  const Source b = weights.kind == Kind::bf16 ? staging.bf16(weights, weights.k_inner ? p.main.k : p.n,
                                                             weights.k_inner ? p.n : p.main.k, weights.k_inner, p.op)
                                              : weights;
  const int64_t width = weights.ld, copied = weights.kind == Kind::mxfp4 ? weights.group_rows * width : 0;
  const Workspace<uint16_t> expert(static_cast<size_t>(copied)),
      gathered(a.index ? static_cast<size_t>(most * a.ld) : 0);
  const bool add = begin_result(p, staging);
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    const int64_t begin = offsets[e], rows = offsets[e + 1] - begin,
                  first = static_cast<int64_t>(e) * weights.group_rows;
    if (rows == 0) continue;
    const uint16_t* w = static_cast<const uint16_t*>(b.data) + first * b.ld;
    int64_t ldw = b.ld;
    if (weights.kind == Kind::mxfp4) {
      const Tensor to{expert.data(), DType::bf16, 2, {weights.group_rows, width, 1, 1}};
      const Tensor blocks{const_cast<uint8_t*>(static_cast<const uint8_t*>(weights.data)) + first * width / 2,
                          DType::u8,
                          3,
                          {weights.group_rows, width / 32, 16, 1}};
      const Tensor scales{const_cast<uint8_t*>(weights.scales) + first * width / 32,
                          DType::u8,
                          2,
                          {weights.group_rows, width / 32, 1, 1}};
      mxfp4_dequantize(&to, &blocks, &scales);
      w = expert.data(), ldw = width;
    }
    const uint16_t* x = static_cast<const uint16_t*>(a.data) + begin * a.ld;
    if (a.index) {
      const Gather g{static_cast<const uint4*>(a.data),
                     reinterpret_cast<uint4*>(gathered.data()),
                     a.index,
                     a.index_name,
                     static_cast<int>(a.ld / 8),
                     static_cast<int>(rows),
                     static_cast<int>(begin),
                     a.count,
                     p.op,
                     device().fault};
      launch(gather_bf16, dim3(static_cast<unsigned>(blocks_for(rows * g.units, kThreads))), dim3(kThreads), 0, g);
      x = gathered.data();
    }
    const DenseProduct d{x,     w,    a.ld, ldw,      true,         weights.k_inner,  p.c + begin * p.ldc,
                         p.ldc, rows, p.n,  p.main.k, p.main.alpha, add ? 1.0f : 0.0f};
    if (multiply_cublaslt(d)) continue;
    Product one{};  // the library has nothing for this expert: our tiles on the copy
    one.main.a = {.data = x, .ld = a.ld, .count = rows, .kind = Kind::bf16, .zero_padded = a.zero_padded};
    one.main.b = {.data = w,
                  .ld = ldw,
                  .count = weights.group_rows,
                  .kind = Kind::bf16,
                  .k_inner = weights.k_inner,
                  .zero_padded = b.zero_padded};
    one.main.k = p.main.k, one.main.alpha = p.main.alpha;
    one.m = rows, one.n = p.n, one.c = d.c, one.ldc = p.ldc, one.accumulate = add, one.op = p.op;
    Staging own;
    multiply_tiles(one, own);
  }
  return true;
}

}  // namespace

bool multiply_library(const Product& p, Staging& staging, bool whenever_possible) {
  if (p.ragged == Ragged::k || p.m < 1 || p.n < 1 || p.main.k < 1 || p.main.b.kind == Kind::q8) return false;
  const bool grouped = p.ragged == Ragged::rows;
  const bool worth =
      grouped ? p.m >= kRowsPerExpert * p.groups : p.m >= kDenseRows && p.n >= kDenseWidth && p.main.k >= kDenseWidth;
  if (!(whenever_possible || worth) || !cublaslt() || capturing()) return false;
  return grouped ? multiply_experts(p, staging) : multiply_dense(p, staging);
}

}  // namespace temper::gpu
