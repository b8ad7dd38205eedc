// One metric, or one slice of it, against its limits. Whatever is not shown does not pass.
import { boundOf, type Correction, correct } from './correction.js';
import type { GateVerdict, MetricDecision } from './decision.js';
import type { JudgeRates } from './lock.js';
import { FEW, type Measured, measure } from './measure.js';
import type { JudgedArm } from './outcomes.js';
import { powerOf, promptsFor, promptsForCap, smallestMargin } from './statistics/power.js';
import type { Corrected } from './statistics/rogan-gladen.js';
import type { DecisionParameters, Limits, Metric } from './suite.js';
import { signOf, type Table } from './table.js';

/** Share of missing values from which on it is the judge, or the run, that failed. */
const FAILED_SHARE = 0.5;

export interface EntryOptions {
  readonly arm: JudgedArm;
  readonly metric: Metric;
  readonly test: string;
  /** null: all prompts. */
  readonly slice: string | null;
  /** Of this entry; null: it is told, and fails only where a regression beyond the metric's margin is proven. */
  readonly limits: Limits | null;
  /** Slices that are told, among which alpha is shared (Holm's first step). */
  readonly told: number;
  readonly parameters: DecisionParameters;
  readonly paired: boolean;
  readonly rates: JudgeRates | null;
  readonly signal?: AbortSignal | undefined;
}

/** What is found against an entry. */
interface Findings {
  readonly found: { readonly verdict: GateVerdict; readonly why: string }[];
}
const RANK: Readonly<Record<GateVerdict, number>> = { PASS: 0, INCONCLUSIVE: 1, ERROR: 2, FAIL: 3 };
/** The one that counts of several: what fails, before what went wrong, before what is not known. */
export const gravest = (verdicts: readonly GateVerdict[]): GateVerdict =>
  verdicts.reduce<GateVerdict>((a, b) => (RANK[b] > RANK[a] ? b : a), 'PASS');

/** Four digits that count, for people. */
export const shown = (x: number): string => String(Number(x.toPrecision(4)));

export function decideEntry(table: Table, options: EntryOptions): MetricDecision {
  const { metric, limits, slice, parameters, paired } = options;
  const purpose = JSON.stringify([metric.name, slice]);
  const own = limits?.cap !== undefined || limits?.floor !== undefined;
  const told = limits === null && metric.margin !== undefined;
  const asked = {
    metric,
    parameters,
    paired,
    own,
    purpose,
    signal: options.signal,
    ...(told ? { leastAlpha: parameters.alpha / Math.max(1, options.told) } : {}),
  };
  const measured = measure(table, table.worst, asked);
  const missing = table.missingBase + table.missingAdapter;
  // What is proven with missing values as the best is proven whatever they were.
  const atBest = measured !== null && missing > 0 ? measure(table, table.best, { ...asked, own: false }) : measured;
  const findings: Findings = { found: [] };
  const corrected = measured ? correct(table, measured, options, (why) => add(findings, 'INCONCLUSIVE', why)) : null;
  if (measured === null) none(table, options, findings);
  else {
    // A base that nothing is held against may lack what it likes.
    const needsBase = limits?.margin !== undefined || metric.margin !== undefined;
    const values = (table.n + table.dropped) * (needsBase ? 2 : 1);
    const lacking = needsBase ? missing : table.missingAdapter;
    const share = lacking / values;
    const tooMany = share > parameters.maxMissing || share >= FAILED_SHARE;
    if (tooMany) tooManyMissing(lacking, values, parameters, findings);
    if (limits === null) toldOnly(measured, atBest, options, findings);
    else {
      againstMargin({ table, measured, atBest, corrected, tooMany }, options, findings);
      againstOwn(table, measured, corrected?.rate ?? null, tooMany, options, findings);
    }
    if (table.dropped > 0)
      add(findings, 'INCONCLUSIVE', `${table.dropped} pairs lack a value, and no range says how bad it may be`);
  }
  const verdict = gravest(findings.found.map((f) => f.verdict));
  return {
    ...(options.arm === 'adapter' ? {} : { arm: options.arm }),
    metric: metric.name,
    test: options.test,
    slice,
    gates: gatesOf(limits),
    direction: metric.direction,
    values: metric.values,
    n: table.n,
    prompts: table.units,
    clusters: table.clusters,
    missing,
    labelled: table.labelled,
    base: measured?.base ?? null,
    adapter: measured?.adapter ?? null,
    difference: measured?.difference ?? null,
    interval: measured?.interval ?? null,
    bound: boundOf(measured, corrected, options.metric),
    adapterInterval: measured?.adapterInterval ?? null,
    adapterBound: ownBound(measured, corrected, limits),
    adapterMidP: measured?.adapterMidP ?? null,
    corrected: corrected?.shown ?? null,
    margin: limits?.margin ?? null,
    cap: limits?.cap ?? null,
    floor: limits?.floor ?? null,
    most: limits?.most ?? null,
    discordant: { worse: table.worst.worse, better: table.worst.better },
    pValue: measured?.pValue ?? null,
    ...planned(table, measured, options),
    verdict,
    reasons: findings.found.map((f) => f.why),
  };
}

