// The threshold of a judge under a policy, found on its golden set, and how well it does there.
import type { Calibration, FigureSet } from '../calibration.js';
import type { Judge, Policy } from '../types.js';
import { figuresOf, type Judged, underThreshold } from './figures.js';
import type { Golden } from './golden.js';
import { channelsOf, DEFAULT_FPR, DEFAULT_RESAMPLES, DEFAULT_SEED, type RunOptions } from './golden-run.js';
import { type Measured, type MeasureLimits, measureAll } from './measure.js';
import { indices } from './statistics.js';

const FOLDS = 5;

export interface CalibrateOptions extends RunOptions {
  readonly chosenBy?: 'f1' | 'fpr';
  readonly effort?: string | undefined;
}
export interface Calibrated {
  readonly entry: Calibration;
  readonly rows: readonly Measured[];
}

/**
 * Judges the golden set by the judge's own word and finds the threshold of its scores. Where it gives scores,
 * precision, recall and F1 are those of rows under a threshold found without them (five folds), which do not flatter.
 */
export async function calibrate(
  policy: Policy,
  judge: Judge,
  golden: Golden,
  options: CalibrateOptions = {},
  limits: MeasureLimits = {},
): Promise<Calibrated> {
  const rows = await measureAll(policy, judge, golden.cases, { ...limits, signal: options.signal });
  const { chosenBy = 'f1', effort = null } = options;
  const settings = {
    resamples: options.resamples ?? DEFAULT_RESAMPLES,
    seed: options.seed ?? DEFAULT_SEED,
    fpr: options.fpr ?? DEFAULT_FPR,
    signal: options.signal,
  };
  const { threshold } = figuresOf(rows, settings, chosenBy);
  const judged = threshold === null ? rows : outOfFold(rows, settings, chosenBy);
  const figures = (of: readonly Judged[]): FigureSet => {
    const { threshold: _, ...set } = figuresOf(of, settings);
    return set;
  };
  return {
    rows,
    entry: {
      policy: { name: policy.name, digest: policy.digest },
      // As verdicts have it: contract, effort and votes are part of it.
      judge: { name: judge.name, digest: rows[0]?.verdict.digests.judge ?? judge.digest },
      contract: policy.contract ?? 'temper',
      effort,
      golden: { digest: golden.digest, rows: golden.cases.length },
      fpr: settings.fpr,
      threshold,
      chosenBy,
      decidedBy: threshold === null ? 'word' : 'threshold',
      bootstrap: { resamples: settings.resamples, seed: settings.seed },
      overall: figures(judged),
      channels: Object.fromEntries(
        channelsOf(judged).map((name) => [name, figures(judged.filter((r) => r.channel === name))]),
      ),
    },
  };
}

/** Each row under the threshold of the rows of the other folds; folds hold the same share of each kind. */
function outOfFold(
  rows: readonly Judged[],
  settings: { readonly fpr: number; readonly seed: number },
  chosenBy: 'f1' | 'fpr',
): readonly Judged[] {
  const draw = indices(settings.seed);
  const fold = new Array<number>(rows.length).fill(0);
  for (const violates of [true, false]) {
    const own = rows.flatMap((r, i) => (r.violates === violates ? [i] : []));
    for (let i = own.length - 1; i > 0; i--) {
      const j = draw(i + 1);
      [own[i], own[j]] = [own[j] ?? 0, own[i] ?? 0];
    }
    own.forEach((row, i) => {
      fold[row] = i % FOLDS;
    });
  }
  const thresholds = Array.from({ length: FOLDS }, (_, f) => {
    const others = rows.filter((__, i) => fold[i] !== f);
    return figuresOf(others, { ...settings, resamples: 0 }, chosenBy).threshold?.value;
  });
  return rows.map((row, i) => {
    const threshold = thresholds[fold[i] ?? 0];
    // Without rows of both kinds in the others: the judge's word.
    return threshold === undefined ? row : (underThreshold([row], threshold)[0] ?? row);
  });
}
