// Attention, host side: one call's arguments and the paths it may take. attention.cu chooses.
#pragma once
#include <algorithm>
#include <bit>
#include <limits>

#include "cuda/attention/attention.cuh"
#include "cuda/host/runtime.h"
#include "gpu/workspace.h"

namespace temper::gpu::attention {

// rows may be read four elements at a time
inline bool vectors(const Tensor& t) { return t.shape[2] % 4 == 0 && aligned(4 * size_of(t.dtype), {t.data}); }

// Rows of f32 or of bf16.
struct Source {
  const void* data;
  bool bf16;
};
inline Source source_of(const Tensor& t) { return {t.data, t.dtype == DType::bf16}; }
// Calls f with the typed pointer.
template <class F>
void with_source(const Source& s, F&& f) {
  if (s.bf16) f(static_cast<const uint16_t*>(s.data));
  else f(static_cast<const float*>(s.data));
}

struct Pages {
  const Tensor* table = nullptr;  // i32 [B, M], or null
  int64_t page = 0;
};
inline Problem problem(const char* op, const Tensor& q, const Tensor& k, const Tensor& q_start, const Tensor* k_start,
                       const Tensor& k_len, int64_t window, int64_t ring, double scale, const Pages& pages = {}) {
  const int64_t H = q.shape[1], Hkv = k.shape[1], Dh = q.shape[2];
  require(Hkv > 0 && H > 0 && H % Hkv == 0, "shape_mismatch", op, ": ", H, " query heads over ", Hkv,
          " kv heads, wanted a multiple");
  require(Dh > 0 && Dh <= 256, "shape_mismatch", op, ": heads of width ", Dh, ", wanted 1 to 256");
  require(window >= 0 && ring >= 0, "bad_argument", op, ": window ", window, ", ring ", ring, ", wanted 0 or more");
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();  // positions are i32: nothing beyond it is different
  Problem p{};
  p.q_start = q_start.i32();
  p.k_start = k_start ? k_start->i32() : nullptr;
  p.k_len = k_len.i32();
  p.B = q_start.numel() - 1;
  p.T = q.shape[0];
  p.S = k.shape[0];
  if (pages.table) {
    p.pages = pages.table->i32();
    p.table = pages.table->shape[1] * pages.page;
    p.page_limit = p.S / pages.page;
    p.page_bits = std::countr_zero(static_cast<uint64_t>(pages.page));
    p.S = p.B * p.table;
  }
  p.H = static_cast<int>(H);
  p.Hkv = static_cast<int>(Hkv);
  p.group = static_cast<int>(H / Hkv);
  p.Dh = static_cast<int>(Dh);
  p.window = window > 0 ? static_cast<int>(std::min(window, kMost)) : 0;
  p.ring = ring > 0 ? static_cast<int>(std::min(ring, kMost)) : 0;
  p.scale = static_cast<float>(scale);
  p.fault = device().fault;
  p.op = op;
  p.q_start_name = "q_start";
  p.k_start_name = "k_start";
  p.k_len_name = "k_len";
  p.pages_name = "pages";
  return p;
}
inline Sinks sinks_of(TensorRef sinks) { return {sinks ? sinks->data : nullptr, sinks && sinks->dtype == DType::bf16}; }
inline int64_t rows_of(const Problem& p) { return p.T * p.group; }  // of one kv head

inline int parts_of(int64_t precision) { return precision ? 1 : kPartsF32; }

struct Forward {
  Problem p;
  float *o, *lse;  // lse may be null
  const float* q;
  Source k, v;
  Sinks sinks;
  bool vectors;  // of k and v
  int parts;
};
struct Backward {
  Problem p;
  float *dq, *dk, *dv;
  const float *dout, *q, *k, *v, *lse, *dot;  // dot f32 [T,H]: Σ do∘o
  bool query_vectors, key_vectors;
  int parts;
};

// Writes `heads` kv heads from `first_head` on of src [rows, Hkv·group, Dh], times factor, as bf16 parts
// (attention.cuh): the first or the second tensor of packed [heads][rows·group][2·parts·kWidth]. keys: only about the
// rows that a sequence's keys lie in are written; from pages they come in the order of their sequences, p.S rows.
void pack_parts(int parts, uint16_t* packed, bool second, const Problem& p, const Source& src, int64_t rows, int group,
                int first_head, int heads, float factor, bool vectors, bool keys);
// How many kv heads are packed and computed at a time: as many as fit workspace::kPackBytes.
static_assert(kWidth == workspace::kHeadWidth && kPartsF32 == workspace::kPartsF32);
inline int heads_at_a_time(const Problem& p, int64_t rows, int parts) {
  return static_cast<int>(workspace::packed_heads(rows, p.Hkv, parts));
}

// What kernels of many queries take.
struct RowsArgs {
  Problem p;
  float *o, *lse;
  const float* q;
  Sinks sinks;
  const uint16_t* packed;  // K and V of these heads
  int first_head;
};
// Packs K and V of as many kv heads at a time as fit, and calls run(args, heads) for each lot.
template <class Run>
void with_packed_keys(const Forward& f, const Run& run) {
  const Problem& p = f.p;
  const int heads = heads_at_a_time(p, p.S, f.parts);
  Workspace<uint16_t> packed(static_cast<size_t>(heads * p.S * 2 * f.parts * kWidth));
  for (int head = 0; head < p.Hkv; head += heads) {
    const int n = std::min(heads, p.Hkv - head);
    pack_parts(f.parts, packed.data(), false, p, f.k, p.S, 1, head, n, 1.0f, f.vectors, true);
    pack_parts(f.parts, packed.data(), true, p, f.v, p.S, 1, head, n, 1.0f, f.vectors, true);
    run(RowsArgs{p, f.o, f.lse, f.q, f.sinks, packed.data(), head}, n);
  }
}

// TEMPER_CUDA_ATTENTION = auto, mma or wgmma, read at the first call: what takes the products of many queries in bf16
// on a card that has both. auto: the backward pass by warpgroups, the forward pass by mma, as decode does: a query's
// bits are the same however it is computed, and whether wgmma has those of mma no run has shown yet. wgmma: the forward
// pass too, of training and prompts alike; mma: neither.
enum class AttentionChoice { automatic, mma, wgmma };
AttentionChoice attention_choice();
void set_attention_choice(AttentionChoice choice);  // for tests

// Few queries over long keys: the keys of one query are computed by many blocks at once.
bool split_fits(const Problem& p);
void forward_split(const Forward& f);
// By warpgroup products: one part, heads up to kWidth, on the cards that have them.
bool wgmma_suits(const Problem& p, int parts);
void forward_wgmma(const Forward& f);
void backward_wgmma(const Backward& b);
// Heads wider than kWidth, without tensor cores: f32 at either precision.
void forward_wide(const Forward& f);
void backward_wide(const Backward& b);

}  // namespace temper::gpu::attention
