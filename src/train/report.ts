// report.html of a run: one self-contained file, readable offline, in light and dark. Charts: uPlot, inlined.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { formatBytes } from '../base/units.js';
import { type Html, html, page, script, type Value } from '../report/html.js';
import type { StepMetrics } from '../runs/metrics.js';
import type { RunRecord } from '../runs/run-folder.js';

interface Chart {
  readonly key: string;
  readonly title: string;
  readonly unit: string;
  readonly values: readonly (number | null)[];
  /** A curve of the same unit, with a value only at some of the steps. */
  readonly heldOut?: readonly (number | null)[];
  /** Drawn smoothed too, as far as the slider says. */
  readonly smooth?: boolean;
  /** May have a logarithmic axis: all values are above 0. */
  readonly log?: boolean;
  readonly wide?: boolean;
}

const short = (n: number): string =>
  Number.isFinite(n)
    ? Math.abs(n) >= 1e6
      ? `${(n / 1e6).toFixed(2)} M`
      : Math.abs(n) >= 1e4
        ? `${(n / 1e3).toFixed(1)} k`
        : n.toPrecision(4)
    : '–';
const mean = (xs: readonly number[]): number => (xs.length ? xs.reduce((a, b) => a + b, 0) / xs.length : Number.NaN);

type Measured = 'step' | 'loss' | 'lr' | 'gradNorm' | 'tokens' | 'tokensPerSecond' | 'peakBytes';
type HeldOut = 'evalLoss' | 'evalMatch' | 'evalAccuracy';

/** At most `limit` points: longer curves are thinned by taking the mean of neighbours, so that a report stays small. */
export function thin(metrics: readonly StepMetrics[], limit = 4000): StepMetrics[] {
  const stride = Math.ceil(metrics.length / limit);
  if (stride <= 1) return [...metrics];
  const out: StepMetrics[] = [];
  for (let i = 0; i < metrics.length; i += stride) {
    const part = metrics.slice(i, i + stride);
    const of = (key: Measured): number => mean(part.map((m) => m[key]));
    const evaluated = part.findLast((m) => m.evalLoss !== undefined);
    out.push({
      step: part[part.length - 1]?.step ?? 0,
      loss: of('loss'),
      lr: of('lr'),
      gradNorm: of('gradNorm'),
      tokens: of('tokens'),
      tokensPerSecond: of('tokensPerSecond'),
      peakBytes: of('peakBytes'),
      ...(evaluated?.evalLoss === undefined ? {} : { evalLoss: evaluated.evalLoss }),
      ...(evaluated?.evalMatch === undefined ? {} : { evalMatch: evaluated.evalMatch }),
      ...(evaluated?.evalAccuracy === undefined ? {} : { evalAccuracy: evaluated.evalAccuracy }),
    });
  }
  return out;
}

function library(): { readonly script: string; readonly style: string } {
  const folder = dirname(createRequire(import.meta.url).resolve('uplot/dist/uPlot.iife.min.js'));
  return {
    script: readFileSync(join(folder, 'uPlot.iife.min.js'), 'utf8'),
    style: readFileSync(join(folder, 'uPlot.min.css'), 'utf8'),
  };
}

const STYLE = `
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 0 0 10px; color: var(--soft); font-weight: 600; }
.about { color: var(--soft); margin: 6px 0 0; max-width: 70ch; }
.status {
  display: inline-block; font-size: 12px; font-weight: 600; border: 1px solid currentColor;
  border-radius: 99px; padding: 1px 10px; margin-left: 10px; vertical-align: 4px; color: var(--soft);
}
.status.done { color: var(--good); } .status.failed { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 28px 0; }
.figure, .chart, .table {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
}
.figure b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.figure span { color: var(--soft); font-size: 12.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; }
.chart.wide { grid-column: 1 / -1; }
.table { margin-top: 14px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.controls { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0 0 12px; color: var(--soft); font-size: 13px; }
.controls label { display: inline-flex; align-items: center; gap: 7px; }
code { font: 12.5px ui-monospace, monospace; }
.u-legend { font-size: 12px; color: var(--soft); }`;

