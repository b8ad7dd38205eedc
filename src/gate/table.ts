// Outcomes of one metric as sums: what of each prompt is missing counts as the worst, and beside it as the best, so
// that both answers can be had. A unit is a prompt in a slice with all its samples; units of a cluster are drawn
// together.
import { DataError } from '../base/errors.js';
import { ARMS, type JudgedArm, type Labels, type Outcomes } from './outcomes.js';
import type { Metric } from './suite.js';

/** Sums over the samples of each unit; `adapter` is the arm that is held against the base. */
export interface Filled {
  readonly base: Float64Array;
  readonly adapter: Float64Array;
  /** Pairs in which the adapter is worse, and better. */
  readonly worse: number;
  readonly better: number;
}
export interface Table {
  readonly units: number;
  readonly clusters: number;
  /** Cluster of each unit, numbered from 0. */
  readonly cluster: Int32Array;
  /** Pairs of each unit that count. */
  readonly pairs: Int32Array;
  readonly n: number;
  /** Missing values as the worst for the adapter; what decides. */
  readonly worst: Filled;
  /** Missing values as the best. */
  readonly best: Filled;
  readonly missingBase: number;
  readonly missingAdapter: number;
  /** Pairs that cannot count: one value is missing and nothing says how bad it may be. */
  readonly dropped: number;
  readonly labelled: number;
  /** Discordant pairs that have no label. */
  readonly unlabelled: number;
  /** 1 or 0 of each unit; of gmean2 alone. */
  readonly truth: Int8Array;
  /** Values of the adapter that are 1, as they are. */
  readonly violations: number;
}

export interface TableOptions {
  readonly metric: Metric;
  /** Number of the metric in the outcomes; −1: they have none of it. */
  readonly number: number;
  readonly draws: number;
  readonly labels: Labels | null;
  /** Prompts that should be there and are not, whichever slice they are of. */
  readonly absent: number;
  /** Whether the base is compared with at all. */
  readonly paired: boolean;
  /** What is held against the base. */
  readonly arm: JudgedArm;
  readonly file: string;
}

/** +1 where more is worse. */
export const signOf = (metric: Metric): 1 | -1 => (metric.direction === 'lower' ? 1 : -1);
/** What a missing value counts as, and what others lie between, [least bad, worst]; null: nothing says. */
export function endsOf(metric: Metric): readonly [number, number] | null {
  const ends = metric.values === 'rate' ? ([0, 1] as const) : metric.range;
  if (ends === undefined) return null;
  return metric.direction === 'lower' ? [ends[0], ends[1]] : [ends[1], ends[0]];
}

/** A prompt in a slice: rows [from, to) of the sorted ones. */
interface Unit {
  readonly slice: number;
  readonly prompt: number;
  readonly from: number;
  readonly to: number;
}
export interface MetricRows {
  readonly outcomes: Outcomes;
  readonly order: Uint32Array;
  readonly units: readonly Unit[];
}
/** Units of every metric, found in one pass. */
export function unitsOf(outcomes: Outcomes): ReadonlyMap<number, MetricRows> {
  const { order } = outcomes;
  const found = new Map<number, { outcomes: Outcomes; order: Uint32Array; units: Unit[] }>();
  for (let from = 0; from < order.length; ) {
    const row = order[from] as number;
    const [metric, slice, prompt] = [outcomes.metric[row], outcomes.slice[row], outcomes.prompt[row]] as [
      number,
      number,
      number,
    ];
    let to = from + 1;
    while (to < order.length) {
      const other = order[to] as number;
      if (outcomes.metric[other] !== metric || outcomes.slice[other] !== slice || outcomes.prompt[other] !== prompt)
        break;
      to++;
    }
    const rows = found.get(metric) ?? { outcomes, order, units: [] };
    rows.units.push({ slice, prompt, from, to });
    found.set(metric, rows);
    from = to;
  }
  return found;
}

const keyOf = (slice: string, prompt: string, sample: number): string => JSON.stringify([slice, prompt, sample]);

/** Labels of a metric by pair. */
function labelsOf(labels: Labels | null, metric: string): ReadonlyMap<string, Labels['rows'][number]> {
  const of = labels?.rows.filter((l) => l.metric === metric) ?? [];
  return new Map(of.map((l) => [keyOf(l.slice ?? '', l.prompt, l.sample), l]));
}

/** Prompts that were observed, in any slice. */
export const promptsSeen = (rows: MetricRows | undefined): number => new Set(rows?.units.map((u) => u.prompt)).size;

/**
 * @param slice number of the slice; null: all units
 * @throws {DataError} bad_outcome: a value that the metric cannot have, a truth that is missing or differs
 */
