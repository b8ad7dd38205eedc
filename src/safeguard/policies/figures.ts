// How well verdicts agree with a golden set, with intervals: overall and by channel. A row without a verdict counts as
// a mistake in every figure, whichever way it was expected.
import type { Estimate, FigureSet } from '../calibration.js';
import { type BootstrapOptions, bootstrap, type Figure, wilson } from './statistics.js';

/** One golden row as it was judged. */
export interface Judged {
  readonly channel: string;
  readonly violates: boolean;
  readonly outcome: 'allow' | 'block' | 'unjudged';
  /** Log-odds of a violation, nats; absent: the judge gives none. */
  readonly score?: number | undefined;
}

const BINS = 10;
const isMistake = (row: Judged): boolean => (row.violates ? row.outcome !== 'block' : row.outcome !== 'allow');

/** Rows by score, the highest first, with what a threshold between any two of them would do. */
interface Ranked {
  readonly order: readonly number[];
  readonly scores: Float64Array;
  readonly violates: readonly boolean[];
  /** Rows that no threshold mends: they have no verdict. */
  readonly lost: readonly number[];
}
/** null where some verdict has no score. */
function rank(rows: readonly Judged[]): Ranked | null {
  const all = rows.map((_, i) => i);
  const judged = all.filter((i) => rows[i]?.outcome !== 'unjudged');
  if (judged.length === 0 || judged.some((i) => !Number.isFinite(rows[i]?.score ?? Number.NaN))) return null;
  const scores = Float64Array.from(rows, (row) => row.score ?? 0);
  return {
    order: judged.sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0)),
    scores,
    violates: rows.map((row) => row.violates),
    lost: all.filter((i) => rows[i]?.outcome === 'unjudged'),
  };
}

/** Of each threshold from the highest on: it, and what is blocked by it. Rows that count no times are not there. */
function* sweep(
  { order, scores, violates }: Ranked,
  times: Float64Array,
): Generator<{ readonly threshold: number; readonly caught: number; readonly alarms: number }> {
  const rows = order.filter((row) => (times[row] ?? 0) > 0);
  const score = (k: number): number => scores[rows[k] ?? 0] ?? 0;
  let [caught, alarms] = [0, 0];
  if (rows.length > 0) yield { threshold: score(0) + 1, caught, alarms };
  for (let k = 0; k < rows.length; k++) {
    const row = rows[k] ?? 0;
    if (violates[row]) caught += times[row] ?? 0;
    else alarms += times[row] ?? 0;
    if (k + 1 < rows.length && score(k + 1) === score(k)) continue;
    // Half way to the next lower score: as far from either as can be.
    yield { threshold: k + 1 < rows.length ? (score(k) + score(k + 1)) / 2 : score(k) - 1, caught, alarms };
  }
}
const total = (ranked: Ranked, times: Float64Array, violating: boolean): { all: number; lost: number } => {
  let [all, lost] = [0, 0];
  for (let i = 0; i < times.length; i++) if (ranked.violates[i] === violating) all += times[i] ?? 0;
  for (const i of ranked.lost) if (ranked.violates[i] === violating) lost += times[i] ?? 0;
  return { all, lost };
};

/** The lowest threshold that blocks at most `fpr` of the safe rows, and the recall there. */
function atFpr(ranked: Ranked, times: Float64Array, fpr: number): { threshold: number; recall: number } | null {
  const [safe, violating] = [total(ranked, times, false), total(ranked, times, true)];
  if (safe.all === 0 || violating.all === 0) return null;
  let best: { threshold: number; recall: number } | null = null;
  for (const { threshold, caught, alarms } of sweep(ranked, times))
    if ((alarms + safe.lost) / safe.all <= fpr) best = { threshold, recall: caught / violating.all };
  // Rows without a verdict alone are more than that: no threshold reaches it.
  return best ?? { threshold: (ranked.scores[ranked.order[0] ?? 0] ?? 0) + 1, recall: 0 };
}

