// The moments of AdamW: f32, or 8-bit codes with a scale to each block of 256 elements (arXiv:2110.02861).
import type { Scope, Tensor } from '../native/tensor.js';
import type { Recipe } from '../recipe/schema.js';

export type OptimizerName = Recipe['train']['optimizer']['name'];

/** Elements that share a scale. */
const BLOCK = 256;
/** Zeros at the start. */
export interface Moments {
  /** f32 [P], or u8 [P] beside the scales. */
  readonly m: Tensor;
  readonly v: Tensor;
  /** f32 [⌈P/256⌉], of codes. */
  readonly mScales?: Tensor;
  readonly vScales?: Tensor;
}
export function createMoments(name: OptimizerName, scope: Scope, params: Tensor): Moments {
  if (name === 'adamw') return { m: scope.zeros('f32', params.shape), v: scope.zeros('f32', params.shape) };
  const blocks = [Math.ceil(params.numel / BLOCK)];
  return {
    m: scope.zeros('u8', params.shape),
    v: scope.zeros('u8', params.shape),
    mScales: scope.zeros('f32', blocks),
    vScales: scope.zeros('f32', blocks),
  };
}
/** Bytes that both moments of so many parameters take. */
export const momentBytes = (name: OptimizerName, parameters: number): number =>
  name === 'adamw' ? 8 * parameters : 2 * (parameters + 4 * Math.ceil(parameters / BLOCK));
