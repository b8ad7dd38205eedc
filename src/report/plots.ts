// Curves in a page: uPlot, inlined, and the script that draws columns of numbers and keeps them up to date in place.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { type Html, html } from './html.js';

/** Values of a curve lie in a column; null: none at that step. */
export type Columns = Readonly<Record<string, readonly (number | null)[]>>;
export interface Chart {
  /** Id of the element that it is drawn into. */
  readonly key: string;
  readonly title: string;
  readonly unit: string;
  readonly column: string;
  /** A column of the same unit, with a value only at some of the steps. */
  readonly heldOut?: string;
  /** Has a value only at some of the steps itself. */
  readonly sparse?: boolean;
  /** Drawn smoothed too, as far as the slider says. */
  readonly smooth?: boolean;
  /** May have a logarithmic axis: all values are above 0. */
  readonly log?: boolean;
  readonly wide?: boolean;
}

/** Reads uPlot as it was installed. */
export function plotLibrary(): { readonly script: string; readonly style: string } {
  const folder = dirname(createRequire(import.meta.url).resolve('uplot/dist/uPlot.iife.min.js'));
  return {
    script: readFileSync(join(folder, 'uPlot.iife.min.js'), 'utf8'),
    style: readFileSync(join(folder, 'uPlot.min.css'), 'utf8'),
  };
}

/** How far a loss is smoothed at first: over about a fortieth of the run. */
export const firstSmoothing = (points: number): number =>
  Number((points > 20 ? 1 - 1 / Math.max(5, points / 40) : 0).toFixed(2));

export const controls = (smoothing: number): Html =>
  html`<section class="controls"><label><input id="log" type="checkbox">logarithmic axis</label>
<label>smoothing <input id="smoothing" type="range" min="0" max="0.99" step="0.01" value="${smoothing}"></label>
<span class="hint">drag over a chart to look closer, double-click for all of it</span></section>`;

export const chartBox = (c: Chart): Html =>
  html`<div class="chart${c.wide && ' wide'}"><h2>${c.title}</h2><div id="${c.key}"></div></div>`;

export const PLOT_STYLE = `
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 0 0 10px; color: var(--soft); font-weight: 600; }
.about { color: var(--soft); margin: 6px 0 0; max-width: 70ch; overflow-wrap: anywhere; }
.status {
  display: inline-block; font-size: 12px; font-weight: 600; letter-spacing: 0; border: 1px solid currentColor;
  border-radius: 99px; padding: 1px 10px; margin-left: 10px; vertical-align: 4px; color: var(--soft);
}
.status.done { color: var(--good); } .status.failed, .status.gone { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 28px 0; }
.figure, .chart, .table {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
}
.figure b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.figure span { color: var(--soft); font-size: 12.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; }
.chart { min-width: 0; }
.chart.wide, .chart:last-child:nth-child(even) { grid-column: 1 / -1; }
.table { margin-top: 14px; overflow-x: auto; }
.table table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
.table :is(th, td) {
  text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top;
}
.table tr:last-child > * { border-bottom: 0; }
.table th { color: var(--soft); font-weight: 500; white-space: nowrap; }
.table td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.controls {
  display: flex; flex-wrap: wrap; align-items: center; gap: 6px 22px; margin: 0 0 12px; color: var(--soft);
  font-size: 13px;
}
.controls label { display: inline-flex; align-items: center; gap: 7px; }
.controls input { accent-color: var(--accent); }
.controls .hint { margin-left: auto; font-size: 12px; }
@media (hover: none) { .controls .hint { display: none; } }
code { font: 12.5px ui-monospace, monospace; }
.u-legend { font-size: 12px; color: var(--soft); font-variant-numeric: tabular-nums; }
.u-legend th { font-weight: 500; }
.u-legend .u-value { min-width: 4.5em; text-align: left; color: var(--ink); }
.u-select { background: color-mix(in srgb, var(--accent) 14%, transparent); }`;

/**
 * Defines `show(columns, charts)`: draws what is new, and gives curves that are there new values without touching what
 * the reader has chosen: axis, smoothing, zoom, hidden curves. Columns have `step` first.
 */
