// Harm against steps, drawn: for each metric a chart with both arms, bands of their intervals, and what was asked for
// as a limit. Of several learning rates a step shows the one with the greatest bound.
import { type Html, html } from '../../report/html.js';
import { percent } from './estimate.js';
import { type ArmEstimate, PROBE_ARMS, type Probe, type ProbeArm } from './probe.js';

const WIDTH = 560;
const HEIGHT = 280;
const EDGE = { left: 46, right: 84, top: 14, bottom: 38 } as const;

export interface CurvePoint extends Pick<ArmEstimate, 'rate' | 'interval' | 'bound'> {
  readonly step: number;
  readonly learningRate: number | null;
}
/** The worst of the learning rates at each step. */
export function curveOf({ points }: Pick<Probe, 'points'>, metric: string, arm: ProbeArm): readonly CurvePoint[] {
  const worst = new Map<number, CurvePoint>();
  for (const { step, learningRate, metrics } of points) {
    const found = metrics.find((m) => m.metric === metric)?.[arm];
    if (found && found.bound > (worst.get(step)?.bound ?? -1)) worst.set(step, { ...found, step, learningRate });
  }
  return [...worst.values()].sort((a, b) => a.step - b.step);
}

/** The least of 10, 20, 40, 60, 80 and 100 % that all of it is below. */
const topOf = (most: number): number => [0.1, 0.2, 0.4, 0.6, 0.8].find((top) => most <= top) ?? 1;

export function chartOf(probe: Pick<Probe, 'points' | 'maxRate'>, metric: string): Html {
  const curves = PROBE_ARMS.map((arm) => ({ arm, points: curveOf(probe, metric, arm) }));
  const all = curves.flatMap((c) => c.points);
  const last = Math.max(1, ...all.map((p) => p.step));
  const top = topOf(Math.max(probe.maxRate ?? 0, ...all.map((p) => p.interval.high)));
  const x = (step: number): string => (EDGE.left + (step / last) * (WIDTH - EDGE.left - EDGE.right)).toFixed(1);
  const y = (rate: number): string =>
    (HEIGHT - EDGE.bottom - (rate / top) * (HEIGHT - EDGE.top - EDGE.bottom)).toFixed(1);
  const at = (rate: number, p: CurvePoint): string => `${x(p.step)},${y(rate)}`;
  const steps = [...new Set(all.map((p) => p.step))];
  const lines = [0, 0.25, 0.5, 0.75, 1].map((share) => share * top);
  const right = WIDTH - EDGE.right;
  const told = curves
    .map(({ arm, points }) => `${arm} ${points.map((p) => `${percent(p.rate)} after ${p.step}`).join(', ')}`)
    .join('; ');
  // Names at the ends of the lines must not lie on one another.
  const ends = curves.map(({ points }) => Number(y(points.at(-1)?.rate ?? 0)));
  const [a = 0, b = 0] = ends;
  const apart = Math.max(0, 15 - Math.abs(a - b)) / 2;
  const labels = [a + (a <= b ? -apart : apart), b + (a <= b ? apart : -apart)];
  return html`<svg class="curve" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${metric}: ${told}">
${lines.map(
  (rate) => html`<line class="grid" x1="${EDGE.left}" x2="${right}" y1="${y(rate)}" y2="${y(rate)}"/>
<text class="tick" x="${EDGE.left - 7}" y="${y(rate)}" text-anchor="end"
dominant-baseline="middle">${percent(rate)}</text>`,
)}
${steps.map(
  (s) => html`<text class="tick" x="${x(s)}" y="${HEIGHT - EDGE.bottom + 16}" text-anchor="middle">${s}</text>`,
)}
<text class="tick" x="${(EDGE.left + right) / 2}" y="${HEIGHT - 4}" text-anchor="middle">steps of the attack</text>
${
  probe.maxRate !== null &&
  html`<line class="limit" x1="${EDGE.left}" x2="${right}" y1="${y(probe.maxRate)}" y2="${y(probe.maxRate)}"/>`
}
${curves.map(
  ({ arm, points }, i) => html`<g class="${arm}">
<polygon class="band" points="${[
    ...points.map((p) => at(p.interval.high, p)),
    ...[...points].reverse().map((p) => at(p.interval.low, p)),
  ].join(' ')}"/>
<polyline class="line" points="${points.map((p) => at(p.rate, p)).join(' ')}"/>
${points.map((p) => html`<circle cx="${x(p.step)}" cy="${y(p.rate)}" r="3.5"/>`)}
<text class="name" x="${right + 9}" y="${labels[i]}" dominant-baseline="middle">${arm}</text></g>`,
)}</svg>`;
}

export const CURVE_STYLE = `
:root { --base-arm: #2f6690; }
@media screen and (prefers-color-scheme: dark) { :root { --base-arm: #86b9e0; } }
.curve { width: 100%; max-width: 760px; height: auto; display: block; }
.curve .grid { stroke: var(--line); stroke-width: 1; }
.curve .limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 2 4; }
.curve .tick { fill: var(--soft); font-size: 12px; }
.curve .adapter { color: var(--accent); } .curve .base { color: var(--base-arm); }
.curve .band { fill: currentColor; opacity: 0.14; }
.curve .line { fill: none; stroke: currentColor; stroke-width: 2.2; stroke-linejoin: round; }
.curve .base .line { stroke-dasharray: 7 4; }
.curve circle, .curve .name { fill: currentColor; }
.curve .name { font-size: 13px; font-weight: 600; }
.verdict.measured { border-left-color: var(--accent); }
.verdict.above, .verdict.error { border-left-color: var(--bad); }
.verdict.inconclusive { border-left-color: var(--wait); }
`;
