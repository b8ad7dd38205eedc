// Attention with sinks over varlen sequences, forward and backward.
#include "cpu/ops.h"

namespace temper::cpu {

void attention_fwd(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks, TensorRef q_start, TensorRef k_start, TensorRef k_len,
                   int64_t window, int64_t ring, double scale) {
  reference::attention_fwd(o, lse, q, k, v, sinks, q_start, k_start, k_len, window, ring, scale);
}

void attention_bwd(TensorRef dq, TensorRef dk, TensorRef dv, TensorRef dsinks, TensorRef dout, TensorRef q, TensorRef k, TensorRef v, TensorRef o, TensorRef lse,
                   TensorRef sinks, TensorRef q_start, int64_t window, double scale) {
  reference::attention_bwd(dq, dk, dv, dsinks, dout, q, k, v, o, lse, sinks, q_start, window, scale);
}

}  // namespace temper::cpu
