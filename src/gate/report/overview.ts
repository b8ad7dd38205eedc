// What a gate's report tells, counted once from decision, suite and outcomes: which metrics hold, which prompts an arm
// is worse on than its base, what was thought beside what was said, and what it cost. Texts are kept of a few pairs.
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import { placeOf } from '../cells.js';
import { counts, type Decision, type MetricDecision } from '../decision.js';
import { nextOf } from '../next.js';
import { ARMS, type Arm, type JudgedArm } from '../outcomes.js';
import { type ReaderFields, readable, type Said } from '../reader-fields.js';
import type { Metric, Suite, Test } from '../suite.js';
import { armOf, wholeOf } from './words.js';

/** Pairs whose texts are shown, of one metric; prompts that are named, of one entry. */
const EXAMPLES = 6;
export const NAMED = 200;
const MOST_TEXT = 4000;

/** What the report reads of a row; the rest is for others. */
interface Outcome {
  readonly metric: string;
  readonly slice?: string | null;
  readonly prompt: string;
  readonly sample: number;
  readonly arm: Arm;
  readonly value: number | null;
}
type Row = Outcome & ReaderFields;
/** One prompt and sample on which an arm differs from the base. */
export interface Pair {
  readonly arm: JudgedArm;
  readonly metric: string;
  readonly slice: string | null;
  readonly prompt: string;
  readonly sample: number;
  readonly base: number | null;
  /** Of the arm. */
  readonly adapter: number | null;
  /** Lines of the outcomes, from 1, of the arm's row. */
  readonly line: number;
  readonly test: string | null;
  readonly case: number | null;
}
export interface Example extends Pair {
  /** null: the outcomes have no texts. */
  readonly asked: string | null;
  readonly said: Readonly<Record<'base' | 'adapter', Said | null>>;
}
/** A figure of each arm that answered. */
export type ByArm<T> = Readonly<Partial<Record<Arm, T>>>;
export const STATES = ['safe', 'unsafe', 'unjudged'] as const;
export type State = (typeof STATES)[number];
export type Matrix = Readonly<Record<State, Readonly<Record<State, number>>>>;
export interface Cost {
  /** null: the outcomes do not say. */
  readonly tokens: ByArm<number> | null;
  readonly rows: number;
  readonly seconds: number | null;
}
/** A metric of an arm as a whole, or a slice of it, as it was decided, and where the arm is worse. */
export interface Entry {
  readonly of: MetricDecision;
  readonly metric: Metric | null;
  readonly test: Test | null;
  /** Worse pairs, of which at most NAMED are here. */
  readonly worse: readonly Pair[];
  readonly worseCount: number;
  readonly betterCount: number;
  /** What to do about it; null: it passed. */
  readonly next: string | null;
}
export interface Overview {
  readonly decision: Decision;
  readonly suite: Suite;
  /** Arms that answered, the base first. */
  readonly arms: readonly Arm[];
  /** Whole metrics, arm after arm, by weight and then as the suite has them. */
  readonly metrics: readonly Entry[];
  /** Slices of each metric, by wholeOf. */
  readonly slices: ReadonlyMap<string, readonly Entry[]>;
  /** What decided against it, or left it open: the gravest first. */
  readonly findings: readonly Entry[];
  /** By wholeOf. */
  readonly examples: ReadonlyMap<string, readonly Example[]>;
  /** null: no test judges traces and finals apart. */
  readonly matrix: ByArm<Matrix> | null;
  /** Why values are missing, and how many. */
  readonly causes: readonly (readonly [cause: string, count: number])[];
  readonly cost: Cost;
  /** Of all tests. */
  readonly prompts: number;
}

async function* rowsOf(file: string): AsyncGenerator<readonly [row: Row, line: number], void, void> {
  let rest = Buffer.alloc(0),
    line = 0;
  for await (const piece of inputPieces(file)) {
    let bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
      line++;
      const text = bytes.toString('utf8', 0, end).trim();
      bytes = bytes.subarray(end + 1);
      if (text !== '') yield [readable<Outcome>(parseJson(text)), line];
    }
    rest = Buffer.from(bytes);
  }
  const text = rest.toString('utf8').trim();
  if (text !== '') yield [readable<Outcome>(parseJson(text)), line + 1];
}

const keyOf = (r: Pick<Row, 'metric' | 'slice' | 'prompt' | 'sample'>): string =>
  JSON.stringify([r.metric, r.slice ?? null, r.prompt, r.sample]);
