// Device memory that each op of this backend holds beside its arguments, in bytes: what a plan counts without a device.
// Pure functions of a call's arguments; kernels whose sizes are simple take them from here. Where the true figure
// depends on the device or on what another product of the call left staged, this is what the model's shapes take.
#pragma once
#include <algorithm>
#include <cstdint>

#include "temper/cost.h"
#include "temper/ops.h"

namespace temper::gpu::workspace {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- rmsnorm.cu, adamw.cu, router.cu, rows.cu, embedding.cu ----
inline constexpr int64_t kNormPartials = 512;  // partial sums of dw, at most
inline int64_t norm_rows(TensorRef dw, int64_t T) { return dw ? ceil_div(T, kNormPartials) : 1; }
inline constexpr int64_t kSquareTile = 16384;  // elements of a block of sum_squares: the cuts depend on n alone
inline constexpr int64_t kSortTile = 2048, kDigitBits = 10;
inline int64_t sort_tiles(int64_t n) { return ceil_div(n, kSortTile); }
inline constexpr int64_t kPairwise = 1024;  // rows of scatter_rows that are compared in pairs

// ---- lora_merge.cu ----
inline constexpr int64_t kMergeOutputs = 4;
// Blocks of 256 threads for an expert of N outputs by G groups, four threads to a group.
inline int64_t merge_blocks(int64_t N, int64_t G) { return ceil_div(ceil_div(N, kMergeOutputs) * G * 4, 256); }

// ---- sample.cu ----
inline constexpr int64_t kSampleChunk = 2048, kSampleBins = 2048;

// ---- linear_cross_entropy.cu ----
inline constexpr int64_t kLogitBytes = int64_t{208} << 20;
inline int64_t logit_rows(int64_t S, int64_t V) {
  return std::min(S, std::clamp<int64_t>(kLogitBytes / (4 * V) / 64 * 64, 64, 2048));
}

// ---- attention ----
inline constexpr int64_t kHeadWidth = 64, kPartsF32 = 3, kPackBytes = int64_t{96} << 20;
// bf16 parts of two operands of `rows` rows, as many heads at a time as fit kPackBytes
inline int64_t packed_heads(int64_t rows, int64_t Hkv, int64_t parts) {
  return std::clamp<int64_t>(kPackBytes / (std::max<int64_t>(rows, 1) * 2 * parts * kHeadWidth * 2), 1, Hkv);
}
inline int64_t packed_bytes(int64_t rows, int64_t Hkv, int64_t parts) {
  return packed_heads(rows, Hkv, parts) * rows * 2 * parts * kHeadWidth * 2;
}

// The backward pass by warpgroups (cuda/attention/attention_wgmma.cuh): bytes of the records of 64 rows, and how many
// of them B sequences of `rows` rows together take. Of both tensors as many heads at a time as fit kPackBytes.
inline constexpr int64_t kKeyRecord = 2 * 64 * kHeadWidth * 2, kRowRecord = kKeyRecord + 64 * 8;
inline int64_t tile_records(int64_t rows, int64_t B) { return rows / 64 + B; }
inline int64_t record_bytes(int64_t rows, int64_t keys, int64_t B) {
  return tile_records(rows, B) * kRowRecord + tile_records(keys, B) * kKeyRecord;
}
inline int64_t record_heads(int64_t rows, int64_t keys, int64_t B, int64_t Hkv) {
  return std::clamp<int64_t>(kPackBytes / std::max<int64_t>(record_bytes(rows, keys, B), 1), 1, Hkv);
}

// Slots of the keys' runs where few queries see long keys, and what a slot of all heads takes.
inline constexpr int64_t kSplitRows = 16, kSplitKeys = 64, kSplitDirect = 4, kSinkTokens = 256;
inline constexpr int64_t kSlotBytes = int64_t{192} << 20;  // at most, for what the runs leave
inline int64_t slot_bytes(int64_t Hkv) { return Hkv * kSplitRows * (kHeadWidth * 4 + 8); }
inline int64_t split_slots(int64_t T, int64_t S, int64_t B, int64_t Hkv, int64_t group, int64_t window) {
  const int64_t seen = window > 0 ? std::min(S, window + T) : S;  // keys of a sequence at most
  const int64_t most = ceil_div(seen, kSplitKeys) + 1, tiles = ceil_div(T * group, kSplitRows) + B;
  // For sequences that share no keys and have the same number of queries; find_piece does without where that is too
  // few.
  const int64_t each = ceil_div(ceil_div(T, B) * group, kSplitRows);
  if (most <= kSplitDirect) return 0;
  return std::min({tiles * most, each * (ceil_div(S, kSplitKeys) + 2 * B), kSlotBytes / slot_bytes(Hkv)});
}

// ---- one function per op: an op without one does not compile (native/plan/table.cpp) ----

inline double scatter_rows(const args::scatter_rows& a) {
  return a.rows->numel() > kPairwise ? 4.0 * ceil_div(a.dst->rows(), 32) : 0;
}

inline double embedding_fwd(const args::embedding_fwd&) { return 0; }
inline double embedding_bwd(const args::embedding_bwd& a) {
  const int64_t T = a.ids->numel();
  return 4.0 * (2 * T + (sort_tiles(T) << kDigitBits));
}
inline double rmsnorm_fwd(const args::rmsnorm_fwd&) { return 0; }
inline double rmsnorm_bwd(const args::rmsnorm_bwd& a) {
  const int64_t T = a.x->shape[0];
  return a.dw && T ? 4.0 * ceil_div(T, norm_rows(a.dw, T)) * a.x->shape[1] : 0;
}
inline double rope_table(const args::rope_table&) { return 0; }
inline double rope(const args::rope&) { return 0; }

// The copy in bf16 that products read of an activation; none of one that is bf16 and lies as they read it.
inline double staged(TensorRef t, double elements) {
  return t->dtype == DType::bf16 && t->shape[t->ndim - 1] % 8 == 0 ? 0 : 2.0 * elements;
}
// Copies of the activations, and x after dropout for the low-rank product
inline double linear_fwd(const args::linear_fwd& a) {
  const int64_t C = a.w->shape[1], T = C ? a.x->numel() / C : 0, R = a.A ? a.A->shape[0] : 0;
  return staged(a.x, T * C) + 2.0 * T * R + (a.A && a.dropout > 0 ? 2.0 * T * C : 0);
}
inline double linear_bwd(const args::linear_bwd& a) {
  const int64_t N = a.w->shape[0], C = a.w->shape[1], T = N ? a.dy->numel() / N : 0, R = a.A ? a.A->shape[0] : 0;
  // and the parts of dA or dB
  return staged(a.dy, T * N) + staged(a.x, T * C) + 8.0 * T * R +
         4.0 * std::min<int64_t>(ceil_div(T, 256), 32) * R * std::max(N, C);
}
inline double q8_quantize(const args::q8_quantize&) { return 0; }
inline double linear_q8_fwd(const args::linear_q8_fwd& a) {
  return 2.0 * a.x->rows() * (a.x->width() + (a.A ? a.A->shape[0] : 0));
}
inline double linear_qkv_fwd(const args::linear_qkv_fwd& a) {
  const int64_t T = a.x->shape[0], D = a.x->shape[1];
  return 4.0 * T * (D + 1 + a.k->width()) + 2.0 * T * D + scatter_rows({a.k, a.k, a.rows});
}
inline double lora_fwd(const args::lora_fwd&) { return 0; }
inline double grouped_lora_fwd(const args::grouped_lora_fwd&) { return 0; }
inline double linear_cross_entropy(const args::linear_cross_entropy& a) {
  const int64_t V = a.w->shape[0], D = a.w->shape[1], S = a.nll->numel(), rows = logit_rows(S, V);
  const bool backward = a.dx || a.dw;
  return 4.0 * rows * V + (a.precision ? 2.0 * S * D + (backward ? 2.0 * rows * (V + 7) : 0) : 0);
}

inline double attention_fwd(const args::attention_fwd& a) {
  const int64_t T = a.q->shape[0], B = a.k_len->numel();
  const int64_t S = a.pages ? a.pages->numel() * a.page : a.k->shape[0], Hkv = a.k->shape[1];
  if (a.q->shape[2] > kHeadWidth || B == 0 || Hkv == 0) return 0;
  if (T <= std::max<int64_t>(4 * B, 16))
    return static_cast<double>(split_slots(T, S, B, Hkv, a.q->shape[1] / Hkv, a.window) * slot_bytes(Hkv));
  return static_cast<double>(packed_bytes(S, Hkv, a.precision ? 1 : kPartsF32));
}
inline double attention_bwd(const args::attention_bwd& a) {
  const int64_t T = a.q->shape[0], H = a.q->shape[1], S = a.k->shape[0], Hkv = a.k->shape[1];
  const double dot = 4.0 * T * H;  // and of each row and head two floats more
  const double sinks = a.dsinks && a.sinks ? 8.0 * ceil_div(T, kSinkTokens) * H : 0;
  if (a.q->shape[2] > kHeadWidth) return dot + sinks;
  const int64_t parts = a.precision ? 1 : kPartsF32, rows = Hkv ? T * (H / Hkv) : 0, B = a.k_len->numel();
  const int64_t records = a.precision && Hkv ? record_heads(rows, S, B, Hkv) * record_bytes(rows, S, B) : 0;
  return 3 * dot + std::max(sinks, static_cast<double>(std::max(
                                       {packed_bytes(S, Hkv, parts), packed_bytes(rows, Hkv, parts), records})));
}

inline double topk_fwd(const args::topk_fwd&) { return 0; }
inline double topk_bwd(const args::topk_bwd&) { return 0; }
inline double moe_plan(const args::moe_plan& a) {
  const int64_t E = a.offsets->numel() - 1, P = a.ids->numel(), tiles = sort_tiles(P);
  return E <= 1 << kDigitBits ? (tiles > 1 ? 4.0 * tiles * E : 0) : 4.0 * (2 * P + (tiles << kDigitBits));
}
// Rows for MXFP4 are copied even where they are bf16: their kernel reads k in another order.
inline double grouped_linear_fwd(const args::grouped_linear_fwd& a) {
  const double x = a.layout == 0 ? 2.0 * a.x->numel() : staged(a.x, a.x->numel());
  return 2.0 * a.y->shape[0] * (a.A ? a.A->shape[1] : 0) + x;
}
inline double linear_router_fwd(const args::linear_router_fwd& a) {
  const int64_t T = a.x->shape[0], D = a.x->shape[1], E = a.w->shape[0];
  return 4.0 * T * (E + 1) + 2.0 * T * D +
         moe_plan({a.offsets, a.row_token, a.slot_row, a.row_weight, a.ids, a.weights});
}
inline double grouped_linear_swiglu_fwd(const args::grouped_linear_swiglu_fwd& a) {
  const double x = a.layout == 0 ? 2.0 * a.x->numel() : staged(a.x, a.x->numel());
  return (a.z ? 0 : 8.0 * a.a->numel()) + 2.0 * a.a->shape[0] * (a.A ? a.A->shape[1] : 0) + x;
}
inline double grouped_linear_combine_fwd(const args::grouped_linear_combine_fwd& a) {
  return 4.0 * a.x->shape[0] * a.out->shape[1] + bytes_of(a.x) / 2;
}
inline double grouped_linear_bwd(const args::grouped_linear_bwd& a) {
  const int64_t P = a.dx ? a.dx->shape[0] : a.dy_rows ? a.dy_rows->numel() : a.dy->shape[0];
  const int64_t N = a.dy->shape[a.dy->ndim - 1], C = a.x->shape[a.x->ndim - 1];
  // r∘g of a weight's gradient is a copy of its own
  const double weighted = a.row_weight && a.dw && a.dy->dtype == DType::bf16 ? 2.0 * P * N : 0;
  return staged(a.dy, P * N) + weighted + staged(a.x, P * C) + 8.0 * P * (a.A ? a.A->shape[1] : 0);
}
inline double swiglu_fwd(const args::swiglu_fwd&) { return 0; }
inline double swiglu_bwd(const args::swiglu_bwd&) { return 0; }
inline double moe_combine(const args::moe_combine&) { return 0; }
inline double moe_weight_bwd(const args::moe_weight_bwd&) { return 0; }

inline double adamw(const args::adamw&) { return 0; }
inline double adamw_8bit(const args::adamw_8bit&) { return 0; }
inline double sum_squares(const args::sum_squares& a) {
  const int64_t blocks = ceil_div(a.x->numel(), kSquareTile);
  return blocks > 1 ? 8.0 * blocks : 0;
}

inline double gather_rows(const args::gather_rows&) { return 0; }
inline double add(const args::add&) { return 0; }
inline double cast(const args::cast&) { return 0; }
inline double fill(const args::fill&) { return 0; }
inline double mxfp4_quantize(const args::mxfp4_quantize&) { return 0; }
inline double mxfp4_dequantize(const args::mxfp4_dequantize&) { return 0; }
inline double mxfp4_merge(const args::mxfp4_merge& a) {
  return a.kept ? 16.0 * a.B->shape[0] * merge_blocks(a.B->shape[1], a.base_scales->shape[2]) : 0;
}
inline double lora_merge(const args::lora_merge&) { return 0; }
inline double random_uniform(const args::random_uniform&) { return 0; }
inline double random_normal(const args::random_normal&) { return 0; }
inline double random_bytes(const args::random_bytes&) { return 0; }
inline double sample(const args::sample& a) {
  const int64_t B = a.logits->shape[0], V = a.logits->shape[1], cells = B * ceil_div(V, kSampleChunk);
  return 32.0 * cells + B * (12.0 * kSampleBins + 12) + 4.0 * B * V;
}

}  // namespace temper::gpu::workspace