const SCRIPT = `
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plots = [];
const control = (id) => document.getElementById(id);
/* Exponential mean, corrected for its start. */
function smoothed(values, keep) {
  let sum = 0, weight = 0;
  return values.map((v) => { sum = sum * keep + v; weight = weight * keep + 1; return sum / weight; });
}
function draw() {
  const keep = Number(control('smoothing').value), log = control('log').checked;
  for (const p of plots.splice(0)) p.destroy();
  for (const c of charts) {
    const box = document.getElementById(c.key);
    const rule = { stroke: css('--line'), width: 1 };
    const axis = { stroke: css('--soft'), grid: rule, ticks: rule, font: '11px system-ui' };
    const far = (v) => Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-2);
    const number = (v) => v == null ? '' : far(v) ? v.toExponential(1) : String(+v.toPrecision(4));
    const line = { stroke: css('--accent'), value: (u, v) => number(v) };
    const smooth = c.smooth && keep > 0;
    const thin = smooth ? { width: 1, alpha: 0.35 } : { width: 1.6, alpha: 1 };
    const sparse = { spanGaps: true, points: { show: true, size: 6 } };
    const own = { ...line, ...thin, label: c.unit, points: { show: steps.length < 2 }, ...(c.sparse && sparse) };
    const series = [{ label: 'step' }, own];
    const data = [steps, c.values];
    if (smooth) {
      series.push({ ...line, label: 'smoothed', width: 2, points: { show: false } });
      data.push(smoothed(c.values, keep));
    }
    if (c.heldOut) {
      series.push({ ...line, ...sparse, label: 'held-out', stroke: css('--good'), width: 2 });
      data.push(c.heldOut);
    }
    plots.push(new uPlot({
      width: box.clientWidth, height: c.wide ? 300 : 200,
      scales: { x: { time: false }, y: { distr: log && c.log ? 3 : 1 } }, cursor: { sync: { key: 'run' } }, series,
      axes: [axis, { ...axis, size: 62, values: (u, vs) => vs.map(number) }],
    }, data, box));
  }
}
draw();
for (const id of ['smoothing', 'log']) control(id).addEventListener('input', draw);
addEventListener('resize', () => { clearTimeout(draw.later); draw.later = setTimeout(draw, 120); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);`;

/** How far the loss is smoothed at first: over about a fortieth of the run. */
const firstSmoothing = (points: number): number => (points > 20 ? 1 - 1 / Math.max(5, points / 40) : 0);

function chartsOf(points: readonly StepMetrics[]): readonly (Chart & { readonly sparse?: boolean })[] {
  const of = (key: Measured): number[] => points.map((m) => m[key]);
  const heldOut = (key: HeldOut): (number | null)[] => points.map((m) => m[key] ?? null);
  const loss = of('loss');
  const evaluated = points.some((m) => m.evalLoss !== undefined);
  const shares = (
    [
      ['evalMatch', 'Held-out rows answered token for token'],
      ['evalAccuracy', 'Held-out pairs preferred as wanted'],
    ] as const
  ).filter(([key]) => points.some((m) => m[key] !== undefined));
  const positive = (values: readonly (number | null)[]): boolean => values.every((v) => v === null || v > 0);
  return [
    {
      key: 'loss',
      title: 'Loss (nats per weighted token)',
      unit: 'loss',
      values: loss,
      wide: true,
      smooth: true,
      log: positive([...loss, ...heldOut('evalLoss')]),
      ...(evaluated ? { heldOut: heldOut('evalLoss') } : {}),
    },
    ...shares.map(([key, title]) => ({ key, title, unit: 'share', values: heldOut(key), sparse: true })),
    { key: 'lr', title: 'Learning rate', unit: 'lr', values: of('lr') },
    {
      key: 'gradNorm',
      title: 'Gradient norm before clipping',
      unit: 'norm',
      values: of('gradNorm'),
      log: positive(of('gradNorm')),
    },
    { key: 'tokensPerSecond', title: 'Tokens per second', unit: 'tokens/s', values: of('tokensPerSecond') },
    {
      key: 'memory',
      title: 'Peak memory, mapped weights not counted (MiB)',
      unit: 'MiB',
      values: of('peakBytes').map((b) => b / 2 ** 20),
    },
  ];
}

