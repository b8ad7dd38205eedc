// A frozen dense matrix with a low-rank pair and a bias, as one differentiable op of tfjs.
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { NativeError } from '../base/errors.js';
import { ops, PRECISION } from '../native/ops.js';
import type { Scope, Tensor } from '../native/tensor.js';
import { requirePair, requireShape, type TfPair } from './lora.js';
import type { TfMemory } from './memory.js';

export interface LinearOptions {
  readonly lora?: TfPair | null;
  /** [N], trained; null or absent: the frozen one, where there is one. */
  readonly bias?: TfTensor | null;
}
/** W wf [N,C] and its bias wf [N], of a checkpoint; or W as a tfjs tensor, float32 [N,C], which is not trained. */
export interface FrozenMatrix {
  readonly w: Tensor | TfTensor;
  readonly bias: Tensor | null;
}
const isNative = (t: Tensor | TfTensor): t is Tensor => 'handle' in t;

/**
 * y = x·Wᵀ + bias + scale·(x·Aᵀ)·Bᵀ, with gradients to x, A, B and the bias that is given.
 * @param x float32 [..., C]
 * @returns float32 [..., N]
 * @throws {NativeError} shape_mismatch, bad_dtype
 */
export function linear(
  memory: TfMemory,
  precision: keyof typeof PRECISION,
  x: TfTensor,
  frozen: FrozenMatrix,
  { lora = null, bias = null }: LinearOptions,
): TfTensor {
  const { tf } = memory;
  const [N = 0, C = 0] = frozen.w.shape;
  if (frozen.w.shape.length !== 2 || x.shape.at(-1) !== C)
    throw new NativeError(
      'shape_mismatch',
      `linear: x is [${x.shape.join(',')}], the matrix [${frozen.w.shape.join(',')}]; wanted x [...,C] and W [N,C]`,
    );
  if (lora) requirePair('linear: lora', lora, [], N, C);
  if (bias) requireShape('linear: bias', bias, [N]);
  const T = x.size / C;
  const R = lora?.A.shape[0] ?? 0;
  const scale = lora?.scale ?? 1;
  const weight = isNative(frozen.w) ? null : frozen.w;
  const flat = (t: Tensor | null | undefined, s: Scope, n: number): Tensor | null => t?.view(s, [T, n]) ?? null;

  type Args = [...TfTensor[], (saved: TfTensor[]) => void];
  const op = (...args: unknown[]): { value: TfTensor; gradFunc: (dy: TfTensor, saved: TfTensor[]) => TfTensor[] } => {
    const save = args.pop() as Args[number] as (saved: TfTensor[]) => void;
    const [xt, ...rest] = args as TfTensor[];
    const [At, Bt] = lora ? rest : [];
    const bt = bias ? rest.at(-1) : undefined;
    const shapes = [[...x.shape.slice(0, -1), N], ...(lora ? [[T, R]] : [])];
    const [value, h] = memory.run(
      shapes,
      [xt as TfTensor, weight, At ?? null, Bt ?? null, bt ?? null],
      (out, on, s) => {
        const [xn, w, A, B, b] = on;
        ops.linear_fwd(
          flat(out[0], s, N) as Tensor,
          out[1] ?? null,
          flat(xn, s, C) as Tensor,
          w ?? (frozen.w as Tensor),
          b ?? frozen.bias,
          A ?? null,
          B ?? null,
          scale,
          0,
          0,
          PRECISION[precision],
          0,
        );
      },
    );
    save([
      xt as TfTensor,
      ...(weight ? [weight] : []),
      ...(lora ? [At as TfTensor, Bt as TfTensor, h as TfTensor] : []),
    ]);
    return {
      value: value as TfTensor,
      gradFunc: (dy, saved) => {
        const [x0, ...kept] = saved;
        const w0 = weight ? (kept.shift() as TfTensor) : null;
        const [A0, B0, h0] = kept;
        const grads = [x.shape, ...(lora ? [lora.A.shape, lora.B.shape] : []), ...(bias ? [bias.shape] : [])];
        const inputs = [dy, x0 as TfTensor, w0, A0 ?? null, B0 ?? null, h0 ?? null];
        return memory.run(grads, inputs, (out, on, s) => {
          const [g, xn, w, A, B, hn] = on;
          const [dA, dB] = lora ? [out[1] as Tensor, out[2] as Tensor] : [null, null];
          ops.linear_bwd(
            flat(out[0], s, C),
            null,
            bias ? (out.at(-1) as Tensor) : null,
            dA,
            dB,
            flat(g, s, N) as Tensor,
            flat(xn, s, C) as Tensor,
            hn ?? null,
            w ?? (frozen.w as Tensor),
            A ?? null,
            B ?? null,
            scale,
            0,
            0,
            0,
            PRECISION[precision],
          );
        });
      },
    };
  };
  const run = tf.customGrad(op as unknown as Parameters<typeof tf.customGrad>[0]);
  return run(x, ...(lora ? [lora.A, lora.B] : []), ...(bias ? [bias] : []));
}