const nothing = (): Record<State, Record<State, number>> =>
  Object.fromEntries(STATES.map((a) => [a, Object.fromEntries(STATES.map((b) => [b, 0]))])) as Record<
    State,
    Record<State, number>
  >;
const isState = (text: string | undefined): text is State => STATES.some((s) => s === text);

interface Counted {
  readonly pairs: readonly Pair[];
  readonly matrix: ByArm<Matrix> | null;
  readonly causes: ReadonlyMap<string, number>;
  readonly tokens: ByArm<number> | null;
  readonly rows: number;
  readonly prompts: number;
}
/**
 * Missing values count as the decision has them: the worst for the adapter. Numbers always differ a little: of them no
 * single pair says anything.
 */
function isWorse({ base, adapter }: Pick<Pair, 'base' | 'adapter'>, metric: Metric | undefined): boolean | null {
  if (metric?.values !== 'rate') return null;
  const bad = metric.direction === 'lower' ? 1 : 0;
  const [a, b] = [adapter ?? bad, base ?? 1 - bad];
  return a === b ? null : metric.direction === 'lower' ? a > b : a < b;
}

interface Cell {
  readonly value: number | null;
  readonly line: number;
}
async function countRows(
  file: string,
  metrics: ReadonlyMap<string, Metric>,
  arms: readonly Arm[],
  signal?: AbortSignal,
): Promise<Counted> {
  const open = new Map<string, Map<Arm, Cell>>();
  const pairs: Pair[] = [],
    causes = new Map<string, number>(),
    matrix = Object.fromEntries(arms.map((arm) => [arm, nothing()])),
    tokens = Object.fromEntries(arms.map((arm) => [arm, 0])),
    cases = new Set<string>(),
    prompts = new Set<string>();
  let rows = 0,
    hasMatrix = false,
    hasTokens = false;
  for await (const [row, line] of rowsOf(file)) {
    if ((++rows & 1023) === 0) signal?.throwIfAborted();
    prompts.add(`${row.test ?? row.metric} ${row.prompt}`);
    if (row.value === null) causes.set(row.cause ?? 'unknown', (causes.get(row.cause ?? 'unknown') ?? 0) + 1);
    if (row.tokens !== undefined) {
      hasTokens = true;
      tokens[row.arm] = (tokens[row.arm] ?? 0) + row.tokens;
    }
    const [trace, final] = row.matrix?.split('/') ?? [];
    const once = `${row.test} ${row.case} ${row.arm} ${row.sample} ${row.prompt}`;
    const own = matrix[row.arm];
    if (own && isState(trace) && isState(final) && !cases.has(once)) {
      cases.add(once);
      hasMatrix = true;
      own[trace][final]++;
    }
    const key = keyOf(row),
      cells = open.get(key) ?? new Map<Arm, Cell>();
    cells.set(row.arm, { value: row.value, line });
    open.set(key, cells);
    if (cells.size < arms.length) continue;
    open.delete(key);
    pairs.push(...pairsOf(row, cells, metrics.get(row.metric)));
  }
  return {
    pairs,
    matrix: hasMatrix ? matrix : null,
    causes,
    tokens: hasTokens ? tokens : null,
    rows,
    prompts: prompts.size,
  };
}
/** Arms of one prompt and sample that differ from the base. */
function pairsOf(row: Row, cells: ReadonlyMap<Arm, Cell>, metric: Metric | undefined): readonly Pair[] {
  const { metric: name, slice = null, prompt, sample, test = null, case: of = null } = row;
  const base = cells.get('base')?.value ?? null;
  return [...cells].flatMap(([arm, { value, line }]): readonly Pair[] => {
    if (arm === 'base' || isWorse({ base, adapter: value }, metric) === null) return [];
    return [{ arm, metric: name, slice, prompt, sample, base, adapter: value, line, test, case: of }];
  });
}

