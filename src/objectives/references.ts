// What the answers weigh under the reference, each computed once in a run. The bits of a forward pass depend on what
// else is in the batch, so there is one batch for each sample: the one it has in the first epoch. The steps of that
// epoch compute what they need as they go, later ones find it there; computed beforehand or after a resume it has the
// same bits.
import { setImmediate } from 'node:timers/promises';
import { ConfigError } from '../base/errors.js';
import { type Examples, samplesAt } from '../data/example.js';
import type { StepPlan } from '../data/order.js';
import type { PackedBatch } from '../data/pack.js';
import type { Learner } from './learner.js';
import type { BatchLimits, Objective } from './objective.js';
import { answerSums } from './pairs.js';

/** Σ weight·nll of each example of a batch, by a forward pass of its own. @throws {ConfigError} no_reference */
export function referenceSums(learner: Learner, packed: PackedBatch): Float64Array {
  if (!learner.reference)
    throw new ConfigError('no_reference', 'method dpo compares with the base without the adapter: train an adapter');
  return answerSums(packed, learner.reference(packed.batch, packed.targets));
}

export class References {
  /** By number of the example; NaN: not known. */
  readonly values: Float64Array;
  /** Step of the first epoch that each sample is in. */
  readonly #steps: Int32Array;
  readonly #firstEpoch: number;
  #batches: { readonly step: number; readonly batches: readonly PackedBatch[] } | null = null;

  constructor(
    readonly learner: Learner,
    readonly examples: Examples,
    readonly plan: StepPlan,
    readonly objective: Objective,
    readonly limits: BatchLimits,
  ) {
    this.values = new Float64Array(examples.length).fill(Number.NaN);
    this.#steps = new Int32Array(examples.length / objective.examplesPerSample);
    let step = 0;
    for (let rows = plan.rows(0); rows.epoch === 0 && rows.indices.length > 0; rows = plan.rows(++step))
      for (const sample of rows.indices) this.#steps[sample] = step;
    this.#firstEpoch = step;
  }

  /** Σ weight·nll of each example of a batch. */
  readonly sumsOf = (packed: PackedBatch): Float64Array =>
    Float64Array.from(packed.examples, ({ index }) => {
      if (index === undefined) return Number.NaN;
      if (Number.isNaN(this.values[index])) this.#compute(this.#batchOf(index));
      return this.values[index] ?? Number.NaN;
    });

  /** Steps of the plan whose samples are met for the first time there. */
  get firstSteps(): number {
    return Math.min(this.plan.steps, this.#firstEpoch);
  }

  /**
   * Computes what the steps of the plan will need and is not known. The signal is looked at between batches; what was
   * computed by then stays.
   * @param onBatch told after each batch how many of how many samples are known
   */
  async computeAll(
    onBatch: (done: number, total: number) => void | Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    const per = this.objective.examplesPerSample;
    let [total, done] = [0, 0];
    for (let s = 0; s < this.firstSteps; s++) total += this.plan.rows(s).indices.length;
    for (let s = 0; s < this.firstSteps; s++)
      for (const packed of this.#batchesOf(s)) {
        done += packed.examples.length / per;
        if (packed.examples.every((e) => !Number.isNaN(this.values[e.index ?? -1] ?? Number.NaN))) continue;
        await setImmediate(); // lets messages and signals in; native calls block this thread
        if (signal?.aborted) return;
        this.#compute(packed);
        await onBatch(done, total);
      }
  }

  #batchesOf(step: number): readonly PackedBatch[] {
    if (this.#batches?.step !== step) {
      const { examples, plan, objective, limits } = this;
      const samples = samplesAt(examples, plan.rows(step).indices, objective.examplesPerSample);
      this.#batches = { step, batches: objective.batches(samples, limits) };
    }
    return this.#batches.batches;
  }
  #batchOf(example: number): PackedBatch {
    const step = this.#steps[Math.floor(example / this.objective.examplesPerSample)] ?? 0;
    return this.#batchesOf(step).find((b) => b.examples.some((e) => e.index === example)) as PackedBatch;
  }
  #compute(packed: PackedBatch): void {
    const sums = referenceSums(this.learner, packed);
    packed.examples.forEach(({ index }, b) => {
      if (index !== undefined) this.values[index] = sums[b] ?? Number.NaN;
    });
  }
}
