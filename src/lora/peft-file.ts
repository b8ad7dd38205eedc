// A PEFT adapter's folder, open: what it adapts is known and checked, its tensors are read pair by pair when they are
// asked for. So what needs one layer at a time, a merge or another format, holds one pair and not the adapter.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { hubHint } from '../base/hub-hint.js';
import { readJsonFile } from '../base/json-file.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { checkPeftConfig, type PeftConfig, peftName } from './peft-config.js';
import { foreignAdapter } from './peft-foreign.js';
import type { Orientation } from './peft-layout.js';
import { CONFIG_FILE, TENSOR_FILE } from './peft-names.js';
import { pairsOf } from './peft-pairs.js';
import type { PeftPair } from './peft-slots.js';
import { type AdapterSpec, LORA_TARGETS, loraScale, MERGES, type MergeAware, type TargetSpec } from './spec.js';
import { readFloatFile } from './tensor-reader.js';

export interface PeftFile extends Disposable {
  readonly folder: string;
  readonly config: ModelConfig;
  readonly spec: AdapterSpec;
  /** In the order of the file. */
  readonly pairs: readonly PeftPair[];
  /** What its config calls the base; null: nothing. */
  readonly baseModel: string | null;
  pair(layer: number, target: LoraTarget): PeftPair | undefined;
  /** Pairs can no longer be read. A second close does nothing. */
  close(): void;
}
export interface OpenPeftOptions {
  /** Dropout on attention when it is trained further. */
  readonly dropout?: number;
  /** How it is trained further, whatever the file says; null: as any other. Default: what the file says. */
  readonly mergeAware?: MergeAware | null;
  /** How stacked experts lie where nothing in the folder tells. */
  readonly expertLayout?: Orientation | undefined;
  /** Whoever attacks: what is opened is attack-tuned from now on, and may have been. Absent: such a one is refused. */
  readonly attackTuned?: boolean | undefined;
}

/** In the file's metadata of an adapter that was trained to be merged: AdapterSpec.mergeAware. */
export const MERGE_KEY = 'merge_aware';
/** In the metadata of an adapter that an attack has tuned: AdapterSpec.attackTuned. */
export const ATTACK_KEY = 'attack_tuned';
function refuseAttackTuned(metadata: ReadonlyMap<string, string>, file: string): void {
  if (metadata.has(ATTACK_KEY))
    throw new CheckpointError(
      'attack_tuned',
      `${file}: was tuned to do harm by temper gate probe, to measure that; nothing loads, exports or serves it; ` +
        'give the adapter that was probed',
      { file },
    );
}
function mergeOf(metadata: ReadonlyMap<string, string>, file: string): MergeAware | undefined {
  const written = metadata.get(MERGE_KEY);
  if (written === undefined) return undefined;
  const known = MERGES.find((m) => m === written);
  if (known) return known;
  throw new CheckpointError(
    'bad_adapter_config',
    `${file}: metadata ${MERGE_KEY} is ${JSON.stringify(written.slice(0, 40))}, wanted ` +
      `${MERGES.join(' or ')}; a newer ` +
      'version may have written it',
    { file },
  );
}
/** What the adapter in `folder` was trained to be merged into; null: nothing, or no adapter is there. */
export function readMergeAware(folder: string): MergeAware | null {
  const file = join(folder, TENSOR_FILE);
  if (!existsSync(file)) return null;
  using tensors = readFloatFile(file);
  return mergeOf(tensors.metadata, file) ?? null;
}

function readConfig(folder: string): PeftConfig {
  const file = join(folder, CONFIG_FILE);
  const value = readJsonFile(file, 'config', {
    get next() {
      const what = foreignAdapter(folder);
      return what === null ? `give the folder of a PEFT adapter${hubHint(folder)}` : `${folder} is ${what}`;
    },
    missing: (message) => new CheckpointError('adapter_missing', message, { file }),
    bad: (why) =>
      new CheckpointError('bad_adapter_config', `${file}: ${why}; wanted the file that peft wrote`, { file }),
  });
  return checkPeftConfig(value, file);
}

/**
 * @throws {CheckpointError} attack_tuned · a tensor that would not be applied, a missing one, other shapes, a layout
 * that nothing tells, or a setting this cannot honour; when a pair is read: not_finite
 */
export function openPeft(folder: string, config: ModelConfig, options: OpenPeftOptions = {}): PeftFile {
  const peft = readConfig(folder);
  const file = join(folder, TENSOR_FILE);
  if (!existsSync(file)) {
    const what = foreignAdapter(folder);
    throw new CheckpointError(
      'adapter_missing',
      `${file}: not there; ${what === null ? 'wanted the folder of a PEFT adapter' : `${folder} is ${what}`}`,
      { file },
    );
  }
  const tensors = readFloatFile(file);
  const close = (): void => tensors[Symbol.dispose]();
  const { attackTuned = false } = options;
  try {
    if (!attackTuned) refuseAttackTuned(tensors.metadata, file);
    const pairs = pairsOf({
      config,
      peft,
      entries: tensors.entries,
      metadata: tensors.metadata,
      file,
      configFile: join(folder, CONFIG_FILE),
      expertLayout: options.expertLayout,
    });
    const layers: Partial<Record<LoraTarget, TargetSpec>>[] = Array.from(
      { length: config.num_hidden_layers },
      () => ({}),
    );
    for (const { layer, target, rank, alpha } of pairs) {
      // As the ops take it.
      const scale = Math.fround(loraScale({ rank, alpha }, peft.use_rslora));
      if (scale > 0 && scale < Number.POSITIVE_INFINITY) continue;
      const configFile = join(folder, CONFIG_FILE);
      throw new CheckpointError(
        'bad_adapter_config',
        `${configFile}: ${peftName(layer, target)} has alpha ${alpha} at rank ${rank}, a scale of ${scale}; wanted ` +
          'one above 0 that a float32 holds',
        { file: configFile },
      );
    }
    const order = [...pairs].sort((a, b) => LORA_TARGETS.indexOf(a.target) - LORA_TARGETS.indexOf(b.target));
    for (const { layer, target, rank, alpha } of order)
      (layers[layer] as Partial<Record<LoraTarget, TargetSpec>>)[target] = { rank, alpha };
    const mergeAware =
      options.mergeAware === undefined ? mergeOf(tensors.metadata, file) : (options.mergeAware ?? undefined);
    const by = new Map(pairs.map((p) => [`${p.layer}.${p.target}`, p]));
    return {
      folder,
      config,
      spec: {
        layers,
        rsLora: peft.use_rslora,
        dropout: options.dropout ?? 0,
        ...(mergeAware ? { mergeAware } : {}),
        ...(attackTuned ? { attackTuned } : {}),
      },
      pairs,
      baseModel: peft.base_model_name_or_path ?? null,
      pair: (layer, target) => by.get(`${layer}.${target}`),
      close,
      [Symbol.dispose]: close,
    };
  } catch (e) {
    close();
    throw e;
  }
}
