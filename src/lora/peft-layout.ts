// Where PEFT's tensors lie and how they map onto A [E,R,C] and B [E,N,R]. Pure arithmetic; facts: one linear pair is as
// ours, experts are stacked: A rows are expert-major (row e·r+j), B columns rank-major (column j·E+e).

import { CheckpointError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { isExpertTarget, matrixShape } from './spec.js';

export type Part = 'A' | 'B';
/**
 * What a pair hangs on. `experts` and `experts.base_layer` hold all experts of a matrix, stacked; which of the two
 * matrices tells their config, their siblings or their shapes. gate_up, down, gate and up are one expert's.
 */
export type Slot =
  | 'q'
  | 'k'
  | 'v'
  | 'o'
  | 'router'
  | 'experts'
  | 'experts.base_layer'
  | 'gate_up'
  | 'down'
  | 'gate'
  | 'up';
export interface PeftKey {
  readonly layer: number;
  /** The module in the layer, as peft names it: `self_attn.q_proj`, `mlp.experts.gate_up_projs.3`. */
  readonly module: string;
  readonly slot: Slot;
  /** Of a module that is one expert's. */
  readonly expert: number | null;
  readonly part: Part;
  /** The adapter's name, where it stayed in the key. */
  readonly name: string | null;
}

const PREFIX = 'base_model.model.model.layers.';
/**
 * Modules a pair may hang on: those of the released layout, a router as a linear of its own and a linear for each
 * expert (Unsloth's 4-bit form: `gate_up_projs.E`, `down_projs.E`), experts by number with gate and up apart (vLLM's
 * and SGLang's 2-D form).
 */
const MODULE = [
  String.raw`self_attn\.(?<linear>[qkvo])_proj`,
  String.raw`mlp\.(?:(?<router>router)(?:\.linear)?|(?<stacked>experts\.base_layer|experts))`,
  String.raw`mlp\.experts\.(?<list>gate_up|down)_projs\.(?<listed>\d{1,4})`,
  String.raw`mlp\.experts\.(?<numbered>\d{1,4})\.(?<matrix>gate_up|gate|up|down)_proj`,
].join('|');
/** The prefix is peft's, or what is left of it where a state_dict was saved from further inside. */
const KEY = new RegExp(
  String.raw`^(?:base_model\.model\.)?(?:model\.)?layers\.(?<layer>\d{1,4})\.(?<module>${MODULE})` +
    String.raw`\.lora_(?<part>[AB])(?:\.(?<name>(?!weight$)[^.]{1,64}))?\.weight$`,
);

/** @returns null for a key that names nothing an adapter of gpt-oss can hold */
export function parsePeftKey(key: string): PeftKey | null {
  const g = KEY.exec(key)?.groups;
  if (!g) return null;
  const expert = g.listed ?? g.numbered;
  return {
    layer: Number(g.layer),
    module: g.module ?? '',
    slot: (g.linear ?? g.router ?? g.stacked ?? g.list ?? g.matrix) as Slot,
    expert: expert === undefined ? null : Number(expert),
    part: g.part as Part,
    name: g.name ?? null,
  };
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
