// The experts of a layer, MXFP4 as released, as one differentiable op of tfjs, made of the products that
// src/model/gpt-oss.ts runs for its own layers. The backward computes the forward again: kept are the inputs, and of a
// pair on the down projection its rank-R products.
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { NativeError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import {
  type ExpertPair,
  expertProduct,
  expertProductBackward,
  type Routing,
  routed,
  scoresBackward,
} from '../model/experts.js';
import { MOE_CHUNK_TOKENS } from '../model/gpt-oss.js';
import type { ExpertWeights, LinearWeights } from '../model/types.js';
import { ops, PRECISION, type Precision } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { requirePair, requireShape, type TfPair } from './lora.js';
import type { TfMemory } from './memory.js';

export interface MoeWeights {
  readonly config: ModelConfig;
  readonly router: LinearWeights;
  readonly gateUp: ExpertWeights;
  readonly down: ExpertWeights;
}
export interface MoeOptions {
  /** Logits of the router, float32 [T,E], with a gradient; absent: the frozen router's of x, which passes one to x. */
  readonly scores?: TfTensor | null;
  readonly gateUp?: TfPair | null;
  readonly down?: TfPair | null;
  /** Biases that are trained, float32 [E,2F] and [E,D], in place of the frozen ones. */
  readonly gateUpBias?: TfTensor | null;
  readonly downBias?: TfTensor | null;
}
/** What is differentiated, in the order in which tfjs is given it. */
const PARTS = ['x', 'scores', 'gateUpA', 'gateUpB', 'downA', 'downB', 'gateUpBias', 'downBias'] as const;
type Part = (typeof PARTS)[number];
type Named<T> = { [P in Part]?: T };

/** Of a chunk of tokens, all but the down projection. */
interface Routed extends Routing {
  readonly z: Tensor;
  readonly act: Tensor;
  readonly h: Tensor | null;
}

/** One call: shapes and settings, forward and backward of a chunk of its tokens. */
class Moe {
  readonly #p: Precision;
  constructor(
    readonly w: MoeWeights,
    precision: keyof typeof PRECISION,
    readonly scales: Readonly<Record<'gateUp' | 'down', number>>,
  ) {
    this.#p = PRECISION[precision];
  }

  /** The frozen experts of a projection, with the bias that is given in place of theirs. */
  #weights(of: 'gateUp' | 'down', on: Named<Tensor>): ExpertWeights {
    const bias = on[`${of}Bias`];
    return bias ? { ...this.w[of], bias } : this.w[of];
  }
  #pair(of: 'gateUp' | 'down', on: Named<Tensor>, d: Named<Tensor> = {}): ExpertPair | undefined {
    const [A, B] = [on[`${of}A`], on[`${of}B`]];
    return A && B ? { A, B, scale: this.scales[of], dA: d[`${of}A`] ?? null, dB: d[`${of}B`] ?? null } : undefined;
  }

  #routed(s: Scope, on: Named<Tensor>): Routed {
    const { config, router } = this.w;
    const { num_experts_per_tok: K, num_local_experts: E, intermediate_size: F } = config;
    const x = on.x as Tensor;
    const [t, P] = [x.rows, x.rows * K];
    let { scores } = on;
    if (!scores) {
      scores = s.empty('f32', [t, E]);
      ops.linear_fwd(scores, null, x, router.w, router.bias, null, null, 0, 0, 0, this.#p, 0);
    }
    const routing = routed(s, config, scores);
    const z = s.empty('f32', [P, 2 * F]),
      act = s.empty('f32', [P, F]);
    const h = on.gateUpA ? s.empty('f32', [P, on.gateUpA.shape[1] ?? 0]) : null;
    const at = { x, rows: routing.rowToken, offsets: routing.offsets };
    expertProduct(z, h, at, this.#weights('gateUp', on), this.#pair('gateUp', on), this.#p);
    ops.swiglu_fwd(act, z, config.swiglu_alpha, config.swiglu_limit);
    return { ...routing, z, act, h };
  }

  /** y f32 [t,D]; downH f32 [t·K,R] receives the products of the down pair's A. */
  forward(y: Tensor, downH: Tensor | null, on: Named<Tensor>): void {
    using s = new Scope('workspace');
    const r = this.#routed(s, on);
    const rows = s.empty('f32', [r.act.rows, this.w.config.hidden_size]);
    const at = { x: r.act, rows: null, offsets: r.offsets };
    expertProduct(rows, downH, at, this.#weights('down', on), this.#pair('down', on), this.#p);
    ops.moe_combine(y, rows, r.weights, r.slotRow, 0);
  }

  /** dx and dscores are overwritten, all else accumulates. */
  backward(d: Named<Tensor>, dy: Tensor, downH: Tensor | null, on: Named<Tensor>): void {
    using s = new Scope('workspace');
    const { config, router } = this.w;
    const { hidden_size: D, num_local_experts: E, intermediate_size: F } = config;
    const x = on.x as Tensor,
      dx = d.x as Tensor;
    const r = this.#routed(s, on);
    const P = r.act.rows;
    const biasOf = (bias: Tensor | undefined): { readonly bias?: Tensor } => (bias ? { bias } : {});
    const dact = s.empty('f32', [P, F]),
      rowDot = s.empty('f32', [P]);
    expertProductBackward(
      dact,
      biasOf(d.downBias),
      { of: dy, rows: r.rowToken, weight: r.rowWeight },
      { x: r.act, rows: null, offsets: r.offsets },
      downH,
      this.w.down,
      this.#pair('down', on, d),
      this.#p,
    );
    const dz = s.empty('f32', [P, 2 * F]);
    ops.swiglu_bwd(dz, rowDot, dact, r.z, r.rowWeight, config.swiglu_alpha, config.swiglu_limit);
    const dRows = s.empty('f32', [P, D]);
    expertProductBackward(
      dRows,
      biasOf(d.gateUpBias),
      { of: dz, rows: null, weight: null },
      { x, rows: r.rowToken, offsets: r.offsets },
      r.h,
      this.w.gateUp,
      this.#pair('gateUp', on, d),
      this.#p,
    );
    ops.moe_combine(dx, dRows, null, r.slotRow, 0);
    const dscores = d.scores ?? s.empty('f32', [x.rows, E]);
    scoresBackward(s, dscores, rowDot, dy, this.#weights('down', on).bias, r);
    if (on.scores) return;
    ops.linear_bwd(dx, null, null, null, null, dscores, x, null, router.w, null, null, 0, 0, 0, 1, this.#p);
  }
}

/** Rows [from, to) of what has a row for each token; the rest as it is. */
function chunkOf(s: Scope, on: Named<Tensor>, from: number, to: number): Named<Tensor> {
  const cut: Named<Tensor> = { ...on, x: (on.x as Tensor).slice(s, from, to) };
  if (on.scores) cut.scores = on.scores.slice(s, from, to);
  return cut;
}
function named<T>(parts: readonly Part[], values: readonly T[]): Named<T> {
  return Object.fromEntries(parts.map((p, i) => [p, values[i]])) as Named<T>;
}

function partsOf(w: MoeWeights, x: TfTensor, o: MoeOptions): Named<TfTensor> {
  const { hidden_size: D, num_local_experts: E, intermediate_size: F } = w.config;
  if (x.shape.length !== 2 || x.shape[1] !== D)
    throw new NativeError('shape_mismatch', `moe: x is [${x.shape.join(',')}], wanted [T,${D}]`);
  const parts: Named<TfTensor> = { x };
  if (o.scores) {
    requireShape('moe: scores', o.scores, [x.shape[0], E]);
    parts.scores = o.scores;
  }
  for (const [name, N, C] of [
    ['gateUp', 2 * F, D],
    ['down', D, F],
  ] as const) {
    const pair = o[name],
      bias = o[`${name}Bias`];
    if (pair) {
      requirePair(`moe: ${name}`, pair, [E], N, C);
      parts[`${name}A`] = pair.A;
      parts[`${name}B`] = pair.B;
    }
    if (bias) {
      requireShape(`moe: ${name}Bias`, bias, [E, N]);
      parts[`${name}Bias`] = bias;
    }
  }
  return parts;
}

/**
 * y[t] = Σ over the K experts of token t, weighted by the softmax of their scores, with gradients to x, the scores, the
 * pairs and the biases that are given.
 * @param x float32 [T,D], normed: what the layer's experts take
 * @returns float32 [T,D]: what they add to the residual stream
 * @throws {NativeError} shape_mismatch, bad_dtype
 */
export function moe(
  memory: TfMemory,
  precision: keyof typeof PRECISION,
  weights: MoeWeights,
  x: TfTensor,
  options: MoeOptions,
): TfTensor {
  const { tf } = memory;
  const given = partsOf(weights, x, options);
  const parts = PARTS.filter((p) => given[p] !== undefined);
  const inputs = parts.map((p) => given[p] as TfTensor);
  const K = weights.config.num_experts_per_tok,
    T = x.shape[0] ?? 0;
  const layer = new Moe(weights, precision, {
    gateUp: options.gateUp?.scale ?? 1,
    down: options.down?.scale ?? 1,
  });
  const rank = options.down?.A.shape[1];
  const eachChunk = (work: (s: Scope, from: number, to: number) => void): void => {
    for (let from = 0; from < T; from += MOE_CHUNK_TOKENS) {
      using s = new Scope('workspace');
      work(s, from, Math.min(T, from + MOE_CHUNK_TOKENS));
    }
  };

  const op = (...args: unknown[]): { value: TfTensor; gradFunc: (dy: TfTensor, saved: TfTensor[]) => TfTensor[] } => {
    const save = args.pop() as (saved: TfTensor[]) => void;
    const of = args as TfTensor[];
    const [value, h] = memory.run([x.shape, ...(rank ? [[T * K, rank]] : [])], of, (out, on) => {
      const [y, downH] = out as [Tensor, Tensor | undefined];
      const all = named(parts, on as Tensor[]);
      eachChunk((s, from, to) =>
        layer.forward(y.slice(s, from, to), downH?.slice(s, from * K, to * K) ?? null, chunkOf(s, all, from, to)),
      );
    });
    save([...of, ...(h ? [h] : [])]);
    return {
      value: value as TfTensor,
      gradFunc: (dy, saved) =>
        memory.run(
          parts.map((p) => (given[p] as TfTensor).shape),
          [dy, ...saved],
          (out, [g, ...on]) => {
            const [all, d] = [named(parts, on as Tensor[]), named(parts, out)];
            const downH = rank ? (on[parts.length] as Tensor) : null;
            eachChunk((s, from, to) =>
              layer.backward(
                chunkOf(s, d, from, to),
                (g as Tensor).slice(s, from, to),
                downH?.slice(s, from * K, to * K) ?? null,
                chunkOf(s, all, from, to),
              ),
            );
          },
        ),
    };
  };
  return tf.customGrad(op as unknown as Parameters<typeof tf.customGrad>[0])(...inputs);
}
