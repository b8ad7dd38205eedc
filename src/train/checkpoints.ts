// The checkpoints of a run under way: resumed from, written, thinned out, and kept when memory runs out.
import { join } from 'node:path';
import { NativeError } from '../base/errors.js';
import { loadState, saveCheckpoint } from '../runs/checkpoint.js';
import {
  asDiskError,
  checkpointFolder,
  checkpointSteps,
  type RunDigests,
  removeOldCheckpoints,
} from '../runs/run-folder.js';
import type { TrainedLearner } from './learners.js';
import type { Moments } from './step.js';

export class Checkpoints {
  /** Steps done; parameters and moments are as after the last of them. */
  done = 0;
  #saved = 0;

  constructor(
    readonly run: string,
    readonly learner: TrainedLearner,
    readonly moments: Moments,
    readonly digests: RunDigests,
    readonly keep: number,
  ) {}

  /** Goes on from the last one, if there is one. @throws {IntegrityError} bad_checkpoint */
  async resume(): Promise<void> {
    const from = checkpointSteps(this.run).at(-1);
    if (from === undefined) return;
    await loadState(this.run, from, { params: this.learner.params, ...this.moments }, this.digests);
    this.learner.refresh();
    this.done = this.#saved = from;
  }

  /** Writes the state after the last step, unless it is on disk. @throws {TrainError} disk_full */
  async save(): Promise<void> {
    const { run, learner, done } = this;
    if (this.#saved === done) return;
    try {
      await saveCheckpoint(run, done, { params: learner.params, ...this.moments }, this.digests, learner);
    } catch (e) {
      throw asDiskError(e, run, `the checkpoint of step ${done}`);
    }
    this.#saved = done;
    removeOldCheckpoints(run, this.keep);
  }

  /**
   * After memory ran out in a step, parameters and moments are still those of the step before: they are saved, and the
   * error says so and what to change. Other errors come back as they are.
   */
  async keptAfter(e: unknown, tokensPerBatch: number): Promise<unknown> {
    if (!(e instanceof NativeError) || (e.code !== 'out_of_device_memory' && e.code !== 'out_of_memory')) return e;
    try {
      await this.save();
    } catch {
      return e;
    }
    const { run, done } = this;
    const kept =
      done > 0
        ? `step ${done} is saved: --resume goes on with a higher memoryLimit or offloaded ` +
          `activations, a new run with adapter.from=${join(checkpointFolder(run, done), 'adapter')} ` +
          'with smaller batches'
        : 'no step was done yet';
    return new NativeError(
      e.code,
      `step ${done + 1}: ${e.message}; ${kept}. Batches have up to ${tokensPerBatch} tokens ` +
        '(train.tokensPerBatch); `temper plan` counts what fewer take',
      { ...e.details, step: done },
    );
  }
}