export const PLOT_SCRIPT = `
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const control = (id) => document.getElementById(id);
/* By the key of a chart: its plot, what it was made for, and whether the reader looks closer. */
const plots = new Map();
let shown = { columns: { step: [] }, charts: [] };
/* Exponential mean, corrected for its start. */
function smoothed(values, keep) {
  let sum = 0, weight = 0;
  return values.map((v) => { sum = sum * keep + v; weight = weight * keep + 1; return sum / weight; });
}
function plan(c, columns, keep, log) {
  const far = (v) => Math.abs(v) >= 1e7 || (v !== 0 && Math.abs(v) < 1e-2);
  const number = (v) => v == null ? '' : far(v) ? v.toExponential(1) : String(+v.toPrecision(v < 1e4 ? 4 : 7));
  const line = { stroke: css('--accent'), value: (u, v) => number(v) };
  const smooth = c.smooth && keep > 0;
  const thin = smooth ? { width: 1, alpha: 0.35 } : { width: 1.6, alpha: 1 };
  const sparse = { spanGaps: true, points: { show: true, size: 6 } };
  const few = columns.step.length < 2;
  const series = [
    { label: 'step' }, { ...line, ...thin, label: c.unit, points: { show: few }, ...(c.sparse && sparse) },
  ];
  const data = [columns.step, columns[c.column]];
  if (smooth) {
    series.push({ ...line, label: 'smoothed', width: 2, points: { show: false } });
    data.push(smoothed(columns[c.column], keep));
  }
  if (c.heldOut) {
    series.push({ ...line, ...sparse, label: 'held-out', stroke: css('--good'), width: 2 });
    data.push(columns[c.heldOut]);
  }
  const distr = log && c.log ? 3 : 1;
  return { series, data, distr, number, made: JSON.stringify([series.map((s) => s.label), distr, few, line.stroke]) };
}
const heightOf = (c) => c.wide ? 300 : 200;
function render(c, columns, keep, log) {
  const box = control(c.key);
  if (!box) return;
  const { series, data, distr, number, made } = plan(c, columns, keep, log);
  const old = plots.get(c.key);
  const zoom = old?.zoomed ? { min: old.plot.scales.x.min, max: old.plot.scales.x.max } : null;
  if (old && old.made === made && old.box === box) {
    old.plot.setData(data, !zoom);
    if (zoom) old.plot.setScale('x', zoom);
    return;
  }
  for (const s of series) if (old?.plot.series.some((o) => o.label === s.label && o.show === false)) s.show = false;
  old?.plot.destroy();
  const rule = { stroke: css('--line'), width: 1 };
  const axis = { stroke: css('--soft'), grid: rule, ticks: rule, font: '11px system-ui' };
  const entry = { made, box, zoomed: zoom !== null };
  plots.set(c.key, entry);
  entry.plot = new uPlot({
    width: box.clientWidth, height: heightOf(c),
    scales: { x: { time: false }, y: { distr } }, cursor: { sync: { key: 'run' } }, series,
    axes: [axis, { ...axis, size: 62, values: (u, vs) => vs.map(number) }],
    hooks: {
      setSelect: [(u) => { if (u.select.width > 0) entry.zoomed = true; }],
      /* Where nothing is pointed at, the last values. */
      setLegend: [(u) => {
        if (u.legend.idx != null) return;
        u.setLegend({ idxs: u.data.map((values) => values.findLastIndex((v) => v != null)) }, false);
      }],
    },
  }, data, box);
  if (zoom) entry.plot.setScale('x', zoom);
  /* Charts are in step: what zooms one zooms all. */
  box.addEventListener('dblclick', () => { for (const e of plots.values()) e.zoomed = false; });
}
function draw() {
  const keep = Number(control('smoothing').value), log = control('log').checked;
  for (const c of shown.charts) render(c, shown.columns, keep, log);
}
function show(columns, charts) {
  shown = { columns, charts };
  for (const [key, old] of plots) if (!charts.some((c) => c.key === key)) { old.plot.destroy(); plots.delete(key); }
  draw();
}
for (const id of ['smoothing', 'log']) control(id).addEventListener('input', draw);
function fit() {
  for (const c of shown.charts) {
    const box = control(c.key);
    if (box) plots.get(c.key)?.plot.setSize({ width: box.clientWidth, height: heightOf(c) });
  }
}
addEventListener('resize', () => { clearTimeout(fit.later); fit.later = setTimeout(fit, 120); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);`;
