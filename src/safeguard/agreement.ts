// Agreement of verdicts with what reviewers expect.
import type { Verdict } from './types.js';

/** A verdict as it is written: one line of the output file. */
export type VerdictRow = { readonly id: string; readonly line: number; readonly expect?: string | null } & Verdict;

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

/** Agreement of verdicts with their expectation; those without one are left out. */
export function agreementOf(rows: readonly VerdictRow[]): Agreement {
  let [tp, fp, fn, tn, unjudged, sameRule] = [0, 0, 0, 0, 0, 0];
  for (const v of rows) {
    if (v.expect === undefined) continue;
    const violates = v.expect !== null;
    if (v.outcome === 'unjudged') unjudged++;
    if (v.outcome === 'block' && violates) {
      tp++;
      if (v.rule === v.expect || v.rule?.startsWith(`${v.expect}.`)) sameRule++;
    } else if (violates) fn++;
    else if (v.outcome === 'allow') tn++;
    else fp++;
  }
  const ratio = (a: number, b: number): number | null => (b === 0 ? null : a / b);
  return {
    truePositives: tp,
    falsePositives: fp,
    falseNegatives: fn,
    trueNegatives: tn,
    unjudged,
    sameRule,
    precision: ratio(tp, tp + fp),
    recall: ratio(tp, tp + fn),
    f1: ratio(2 * tp, 2 * tp + fp + fn),
  };
}
