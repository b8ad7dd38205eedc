// Agreement of verdicts with what reviewers expect.
import type { Verdict } from './types.js';

/** A verdict as it is written: one line of the output file. */
export type VerdictRow = {
  /** Of one shard of several: which row of all it is of, from 0. */
  readonly row?: number;
  readonly id: string;
  readonly line: number;
  /** Where several files were screened. */
  readonly file?: string;
  readonly expect?: string | null;
} & Verdict;

/**
 * `unjudged` counts as a miss of a violation and as a false alarm on a clean text: it never helps. A ratio of nothing
 * (no block at all: precision) is null, not 1.
 */
export interface Agreement {
  readonly truePositives: number;
  readonly falsePositives: number;
  readonly falseNegatives: number;
  readonly trueNegatives: number;
  readonly unjudged: number;
  /** Blocks that cite the expected rule, or a case of it: C2.a where C2 is expected. */
  readonly sameRule: number;
  readonly precision: number | null;
  readonly recall: number | null;
  readonly f1: number | null;
}

/** Three decimals; a ratio of nothing in words. */
export const ratioText = (ratio: number | null): string => (ratio === null ? 'undefined' : ratio.toFixed(3));

/** Counts verdicts with an expectation as they come; those without one are left out. */
export class AgreementCount {
  #tp = 0;
  #fp = 0;
  #fn = 0;
  #tn = 0;
  #unjudged = 0;
  #sameRule = 0;

  add(v: Pick<VerdictRow, 'expect' | 'outcome' | 'rule'>): void {
    if (v.expect === undefined) return;
    const violates = v.expect !== null;
    if (v.outcome === 'unjudged') this.#unjudged++;
    if (v.outcome === 'block' && violates) {
      this.#tp++;
      if (v.rule === v.expect || v.rule?.startsWith(`${v.expect}.`)) this.#sameRule++;
    } else if (violates) this.#fn++;
    else if (v.outcome === 'allow') this.#tn++;
    else this.#fp++;
  }
  get counted(): number {
    return this.#tp + this.#fp + this.#fn + this.#tn;
  }
  result(): Agreement {
    const ratio = (a: number, b: number): number | null => (b === 0 ? null : a / b);
    const [tp, fp, fn] = [this.#tp, this.#fp, this.#fn];
    return {
      truePositives: tp,
      falsePositives: fp,
      falseNegatives: fn,
      trueNegatives: this.#tn,
      unjudged: this.#unjudged,
      sameRule: this.#sameRule,
      precision: ratio(tp, tp + fp),
      recall: ratio(tp, tp + fn),
      f1: ratio(2 * tp, 2 * tp + fp + fn),
    };
  }
}

/** Agreement of verdicts with their expectation; those without one are left out. */
export function agreementOf(rows: readonly VerdictRow[]): Agreement {
  const count = new AgreementCount();
  for (const v of rows) count.add(v);
  return count.result();
}
