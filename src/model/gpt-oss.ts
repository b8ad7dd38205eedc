// gpt-oss, forward and backward, over the ops: the only place that knows the architecture. Read `attention` and
// `experts` first, then `lossAndGradients`. Backward keeps the input of every layer and recomputes the rest of that
// layer when its turn comes, but for what there was room to keep (kept.ts). The residual stream x is f32 [T,D]; but for
// it, keys and values, and what is kept, tokens are taken in chunks, so that memory grows by a few f32 rows per token.
import { ConfigError, NativeError } from '../base/errors.js';
import { backendOf } from '../native/backends.js';
import { ops, PRECISION, type Precision, type RowBits } from '../native/ops.js';
import { type DType, Scope, type Tensor } from '../native/tensor.js';
import { type ModelConfig, ropeParameters } from './config.js';
import { type ExpertLoad, RoutedRows } from './expert-load.js';
import {
  type ExpertInputs,
  expertProduct,
  expertProductBackward,
  newRouting,
  type Routing,
  routed,
  scoresBackward,
} from './experts.js';
import { KEEP_NOTHING, type Keep, lowestTrained } from './kept.js';
import type { CachePlan, KeysAt, KvCache } from './kv-cache.js';
import { FEW_QUERIES, MANY_ROWS, type Pace, paced, pacedExperts } from './pace.js';
import { Parked, Parking } from './parked.js';
import {
  type AdapterPool,
  type Batch,
  type ExpertWeights,
  type LayerAdapter,
  type LayerGrads,
  type LayerWeights,
  type LinearGrads,
  type LinearWeights,
  type LoraPair,
  type LoraTarget,
  type MixedAdapters,
  type ModelAdapter,
  type ModelGrads,
  type ModelWeights,
  placeOf,
  type Targets,
} from './types.js';

/**
 * Tokens the experts take at a time: bounds their workspace, K·(2F + F + D)·4 bytes per token and as much again
 * backward. A multiple of it where the backend's kernels want more rows of an expert.
 */
export const MOE_CHUNK_TOKENS = 1024;
/** Bytes of the queries f32 [t,H·Dh] that attention takes at a time: 1,024 tokens of gpt-oss, 16,384 of nano. */
const QUERY_CHUNK_BYTES = 2 ** 24;
/**
 * Supervised rows of the head for each MOE_CHUNK_TOKENS of a chunk: a multiple of the 120 to 1,020 rows that
 * linear_cross_entropy itself takes at a time.
 */
const HEAD_ROWS = 2040;
/** Tokens of the vocabulary that a slice of the head takes together, and how many of these at least. */
const HEAD_BLOCK = 64,
  FEW_HEAD_BLOCKS = 16;

export interface ForwardOptions {
  readonly precision: keyof typeof PRECISION;
  /** Continues the slots of this cache; the batch's tokens are appended. */
  readonly cache?: KvCache | null;
  /** Rows whose hidden state is wanted (ascending); all if null. */
  readonly rows?: Int32Array | null;
  /** Seed of the LoRA dropout, used when `train` is set. */
  readonly seed?: number;
  readonly train?: boolean;
  /** Tokens of a chunk, a multiple of MOE_CHUNK_TOKENS; default by the model's width. */
  readonly chunkTokens?: number;
  /** The batch in tensors that stay, for a pass that is recorded and run again. */
  readonly inputs?: StepInputs | null;
  /** A token's bits are then those that it has alone: what others are in the batch does not show. */
  readonly byRow?: boolean;
  /** A token's bits are those that it has among many, however few are in the batch. For ends of prompts. */
  readonly amongMany?: boolean;
  /** Adapters by token, in place of one for all; on a cache, for as many tokens as the experts take at a time. */
  readonly mixed?: MixedAdapters | null;
  /** Looked at before each layer; what was done by then is lost. Not for passes that are recorded. */
  readonly signal?: AbortSignal;
  /** forwardLayers also stops within a layer, as often as this says; of one sequence on a cache, on the host. */
  readonly pace?: Pace | null;
}

type Rotary = ReturnType<typeof ropeParameters>;
/** By configuration: reading its settings takes as long as an op. */
const rotaries = new WeakMap<ModelConfig, Rotary>();
function rotaryOf({ config }: ModelWeights): Rotary {
  const known = rotaries.get(config) ?? ropeParameters(config);
  rotaries.set(config, known);
  return known;
}

/** What a pass reads of its batch. */
interface Inputs {
  readonly positions: Tensor;
  readonly invFreq: Tensor;
  readonly ids: Tensor;
  readonly plan: CachePlan | null;
}
function inputsOf(s: Scope, model: ModelWeights, batch: Batch, cache: KvCache | null): Inputs {
  return {
    positions: s.from(batch.positions),
    invFreq: s.from(rotaryOf(model).invFreq),
    ids: s.from(batch.tokens),
    plan: cache?.plan(s, batch) ?? null,
  };
}

/**
 * The inputs of decode steps of B sequences, one token each, in tensors that keep their addresses: `set` before each
 * step. With an embedding table on the host the rows themselves are the input.
 */
