// A row's token taken again, as it is wished.
import { type ModelWeights, placeOf } from '../model/types.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { Candidate } from './sequence.js';
import { type State, valuesOf } from './state.js';
import { largest, type Wish } from './steer.js';

/** @param rows logits, of which it is row `b` · @param plain what the row gave by itself */
export function steered(
  model: ModelWeights,
  state: State,
  { mask, add, top }: Wish,
  rows: Tensor,
  b: number,
  plain: Candidate,
): Candidate & { readonly top: readonly Candidate[] } {
  using s = new Scope('workspace', placeOf(model));
  const row = rows.slice(s, b, b + 1);
  const raw = add || top > 0 ? row.toFloat32() : null;
  // log Σ exp of the row, as the op found it for the token that it took.
  const normal = raw ? (raw[plain.token] as number) - plain.logprob : 0;
  const told = raw ? largest(raw, top).map((t) => ({ token: t, logprob: Math.fround(raw[t]! - normal) })) : [];
  if (!mask && !add) return { ...plain, top: told };
  const { params, u } = valuesOf([{ state, ahead: 0 }]);
  let from = row;
  if (raw && add) {
    const changed = raw.slice();
    for (const [token, by] of add) if (token < changed.length) changed[token] = changed[token]! + by;
    from = s.from(changed, [1, changed.length]);
  }
  const token = s.empty('i32', [1]),
    logprob = s.empty('f32', [1]);
  ops.sample(token, logprob, from, s.from(params, [1, 4]), s.from(u), mask ? s.from(mask, [1, mask.length]) : null);
  const taken = (token.read() as Int32Array)[0] as number;
  if (taken === plain.token) return { ...plain, top: told };
  const own = raw && add ? Math.fround(raw[taken]! - normal) : (logprob.toFloat32()[0] as number);
  return { token: taken, logprob: own, top: told };
}
