// What an adapter is, as one digest: its configuration, as far as it acts, and its numbers in f32 in PEFT's natural
// layout. How a file writes them, what it calls the base and who wrote it change nothing; so a run's adapter, its
// export and one made elsewhere that was exported are the same, and an edit of any of them is another.
import { createHash, type Hash } from 'node:crypto';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { CheckpointError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { openSafetensors } from '../native/safetensors.js';
import { Tensor } from '../native/tensor.js';
import { LAYOUT, peftTensors } from './peft.js';
import { peftConfigOf, WITHOUT_EFFECT } from './peft-config.js';
import { MERGE_KEY, type PeftFile } from './peft-file.js';
import { CONFIG_FILE, TENSOR_FILE } from './peft-names.js';

/** Order of keys within a value counts: of two patterns the first that matches decides. */
const acting = (config: object): string =>
  JSON.stringify(
    Object.entries(config)
      .filter(([key, value]) => !Object.hasOwn(WITHOUT_EFFECT, key) && value !== null && value !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );

function begin(config: object, mergeAware: string | undefined, layout: string | undefined): Hash {
  return createHash('sha256').update(`temper adapter 1\n${acting(config)}\n${mergeAware ?? ''}\n${layout ?? ''}\n`);
}
const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
const line = (name: string, dtype: string, shape: readonly number[]): string => `${name} ${dtype} ${shape.join(',')}\n`;

/**
 * Of an adapter that is open, whatever its folder looks like: of what an export of it would hold.
 * @returns sha256, hex
 * @throws {CheckpointError} not_finite · the signal's reason
 */
export async function digestPeft(file: PeftFile, signal?: AbortSignal): Promise<string> {
  const hash = begin(peftConfigOf(file.config, file.spec, ''), file.spec.mergeAware, LAYOUT.expert_layout);
  for (const { name, dtype, shape, data } of peftTensors(file)) {
    signal?.throwIfAborted();
    hash.update(line(name, dtype, shape));
    for (const piece of data()) {
      const values = piece instanceof Tensor ? piece.toFloat32() : piece;
      hash.update(values instanceof Float32Array ? bytesOf(values) : values);
    }
    await setImmediate();
  }
  return hash.digest('hex');
}

/**
 * Of a folder as `temper export` and `temper train` write it, without its base at hand. A folder that was written
 * otherwise has another digest here than digestPeft gives it.
 * @throws {CheckpointError} no adapter is there · the signal's reason
 */
export async function digestPeftFolder(folder: string, signal?: AbortSignal): Promise<string> {
  const file = join(folder, CONFIG_FILE);
  const bad = (code: 'adapter_missing' | 'bad_adapter_config') => (what: string) =>
    new CheckpointError(code, code === 'adapter_missing' ? what : `${file}: ${what}; export the adapter again`, {
      file,
    });
  const config = readJsonFile(file, 'config', {
    next: 'give the folder of a PEFT adapter',
    missing: bad('adapter_missing'),
    bad: bad('bad_adapter_config'),
  });
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw bad('bad_adapter_config')('holds no object');
  const tensors = openSafetensors(join(folder, TENSOR_FILE));
  try {
    const hash = begin(config, tensors.metadata.get(MERGE_KEY), tensors.metadata.get('expert_layout'));
    for (const [name, { dtype, shape }] of [...tensors.tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
      signal?.throwIfAborted();
      hash.update(line(name, dtype, shape)).update(tensors.bytes(name));
      await setImmediate();
    }
    return hash.digest('hex');
  } finally {
    tensors.close();
  }
}
