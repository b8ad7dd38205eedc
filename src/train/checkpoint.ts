// checkpoints/step-N: state.safetensors (parameters and both moments, flat f32), state.json (what they belong to, digest) and, for adapters,
// adapter/ in PEFT's form. The order of rows and the dropout masks are functions of (seed, step), so the step is all the cursor there is.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFloatFile } from '../lora/tensor-reader.js';
import { CheckpointError, IntegrityError } from '../native/errors.js';
import { tensorEntry, writeSafetensors } from '../native/safetensors.js';
import type { Tensor } from '../native/tensor.js';
import { writeFlushed, writeFolderAtomic } from '../native/write-file.js';
import type { TrainedLearner } from './learners.js';
import { checkpointFolder, type RunDigests, sha256File } from './run-folder.js';

export interface TrainState { readonly params: Tensor; readonly m: Tensor; readonly v: Tensor }
interface StateRecord { readonly version: 1; readonly step: number; readonly digests: RunDigests; readonly sha256: string }
const PARTS = ['params', 'm', 'v'] as const;

export async function saveCheckpoint(run: string, step: number, state: TrainState, digests: RunDigests, learner: TrainedLearner): Promise<void> {
  await writeFolderAtomic(checkpointFolder(run, step), async (folder) => {
    const file = join(folder, 'state.safetensors');
    writeSafetensors(file, PARTS.map((name) => tensorEntry(name, state[name])), { step: String(step) });
    if (learner.checkpointName) await learner.save(join(folder, learner.checkpointName));
    const record: StateRecord = { version: 1, step, digests, sha256: await sha256File(file) };
    writeFlushed(join(folder, 'state.json'), `${JSON.stringify(record, null, 2)}\n`);
  });
}

/** Fills `state` from the checkpoint. @throws {IntegrityError} its bytes are not those that were written, or it is of another run */
export async function loadState(run: string, step: number, state: TrainState, digests: RunDigests): Promise<void> {
  await readParts(run, step, state, digests);
}
/** Only the parameters, as the trainer holds them. */
export async function readParameters(run: string, step: number, params: Tensor): Promise<void> {
  await readParts(run, step, { params }, null);
}

async function readParts(run: string, step: number, into: Partial<TrainState>, digests: RunDigests | null): Promise<void> {
  const folder = checkpointFolder(run, step);
  const file = join(folder, 'state.safetensors');
  const remedy = 'remove this folder to go on from the one before';
  let record: StateRecord;
  try { record = JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as StateRecord; } catch (e) {
    throw new IntegrityError('bad_checkpoint', `${folder}/state.json: cannot be read; ${remedy}`, { folder }, { cause: e });
  }
  if (record.step !== step || (digests && JSON.stringify(record.digests) !== JSON.stringify(digests)))
    throw new IntegrityError('bad_checkpoint', `${folder}: belongs to another run or step; ${remedy}`, { folder, step: record.step });
  if (!existsSync(file) || (await sha256File(file)) !== record.sha256)
    throw new IntegrityError('bad_checkpoint', `${file}: not the bytes that were written; ${remedy}`, { file });
  using tensors = readFloatFile(file);
  for (const name of PARTS) {
    const target = into[name];
    if (!target) continue;
    const entry = tensors.entries.get(name);
    if (!entry || entry.shape.join() !== target.shape.join())
      throw new CheckpointError('tensor_shape', `${file}: ${name} is [${entry?.shape.join(',') ?? 'missing'}], wanted [${target.shape.join(',')}]; ${remedy}`, { file, tensor: name });
    target.write(entry.read());
  }
}
