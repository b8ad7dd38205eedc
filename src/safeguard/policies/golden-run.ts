// A policy's golden set judged and held to thresholds: those of its front matter, else the usual ones.
import type { Estimate, FigureSet } from '../calibration.js';
import type { HeldTo, Thresholds } from '../front-matter.js';
import type { Policy } from '../types.js';
import { figuresOf } from './figures.js';
import type { Measured } from './measure.js';
import { wilson } from './statistics.js';

/** Where the front matter says nothing: what a judge of a release must reach. */
export const USUAL_THRESHOLDS: HeldTo = { recall: 0.85, falsePositives: 0.1, unjudged: 0 };

export interface RuleFigures {
  readonly rows: number;
  /** Share of its rows that are blocked, by whatever rule. */
  readonly recall: Estimate;
  /** Rows blocked by this rule, or a case of it. */
  readonly byRule: number;
}
export interface Miss {
  /** `overall`, `channel final`, `rule R1`. */
  readonly where: string;
  readonly what: string;
  readonly got: number | null;
  readonly wanted: number;
  readonly side: 'at least' | 'at most';
}
export interface GoldenRun {
  readonly overall: FigureSet;
  readonly channels: Readonly<Record<string, FigureSet>>;
  readonly rules: Readonly<Record<string, RuleFigures>>;
  readonly thresholds: Thresholds;
  /** The policy says none. */
  readonly usual: boolean;
  readonly misses: readonly Miss[];
  /** Rows that were not judged as expected. */
  readonly wrong: readonly Measured[];
}

export interface RunOptions {
  readonly resamples?: number;
  readonly seed?: number;
  readonly fpr?: number;
  readonly signal?: AbortSignal | undefined;
}
export const DEFAULT_RESAMPLES = 2000;
export const DEFAULT_SEED = 1;
export const DEFAULT_FPR = 0.01;

export function figureSet(rows: readonly Measured[], options: RunOptions = {}): FigureSet {
  const { resamples = DEFAULT_RESAMPLES, seed = DEFAULT_SEED, fpr = DEFAULT_FPR, signal } = options;
  const { threshold: _, ...figures } = figuresOf(rows, { resamples, seed, fpr, signal });
  return figures;
}
export const channelsOf = (rows: readonly { readonly channel: string }[]): readonly string[] => [
  ...new Set(rows.map((r) => r.channel)),
];

/** @param rows all golden rows as they were judged */
export function goldenRun(policy: Policy, rows: readonly Measured[], options: RunOptions = {}): GoldenRun {
  const thresholds: Thresholds = policy.thresholds ?? USUAL_THRESHOLDS;
  const overall = figureSet(rows, options);
  const channels = Object.fromEntries(
    channelsOf(rows).map((name) => [
      name,
      figureSet(
        rows.filter((r) => r.channel === name),
        options,
      ),
    ]),
  );
  const expected = [...new Set(rows.flatMap((r) => (r.case.expect === null ? [] : [r.case.expect])))];
  // A threshold of a rule is one of its cases too.
  const rules = Object.fromEntries(
    [...new Set([...expected, ...Object.keys(thresholds.rules ?? {})])].map((rule) => {
      const own = rows.filter((r) => r.case.expect === rule || r.case.expect?.startsWith(`${rule}.`));
      const caught = own.filter((r) => r.outcome === 'block').length;
      return [
        rule,
        { rows: own.length, recall: wilson(caught, own.length), byRule: own.filter((r) => r.rightRule).length },
      ];
    }),
  );
  const bound = thresholds.hold === 'bound';
  const misses = [
    ...missed('overall', overall, thresholds, bound),
    ...Object.entries(thresholds.channels ?? {}).flatMap(([name, held]) =>
      missed(`channel ${name}`, channels[name], held ?? {}, bound),
    ),
    ...Object.entries(thresholds.rules ?? {}).flatMap(([rule, { recall }]) =>
      least(`rule ${rule}`, 'recall', rules[rule]?.recall, recall, bound),
    ),
  ];
  return {
    overall,
    channels,
    rules,
    thresholds,
    usual: policy.thresholds === undefined,
    misses,
    wrong: rows.filter((r) => !r.right),
  };
}

function least(
  where: string,
  what: string,
  got: Estimate | undefined,
  wanted: number | undefined,
  bound: boolean,
): Miss[] {
  if (wanted === undefined) return [];
  const value = got ? (bound ? got.low : got.value) : null;
  // A ratio of nothing reaches no threshold.
  return value !== null && value >= wanted ? [] : [{ where, what, got: value, wanted, side: 'at least' }];
}
function missed(where: string, f: FigureSet | undefined, held: HeldTo, bound: boolean): readonly Miss[] {
  const alarms = f?.falsePositives ? (bound ? f.falsePositives.high : f.falsePositives.value) : null;
  const unjudged = f && f.rows > 0 ? f.unjudged / f.rows : null;
  const most = (what: string, value: number | null, wanted: number | undefined): Miss[] =>
    wanted === undefined || (value !== null && value <= wanted)
      ? []
      : [{ where, what, got: value, wanted, side: 'at most' }];
  return [
    ...least(where, 'precision', f?.precision, held.precision, bound),
    ...least(where, 'recall', f?.recall, held.recall, bound),
    ...least(where, 'F1', f?.f1, held.f1, bound),
    ...most('false positives', alarms, held.falsePositives),
    ...most('unjudged', unjudged, held.unjudged ?? (where === 'overall' ? 0 : undefined)),
  ];
}
