// An adapter with more room: the same change of the base, and pairs beside it that change nothing yet. An attack begins
// there (temper gate probe), on an adapter and on none alike.
import type { ModelConfig } from '../model/config.js';
import type { Tensor } from '../native/tensor.js';
import { createAdapter } from './adapter.js';
import { type PeftMeta, writePeft } from './peft.js';
import type { PeftFile } from './peft-file.js';
import { type AdapterSpec, isExpertTarget, type LayerTargets, matrixShape, type TargetSpec } from './spec.js';

/** The same scales with `extra` more of rank in every pair. */
export function widenedSpec({ layers, rsLora, ...rest }: AdapterSpec, extra: number): AdapterSpec {
  const widened = ({ rank, alpha }: TargetSpec): TargetSpec => {
    const times = (rank + extra) / rank;
    return { rank: rank + extra, alpha: alpha * (rsLora ? Math.sqrt(times) : times) };
  };
  const all = layers.map(
    (targets): LayerTargets => Object.fromEntries(Object.entries(targets).map(([name, t]) => [name, widened(t)])),
  );
  return { ...rest, layers: all, rsLora };
}

/** Copies rows of `from` [E·rows, was] to the beginnings of those of `to` [E·rows, is]. */
function copyRows(to: Float32Array, from: Float32Array, was: number, is: number): void {
  for (let row = 0; row * was < from.length; row++) to.set(from.subarray(row * was, (row + 1) * was), row * is);
}

export interface WidenOptions {
  readonly config: ModelConfig;
  /** What it sits on. */
  readonly spec: AdapterSpec;
  /** Whose change it makes; null: none. */
  readonly from: PeftFile | null;
  /** Rank that is added to every pair. */
  readonly extra: number;
  /** Of what is added. */
  readonly seed: number;
}
/** Writes it as a PEFT folder. @throws {CheckpointError} not_finite */
export async function writeWidened(options: WidenOptions, folder: string, meta: PeftMeta): Promise<void> {
  const { config, spec, from, extra, seed } = options;
  const adapter = createAdapter(config, widenedSpec(spec, extra), { seed });
  try {
    for (const [i, { layer, target, part, shape }] of adapter.entries.entries()) {
      const pair = from?.pair(layer, target);
      if (!pair) continue;
      const given = pair.read()[part];
      const values = (adapter.tensors[i] as Tensor).toFloat32();
      const { inputs } = matrixShape(config, target);
      const experts = isExpertTarget(target) ? (shape[0] as number) : 1;
      // A [E, R, C]: the first rows of each expert; B [E, N, R]: the first columns of each row.
      if (part === 'A') copyRows(values, given, given.length / experts, (pair.rank + extra) * inputs);
      else copyRows(values, given, pair.rank, pair.rank + extra);
      (adapter.tensors[i] as Tensor).write(values);
    }
    await writePeft(adapter, folder, meta);
  } finally {
    adapter.close();
  }
}
