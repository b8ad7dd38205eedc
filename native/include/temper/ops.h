// The op table: one contract per op, the same for every backend. Start reading here.
//
// Dimensions   B sequences · T query tokens · S key tokens or supervised rows · D hidden · H query heads · Hkv kv heads
//              Dh head width · E experts · K experts per token · P = T·K routed rows, sorted by expert · F expert
//              hidden V vocabulary · R LoRA rank · G = 32, the MXFP4 group · N, C a matrix's outputs and inputs
// Layout       every tensor is dense and row-major, the last dimension fastest.
// dtypes       activations and gradients are f32. "wf" is a frozen or trained float: bf16 or f32. Indices are i32.
// precision    0 = f32: products of f32 activations with the exact weights, accumulated in f32.
//              1 = bf16: both operands of a matrix product are rounded to bf16 (nearest even), accumulated in f32; all
//              else stays f32. Attention's may be rounded.
// nullable     an argument marked `?` may be null: the part it names is then left out.
// gradients    activation gradients are overwritten, parameter gradients accumulate, unless the line says otherwise.
// determinism  the same inputs give the same bits on every run and at every thread count. No op allocates on a hot path
//              but through temper/memory.h, whose workspace is reused.
// errors       a status: 0, or non-zero with temper_last_error() telling code and message. Outputs are then undefined.
#pragma once
#include "temper/tensor.h"