/** The threshold with the highest F1; of equals the lowest, which misses least. */
function atF1(ranked: Ranked, times: Float64Array): { threshold: number; f1: number } | null {
  const [safe, violating] = [total(ranked, times, false), total(ranked, times, true)];
  if (safe.all === 0 || violating.all === 0) return null;
  let best = { threshold: 0, f1: -1 };
  for (const { threshold, caught, alarms } of sweep(ranked, times)) {
    const f1 = (2 * caught) / (caught + alarms + safe.lost + violating.all);
    if (f1 >= best.f1) best = { threshold, f1 };
  }
  return best;
}

/** Expected calibration error in bins of equal width; of rows with a verdict. */
function ece({ order, scores, violates }: Ranked, times: Float64Array): number | null {
  const [n, p, y] = [new Float64Array(BINS), new Float64Array(BINS), new Float64Array(BINS)];
  for (const i of order) {
    const probability = 1 / (1 + Math.exp(-(scores[i] ?? 0)));
    const bin = Math.min(BINS - 1, Math.floor(probability * BINS));
    n[bin] = (n[bin] ?? 0) + (times[i] ?? 0);
    p[bin] = (p[bin] ?? 0) + probability * (times[i] ?? 0);
    if (violates[i]) y[bin] = (y[bin] ?? 0) + (times[i] ?? 0);
  }
  const rows = n.reduce((a, b) => a + b, 0);
  return rows === 0 ? null : p.reduce((sum, of, bin) => sum + Math.abs(of - (y[bin] ?? 0)), 0) / rows;
}

function f1Of(rows: readonly Judged[]): Figure {
  return (times) => {
    let [tp, wrong] = [0, 0];
    rows.forEach((row, i) => {
      if (isMistake(row)) wrong += times[i] ?? 0;
      else if (row.violates) tp += times[i] ?? 0;
    });
    return tp + wrong === 0 ? null : (2 * tp) / (2 * tp + wrong);
  };
}

export interface FigureOptions extends BootstrapOptions {
  readonly fpr: number;
}
/** @param chosenBy how the threshold is found */
export function figuresOf(
  rows: readonly Judged[],
  options: FigureOptions,
  chosenBy: 'f1' | 'fpr' = 'f1',
): FigureSet & { readonly threshold: Estimate } {
  const [violating, safe] = [rows.filter((r) => r.violates), rows.filter((r) => !r.violates)];
  const caught = violating.filter((r) => r.outcome === 'block').length;
  const alarms = safe.filter((r) => r.outcome !== 'allow').length;
  const ranked = rank(rows);
  const by = <T>(get: (ranked: Ranked, times: Float64Array) => T | null): ((times: Float64Array) => T | null) => {
    return (times) => (ranked ? get(ranked, times) : null);
  };
  const estimates = bootstrap(
    rows.length,
    strataOf(rows),
    {
      f1: f1Of(rows),
      recallAtFpr: by((r, times) => atFpr(r, times, options.fpr)?.recall ?? null),
      ece: by(ece),
      threshold: by((r, times) =>
        chosenBy === 'f1' ? (atF1(r, times)?.threshold ?? null) : (atFpr(r, times, options.fpr)?.threshold ?? null),
      ),
    },
    options,
  );
  return {
    rows: rows.length,
    violating: violating.length,
    unjudged: rows.filter((r) => r.outcome === 'unjudged').length,
    scored: rows.filter((r) => r.score !== undefined && r.outcome !== 'unjudged').length,
    precision: wilson(caught, caught + alarms),
    recall: wilson(caught, violating.length),
    falsePositives: wilson(alarms, safe.length),
    ...estimates,
  };
}

/** Rows of one channel and one expectation are drawn among themselves. */
function strataOf(rows: readonly Judged[]): readonly (readonly number[])[] {
  const strata = new Map<string, number[]>();
  rows.forEach((row, i) => {
    const key = `${row.violates} ${row.channel}`;
    const stratum = strata.get(key);
    if (stratum) stratum.push(i);
    else strata.set(key, [i]);
  });
  return [...strata.values()];
}

/** The same rows under a threshold: what the judge said gives way to the score. */
export const underThreshold = (rows: readonly Judged[], threshold: number): readonly Judged[] =>
  rows.map((row) =>
    row.outcome === 'unjudged' || row.score === undefined
      ? row
      : { ...row, outcome: row.score < threshold ? 'allow' : 'block' },
  );
