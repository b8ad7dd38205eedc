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