function figuresOf(run: RunRecord, metrics: readonly StepMetrics[]): readonly (readonly [string, string])[] {
  const seconds = metrics.reduce((a, m) => a + m.tokens / m.tokensPerSecond, 0);
  const tokens = metrics.reduce((a, m) => a + m.tokens, 0);
  const tail = metrics.slice(-Math.max(1, Math.round(metrics.length / 10)));
  return [
    [short(metrics[0]?.loss ?? Number.NaN), 'first loss'],
    [short(mean(tail.map((m) => m.loss))), 'loss, mean of the last tenth'],
    [`${metrics.length} / ${run.steps}`, 'steps'],
    [short(tokens), 'tokens'],
    [short(tokens / seconds), 'tokens per second'],
    ...(run.best ? ([[short(run.best.evalLoss), `best held-out loss, step ${run.best.step}`]] as const) : []),
    ...(run.best?.evalMatch === undefined
      ? []
      : ([[`${(100 * run.best.evalMatch).toFixed(1)} %`, 'held-out rows token for token, there']] as const)),
    [formatBytes(metrics.reduce((most, m) => Math.max(most, m.peakBytes), 0)), 'peak memory'],
    [short(run.trainedParameters), 'trained parameters'],
  ];
}

/** What the run can be made again from. */
function determinants(run: RunRecord): Html {
  const row = (name: string, value: Value): Html => html`<tr><th>${name}</th><td>${value}</td></tr>`;
  const code = (text: string): Html => html`<code>${text}</code>`;
  const data = run.data.map((d) => {
    const untrained = d.untrainedRows ? `, ${d.untrainedRows} rows with nothing to train` : '';
    const dropped = d.dropped ? `, ${d.dropped} too long and dropped` : '';
    const long = `${dropped}${d.truncated ? `, ${d.truncated} cut` : ''}`;
    const counts = `${d.rows} rows, ${d.tokens} tokens, ${d.trainedTokens} trained${untrained}${long}`;
    return row(d.file, html`${counts}; ${d.format}; ${code(d.sha256)}`);
  });
  const earlier = (run.earlier ?? []).filter((e) => e.steps !== run.steps);
  const extended = earlier.map(
    (e) =>
      `from ${e.steps} steps after ` +
      `${e.done}${e.exact ? '' : '; not the bits of a run that had all steps from the start'}`,
  );
  const versions = Object.entries(run.versions).map(([k, v]) => `${k} ${v}`);
  return html`<table>
${extended.length > 0 && row('extended', extended.join('; '))}
${run.endedEarly !== undefined && row('ended early', `after step ${run.endedEarly} of ${run.steps}, by train.patience`)}
${row('method', run.method)}${row('seed', run.seed)}
${row('recipe', code(run.digests.recipe))}${row('base', code(run.digests.base))}
${run.digests.tokenizer !== '' && row('tokenizer', code(run.digests.tokenizer))}
${row('data', code(run.digests.data))}${data}
${row('versions', versions.join(', '))}${row('machine', `${run.machine.isa}, ${run.machine.threads} threads`)}
</table>`;
}

export function renderReport(run: RunRecord, metrics: readonly StepMetrics[]): string {
  const points = thin(metrics);
  const charts = chartsOf(points);
  const lib = library();
  return page(
    `${run.name} · Temper run`,
    lib.style + STYLE,
    html`<main>
<h1>${run.name}<span class="status ${run.status}">${run.status}</span></h1>
${run.about !== '' && html`<p class="about">${run.about}</p>`}
<section class="figures">${figuresOf(run, metrics).map(
      ([value, label]) => html`<div class="figure"><b>${value}</b><span>${label}</span></div>`,
    )}</section>
<section class="controls"><label><input id="log" type="checkbox">logarithmic axis</label>
<label>smoothing <input id="smoothing" type="range" min="0" max="0.99" step="0.01" value="${firstSmoothing(
      points.length,
    ).toFixed(2)}"></label></section>
<section class="charts">${charts.map(
      (c) => html`<div class="chart${c.wide && ' wide'}"><h2>${c.title}</h2><div id="${c.key}"></div></div>`,
    )}</section>
<section class="table"><h2>What determines this run</h2>${determinants(run)}</section>
</main>
${script(lib.script)}
${script(SCRIPT, { steps: points.map((m) => m.step), charts: charts.map(({ title: _, ...rest }) => rest) })}
`,
  );
}

export const writeReport = (path: string, run: RunRecord, metrics: readonly StepMetrics[]): void =>
  writeFileAtomic(path, renderReport(run, metrics));
