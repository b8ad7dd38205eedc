// The sequences of an attention call, checked once; shared by the shipped path and the reference.
#pragma once
#include "temper/error.h"
#include "temper/tensor.h"

namespace temper::cpu {

struct AttentionShape {
  int64_t B, T, S, H, Hkv, Dh, window, ring;

  int64_t kv_head(int64_t h) const { return h * Hkv / H; }
  // First key that position p sees; it sees up to p itself.
  int64_t first_key(int64_t p) const { return window > 0 && p - window + 1 > 0 ? p - window + 1 : 0; }
  int64_t key_row(int64_t k_start, int64_t j) const { return k_start + (ring > 0 ? j % ring : j); }
};

AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Tensor& q_start, const Tensor* k_start,
                               const Tensor* k_len, int64_t window, int64_t ring);
// For the backward, which adds to the rows of dk and dv. Throws bad_index.
void require_separate_keys(const AttentionShape& s, const Tensor& k_start, const Tensor& k_len);

}  // namespace temper::cpu
