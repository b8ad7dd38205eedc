// How figures of a gate are written, in every report the same.
import type { Labelled, MetricDecision } from '../decision.js';
import type { Arm, JudgedArm } from '../outcomes.js';
import type { Entry } from './overview.js';

/** Four digits that count; rates as shares of a hundred. */
export function figure(x: number | null, m: Pick<MetricDecision, 'values'>): string {
  if (x === null) return '–';
  if (m.values === 'rate') return `${number(100 * x)} %`;
  return measured(x);
}
/** Of what has no hundredth part: a loss may differ by thousandths. */
const measured = (x: number): string => (x === 0 ? '0' : String(Number(x.toPrecision(4))).replace('-', '−'));
const number = (x: number): string => {
  const text = Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) >= 10 ? x.toFixed(1) : x.toFixed(2);
  const plain = text.includes('.') ? text.replace(/\.?0+$/, '') : text;
  return plain === '-0' ? '0' : plain.replace('-', '−');
};
/** A difference of rates is in points. */
export function difference(x: number | null, m: Pick<MetricDecision, 'values'>): string {
  if (x === null) return '–';
  const text = m.values === 'rate' ? number(100 * x) : measured(x);
  const signed = x > 0 && text !== '0' ? `+${text}` : text;
  return m.values === 'rate' ? `${signed} pp` : signed;
}
type Named = Pick<MetricDecision, 'arm' | 'metric' | 'slice'>;
export const nameOf = ({ slice, ...m }: Named): string => (slice === null ? wholeOf(m) : `${wholeOf(m)}, ${slice}`);
/** What a metric and its slices are called together: the arm's name is there where it is not the adapter. */
export const wholeOf = ({ arm, metric }: Omit<Named, 'slice'>): string =>
  arm === undefined ? metric : `${metric} (${arm})`;
/** What was held against the base. */
export const armOf = ({ arm }: Pick<MetricDecision, 'arm'>): JudgedArm => arm ?? 'adapter';
/** What is better, as a word beside a name. */
export const betterIs = (m: Pick<MetricDecision, 'direction'>): string =>
  m.direction === 'lower' ? 'lower is better' : 'higher is better';
/** Limits of an entry, as words. */
export function limitsOf(m: MetricDecision): string {
  const parts = [
    ...(m.margin === null ? [] : [`margin ${difference(m.margin, m).replace('+', '')}`]),
    ...(m.cap === null ? [] : [`cap ${figure(m.cap, m)}`]),
    ...(m.floor === null ? [] : [`floor ${figure(m.floor, m)}`]),
    ...(m.most === null ? [] : [`at most ${m.most}`]),
  ];
  return parts.length === 0 ? 'told, no limit' : parts.join(', ');
}
/** The entry in one sentence: what is seen, how sure, what it was held to. */
export function sentenceOf({ of: m }: Entry): string {
  const interval = m.interval
    ? `, ${number(100 * m.interval.level)} % interval ${difference(m.interval.low, m)} to ` +
      `${difference(m.interval.high, m)}`
    : '';
  return (
    `base ${figure(m.base, m)}, ${armOf(m)} ${figure(m.adapter, m)}, difference ${difference(m.difference, m)}` +
    `${interval}; ${limitsOf(m)}; n = ${m.n}`
  );
}
export const SENTENCE: Readonly<Record<MetricDecision['verdict'], string>> = {
  PASS: 'The adapter may leave: every metric is within its margin of the base, and within its own limits.',
  FAIL: 'The adapter stays: it is shown to be worse than its limits allow.',
  INCONCLUSIVE: 'The adapter stays: too little was seen to say that it is no worse.',
  ERROR: 'The adapter stays: the gate itself could not do its work.',
};
/** That no arm is let out by another; empty where there is one alone. */
export const armsRule = ({ arms }: { readonly arms: readonly Arm[] }): string =>
  arms.includes('merged')
    ? ' Adapter and merged checkpoint are each held against the base, and every limit has to hold for both ' +
      '(intersection-union): neither is let out by the other.'
    : '';
/** What people made of a decision. */
export const labelledText = ({ pairs, by, changed, without }: Labelled): string =>
  `${pairs} labels of ${by.join(', ')} change ${changed.length} outcomes; without them it is ${without}`;
/** When a gate was last seen to stop what it must and to let the rest pass; null: nobody has shown it. */
export interface Proof {
  /** ISO 8601. */
  readonly time: string;
  readonly knownBad: string;
  readonly harmless: string;
}
/** It stopped the one and let the other pass. */
export const holds = ({ knownBad, harmless }: Proof): boolean => knownBad === 'FAIL' && harmless === 'PASS';
