// What of training does not stay in the memory it computes in: kept activations and the moments of AdamW.
import { existsSync, statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { TrainError } from '../base/errors.js';
import { formatBytes } from '../base/units.js';
import { OFFLOAD_FROM_BYTES } from '../model/gpt-oss.js';
import { backendOf, HOST } from '../native/backends.js';
import { deviceShare } from '../native/device.js';
import type { Place, Tensor } from '../native/tensor.js';
import type { Recipe } from '../recipe/schema.js';
import type { TrainedLearner } from './learners.js';

/** A recipe's train.offloadActivations and train.offloadOptimizer. */
export type OffloadMode = NonNullable<Recipe['train']['offloadActivations']>;

/**
 * Bytes that a batch of so many tokens puts elsewhere: on disk, from a GPU into host memory; 0: none.
 * @param kept bytes that the batch keeps from forward to backward
 */
export function offloadRule(
  mode: OffloadMode,
  place: Place,
  kept: (tokens: number) => number,
): (tokens: number) => number {
  const most = backendOf(place).ownMemory ? deviceShare() : OFFLOAD_FROM_BYTES;
  return (tokens) => {
    const bytes = kept(tokens);
    return mode === 'always' || (mode === 'auto' && bytes >= most) ? bytes : 0;
  };
}
/** Where the moments of AdamW are to lie. */
export const momentsPlaceOf = (mode: OffloadMode, params: Tensor): Place =>
  mode === 'always' || (mode === 'auto' && 2 * params.bytes > deviceShare()) ? HOST : params.place;

/** Bytes free on the disk that `path` is or will be on. */
export function freeDiskBytes(path: string): number {
  let at = resolve(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = statfsSync(at);
  return bavail * bsize;
}
/** @throws {TrainError} offload_disk_full */
export function requireOffloadRoom(learner: TrainedLearner, run: string, tokens: number): void {
  const needed = backendOf(learner.params.place).ownMemory ? 0 : learner.offloadBytes(tokens); // else to host memory
  if (needed === 0) return;
  const free = freeDiskBytes(run);
  if (free < needed)
    throw new TrainError(
      'offload_disk_full',
      `${run}: the activations of a batch of ${tokens} tokens take ${formatBytes(needed)} of disk, ` +
        `${formatBytes(free)} are free; free some, choose another disk with --out, or lower ` +
        'train.tokensPerBatch or data.maxTokens',
      { run, tokens, needed, free },
    );
}
