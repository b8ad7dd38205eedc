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

type Distance = (a: Float32Array, b: Float32Array) => number;

/** A bound from the results of a model and of its shaken copies; each array is compared by itself. */
function boundFrom(
  plain: readonly Float32Array[],
  moved: readonly (readonly Float32Array[])[],
  distance: Distance = relativeError,
): number {
  return (
    REACH * Math.max(...moved.flatMap((m) => m.map((values, i) => distance(values, plain[i] ?? new Float32Array()))))
  );
}

/**
 * The largest relative distance that rounding explains between two f32 results of `run`.
 * @param run a result of a model, e.g. its logits or its gradients
 * @param distance of one array to another, as the comparison itself takes it
 */
export function roundingBound(
  model: ModelWeights,
  run: (m: ModelWeights) => readonly Float32Array[],
  distance?: Distance,
): number {
  const moved = Array.from({ length: DRAWS }, (_, draw) => {
    using scope = new Scope();
    return run(shaken(scope, model, 7919 * (draw + 1)));
  });
  return boundFrom(run(model), moved, distance);
}

/** The same for results that take their time: a bound for each array of `run`. */
export async function roundingBounds(
  model: ModelWeights,
  run: (m: ModelWeights) => Promise<readonly Float32Array[]>,
): Promise<number[]> {
  const moved: (readonly Float32Array[])[] = [];
  for (let draw = 1; draw <= DRAWS; draw++) {
    using scope = new Scope();
    moved.push(await run(shaken(scope, model, 7919 * draw)));
  }
  const plain = await run(model);
  return plain.map((values, i) =>
    boundFrom(
      [values],
      moved.map((m) => [m[i] ?? new Float32Array()]),
    ),
  );
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
