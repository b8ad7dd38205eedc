// PEFT adapters: adapter_config.json + adapter_model.safetensors, read and written. Everything in the file is applied
// or the file is refused.

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { writeFlushed, writeFolderAtomic } from '../base/files.js';
import { readInputText } from '../base/inputs.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { HOST } from '../native/backends.js';
import { type WriteEntry, writeSafetensors } from '../native/safetensors.js';
import type { Place, Tensor } from '../native/tensor.js';
import { type Adapter, type AdapterStorage, createAdapter } from './adapter.js';
import { modelCard } from './model-card.js';
import {
  checkPeftConfig,
  isTargeted,
  type PeftConfig,
  patternAlpha,
  patternRank,
  peftConfigOf,
  peftName,
} from './peft-config.js';
import { foreignAdapter, foreignKey } from './peft-foreign.js';
import {
  loneExpertTarget,
  type Orientation,
  orientations,
  type PeftKey,
  parsePeftKey,
  peftKey,
  peftShape,
  stackB,
  unstackB,
  unswap,
} from './peft-layout.js';
import { type AdapterSpec, isExpertTarget, LORA_TARGETS, matrixShape, type TargetSpec } from './spec.js';
import { type FloatEntry, readFloatFile } from './tensor-reader.js';

export const CONFIG_FILE = 'adapter_config.json';
export const TENSOR_FILE = 'adapter_model.safetensors';
/** In the file's metadata: a reader need not guess the orientation of a square down_proj. */
const LAYOUT = { expert_layout: 'natural' } as const;

export interface PeftMeta {
  /** Hugging Face name or folder of the base, as loaders should be told. */
  readonly baseModel: string;
  readonly about?: string;
}

/** Writes the adapter as PEFT reads it, in f32, in one step. A folder that was there is replaced. */
export async function writePeft(adapter: Adapter, folder: string, meta: PeftMeta): Promise<void> {
  const { config, spec } = adapter;
  const tensors: WriteEntry[] = adapter.entries.map((entry, i) => {
    const tensor = adapter.tensors[i] as Tensor;
    const { layer, target, part } = entry;
    const targets = spec.layers[layer] ?? {};
    const rank = targets[target]?.rank ?? 0;
    return {
      name: peftKey(layer, target, part, Boolean(targets.gateUp && targets.down)),
      dtype: 'F32',
      shape: peftShape(config, target, part, rank),
      // A [E,R,C] lies as PEFT's [R·E, C] already.
      data: () => [
        part === 'B' && isExpertTarget(target)
          ? stackB(tensor.toFloat32(), config.num_local_experts, matrixShape(config, target).outputs, rank)
          : tensor,
      ],
    };
  });
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1));
  const peft = peftConfigOf(config, spec, meta.baseModel);
  await writeFolderAtomic(resolve(folder), (at) => {
    writeSafetensors(join(at, TENSOR_FILE), tensors, { format: 'pt', ...LAYOUT });
    writeFlushed(join(at, CONFIG_FILE), `${JSON.stringify(peft, null, 2)}\n`);
    writeFlushed(join(at, 'README.md'), modelCard(adapter, meta));
  });
}

interface Pair {
  readonly layer: number;
  readonly target: LoraTarget;
  readonly A: FloatEntry;
  readonly B: FloatEntry;
  readonly keys: { readonly A: string; readonly B: string };
}
type Slots = Map<
  string,
  { slot: PeftKey['slot']; layer: number; A?: readonly [string, FloatEntry]; B?: readonly [string, FloatEntry] }
>;

