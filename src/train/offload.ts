// Whether there is disk for what of a batch goes there.
import { existsSync, statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { TrainError } from '../base/errors.js';
import { formatBytes } from '../base/units.js';
import { backendOf } from '../native/backends.js';
import type { TrainedLearner } from './learners.js';

/** Bytes free on the disk that `path` is or will be on. */
export function freeDiskBytes(path: string): number {
  let at = resolve(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = statfsSync(at);
  return bavail * bsize;
}
/** @throws {TrainError} offload_disk_full */
export function requireOffloadRoom(learner: TrainedLearner, run: string, tokens: number): void {
  const toDisk = !backendOf(learner.params.place).ownMemory; // else to host memory
  const needed = toDisk ? learner.memory.offloadBytes(tokens) : 0;
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
