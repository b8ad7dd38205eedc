// A whole model as one GGUF file: which types its tensors have, its keys, its tensors.
import { ConfigError } from '../../base/errors.js';
import { loraScale } from '../../lora/spec.js';
import type { Checkpoint } from '../../model/checkpoint.js';
import type { ModelConfig } from '../../model/config.js';
import { smallFiles } from '../checkpoint-files.js';
import type { ExportSource } from '../format.js';
import { type ExpertsAs, modelKeys, type PlannedTensor, plannedTensors, requireLlamaFits } from './model.js';
import { type Pair, type TensorSource, tensorData } from './source.js';
import { tokenizerKeys } from './tokenizer.js';
import { tensorBytes } from './types.js';
import { type WriteGgufOptions, type Written, writeGguf } from './writer.js';

/** Weights as the checkpoint has them, or all of them f32: nothing is rounded, for proofs and small models. */
export type Precision = 'as stored' | 'f32';

interface Plan {
  readonly experts: ExpertsAs;
  readonly tensors: readonly PlannedTensor[];
}
export function planOf(base: Checkpoint, precision: Precision): Plan {
  const { config } = base;
  if (precision === 'f32') return { experts: 'f32', tensors: plannedTensors(config, 'F32', 'F32') };
  const dense = base.embed.dtype === 'f32' ? 'F32' : 'BF16';
  return base.experts === 'mxfp4'
    ? { experts: 'mxfp4', tensors: plannedTensors(config, dense, 'MXFP4') }
    : { experts: dense === 'F32' ? 'f32' : 'bf16', tensors: plannedTensors(config, dense, dense) };
}

/** Why llama.cpp would not compute this model, one line; null: it would. */
export function llamaRefuses(config: ModelConfig): string | null {
  try {
    requireLlamaFits(config);
    return null;
  } catch (e) {
    if (e instanceof ConfigError) return e.message;
    throw e;
  }
}

/** Bytes of the file, without its header. */
export const wholeBytes = (base: Checkpoint, precision: Precision): number =>
  planOf(base, precision).tensors.reduce((n, t) => n + tensorBytes(t), 0);

/** Pairs of the adapter, of which the last one read is kept: tensors of one matrix follow one another. */
function pairs({ adapter }: ExportSource): TensorSource['pair'] {
  let last: { readonly id: string; readonly pair: Pair } | undefined;
  return (layer, target) => {
    const found = adapter?.pair(layer, target);
    if (!adapter || !found) return undefined;
    const id = `${layer}.${target}`;
    if (last?.id !== id)
      last = { id, pair: { ...found.read(), rank: found.rank, scale: loraScale(found, adapter.spec.rsLora) } };
    return last.pair;
  };
}

/**
 * Writes base and adapter as one file.
 * @throws {ConfigError} format_unfit · {CheckpointError} tokenizer_…, bad_scale, not_finite · as writeGguf
 */
export async function writeWholeGguf(
  path: string,
  source: ExportSource,
  precision: Precision,
  options: WriteGgufOptions & Pick<TensorSource, 'survived'> = {},
): Promise<Written> {
  const { base, baseModel } = source;
  requireLlamaFits(base.config);
  const plan = planOf(base, precision);
  const keys = modelKeys(base.config, baseModel, plan.experts);
  for (const [key, value] of tokenizerKeys(smallFiles(source), base.dir, base.config.vocab_size)) keys.set(key, value);
  const from: TensorSource = {
    base,
    pair: pairs(source),
    throughMerge: source.adapter?.spec.mergeAware !== undefined,
    ...(options.survived ? { survived: options.survived } : {}),
  };
  const tensors = plan.tensors.map((t) => ({ ...t, data: () => tensorData(from, t) }));
  return await writeGguf(path, keys, tensors, options);
}
