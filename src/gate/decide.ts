// The decision as a pure function: outcomes, suite, lock and labels in, PASS, FAIL, INCONCLUSIVE or ERROR out. No
// clock, no file, no order of rows, no number of threads has a say in it, so that anyone can decide again and get the
// same.
import { digestsOf, type PairCells, pairKey } from './cells.js';
import {
  counts,
  DECISION_SCHEMA,
  type Decision,
  EXIT_OF,
  type GateVerdict,
  type MetricDecision,
  type Subject,
} from './decision.js';
import { labelledOf } from './labelled.js';
import { type Lock, lockDigest, lockFaults, type SuiteFiles } from './lock.js';
import { ARMS, type Arm, type JudgedArm, judgedArms, type Labels, type Outcomes } from './outcomes.js';
import { drawsOf, type Limits, type LoadedSuite, type Metric, type Test } from './suite.js';
import { type MetricRows, promptsSeen, tableOf, unitsOf } from './table.js';
import { decideEntry, gatesOf, gravest } from './verdict.js';

export interface DecideInput {
  readonly outcomes: Outcomes;
  readonly suite: LoadedSuite;
  /** null: nothing was locked, which is noted. */
  readonly lock: Lock | null;
  /** What the suite's files hold; null: they are not at hand. */
  readonly files: SuiteFiles | null;
  readonly labels?: Labels | null;
  /** What labels that name outcomes by digest are about, by pairKey. */
  readonly cells?: ReadonlyMap<string, PairCells> | null;
  readonly subject?: Subject | null;
  /** Of Temper. */
  readonly version: string;
  /** Name of the outcomes in messages. */
  readonly file?: string;
}
export interface DecideOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of entries done and entries in all. */
  readonly onProgress?: ((done: number, of: number) => void) | undefined;
}

/**
 * @throws {DataError} bad_outcome: a value that its metric cannot have · the signal's reason
 */
export function decide(input: DecideInput, options: DecideOptions = {}): Decision {
  const faults = integrityFaults(input);
  const metrics = faults.length > 0 ? [] : entriesOf(input, options);
  const verdict = faults.length > 0 ? 'ERROR' : verdictOf(metrics);
  const { outcomes, suite, lock, labels } = input;
  const counted = faults.length === 0 && labels && labels.rows.length > 0 ? labels : null;
  return {
    schema: DECISION_SCHEMA,
    decision: verdict,
    exit: faults.length > 0 ? 40 : EXIT_OF[verdict],
    reasons:
      faults.length > 0
        ? [...faults]
        : metrics
            .filter((m) => counts(m) && m.verdict !== 'PASS')
            .flatMap((m) => m.reasons.map((r) => `${nameOf(m)}: ${r}`)),
    notes: notesOf(input, metrics),
    rule: 'intersection-union',
    parameters: suite.suite.decision,
    metrics,
    subject: input.subject ?? null,
    lock: lock === null ? null : lockDigest(lock),
    suite: suite.digest,
    outcomes: outcomes.digest,
    labels: labels?.digest ?? null,
    ...(counted
      ? { labelled: labelledOf(counted, outcomes, verdictOf(entriesOf({ ...input, labels: null }, options))) }
      : {}),
    judge: lock?.judge?.digest ?? null,
    tool: { name: 'temper', version: input.version },
  };
}

const verdictOf = (metrics: readonly MetricDecision[]): GateVerdict =>
  gravest(metrics.filter(counts).map((m) => m.verdict));
const nameOf = (m: MetricDecision): string =>
  (m.arm === undefined ? '' : `${m.arm}: `) +
  (m.slice === null ? m.metric : `${m.metric}, slice ${JSON.stringify(m.slice)}`);

