// Intervals drawn against what they are held to, as SVG in a line of a table. Right is worse, always.
import { type Html, html } from '../../report/html.js';
import type { MetricDecision } from '../decision.js';

const WIDTH = 250;
const HEIGHT = 30;
const EDGE = 6;

type Scale = (x: number) => number;
const scaleOf = (low: number, high: number): Scale => {
  const span = high - low || 1;
  return (x) => Number((EDGE + ((Math.min(high, Math.max(low, x)) - low) / span) * (WIDTH - 2 * EDGE)).toFixed(1));
};

/** The interval of a difference against zero and the margin; null: nothing to draw. */
export function differenceChart(m: MetricDecision): Html | null {
  const { interval, difference, margin } = m;
  if (interval === null || difference === null) return null;
  // Higher is better: turned round.
  const sign = m.direction === 'lower' ? 1 : -1;
  const [low, high] = [sign * interval.low, sign * interval.high].sort((a, b) => a - b) as [number, number];
  const point = sign * difference;
  const held = margin === null ? null : m.bound;
  const reach = 1.15 * Math.max(Math.abs(low), Math.abs(high), margin ?? 0, held ?? 0, 1e-6);
  const x = scaleOf(-reach, reach);
  const kind = margin === null ? 'told' : (held ?? high) <= margin ? 'within' : low > margin ? 'over' : 'open';
  const middle = HEIGHT / 2;
  const told = [point, low, high].map((v) => v.toFixed(4));
  const label =
    `difference ${told[0]}, from ${told[1]} to ${told[2]}` +
    (margin === null ? '' : `, bound ${(held ?? high).toFixed(4)}, margin ${margin}`);
  return html`<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}; more is worse">
${
  margin !== null &&
  html`<rect class="allowed" x="${EDGE}" y="4" width="${(x(margin) - EDGE).toFixed(1)}" height="${HEIGHT - 8}"/>
<line class="limit" x1="${x(margin)}" x2="${x(margin)}" y1="1" y2="${HEIGHT - 1}"/>`
}
<line class="zero" x1="${x(0)}" x2="${x(0)}" y1="4" y2="${HEIGHT - 4}"/>
<g class="${kind}">${boundLine(x, high, held, middle)}
<line class="span" x1="${x(low)}" x2="${x(high)}" y1="${middle}" y2="${middle}"/>
<line class="end" x1="${x(low)}" x2="${x(low)}" y1="${middle - 4}" y2="${middle + 4}"/>
<line class="end" x1="${x(high)}" x2="${x(high)}" y1="${middle - 4}" y2="${middle + 4}"/>
<circle cx="${x(point)}" cy="${middle}" r="4"/></g></svg>`;
}

/** From the interval's end to what is held against the limit. */
const boundLine = (x: Scale, end: number, held: number | null, y: number): Html | false =>
  held !== null && html`<line class="bound" x1="${x(end)}" x2="${x(held)}" y1="${y}" y2="${y}"/>`;

/** The adapter's own figure against cap or floor; null: it has neither. */
export function ownChart(m: MetricDecision): Html | null {
  const limit = m.cap ?? m.floor,
    interval = m.adapterInterval;
  if (limit === null || interval === null || m.adapter === null) return null;
  const worse = m.cap !== null ? 1 : -1;
  const held = m.adapterBound === null ? null : worse * m.adapterBound;
  const values = [interval.low, interval.high, limit, m.adapter, m.adapterBound ?? limit].map((v) => worse * v);
  const floor = m.values === 'rate' ? (worse === 1 ? 0 : -1) : Math.min(...values);
  const most = Math.max(...values) + 0.15 * Math.max(1e-6, Math.max(...values) - floor);
  const x = scaleOf(floor, most);
  const [low, high] = [worse * interval.low, worse * interval.high].sort((a, b) => a - b) as [number, number];
  const at = worse * limit;
  const kind = (held ?? high) <= at ? 'within' : low > at ? 'over' : 'open';
  const middle = HEIGHT / 2;
  const told = [m.adapter, interval.low, interval.high, m.adapterBound ?? worse * high].map((v) => v.toFixed(4));
  const label = `adapter ${told[0]}, from ${told[1]} to ${told[2]}, bound ${told[3]}, limit ${limit}`;
  return html`<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}">
<rect class="allowed" x="${EDGE}" y="4" width="${(x(at) - EDGE).toFixed(1)}" height="${HEIGHT - 8}"/>
<line class="limit" x1="${x(at)}" x2="${x(at)}" y1="1" y2="${HEIGHT - 1}"/>
<g class="${kind}">${boundLine(x, high, held, middle)}
<line class="span" x1="${x(low)}" x2="${x(high)}" y1="${middle}" y2="${middle}"/>
<line class="end" x1="${x(low)}" x2="${x(low)}" y1="${middle - 4}" y2="${middle + 4}"/>
<line class="end" x1="${x(high)}" x2="${x(high)}" y1="${middle - 4}" y2="${middle + 4}"/>
<circle cx="${x(worse * m.adapter)}" cy="${middle}" r="4"/></g></svg>`;
}
