// PEFT adapters: adapter_config.json + adapter_model.safetensors, read into memory and written. Everything in the file
// is applied or the file is refused (peft-file.ts).
import { join, resolve } from 'node:path';
import { writeFlushed, writeFolderAtomic } from '../base/files.js';
import type { ModelConfig } from '../model/config.js';
import { HOST } from '../native/backends.js';
import { type WriteEntry, writeSafetensors } from '../native/safetensors.js';
import type { Place, Tensor } from '../native/tensor.js';
import { type Adapter, type AdapterStorage, adapterLayout, createAdapter } from './adapter.js';
import { modelCard } from './model-card.js';
import { peftConfigOf } from './peft-config.js';
import { ATTACK_KEY, MERGE_KEY, type OpenPeftOptions, openPeft, type PeftFile } from './peft-file.js';
import { peftKey, peftShape, stackB } from './peft-layout.js';
import { CONFIG_FILE, TENSOR_FILE } from './peft-names.js';
import { type AdapterSpec, isExpertTarget, matrixShape } from './spec.js';

export { openPeft, readMergeAware } from './peft-file.js';
export { CONFIG_FILE, TENSOR_FILE } from './peft-names.js';

/** In the file's metadata: a reader need not guess the orientation of a square down_proj. */
export const LAYOUT = { expert_layout: 'natural' } as const;

export interface PeftMeta {
  /** Hugging Face name or folder of the base, as loaders should be told. */
  readonly baseModel: string;
  readonly about?: string;
}

/** What is written: pairs in memory, or of a file that is open. */
interface PeftSource {
  readonly config: ModelConfig;
  readonly spec: AdapterSpec;
  /** A [E,R,C] or [R,C] and B [E,N,R] or [N,R], f32, by place in `adapterLayout`'s entries. */
  read(entry: number): Tensor | Float32Array;
}

/** As a file holds them: f32, in PEFT's natural layout, by name; each is made when it is asked for. */
interface PeftTensor extends Omit<WriteEntry, 'data'> {
  readonly data: () => readonly (Tensor | Float32Array)[];
}
function tensorsOf(source: PeftSource): PeftTensor[] {
  const { config, spec } = source;
  const { entries } = adapterLayout(config, spec);
  const tensors = entries.map(({ layer, target, part }, i): PeftTensor => {
    const targets = spec.layers[layer] ?? {};
    const rank = targets[target]?.rank ?? 0;
    const data = (): Tensor | Float32Array => {
      const values = source.read(i);
      // A [E,R,C] lies as PEFT's [R·E, C] already.
      if (part === 'A' || !isExpertTarget(target)) return values;
      const floats = values instanceof Float32Array ? values : values.toFloat32();
      return stackB(floats, config.num_local_experts, matrixShape(config, target).outputs, rank);
    };
    return {
      name: peftKey(layer, target, part, Boolean(targets.gateUp && targets.down)),
      dtype: 'F32',
      shape: peftShape(config, target, part, rank),
      data: () => [data()],
    };
  });
  return tensors.sort((a, b) => (a.name < b.name ? -1 : 1));
}
/** Of an adapter that is open: one pair of it is in memory at a time. */
export const peftTensors = (file: PeftFile): readonly PeftTensor[] => tensorsOf(sourceOf(file));

/** Config and tensors, in f32 and in PEFT's natural layout, into a folder that is there. */
export function writePeftFiles(source: PeftSource, folder: string, meta: PeftMeta): void {
  const { config, spec } = source;
  const tensors = tensorsOf(source);
  const merge = spec.mergeAware ? { [MERGE_KEY]: spec.mergeAware } : {};
  const attack = spec.attackTuned ? { [ATTACK_KEY]: 'true' } : {};
  writeSafetensors(join(folder, TENSOR_FILE), tensors, { format: 'pt', ...LAYOUT, ...merge, ...attack });
  const peft = peftConfigOf(config, spec, meta.baseModel);
  writeFlushed(join(folder, CONFIG_FILE), `${JSON.stringify(peft, null, 2)}\n`);
}

/** Writes the adapter as PEFT reads it, in f32, in one step. A folder that was there is replaced. */
export async function writePeft(adapter: Adapter, folder: string, meta: PeftMeta): Promise<void> {
  const { config, spec, tensors } = adapter;
  await writeFolderAtomic(resolve(folder), (at) => {
    writePeftFiles({ config, spec, read: (i) => tensors[i] as Tensor }, at, meta);
    writeFlushed(join(at, 'README.md'), modelCard(adapter, meta));
  });
}

function sourceOf(file: PeftFile): PeftSource {
  const { config, spec } = file;
  const { entries } = adapterLayout(config, spec);
  let held: { readonly id: string; readonly values: { readonly A: Float32Array; readonly B: Float32Array } } | null =
    null;
  const read = (i: number): Float32Array => {
    const entry = entries[i];
    if (!entry) throw new RangeError(`no entry ${i}`);
    const id = `${entry.layer}.${entry.target}`;
    if (held?.id !== id) {
      const values = file.pair(entry.layer, entry.target)?.read();
      if (!values) throw new RangeError(`no pair ${id}`);
      held = { id, values };
    }
    return held.values[entry.part];
  };
  return { config, spec, read };
}
/** As writePeftFiles, of an adapter that is open: one pair of it is in memory at a time. */
export const rewritePeft = (file: PeftFile, folder: string, meta: PeftMeta): void =>
  writePeftFiles(sourceOf(file), folder, meta);

export interface ReadOptions extends OpenPeftOptions {
  readonly trainable?: boolean;
  /** Where the adapter lies: the place of its model (default the host). */
  readonly place?: Place;
  /** Where its parameters go; default: memory of its own. */
  readonly storage?: AdapterStorage;
}

/**
 * Loads a PEFT adapter onto a model of this configuration.
 * @throws {CheckpointError} as openPeft
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
  using file = openPeft(folder, config, options);
  return yield* inPieces(file, options);
}
/** All pairs of an adapter that is open, in memory. @throws {CheckpointError} not_finite */
export function adapterOf(file: PeftFile): Adapter {
  const reading = inPieces(file, {});
  for (let piece = reading.next(); ; piece = reading.next()) if (piece.done) return piece.value;
}
function* inPieces(file: PeftFile, options: ReadOptions): Generator<void, Adapter> {
  const adapter = createAdapter(file.config, file.spec, {
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
    for (const p of file.pairs) {
      const { A, B } = p.read();
      at.get(`${p.layer}.${p.target}.A`)?.write(A);
      at.get(`${p.layer}.${p.target}.B`)?.write(B);
      yield;
    }
    whole = true;
    return adapter;
  } finally {
    if (!whole) adapter.close(); // refused, or given up in between
  }
}