/** What is not what was locked, or what no suite asked for; nothing is decided of it. */
function integrityFaults(input: DecideInput): readonly string[] {
  const { outcomes, suite, lock, files, labels, cells, subject } = input;
  const faults = lock === null ? [] : [...lockFaults(lock, suite, files)];
  const merged = judgedArms(outcomes).includes('merged');
  if (subject && merged !== (subject.merged !== undefined))
    faults.push(
      merged ? 'outcomes of a merged checkpoint that the subject does not name' : 'no outcome of the merged checkpoint',
    );
  const tests = new Map(suite.suite.tests.flatMap((t) => t.metrics.map((m): [string, Test] => [m.name, t])));
  const unknown = outcomes.metrics.filter((name) => !tests.has(name));
  if (unknown.length > 0) faults.push(`outcomes of what the suite has not: ${list(unknown)}`);
  for (const [number, rows] of unitsOf(outcomes)) {
    const name = outcomes.metrics[number] as string;
    const [seen, wanted] = [promptsSeen(rows), promptsOf(input, name)];
    if (wanted !== null && seen > wanted)
      faults.push(`outcomes of ${seen} prompts of ${JSON.stringify(name)}, which has ${wanted}`);
    const foreign = foreignPrompts(rows, files?.ids?.[name]);
    if (foreign.length > 0) faults.push(`outcomes of prompts that ${JSON.stringify(name)} has not: ${list(foreign)}`);
  }
  const draws = outcomes.metrics.map((name) => {
    const test = tests.get(name);
    return test ? drawsOf(suite.suite, test) : Number.POSITIVE_INFINITY;
  });
  for (let i = 0; i < outcomes.count; i++)
    if ((outcomes.sample[i] as number) >= (draws[outcomes.metric[i] as number] as number)) {
      const metric = outcomes.metrics[outcomes.metric[i] as number];
      faults.push(
        `line ${outcomes.line[i]}: sample ${outcomes.sample[i]} of ${metric}, ` +
          `which has ${draws[outcomes.metric[i] as number]}`,
      );
      break;
    }
  if (lock !== null) {
    const judges = outcomes.judges.filter((d) => d !== lock.judge?.digest);
    if (judges.length > 0) faults.push(`outcomes of another judge than the lock’s: ${list(judges)}`);
    const locked = new Set(lock.files.map((f) => f.digest));
    const policies = outcomes.policies.filter((d) => !locked.has(d));
    if (policies.length > 0) faults.push(`outcomes under a policy that the lock has not: ${list(policies)}`);
  }
  if (labels) faults.push(...labelFaults(labels, outcomes, suite, cells ?? null));
  return faults;
}
/** Of a prompt that was asked for another suite, or of a made-up one, nothing says what it is worth here. */
const foreignPrompts = ({ outcomes, units }: MetricRows, ids: ReadonlySet<string> | undefined): readonly string[] =>
  ids === undefined
    ? []
    : [...new Set(units.map((u) => outcomes.prompts[u.prompt] as string))].filter((prompt) => !ids.has(prompt));
const list = (names: readonly string[]): string =>
  names
    .slice(0, 5)
    .map((n) => JSON.stringify(n))
    .join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');

function labelFaults(
  labels: Labels,
  outcomes: Outcomes,
  { suite }: LoadedSuite,
  cells: DecideInput['cells'],
): readonly string[] {
  if (labels.rows.length === 0) return [];
  const metrics = new Map(suite.tests.flatMap((t) => t.metrics.map((m): [string, Metric] => [m.name, m])));
  const arms = judgedArms(outcomes);
  const there = new Set<string>();
  for (let i = 0; i < outcomes.count; i++)
    there.add(
      JSON.stringify([
        outcomes.metrics[outcomes.metric[i] as number],
        outcomes.slices[outcomes.slice[i] as number],
        outcomes.prompts[outcomes.prompt[i] as number],
        outcomes.sample[i],
      ]),
    );
  for (const l of labels.rows) {
    const at = `${labels.file}:${l.line}: `;
    const metric = metrics.get(l.metric);
    if (!metric?.judged) return [`${at}a label of ${JSON.stringify(l.metric)}, which no judge judges`];
    if (!there.has(JSON.stringify([l.metric, l.slice ?? '', l.prompt, l.sample])))
      return [`${at}a label of a pair that was not observed`];
    const about = digestsOf(cells?.get(pairKey(l)) ?? {});
    if (l.of && ARMS.some((arm) => l.of?.[arm] !== about[arm])) return [`${at}a label of another run's outcome`];
    const said = [l.base, ...arms.map((arm) => l[arm])];
    if (said.includes(undefined)) return [`${at}a label that says nothing of the merged checkpoint`];
    if (metric.values === 'rate' && said.some((v) => v !== 0 && v !== 1)) return [`${at}a label of a rate is 0 or 1`];
  }
  return [];
}

function notesOf({ suite, lock, files, labels }: DecideInput, metrics: readonly MetricDecision[]): string[] {
  const notes: string[] = [];
  if (lock === null) notes.push('no lock: thresholds may have been chosen after the outcomes were seen');
  if (files === null) notes.push('the suite’s files are not at hand: their digests are the lock’s word');
  if (labels)
    notes.push(
      `${metrics
        .filter((m) => m.slice === null && m.arm === undefined)
        .reduce((n, m) => n + m.labelled, 0)} pairs count as people say`,
    );
  const judged = suite.suite.tests.flatMap((t) => t.metrics.filter((m) => m.judged).map((m) => m.name));
  if (judged.length > 0 && !lock?.judge?.calibration)
    notes.push(`not corrected for errors of the judge, of which the lock has no calibration: ${judged.join(', ')}`);
  const told = metrics.filter((m) => !m.gates && m.slice === null && m.arm === undefined).map((m) => m.metric);
  if (told.length > 0) notes.push(`told, without limits: ${told.join(', ')}`);
  return notes;
}

interface Planned {
  readonly arm: JudgedArm;
  readonly test: Test;
  readonly metric: Metric;
  readonly slice: string | null;
  readonly limits: Limits | null;
  readonly told: number;
}
/** A metric as a whole, slices that have limits, slices that were seen. */
function entriesFor(arm: JudgedArm, test: Test, metric: Metric, seen: readonly string[]): readonly Planned[] {
  const { slices = {}, ...own } = metric;
  const known = [...new Set([...Object.keys(slices).filter((s) => s !== '*'), ...seen])].sort();
  // Limits of every slice where there is none: nothing was held to them.
  const names = known.length === 0 && slices['*'] !== undefined ? ['*'] : known;
  const limitsOf = (slice: string): Limits | null =>
    (Object.hasOwn(slices, slice) ? slices[slice] : slices['*']) ?? null;
  const told = names.filter((s) => limitsOf(s) === null).length;
  return [
    { arm, test, metric, slice: null, limits: own, told },
    ...names.map((slice) => ({ arm, test, metric, slice, limits: limitsOf(slice), told })),
  ];
}

