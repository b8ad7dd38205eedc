// What there is to see at a glance: counts by policy, rule and channel, analysis against final answer, a few examples.
// Bounded whatever the file holds.
import type { VerdictRow } from '../../agreement.js';
import { isDetectorVerdict } from '../../detectors/index.js';
import { worst } from '../../screen.js';
import type { Verdict } from '../../types.js';
import { channelOf, findingOf, type ReportSource, verdictsOf } from './source.js';

export type Outcome = Verdict['outcome'];
export const OUTCOMES: readonly Outcome[] = ['allow', 'block', 'unjudged'];
export type Counts = Record<Outcome, number>;
/** What a row's analysis and its final answer are; `none`: the row has no such channel. */
export const STATES = [...OUTCOMES, 'none'] as const;
export type State = (typeof STATES)[number];

/** Rules, policies and channels that are told apart, and examples of each. */
const MOST_KEYS = 1000;
const EXAMPLES = 20;
const REST = '(others)';

export interface Finding {
  readonly key: string;
  readonly policy: string;
  readonly outcome: Outcome;
  count: number;
  readonly examples: VerdictRow[];
}
export interface Overview {
  readonly rows: number;
  readonly byOutcome: Counts;
  readonly policies: ReadonlyMap<string, Counts>;
  readonly channels: ReadonlyMap<string, Counts>;
  /** Of what is not allowed: by rule or by cause, the most frequent first. */
  readonly findings: readonly Finding[];
  /** Rows by analysis (first) and final answer. */
  readonly matrix: Readonly<Record<State, Readonly<Record<State, number>>>>;
}

const zero = (): Counts => ({ allow: 0, block: 0, unjudged: 0 });
function countsOf(map: Map<string, Counts>, key: string): Counts {
  const name = map.has(key) || map.size < MOST_KEYS ? key : REST;
  const counts = map.get(name) ?? zero();
  map.set(name, counts);
  return counts;
}
const matrix = (): Record<State, Record<State, number>> => {
  const row = (): Record<State, number> => ({ allow: 0, block: 0, unjudged: 0, none: 0 });
  return { allow: row(), block: row(), unjudged: row(), none: row() };
};

export async function overviewOf(source: ReportSource): Promise<Overview> {
  const [policies, channels, findings] = [
    new Map<string, Counts>(),
    new Map<string, Counts>(),
    new Map<string, Finding>(),
  ];
  const byOutcome = zero();
  const cells = matrix();
  let rows = 0;
  let open: VerdictRow[] = [];
  const endRow = (): void => {
    if (open.length === 0) return;
    rows++;
    const stateOf = (channel: string): State => {
      const own = open.filter((v) => v.channel === channel);
      return own.length === 0 ? 'none' : worst(own);
    };
    cells[stateOf('analysis')][stateOf('final')]++;
    open = [];
  };
  for await (const batch of verdictsOf(source))
    for (const v of batch) {
      const [first] = open;
      // The verdicts of a row stand together.
      if (first && (first.line !== v.line || first.file !== v.file)) endRow();
      open.push(v);
      byOutcome[v.outcome]++;
      countsOf(policies, v.policy)[v.outcome]++;
      countsOf(channels, channelOf(v))[v.outcome]++;
      if (v.outcome === 'allow') continue;
      const key = findings.has(findingOf(v)) || findings.size < MOST_KEYS ? findingOf(v) : REST;
      const finding = findings.get(key) ?? { key, policy: v.policy, outcome: v.outcome, count: 0, examples: [] };
      findings.set(key, finding);
      finding.count++;
      if (finding.examples.length < EXAMPLES) finding.examples.push({ ...v, rationale: '', detail: '' });
    }
  endRow();
  const order = [...findings.values()].sort(
    (a, b) => OUTCOMES.indexOf(a.outcome) - OUTCOMES.indexOf(b.outcome) || b.count - a.count,
  );
  return { rows, byOutcome, policies, channels, findings: order, matrix: cells };
}

/** How a policy is called where people read it. */
export const policyLabel = (policy: string): string =>
  policy === '' ? 'no policy' : isDetectorVerdict({ policy }) ? `${policy} (no judge)` : policy;
