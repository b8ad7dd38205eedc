// What rounding may do to a model's result: measured on the model itself, so that no tolerance is typed in.
import type { LayerWeights, ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { Scope, type Tensor } from '../../src/native/tensor.js';
import { relativeError } from './golden.js';

/** Values of a bf16 or f32 tensor. */
function valuesOf(t: Tensor): Float32Array {
  using scope = new Scope();
  const exact = scope.empty('f32', t.shape);
  ops.cast(exact, t);
  return exact.toFloat32();
}

/** Unit roundoff of f32. */
const UNIT = 2 ** -24;
const DRAWS = 4;
/**
 * From the noise of `shaken` to a bound on the distance of two implementations. A layer rounds in ten places (q, k, v,
 * o, two products and a softmax of attention, router, gate_up, down), `shaken` moves two of them: √5; two
 * implementations: √2; the worst of all elements lies further out than that of a few draws: 2. Together 6.3.
 */
const REACH = 2 * Math.sqrt(5) * Math.sqrt(2);

/**
 * The model with its embedding and its norms' weights, and so whatever enters a matrix, moved by one rounding: a random
 * ±2⁻²⁴ of itself. Long sums are taken in blocks here as in PyTorch, so that their error stays near one rounding of the
 * result (Blanchard, Higham and Mary 2020, doi:10.1137/19M1257780).
 */
export function shaken(scope: Scope, model: ModelWeights, seed: number): ModelWeights {
  let state = seed;
  const shake = (t: Tensor): Tensor => {
    const values = valuesOf(t);
    for (let i = 0; i < values.length; i++) {
      state = (state * 48271) % 2147483647;
      values[i] = (values[i] ?? 0) * (1 + (state & 1 ? UNIT : -UNIT));
    }
    return scope.from(values, t.shape);
  };
  return {
    ...model,
    embed: shake(model.embed),
    norm: shake(model.norm),
    layers: model.layers.map(
      (l): LayerWeights => ({ ...l, inputNorm: shake(l.inputNorm), postNorm: shake(l.postNorm) }),
    ),
  };
}

/**
 * The largest relative distance that rounding explains between two f32 results of `run`.
 * @param run a result of a model, e.g. its logits or its gradients; each array is compared by itself
 * @param distance of one array to another, as the comparison itself takes it
 */
export function roundingBound(
  model: ModelWeights,
  run: (m: ModelWeights) => readonly Float32Array[],
  distance: (a: Float32Array, b: Float32Array) => number = relativeError,
): number {
  const plain = run(model);
  let noise = 0;
  for (let draw = 1; draw <= DRAWS; draw++) {
    using scope = new Scope();
    const moved = run(shaken(scope, model, 7919 * draw));
    for (const [i, values] of moved.entries())
      noise = Math.max(noise, distance(values, plain[i] ?? new Float32Array()));
  }
  return REACH * noise;
}

/** A broken twin: one norm of the last layer is off by one part in a thousand. */
export function broken(scope: Scope, model: ModelWeights): ModelWeights {
  const last = model.layers.length - 1;
  return {
    ...model,
    layers: model.layers.map((l, i) =>
      i === last
        ? {
            ...l,
            postNorm: scope.from(
              valuesOf(l.postNorm).map((x) => x * (1 + 1e-3)),
              l.postNorm.shape,
            ),
          }
        : l,
    ),
  };
}
