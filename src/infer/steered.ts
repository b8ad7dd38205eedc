// A row's token taken again, as it is wished.
import { type ModelWeights, placeOf } from '../model/types.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { Candidate } from './sequence.js';
import { type State, valuesOf } from './state.js';
import { largest, type Wish } from './steer.js';

/** Logits of one row, read and written by `steered`: kept for the next, as a vocabulary's row is large. */
export class RowOfLogits {
  #values = new Float32Array(0);
  read(row: Tensor): Float32Array {
    if (this.#values.length !== row.numel) this.#values = new Float32Array(row.numel);
    const { buffer, byteLength } = this.#values;
    row.readInto(new Uint8Array(buffer, 0, byteLength));
    return this.#values;
  }
}

/**
 * The token that a row gives at temperature 0 with what is added to it, as the op would take it: that which it gave by
 * itself leads all that nothing is added to, as long as nothing is taken from it. null: another may lead.
 */
export function greedily(raw: Float32Array, add: ReadonlyMap<number, number>, plain: number): number | null {
  let best = plain,
    most = Math.fround(raw[plain]! + (add.get(plain) ?? 0));
  if (!(most >= raw[plain]!) || !Number.isFinite(most)) return null;
  for (const [token, by] of add) {
    const x = Math.fround(raw[token]! + by);
    if (!Number.isFinite(x) || x < most || (x === most && token >= best)) continue;
    best = token;
    most = x;
  }
  return best;
}

/**
 * @param rows logits, of which it is row `b`; what is added is added there
 * @param plain what the row gave by itself
 */
export function steered(
  model: ModelWeights,
  state: State,
  { mask, add, top }: Wish,
  rows: Tensor,
  b: number,
  plain: Candidate,
  kept: RowOfLogits,
): Candidate & { readonly top: readonly Candidate[] } {
  using s = new Scope('workspace', placeOf(model));
  const row = rows.slice(s, b, b + 1);
  const raw = add || top > 0 ? kept.read(row) : null;
  // log Σ exp of the row, as the op found it for the token that it took.
  const normal = raw ? (raw[plain.token] as number) - plain.logprob : 0;
  const told = raw ? largest(raw, top).map((t) => ({ token: t, logprob: Math.fround(raw[t]! - normal) })) : [];
  if (!mask && !add) return { ...plain, top: told };
  if (raw && add && !mask && state.options.sampling.temperature === 0) {
    const token = greedily(raw, add, plain.token);
    if (token !== null) return { token, logprob: Math.fround(raw[token]! - normal), top: told };
  }
  const { params, u } = valuesOf([{ state, ahead: 0 }]);
  const own = new Map<number, number>();
  if (raw && add) {
    for (const [token, by] of add) {
      if (token >= raw.length) continue;
      own.set(token, raw[token]!);
      raw[token] = raw[token]! + by;
    }
    row.write(raw);
  }
  const token = s.empty('i32', [1]),
    logprob = s.empty('f32', [1]);
  ops.sample(token, logprob, row, s.from(params, [1, 4]), s.from(u), mask ? s.from(mask, [1, mask.length]) : null);
  const taken = (token.read() as Int32Array)[0] as number;
  if (taken === plain.token) return { ...plain, top: told };
  const logit = own.get(taken) ?? raw?.[taken];
  return {
    token: taken,
    logprob: raw && add ? Math.fround(logit! - normal) : (logprob.toFloat32()[0] as number),
    top: told,
  };
}
