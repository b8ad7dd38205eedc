// Logits, softmax, loss and both gradients for a chunk of rows at a time: memory is a chunk's logits (f32, and their
// gradient as bf16 at precision 1), never [S,V]. 256 rows of gpt-oss: 206 + 103 MB. The three products are the work (2
// × 0.30 TFLOP for 256 rows, loss and dx); the softmax kernel reads the logits twice and writes 2 bytes for each, 0.5
// GB for 256 rows.
#include <cfloat>

#include "cuda/matmul/matmul.h"
#include "gpu/ops.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {
namespace {

constexpr int kRowThreads = 512;
// Vectors of a row that a thread has asked for before it uses the first: two blocks a multiprocessor then have 64 KiB
// under way, where memory's latency wants 24.
constexpr int kAhead = 4;

struct SoftmaxArgs {
  float* logits;       // [rows, V]; precision 0: becomes the gradient
  uint16_t* gradient;  // precision 1: [rows, padded V], null: no gradient or precision 0
  int64_t padded;
  bool backward;
  int V;
  const int32_t* targets;
  const float* weights;
  float* nll;
  int64_t first;  // row of the op's S rows, for the fault
  Fault* fault;
};

// Calls body(v, x) for the vectors of a row that fall to this thread: x are elements v, v+1, …, zeros from `width` on.
template <int W, class F>
TEMPER_DEVICE void each_vector(const float* row, int width, int64_t end, F&& body) {
  constexpr int kStep = kRowThreads * W;
  for (int64_t first = static_cast<int64_t>(threadIdx.x) * W; first < end; first += kStep * kAhead) {
    Floats<W> x[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) x[i] = first + i * kStep < width ? load<W>(row + first + i * kStep) : Floats<W>{};
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i * kStep < end) body(static_cast<int>(first) + i * kStep, x[i]);
  }
}

// A block per row. Each thread keeps its own peak and sum, so that the logits are read once for the loss and once more
// for the gradient. V is a multiple of W.
template <int W>
__global__ void __launch_bounds__(kRowThreads) softmax_rows(const SoftmaxArgs s) {
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  float* logits = s.logits + static_cast<int64_t>(row) * s.V;
  const int target =
      static_cast<int>(checked_index(s.fault, "linear_cross_entropy", "targets", s.first + row, s.targets[row], s.V));
  float peak = -FLT_MAX, sum = 0;
  each_vector<W>(logits, s.V, s.V, [&](int, const Floats<W>& x) {
    float most = peak;
#pragma unroll
    for (int i = 0; i < W; ++i) most = x.v[i] > most ? x.v[i] : most;
    if (most > peak) sum *= expf(peak - most), peak = most;
#pragma unroll
    for (int i = 0; i < W; ++i) sum += expf(x.v[i] - peak);
  });
  const float top = block_max<kRowThreads>(peak);
  const double total = block_sum<kRowThreads>(static_cast<double>(sum) * static_cast<double>(expf(peak - top)));
  if (thread == 0)
    s.nll[row] = static_cast<float>(log(total) + (static_cast<double>(top) - static_cast<double>(logits[target])));
  if (!s.backward) return;
  const float weight = s.weights ? s.weights[row] : 1.0f,
              factor = static_cast<float>(static_cast<double>(weight) / total);
  const auto gradient = [&](int v, const Floats<W>& x) {
    Floats<W> g{};
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (v < s.V) g.v[i] = factor * expf(x.v[i] - top) - (v + i == target ? weight : 0.0f);
    return g;
  };
  __syncthreads();  // thread 0 has read the target's logit
  if (uint16_t* to = s.gradient) {
    to += row * s.padded;
    each_vector<W>(logits, s.V, s.padded, [&](int v, const Floats<W>& x) { store<W>(to + v, gradient(v, x)); });
  } else {
    each_vector<W>(logits, s.V, s.V, [&](int v, const Floats<W>& x) { store<W>(logits + v, gradient(v, x)); });
  }
}

}  // namespace

void linear_cross_entropy(TensorRef nll, TensorRef dx, TensorRef dw, TensorRef x, TensorRef w, TensorRef targets,
                          TensorRef weights, int64_t precision) {
  constexpr const char* op = "linear_cross_entropy";
  const int64_t V = w->shape[0], D = w->shape[1], S = nll->numel(), padded = blocks_for(V, 8) * 8;
  if (S == 0) return;
  const bool backward = dx || dw;
  const int64_t chunk = workspace::logit_rows(S, V);
  Staging staging;
  Source xs{.data = x->data, .ld = D, .count = S}, ws{.data = w->data, .ld = D, .count = V, .kind = kind_of(*w)};
  if (precision) {  // once for all chunks
    xs = staging.bf16(xs, D, S, true, op);
    ws = staging.bf16(ws, D, V, true, op);
  }
  Workspace<float> logits(static_cast<size_t>(chunk * V));
  Workspace<uint16_t> gradient(backward && precision ? static_cast<size_t>(chunk * padded) : 0);
  for (int64_t from = 0; from < S; from += chunk) {
    const int64_t rows = S - from < chunk ? S - from : chunk;
    Source some = xs;
    some.data = static_cast<const char*>(xs.data) + static_cast<size_t>(from * xs.ld) * (precision ? 2 : 4);
    some.count = rows;
    Product p{.m = rows, .n = V, .c = logits.data(), .ldc = V, .op = op};
    p.main = {some, ws, D, 1.0f};
    multiply(p, precision, staging);
    const SoftmaxArgs softmax{logits.data(),
                              gradient.data(),
                              padded,
                              backward,
                              static_cast<int>(V),
                              targets->i32() + from,
                              weights ? weights->f32() + from : nullptr,
                              nll->f32() + from,
                              from,
                              device().fault};
    with_width(V % 4 == 0, [&](auto width) {
      launch(softmax_rows<decltype(width)::value>, dim3(static_cast<unsigned>(rows)), dim3(kRowThreads), 0, softmax);
    });
    Source g{.data = logits.data(), .ld = V, .count = rows};
    if (precision) g = {.data = gradient.data(), .ld = padded, .count = rows, .kind = Kind::bf16, .zero_padded = true};
    if (dx) {
      Product q{.m = rows, .n = D, .c = dx->f32() + from * D, .ldc = D, .op = op};
      q.main = {g, ws, V, 1.0f};
      q.main.b.k_inner = false;
      multiply(q, precision, staging);
    }
    if (dw) {
      Product q{.m = V, .n = D, .c = dw->f32(), .ldc = D, .accumulate = true, .op = op};
      q.main = {g, some, rows, 1.0f};
      q.main.a.k_inner = q.main.b.k_inner = false;
      multiply(q, precision, staging);
    }
  }
}

}  // namespace temper::gpu