function entriesOf(input: DecideInput, { signal, onProgress }: DecideOptions): MetricDecision[] {
  const { outcomes, suite, lock, labels = null } = input;
  const units = unitsOf(outcomes);
  const number = new Map(outcomes.metrics.map((name, i) => [name, i]));
  const slice = new Map(outcomes.slices.map((name, i) => [name, i]));
  const hasBase = basesOf(outcomes);
  const planned = judgedArms(outcomes).flatMap((arm) =>
    suite.suite.tests.flatMap((test) =>
      test.metrics.flatMap((metric) => {
        const rows = units.get(number.get(metric.name) ?? -1);
        return entriesFor(arm, test, metric, slicesOf(rows));
      }),
    ),
  );
  return planned.map((entry, i) => {
    signal?.throwIfAborted();
    const { metric, test } = entry;
    const at = number.get(metric.name) ?? -1;
    // Without a margin, and without a row of the base, nobody asked what the base does.
    const paired = hasBase[at] === 1 || metric.margin !== undefined || entry.limits?.margin !== undefined;
    const table = tableOf(units.get(at), entry.slice === null ? null : (slice.get(entry.slice) ?? -1), {
      metric,
      number: at,
      draws: drawsOf(suite.suite, test),
      labels,
      // Nobody knows which slice a prompt is of that is not there: it counts in each that has limits.
      absent: entry.slice === null || gatesOf(entry.limits) ? absentOf(input, metric.name, units.get(at)) : 0,
      paired,
      arm: entry.arm,
      file: input.file ?? 'outcomes',
    });
    const decided = decideEntry(table, {
      ...entry,
      test: test.name,
      limits: entry.slice === null || gatesOf(entry.limits) ? entry.limits : null,
      parameters: suite.suite.decision,
      paired,
      rates: lock?.judge?.calibration?.rates ?? null,
      signal,
    });
    onProgress?.(i + 1, planned.length);
    return decided;
  });
}
/** Prompts that a metric has, null: nobody knows. */
const promptsOf = ({ lock, files }: DecideInput, metric: string): number | null =>
  (lock?.prompts ?? files?.prompts)?.[metric] ?? null;
/** Prompts of a metric that are not there at all. */
const absentOf = (input: DecideInput, metric: string, rows: MetricRows | undefined): number =>
  Math.max(0, (promptsOf(input, metric) ?? 0) - promptsSeen(rows));
function basesOf(o: Outcomes): Uint8Array {
  const has = new Uint8Array(o.metrics.length);
  for (let i = 0; i < o.count; i++) if (o.arm[i] === 0) has[o.metric[i] as number] = 1;
  return has;
}
function slicesOf(rows: MetricRows | undefined): readonly string[] {
  if (!rows) return [];
  const numbers = new Set(rows.units.map((u) => u.slice));
  return [...numbers].map((n) => rows.outcomes.slices[n] as string).filter((s) => s !== '');
}

/** Pairs of judged metrics that differ and have no label: what a person may look at. */
export interface DiscordantPair {
  readonly metric: string;
  readonly slice: string | null;
  readonly prompt: string;
  readonly sample: number;
  readonly base: number | null;
  readonly adapter: number | null;
  /** Absent: no outcome is of a merged checkpoint. */
  readonly merged?: number | null;
}
/** @param metrics names; in the order of metric, slice, prompt and sample */
export function discordantPairs(outcomes: Outcomes, metrics: ReadonlySet<string>): readonly DiscordantPair[] {
  const found: DiscordantPair[] = [];
  const arms: readonly Arm[] = ['base', ...judgedArms(outcomes)];
  for (const [number, rows] of unitsOf(outcomes)) {
    const metric = outcomes.metrics[number] as string;
    if (!metrics.has(metric)) continue;
    for (const unit of rows.units) {
      const samples = new Map<number, (number | null)[]>();
      for (let i = unit.from; i < unit.to; i++) {
        const row = rows.order[i] as number;
        const pair = samples.get(outcomes.sample[row] as number) ?? arms.map(() => null);
        const value = outcomes.value[row] as number;
        pair[outcomes.arm[row] as number] = Number.isNaN(value) ? null : value;
        samples.set(outcomes.sample[row] as number, pair);
      }
      for (const [sample, [base = null, adapter = null, merged]] of samples)
        if (base !== adapter || base === null || (merged !== undefined && merged !== base))
          found.push({
            metric,
            slice: outcomes.slices[unit.slice] || null,
            prompt: outcomes.prompts[unit.prompt] as string,
            sample,
            base,
            adapter,
            ...(merged === undefined ? {} : { merged }),
          });
    }
  }
  return found;
}
