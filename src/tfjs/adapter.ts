// Pairs that tfjs trained, as an adapter in PEFT's form: what train, generate, eval and export take.
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { ConfigError } from '../base/errors.js';
import { writeFolderAtomic } from '../base/files.js';
import { createAdapter } from '../lora/adapter.js';
import { writePeft } from '../lora/peft.js';
import { type AdapterSpec, isExpertTarget, type LayerTargets, matrixShape } from '../lora/spec.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { requirePair, type TfPair } from './lora.js';

/** By layer, then by matrix. */
export type TfPairs = Readonly<Record<number, Readonly<Partial<Record<LoraTarget, TfPair>>>>>;

function specOf(config: ModelConfig, pairs: TfPairs): AdapterSpec {
  const wrong = Object.keys(pairs).find((i) => !(Number(i) < config.num_hidden_layers));
  if (wrong !== undefined)
    throw new ConfigError('no_such_layer', `layer ${wrong}: the model has layers 0…${config.num_hidden_layers - 1}`);
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i): LayerTargets => {
    const of = Object.entries(pairs[i] ?? {}) as [LoraTarget, TfPair][];
    return Object.fromEntries(
      of.map(([target, pair]) => {
        const experts = isExpertTarget(target) ? [config.num_local_experts] : [];
        const { inputs, outputs } = matrixShape(config, target);
        requirePair(`layer ${i} ${target}`, pair, experts, outputs, inputs);
        const rank = pair.A.shape[experts.length] ?? 0;
        return [target, { rank, alpha: (pair.scale ?? 1) * rank }];
      }),
    );
  });
  return { layers, rsLora: false, dropout: 0 };
}

/**
 * Writes the folder whole or not at all.
 * @throws {NativeError} shape_mismatch · {ConfigError} no_such_layer, no_target, output_unwritable
 */
export async function saveAdapter(
  config: ModelConfig,
  folder: string,
  pairs: TfPairs,
  about: { readonly baseModel: string; readonly about: string },
): Promise<void> {
  const spec = specOf(config, pairs);
  if (spec.layers.every((targets) => Object.keys(targets).length === 0))
    throw new ConfigError('no_target', `${folder}: no pair was given; there is nothing to save`);
  const adapter = createAdapter(config, spec, { initialise: false });
  try {
    adapter.entries.forEach(({ layer, target, part }, i) => {
      const tensor = pairs[layer]?.[target]?.[part] as TfTensor;
      adapter.tensors[i]?.write(tensor.dataSync<'float32'>());
    });
    await writeFolderAtomic(folder, (to) => writePeft(adapter, to, about));
  } finally {
    adapter.close();
  }
}