const cut = (text: string): string => (text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT).toWellFormed()}…` : text);
/** Texts of examples, by their place. */
async function textsOf(file: string, wanted: ReadonlySet<string>): Promise<ReadonlyMap<string, Row>> {
  const found = new Map<string, Row>();
  if (wanted.size === 0) return found;
  for await (const [row] of rowsOf(file)) {
    const place = placeOf(row, row.arm);
    if (row.said !== undefined && wanted.has(place) && !found.has(place)) found.set(place, row);
  }
  return found;
}

/** Arms that were held against the base. */
export const judgedOf = ({ arms }: Pick<Overview, 'arms'>): readonly JudgedArm[] =>
  arms.filter((arm) => arm !== 'base');

const GRAVITY: Readonly<Record<MetricDecision['verdict'], number>> = { FAIL: 0, ERROR: 1, INCONCLUSIVE: 2, PASS: 3 };

export interface OverviewOptions {
  /** Show what was asked and said, where the outcomes have it. */
  readonly content: boolean;
  readonly seconds?: number | null | undefined;
  readonly signal?: AbortSignal | undefined;
}
/** @throws what reading refuses · the signal's reason */
export async function overviewOf(
  decision: Decision,
  suite: Suite,
  outcomes: string,
  { content, seconds = null, signal }: OverviewOptions,
): Promise<Overview> {
  const places = new Map(
    suite.tests.flatMap((test) => test.metrics.map((m) => [m.name, { test, metric: m }] as const)),
  );
  const metrics = new Map([...places].map(([name, { metric }]) => [name, metric]));
  const judged = new Set<Arm>(decision.metrics.map(armOf));
  const arms = ARMS.filter((arm) => arm !== 'merged' || judged.has(arm));
  const counted = await countRows(outcomes, metrics, arms, signal);
  const byMetric = new Map<string, Pair[]>();
  for (const pair of counted.pairs) {
    const list = byMetric.get(pair.metric) ?? [];
    byMetric.set(pair.metric, list);
    list.push(pair);
  }
  const entryOf = (m: MetricDecision): Entry => {
    const own = (byMetric.get(m.metric) ?? []).filter(
      (p) => p.arm === armOf(m) && (m.slice === null || p.slice === m.slice),
    );
    const worse = own.filter((p) => isWorse(p, metrics.get(m.metric)) === true);
    const place = places.get(m.metric);
    return {
      of: m,
      metric: place?.metric ?? null,
      test: place?.test ?? null,
      worse: worse.slice(0, NAMED),
      worseCount: worse.length,
      betterCount: own.length - worse.length,
      next: counts(m) ? nextOf(m, place?.metric.judged === true, decision.parameters) : null,
    };
  };
  const entries = decision.metrics.map(entryOf);
  const whole = entries.filter((e) => e.of.slice === null);
  const slices = new Map(
    whole.map((e) => [wholeOf(e.of), entries.filter((s) => s.of.slice !== null && wholeOf(s.of) === wholeOf(e.of))]),
  );
  const findings = entries
    .filter((e) => counts(e.of) && e.of.verdict !== 'PASS')
    .sort((a, b) => GRAVITY[a.of.verdict] - GRAVITY[b.of.verdict]);
  const chosen = new Map(
    whole.filter((e) => e.worse.length > 0).map((e) => [wholeOf(e.of), e.worse.slice(0, EXAMPLES)] as const),
  );
  const wanted = new Set([...chosen.values()].flat().flatMap((p) => [placeOf(p, 'base'), placeOf(p, p.arm)]));
  const texts = content ? await textsOf(outcomes, wanted) : new Map<string, Row>();
  const said = (p: Pair, arm: Arm): Example['said']['base'] =>
    texts
      .get(placeOf(p, arm))
      ?.said?.map((turn) => Object.fromEntries(Object.entries(turn).map(([c, t]) => [c, cut(t)]))) ?? null;
  const examples = new Map(
    [...chosen].map(([metric, pairs]) => [
      metric,
      pairs.map((p): Example => {
        const asked = texts.get(placeOf(p, p.arm))?.asked;
        return {
          ...p,
          asked: asked === undefined ? null : cut(asked),
          said: { base: said(p, 'base'), adapter: said(p, p.arm) },
        };
      }),
    ]),
  );
  return {
    decision,
    suite,
    arms,
    metrics: whole.sort(
      (a, b) =>
        ARMS.indexOf(armOf(a.of)) - ARMS.indexOf(armOf(b.of)) || (b.metric?.weight ?? 0) - (a.metric?.weight ?? 0),
    ),
    slices,
    findings,
    examples,
    matrix: counted.matrix,
    causes: [...counted.causes].sort((a, b) => b[1] - a[1]),
    cost: { tokens: counted.tokens, rows: counted.rows, seconds },
    prompts: counted.prompts,
  };
}
