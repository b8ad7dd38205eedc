// The sequences of an attention call, checked once; shared by the shipped path and the reference.
#pragma once
#include "temper/error.h"
#include "temper/tensor.h"

namespace temper::cpu {

struct AttentionShape {
  int64_t B, T, S, H, Hkv, Dh, window, ring;
  const int32_t* pages = nullptr;  // [B, table]; then key j of b is row j mod 2^page_bits of a page
  int64_t table = 0;
  int page_bits = 0;

  int64_t kv_head(int64_t h) const { return h * Hkv / H; }
  // First key that position p sees; it sees up to p itself.
  int64_t first_key(int64_t p) const { return window > 0 && p - window + 1 > 0 ? p - window + 1 : 0; }
  const int32_t* pages_of(int64_t b) const { return pages ? pages + b * table : nullptr; }
};
// Where the keys of one sequence lie.
struct KeyRows {
  int64_t start, ring;
  const int32_t* pages;
  int page_bits;
  int64_t row(int64_t j) const {
    if (pages)
      return (static_cast<int64_t>(pages[j >> page_bits]) << page_bits) + (j & ((int64_t{1} << page_bits) - 1));
    return start + (ring > 0 ? j % ring : j);
  }
};
inline KeyRows key_rows(const AttentionShape& s, const Tensor* k_start, int64_t b) {
  return {s.pages ? 0 : k_start->i32()[b], s.ring, s.pages_of(b), s.page_bits};
}

// Throws bad_index, shape_mismatch, bad_argument. Without k_len: no keys but the queries' own.
AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Tensor& q_start, const Tensor* k_start,
                               const Tensor* k_len, int64_t window, int64_t ring, const Tensor* pages = nullptr,
                               int64_t page = 0);
// For the backward, which adds to the rows of dk and dv. Throws bad_index.
void require_separate_keys(const AttentionShape& s, const Tensor& k_start, const Tensor& k_len);

}  // namespace temper::cpu
