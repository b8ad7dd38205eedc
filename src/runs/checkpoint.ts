// checkpoints/step-N: state.safetensors (parameters and both moments, flat f32; 8-bit moments as codes and scales),
// state.json (what they belong to, digest) and, for adapters, adapter/ in PEFT's form. The order of rows and the
// dropout masks are functions of (seed, step), so the step is all the cursor there is.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256File } from '../base/digest.js';
import { CheckpointError, IntegrityError } from '../base/errors.js';
import { writeFlushed, writeFolderAtomic } from '../base/files.js';
import { readJsonFile } from '../base/json-file.js';
import { type Adapter, createAdapter } from '../lora/adapter.js';
import type { AdapterSpec } from '../lora/spec.js';
import type { ModelConfig } from '../model/config.js';
import { checkMetadata } from '../model/file-keys.js';
import { openSafetensors, tensorEntry, writeSafetensors } from '../native/safetensors.js';
import type { Tensor } from '../native/tensor.js';
import { checkpointFolder, type RunDigests } from './run-folder.js';

export interface TrainState {
  readonly params: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
  /** Of 8-bit moments. */
  readonly mScales?: Tensor;
  readonly vScales?: Tensor;
}
/** How what was trained is written for others to read. */
export interface Savable {
  /** What the parameters are, when they are an adapter's. */
  readonly spec?: AdapterSpec;
  /** Folder inside a checkpoint that holds the readable form; absent: too costly to write each time. */
  readonly checkpointName?: string;
  /** Writes what was trained, in the form others read, into `folder`. */
  save(folder: string): void | Promise<void>;
}
interface StateRecord {
  readonly version: 1;
  readonly step: number;
  readonly digests: RunDigests;
  readonly sha256: string;
  /** What the parameters are, for methods sft, dpo and orpo: ranks, scales and places as the trainer had them. */
  readonly adapter?: AdapterSpec;
}
const Known = z.looseObject({
  version: z.literal(1),
  step: z.int().min(0),
  digests: z.looseObject({}),
  sha256: z.string(),
  adapter: z
    .looseObject({ layers: z.array(z.record(z.string(), z.looseObject({ rank: z.int(), alpha: z.number() }))) })
    .optional(),
});
/** As the file names them. */
const PARTS = [
  ['params', 'params'],
  ['m', 'm'],
  ['v', 'v'],
  ['mScales', 'm_scales'],
  ['vScales', 'v_scales'],
] as const;

export async function saveCheckpoint(
  run: string,
  step: number,
  state: TrainState,
  digests: RunDigests,
  learner: Savable,
): Promise<void> {
  await writeFolderAtomic(checkpointFolder(run, step), async (folder) => {
    const file = join(folder, 'state.safetensors');
    writeSafetensors(
      file,
      PARTS.flatMap(([part, name]) => (state[part] ? [tensorEntry(name, state[part])] : [])),
      { step: String(step) },
    );
    if (learner.checkpointName) await learner.save(join(folder, learner.checkpointName));
    const record: StateRecord = {
      version: 1,
      step,
      digests,
      sha256: await sha256File(file),
      ...(learner.spec ? { adapter: learner.spec } : {}),
    };
    writeFlushed(join(folder, 'state.json'), `${JSON.stringify(record, null, 2)}\n`);
  });
}

/**
 * Fills `state` from the checkpoint.
 * @param recipes digests of the recipes that the run went by before
 * @throws {IntegrityError} its bytes are not those that were written, or it is of another run
 */
export async function loadState(
  run: string,
  step: number,
  state: TrainState,
  digests: RunDigests,
  recipes: readonly string[] = [],
): Promise<void> {
  await readParts(
    run,
    step,
    state,
    [digests.recipe, ...recipes].map((recipe) => ({ ...digests, recipe })),
  );
}
/** The adapter as the trainer held it: its own flat parameters, ranks and scales. */
export async function loadTrainedAdapter(
  run: string,
  step: number,
  config: ModelConfig,
  signal?: AbortSignal,
): Promise<Adapter> {
  const { adapter: spec } = readRecord(checkpointFolder(run, step));
  if (!spec) throw new CheckpointError('no_adapter', `${checkpointFolder(run, step)}: holds no adapter`, { run });
  const adapter = createAdapter(config, spec, { initialise: false });
  try {
    await readParts(run, step, { params: adapter.params }, null, signal);
  } catch (e) {
    adapter.close();
    throw e;
  }
  return adapter;
}

const REMEDY = 'remove this folder to go on from the one before';
function readRecord(folder: string): StateRecord {
  const file = join(folder, 'state.json');
  const damaged = (what: string): IntegrityError =>
    new IntegrityError('bad_checkpoint', `${file}: ${what}; ${REMEDY}`, { folder });
  const value = readJsonFile(file, 'record', {
    next: REMEDY,
    missing: (message) => new IntegrityError('bad_checkpoint', message, { folder }),
    bad: damaged,
  });
  const parsed = Known.safeParse(value);
  if (parsed.success) return value as StateRecord;
  const { path, message } = parsed.error.issues[0] ?? { path: [], message: 'of another kind' };
  throw damaged(`${path.join('.') || 'the record'}: ${message}`);
}

async function readParts(
  run: string,
  step: number,
  into: Partial<TrainState>,
  digests: readonly RunDigests[] | null,
  signal?: AbortSignal,
): Promise<void> {
  const folder = checkpointFolder(run, step);
  const file = join(folder, 'state.safetensors');
  const record = readRecord(folder);
  if (record.step !== step || (digests && !digests.some((d) => JSON.stringify(record.digests) === JSON.stringify(d))))
    throw new IntegrityError('bad_checkpoint', `${folder}: belongs to another run or step; ${REMEDY}`, {
      folder,
      step: record.step,
    });
  if (!existsSync(file) || (await sha256File(file, signal ? { signal } : {})) !== record.sha256)
    throw new IntegrityError('bad_checkpoint', `${file}: not the bytes that were written; ${REMEDY}`, { file });
  using tensors = openSafetensors(file);
  checkMetadata(file, tensors.metadata);
  for (const [part, name] of PARTS) {
    const target = into[part];
    if (!target) continue;
    const where = { file, tensor: name },
      entry = tensors.tensors.get(name),
      dtype = target.dtype.toUpperCase();
    if (entry && entry.dtype !== dtype)
      throw new CheckpointError(
        'tensor_dtype',
        `${file}: ${name} is ${entry.dtype}, wanted ${dtype}: the state of another train.optimizer.name; ${REMEDY}`,
        where,
      );
    if (!entry || entry.shape.join() !== target.shape.join())
      throw new CheckpointError(
        'tensor_shape',
        `${file}: ${name} is [${entry?.shape.join(',') ?? 'missing'}], wanted [${target.shape.join(',')}]; ${REMEDY}`,
        where,
      );
    const bytes = tensors.bytes(name);
    target.write(dtype === 'U8' ? bytes : new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4));
  }
}
