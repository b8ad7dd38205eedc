// What the bits of keys and values depend on beside tokens and cuts: what was computed under one binding is used under
// no other.
import { sha256, sha256File } from '../base/digest.js';
import { versions } from '../base/machine.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { type Device, nativeFiles } from '../native/device.js';
import { cpuInfo } from '../native/machine.js';
import { DEFAULT_PRECISION } from './open-model.js';
import type { EngineOptions } from './protocol.js';
import { DEFAULT_PREFILL_TOKENS } from './session-options.js';

/**
 * @param tokenizer its digest · @param merged digest of the adapter in the weights
 * @returns the binding of what is computed with an adapter of that digest, or with none: hex
 */
export async function bindingFor(
  options: EngineOptions,
  device: Device,
  tokenizer: string,
  merged: string | null,
): Promise<(adapter: string | null) => string> {
  const libraries = await Promise.all(nativeFiles(device.place).map((file) => sha256File(file)));
  const engine = JSON.stringify({
    version: versions().temper,
    libraries,
    kernels: cpuInfo().isa,
    hardware: device.hardware,
    place: device.place,
    model: await digestCheckpoint(options.model),
    tokenizer,
    merged,
    precision: options.precision ?? DEFAULT_PRECISION,
    denseDtype: options.denseDtype ?? 'bf16',
    kvDtype: options.kvDtype ?? 'f32',
    pieces: DEFAULT_PREFILL_TOKENS,
  });
  return (adapter) => sha256(`${engine}\n${adapter ?? ''}`);
}
