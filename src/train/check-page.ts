// What `data check` found, as a page: counts, lengths, what is trained, rows that stand twice or are held out and
// trained on, bad rows, and samples in which every token shows its loss weight.
import type { FileCheck, Sample } from '../data/check.js';
import { noticesOf } from '../data/notes.js';
import { type Html, html, page, type Value } from '../report/html.js';

const STYLE = `
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
.soft { color: var(--soft); }
section {
  background: var(--panel); border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px; margin: 20px 0;
}
h2 { font-size: 17px; margin: 0 0 2px; overflow-wrap: anywhere; }
h3 { font-size: 13px; margin: 20px 0 8px; color: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px 20px; margin: 16px 0 0; }
dt { font-size: 12px; color: var(--soft); } dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
.bars {
  display: grid; grid-template-columns: max-content 1fr max-content; gap: 4px 10px; align-items: center;
  font-size: 13px; font-variant-numeric: tabular-nums;
}
.bars i { display: block; height: 12px; border-radius: 3px; background: var(--accent); min-width: 2px; }
.bars b { font-weight: 400; color: var(--soft); text-align: right; }
ul { margin: 0; padding-left: 20px; overflow-wrap: anywhere; } li { margin: 3px 0; }
.bad { color: var(--bad); } .good { color: var(--good); }
pre {
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 12px; padding: 14px 16px; border: 1px solid var(--line);
  border-radius: 8px; font: 13px/1.65 ui-monospace, monospace; background: var(--ground); color: var(--soft);
}
mark {
  color: var(--ink); border-radius: 3px; padding: 1px 0; box-decoration-break: clone;
  -webkit-box-decoration-break: clone;
}
.analysis { --hue: 45 147 255; } .commentary { --hue: 190 120 255; }
.final { --hue: 46 160 90; } .none { --hue: 240 150 60; }
.key { font-size: 13px; color: var(--soft); margin: 0 0 10px; } .key mark { padding: 1px 6px; }
.hash { font: 12px ui-monospace, monospace; color: var(--soft); overflow-wrap: anywhere; margin: 12px 0 0; }
`;

const count = (n: number): string => n.toLocaleString('en');
const share = (x: number): string => `${(100 * x).toFixed(1)} %`;
/** The heavier a token weighs, the stronger its colour. */
const marked = (text: Value, channel: string, weight: number, title = true): Html => {
  const strength = (0.14 + 0.3 * Math.min(weight, 1.5)).toFixed(2);
  const said = title && html` title="${channel}, weight ${weight}"`;
  return html`<mark class="${channel}" style="background: rgb(var(--hue) / ${strength})"${said}>${text}</mark>`;
};

const sampleOf = (s: Sample): Html =>
  html`<h3>Row ${s.line}</h3><pre>${s.stretches.map((x) =>
    x.trained ? marked(x.text, x.channel, x.weight) : html`<span title="not trained">${x.text}</span>`,
  )}</pre>`;

function bars(file: FileCheck): Html {
  const most = Math.max(1, ...file.histogram.map((b) => b.count));
  return html`<div class="bars">${file.histogram.map(
    (b) =>
      html`<b>${b.from === 0 ? '0' : `${count(b.from)}–${count(2 * b.from - 1)}`}</b><span><i style="width: ${(
        (100 * b.count) / most
      ).toFixed(1)}%${b.count === 0 ? '; visibility: hidden' : ''}"></i></span><b>${count(b.count)}</b>`,
  )}</div>`;
}

const list = (title: string, items: readonly Value[], kind = ''): Value =>
  items.length > 0 && html`<h3>${title}</h3><ul class="${kind}">${items.map((i) => html`<li>${i}</li>`)}</ul>`;

function leakage({ leakage: found }: FileCheck): Value {
  if (!found) return '';
  const { rows, exact, near, first } = found;
  const clean = exact + near === 0;
  const said = clean
    ? `none of ${count(rows)}`
    : `${count(exact)} word for word, ${count(near)} nearly, of ${count(rows)}`;
  const items = first.map((l) => {
    const like = l.likeness === 1 ? '' : `${share(l.likeness)} of `;
    return html`<li>${l.heldOut} is ${like}${l.trained}</li>`;
  });
  return html`<h3>Held-out rows that are trained on</h3>
<p class="${clean ? 'good' : 'bad'}">${said}</p><ul>${items}</ul>`;
}

const CHANNELS_SHOWN = ['analysis', 'commentary', 'final', 'none'] as const;
function samples(file: FileCheck): Value {
  const key = CHANNELS_SHOWN.map((c) => html`${marked(c, c, 1, false)} `);
  return (
    file.samples.length > 0 &&
    html`<h3>Samples</h3><p class="key">Trained: ${key}— the stronger the colour, the higher the weight; what is
grey is read and not trained.</p>${file.samples.map(sampleOf)}`
  );
}

function section(file: FileCheck): Html {
  const { lengths: l, duplicates: d, unit } = file;
  const facts: [string, Value][] = [
    ['rows', count(file.rows)],
    ['bad rows', html`<span class="${file.badRows ? 'bad' : 'good'}">${count(file.badRows)}</span>`],
    ...(unit === 'tokens'
      ? ([
          ['examples', count(file.examples)],
          ['tokens', count(file.tokens)],
          ['trained', file.trainedShare === null ? '–' : share(file.trainedShare)],
        ] as [string, Value][])
      : []),
    ['said twice', count(d.rows)],
    ...(l
      ? ([
          [`median ${unit}`, count(l.median)],
          [`95 % at most`, count(l.p95)],
        ] as [string, Value][])
      : []),
  ];
  const title = unit === 'tokens' ? 'Tokens of an example' : 'Bytes of a row';
  const channels = Object.entries(file.trainedByChannel).map(([name, n]) => `${name} ${count(n)}`);
  return html`<section><h2>${file.path}</h2>
<div class="soft">format ${file.format}${file.because ? ` (${file.because})` : ''}</div>
<dl>${facts.map(([k, v]) => html`<div><dt>${k}</dt><dd>${v}</dd></div>`)}</dl>
${file.nothing ? html`<p class="bad">${file.nothing}</p>` : ''}
${file.histogram.length > 0 && html`<h3>${title}</h3>${bars(file)}`}
${list('Trained tokens by channel', channels)}
${list('Notes', noticesOf(file))}
${list(
  'Rows that stand twice',
  d.first.map((x) => `row ${x.line} says what row ${x.of} says`),
)}
${leakage(file)}
${list(
  'Bad rows',
  file.errors.map((e) => e.message),
  'bad',
)}
${samples(file)}
<p class="hash">sha256 ${file.sha256}</p></section>`;
}

export function checkPage(files: readonly FileCheck[]): string {
  const rows = files.reduce((n, f) => n + f.rows, 0);
  const what = files.length === 1 ? 'one dataset' : `${files.length} datasets`;
  const head = html`<h1>Data check</h1><div class="soft">${what}, ${count(rows)} rows</div>`;
  return page('Data check', STYLE, html`<main>${head}${files.map(section)}</main>`);
}
