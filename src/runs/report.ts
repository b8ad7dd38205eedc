// report.html of a run: one self-contained file, readable offline, in light and dark. Charts: uPlot, inlined.
import { writeFileAtomic } from '../base/files.js';
import { type Html, html, page, script } from '../report/html.js';
import { chartBox, controls, firstSmoothing, PLOT_SCRIPT, PLOT_STYLE, plotLibrary } from '../report/plots.js';
import { chartsOf, columnsOf, thin } from './curves.js';
import type { StepMetrics } from './metrics.js';
import type { RunRecord } from './run-folder.js';
import { factsOf, figuresOf, Tally } from './summary.js';

const determinants = (run: RunRecord): Html =>
  html`<table>${factsOf(run).map(
    ({ name, parts }) =>
      html`<tr><th>${name}</th><td>${parts.map(({ text, code }) =>
        code ? html`<code>${text}</code>` : text,
      )}</td></tr>\n`,
  )}</table>`;

export function renderReport(run: RunRecord, metrics: readonly StepMetrics[]): string {
  const points = thin(metrics);
  const charts = chartsOf(points);
  const tally = new Tally();
  for (const m of metrics) tally.add(m);
  const lib = plotLibrary();
  return page(
    `${run.name} · Temper run`,
    lib.style + PLOT_STYLE,
    html`<main>
<h1>${run.name}<span class="status ${run.status}">${run.status}</span></h1>
${run.about !== '' && html`<p class="about">${run.about}</p>`}
<section class="figures">${figuresOf(run, tally).map(
      ([value, label]) => html`<div class="figure"><b>${value}</b><span>${label}</span></div>`,
    )}</section>
${controls(firstSmoothing(points.length))}
<section class="charts">${charts.map(chartBox)}</section>
<section class="table"><h2>What determines this run</h2>${determinants(run)}</section>
</main>
${script(lib.script)}
${script(`${PLOT_SCRIPT}\nshow(columns, charts);`, { columns: columnsOf(points), charts })}
`,
  );
}

export const writeReport = (path: string, run: RunRecord, metrics: readonly StepMetrics[]): void =>
  writeFileAtomic(path, renderReport(run, metrics));
