// Where PEFT's tensors lie and how they map onto A [E,R,C] and B [E,N,R]. Pure arithmetic; facts: one linear pair is as
// ours, experts are stacked: A rows are expert-major (row e·r+j), B columns rank-major (column j·E+e).

import { CheckpointError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { isExpertTarget, matrixShape } from './spec.js';

export type Part = 'A' | 'B';
/** Where a key puts a tensor; the expert wrappers tell which matrix they hold only together with their siblings. */
export interface PeftKey {
  readonly layer: number;
  readonly slot: 'q' | 'k' | 'v' | 'o' | 'router' | 'experts' | 'experts.base_layer';
  readonly part: Part;
}

const PREFIX = 'base_model.model.model.layers.';
const MATRIX = String.raw`(?:self_attn\.([qkvo])_proj|mlp\.(router|experts\.base_layer|experts))`;
const KEY = new RegExp(String.raw`^${PREFIX.replaceAll('.', '\\.')}(\d{1,4})\.${MATRIX}\.lora_([AB])\.weight$`);

/** @returns null for a key that names nothing an adapter of gpt-oss can hold */
export function parsePeftKey(key: string): PeftKey | null {
  const m = KEY.exec(key);
  return m ? { layer: Number(m[1]), slot: (m[2] ?? m[3]) as PeftKey['slot'], part: m[4] as Part } : null;
}

/**
 * Both expert matrices adapted: gate_up is the inner wrapper, under base_layer, because it is registered first in the
 * module.
 */
export function peftKey(layer: number, target: LoraTarget, part: Part, bothExperts: boolean): string {
  const where =
    target === 'router'
      ? 'mlp.router'
      : target === 'gateUp'
        ? bothExperts
          ? 'mlp.experts.base_layer'
          : 'mlp.experts'
        : target === 'down'
          ? 'mlp.experts'
          : `self_attn.${target}_proj`;
  return `${PREFIX}${layer}.${where}.lora_${part}.weight`;
}

/** Shape in the file, natural layout: A [r·E, C], B [N, r·E]. */
export function peftShape(
  config: ModelConfig,
  target: LoraTarget,
  part: Part,
  rank: number,
): readonly [number, number] {
  const { inputs, outputs } = matrixShape(config, target);
  const rows = rank * (isExpertTarget(target) ? config.num_local_experts : 1);
  return part === 'A' ? [rows, inputs] : [outputs, rows];
}

/** B [E, N, R] → [N, R·E] with column j·E+e. */
export function stackB(ours: Float32Array, experts: number, outputs: number, rank: number): Float32Array {
  const file = new Float32Array(ours.length);
  for (let e = 0; e < experts; e++)
    for (let o = 0; o < outputs; o++)
      for (let j = 0; j < rank; j++)
        file[o * rank * experts + j * experts + e] = ours[(e * outputs + o) * rank + j] ?? 0;
  return file;
}

/** The inverse of stackB. */
export function unstackB(file: Float32Array, experts: number, outputs: number, rank: number): Float32Array {
  const ours = new Float32Array(file.length);
  for (let e = 0; e < experts; e++)
    for (let o = 0; o < outputs; o++)
      for (let j = 0; j < rank; j++)
        ours[(e * outputs + o) * rank + j] = file[o * rank * experts + j * experts + e] ?? 0;
  return ours;
}

/**
 * The swapped layout (peft ≥ 0.19.1 on a transformers whose experts lack `is_transposed`): A [r·E, N] sits on the
 * outputs, B [C, r·E] on the inputs. Then ours: A[e,j,i] = B_file[i, j·E+e] and B[e,o,j] = A_file[e·r+j, o].
 */
export function unswap(
  fileA: Float32Array,
  fileB: Float32Array,
  experts: number,
  inputs: number,
  outputs: number,
  rank: number,
): { A: Float32Array; B: Float32Array } {
  const A = new Float32Array(experts * rank * inputs);
  const B = new Float32Array(experts * outputs * rank);
  for (let e = 0; e < experts; e++)
    for (let j = 0; j < rank; j++) {
      for (let i = 0; i < inputs; i++)
        A[(e * rank + j) * inputs + i] = fileB[i * rank * experts + j * experts + e] ?? 0;
      for (let o = 0; o < outputs; o++) B[(e * outputs + o) * rank + j] = fileA[(e * rank + j) * outputs + o] ?? 0;
    }
  return { A, B };
}

export type Orientation = 'natural' | 'swapped';

/** How a pair lies by its shapes alone: one orientation, both (a square matrix), or none. */
export function orientations(
  config: ModelConfig,
  target: LoraTarget,
  shapeA: readonly number[],
  shapeB: readonly number[],
): readonly Orientation[] {
  const { inputs, outputs } = matrixShape(config, target);
  const stacked = shapeA[0] ?? 0;
  const experts = isExpertTarget(target) ? config.num_local_experts : 1;
  if (shapeA.length !== 2 || shapeB.length !== 2 || stacked === 0 || stacked % experts !== 0 || shapeB[1] !== stacked)
    return [];
  const found: Orientation[] = [];
  if (shapeA[1] === inputs && shapeB[0] === outputs) found.push('natural');
  if (isExpertTarget(target) && shapeA[1] === outputs && shapeB[0] === inputs) found.push('swapped');
  return found;
}

/**
 * Which expert matrix a lone `mlp.experts` wrapper holds: what the config targets; if that does not say, what the
 * shapes allow.
 * @throws {CheckpointError} neither says
 */
export function loneExpertTarget(
  config: ModelConfig,
  targeted: readonly LoraTarget[],
  shapeA: readonly number[],
  shapeB: readonly number[],
  where: string,
): LoraTarget {
  if (targeted.length === 1 && targeted[0]) return targeted[0];
  const fits = (['gateUp', 'down'] as const).filter((t) => orientations(config, t, shapeA, shapeB).length > 0);
  if (fits.length === 1 && fits[0]) return fits[0];
  throw new CheckpointError(
    'adapter_ambiguous',
    `${where}: one expert wrapper of shapes [${shapeA.join(',')}] and [${shapeB.join(',')}] ` +
      `fits ${fits.length ? 'both expert matrices' : 'neither expert matrix'}; name the matrix ` +
      'in target_parameters',
    { where },
  );
}
