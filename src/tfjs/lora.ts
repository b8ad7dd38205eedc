// A low-rank pair as the bridge takes it, and how it is checked.
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { NativeError } from '../base/errors.js';

/** y += scale·B·(A·x). Of a dense matrix A [R,C], B [N,R]; of experts A [E,R,C], B [E,N,R]; float32. */
export interface TfPair {
  readonly A: TfTensor;
  readonly B: TfTensor;
  /** alpha / R, or alpha / √R; default 1. */
  readonly scale?: number;
}

/** @throws {NativeError} shape_mismatch: names the part, what it has and what it must have */
export function requireShape(name: string, tensor: TfTensor, wanted: readonly (number | string)[]): void {
  const fits =
    tensor.shape.length === wanted.length && wanted.every((w, i) => typeof w === 'string' || tensor.shape[i] === w);
  if (!fits)
    throw new NativeError('shape_mismatch', `${name} is [${tensor.shape.join(',')}], wanted [${wanted.join(',')}]`);
}

/** @param of leading dimensions: [] of a dense matrix, [E] of experts */
export function requirePair(name: string, { A, B }: TfPair, of: readonly number[], N: number, C: number): void {
  requireShape(`${name}.A`, A, [...of, 'R', C]);
  requireShape(`${name}.B`, B, [...of, N, A.shape[of.length] ?? 0]);
}