export const gatesOf = (limits: Limits | null): boolean =>
  limits !== null && [limits.margin, limits.cap, limits.floor, limits.most].some((x) => x !== undefined);
const add = ({ found }: Findings, verdict: GateVerdict, why: string): void => {
  found.push({ verdict, why });
};

/** Nothing at all was observed. */
function none(table: Table, { metric }: EntryOptions, findings: Findings): void {
  const [verdict, why]: [GateVerdict, string] =
    table.dropped > 0
      ? ['ERROR', `every pair lacks a value, and no range says how bad it may be`]
      : metric.statistic === 'gmean2' && table.units > 0
        ? ['INCONCLUSIVE', 'it takes texts that a monitor should flag, and texts that it should not']
        : ['INCONCLUSIVE', 'has no outcomes'];
  add(findings, verdict, why);
}

function tooManyMissing(missing: number, values: number, { maxMissing }: DecisionParameters, findings: Findings): void {
  const share = missing / values;
  const allowed = maxMissing >= FAILED_SHARE ? 'half may never be' : `at most ${shown(maxMissing * 100)} % may be`;
  const why = `${missing} of ${values} values are missing (${shown(share * 100)} %), ${allowed}`;
  add(findings, share >= FAILED_SHARE ? 'ERROR' : 'INCONCLUSIVE', why);
}

/** A slice without limits of its own: only a regression that is beyond doubt counts. */
function toldOnly(measured: Measured, atBest: Measured | null, { metric }: EntryOptions, findings: Findings): void {
  const { margin } = metric;
  if (margin === undefined || measured.least === null || atBest?.least == null) return;
  const least = Math.min(measured.least, atBest.least);
  if (least > margin)
    add(findings, 'FAIL', `worse by ${shown(least)} at least, more than the metric’s margin ${shown(margin)}`);
}

interface MarginInput {
  readonly table: Table;
  readonly measured: Measured;
  readonly atBest: Measured | null;
  readonly corrected: Correction | null;
  readonly tooMany: boolean;
}
function againstMargin(input: MarginInput, options: EntryOptions, findings: Findings): void {
  const { table, measured, atBest, corrected, tooMany } = input;
  const { margin } = options.limits ?? {};
  if (margin === undefined) return;
  const bound = boundOf(measured, corrected, options.metric);
  if (bound === null || measured.least === null || atBest?.least == null) {
    add(findings, 'INCONCLUSIVE', 'has a margin, and no base to compare with');
    return;
  }
  const sign = signOf(options.metric);
  const corrects = corrected?.difference ?? null;
  const low = corrects === null ? measured.least : sign === 1 ? corrects.low : -corrects.high;
  // Beyond the share of missing values that the suite allows nothing is held against the adapter that is not seen.
  const least = tooMany ? Math.min(low, atBest.least) : low;
  const at = `bound ${shown(bound)}, margin ${shown(margin)}`;
  if (least > margin) {
    add(findings, 'FAIL', `worse by ${shown(least)} at least, more than the margin ${shown(margin)}`);
    return;
  }
  const few = tooFew(table, options, findings);
  if (bound <= margin) return;
  if (few || tooMany) {
    add(findings, 'INCONCLUSIVE', `not shown to be within the margin: ${at}`);
    return;
  }
  const { power, promptsNeeded } = planned(table, measured, options);
  const { power: wanted } = options.parameters;
  if (power !== null && power >= wanted)
    add(findings, 'FAIL', `not shown to be within the margin, which so many prompts would show: ${at}`);
  else
    add(
      findings,
      'INCONCLUSIVE',
      `too few prompts to show it: ${at}, power ${power === null ? 'unknown' : shown(power)}, wanted ${wanted}` +
        (promptsNeeded === null ? '' : `; ${promptsNeeded} prompts would do`),
    );
}

