// One page for people: counts by policy, rule and channel, analysis against final answer, examples folded. Readable
// offline, in light and dark; no script.
import { writeFileAtomic } from '../../../base/files.js';
import { type Html, html, page } from '../../../report/html.js';
import { type Counts, type Finding, OUTCOMES, type Overview, policyLabel, STATES, type State } from './overview.js';
import { channelOf, fileOf, type ReportSource, shortId } from './source.js';

const STYLE = `
:root { --wait: #8a6a00; }
@media screen and (prefers-color-scheme: dark) { :root { --wait: #e3bd5b; } }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 34px 0 10px; }
.about { color: var(--soft); margin: 6px 0 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 26px 0 0; }
.figure, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figure b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.figure span { color: var(--soft); font-size: 12.5px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 14px; }
.panel { overflow-x: auto; min-width: 0; }
.panel h2 { margin: 0 0 8px; }
.panels > :last-child:nth-child(odd) { grid-column: 1 / -1; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
:is(th, td) { text-align: right; padding: 5px 0 5px 14px; border-bottom: 1px solid var(--line); }
:is(th, td):first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; }
.bar { display: flex; height: 6px; border-radius: 3px; overflow: hidden; margin-top: 4px; background: var(--line); }
.bar i { display: block; }
.allow { color: var(--good); } .block { color: var(--bad); } .unjudged { color: var(--wait); } .zero { opacity: 0.35; }
.bar .allow { background: var(--good); } .bar .block { background: var(--bad); }
.bar .unjudged { background: var(--wait); }
details { border-bottom: 1px solid var(--line); padding: 7px 0; }
details:last-child { border-bottom: 0; }
summary { cursor: pointer; display: flex; gap: 12px; align-items: baseline; overflow-wrap: anywhere; }
summary::before { content: '▸'; color: var(--soft); }
details[open] > summary::before { content: '▾'; }
summary b { margin-left: auto; font-variant-numeric: tabular-nums; }
details table { margin: 8px 0 4px; }
details :is(th, td) { text-align: left; }
code { font: 12.5px ui-monospace, monospace; }
.matrix td { border-radius: 4px; }
footer { color: var(--soft); font-size: 12.5px; margin-top: 40px; }
.bar, .bar i { print-color-adjust: exact; }
@media print {
  main { max-width: none; padding: 0; }
  .panel, .figure { break-inside: avoid; overflow: visible; }
  h2 { break-after: avoid; }
}
`;

const number = (n: number, kind: string): Html => html`<td class="${kind}${n === 0 && ' zero'}">${n}</td>`;
function bar(c: Counts): Html {
  const all = Math.max(1, c.allow + c.block + c.unjudged);
  return html`<div class="bar" aria-hidden="true">${OUTCOMES.map(
    (o) => html`<i class="${o}" style="width: ${((100 * c[o]) / all).toFixed(2)}%"></i>`,
  )}</div>`;
}
const countTable = (what: string, rows: readonly (readonly [string, Counts])[]): Html =>
  html`<table><tr><th>${what}</th>${OUTCOMES.map((o) => html`<th>${o}</th>`)}</tr>${rows.map(
    ([name, c]) => html`<tr><td>${name}${bar(c)}</td>${OUTCOMES.map((o) => number(c[o], o))}</tr>`,
  )}</table>`;
/** What a row is, by its two channels. */
const worstOf = (...states: readonly State[]): State =>
  (['block', 'unjudged', 'allow'] as const).find((s) => states.includes(s)) ?? 'none';
const matrixTable = ({ matrix }: Overview): Html =>
  html`<table class="matrix"><tr><th>analysis ↓ final →</th>${STATES.map((s) => html`<th>${s}</th>`)}</tr>${STATES.map(
    (a) => html`<tr><th>${a}</th>${STATES.map((f) => number(matrix[a][f], worstOf(a, f)))}</tr>`,
  )}</table>`;

const more = (n: number): Html | false => n > 0 && html`<p class="about">and ${n} more</p>`;
const finding = (f: Finding, source: ReportSource): Html =>
  html`<details><summary><span class="${f.outcome}">${f.outcome}</span><code>${f.key}</code><b>${f.count}</b></summary>
<table><tr><th>row</th><th>where</th><th>channel</th><th>text, sha256</th></tr>${f.examples.map(
    (v) =>
      html`<tr><td>${shortId(v)}</td><td><code>${fileOf(v, source)}:${v.line}</code></td><td>${channelOf(v)}</td>
<td><code>${v.digests.content.slice(0, 12)}</code></td></tr>`,
  )}</table>${more(f.count - f.examples.length)}</details>`;

export function htmlOf(overview: Overview, source: ReportSource): string {
  const { byOutcome, rows, findings } = overview;
  const figures: readonly (readonly [string, number, string])[] = [
    ['rows', rows, ''],
    ['verdicts allow', byOutcome.allow, 'allow'],
    ['block', byOutcome.block, 'block'],
    ['unjudged', byOutcome.unjudged, 'unjudged'],
  ];
  const body = html`<main><h1>Screening of ${source.input}</h1>
<p class="about">A verdict for each row, channel and policy. Only <span class="allow">allow</span> passes. Texts and the
judge's words are not in this page: look them up in the file of verdicts.</p>
<div class="figures">${figures.map(
    ([name, n, kind]) => html`<div class="figure"><b class="${kind}">${n}</b><span>${name}</span></div>`,
  )}</div>
<h2>Where</h2><div class="panels">
<div class="panel">${countTable(
    'policy',
    [...overview.policies].map(([name, c]) => [policyLabel(name), c] as const),
  )}</div>
<div class="panel">${countTable(
    'channel',
    [...overview.channels].map(([name, c]) => [name || '(none)', c] as const),
  )}</div>
<div class="panel"><h2>Rows by analysis and final answer</h2>${matrixTable(overview)}</div></div>
<h2>What is not allowed</h2><div class="panel">${
    findings.length === 0
      ? html`<p class="about">Nothing: every verdict is an allow.</p>`
      : findings.map((f) => finding(f, source))
  }</div>
<footer>temper screen ${source.version}</footer></main>`;
  return page(`Screening of ${source.input}`, STYLE, body);
}

export const writeHtml = (out: string, overview: Overview, source: ReportSource): void =>
  writeFileAtomic(out, htmlOf(overview, source));
