// The reports of a probe: one page with its curves, and Markdown for a job's page.
import { join } from 'node:path';
import { writeFileAtomic } from '../../base/files.js';
import { type Html, html, page } from '../../report/html.js';
import { md, mdTable } from '../../report/markdown.js';
import { STYLE } from '../report/style.js';
import { CURVE_STYLE, chartOf } from './curves.js';
import { percent } from './estimate.js';
import { type ArmEstimate, type Estimate, type Point, PROBE_FILE, type Probe, type Worst } from './probe.js';

const points = (x: number): string => {
  const text = percent(Math.abs(x)).replace(' %', ' pp');
  return text.startsWith('0 ') ? text : `${x < 0 ? '−' : '+'}${text}`;
};
const span = ({ low, high }: { readonly low: number; readonly high: number }): string =>
  `${percent(low)} to ${percent(high)}`;
const spanOfChange = (change: NonNullable<ArmEstimate['change']>): string =>
  `${points(change.interval.low)} to ${points(change.interval.high)}`;
const where = ({ step, learningRate }: Pick<Worst, 'step' | 'learningRate'>): string =>
  learningRate === null ? 'before the attack' : `after ${step} steps at ${learningRate}`;

const rateWith =
  (alpha: number) =>
  (w: Worst): string =>
    `${percent(w.rate)} of answers break a rule (${w.metric}, ${where(w)}), and with ${percent(1 - alpha)} ` +
    `confidence no more than ${percent(w.bound)}`;
/** What a reader wants to know first. */
export function headline({ worst, status, maxRate, alpha }: Probe): string {
  const rateOf = rateWith(alpha);
  const { adapter } = worst;
  if (status === 'error') return 'Nothing was measured: the judge or the run failed.';
  const limit = maxRate === null ? '' : `; asked for was at most ${percent(maxRate)}`;
  const open = status === 'inconclusive' ? 'Not decided. ' : '';
  return `${open}At worst ${rateOf(adapter)}${limit}.`;
}
const ofBase = ({ worst: { base }, alpha }: Probe): string =>
  `Of its base, put through the same attack: ${rateWith(alpha)(base)}.`;
const WORD = { measured: 'Measured', above: 'Above', inconclusive: 'Inconclusive', error: 'Error' } as const;
const madeOf = ({ attack: a }: Probe): string =>
  [
    `${a.rows} rows`,
    `${a.rowsPerStep} a step`,
    `steps ${a.steps.join(', ')}`,
    `learning rates ${a.learningRates.join(', ') || '–'}`,
    a.addedRank > 0 ? `rank ${a.addedRank} added to the adapter’s own` : 'the adapter’s own rank',
    `seed ${a.seed}`,
    a.precision,
  ].join(', ');
const level = ({ alpha }: Probe): string => `${Number((100 * (1 - 2 * alpha)).toPrecision(4))} %`;

const arm = (e: ArmEstimate): Html =>
  html`<td>${percent(e.rate)}<small>${span(e.interval)}${
    e.corrected && html`; corrected ${percent(e.corrected.rate)}, ${span(e.corrected)}`
  }${e.missing > 0 && html`; ${e.missing} missing`}</small></td>`;
const change = (c: ArmEstimate['change']): Html =>
  html`<td>${c === null ? '–' : points(c.difference)}<small>${c !== null && spanOfChange(c)}</small></td>`;
const row = ({ step, learningRate }: Point, m: Estimate): Html =>
  html`<tr><td>${step}${learningRate !== null && html`<small>learning rate ${learningRate}</small>`}</td>
${arm(m.adapter)}${change(m.adapter.change)}${arm(m.base)}${change(m.base.change)}${change(m.excess)}</tr>`;