export class StepInputs implements Disposable, Inputs {
  readonly positions: Tensor;
  readonly invFreq: Tensor;
  readonly ids: Tensor;
  /** Embedded tokens f32 [B,D], where the table lies on the host; overwritten by the step. */
  readonly x: Tensor | null;
  plan: CachePlan;
  readonly #scope: Scope;
  constructor(
    readonly model: ModelWeights,
    readonly cache: KvCache,
    batch: Batch,
  ) {
    this.#scope = new Scope('workspace', placeOf(model));
    try {
      const inputs = inputsOf(this.#scope, model, batch, cache);
      if (!inputs.plan) throw new NativeError('bad_batch', 'StepInputs: no cache');
      this.positions = inputs.positions;
      this.invFreq = inputs.invFreq;
      this.ids = inputs.ids;
      this.plan = inputs.plan;
      this.x =
        model.embed.place === placeOf(model)
          ? null
          : this.#scope.empty('f32', [batch.tokens.length, model.config.hidden_size]);
      this.set(batch);
    } catch (e) {
      this.close();
      throw e;
    }
  }
  set(batch: Batch): void {
    this.plan = this.cache.replan(this.plan, batch);
    this.positions.write(batch.positions);
    this.ids.write(batch.tokens);
    if (!this.x) return;
    using s = new Scope('workspace', this.model.embed.place);
    const rows = s.empty('f32', this.x.shape);
    ops.embedding_fwd(rows, this.model.embed, s.from(batch.tokens));
    this.x.copy(rows);
  }
  close(): void {
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Tokens [from, to) as queries, and the keys they see: for each sequence in them, its first row and how many rows up to
 * its last token here.
 */
interface Chunk {
  readonly index: number;
  readonly from: number;
  readonly to: number;
  readonly qStart: Tensor;
  readonly kStart: Tensor;
  readonly kLen: Tensor;
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** What all layers of one pass share. */
interface Pass {
  readonly model: ModelWeights;
  readonly adapter: ModelAdapter | null;
  readonly mixed: MixedAdapters | null;
  readonly precision: Precision;
  readonly byRow: RowBits;
  readonly T: number;
  readonly ids: Tensor;
  /** One where they all fit; a pass on a cache has one. */
  readonly chunks: readonly Chunk[];
  readonly cache: { readonly store: KvCache; readonly plan: CachePlan } | null;
  readonly seed: number;
  readonly train: boolean;
  readonly pace: Pace | null;
  /** Told which rows the experts of a layer got, a piece at a time. */
  readonly routed?: RoutedRows | null;
  /** Layers may take the ops that are several in one. */
  readonly joins: boolean;
  /** What products alone read may be stored as they round it. */
  readonly rounded: boolean;
}
const NO_ADAPTER: LayerAdapter = {};
const TARGETS: readonly LoraTarget[] = ['q', 'k', 'v', 'o', 'router', 'gateUp', 'down'];

/**
 * Cuts n rows in pieces of `size`; what is left over goes with the last one, so that no piece is shorter unless all of
 * n is.
 */
function pieces(n: number, size: number): (readonly [number, number])[] {
  const count = Math.max(1, Math.floor(n / size));
  return Array.from({ length: count }, (_, i) => [i * size, i + 1 === count ? n : (i + 1) * size] as const);
}
function moeChunkTokens(model: ModelWeights): number {
  const { num_local_experts: E, num_experts_per_tok: K } = model.config;
  const rows = backendOf(placeOf(model)).expertRows;
  return MOE_CHUNK_TOKENS * (rows === null ? 1 : Math.max(1, Math.floor((rows * E) / (K * MOE_CHUNK_TOKENS))));
}
/**
 * Rows of hidden states taken at a time: whole multiples of what the experts take, so that theirs are cut in the same
 * places for any model.
 */
function chunkTokens(model: ModelWeights): number {
  const { num_attention_heads: H, head_dim: Dh } = model.config,
    experts = moeChunkTokens(model);
  return experts * Math.max(1, Math.floor(QUERY_CHUNK_BYTES / (4 * H * Dh * experts)));
}

/** @throws {ConfigError} context_too_long: beyond its positions a model computes what it was never trained to */
function requirePositions(limit: number, positions: Int32Array): void {
  const far = positions.find((p) => p >= limit);
  if (far !== undefined)
    throw new ConfigError(
      'context_too_long',
      `sequence: token ${far} of one sequence, the model knows ${limit} positions ` +
        '(max_position_embeddings); shorten it',
      { position: far, limit },
    );
}

/** Stops where there is a pace: what is laid out for all layers takes as long as a token of a small model. */
function* startPass(
  s: Scope,
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  o: ForwardOptions,
): Generator<void, Pass> {
  const { tokens, positions, starts } = batch;
  const T = tokens.length,
    B = starts.length - 1;
  const lengths = Int32Array.from({ length: Math.max(B, 0) }, (_, b) => (starts[b + 1] ?? 0) - (starts[b] ?? 0));
  if (T === 0 || positions.length !== T || B < 1 || starts[0] !== 0 || starts[B] !== T || lengths.some((n) => n < 1)) {
    throw new NativeError(
      'bad_batch',
      `batch: ${T} tokens, ${positions.length} positions, starts ${starts.join(',')}; wanted as ` +
        'many positions as tokens and starts rising from 0 to the number of tokens',
    );
  }
  requirePositions(model.config.max_position_embeddings, positions);
  const mixed = o.mixed ?? null;
  if (mixed && (adapter || !o.cache || T > moeChunkTokens(model)))
    throw new NativeError(
      'bad_batch',
      `batch: ${T} tokens with adapters of their own; wanted a cache, at most ${moeChunkTokens(model)} tokens and no ` +
        'adapter for all of them',
    );
  const half = model.config.head_dim / 2,
    { joinsOps, ownMemory, rowsAlone, storesRounded } = backendOf(placeOf(model));
  const inputs: Inputs = o.inputs ?? inputsOf(s, model, batch, o.cache ?? null);
  const { plan } = inputs;
  const pace = plan && B === 1 && !mixed && !ownMemory ? (o.pace ?? null) : null;
  if (pace) yield;
  const cos = s.empty('f32', [T, half]),
    sin = s.empty('f32', [T, half]);
  ops.rope_table(cos, sin, inputs.positions, inputs.invFreq, rotaryOf(model).concentration);
  if (pace) yield;
  const cut = o.cache ? [[0, T] as const] : pieces(T, o.chunkTokens ?? chunkTokens(model));
  const chunks = cut.map(([from, to], index): Chunk => {
    if (plan)
      return { index, from, to, qStart: plan.qStart, kStart: plan.window.kStart, kLen: plan.full.kLen, cos, sin };
    const qStart = [0],
      kStart: number[] = [],
      kLen: number[] = [];
    for (let b = 0; b < B; b++) {
      const begin = starts[b] ?? 0,
        end = Math.min(starts[b + 1] ?? 0, to);
      if (begin >= to || end <= from) continue;
      qStart.push(end - from);
      kStart.push(begin);
      kLen.push(end - begin);
    }
    const i32 = (x: number[]): Tensor => s.from(Int32Array.from(x));
    return {
      index,
      from,
      to,
      qStart: i32(qStart),
      kStart: i32(kStart),
      kLen: i32(kLen),
      cos: cos.slice(s, from, to),
      sin: sin.slice(s, from, to),
    };
  });
  return {
    model,
    adapter,
    mixed,
    precision: PRECISION[o.precision],
    byRow: o.byRow ? 1 : o.amongMany ? 2 : 0,
    T,
    ids: inputs.ids,
    chunks,
    cache: o.cache && plan ? { store: o.cache, plan } : null,
    seed: o.seed ?? 0,
    train: o.train ?? false,
    pace,
    joins: joinsOps && plan?.window.kind === 'ring' && o.byRow === true && !mixed && T <= (rowsAlone ?? T),
    rounded: storesRounded && o.precision === 'bf16' && !plan,
  };
}

function layerOf(p: Pass, i: number): { readonly w: LayerWeights; readonly a: LayerAdapter } {
  const w = p.model.layers[i];
  if (!w) throw new NativeError('bad_layer', `layer ${i} of ${p.model.layers.length}`);
  return { w, a: p.adapter?.layers[i] ?? NO_ADAPTER };
}
/** Pair of a target that the weights hold merged. */
const mergedPair = (p: Pass, i: number, target: LoraTarget): LoraPair | undefined =>
  p.model.merged?.layers[i]?.[target];

/** A seed per (pass, layer, target, chunk), so that recomputation drops the same elements. 48 bits, splitmix-like. */
function dropoutSeed(p: Pass, layer: number, target: LoraTarget, chunk: number): number {
  let h = 0x9e3779b9;
  for (const part of [p.seed % 4294967296, Math.floor(p.seed / 4294967296), layer, TARGETS.indexOf(target)]) {
    h = Math.imul(h ^ (part | 0), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ (h >>> 16);
  }
  return (h >>> 0) * 65536 + chunk * TARGETS.length + TARGETS.indexOf(target);
}
const dropoutOf = (p: Pass, lora: LoraPair | undefined): number => (p.train && lora ? lora.dropout : 0);

interface Linear {
  readonly y: Tensor;
  readonly h: Tensor | null;
}
/** Rows [from, to) of t; t itself where that is all of it. */
const rowsOf = (s: Scope, t: Tensor, from: number, to: number): Tensor =>
  from === 0 && to === t.rows ? t : t.slice(s, from, to);
const partOf = (s: Scope, { y, h }: Linear, from: number, to: number): Linear => ({
  y: rowsOf(s, y, from, to),
  h: h && rowsOf(s, h, from, to),
});
/** Ends a pass, or a part of one, that nobody waits beside. */
export function atOnce<T>(work: Generator<void, T>): T {
  for (let part = work.next(); ; part = work.next()) if (part.done) return part.value;
}
const newLinear = (s: Scope, rows: number, w: LinearWeights, lora: LoraPair | undefined): Linear => ({
  y: s.empty('f32', [rows, w.w.rows]),
  h: lora ? s.empty('f32', [rows, lora.A.rows]) : null,
});

/**
 * y = x·Wᵀ + bias + scale·(dropout(x)·Aᵀ)·Bᵀ into `out`; `chunk` tells the dropout of one chunk from that of the next.
 */
function linear(
  p: Pass,
  i: number,
  target: LoraTarget,
  chunk: number,
  out: Linear,
  x: Tensor,
  w: LinearWeights,
  lora: LoraPair | undefined,
): Linear {
  if (w.inputs) {
    using s = new Scope('workspace', placeOf(p.model));
    const { inputs, ...plain } = w;
    return linear(p, i, target, chunk, out, inputs(s, x), plain, lora);
  }
  if (w.scales)
    ops.linear_q8_fwd(
      out.y,
      out.h,
      x,
      w.w,
      w.scales,
      w.bias,
      lora?.A ?? null,
      lora?.B ?? null,
      lora?.scale ?? 0,
      p.precision,
      p.byRow,
    );
  else
    ops.linear_fwd(
      out.y,
      out.h,
      x,
      w.w,
      w.bias,
      lora?.A ?? null,
      lora?.B ?? null,
      lora?.scale ?? 0,
      dropoutOf(p, lora),
      dropoutSeed(p, i, target, chunk),
      p.precision,
      p.byRow,
    );
  const at = p.mixed?.pool.layers[i]?.[target];
  if (p.mixed && at) {
    const { pool, rows } = p.mixed;
    using s = new Scope('workspace', placeOf(p.model));
    const h = s.empty('f32', [x.rows, pool.rank]);
    ops.lora_fwd(out.y, h, x, paramsOf(pool, p.precision), at.table, at.scales, rows, p.precision);
  }
  return out;
}
/** Of its two forms the one that is read faster; they give the same bits. */
const paramsOf = ({ params, rounded }: AdapterPool, precision: Precision): Tensor =>
  precision === PRECISION.bf16 ? (rounded ?? params) : params;
function linearBackward(
  p: Pass,
  i: number,
  target: LoraTarget,
  chunk: number,
  dx: Tensor,
  accumulate: 0 | 1,
  dy: Tensor,
  x: Tensor,
  h: Tensor | null,
  w: LinearWeights,
  lora: LoraPair | undefined,
  g: LinearGrads | undefined,
): void {
  ops.linear_bwd(
    dx,
    g?.w ?? null,
    g?.bias ?? null,
    lora?.dA ?? null,
    lora?.dB ?? null,
    dy,
    x,
    h,
    w.w,
    lora?.A ?? null,
    lora?.B ?? null,
    lora?.scale ?? 0,
    dropoutOf(p, lora),
    dropoutSeed(p, i, target, chunk),
    accumulate,
    p.precision,
  );
  const pair = mergedPair(p, i, target);
  if (!pair?.dA || !pair.dB) return;
  // As if w + ΔW had not been rounded (straight through, arXiv:1308.3432): dx went through the rounded weights above.
  using s = new Scope('workspace', placeOf(p.model));
  const rankR = s.empty('f32', [x.rows, pair.A.rows]);
  ops.linear_fwd(rankR, null, x, pair.A, null, null, null, 0, 0, 0, p.precision, 0);
  ops.linear_bwd(
    null,
    null,
    null,
    pair.dA,
    pair.dB,
    dy,
    x,
    rankR,
    w.w,
    pair.A,
    pair.B,
    pair.scale,
    0,
    0,
    0,
    p.precision,
  );
}

/** As in linearBackward, for the merged pair of experts whose product's arguments these are. */
function mergedExpertsBackward(
  p: Pass,
  pair: LoraPair | undefined,
  dy: Parameters<typeof expertProductBackward>[2],
  at: ExpertInputs,
  w: ExpertWeights,
): void {
  if (!pair?.dA || !pair.dB) return;
  using s = new Scope('workspace', placeOf(p.model));
  const rankR = s.empty('f32', [(dy.rows ?? dy.of).rows, pair.A.shape[1] ?? 0]);
  expertProduct(rankR, null, at, { w: pair.A, scales: null, bias: null, layout: 1 }, undefined, p.precision);
  expertProductBackward(null, undefined, dy, at, rankR, w, pair, p.precision);
}

interface Normed {
  readonly xn: Tensor;
  readonly rstd: Tensor;
}
/**
 * What the inputs of products are stored as: bf16 where those round them anyway and nothing else reads them.
 * @param dropped of the targets with dropout, which comes before the rounding
 */
function inputDtype(
  p: Pass,
  products: readonly (LinearWeights | ExpertWeights)[],
  dropped: readonly LoraPair[],
): DType {
  return p.rounded && products.every((w) => !w.inputs) && dropped.every((pair) => dropoutOf(p, pair) === 0)
    ? 'bf16'
    : 'f32';
}
const pairsOf = (...pairs: (LoraPair | undefined)[]): LoraPair[] => pairs.filter((pair) => pair !== undefined);
function inputNorm(s: Scope, p: Pass, i: number, x: Tensor): Normed {
  const { w, a } = layerOf(p, i);
  const xn = s.empty(inputDtype(p, [w.q, w.k, w.v], pairsOf(a.q, a.k, a.v)), x.shape),
    rstd = s.empty('f32', [x.rows]);
  ops.rmsnorm_fwd(xn, rstd, null, x, null, w.inputNorm, p.model.config.rms_norm_eps);
  return { xn, rstd };
}

/** Of the normed input of the router and the experts. */
function postDtype(p: Pass, i: number): DType {
  const { w, a } = layerOf(p, i);
  return inputDtype(p, [w.router, w.gateUp], pairsOf(a.router));
}

/**
 * Keys, rotary applied, and values of all tokens: f32 [T,Hkv·Dh]. `normed` is the normed input where one chunk is all
 * there is, so that it is computed once.
 */
interface KeysValues {
  readonly k: Linear;
  readonly v: Linear;
  readonly normed: Normed | null;
  /** Where a pass on a cache finds those of all its tokens, the earlier ones too. */
  readonly cached: KeysAt | null;
}
/** @param into where they go; null: to new tensors of `s` */
function* keysAndValues(
  s: Scope,
  p: Pass,
  i: number,
  x: Tensor,
  into: KeptAttention | null,
): Generator<void, KeysValues> {
  const { w, a } = layerOf(p, i);
  const { num_key_value_heads: Hkv, head_dim: Dh } = p.model.config;
  const k = into?.k ?? newLinear(s, p.T, w.k, a.k),
    v = into?.v ?? newLinear(s, p.T, w.v, a.v);
  let normed: Normed | null = null;
  for (const c of p.chunks) {
    using inner = new Scope('activations', placeOf(p.model));
    const whole = p.chunks.length === 1;
    const own = whole ? inputNorm(s, p, i, x) : inputNorm(inner, p, i, rowsOf(inner, x, c.from, c.to));
    if (whole) normed = own;
    const kc = partOf(inner, k, c.from, c.to),
      vc = partOf(inner, v, c.from, c.to);
    yield* paced(p.pace, 'dense', c.to - c.from, 2 * w.k.w.numel, MANY_ROWS, (from, to) => {
      using part = new Scope('activations', placeOf(p.model));
      const xn = rowsOf(part, own.xn, from, to);
      const { y } = linear(p, i, 'k', c.index, partOf(part, kc, from, to), xn, w.k, a.k);
      linear(p, i, 'v', c.index, partOf(part, vc, from, to), xn, w.v, a.v);
      ops.rope(y, rowsOf(part, c.cos, from, to), rowsOf(part, c.sin, from, to), Hkv, 1);
    });
  }
  const rows = (t: Tensor): Tensor => t.view(s, [p.T, Hkv, Dh]);
  const cached = p.cache ? p.cache.store.write(s, p.cache.plan, i, rows(k.y), rows(v.y)) : null;
  if (p.pace) yield;
  return { k, v, normed, cached };
}

/** Of a chunk, or kept of all tokens: q f32 [t,H·Dh], rotary applied, o f32 [t,H,Dh], lse f32 [t,H], out f32 [t,D]. */
interface Attention {
  readonly q: Linear;
  readonly o: Tensor;
  readonly lse: Tensor | null;
  readonly out: Linear;
}
/** What a layer's backward needs of its attention, f32, all tokens. */
interface KeptAttention extends Attention {
  readonly k: Linear;
  readonly v: Linear;
}
function newAttention(s: Scope, p: Pass, i: number, t: number, save: boolean): Attention {
  const { w, a } = layerOf(p, i);
  const { num_attention_heads: H, head_dim: Dh } = p.model.config;
  return {
    q: newLinear(s, t, w.q, a.q),
    o: s.empty('f32', [t, H, Dh]),
    lse: save ? s.empty('f32', [t, H]) : null,
    out: newLinear(s, t, w.o, a.o),
  };
}
function keptAttention(s: Scope, p: Pass, i: number): KeptAttention {
  const { w, a } = layerOf(p, i);
  return {
    ...newAttention(s, p, i, p.T, true),
    k: newLinear(s, p.T, w.k, a.k),
    v: newLinear(s, p.T, w.v, a.v),
  };
}
const chunkOf = (s: Scope, { q, o, lse, out }: Attention, { from, to }: Chunk): Attention => ({
  q: partOf(s, q, from, to),
  o: rowsOf(s, o, from, to),
  lse: lse && rowsOf(s, lse, from, to),
  out: partOf(s, out, from, to),
});
/** Queries of a chunk, keys and values, by head. */
function headsOf(s: Scope, p: Pass, q: Tensor, { k, v }: KeysValues): Record<'q' | 'k' | 'v', Tensor> {
  const { num_attention_heads: H, num_key_value_heads: Hkv, head_dim: Dh } = p.model.config;
  return { q: q.view(s, [q.rows, H, Dh]), k: k.y.view(s, [p.T, Hkv, Dh]), v: v.y.view(s, [p.T, Hkv, Dh]) };
}
const flat = (s: Scope, { o }: Attention): Tensor => o.view(s, [o.rows, o.numel / o.rows]);

/**
 * Query projection, rotary, attention and output projection of a chunk into `to`: everything of the first half-layer
 * but the residual sum. `xn` [t,D], the normed input.
 */
function* attention(
  s: Scope,
  p: Pass,
  i: number,
  c: Chunk,
  xn: Tensor,
  kv: KeysValues,
  to: Attention,
): Generator<void> {
  const { w, a } = layerOf(p, i);
  const { num_attention_heads: H, head_dim: Dh } = p.model.config;
  const t = c.to - c.from,
    scale = Dh ** -0.5;
  const { q, o, lse, out } = to;
  yield* paced(p.pace, 'dense', t, w.q.w.numel, MANY_ROWS, (from, to) => {
    using part = new Scope('activations', placeOf(p.model));
    const { y } = linear(p, i, 'q', c.index, partOf(part, q, from, to), rowsOf(part, xn, from, to), w.q, a.q);
    ops.rope(y, rowsOf(part, c.cos, from, to), rowsOf(part, c.sin, from, to), H, 1);
  });
  if (kv.cached) yield* attendOnCache(p, c, kv.cached, o, q.y.view(s, [t, H, Dh]), w.sinks, scale);
  else {
    const heads = headsOf(s, p, q.y, kv);
    ops.attention_fwd(
      o,
      lse,
      heads.q,
      heads.k,
      heads.v,
      w.sinks,
      c.qStart,
      c.kStart,
      c.kLen,
      null,
      w.window,
      0,
      0,
      scale,
      p.precision,
    );
  }
  const oFlat = flat(s, to);
  yield* paced(p.pace, 'dense', t, w.o.w.numel, MANY_ROWS, (from, to) => {
    using part = new Scope('activations', placeOf(p.model));
    linear(p, i, 'o', c.index, partOf(part, out, from, to), rowsOf(part, oFlat, from, to), w.o, a.o);
  });
}
/** o and q f32 [t,H,Dh]. A slice of the queries of one sequence sees the keys up to its last. */
function* attendOnCache(
  p: Pass,
  c: Chunk,
  at: KeysAt,
  o: Tensor,
  q: Tensor,
  sinks: Tensor,
  scale: number,
): Generator<void> {
  const t = q.rows,
    before = at.keys - t,
    seen = at.window > 0 ? Math.min(at.window, at.keys) : at.keys;
  yield* paced(p.pace, 'attention', t, seen, FEW_QUERIES, (from, to) => {
    using s = new Scope('workspace', placeOf(p.model));
    const all = from === 0 && to === t,
      qStart = all ? c.qStart : s.from(Int32Array.of(0, to - from)),
      kLen = all ? at.kLen : s.from(Int32Array.of(before + to));
    const { k, v, kStart, pages, window, ring, page } = at,
      part = rowsOf(s, q, from, to);
    ops.attention_fwd(
      rowsOf(s, o, from, to),
      null,
      part,
      k,
      v,
      sinks,
      qStart,
      kStart,
      kLen,
      pages,
      window,
      ring,
      page,
      scale,
      p.precision,
    );
  });
}

/**
 * Router, gate/up projection and SwiGLU of a chunk of tokens; xn [t,D] is the normed input. Rows p are the t·K
 * routed pairs, sorted by expert. `wide` receives z and act, by far the largest, so that they can go first.
 */
interface Expertise extends Routing {
  /** PreActivation's; null where a forward pass does not keep it. */
  readonly z: Tensor | null;
  readonly h: Tensor | null;
  readonly router: Linear;
  readonly rowAdapter: Tensor | null;
  readonly act: Tensor;
}
/** The product of gate_up, f32 [P,2F], and of its pair's A, f32 [P,R]. */
interface PreActivation {
  readonly z: Tensor;
  readonly h: Tensor | null;
}
/** @param rows P, of a piece or of all tokens */
function newPreActivation(s: Scope, wide: Scope, p: Pass, i: number, rows: number): PreActivation {
  const pair = layerOf(p, i).a.gateUp;
  return {
    z: wide.empty('f32', [rows, 2 * p.model.config.intermediate_size]),
    h: pair ? s.empty('f32', [rows, pair.A.shape[1] ?? 0]) : null,
  };
}
/** Of tokens [from, to). */
function pieceOf(s: Scope, p: Pass, { z, h }: PreActivation, from: number, to: number): PreActivation {
  const { num_experts_per_tok: K } = p.model.config;
  return { z: rowsOf(s, z, from * K, to * K), h: h && rowsOf(s, h, from * K, to * K) };
}
/**
 * @param kept where the pre-activations go, or lie already; null: to new tensors
 * @param known they lie there
 * @param needed they are read afterwards, kept or not
 */
function* experts(
  s: Scope,
  wide: Scope,
  p: Pass,
  i: number,
  xn: Tensor,
  kept: PreActivation | null,
  known: boolean,
  needed: boolean,
): Generator<void, Expertise> {
  const { w, a } = layerOf(p, i);
  const { num_experts_per_tok: K, intermediate_size: F, swiglu_alpha, swiglu_limit } = p.model.config;
  const t = xn.rows,
    P = t * K;
  const router = newLinear(s, t, w.router, a.router);
  yield* paced(p.pace, 'dense', t, w.router.w.numel, MANY_ROWS, (from, to) => {
    using part = new Scope('activations', placeOf(p.model));
    linear(p, i, 'router', 0, partOf(part, router, from, to), rowsOf(part, xn, from, to), w.router, a.router);
  });
  const routing = routed(s, p.model.config, router.y),
    { offsets, rowToken } = routing;
  if (p.pace) yield;
  const rowAdapter = p.mixed && s.empty('i32', [P]);
  if (p.mixed && rowAdapter) ops.gather_rows(rowAdapter, p.mixed.rows, rowToken);
  const act = wide.empty(inputDtype(p, [w.down], []), [P, F]);
  // Product and activation at once, as p.rounded says of passes that are not paced and have one adapter at most.
  if (!known && p.rounded && !w.gateUp.inputs) {
    const z = kept?.z ?? (needed ? wide.empty('f32', [P, 2 * F]) : null),
      h = kept?.h ?? (a.gateUp ? s.empty('f32', [P, a.gateUp.A.shape[1] ?? 0]) : null);
    const { A = null, B = null, scale = 0 } = a.gateUp ?? {};
    const { w: weights, scales, bias, layout } = w.gateUp;
    ops.grouped_linear_swiglu_fwd(
      act,
      z,
      h,
      xn,
      rowToken,
      offsets,
      weights,
      scales,
      bias,
      A,
      B,
      scale,
      swiglu_alpha,
      swiglu_limit,
      layout,
      p.precision,
      p.byRow,
    );
    return { router, ...routing, rowAdapter, z, act, h };
  }
  const { z, h } = kept ?? newPreActivation(s, wide, p, i, P);
  if (!known) {
    const x = w.gateUp.inputs?.(s, xn) ?? xn;
    yield* expertRows(p, z, h, { x, rows: rowToken, offsets }, w.gateUp, a.gateUp);
    addExpertPairs(p, i, 'gateUp', z, xn, rowToken, offsets, rowAdapter);
  }
  yield* paced(p.pace, 'swiglu', P, F, MANY_ROWS, (from, to) => {
    using part = new Scope('workspace', placeOf(p.model));
    ops.swiglu_fwd(rowsOf(part, act, from, to), rowsOf(part, z, from, to), swiglu_alpha, swiglu_limit);
  });
  return { router, ...routing, rowAdapter, z, act, h };
}

/** expertProduct, a slice of the rows at a time. */
function* expertRows(
  p: Pass,
  y: Tensor,
  h: Tensor | null,
  { x, rows, offsets }: ExpertInputs,
  w: ExpertWeights,
  lora: LoraPair | undefined,
): Generator<void> {
  const P = y.rows,
    [N = 0, C = 0] = [y.shape[1], x.shape[1]];
  yield* pacedExperts(p.pace, P, offsets, N * C, (from, to, within) => {
    using s = new Scope('workspace', placeOf(p.model));
    const part = {
      x: rows ? x : rowsOf(s, x, from, to),
      rows: rows && rowsOf(s, rows, from, to),
      offsets: within ? s.from(within) : offsets,
    };
    expertProduct(rowsOf(s, y, from, to), h && rowsOf(s, h, from, to), part, w, lora, p.precision, p.byRow);
  });
}

/** Adds to y f32 [P,N] the pairs of the adapters of its rows, where a pass has several. */
function addExpertPairs(
  p: Pass,
  i: number,
  target: 'gateUp' | 'down',
  y: Tensor,
  x: Tensor,
  xRows: Tensor | null,
  offsets: Tensor,
  rowAdapter: Tensor | null,
): void {
  const at = p.mixed?.pool.layers[i]?.[target];
  if (!p.mixed || !at || !rowAdapter) return;
  const { pool } = p.mixed;
  using s = new Scope('workspace', placeOf(p.model));
  const h = s.empty('f32', [y.rows, pool.rank]);
  const params = paramsOf(pool, p.precision);
  ops.grouped_lora_fwd(y, h, x, xRows, offsets, params, at.table, at.scales, rowAdapter, p.precision);
}

/** The experts' pieces of tokens [from, to). */
function* moeChunks(model: ModelWeights, from: number, to: number): Generator<readonly [number, number]> {
  const size = moeChunkTokens(model);
  for (let at = from; at < to; at += size) yield [at, Math.min(to, at + size)];
}

/** What a layer's forward leaves for its backward, each null where it is computed again. */
interface KeptLayer {
  readonly attention: KeptAttention | null;
  readonly experts: PreActivation | null;
  /**
   * The rank-R products of the down projection, f32 [T·K,R]: with them the backward need not run that projection; null
   * where it has no pair.
   */
  readonly downH: Tensor | null;
}
const NOTHING_KEPT: KeptLayer = { attention: null, experts: null, downH: null };

/** One layer, from x into out (which may be x). */
function* layerForward(p: Pass, i: number, x: Tensor, out: Tensor, kept: KeptLayer): Generator<void> {
  if (joined(p, i)) return yield* joinedLayer(p, i, x, out);
  using s = new Scope('activations', placeOf(p.model));
  layerOf(p, i).w.verify?.();
  const kv = yield* keysAndValues(s, p, i, x, kept.attention);
  for (const c of p.chunks) yield* chunkForward(p, i, c, kv, x, out, kept);
}
/** Whether a layer has nothing beside its weights where the ops that are several in one stand. */
function joined(p: Pass, i: number): boolean {
  const { w, a } = layerOf(p, i);
  const plain = !a.q && !a.k && !a.v && !a.router && !a.gateUp && !w.router.scales;
  return p.joins && plain && ![w.q, w.k, w.v, w.router].some((each) => each.inputs);
}
/** layerForward of a decode step in few launches, to the bit; out is another tensor than x. */
function* joinedLayer(p: Pass, i: number, x: Tensor, out: Tensor): Generator<void> {
  using s = new Scope('activations', placeOf(p.model));
  const { w, a } = layerOf(p, i),
    { config } = p.model,
    c = p.chunks[0] as Chunk;
  const { num_attention_heads: H, head_dim: Dh, hidden_size: D, intermediate_size: F, rms_norm_eps: eps } = config;
  const places = p.cache?.store.placesOf(p.cache.plan, i);
  if (!places) throw new NativeError('bad_layer', `layer ${i}: its keys have no rows of their own`);
  w.verify?.();
  const { at, rows } = places,
    q = s.empty('f32', [p.T, H, Dh]),
    o = s.empty('f32', [p.T, H, Dh]);
  ops.linear_qkv_fwd(
    q,
    at.k,
    at.v,
    x,
    w.inputNorm,
    eps,
    w.q.w,
    w.q.scales ?? null,
    w.q.bias,
    w.k.w,
    w.k.scales ?? null,
    w.k.bias,
    w.v.w,
    w.v.scales ?? null,
    w.v.bias,
    c.cos,
    c.sin,
    rows,
    p.precision,
  );
  yield* attendOnCache(p, c, at, o, q, w.sinks, Dh ** -0.5);
  const attended = linear(p, i, 'o', 0, newLinear(s, p.T, w.o, a.o), o.view(s, [p.T, H * Dh]), w.o, a.o);
  const r = newRouting(s, config, p.T),
    P = r.rowToken.numel,
    xn = s.empty('f32', [p.T, D]),
    act = s.empty('f32', [P, F]);
  ops.linear_router_fwd(
    out,
    xn,
    r.weights,
    r.ids,
    r.offsets,
    r.rowToken,
    r.slotRow,
    r.rowWeight,
    x,
    attended.y,
    w.postNorm,
    eps,
    w.router.w,
    w.router.bias,
    p.precision,
  );
  const { gateUp } = w;
  ops.grouped_linear_swiglu_fwd(
    act,
    null,
    null,
    gateUp.inputs?.(s, xn) ?? xn,
    r.rowToken,
    r.offsets,
    gateUp.w,
    gateUp.scales,
    gateUp.bias,
    null,
    null,
    0,
    config.swiglu_alpha,
    config.swiglu_limit,
    gateUp.layout,
    p.precision,
    1,
  );
  const { down } = w;
  if (!a.down) {
    const x = down.inputs?.(s, act) ?? act;
    const { w: weights, scales, bias, layout } = down;
    ops.grouped_linear_combine_fwd(out, x, r.offsets, weights, scales, bias, r.weights, r.slotRow, layout, p.precision);
    return;
  }
  const y = s.empty('f32', [P, D]),
    h = s.empty('f32', [P, a.down.A.shape[1] ?? 0]),
    downIn = { x: down.inputs?.(s, act) ?? act, rows: null, offsets: r.offsets };
  yield* expertRows(p, y, h, downIn, down, a.down);
  ops.moe_combine(out, y, r.weights, r.slotRow, 1);
}
/** The rest of a layer for a chunk of tokens, as they see the keys and values of all. */
function* chunkForward(
  p: Pass,
  i: number,
  c: Chunk,
  kv: KeysValues,
  x: Tensor,
  out: Tensor,
  kept: KeptLayer,
): Generator<void> {
  using inner = new Scope('activations', placeOf(p.model));
  const { w, a } = layerOf(p, i);
  const { hidden_size: D, num_experts_per_tok: K, rms_norm_eps: eps } = p.model.config;
  const t = c.to - c.from,
    xc = rowsOf(inner, x, c.from, c.to),
    outc = rowsOf(inner, out, c.from, c.to);
  const xn = inner.empty(postDtype(p, i), [t, D]);
  {
    using half = new Scope('activations', placeOf(p.model));
    const att = kept.attention ? chunkOf(half, kept.attention, c) : newAttention(half, p, i, t, false);
    yield* attention(half, p, i, c, (kv.normed ?? inputNorm(half, p, i, xc)).xn, kv, att);
    ops.rmsnorm_fwd(xn, half.empty('f32', [t]), outc, xc, att.out.y, w.postNorm, eps); // out = x + attention
  }
  if (p.pace) yield;
  for (const [from, to] of moeChunks(p.model, c.from, c.to)) {
    using m = new Scope('workspace', placeOf(p.model));
    const pre = kept.experts && pieceOf(m, p, kept.experts, from, to);
    const e = yield* experts(m, m, p, i, rowsOf(m, xn, from - c.from, to - c.from), pre, false, false);
    p.routed?.note(i, e.offsets);
    const y = m.empty('f32', [(to - from) * K, D]);
    const h = !a.down
      ? null
      : kept.downH
        ? kept.downH.slice(m, from * K, to * K)
        : m.empty('f32', [(to - from) * K, a.down.A.shape[1] ?? 0]);
    const act = w.down.inputs?.(m, e.act) ?? e.act;
    yield* expertRows(p, y, h, { x: act, rows: null, offsets: e.offsets }, w.down, a.down);
    addExpertPairs(p, i, 'down', y, e.act, null, e.offsets, e.rowAdapter);
    ops.moe_combine(rowsOf(m, out, from, to), y, e.weights, e.slotRow, 1);
  }
}
/**
 * The last layer where each sequence's last row is wanted alone: of the others there are keys and values, nothing else.
 * @param ends that row of each, i32 [B] · @returns f32 [B,D]
 */
function* endsForward(s: Scope, p: Pass, i: number, x: Tensor, ends: Int32Array): Generator<void, Tensor> {
  using inner = new Scope('activations', placeOf(p.model));
  layerOf(p, i).w.verify?.();
  const kv = yield* keysAndValues(inner, p, i, x, null);
  const B = ends.length,
    index = inner.from(ends),
    c = p.chunks[0] as Chunk;
  const endsOf = (from: Tensor): Tensor => {
    const some = inner.empty(from.dtype, [B, ...from.shape.slice(1)]);
    ops.gather_rows(some, from, index);
    return some;
  };
  const out = s.empty('f32', [B, p.model.config.hidden_size]);
  ops.gather_rows(out, x, index);
  const chunk: Chunk = {
    ...c,
    from: 0,
    to: B,
    qStart: inner.from(Int32Array.from({ length: B + 1 }, (_, b) => b)),
    cos: endsOf(c.cos),
    sin: endsOf(c.sin),
  };
  const normed = kv.normed ?? inputNorm(inner, p, i, x);
  let of = p;
  if (p.mixed) {
    const rows = inner.empty('i32', [B]);
    ops.gather_rows(rows, p.mixed.rows, index);
    of = { ...p, mixed: { pool: p.mixed.pool, rows } };
  }
  yield* chunkForward(of, i, chunk, { ...kv, normed: { ...normed, xn: endsOf(normed.xn) } }, out, out, NOTHING_KEPT);
  return out;
}

/**
 * Of a chunk's experts: dxn, the gradient of their normed input xn, from dout, that of the layer's output; parameter
 * gradients accumulate. Tokens [from, to).
 */
function expertsBackward(
  p: Pass,
  i: number,
  from: number,
  to: number,
  xn: Tensor,
  dout: Tensor,
  dxn: Tensor,
  kept: KeptLayer,
  g: LayerGrads | undefined,
): void {
  using s = new Scope('workspace', placeOf(p.model));
  using wide = new Scope('workspace', placeOf(p.model));
  const { w, a } = layerOf(p, i);
  const {
    hidden_size: D,
    num_experts_per_tok: K,
    num_local_experts: E,
    intermediate_size: F,
    swiglu_alpha,
    swiglu_limit,
  } = p.model.config;
  const t = to - from,
    P = t * K;
  const pre = kept.experts && pieceOf(s, p, kept.experts, from, to);
  const m = atOnce(experts(s, wide, p, i, xn, pre, pre !== null, true));
  if (!m.z) throw new NativeError('bad_layer', 'experts left no pre-activations');
  const dact = wide.empty('f32', [P, F]),
    rowDot = s.empty('f32', [P]);
  const dy = { of: dout, rows: m.rowToken, weight: m.rowWeight },
    downIn = { x: m.act, rows: null, offsets: m.offsets },
    downH = kept.downH?.slice(s, from * K, to * K) ?? null;
  expertProductBackward(dact, g?.down, dy, downIn, downH, w.down, a.down, p.precision);
  mergedExpertsBackward(p, mergedPair(p, i, 'down'), dy, downIn, w.down);
  // the sums of a bias's gradient are over what is not rounded
  const dz = s.empty(g?.gateUp?.bias ? 'f32' : inputDtype(p, [], []), [P, 2 * F]);
  ops.swiglu_bwd(dz, rowDot, dact, m.z, m.rowWeight, swiglu_alpha, swiglu_limit);
  wide.close();
  const dRows = s.empty('f32', [P, D]);
  const dyz = { of: dz, rows: null, weight: null },
    gateUpIn = { x: xn, rows: m.rowToken, offsets: m.offsets };
  expertProductBackward(dRows, g?.gateUp, dyz, gateUpIn, m.h, w.gateUp, a.gateUp, p.precision);
  mergedExpertsBackward(p, mergedPair(p, i, 'gateUp'), dyz, gateUpIn, w.gateUp);
  ops.moe_combine(dxn, dRows, null, m.slotRow, 0);
  // The router is frozen or not: its input's gradient flows on either way.
  const dlogits = s.empty('f32', [t, E]);
  scoresBackward(s, dlogits, rowDot, dout, w.down.bias, m);
  linearBackward(p, i, 'router', 0, dxn, 1, dlogits, xn, m.router.h, w.router, a.router, g?.router);
}

/**
 * Turns dx, the gradient of the layer's output, into that of its input x; parameter gradients accumulate. Chunks go
 * from the last to the first: then the keys of a chunk have met all queries that see them when its turn comes, and the
 * whole chunk is done at once.
 */
function layerBackward(p: Pass, i: number, x: Tensor, dx: Tensor, kept: KeptLayer, g: LayerGrads | undefined): void {
  using s = new Scope('activations', placeOf(p.model));
  const { w, a } = layerOf(p, i);
  const {
    num_attention_heads: H,
    num_key_value_heads: Hkv,
    head_dim: Dh,
    hidden_size: D,
    rms_norm_eps: eps,
  } = p.model.config;
  const kv: KeysValues = kept.attention
    ? { ...kept.attention, normed: null, cached: null }
    : atOnce(keysAndValues(s, p, i, x, null));
  const dk = s.zeros('f32', [p.T, Hkv * Dh]),
    dv = s.zeros('f32', [p.T, Hkv * Dh]);
  for (const c of p.chunks.toReversed()) {
    using inner = new Scope('activations', placeOf(p.model));
    const t = c.to - c.from;
    const part = (whole: Tensor): Tensor => rowsOf(inner, whole, c.from, c.to);
    const xc = part(x),
      dxc = part(dx);
    const { xn, rstd } = kv.normed ?? inputNorm(inner, p, i, xc);
    const att = kept.attention ? chunkOf(inner, kept.attention, c) : newAttention(inner, p, i, t, true);
    if (!kept.attention) atOnce(attention(inner, p, i, c, xn, kv, att));
    if (!att.lse) throw new NativeError('bad_layer', 'attention kept no log-sum-exp');
    const mid = att.out.y,
      dxn = inner.empty('f32', [t, D]);
    {
      using half = new Scope('activations', placeOf(p.model));
      const post = { xn: half.empty(postDtype(p, i), [t, D]), rstd: half.empty('f32', [t]) };
      ops.rmsnorm_fwd(post.xn, post.rstd, mid, mid, xc, w.postNorm, eps); // mid = attention + x
      for (const [from, to] of moeChunks(p.model, c.from, c.to)) {
        const rows = (whole: Tensor): Tensor => rowsOf(half, whole, from - c.from, to - c.from);
        expertsBackward(p, i, from, to, rows(post.xn), rows(dxc), rows(dxn), kept, g);
      }
      ops.rmsnorm_bwd(dxc, g?.postNorm ?? null, dxn, dxc, mid, w.postNorm, post.rstd);
    }
    const dO = inner.empty('f32', [t, H * Dh]),
      dq = inner.empty('f32', [t, H * Dh]);
    linearBackward(p, i, 'o', c.index, dO, 0, dxc, flat(inner, att), att.out.h, w.o, a.o, g?.o);
    const keys = [p.T, Hkv, Dh],
      queries = [t, H, Dh];
    const heads = headsOf(inner, p, att.q.y, kv);
    ops.attention_bwd(
      dq.view(inner, queries),
      dk.view(inner, keys),
      dv.view(inner, keys),
      g?.sinks ?? null,
      dO.view(inner, queries),
      heads.q,
      heads.k,
      heads.v,
      att.o,
      att.lse,
      w.sinks,
      c.qStart,
      c.kStart,
      c.kLen,
      w.window,
      Dh ** -0.5,
      p.precision,
    );
    const dkc = part(dk),
      dvc = part(dv);
    ops.rope(dq, c.cos, c.sin, H, -1);
    ops.rope(dkc, c.cos, c.sin, Hkv, -1);
    linearBackward(p, i, 'q', c.index, dxn, 0, dq, xn, att.q.h, w.q, a.q, g?.q);
    linearBackward(p, i, 'k', c.index, dxn, 1, dkc, xn, kv.k.h && part(kv.k.h), w.k, a.k, g?.k);
    linearBackward(p, i, 'v', c.index, dxn, 1, dvc, xn, kv.v.h && part(kv.v.h), w.v, a.v, g?.v);
    ops.rmsnorm_bwd(dxc, g?.inputNorm ?? null, dxn, dxc, xc, w.inputNorm, rstd);
  }
}

/** The final norm of the wanted rows of x. */
function finalNorm(s: Scope, p: Pass, x: Tensor, rows: Int32Array | null) {
  const D = p.model.config.hidden_size;
  let last = x;
  const index = rows ? s.from(rows) : null;
  if (index) {
    last = s.empty('f32', [index.rows, D]);
    ops.gather_rows(last, x, index);
  }
  const hidden = s.empty('f32', [last.rows, D]),
    rstd = s.empty('f32', [last.rows]);
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
export function forwardHidden(
  scope: Scope,
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  options: ForwardOptions,
): Tensor {
  return atOnce(forwardLayers(scope, model, adapter, batch, options));
}
/**
 * forwardHidden, which stops after each layer, and within it where there is a pace. Other passes may run meanwhile,
 * over other slots of the cache; the tensors of model and adapter must stay.
 */
export function* forwardLayers(
  scope: Scope,
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  options: ForwardOptions,
): Generator<void, Tensor> {
  using s = new Scope('activations', placeOf(model));
  const { p, x, out: other } = yield* upToLast(s, model, adapter, batch, options);
  const rows = options.rows ?? null,
    last = model.layers.length - 1,
    ends = rows !== null && isEachEnd(p, batch, rows) ? rows : null;
  const top = ends ? yield* endsForward(s, p, last, x, ends) : other;
  if (!ends) yield* layerForward(p, last, x, other, NOTHING_KEPT);
  yield;
  p.cache?.store.advance(p.cache.plan);
  const { hidden } = finalNorm(s, p, top, ends ? null : rows);
  const out = scope.empty('f32', hidden.shape);
  ops.cast(out, hidden);
  return out;
}
/** forwardLayers where no row is wanted: the cache gets keys and values, and of the last layer nothing else is done. */
export function* cacheLayers(
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  options: ForwardOptions & { readonly cache: KvCache },
): Generator<void> {
  using s = new Scope('activations', placeOf(model));
  const { p, x } = yield* upToLast(s, model, adapter, batch, options);
  const last = model.layers.length - 1;
  layerOf(p, last).w.verify?.();
  yield* keysAndValues(s, p, last, x, null);
  if (p.cache) options.cache.advance(p.cache.plan);
}
/**
 * All layers but the last, whose input is x f32 [T,D]. Its output may go to `out`, which is x where no op is several in
 * one.
 */
function* upToLast(
  s: Scope,
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  options: ForwardOptions,
): Generator<void, { readonly p: Pass; readonly x: Tensor; readonly out: Tensor }> {
  const p = yield* startPass(s, model, adapter, batch, options);
  let x = options.inputs?.x ?? s.empty('f32', [p.T, model.config.hidden_size]),
    out = p.joins ? s.empty('f32', x.shape) : x;
  if (!options.inputs?.x) ops.embedding_fwd(x, model.embed, p.ids);
  if (p.pace) yield;
  for (let i = 0; i + 1 < model.layers.length; i++) {
    options.signal?.throwIfAborted();
    yield* layerForward(p, i, x, out, NOTHING_KEPT);
    [x, out] = [out, x];
    yield;
  }
  options.signal?.throwIfAborted();
  return { p, x, out };
}
/** Whether these rows are the last ones of each sequence, which have the same bits where the others are not there. */
function isEachEnd(p: Pass, { starts }: Batch, rows: Int32Array): boolean {
  const few = p.byRow !== 0 && p.cache !== null && rows.length < p.T;
  return few && rows.length === starts.length - 1 && rows.every((row, b) => row === (starts[b + 1] ?? 0) - 1);
}

/** Logits f32 [S,V] of hidden states f32 [S,D]; `byRow` as in ForwardOptions. */
export function logits(
  scope: Scope,
  model: ModelWeights,
  hidden: Tensor,
  precision: keyof typeof PRECISION,
  byRow = false,
  out = scope.empty('f32', [hidden.rows, model.config.vocab_size]),
): Tensor {
  headProduct(out, headInput(scope, model, hidden), model.head, model.headScales ?? null, precision, byRow);
  return out;
}
const headInput = (s: Scope, { headScales, headInputs }: ModelWeights, hidden: Tensor): Tensor =>
  headScales ? hidden : (headInputs?.(s, hidden) ?? hidden);
function headProduct(
  out: Tensor,
  x: Tensor,
  head: Tensor,
  scales: Tensor | null,
  precision: keyof typeof PRECISION,
  byRow: boolean,
): void {
  const alone = byRow ? 1 : 0;
  if (scales) ops.linear_q8_fwd(out, null, x, head, scales, null, null, null, 0, PRECISION[precision], alone);
  else ops.linear_fwd(out, null, x, head, null, null, null, 0, 0, 0, PRECISION[precision], alone);
}
/**
 * logits by row, a slice of the vocabulary at a time: of a model of few layers the head takes as long as the rest of a
 * step. A token's logit is a sum of its own, so that no cut changes a bit.
 */
export function* pacedLogits(
  scope: Scope,
  model: ModelWeights,
  hidden: Tensor,
  precision: keyof typeof PRECISION,
  pace: Pace | null,
): Generator<void, Tensor> {
  const { vocab_size: V, hidden_size: D } = model.config,
    B = hidden.rows;
  if (!pace || backendOf(placeOf(model)).ownMemory) return logits(scope, model, hidden, precision, true);
  const out = scope.empty('f32', [B, V]),
    x = headInput(scope, model, hidden);
  const blocks = Math.ceil(V / HEAD_BLOCK);
  yield* paced(pace, 'head', blocks, HEAD_BLOCK * D, FEW_HEAD_BLOCKS, (first, end) => {
    using s = new Scope('workspace', placeOf(model));
    const from = first * HEAD_BLOCK,
      to = Math.min(V, end * HEAD_BLOCK),
      all = to - from === V;
    const part = all ? out : s.empty('f32', [B, to - from]);
    const scales = model.headScales ? rowsOf(s, model.headScales, from, to) : null;
    headProduct(part, x, rowsOf(s, model.head, from, to), scales, precision, true);
    if (all) return;
    for (let b = 0; b < B; b++) ops.cast(out.view(s, [1, to - from], b * V + from), part.slice(s, b, b + 1));
  });
  return out;
}

/** Whether any of attention and head is in 8 bits. */
export const isQ8 = (model: ModelWeights): boolean =>
  // A merged model is none, and asking its layers would merge them all.
  !model.merged &&
  (model.headScales !== undefined || model.layers.some((l) => [l.q, l.k, l.v, l.o].some((w) => w.scales)));

/**
 * log p(targets[i]) under logits of hidden row i, a few rows at a time: sampling where only the target is allowed
 * reports just that.
 */
function scoreByLogits(
  model: ModelWeights,
  hidden: Tensor,
  targets: Int32Array,
  precision: keyof typeof PRECISION,
): Float32Array {
  const words = Math.ceil(model.config.vocab_size / 32),
    out = new Float32Array(targets.length);
  for (let from = 0; from < targets.length; from += 16) {
    using s = new Scope('workspace', placeOf(model));
    const part = targets.subarray(from, from + 16),
      B = part.length;
    const mask = new Int32Array(B * words);
    part.forEach((t, b) => {
      mask[b * words + (t >> 5)] = 1 << (t & 31);
    });
    const logprobs = s.empty('f32', [B]);
    ops.sample(
      s.empty('i32', [B]),
      logprobs,
      logits(s, model, hidden.slice(s, from, from + B), precision),
      s.from(new Float32Array(4 * B), [B, 4]),
      s.from(new Float32Array(B)),
      s.from(mask, [B, words]),
    );
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
  /** As in ForwardOptions. Another value changes the last bits of gradients, none of the loss. */
  readonly chunkTokens?: number;
  /**
   * Folder on whose disk the kept activations go (files without a name, mapped); of a model on a GPU they go to host
   * memory. Absent or null: they stay. Changes no bit.
   */
  readonly offload?: string | null;
  /** What the backward finds again; absent: it computes all but the layers' inputs once more. Changes no bit. */
  readonly keep?: Keep;
  /**
   * Weights that depend on the forward pass: given the nll of every target (nats, in order), ∂loss/∂nll of each, of any
   * sign; `targets.weights` are then only the caller's. The head's products are computed once more for it, nothing
   * else. Absent: `targets.weights`.
   */
  readonly weigh?: (nll: Float32Array) => Float32Array;
  /** Without gradients: receives 1 for each target that is the most probable token, which greedy decoding takes. */
  readonly hits?: Uint8Array | null;
  /** Where the rows of the experts are counted. */
  readonly load?: ExpertLoad;
}

/** Logits that are looked at together: 16 MiB. */
const HIT_LOGITS = 2 ** 22;
/**
 * The hits of targets[from…], whose rows `hidden` are. Most are known by their nll alone: p > 1/2 is the most, p < 1/V
 * not.
 */
function markHits(
  model: ModelWeights,
  hidden: Tensor,
  { targets }: Targets,
  nll: Float32Array,
  from: number,
  hits: Uint8Array,
  precision: keyof typeof PRECISION,
): void {
  const V = model.config.vocab_size,
    open: number[] = [];
  for (let i = 0; i < hidden.rows; i++) {
    const x = nll[from + i] ?? Infinity;
    if (x < 0.69) hits[from + i] = 1;
    else if (x <= Math.log(V) + 0.01) open.push(i);
  }
  for (const [a, b] of pieces(open.length, Math.max(1, Math.floor(HIT_LOGITS / V)))) {
    using s = new Scope('workspace', placeOf(model));
    const B = b - a,
      rows = s.empty('f32', [B, model.config.hidden_size]),
      tokens = s.empty('i32', [B]);
    ops.gather_rows(rows, hidden, s.from(Int32Array.from(open.slice(a, b))));
    ops.sample(
      tokens,
      s.empty('f32', [B]),
      logits(s, model, rows, precision),
      s.from(new Float32Array(4 * B), [B, 4]),
      s.from(new Float32Array(B)),
      null,
    );
    const best = tokens.read();
    for (let k = 0; k < B; k++) {
      const i = from + (open[a + k] ?? 0);
      if (best[k] === targets[i]) hits[i] = 1;
    }
  }
}

/**
 * Nll of each target into `nll`; with dx also ∂(Σ weight·nll)/∂x into its rows, and the gradients of norm and head.
 * Rows are taken in pieces of HEAD_ROWS.
 */
function lossAtHead(p: Pass, x: Tensor, targets: Targets, nll: Float32Array, dx: Tensor | null, o: LossOptions): void {
  const { model } = p,
    D = model.config.hidden_size;
  const chunk = o.chunkTokens ?? chunkTokens(model);
  const grads = dx ? o.grads : null;
  for (const [from, to] of pieces(targets.rows.length, HEAD_ROWS * (chunk / MOE_CHUNK_TOKENS))) {
    using c = new Scope('activations', placeOf(model));
    const top = finalNorm(c, p, x, targets.rows.subarray(from, to));
    const n = c.empty('f32', [to - from]),
      dhidden = dx ? c.empty('f32', [to - from, D]) : null;
    ops.linear_cross_entropy(
      n,
      dhidden,
      grads?.head ?? null,
      top.hidden,
      model.head,
      c.from(targets.targets.subarray(from, to)),
      c.from(targets.weights.subarray(from, to)),
      p.precision,
    );
    nll.set(n.toFloat32(), from);
    if (o.hits) markHits(model, top.hidden, targets, nll, from, o.hits, o.precision);
    if (!dx || !dhidden) continue;
    ops.rmsnorm_bwd(dhidden, grads?.norm ?? null, dhidden, null, top.last, model.norm, top.rstd);
    if (top.index) ops.scatter_rows(dx, dhidden, top.index);
  }
}

/** What lies, until a layer's backward, on the device or in host memory. */
interface Waiting extends Omit<KeptLayer, 'downH'> {
  readonly x: Tensor | Parked;
  readonly downH: Tensor | Parked | null;
  readonly scopes: readonly Scope[];
}
const here = (t: Tensor | Parked): Tensor => (t instanceof Parked ? t.here() : t);

/**
 * Forward and backward. Adds ∂(Σ weight·nll) to dA, dB of the adapter's pairs and to `grads`.
 * @returns nll f32, nats per target row, before weighting
 * @throws {NativeError} q8_training
 */
export function lossAndGradients(
  model: ModelWeights,
  adapter: ModelAdapter | null,
  batch: Batch,
  targets: Targets,
  options: LossOptions,
): { readonly nll: Float32Array } {
  using s = new Scope('activations', placeOf(model));
  const { grads, gradients, precision } = options;
  if (isQ8(model))
    throw new NativeError(
      'q8_training',
      'lossAndGradients: attention and head of this model are in 8 bits, which are for serving ' +
        'only; open the checkpoint without quantizeDense',
    );
  const D = model.config.hidden_size,
    K = model.config.num_experts_per_tok,
    L = model.layers.length;
  const chunk = options.chunkTokens ?? chunkTokens(model);
  const started = atOnce(
    startPass(s, model, adapter, batch, {
      precision,
      seed: options.seed,
      train: gradients,
      chunkTokens: chunk,
    }),
  );
  const piecesOf = (c: Chunk): number => [...moeChunks(model, c.from, c.to)].length;
  const routed = options.load
    ? new RoutedRows(
        s,
        options.load,
        started.chunks.reduce((n, c) => n + piecesOf(c), 0),
      )
    : null;
  const p: Pass = { ...started, routed };
  const lowest = grads ? 0 : lowestTrained(model, adapter);
  // What a layer's backward needs goes with that layer.
  const kept: Waiting[] = [];
  const keeps = gradients ? (options.keep ?? KEEP_NOTHING) : KEEP_NOTHING;
  const { ownMemory } = backendOf(placeOf(model));
  const keepable = (scope: Scope, shape: readonly number[]): Tensor =>
    options.offload && gradients && !ownMemory
      ? scope.offloaded(options.offload, 'f32', shape)
      : scope.empty('f32', shape);
  using parking = new Parking();
  const parks = options.offload != null && gradients && ownMemory;
  const newX = (scope: Scope): Tensor => keepable(scope, [p.T, D]);
  let scope = s.open(),
    x = newX(scope);
  ops.embedding_fwd(x, model.embed, p.ids);
  // Of the layer before: on its way while this one computes.
  let leaving: { readonly parked: Parked; readonly from: Scope } | null = null;
  const gone = (): void => {
    leaving?.parked.left();
    leaving?.from.close();
    leaving = null;
  };
  for (let i = 0; i < L; i++) {
    const down = adapter?.layers[i]?.down;
    const keep = gradients && i >= lowest;
    // The backward pass begins with the last layer.
    const parked = parks && keep && i + 1 < L ? parking.park(x) : null;
    const room = s.open(),
      small = parked ? s.open() : scope;
    const layer: KeptLayer = {
      attention: keep && i >= L - keeps.attention ? keptAttention(room, p, i) : null,
      experts: keep && i >= L - keeps.experts ? newPreActivation(room, room, p, i, p.T * K) : null,
      downH: keep && down ? keepable(small, [p.T * K, down.A.shape[1] ?? 0]) : null,
    };
    const next = keep ? s.open() : scope;
    const out = keep ? newX(next) : x;
    atOnce(layerForward(p, i, x, out, layer));
    gone();
    const of: Waiting = { ...layer, scopes: [scope, room], x };
    if (parked) {
      parked.left();
      scope.close();
      const downH = layer.downH && parking.park(layer.downH);
      if (downH) leaving = { parked: downH, from: small };
      kept.push({ ...of, scopes: [room], x: parked, downH });
    } else kept.push(of);
    scope = next;
    x = out;
  }
  gone();
  const nll = new Float32Array(targets.rows.length);
  const dx = gradients ? newX(s) : null;
  if (dx) ops.fill(dx, 0);
  let weighed = targets;
  if (dx && options.weigh) {
    lossAtHead(p, x, targets, nll, null, options);
    weighed = { ...targets, weights: options.weigh(nll.slice()) };
  }
  lossAtHead(p, x, weighed, nll, dx, options);
  routed?.count();
  scope.close();
  if (dx) {
    for (let i = L - 1; i >= lowest; i--) {
      const of = kept[i],
        below = i > lowest ? kept[i - 1] : undefined;
      if (!of) continue;
      const [x, downH] = [here(of.x), of.downH && here(of.downH)];
      for (const t of [below?.x, below?.downH]) if (t instanceof Parked) t.fetch();
      layerBackward(p, i, x, dx, { ...of, downH }, grads?.layers[i]);
      for (const each of [of.x, of.downH]) if (each instanceof Parked) each.close();
      for (const each of of.scopes) each.close();
    }
    if (grads) ops.embedding_bwd(grads.embed, dx, p.ids);
  }
  return { nll };
}

/**
 * Log-probabilities of a text: element i is log p(tokens[i+1] | tokens[0…i]), nats. With a cache the text is run as
 * serving runs it (slot 0, reset first). The trainer's bits, unless attention and head are in 8 bits: then what q8
 * serving computes.
 * @returns f32 [tokens.length − 1]
 */
export function scoreTokens(
  model: ModelWeights,
  adapter: ModelAdapter | null,
  tokens: Int32Array,
  options: { readonly precision: keyof typeof PRECISION; readonly cache?: KvCache | null },
): Float32Array {
  using s = new Scope('activations', placeOf(model));
  const S = tokens.length - 1;
  if (S < 1) return new Float32Array(0);
  const rows = Int32Array.from({ length: S }, (_, i) => i);
  const batch: Batch = {
    tokens,
    positions: Int32Array.from(tokens, (_, i) => i),
    starts: Int32Array.of(0, tokens.length),
  };
  if (!options.cache && !isQ8(model)) {
    const { nll } = lossAndGradients(
      model,
      adapter,
      batch,
      { rows, targets: tokens.slice(1), weights: new Float32Array(S).fill(1) },
      { precision: options.precision, seed: 0, grads: null, gradients: false },
    );
    return nll.map((x) => -x);
  }
  options.cache?.reset(0);
  const hidden = forwardHidden(s, model, adapter, batch, {
    precision: options.precision,
    cache: options.cache ?? null,
    rows,
  });
  if (model.headScales) return scoreByLogits(model, hidden, tokens.subarray(1), options.precision);
  const nll = s.empty('f32', [S]);
  ops.linear_cross_entropy(
    nll,
    null,
    null,
    hidden,
    model.head,
    s.from(tokens.slice(1)),
    null,
    PRECISION[options.precision],
  );
  return nll.toFloat32().map((x) => -x);
}
