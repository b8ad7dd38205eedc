// metrics.jsonl of a run: one line a step.

import { appendFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { readInputText } from '../base/inputs.js';
import { parseJson } from '../base/json.js';

/** A line of metrics.jsonl. */
export interface StepMetrics {
  readonly step: number;
  /** Nats per weighted token, before the update. */
  readonly loss: number;
  readonly lr: number;
  readonly gradNorm: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly peakBytes: number;
  /**
   * On a GPU: what the step's work takes at the least by the limits that were measured on it (its best product, its
   * copy of memory) of what it took, percent.
   */
  readonly percentOfLimit?: number;
  /**
   * Rows of the busiest expert of a layer ÷ those of the mean one, the mean over the layers: 1 is even, experts ÷
   * experts per token the most.
   */
  readonly expertImbalance?: number;
  /**
   * On a GPU, where experts or layer inputs came from host memory or went there: their bytes, both ways, and of the
   * time that the copies took, percent in which the GPU did not wait for them.
   */
  readonly copiedBytes?: number;
  readonly copiesHidden?: number;
  /** Memory ran out in it: it was begun anew, and from it on nothing is kept from forward to backward. */
  readonly ranOut?: true;
  /**
   * Methods on pairs. The reward of an answer is, of dpo, beta · (its weighted log-probability − that under the base),
   * of orpo beta · its log-probability per weight, nats. Share of the pairs whose chosen answer has the higher one;
   * means over the pairs of the difference, and of both.
   */
  readonly accuracy?: number;
  readonly margin?: number;
  readonly rewardChosen?: number;
  readonly rewardRejected?: number;
  /** Where the step was evaluated on the held-out rows (train.evalEvery), after the update: nats per weighted token. */
  readonly evalLoss?: number;
  /**
   * Share of the held-out answers (the final message; of text and tokens all that is trained) whose tokens are each the
   * most probable, what comes before them given.
   */
  readonly evalMatch?: number;
  /** Methods on pairs: evalLoss is that of the pairs, and these are as above over the held-out pairs. */
  readonly evalAccuracy?: number;
  readonly evalMargin?: number;
  readonly evalRewardChosen?: number;
  readonly evalRewardRejected?: number;
}

const metricsFile = (run: string): string => join(run, 'metrics.jsonl');

export const appendMetrics = (run: string, m: StepMetrics): void =>
  appendFileSync(metricsFile(run), `${JSON.stringify(m)}\n`);

/** Lines that can be read; a line cut off by a kill is passed over. */
export function readMetrics(run: string): StepMetrics[] {
  if (!existsSync(metricsFile(run))) return [];
  return readInputText(metricsFile(run), 'metrics')
    .split('\n')
    .flatMap((line) => {
      if (!line) return [];
      try {
        return [parseJson(line) as StepMetrics];
      } catch {
        return [];
      }
    });
}

/** Puts the line of a step in place of the one that is there. */
export function replaceMetrics(run: string, m: StepMetrics): void {
  const lines = readMetrics(run).map((old) => (old.step === m.step ? m : old));
  writeFileAtomic(metricsFile(run), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

/** Forgets what was measured after `step`: those steps will be run again. */
export function truncateMetrics(run: string, step: number): void {
  const kept = readMetrics(run).filter((m) => m.step <= step);
  writeFileAtomic(metricsFile(run), kept.map((m) => `${JSON.stringify(m)}\n`).join(''));
}