function readConfig(folder: string): PeftConfig {
  const file = join(folder, CONFIG_FILE);
  let text: string;
  try {
    text = readInputText(file, 'config');
  } catch (e) {
    const what = foreignAdapter(folder);
    throw new CheckpointError(
      'adapter_missing',
      `${file}: cannot be read (${(e as NodeJS.ErrnoException).code ?? 'unknown'}); ` +
        (what === null ? 'wanted the folder of a PEFT adapter' : `${folder} is ${what}`),
      { file },
      { cause: e },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (e) {
    throw new CheckpointError(
      'bad_adapter_config',
      `${file}: not JSON: ${(e as Error).message}`,
      { file },
      { cause: e },
    );
  }
  return checkPeftConfig(value, file);
}

/** Tensors by layer and slot; every key must be one. */
function sortKeys(config: ModelConfig, entries: ReadonlyMap<string, FloatEntry>, file: string): Slots {
  const slots: Slots = new Map();
  for (const [key, entry] of entries) {
    const k = parsePeftKey(key);
    if (!k) {
      const why = foreignKey(key, entries);
      throw new CheckpointError(
        'adapter_tensor_unknown',
        `${file}: ${key} is no LoRA tensor of a gpt-oss attention, expert or router matrix, so it cannot be applied` +
          (why === null ? '' : `: ${why}`),
        { file, tensor: key },
      );
    }
    if (entry.shape.some((n) => n === 0))
      throw new CheckpointError(
        'tensor_shape',
        `${file}: ${key} is empty ([${entry.shape.join(',')}]), as DeepSpeed ZeRO-3 saves what ` +
          'lies on other devices; ' +
          'gather the parameters before saving (stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py)',
        { file, tensor: key },
      );
    if (k.layer >= config.num_hidden_layers)
      throw new CheckpointError(
        'adapter_tensor_unknown',
        `${file}: ${key} is for layer ${k.layer}, the model has layers 0…${config.num_hidden_layers - 1}`,
        { file, tensor: key },
      );
    const id = `${k.layer}.${k.slot}`;
    const slot = slots.get(id) ?? { slot: k.slot, layer: k.layer };
    slot[k.part] = [key, entry];
    slots.set(id, slot);
  }
  return slots;
}

function pairsOf(config: ModelConfig, peft: PeftConfig, slots: Slots, file: string): Pair[] {
  const pairs: Pair[] = [];
  for (const s of slots.values()) {
    if (!s.A || !s.B) {
      const have = (s.A ?? s.B)?.[0] ?? '';
      const lack = s.A ? have.replace('lora_A', 'lora_B') : have.replace('lora_B', 'lora_A');
      throw new CheckpointError('adapter_tensor_missing', `${file}: ${lack} is missing beside ${have}`, {
        file,
        tensor: lack,
      });
    }
    let target: LoraTarget;
    if (s.slot === 'experts.base_layer') {
      if (!slots.has(`${s.layer}.experts`))
        throw new CheckpointError(
          'adapter_tensor_missing',
          `${file}: layer ${s.layer} has an inner expert wrapper (base_layer) without the outer one`,
          { file, tensor: s.A[0] },
        );
      target = 'gateUp';
    } else if (s.slot === 'experts') {
      target = slots.has(`${s.layer}.experts.base_layer`)
        ? 'down'
        : loneExpertTarget(
            config,
            (['gateUp', 'down'] as const).filter((t) => isTargeted(peft, s.layer, t, file)),
            s.A[1].shape,
            s.B[1].shape,
            `${file}: layer ${s.layer}`,
          );
    } else target = s.slot;
    pairs.push({ layer: s.layer, target, A: s.A[1], B: s.B[1], keys: { A: s.A[0], B: s.B[0] } });
  }
  return pairs;
}

/** What the config says is adapted must be what the file holds. */
function checkComplete(config: ModelConfig, peft: PeftConfig, pairs: readonly Pair[], file: string): void {
  const held = new Set(pairs.map((p) => `${p.layer}.${p.target}`));
  for (let layer = 0; layer < config.num_hidden_layers; layer++)
    for (const target of LORA_TARGETS) {
      const wanted = isTargeted(peft, layer, target, file);
      const has = held.has(`${layer}.${target}`);
      if (wanted === undefined || wanted === has) continue;
      const name = peftName(layer, target);
      throw wanted
        ? new CheckpointError(
            'adapter_tensor_missing',
            `${file}: ${CONFIG_FILE} adapts ${name}, but its tensors are missing`,
            { file, tensor: name },
          )
        : new CheckpointError(
            'adapter_tensor_unknown',
            `${file}: tensors for ${name}, which ${CONFIG_FILE} does not adapt`,
            { file, tensor: name },
          );
    }
}

function shapeError(config: ModelConfig, p: Pair, rank: number, file: string): CheckpointError {
  const wanted = (part: 'A' | 'B'): string => peftShape(config, p.target, part, rank).join(',');
  const part = p.A.shape.join() === wanted('A') ? 'B' : 'A';
  const E = config.num_local_experts;
  // One pair for all experts: A and B of a single expert's size.
  if (isExpertTarget(p.target) && p.A.shape[0] === rank && E > 1 && p.B.shape[1] === rank)
    return new CheckpointError(
      'tensor_shape',
      `${file}: ${p.keys.A} is [${p.A.shape.join(',')}]: one pair of rank ${rank} for all ${E} ` +
        'experts, wanted one for ' +
        `each, [${wanted('A')}]; an adapter shared by experts cannot be applied here, train one with target_parameters`,
      { file, tensor: p.keys.A, got: p.A.shape, wanted: wanted('A') },
    );
  return new CheckpointError(
    'tensor_shape',
    `${file}: ${p.keys[part]} is [${p[part].shape.join(',')}], wanted [${wanted(part)}] (rank ` +
      `${rank}); the adapter belongs to another model or rank`,
    { file, tensor: p.keys[part], got: p[part].shape, wanted: wanted(part) },
  );
}

/** Orientation of each expert pair: by its shapes; a square matrix follows the rest of the file, then what wrote it. */
function orient(
  config: ModelConfig,
  pairs: readonly Pair[],
  metadata: ReadonlyMap<string, string>,
): (p: Pair) => Orientation | undefined {
  const certain = new Set(
    pairs
      .filter((p) => isExpertTarget(p.target))
      .map((p) => orientations(config, p.target, p.A.shape, p.B.shape))
      .filter((o) => o.length === 1)
      .map((o) => o[0]),
  );
  // Alone and square: our own files say how they lie; peft before 0.19 wrote the natural layout only, and later ones do
  // with current transformers.
  const fallback: Orientation =
    metadata.get('expert_layout') === 'natural'
      ? 'natural'
      : certain.has('swapped') && !certain.has('natural')
        ? 'swapped'
        : 'natural';
  return (p) => {
    const possible = orientations(config, p.target, p.A.shape, p.B.shape);
    return possible.length > 1 ? fallback : possible[0];
  };
}

/** The values of a tensor; one that is no number makes an answer of every model that takes it none either. */
function finite(values: Float32Array, key: string, file: string): Float32Array {
  const at = values.findIndex((v) => !Number.isFinite(v));
  if (at < 0) return values;
  throw new CheckpointError(
    'not_finite',
    `${file}: ${key} holds ${values[at]} at element ${at}; the training that wrote it went wrong: take an earlier ` +
      'checkpoint, or train again with a lower learning rate',
    { file, tensor: key, element: at },
  );
}

export interface ReadOptions {
  readonly trainable?: boolean;
  /** Dropout on attention when it is trained further. */
  readonly dropout?: number;
  /** Where the adapter lies: the place of its model (default the host). */
  readonly place?: Place;
  /** Where its parameters go; default: memory of its own. */
  readonly storage?: AdapterStorage;
}

/**
 * Loads a PEFT adapter onto a model of this configuration.
 * @throws {CheckpointError} a tensor that would not be applied, a missing one, other shapes, or a setting this cannot
 * honour
 */
export function readPeft(folder: string, config: ModelConfig, options: ReadOptions = {}): Adapter {
  const reading = readPeftInPieces(folder, config, options);
  for (let piece = reading.next(); ; piece = reading.next()) if (piece.done) return piece.value;
}
/** As readPeft, stopping after each pair: whoever reads may do something else in between. */
export function* readPeftInPieces(
  folder: string,
  config: ModelConfig,
  options: ReadOptions = {},
): Generator<void, Adapter> {
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
  using tensors = readFloatFile(file);
  const pairs = pairsOf(config, peft, sortKeys(config, tensors.entries, file), file);
  if (pairs.length === 0) throw new CheckpointError('adapter_tensor_missing', `${file}: holds no tensors`, { file });
  checkComplete(config, peft, pairs, join(folder, CONFIG_FILE));

  const orientation = orient(config, pairs, tensors.metadata);
  const layers: Partial<Record<LoraTarget, TargetSpec>>[] = Array.from(
    { length: config.num_hidden_layers },
    () => ({}),
  );
  for (const p of pairs) {
    const name = peftName(p.layer, p.target);
    const rank = patternRank(peft, name, file);
    const how = orientation(p);
    const experts = isExpertTarget(p.target) ? config.num_local_experts : 1;
    if (!how || p.A.shape[0] !== rank * experts) throw shapeError(config, p, rank, file);
    (layers[p.layer] as Partial<Record<LoraTarget, TargetSpec>>)[p.target] = {
      rank,
      alpha: patternAlpha(peft, name, file),
    };
  }
  const spec: AdapterSpec = { layers, rsLora: peft.use_rslora, dropout: options.dropout ?? 0 };
  const adapter = createAdapter(config, spec, {
    trainable: options.trainable ?? false,
    initialise: false,
    place: options.place ?? HOST,
    ...(options.storage ? { storage: options.storage } : {}),
  });
  let whole = false;
  try {
    const at = new Map(
      adapter.entries.map((e, i) => [`${e.layer}.${e.target}.${e.part}`, adapter.tensors[i] as Tensor]),
    );
    for (const p of pairs) {
      const { inputs, outputs } = matrixShape(config, p.target);
      const rank = layers[p.layer]?.[p.target]?.rank ?? 0;
      const expert = isExpertTarget(p.target);
      const E = expert ? config.num_local_experts : 1;
      const fileA = finite(p.A.read(), p.keys.A, file);
      const fileB = finite(p.B.read(), p.keys.B, file);
      const ours =
        orientation(p) === 'swapped'
          ? unswap(fileA, fileB, E, inputs, outputs, rank)
          : { A: fileA, B: expert ? unstackB(fileB, E, outputs, rank) : fileB };
      at.get(`${p.layer}.${p.target}.A`)?.write(ours.A);
      at.get(`${p.layer}.${p.target}.B`)?.write(ours.B);
      yield;
    }
    whole = true;
    return adapter;
  } finally {
    if (!whole) adapter.close(); // refused, or given up in between
  }
}