extern "C" {
struct TemperOps {
  // ---- tables, norms, positions -----------------------------------------------------------------------------------
  // y[t] = table[ids[t]].                      y f32 [T,D]; table wf [V,D]; ids i32 [T], each in [0,V)
  int (*embedding_fwd)(TensorRef y, TensorRef table, TensorRef ids);
  // dtable[ids[t]] += dy[t], in order of t.    dtable f32 [V,D]; dy f32 [T,D]
  int (*embedding_bwd)(TensorRef dtable, TensorRef dy, TensorRef ids);

  // s = x + residual; y[t,d] = s[t,d]·rstd[t]·w[d], rstd[t] = 1/√(mean_d s² + eps)              (arXiv:1910.07467)
  // y, x f32 [T,D]; rstd f32 [T] saved; sum? f32 [T,D] receives s (may alias x); residual? f32 [T,D]; w wf [D]
  int (*rmsnorm_fwd)(TensorRef y, TensorRef rstd, TensorRef sum, TensorRef x, TensorRef residual, TensorRef w,
                     double eps);
  // dx = dres + rstd·(w∘dy − s·mean_d(w∘dy∘s)·rstd²).   dx may alias dres or dy. dw? f32 [D]; dres? f32 [T,D]; x is the
  // sum s
  int (*rmsnorm_bwd)(TensorRef dx, TensorRef dw, TensorRef dy, TensorRef dres, TensorRef x, TensorRef w,
                     TensorRef rstd);

  // cos[t,j] = m·cos(p_t·f_j), sin likewise; angles in f32, as the released model forms them.
  // cos, sin f32 [T,Dh/2]; positions i32 [T]; inv_freq f32 [Dh/2]; m = YaRN concentration
  int (*rope_table)(TensorRef cos, TensorRef sin, TensorRef positions, TensorRef inv_freq, double m);
  // In place, halves rotated: a' = a·cos − b·sin, b' = b·cos + a·sin. direction +1 forward, −1 the transpose
  // (backward). x f32 [T,H·Dh] or [T,H,Dh]; heads H
  int (*rope)(TensorRef x, TensorRef cos, TensorRef sin, int64_t heads, int64_t direction);

  // ---- dense products -----------------------------------------------------------------------------------------------
  // y = x·Wᵀ + bias + scale·(h·Bᵀ), h = dropout(x)·Aᵀ.                                          (arXiv:2106.09685 §4.1)
  // y f32 [T,N]; x f32 [T,C]; w wf [N,C]; bias? wf [N]; A? f32 [R,C], B f32 [N,R], h f32 [T,R] saved: null together.
  // dropout p in [0,1): keep element i of x with probability 1−p, scaled 1/(1−p); mask = counter hash of (seed, i).
  int (*linear_fwd)(TensorRef y, TensorRef h, TensorRef x, TensorRef w, TensorRef bias, TensorRef A, TensorRef B,
                    double scale, double dropout, int64_t seed, int64_t precision);
  // dx = dy·W + scale·dropoutᵀ(dy·B·A)   (added to dx when accumulate_dx is 1); dW? += dyᵀ·x, dbias? += Σ_t dy,
  // dA? += scale·(dy·B)ᵀ·dropout(x), dB? += scale·dyᵀ·h.     dx? f32 [T,C]; dw f32 [N,C]; dbias f32 [N]; dA, dB as A, B
  int (*linear_bwd)(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy, TensorRef x,
                    TensorRef h, TensorRef w, TensorRef A, TensorRef B, double scale, double dropout, int64_t seed,
                    int64_t accumulate_dx, int64_t precision);
  // Frozen dense weights in 8 bits, for serving: the value of W is q·s, q a two's complement byte in −127…127, s one
  // bf16 for 32 inputs. s = max|w|/127 rounded up to bf16; q = w/s to the nearest, ties to even. NaN or infinity in w
  // is an error. q u8 [...,C]; scales bf16 [...,C/32]; w wf [...,C]
  int (*q8_quantize)(TensorRef q, TensorRef scales, TensorRef w);
  // As linear_fwd without dropout, W = q·scales, never expanded as a whole. Forward only.
  // y f32 [T,N]; x f32 [T,C]; q u8 [N,C]; scales bf16 [N,C/32], C a multiple of 32; bias? wf [N]; A?, B, h as there
  int (*linear_q8_fwd)(TensorRef y, TensorRef h, TensorRef x, TensorRef q, TensorRef scales, TensorRef bias,
                       TensorRef A, TensorRef B, double scale, int64_t precision);
  // nll[s] = logΣ_v exp(x[s]·w[v]) − x[s]·w[target[s]], nats; dx[s] = weight[s]·(softmax(x[s]·wᵀ) − 1_target)·w.
  // Rows are taken in chunks: [S,V] never exists as a whole.
  // nll f32 [S]; dx? f32 [S,D]; dw? f32 [V,D]; x f32 [S,D]; w wf [V,D]; targets i32 [S] in [0,V); weights? f32 [S]
  // (null: 1)
  int (*linear_cross_entropy)(TensorRef nll, TensorRef dx, TensorRef dw, TensorRef x, TensorRef w, TensorRef targets,
                              TensorRef weights, int64_t precision);

  // ---- attention --------------------------------------------------------------------------------
  // Sequence b owns query rows [q_start[b], q_start[b+1]), n of them, and logical keys 0…k_len[b]−1; its query i stands
  // at position p = k_len[b] − n + i and sees keys max(0, p−window+1) … p (window 0: all up to p). Key j of b lies in
  // row k_start[b] + (ring > 0 ? j mod ring : j) of k and v. Query head h uses kv head ⌊h·Hkv/H⌋.
  // s_j = scale·q·k_j; lse = log(exp(sink_h) + Σ_j exp(s_j)); o = Σ_j exp(s_j − lse)·v_j.   (gpt-oss: sink in the
  // denominator) o f32 [T,H,Dh]; lse? f32 [T,H] saved; q f32 [T,H,Dh]; k, v f32 [S,Hkv,Dh]; sinks? wf [H]; q_start i32
  // [B+1]; k_start, k_len i32 [B] precision 1: a backend may round the operands of the products, q, k, v, do, p and ds,
  // to bf16; it accumulates in f32, and softmax, lse and D are f32 as at 0. The CPU goes on in f32: its bits are the
  // same at both. Not quadratic in memory; a window layer costs O(window) per query.
  int (*attention_fwd)(TensorRef o, TensorRef lse, TensorRef q, TensorRef k, TensorRef v, TensorRef sinks,
                       TensorRef q_start, TensorRef k_start, TensorRef k_len, int64_t window, int64_t ring,
                       double scale, int64_t precision);
  // Sequences as there, without a ring, their keys in rows that rise and do not overlap. D = Σ do∘o; ds = p∘(do·v − D);
  // dq = scale·Σ_j ds_j·k_j; dk_j += scale·Σ ds_j·q, dv_j += Σ p_j·do over these queries: a long sequence can be taken
  // in pieces of its queries; dsink_h? −= Σ exp(sink−lse)·D.
  int (*attention_bwd)(TensorRef dq, TensorRef dk, TensorRef dv, TensorRef dsinks, TensorRef dout, TensorRef q,
                       TensorRef k, TensorRef v, TensorRef o, TensorRef lse, TensorRef sinks, TensorRef q_start,
                       TensorRef k_start, TensorRef k_len, int64_t window, double scale, int64_t precision);

  // ---- mixture of experts -----------------------------------------------------------------------
  // ids[t] = the K largest logits (a tie goes to the lower expert, NaN counts as −∞), falling; weights[t] = softmax
  // over those K. weights f32 [T,K]; ids i32 [T,K]; logits f32 [T,E]
  int (*topk_fwd)(TensorRef weights, TensorRef ids, TensorRef logits);
  // dlogits = softmax Jacobian on the chosen, 0 elsewhere.   dlogits f32 [T,E] overwritten; dweights f32 [T,K]
  int (*topk_bwd)(TensorRef dlogits, TensorRef dweights, TensorRef weights, TensorRef ids);
  // Stable sort of the P = T·K (token, slot) pairs by expert. Rows of expert e: [offsets[e], offsets[e+1]).
  // offsets i32 [E+1]; row_token i32 [P]; slot_row i32 [T,K], its inverse; row_weight f32 [P]; ids i32 [T,K]; weights
  // f32 [T,K]
  int (*moe_plan)(TensorRef offsets, TensorRef row_token, TensorRef slot_row, TensorRef row_weight, TensorRef ids,
                  TensorRef weights);
  // For rows p of expert e, xp = x[rows[p]] (rows null: x[p]):  y[p] = xp·W_eᵀ + bias_e + scale·(h[p]·B_eᵀ), h[p] =
  // xp·A_eᵀ. y f32 [P,N]; x f32 [*,C]; rows? i32 [P]; offsets i32 [E+1]; bias? wf [E,N]; A? f32 [E,R,C], B f32 [E,N,R],
  // h f32 [P,R] saved. layout 0: MXFP4, w u8 [E,N,C/32,16], scales u8 [E,N,C/32] (decoded tile by tile, never as a
  // whole)
  //        1: dense out×in, w wf [E,N,C], scales null        2: dense in×out (Hugging Face's bf16 files), w wf [E,C,N],
  //        scales null
  int (*grouped_linear_fwd)(TensorRef y, TensorRef h, TensorRef x, TensorRef rows, TensorRef offsets, TensorRef w,
                            TensorRef scales, TensorRef bias, TensorRef A, TensorRef B, double scale, int64_t layout,
                            int64_t precision);
  // With g[p] = dy[dy_rows[p]] (null: dy[p]) and r[p] = row_weight[p] (null: 1):
  // dx?[p] = g[p]·W_e + scale·g[p]·B_e·A_e  (NOT times r: see swiglu_bwd);  with rg = r∘g:
  // dW?_e += rgᵀ·xp (f32, out×in [E,N,C], whatever the layout of w), dbias?_e += Σ rg, dA?_e += scale·(rg·B_e)ᵀ·xp,
  // dB?_e += scale·rgᵀ·h.
  int (*grouped_linear_bwd)(TensorRef dx, TensorRef dw, TensorRef dbias, TensorRef dA, TensorRef dB, TensorRef dy,
                            TensorRef dy_rows, TensorRef row_weight, TensorRef x, TensorRef x_rows, TensorRef h,
                            TensorRef offsets, TensorRef w, TensorRef scales, TensorRef A, TensorRef B, double scale,
                            int64_t layout, int64_t precision);
  // gate = min(z[2k], limit), lin = clamp(z[2k+1], ±limit);  a[k] = gate·σ(alpha·gate)·(lin + 1).      a f32 [P,F]; z
  // f32 [P,2F]
  int (*swiglu_fwd)(TensorRef a, TensorRef z, double alpha, double limit);
  // da is per unit of row weight: dz = row_weight·da∘∂a/∂z (gradient passes at the clamp itself); row_dot?[p] = Σ_k
  // da[p,k]·a[p,k]. dz f32 [P,2F], may not alias z; row_dot f32 [P] overwritten; da f32 [P,F]; row_weight? f32 [P]
  int (*swiglu_bwd)(TensorRef dz, TensorRef row_dot, TensorRef da, TensorRef z, TensorRef row_weight, double alpha,
                    double limit);
  // out[t] = Σ_k weights[t,k]·y[slot_row[t,k]] in the order of k (weights null: 1); added to out when accumulate is 1.
  int (*moe_combine)(TensorRef out, TensorRef y, TensorRef weights, TensorRef slot_row, int64_t accumulate);
  // dweights[t,k] = row_dot[slot_row[t,k]] + Σ_d dout[t,d]·bias[ids[t,k],d]: the router's gradient without any expert
  // output kept. dweights f32 [T,K] overwritten; row_dot f32 [P]; dout f32 [T,D]; bias? wf [E,D]
  int (*moe_weight_bwd)(TensorRef dweights, TensorRef row_dot, TensorRef dout, TensorRef bias, TensorRef ids,
                        TensorRef slot_row);

  // ---- optimizer --------------------------------------------------------------------------------
  // Decoupled weight decay (arXiv:1711.05101), step counted from 1, g taken times grad_scale. p, m, v, g f32, one
  // shape.
  int (*adamw)(TensorRef p, TensorRef m, TensorRef v, TensorRef g, double lr, double beta1, double beta2, double eps,
               double weight_decay, int64_t step, double grad_scale);
  // out[0] = Σ x², accumulated in double.      out f32 [1]
  int (*sum_squares)(TensorRef out, TensorRef x);

  // ---- rows, casts, MXFP4 -----------------------------------------------------------------------
  int (*gather_rows)(TensorRef dst, TensorRef src, TensorRef rows);  // dst[i] = src[rows[i]]; any one dtype; rows i32
  // dst[rows[i]] = src[i]; rows distinct (KV write)
  int (*scatter_rows)(TensorRef dst, TensorRef src, TensorRef rows);
  int (*add)(TensorRef dst, TensorRef src);   // dst += src, f32
  int (*cast)(TensorRef dst, TensorRef src);  // f32 ↔ bf16 (nearest even) or a copy; one shape
  int (*fill)(TensorRef dst, double value);   // f32, bf16, i32 or u8
  // Scale e = clamp(⌊log2 amax⌋ − 2 + 127, 1, 254); element = nearest code, ties to the smaller magnitude, saturating
  // at ±6. NaN or infinity in w is an error. blocks u8 [...,C/32,16]; scales u8 [...,C/32]; w wf [...,C]           (OCP
  // MX v1.0)
  int (*mxfp4_quantize)(TensorRef blocks, TensorRef scales, TensorRef w);
  // exact in bf16 and f32; scale 255 is an error
  int (*mxfp4_dequantize)(TensorRef w, TensorRef blocks, TensorRef scales);

  // ---- random numbers and sampling --------------------------------------------------------------
  // Element i depends on (seed, i) only. uniform: [low, high); normal: mean 0, deviation `scale`; bytes: integers in
  // [low, high].
  int (*random_uniform)(TensorRef dst, int64_t seed, double low, double high);  // f32, bf16
  int (*random_normal)(TensorRef dst, int64_t seed, double scale);              // f32, bf16
  int (*random_bytes)(TensorRef dst, int64_t seed, int64_t low, int64_t high);  // u8
  // Per row b, params[b] = (temperature, top_k, top_p, min_p): temperature 0 = argmax (lowest id on a tie); else
  // softmax(logits/τ) restricted to the top_k largest (0: all), then to the smallest set of mass ≥ top_p, then to p ≥
  // min_p·p_max; u[b] in [0,1) picks. tokens i32 [B]; logprobs f32 [B]: log-softmax of the raw logits at the token;
  // logits f32 [B,V]; params f32 [B,4]; u f32 [B]; mask? i32 [B,⌈V/32⌉], bit v%32 of word v/32 set = allowed. A row
  // with no finite allowed logit is an error.
  int (*sample)(TensorRef tokens, TensorRef logprobs, TensorRef logits, TensorRef params, TensorRef u, TensorRef mask);
};
}

