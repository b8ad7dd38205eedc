// The checkpoints of a run under way: resumed from, written, thinned out, and kept when memory runs out.
import { join } from 'node:path';
import { NativeError, TrainError } from '../base/errors.js';
import { ops } from '../native/ops.js';
import { Scope } from '../native/tensor.js';
import { loadState, saveCheckpoint } from '../runs/checkpoint.js';
import {
  asDiskError,
  checkpointFolder,
  checkpointSteps,
  type RunDigests,
  type RunRecord,
  removeOldCheckpoints,
} from '../runs/run-folder.js';
import type { TrainedLearner } from './learners.js';
import type { Moments } from './moments.js';

export class Checkpoints {
  /** Steps done; parameters and moments are as after the last of them. */
  done = 0;
  /** The step with the lowest held-out loss; its checkpoint stays. */
  best: number | null = null;
  #saved = 0;

  constructor(
    readonly run: string,
    readonly learner: TrainedLearner,
    readonly moments: Moments,
    readonly digests: RunDigests,
    readonly keep: number,
  ) {}

  /** Goes on from the last one, if there is one. @throws {IntegrityError} bad_checkpoint */
  async resume(earlier: RunRecord['earlier'] = []): Promise<void> {
    const from = checkpointSteps(this.run).at(-1);
    if (from === undefined) return;
    const recipes = earlier.map((e) => e.recipe);
    await loadState(this.run, from, { params: this.learner.params, ...this.moments }, this.digests, recipes);
    this.learner.refresh();
    this.done = this.#saved = from;
  }

  /** Writes the state after the last step, unless it is on disk. @throws {TrainError} disk_full, bad_update */
  async save(): Promise<void> {
    const { run, learner, done } = this;
    if (this.#saved === done) return;
    this.#requireFinite();
    try {
      await saveCheckpoint(run, done, { params: learner.params, ...this.moments }, this.digests, learner);
    } catch (e) {
      throw asDiskError(e, run, `the checkpoint of step ${done}`);
    }
    this.#saved = done;
    removeOldCheckpoints(run, this.keep, this.best);
  }

  /** @throws {TrainError} bad_update: no checkpoint may hold what nobody can go on from */
  #requireFinite(): void {
    const { params } = this.learner;
    using scope = new Scope('workspace', params.place);
    const squares = scope.empty('f32', [1]);
    ops.sum_squares(squares, params);
    const norm = Math.sqrt(squares.toFloat32()[0] ?? Number.NaN);
    if (Number.isFinite(norm)) return;
    const last = checkpointSteps(this.run).at(-1);
    throw new TrainError(
      'bad_update',
      `step ${this.done}: after the update the norm of the parameters is ${norm}, so they were not saved; ` +
        `${last === undefined ? 'there is no checkpoint before it' : `the checkpoint of step ${last} is good`}; ` +
        'start again with a lower train.lr',
      { step: this.done },
    );
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
