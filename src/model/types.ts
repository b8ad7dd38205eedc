// The shapes everything above the ops agrees on: weights, adapters, gradients and batches of gpt-oss. Names of
// dimensions: native/include/temper/ops.h.
import type { ExpertLayout } from '../native/ops.js';
import type { Place, Scope, Tensor } from '../native/tensor.js';
import type { ModelConfig } from './config.js';

/**
 * What a program that is not this one makes of the inputs of a product before it multiplies: f32, x's shape. For
 * comparisons; forward only.
 */
export type InputRounding = (scope: Scope, x: Tensor) => Tensor;

/**
 * w wf [N, C], bias wf [N] or absent. With `scales` (bf16 [N, C/32]) w is q8, u8 [N, C]: for serving only
 * (src/model/q8.ts).
 */
export interface LinearWeights {
  readonly w: Tensor;
  readonly bias: Tensor | null;
  readonly scales?: Tensor;
  readonly inputs?: InputRounding;
}
/**
 * One matrix per expert. layout 0: w u8 [E,N,C/32,16] + scales u8 [E,N,C/32]; 1: w wf [E,N,C]; 2: w wf [E,C,N]. bias wf
 * [E,N].
 */
export interface ExpertWeights {
  readonly w: Tensor;
  readonly scales: Tensor | null;
  readonly bias: Tensor | null;
  readonly layout: ExpertLayout;
  readonly inputs?: InputRounding;
}

export interface LayerWeights {
  readonly inputNorm: Tensor; // wf [D]
  readonly q: LinearWeights; // [H·Dh, D]
  readonly k: LinearWeights; // [Hkv·Dh, D]
  readonly v: LinearWeights; // [Hkv·Dh, D]
  readonly o: LinearWeights; // [D, H·Dh]
  readonly sinks: Tensor; // wf [H]
  readonly postNorm: Tensor; // wf [D]
  readonly router: LinearWeights; // [E, D]
  readonly gateUp: ExpertWeights; // [E, 2F, D], rows 2k gate, 2k+1 up
  readonly down: ExpertWeights; // [E, D, F]
  readonly window: number; // sliding_window on sliding layers, 0 on full layers
  /**
   * Called before the layer computes; reads what was too much to read when it was opened, once. @throws
   * {CheckpointError} bad_scale
   */
  readonly verify?: () => void;
}

export interface ModelWeights {
  readonly config: ModelConfig;
  readonly embed: Tensor; // wf [V, D]
  readonly layers: readonly LayerWeights[];
  readonly norm: Tensor; // wf [D]
  readonly head: Tensor; // wf [V, D]; u8 where headScales is there
  readonly headScales?: Tensor; // bf16 [V, D/32]: the head is q8
  readonly headInputs?: InputRounding;
  /** The experts lie on the host and come to the device layer by layer: passes may not be recorded. */
  readonly streamsExperts?: boolean;
  /** Pairs whose products are in the weights already: none is added to them, and gradients pass their rounding. */
  readonly merged?: ModelAdapter;
  /** Ends the mappings and frees what was allocated; using a tensor afterwards throws. A second close does nothing. */
  close(): void;
}

/** Where a model computes. Its embedding table alone may lie on the host all the same. */
export const placeOf = (model: ModelWeights): Place => model.norm.place;

/**
 * One low-rank pair: y += scale · B·(A·dropout(x)). Linear targets: A f32 [R, C], B f32 [N, R]; experts: A f32 [E,R,C],
 * B f32 [E,N,R]. dA and dB have the same shapes and accumulate; null when the adapter is only used, not trained.
 * Dropout is for linear targets; 0 on experts.
 */
export interface LoraPair {
  readonly A: Tensor;
  readonly B: Tensor;
  readonly scale: number;
  readonly dropout: number;
  readonly dA: Tensor | null;
  readonly dB: Tensor | null;
}
export type LoraTarget = 'q' | 'k' | 'v' | 'o' | 'router' | 'gateUp' | 'down';
export type LayerAdapter = { readonly [T in LoraTarget]?: LoraPair };
/** One entry per layer; an absent target is not adapted. */
export interface ModelAdapter {
  readonly layers: readonly LayerAdapter[];
}

/** Where the pairs of one target lie in a pool, by the adapter's row; what ops lora_fwd and grouped_lora_fwd read. */
export interface PoolTarget {
  /** i32 [n,3]: A and B begin at elements 16·table[·,0] and 16·table[·,1] of the pool; rank, 0 where not adapted. */
  readonly table: Tensor;
  /** f32 [n] */
  readonly scales: Tensor;
}
/** Adapters that lie in one tensor, so that the rows of one pass may belong to several of them. */
export interface AdapterPool {
  /** f32 [M] */
  readonly params: Tensor;
  /** bf16 [M]: the same rounded, which passes at precision bf16 read, half the bytes; null: it is not kept. */
  readonly rounded: Tensor | null;
  /** The highest rank in it. */
  readonly rank: number;
  /** A target is absent where no adapter has it. */
  readonly layers: readonly { readonly [T in LoraTarget]?: PoolTarget }[];
}
export interface PooledAdapter extends ModelAdapter {
  /** As it is now: another object after the pool has moved. */
  readonly pool: AdapterPool;
  /** Its row in the pool's tables. */
  readonly row: number;
}
/** The adapters of one pass, token by token. */
export interface MixedAdapters {
  readonly pool: AdapterPool;
  /** i32 [T]: the row of each token's adapter in the pool's tables, −1: none. */
  readonly rows: Tensor;
}
export const isPooled = (adapter: ModelAdapter | null): adapter is PooledAdapter =>
  adapter !== null && 'pool' in adapter;

/**
 * Gradients of all weights, f32, same shapes as the weights (experts out×in [E,N,C]); for training from scratch only.
 * They accumulate.
 */
export interface LinearGrads {
  readonly w: Tensor;
  readonly bias: Tensor | null;
}
export interface LayerGrads {
  readonly inputNorm: Tensor;
  readonly q: LinearGrads;
  readonly k: LinearGrads;
  readonly v: LinearGrads;
  readonly o: LinearGrads;
  readonly sinks: Tensor;
  readonly postNorm: Tensor;
  readonly router: LinearGrads;
  readonly gateUp: LinearGrads;
  readonly down: LinearGrads;
}
export interface ModelGrads {
  readonly embed: Tensor;
  readonly layers: readonly LayerGrads[];
  readonly norm: Tensor;
  readonly head: Tensor;
}

/**
 * Packed sequences. Sequence b owns tokens[starts[b] … starts[b+1]); positions restart at 0 in each (or where its cache
 * stands). No sequence sees another. With a KvCache, sequence b continues its slot `slots[b]` (b where absent).
 */
export interface Batch {
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly starts: Int32Array;
  readonly slots?: Int32Array;
}

/**
 * What is trained: row i of the batch predicts targets[i] at weights[i] (rows ascending, distinct). Loss = Σ
 * weight·nll.
 */
export interface Targets {
  readonly rows: Int32Array;
  readonly targets: Int32Array;
  readonly weights: Float32Array;
}