// clang-format off
// Every member once, in order: from this list the backends fill the table and the binding learns its names.
#define TEMPER_OP_NAMES(X)                                                                                         \
  X(embedding_fwd)                                                                                                 \
  X(embedding_bwd)                                                                                                 \
  X(rmsnorm_fwd)                                                                                                   \
  X(rmsnorm_bwd) X(rope_table) X(rope) X(linear_fwd) X(linear_bwd) X(q8_quantize) X(linear_q8_fwd)                 \
      X(linear_cross_entropy) X(attention_fwd) X(attention_bwd) X(topk_fwd) X(topk_bwd) X(moe_plan)                \
          X(grouped_linear_fwd) X(grouped_linear_bwd) X(swiglu_fwd) X(swiglu_bwd) X(moe_combine) X(moe_weight_bwd) \
              X(adamw) X(sum_squares) X(gather_rows) X(scatter_rows) X(add) X(cast) X(fill) X(mxfp4_quantize)      \
                  X(mxfp4_dequantize) X(random_uniform) X(random_normal) X(random_bytes) X(sample)
// clang-format on

#define TEMPER_COUNT_OP(name) +1
static_assert(sizeof(TemperOps) == (0 TEMPER_OP_NAMES(TEMPER_COUNT_OP)) * sizeof(void*),
              "TEMPER_OP_NAMES misses an op");
