// The ops, typed. Contracts (formula, shapes, dtypes, aliasing, what accumulates): native/include/temper/ops.h, same
// names in snake_case.

import { NativeError } from '../base/errors.js';
import { lazy } from '../base/lazy.js';
import { addon, mapNativeError } from './addon.js';
import type { Tensor } from './tensor.js';

type N = Tensor | null;
/** 0 = f32 products, 1 = bf16 products with f32 accumulation. */
export type Precision = 0 | 1;
export const PRECISION = { f32: 0, bf16: 1 } as const satisfies Record<string, Precision>;
/** 0 = MXFP4 blocks + scales, 1 = dense [E, N, C], 2 = dense [E, C, N] (Hugging Face's bf16 files). */
export type ExpertLayout = 0 | 1 | 2;

export interface Ops {
  embedding_fwd(y: Tensor, table: Tensor, ids: Tensor): void;
  embedding_bwd(dtable: Tensor, dy: Tensor, ids: Tensor): void;
  rmsnorm_fwd(y: Tensor, rstd: Tensor, sum: N, x: Tensor, residual: N, w: Tensor, eps: number): void;
  rmsnorm_bwd(dx: Tensor, dw: N, dy: Tensor, dres: N, x: Tensor, w: Tensor, rstd: Tensor): void;
  rope_table(cos: Tensor, sin: Tensor, positions: Tensor, invFreq: Tensor, concentration: number): void;
  rope(x: Tensor, cos: Tensor, sin: Tensor, heads: number, direction: 1 | -1): void;
  linear_fwd(
    y: Tensor,
    h: N,
    x: Tensor,
    w: Tensor,
    bias: N,
    A: N,
    B: N,
    scale: number,
    dropout: number,
    seed: number,
    precision: Precision,
  ): void;
  linear_bwd(
    dx: N,
    dw: N,
    dbias: N,
    dA: N,
    dB: N,
    dy: Tensor,
    x: Tensor,
    h: N,
    w: Tensor,
    A: N,
    B: N,
    scale: number,
    dropout: number,
    seed: number,
    accumulateDx: 0 | 1,
    precision: Precision,
  ): void;
  q8_quantize(q: Tensor, scales: Tensor, w: Tensor): void;
  linear_q8_fwd(
    y: Tensor,
    h: N,
    x: Tensor,
    q: Tensor,
    scales: Tensor,
    bias: N,
    A: N,
    B: N,
    scale: number,
    precision: Precision,
  ): void;
  linear_cross_entropy(
    nll: Tensor,
    dx: N,
    dw: N,
    x: Tensor,
    w: Tensor,
    targets: Tensor,
    weights: N,
    precision: Precision,
  ): void;
  attention_fwd(
    o: Tensor,
    lse: N,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: N,
    qStart: Tensor,
    kStart: Tensor,
    kLen: Tensor,
    window: number,
    ring: number,
    scale: number,
    precision: Precision,
  ): void;
  attention_bwd(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dsinks: N,
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    sinks: N,
    qStart: Tensor,
    kStart: Tensor,
    kLen: Tensor,
    window: number,
    scale: number,
    precision: Precision,
  ): void;
  topk_fwd(weights: Tensor, ids: Tensor, logits: Tensor): void;
  topk_bwd(dlogits: Tensor, dweights: Tensor, weights: Tensor, ids: Tensor): void;
  moe_plan(offsets: Tensor, rowToken: Tensor, slotRow: Tensor, rowWeight: Tensor, ids: Tensor, weights: Tensor): void;
  grouped_linear_fwd(
    y: Tensor,
    h: N,
    x: Tensor,
    rows: N,
    offsets: Tensor,
    w: Tensor,
    scales: N,
    bias: N,
    A: N,
    B: N,
    scale: number,
    layout: ExpertLayout,
    precision: Precision,
  ): void;
  grouped_linear_bwd(
    dx: N,
    dw: N,
    dbias: N,
    dA: N,
    dB: N,
    dy: Tensor,
    dyRows: N,
    rowWeight: N,
    x: Tensor,
    xRows: N,
    h: N,
    offsets: Tensor,
    w: Tensor,
    scales: N,
    A: N,
    B: N,
    scale: number,
    layout: ExpertLayout,
    precision: Precision,
  ): void;
  swiglu_fwd(a: Tensor, z: Tensor, alpha: number, limit: number): void;
  swiglu_bwd(dz: Tensor, rowDot: N, da: Tensor, z: Tensor, rowWeight: N, alpha: number, limit: number): void;
  moe_combine(out: Tensor, y: Tensor, weights: N, slotRow: Tensor, accumulate: 0 | 1): void;
  moe_weight_bwd(dweights: Tensor, rowDot: Tensor, dout: Tensor, bias: N, ids: Tensor, slotRow: Tensor): void;
  adamw(
    p: Tensor,
    m: Tensor,
    v: Tensor,
    g: Tensor,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
    gradScale: number,
  ): void;
  sum_squares(out: Tensor, x: Tensor): void;
  gather_rows(dst: Tensor, src: Tensor, rows: Tensor): void;
  scatter_rows(dst: Tensor, src: Tensor, rows: Tensor): void;
  add(dst: Tensor, src: Tensor): void;
  cast(dst: Tensor, src: Tensor): void;
  fill(dst: Tensor, value: number): void;
  mxfp4_quantize(blocks: Tensor, scales: Tensor, w: Tensor): void;
  mxfp4_dequantize(w: Tensor, blocks: Tensor, scales: Tensor): void;
  random_uniform(dst: Tensor, seed: number, low: number, high: number): void;
  random_normal(dst: Tensor, seed: number, scale: number): void;
  random_bytes(dst: Tensor, seed: number, low: number, high: number): void;
  sample(tokens: Tensor, logprobs: Tensor, logits: Tensor, params: Tensor, u: Tensor, mask: N): void;
}

function bind(name: string, id: number): (...a: (N | number)[]) => void {
  const block = addon.args;
  const arity = addon.opArity[id] ?? 0;
  return (...a) => {
    if (a.length !== arity)
      throw new NativeError('bad_argument', `${name}: got ${a.length} arguments, wanted ${arity}`, { op: name });
    for (let i = 0; i < arity; i++) {
      const v = a[i];
      block[i] = v === null || v === undefined ? 0 : typeof v === 'number' ? v : v.handle;
    }
    try {
      addon.call(id);
    } catch (e) {
      throw mapNativeError(e, name);
    }
  };
}

/** Every op of the table, by its name there. */
export const ops: Ops = lazy(
  () => Object.fromEntries(addon.opNames.map((name, id) => [name, bind(name, id)])) as unknown as Ops,
);