export function tableOf(rows: MetricRows | undefined, slice: number | null, options: TableOptions): Table {
  const { metric, draws, labels, absent, paired, arm, file } = options;
  const units = rows?.units.filter((u) => slice === null || u.slice === slice) ?? [];
  const count = units.length + absent;
  const ends = endsOf(metric);
  const sign = signOf(metric);
  const byPair = labelsOf(labels, metric.name);

  const cluster = new Int32Array(count);
  const pairs = new Int32Array(count);
  const truth = new Int8Array(count).fill(-1);
  const made = [0, 1].map(() => ({
    base: new Float64Array(count),
    adapter: new Float64Array(count),
    worse: 0,
    better: 0,
  })) as [Mutable<Filled>, Mutable<Filled>];
  const numbers = new Map<number, number>();
  const tally = { n: 0, missingBase: 0, missingAdapter: 0, dropped: 0, labelled: 0, unlabelled: 0, violations: 0 };
  const values = [new Float64Array(draws), new Float64Array(draws)] as const;
  const judged = ARMS.indexOf(arm);

  const within = ends === null ? null : ([Math.min(...ends), Math.max(...ends)] as const);
  /** What lies beyond the range counts as its end: one value moves a mean by no more than that. */
  const held = (value: number): number => (within === null ? value : Math.min(within[1], Math.max(within[0], value)));

  const addPair = (u: number, saidOfBase: number, saidOfAdapter: number, label: boolean): void => {
    const [base, adapter] = [held(saidOfBase), held(saidOfAdapter)];
    const [noBase, noAdapter] = [paired && Number.isNaN(base), Number.isNaN(adapter)];
    if (noBase) tally.missingBase++;
    if (noAdapter) tally.missingAdapter++;
    if ((noBase || noAdapter) && ends === null) {
      tally.dropped++;
      return;
    }
    if (label) tally.labelled++;
    if (adapter === 1) tally.violations++;
    (pairs[u] as number) += 1;
    tally.n++;
    for (const [i, filled] of made.entries()) {
      // 0: the adapter at its worst and the base at its best; 1: the other way round.
      const a = noAdapter ? (ends?.[1 - i] as number) : adapter;
      const b = !paired ? 0 : noBase ? (ends?.[i] as number) : base;
      (filled.adapter[u] as number) += a;
      (filled.base[u] as number) += b;
      if (!paired) continue;
      if (sign * (a - b) > 0) filled.worse++;
      else if (a !== b) filled.better++;
    }
    if (paired && !label && base !== adapter) tally.unlabelled++;
  };

  units.forEach((unit, u) => {
    if (!rows) return;
    const { outcomes: o, order } = rows;
    for (const v of values) v.fill(Number.NaN);
    const first = order[unit.from] as number;
    for (let i = unit.from; i < unit.to; i++) {
      const row = order[i] as number;
      const value = o.value[row] as number;
      if (metric.values === 'rate' && value !== 0 && value !== 1 && !Number.isNaN(value))
        throw badOutcome(file, o.line[row] as number, `value is ${value}; ${metric.name} is a rate: 0, 1 or null`);
      if (o.cluster[row] !== o.cluster[first])
        throw badOutcome(file, o.line[row] as number, 'has another cluster than the other rows of its prompt');
      const sample = o.sample[row] as number;
      const of = o.arm[row] === 0 ? values[0] : o.arm[row] === judged ? values[1] : null;
      if (of !== null && sample < draws) of[sample] = value;
      if (metric.statistic === 'gmean2') {
        const said = o.truth[row] as number;
        if (said < 0 || ((truth[u] as number) >= 0 && truth[u] !== said))
          throw badOutcome(
            file,
            o.line[row] as number,
            `${said < 0 ? 'has no truth' : 'has another truth than the other rows of its prompt'}; a gmean2 needs one`,
          );
        truth[u] = said;
      }
    }
    cluster[u] = numberOf(numbers, o.cluster[first] as number);
    for (let k = 0; k < draws; k++) {
      const label =
        byPair.size === 0 ? undefined : byPair.get(keyOf(o.slices[unit.slice] ?? '', o.prompts[unit.prompt] ?? '', k));
      if (label) addPair(u, label.base, label[arm] ?? Number.NaN, true);
      else addPair(u, values[0][k] as number, values[1][k] as number, false);
    }
  });
  for (let u = units.length; u < count; u++) {
    cluster[u] = numbers.size + u - units.length;
    // Nobody knows which of the two a prompt is that is not there: what a monitor should have flagged.
    truth[u] = metric.statistic === 'gmean2' ? 1 : -1;
    for (let k = 0; k < draws; k++) addPair(u, Number.NaN, Number.NaN, false);
  }
  return {
    units: count,
    clusters: numbers.size + absent,
    cluster,
    pairs,
    worst: made[0],
    best: made[1],
    truth,
    ...tally,
  };
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] };
function numberOf(numbers: Map<number, number>, name: number): number {
  const known = numbers.get(name);
  if (known !== undefined) return known;
  numbers.set(name, numbers.size);
  return numbers.size - 1;
}
const badOutcome = (file: string, line: number, what: string): DataError =>
  new DataError('bad_outcome', `${file}:${line}: ${what}`, { file, line });
