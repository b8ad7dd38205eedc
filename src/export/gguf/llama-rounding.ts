// What llama.cpp's CPU backend makes of the inputs of a product, by the type of its matrix: bf16 beside bf16, and
// beside MXFP4 its Q8_0, 8 bits in groups of 32 with one scale in f16. Sums are f32 in both. Facts: ggml-cpu's table of
// types (vec_dot_type) and quantize_row_q8_0.
import type { ExpertWeights, InputRounding, LayerWeights, LinearWeights, ModelWeights } from '../../model/types.js';
import { ops } from '../../native/ops.js';
import type { Tensor } from '../../native/tensor.js';

const GROUP = 32;
const MOST = 127;

/** The nearest f16 of a positive number below 65,504; ties to even. */
export function f16(x: number): number {
  if (x === 0) return 0;
  const unit = 2 ** (Math.max(Math.floor(Math.log2(x)), -14) - 10),
    n = x / unit,
    low = Math.floor(n),
    rest = n - low;
  return (rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low) * unit;
}

/** Values as Q8_0 holds them. @param x rows of whole groups, one after another */
export function q8Values(x: Float32Array): Float32Array {
  const out = new Float32Array(x.length);
  for (let from = 0; from < x.length; from += GROUP) {
    const group = x.subarray(from, from + GROUP);
    const most = group.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    if (most === 0) continue;
    const inverse = Math.fround(MOST / most),
      scale = f16(Math.fround(most / MOST));
    group.forEach((v, i) => {
      const code = Math.round(Math.fround(Math.abs(v) * inverse));
      out[from + i] = Math.sign(v) * code * scale;
    });
  }
  return out;
}

const toQ8: InputRounding = (scope, x) => scope.empty('f32', x.shape).write(q8Values(x.toFloat32()));
const toBf16: InputRounding = (scope, x) => {
  const [half, out] = [scope.empty('bf16', x.shape), scope.empty('f32', x.shape)];
  ops.cast(half, x);
  ops.cast(out, half);
  return out;
};
const roundingFor = (w: Tensor, mxfp4: boolean): { readonly inputs?: InputRounding } =>
  mxfp4 ? { inputs: toQ8 } : w.dtype === 'bf16' ? { inputs: toBf16 } : {};

/**
 * The model with inputs of its products rounded so. The router is f32 in a GGUF file, whatever it is here. A pair of an
 * adapter gets the rounded inputs too, where llama.cpp gives it the plain ones.
 */
export function asLlamaRounds(model: ModelWeights): ModelWeights {
  const linear = (w: LinearWeights): LinearWeights => ({ ...w, ...roundingFor(w.w, false) }),
    experts = (w: ExpertWeights): ExpertWeights => ({ ...w, ...roundingFor(w.w, w.scales !== null) });
  const layers = model.layers.map(
    (layer): LayerWeights => ({
      inputNorm: layer.inputNorm,
      q: linear(layer.q),
      k: linear(layer.k),
      v: linear(layer.v),
      o: linear(layer.o),
      sinks: layer.sinks,
      postNorm: layer.postNorm,
      router: layer.router,
      // Read when they are asked for.
      get gateUp() {
        return experts(layer.gateUp);
      },
      get down() {
        return experts(layer.down);
      },
      window: layer.window,
      ...(layer.verify ? { verify: layer.verify } : {}),
    }),
  );
  const { inputs: headInputs } = roundingFor(model.head, false);
  return { ...model, layers, ...(headInputs ? { headInputs } : {}) };
}
