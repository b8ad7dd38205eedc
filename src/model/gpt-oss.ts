// gpt-oss, forward and backward, over the ops: the only place that knows the architecture. Read `attention` and `experts` first, then `lossAndGradients`.
// Backward keeps the input of every layer and recomputes the rest of that layer when its turn comes. The residual stream x is f32 [T,D].
import { NativeError } from '../native/errors.js';
import { ops, PRECISION, type Precision } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { ropeParameters } from './config.js';
import type { CachePlan, KvCache } from './kv-cache.js';
import type { Batch, LayerAdapter, LayerGrads, LayerWeights, LinearGrads, LinearWeights, LoraPair, LoraTarget, ModelAdapter, ModelGrads, ModelWeights, Targets } from './types.js';

/** Tokens the experts take at a time: bounds their workspace, K·(2F + F + D)·4 bytes per token and as much again backward. */
export const MOE_CHUNK_TOKENS = 1024;

export interface ForwardOptions {
  readonly precision: keyof typeof PRECISION;
  /** Continues the slots of this cache; the batch's tokens are appended. */
  readonly cache?: KvCache | null;
  /** Rows whose hidden state is wanted (ascending); all if null. */
  readonly rows?: Int32Array | null;
  /** Seed of the LoRA dropout, used when `train` is set. */
  readonly seed?: number;
  readonly train?: boolean;
}

/** What all layers of one pass share. */
interface Pass {
  readonly model: ModelWeights;
  readonly adapter: ModelAdapter | null;
  readonly precision: Precision;
  readonly T: number;
  readonly ids: Tensor;
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly qStart: Tensor;
  readonly kStart: Tensor;
  readonly kLen: Tensor;
  readonly cache: { readonly store: KvCache; readonly plan: CachePlan } | null;
  readonly seed: number;
  readonly train: boolean;
}
const NO_ADAPTER: LayerAdapter = {};
const TARGETS: readonly LoraTarget[] = ['q', 'k', 'v', 'o', 'router', 'gateUp', 'down'];

function startPass(s: Scope, model: ModelWeights, adapter: ModelAdapter | null, batch: Batch, o: ForwardOptions): Pass {
  const { tokens, positions, starts } = batch;
  const T = tokens.length, B = starts.length - 1;
  const lengths = Int32Array.from({ length: Math.max(B, 0) }, (_, b) => (starts[b + 1] ?? 0) - (starts[b] ?? 0));
  if (T === 0 || positions.length !== T || B < 1 || starts[0] !== 0 || starts[B] !== T || lengths.some((n) => n < 1)) {
    throw new NativeError('bad_batch', `batch: ${T} tokens, ${positions.length} positions, starts ${starts.join(',')}; wanted as many positions as tokens and starts rising from 0 to the number of tokens`);
  }
  const half = model.config.head_dim / 2;
  const { invFreq, concentration } = ropeParameters(model.config);
  const cos = s.empty('f32', [T, half]), sin = s.empty('f32', [T, half]);
  ops.rope_table(cos, sin, s.from(positions), s.from(invFreq), concentration);
  return {
    model, adapter, precision: PRECISION[o.precision], T, ids: s.from(tokens), cos, sin,
    qStart: s.from(starts), kStart: s.from(starts.slice(0, B)), kLen: s.from(lengths),
    cache: o.cache ? { store: o.cache, plan: o.cache.plan(s, batch) } : null, seed: o.seed ?? 0, train: o.train ?? false,
  };
}

function layerOf(p: Pass, i: number): { w: LayerWeights; a: LayerAdapter } {
  const w = p.model.layers[i];
  if (!w) throw new NativeError('bad_layer', `layer ${i} of ${p.model.layers.length}`);
  return { w, a: p.adapter?.layers[i] ?? NO_ADAPTER };
}

