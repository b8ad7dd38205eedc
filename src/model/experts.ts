// Routing and products of experts, each said once: gpt-oss.ts runs them for its layers, temper-oss/tfjs for one layer
// alone. Rows p are the P = t·K routed pairs of t tokens, sorted by expert.
import { ops, type Precision, type RowBits } from '../native/ops.js';
import type { Scope, Tensor } from '../native/tensor.js';
import type { ModelConfig } from './config.js';
import type { ExpertWeights, LinearGrads, LoraPair } from './types.js';

/** Weights f32 and ids i32 [t,K] of the experts of each token, and where their rows lie (op moe_plan). */
export interface Routing {
  readonly weights: Tensor;
  readonly ids: Tensor;
  readonly offsets: Tensor;
  readonly rowToken: Tensor;
  readonly slotRow: Tensor;
  readonly rowWeight: Tensor;
}
/** Of t tokens, to be filled. */
export function newRouting(s: Scope, config: ModelConfig, t: number): Routing {
  const { num_experts_per_tok: K, num_local_experts: E } = config;
  return {
    weights: s.empty('f32', [t, K]),
    ids: s.empty('i32', [t, K]),
    offsets: s.empty('i32', [E + 1]),
    rowToken: s.empty('i32', [t * K]),
    slotRow: s.empty('i32', [t, K]),
    rowWeight: s.empty('f32', [t * K]),
  };
}
/** @param scores f32 [t,E]: the logits of the router */
export function routed(s: Scope, config: ModelConfig, scores: Tensor): Routing {
  const r = newRouting(s, config, scores.rows);
  ops.topk_fwd(r.weights, r.ids, scores);
  ops.moe_plan(r.offsets, r.rowToken, r.slotRow, r.rowWeight, r.ids, r.weights);
  return r;
}
/**
 * Gradient of the scores, f32 [t,E], overwritten: ds = <dO·W2, a> + <dO, b2> through the softmax of those chosen.
 * @param rowDot f32 [P], of swiglu_bwd @param dy f32 [t,D], of the layer's output @param bias of the down projection
 */
export function scoresBackward(
  s: Scope,
  dscores: Tensor,
  rowDot: Tensor,
  dy: Tensor,
  bias: Tensor | null,
  { weights, ids, slotRow }: Routing,
): void {
  const dweights = s.empty('f32', weights.shape);
  ops.moe_weight_bwd(dweights, rowDot, dy, bias, ids, slotRow);
  ops.topk_bwd(dscores, dweights, weights, ids);
}

export type ExpertPair = Omit<LoraPair, 'dropout'>;
/** Row p of a product takes x[rows[p]]; null: x[p]. */
export interface ExpertInputs {
  readonly x: Tensor;
  readonly rows: Tensor | null;
  readonly offsets: Tensor;
}

/** y f32 [P,N] = x·Wᵀ + bias + scale·(x·Aᵀ)·Bᵀ, each row with the matrices of its expert; h f32 [P,R] gets x·Aᵀ. */
export function expertProduct(
  y: Tensor,
  h: Tensor | null,
  { x, rows, offsets }: ExpertInputs,
  { w, scales, bias, layout }: ExpertWeights,
  pair: ExpertPair | undefined,
  precision: Precision,
  byRow: RowBits = 0,
): void {
  const { A = null, B = null, scale = 0 } = pair ?? {};
  ops.grouped_linear_fwd(y, h, x, rows, offsets, w, scales, bias, A, B, scale, layout, precision, byRow);
}
/**
 * dx f32 [P,C] is overwritten, all else accumulates.
 * @param dy of row p it is dy[rows[p]]; weight f32 [P] is what the row was multiplied by afterwards
 * @param h as expertProduct left it
 */
export function expertProductBackward(
  dx: Tensor | null,
  g: Partial<LinearGrads> | undefined,
  dy: { readonly of: Tensor; readonly rows: Tensor | null; readonly weight: Tensor | null },
  { x, rows, offsets }: ExpertInputs,
  h: Tensor | null,
  { w, scales, layout }: ExpertWeights,
  pair: ExpertPair | undefined,
  precision: Precision,
): void {
  const { A = null, B = null, dA = null, dB = null, scale = 0 } = pair ?? {};
  ops.grouped_linear_bwd(
    dx,
    g?.w ?? null,
    g?.bias ?? null,
    dA,
    dB,
    dy.of,
    dy.rows,
    dy.weight,
    x,
    rows,
    h,
    offsets,
    w,
    scales,
    A,
    B,
    scale,
    layout,
    precision,
  );
}