function htmlOf(probe: Probe): string {
  const { status, subject, suite, attack, notes, reasons, tool } = probe;
  const metrics = probe.byMetric.map((m) => m.metric);
  const digests: readonly (readonly [string, string | null])[] = [
    ['adapter', subject.adapter],
    ['base', subject.base],
    ['attack set', attack.data],
    [`suite ${suite.name} ${suite.version}`, suite.digest],
    ['lock', probe.lock],
    ['judge', probe.judge],
  ];
  const body = html`<main><div class="verdict ${status}"><b>${WORD[status]}</b><h1>${headline(probe)}</h1>
<p class="about">${ofBase(probe)}</p><p class="about">An estimate of the worst case, not a verdict of the gate: the
adapter is tuned further on rows that do harm, as somebody with its weights could, and asked after so many
steps.</p></div>
${reasons.length > 0 && html`<div class="panel finding"><ul>${reasons.map((r) => html`<li>${r}</li>`)}</ul></div>`}
<h2>Harm against steps</h2><div class="panels">${metrics.map(
    (m) => html`<div class="panel"><h3>${m}</h3>${chartOf(probe, m)}</div>`,
  )}</div>
<p class="legend">Share of answers that break a rule. Bands: exact intervals of ${level(probe)}, so that each edge alone
holds with ${percent(1 - probe.alpha)}; so does the greatest upper edge of all. Of several learning rates a step shows
the worst.${probe.maxRate !== null && html` Dotted: the limit that was asked for.`}</p>
${metrics.map(
  (name) => html`<h2>${name}</h2><div class="panel long"><table><tr><th>steps</th><th>adapter</th><th>change</th>
<th>base</th><th>change</th><th>adapter less base</th></tr>${probe.points.map((p) =>
    p.metrics.filter((m) => m.metric === name).map((m) => row(p, m)),
  )}</table></div>`,
)}
<h2>What it is about</h2><div class="panel"><dl><dt>attack</dt><dd>${madeOf(probe)}</dd>${digests.map(
    ([name, digest]) => digest !== null && html`<dt>${name}</dt><dd><code>${digest}</code></dd>`,
  )}</dl></div>
<footer>${notes.map((n) => html`Note: ${n}. `)}temper gate probe ${tool.version}</footer></main>`;
  return page(`Probe: ${WORD[status]}`, STYLE + CURVE_STYLE, body);
}

function markdownOf(probe: Probe): string {
  const cell = (e: ArmEstimate): string => `${percent(e.rate)} (${span(e.interval)})`;
  const table = (name: string): string =>
    mdTable(
      ['steps', 'rate', 'adapter', 'base', 'adapter less base'],
      probe.points.flatMap((p) =>
        p.metrics
          .filter((m) => m.metric === name)
          .map((m) => [
            p.step,
            p.learningRate ?? '–',
            cell(m.adapter),
            cell(m.base),
            `${points(m.excess.difference)} (${spanOfChange(m.excess)})`,
          ]),
      ),
    );
  const parts = [
    `## Adversarial fine-tune probe: ${WORD[probe.status]}`,
    md(headline(probe)),
    md(ofBase(probe)),
    ...probe.reasons.map((r) => `- ${md(r)}`),
    ...probe.byMetric.flatMap(({ metric }) => [`**${md(metric)}**, intervals of ${level(probe)}`, table(metric)]),
    `Attack: ${md(madeOf(probe))}. Adapter \`${probe.subject.adapter.slice(7, 19)}\`, base ` +
      `\`${probe.subject.base.slice(7, 19)}\`.`,
  ];
  return `${parts.join('\n\n')}\n`;
}

export interface ProbeReports {
  readonly json: string;
  readonly html: string;
  readonly markdown: string;
}
/** Writes them beside probe.json. @throws what writing refuses */
export function writeProbeReports(folder: string, probe: Probe): ProbeReports {
  const written = { html: join(folder, 'probe.html'), markdown: join(folder, 'probe.md') };
  writeFileAtomic(written.html, htmlOf(probe));
  writeFileAtomic(written.markdown, markdownOf(probe));
  return { json: join(folder, PROBE_FILE), ...written };
}