/** A seed per (pass, layer, target), so that recomputation drops the same elements. 48 bits, splitmix-like. */
function dropoutSeed(p: Pass, layer: number, target: LoraTarget): number {
  let h = 0x9e3779b9;
  for (const part of [p.seed % 4294967296, Math.floor(p.seed / 4294967296), layer, TARGETS.indexOf(target)]) {
    h = Math.imul(h ^ (part | 0), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ (h >>> 16);
  }
  return (h >>> 0) * 65536 + TARGETS.indexOf(target);
}
const dropoutOf = (p: Pass, lora: LoraPair | undefined): number => (p.train && lora ? lora.dropout : 0);

interface Linear { readonly y: Tensor; readonly h: Tensor | null }
/** y = x·Wᵀ + bias + scale·(dropout(x)·Aᵀ)·Bᵀ */
function linear(s: Scope, p: Pass, i: number, target: LoraTarget, x: Tensor, w: LinearWeights, lora: LoraPair | undefined): Linear {
  const y = s.empty('f32', [x.rows, w.w.rows]);
  const h = lora ? s.empty('f32', [x.rows, lora.A.rows]) : null;
  if (w.scales) {
    ops.linear_q8_fwd(y, h, x, w.w, w.scales, w.bias, lora?.A ?? null, lora?.B ?? null, lora?.scale ?? 0, p.precision);
    return { y, h };
  }
  ops.linear_fwd(y, h, x, w.w, w.bias, lora?.A ?? null, lora?.B ?? null, lora?.scale ?? 0, dropoutOf(p, lora), dropoutSeed(p, i, target), p.precision);
  return { y, h };
}
function linearBackward(p: Pass, i: number, target: LoraTarget, dx: Tensor, accumulate: 0 | 1, dy: Tensor, x: Tensor, h: Tensor | null, w: LinearWeights, lora: LoraPair | undefined, g: LinearGrads | undefined): void {
  ops.linear_bwd(dx, g?.w ?? null, g?.bias ?? null, lora?.dA ?? null, lora?.dB ?? null, dy, x, h, w.w, lora?.A ?? null, lora?.B ?? null,
    lora?.scale ?? 0, dropoutOf(p, lora), dropoutSeed(p, i, target), accumulate, p.precision);
}

/** Norm, projections, rotary, attention, output projection: everything of the first half-layer but the residual sum. */
function attention(s: Scope, p: Pass, i: number, x: Tensor, save: boolean) {
  const { w, a } = layerOf(p, i);
  const { num_attention_heads: H, num_key_value_heads: Hkv, head_dim: Dh, hidden_size: D, rms_norm_eps: eps } = p.model.config;
  const xn = s.empty('f32', [p.T, D]), rstd = s.empty('f32', [p.T]);
  ops.rmsnorm_fwd(xn, rstd, null, x, null, w.inputNorm, eps);
  const q = linear(s, p, i, 'q', xn, w.q, a.q), k = linear(s, p, i, 'k', xn, w.k, a.k), v = linear(s, p, i, 'v', xn, w.v, a.v);
  ops.rope(q.y, p.cos, p.sin, H, 1);
  ops.rope(k.y, p.cos, p.sin, Hkv, 1);
  const heads = { q: q.y.view(s, [p.T, H, Dh]), k: k.y.view(s, [p.T, Hkv, Dh]), v: v.y.view(s, [p.T, Hkv, Dh]) };
  const o = s.empty('f32', [p.T, H, Dh]), lse = save ? s.empty('f32', [p.T, H]) : null;
  if (p.cache) p.cache.store.attend(p.cache.plan, i, o, heads.q, heads.k, heads.v, w.sinks, Dh ** -0.5);
  else ops.attention_fwd(o, lse, heads.q, heads.k, heads.v, w.sinks, p.qStart, p.kStart, p.kLen, w.window, 0, Dh ** -0.5);
  const oFlat = o.view(s, [p.T, H * Dh]);
  return { xn, rstd, q, k, v, heads, o, oFlat, lse, out: linear(s, p, i, 'o', oFlat, w.o, a.o) };
}

/** Router, gate/up projection and SwiGLU of a chunk of tokens; xn f32 [t,D] is the normed input. Rows p are the t·K routed pairs, sorted by expert. */
function experts(s: Scope, p: Pass, i: number, xn: Tensor) {
  const { w, a } = layerOf(p, i);
  const { num_experts_per_tok: K, num_local_experts: E, intermediate_size: F, swiglu_alpha, swiglu_limit } = p.model.config;
  const t = xn.rows, P = t * K;
  const router = linear(s, p, i, 'router', xn, w.router, a.router);
  const weights = s.empty('f32', [t, K]), ids = s.empty('i32', [t, K]);
  ops.topk_fwd(weights, ids, router.y);
  const offsets = s.empty('i32', [E + 1]), rowToken = s.empty('i32', [P]), slotRow = s.empty('i32', [t, K]), rowWeight = s.empty('f32', [P]);
  ops.moe_plan(offsets, rowToken, slotRow, rowWeight, ids, weights);
  const z = s.empty('f32', [P, 2 * F]), act = s.empty('f32', [P, F]);
  const h = a.gateUp ? s.empty('f32', [P, a.gateUp.A.shape[1] ?? 0]) : null;
  ops.grouped_linear_fwd(z, h, xn, rowToken, offsets, w.gateUp.w, w.gateUp.scales, w.gateUp.bias, a.gateUp?.A ?? null, a.gateUp?.B ?? null, a.gateUp?.scale ?? 0, w.gateUp.layout, p.precision);
  ops.swiglu_fwd(act, z, swiglu_alpha, swiglu_limit);
  return { router, weights, ids, offsets, rowToken, slotRow, rowWeight, z, act, h };
}

function* chunks(T: number): Generator<readonly [number, number]> {
  for (let from = 0; from < T; from += MOE_CHUNK_TOKENS) yield [from, Math.min(T, from + MOE_CHUNK_TOKENS)];
}

/**
 * One layer, from x into out (which may be x). With `keepH`, the rank-R products of the down projection, f32 [T·K,R], are kept there for the backward,
 * which then need not run that projection again.
 */
function layerForward(p: Pass, i: number, x: Tensor, out: Tensor, keepH: Tensor | null): void {
  using s = new Scope('activations');
  const { w, a } = layerOf(p, i);
  const { hidden_size: D, num_experts_per_tok: K, rms_norm_eps: eps } = p.model.config;
  const xn = s.empty('f32', [p.T, D]);
  {
    using inner = new Scope('activations');
    const att = attention(inner, p, i, x, false);
    ops.rmsnorm_fwd(xn, inner.empty('f32', [p.T]), out, x, att.out.y, w.postNorm, eps); // out = x + attention
  }
  for (const [from, to] of chunks(p.T)) {
    using c = new Scope('workspace');
    const m = experts(c, p, i, xn.slice(c, from, to));
    const y = c.empty('f32', [(to - from) * K, D]);
    const h = !a.down ? null : keepH ? keepH.slice(c, from * K, to * K) : c.empty('f32', [(to - from) * K, a.down.A.shape[1] ?? 0]);
    ops.grouped_linear_fwd(y, h, m.act, null, m.offsets, w.down.w, w.down.scales, w.down.bias, a.down?.A ?? null, a.down?.B ?? null, a.down?.scale ?? 0, w.down.layout, p.precision);
    ops.moe_combine(out.slice(c, from, to), y, m.weights, m.slotRow, 1);
  }
}

/** Turns dx, the gradient of the layer's output, into that of its input x; parameter gradients accumulate. */
function layerBackward(p: Pass, i: number, x: Tensor, dx: Tensor, keptH: Tensor | null, g: LayerGrads | undefined): void {
  using s = new Scope('activations');
  const { w, a } = layerOf(p, i);
  const { num_attention_heads: H, num_key_value_heads: Hkv, head_dim: Dh, hidden_size: D, num_experts_per_tok: K, num_local_experts: E, intermediate_size: F, rms_norm_eps: eps, swiglu_alpha, swiglu_limit } = p.model.config;
  const att = attention(s, p, i, x, true);
  if (!att.lse) throw new NativeError('bad_layer', 'attention kept no log-sum-exp');
  const mid = s.empty('f32', [p.T, D]), xn = s.empty('f32', [p.T, D]), rstd = s.empty('f32', [p.T]), dxn = s.empty('f32', [p.T, D]);
  ops.rmsnorm_fwd(xn, rstd, mid, x, att.out.y, w.postNorm, eps);

  for (const [from, to] of chunks(p.T)) {
    using c = new Scope('workspace');
    const t = to - from, P = t * K;
    const xc = xn.slice(c, from, to), dout = dx.slice(c, from, to), dxc = dxn.slice(c, from, to);
    const m = experts(c, p, i, xc);
    const dact = c.empty('f32', [P, F]), dz = c.empty('f32', [P, 2 * F]), rowDot = c.empty('f32', [P]), dRows = c.empty('f32', [P, D]);
    ops.grouped_linear_bwd(dact, g?.down.w ?? null, g?.down.bias ?? null, a.down?.dA ?? null, a.down?.dB ?? null, dout, m.rowToken, m.rowWeight, m.act, null,
      keptH?.slice(c, from * K, to * K) ?? null, m.offsets, w.down.w, w.down.scales, a.down?.A ?? null, a.down?.B ?? null, a.down?.scale ?? 0, w.down.layout, p.precision);
    ops.swiglu_bwd(dz, rowDot, dact, m.z, m.rowWeight, swiglu_alpha, swiglu_limit);
    ops.grouped_linear_bwd(dRows, g?.gateUp.w ?? null, g?.gateUp.bias ?? null, a.gateUp?.dA ?? null, a.gateUp?.dB ?? null, dz, null, null, xc, m.rowToken,
      m.h, m.offsets, w.gateUp.w, w.gateUp.scales, a.gateUp?.A ?? null, a.gateUp?.B ?? null, a.gateUp?.scale ?? 0, w.gateUp.layout, p.precision);
    ops.moe_combine(dxc, dRows, null, m.slotRow, 0);
    // The router is frozen or not: its input's gradient flows on either way.
    const dweights = c.empty('f32', [t, K]), dlogits = c.empty('f32', [t, E]);
    ops.moe_weight_bwd(dweights, rowDot, dout, w.down.bias, m.ids, m.slotRow);
    ops.topk_bwd(dlogits, dweights, m.weights, m.ids);
    linearBackward(p, i, 'router', dxc, 1, dlogits, xc, m.router.h, w.router, a.router, g?.router);
  }
  ops.rmsnorm_bwd(dx, g?.postNorm ?? null, dxn, dx, mid, w.postNorm, rstd);

  const flat = (heads: number): Tensor => s.empty('f32', [p.T, heads * Dh]);
  const dO = flat(H), dq = flat(H), dk = s.zeros('f32', [p.T, Hkv * Dh]), dv = s.zeros('f32', [p.T, Hkv * Dh]);
  linearBackward(p, i, 'o', dO, 0, dx, att.oFlat, att.out.h, w.o, a.o, g?.o);
  ops.attention_bwd(dq.view(s, [p.T, H, Dh]), dk.view(s, [p.T, Hkv, Dh]), dv.view(s, [p.T, Hkv, Dh]), g?.sinks ?? null, dO.view(s, [p.T, H, Dh]),
    att.heads.q, att.heads.k, att.heads.v, att.o, att.lse, w.sinks, p.qStart, p.kStart, p.kLen, w.window, Dh ** -0.5);
  ops.rope(dq, p.cos, p.sin, H, -1);
  ops.rope(dk, p.cos, p.sin, Hkv, -1);
  linearBackward(p, i, 'q', dxn, 0, dq, att.xn, att.q.h, w.q, a.q, g?.q);
  linearBackward(p, i, 'k', dxn, 1, dk, att.xn, att.k.h, w.k, a.k, g?.k);
  linearBackward(p, i, 'v', dxn, 1, dv, att.xn, att.v.h, w.v, a.v, g?.v);
  ops.rmsnorm_bwd(dx, g?.inputNorm ?? null, dxn, dx, x, w.inputNorm, att.rstd);
}

/** The final norm of the wanted rows of x. */
function finalNorm(s: Scope, p: Pass, x: Tensor, rows: Int32Array | null) {
  const D = p.model.config.hidden_size;
  let last = x;
  const index = rows ? s.from(rows) : null;
  if (index) { last = s.empty('f32', [index.rows, D]); ops.gather_rows(last, x, index); }
  const hidden = s.empty('f32', [last.rows, D]), rstd = s.empty('f32', [last.rows]);
  ops.rmsnorm_fwd(hidden, rstd, null, last, null, p.model.norm, p.model.config.rms_norm_eps);
  return { hidden, rstd, last, index };
}

/**
 * Hidden states after the final norm.
 * @param scope   receives the result; all else is freed on return
 * @param adapter LoRA pairs added to the frozen weights, or null
 * @returns f32 [S,D], one row per wanted row
 * @throws {NativeError} bad_batch, cache_full, or what an op refuses (token id out of range, …)
 */
export function forwardHidden(scope: Scope, model: ModelWeights, adapter: ModelAdapter | null, batch: Batch, options: ForwardOptions): Tensor {
  using s = new Scope('activations');
  const p = startPass(s, model, adapter, batch, options);
  const x = s.empty('f32', [p.T, model.config.hidden_size]);
  ops.embedding_fwd(x, model.embed, p.ids);
  for (let i = 0; i < model.layers.length; i++) layerForward(p, i, x, x, null);
  p.cache?.store.advance(p.cache.plan);
  const { hidden } = finalNorm(s, p, x, options.rows ?? null);
  const out = scope.empty('f32', hidden.shape);
  ops.cast(out, hidden);
  return out;
}

/** Logits f32 [S,V] of hidden states f32 [S,D]. */
export function logits(scope: Scope, model: ModelWeights, hidden: Tensor, precision: keyof typeof PRECISION): Tensor {
  const out = scope.empty('f32', [hidden.rows, model.config.vocab_size]);
  if (model.headScales) ops.linear_q8_fwd(out, null, hidden, model.head, model.headScales, null, null, null, 0, PRECISION[precision]);
  else ops.linear_fwd(out, null, hidden, model.head, null, null, null, 0, 0, 0, PRECISION[precision]);
  return out;
}

/** Whether any of attention and head is in 8 bits. */
export const isQ8 = (model: ModelWeights): boolean => model.headScales !== undefined || model.layers.some((l) => [l.q, l.k, l.v, l.o].some((w) => w.scales));

/** log p(targets[i]) under logits of hidden row i, a few rows at a time: sampling where only the target is allowed reports just that. */
function scoreByLogits(model: ModelWeights, hidden: Tensor, targets: Int32Array, precision: keyof typeof PRECISION): Float32Array {
  const words = Math.ceil(model.config.vocab_size / 32), out = new Float32Array(targets.length);
  for (let from = 0; from < targets.length; from += 16) {
    using s = new Scope('workspace');
    const part = targets.subarray(from, from + 16), B = part.length;
    const mask = new Int32Array(B * words);
    part.forEach((t, b) => { mask[b * words + (t >> 5)] = 1 << (t & 31); });
    const logprobs = s.empty('f32', [B]);
    ops.sample(s.empty('i32', [B]), logprobs, logits(s, model, hidden.slice(s, from, from + B), precision), s.from(new Float32Array(4 * B), [B, 4]), s.from(new Float32Array(B)), s.from(mask, [B, words]));
    out.set(logprobs.toFloat32(), from);
  }
  return out;
}

export interface LossOptions {
  readonly precision: keyof typeof PRECISION;
  /** Seed of the LoRA dropout of this pass. */
  readonly seed: number;
  /** Gradients of all weights, accumulated into; null when only an adapter is trained. */
  readonly grads: ModelGrads | null;
  /** false: only the loss, without dropout. */
  readonly gradients: boolean;
}

const trains = (layer: LayerAdapter | undefined): boolean => TARGETS.some((t) => layer?.[t]?.dA || layer?.[t]?.dB);

/**
 * Forward and backward. Adds ∂(Σ weight·nll) to dA, dB of the adapter's pairs and to `grads`.
 * @returns nll f32, nats per target row, before weighting
 * @throws {NativeError} q8_training
 */
export function lossAndGradients(model: ModelWeights, adapter: ModelAdapter | null, batch: Batch, targets: Targets, options: LossOptions): { readonly nll: Float32Array } {
  using s = new Scope('activations');
  const { grads, gradients, precision } = options;
  if (isQ8(model)) throw new NativeError('q8_training', 'lossAndGradients: attention and head of this model are in 8 bits, which are for serving only; open the checkpoint without quantizeDense');
  const D = model.config.hidden_size, K = model.config.num_experts_per_tok, L = model.layers.length;
  const p = startPass(s, model, adapter, batch, { precision, seed: options.seed, train: gradients });
  // Below the lowest trained layer nothing needs a gradient.
  const lowest = grads ? 0 : Math.max(0, model.layers.findIndex((_, i) => trains(adapter?.layers[i])));
  const inputs: Tensor[] = [], keptH: (Tensor | null)[] = [];
  let x = s.empty('f32', [p.T, D]);
  ops.embedding_fwd(x, model.embed, p.ids);
  for (let i = 0; i < L; i++) {
    const down = adapter?.layers[i]?.down;
    const keep = gradients && i >= lowest;
    const h = keep && down ? s.empty('f32', [p.T * K, down.A.shape[1] ?? 0]) : null;
    const out = keep ? s.empty('f32', [p.T, D]) : x;
    layerForward(p, i, x, out, h);
    inputs.push(x); keptH.push(h);
    x = out;
  }
  const top = finalNorm(s, p, x, targets.rows);
  const S = targets.rows.length;
  const nll = s.empty('f32', [S]), dhidden = gradients ? s.empty('f32', [S, D]) : null;
  ops.linear_cross_entropy(nll, dhidden, grads?.head ?? null, top.hidden, model.head, s.from(targets.targets), s.from(targets.weights), p.precision);
  if (dhidden) {
    ops.rmsnorm_bwd(dhidden, grads?.norm ?? null, dhidden, null, top.last, model.norm, top.rstd);
    const dx = s.zeros('f32', [p.T, D]);
    if (top.index) ops.scatter_rows(dx, dhidden, top.index);
    for (let i = L - 1; i >= lowest; i--) {
      const input = inputs[i];
      if (input) layerBackward(p, i, input, dx, keptH[i] ?? null, grads?.layers[i]);
    }
    if (grads) ops.embedding_bwd(grads.embed, dx, p.ids);
  }
  return { nll: nll.toFloat32() };
}

/**
 * Log-probabilities of a text: element i is log p(tokens[i+1] | tokens[0…i]), nats. With a cache the text is run as serving runs it (slot 0, reset first).
 * The trainer's bits, unless attention and head are in 8 bits: then what q8 serving computes.
 * @returns f32 [tokens.length − 1]
 */
export function scoreTokens(model: ModelWeights, adapter: ModelAdapter | null, tokens: Int32Array, options: { readonly precision: keyof typeof PRECISION; readonly cache?: KvCache | null }): Float32Array {
  using s = new Scope('activations');
  const S = tokens.length - 1;
  if (S < 1) return new Float32Array(0);
  const rows = Int32Array.from({ length: S }, (_, i) => i);
  const batch: Batch = { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, tokens.length) };
  if (!options.cache && !isQ8(model)) {
    const { nll } = lossAndGradients(model, adapter, batch, { rows, targets: tokens.slice(1), weights: new Float32Array(S).fill(1) }, { precision: options.precision, seed: 0, grads: null, gradients: false });
    return nll.map((x) => -x);
  }
  options.cache?.reset(0);
  const hidden = forwardHidden(s, model, adapter, batch, { precision: options.precision, cache: options.cache ?? null, rows });
  if (model.headScales) return scoreByLogits(model, hidden, tokens.subarray(1), options.precision);
  const nll = s.empty('f32', [S]);
  ops.linear_cross_entropy(nll, null, null, hidden, model.head, s.from(tokens.slice(1)), null, PRECISION[options.precision]);
  return nll.toFloat32().map((x) => -x);
}