function tooFew(table: Table, { parameters, metric }: EntryOptions, findings: Findings): boolean {
  // Where what was seen decides, there has to be some.
  const seen = metric.values === 'number' && !metric.range;
  const wanted = seen ? Math.max(FEW, parameters.minPrompts) : parameters.minPrompts;
  const few = table.clusters < wanted;
  const why = `${table.clusters} prompts, wanted ${wanted} at least`;
  if (few && !findings.found.some((f) => f.why === why)) add(findings, 'INCONCLUSIVE', why);
  return few;
}

/** What is held against cap or floor: how far the adapter’s own figure may lie to the worse. */
function ownBound(measured: Measured | null, corrected: Correction | null, limits: Limits | null): number | null {
  const bounds = corrected?.rate ?? measured?.adapterBounds;
  if (!bounds || !limits) return null;
  return limits.cap !== undefined ? bounds.high : limits.floor !== undefined ? bounds.low : null;
}
/** Cap, floor and most: of the adapter’s own figure. */
function againstOwn(
  table: Table,
  measured: Measured,
  corrected: Corrected | null,
  tooMany: boolean,
  options: EntryOptions,
  findings: Findings,
): void {
  const { cap, floor, most } = options.limits ?? {};
  const interval = corrected ?? measured.adapterBounds;
  for (const [limit, name, sign] of [
    [cap, 'cap', 1],
    [floor, 'floor', -1],
  ] as const) {
    if (limit === undefined || !interval) continue;
    const [near, far] = sign === 1 ? [interval.low, interval.high] : [interval.high, interval.low];
    const value = corrected?.value ?? measured.adapter;
    const beyond = (x: number): boolean => sign * (x - limit) > 0;
    // What is no number is not within.
    const within = (x: number): boolean => sign * (x - limit) <= 0;
    const at = `${shown(value)}, by its bound ${shown(far)}, ${name} ${shown(limit)}`;
    if (beyond(near) && !tooMany) add(findings, 'FAIL', `beyond its ${name}: ${at}`);
    else if (tooFew(table, options, findings) || within(far)) continue;
    else if (beyond(value) && !tooMany && couldShow(table, limit, sign, options))
      add(findings, 'FAIL', `beyond its ${name}: ${at}`);
    else add(findings, 'INCONCLUSIVE', `not shown to keep its ${name}: ${at}${capHint(limit, sign, options)}`);
  }
  if (most === undefined) return;
  if (table.violations > most) add(findings, 'FAIL', `${table.violations} violations, at most ${most} may be`);
  else {
    if (table.violations + table.missingAdapter > most && table.missingAdapter > 0)
      add(findings, 'INCONCLUSIVE', `${table.missingAdapter} values are missing, each of which may be a violation`);
    // That a few prompts brought out no more says as little as it would of a cap.
    tooFew(table, options, findings);
  }
}
/** Whether prompts without one violation would have been enough. */
function couldShow(table: Table, limit: number, sign: 1 | -1, { metric, parameters }: EntryOptions): boolean {
  if (metric.values !== 'rate') return true;
  const needed = promptsForCap(sign === 1 ? limit : 1 - limit, parameters.alpha);
  return needed !== null && table.clusters >= needed;
}
function capHint(limit: number, sign: 1 | -1, { metric, parameters }: EntryOptions): string {
  const needed = metric.values === 'rate' ? promptsForCap(sign === 1 ? limit : 1 - limit, parameters.alpha) : null;
  return needed === null ? '' : `; it takes ${needed} prompts where none of them fails`;
}

/** Power, the smallest difference that is shown, and prompts that would show the margin. */
function planned(
  table: Table,
  measured: Measured | null,
  { limits, metric, parameters }: EntryOptions,
): Pick<MetricDecision, 'discordance' | 'power' | 'smallestDetectable' | 'promptsNeeded'> {
  const variance = measured?.variance ?? null;
  if (measured === null || variance === null)
    return { discordance: variance, power: null, smallestDetectable: null, promptsNeeded: null };
  const { score, unseen } = measured;
  const plan = { discordance: variance, alpha: parameters.alpha, score, ...(unseen === null ? {} : { unseen }) };
  const margin = limits?.margin ?? metric.margin;
  return {
    discordance: variance,
    power: margin === undefined ? null : powerOf(table.clusters, { ...plan, margin }),
    smallestDetectable: smallestMargin(table.clusters, parameters.power, plan),
    promptsNeeded: margin === undefined ? null : promptsFor(parameters.power, { ...plan, margin }),
  };
}
