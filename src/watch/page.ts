// The page that watches a run: it holds nothing of the run, which comes as events. One document, no other request.
import { createHash } from 'node:crypto';
import { html, page, script } from '../report/html.js';
import { controls, PLOT_SCRIPT, PLOT_STYLE, plotLibrary } from '../report/plots.js';

const STYLE = `
.top { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 10px; }
.top .status { margin: 0; vertical-align: 0; position: relative; top: -3px; }
.status.running { color: var(--accent); }
.status.running::before {
  content: ''; display: inline-block; width: 7px; height: 7px; margin-right: 6px; border-radius: 50%;
  background: currentColor; vertical-align: 1px; animation: beat 2s ease-in-out infinite;
}
@keyframes beat { 50% { opacity: 0.25; } }
.link { margin-left: auto; color: var(--soft); font-size: 12.5px; }
.link.lost { color: var(--bad); }
.detail { margin: 10px 0 0; overflow-wrap: anywhere; }
.detail.failed, .detail.gone, .detail.damaged { color: var(--bad); }
.way { margin: 26px 0 0; }
.bar { height: 8px; border-radius: 99px; background: var(--line); overflow: hidden; }
.bar i {
  display: block; height: 100%; width: 0; border-radius: 99px; background: var(--accent); transition: width 0.4s ease;
}
.bar.done i { background: var(--good); } .bar.failed i, .bar.gone i { background: var(--bad); }
.pace {
  display: flex; flex-wrap: wrap; gap: 2px 22px; margin: 9px 0 0; color: var(--soft); font-size: 13.5px;
  font-variant-numeric: tabular-nums;
}
.pace b { color: var(--ink); font-weight: 600; }
.pace span:empty { display: none; }
.figures { margin-top: 24px; }
[hidden] { display: none !important; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (prefers-reduced-motion: reduce) { .status.running::before, .bar i { animation: none; transition: none; } }`;

const SCRIPT = `
const box = control;
const make = (tag, text, className) => {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
};
const say = (e, text) => { if (e.textContent !== text) e.textContent = text; };
/* Given to the elements there are, so that what is marked stays marked. */
function fill(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, i) => {
    if (!parent.children[i]) parent.append(create());
    update(parent.children[i], item);
  });
}
let view = null, columns = {}, touched = false, pending = false, factsShown = '';

/* What the reader has chosen outlives a reload. */
try {
  const kept = JSON.parse(sessionStorage.getItem('temper') ?? 'null');
  if (kept) { control('log').checked = kept.log; control('smoothing').value = kept.smoothing; touched = true; }
} catch {}
for (const id of ['smoothing', 'log']) control(id).addEventListener('input', () => {
  touched = true;
  const chosen = { log: control('log').checked, smoothing: control('smoothing').value };
  try { sessionStorage.setItem('temper', JSON.stringify(chosen)); } catch {}
});

function ago(seconds) {
  if (seconds < 60) return Math.max(0, Math.round(seconds)) + ' s';
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return hours === 0 ? minutes + ' min' : hours + ' h ' + String(minutes % 60).padStart(2, '0') + ' min';
}
function tick() {
  const at = view && view.state === 'running' && view.lastAt;
  say(box('ago'), at ? 'last step ' + ago((Date.now() - at) / 1000) + ' ago' : '');
}

function header() {
  const { name, about, state, word, detail, step, steps, left, rate } = view;
  const share = steps ? Math.min(1, step / steps) : 0;
  const percent = Math.floor(100 * share) + ' %';
  document.title = (state === 'running' ? percent : word) + ' · ' + name;
  say(box('name'), name);
  const status = box('status');
  say(status, word);
  status.className = 'status ' + state;
  say(box('about'), about);
  box('about').hidden = about === '';
  say(box('detail'), detail);
  box('detail').className = 'detail ' + state;
  box('detail').hidden = detail === '';
  box('way').hidden = steps === null && step === 0;
  const bar = box('bar');
  bar.className = 'bar ' + state;
  bar.setAttribute('aria-valuenow', String(Math.floor(100 * share)));
  bar.firstElementChild.style.width = 100 * share + '%';
  say(box('step'), 'step ' + step + (steps === null ? '' : ' of ' + steps));
  say(box('share'), steps === null ? '' : percent);
  say(box('left'), left === null ? '' : left + ' left');
  say(box('rate'), rate ?? '');
  tick();
}

function figure() {
  const e = make('div', undefined, 'figure');
  e.append(make('b'), make('span'));
  return e;
}
function facts() {
  const now = JSON.stringify(view.facts);
  box('determines').hidden = view.facts.length === 0;
  if (now === factsShown) return;
  factsShown = now;
  const rows = view.facts.map(({ name, parts }) => {
    const row = make('tr'), cell = make('td');
    for (const { text, code } of parts) cell.append(code ? make('code', text) : text);
    row.append(make('th', name), cell);
    return row;
  });
  box('facts').replaceChildren(...rows);
}
/* Charts come when there is something to draw, in their order, and go when there is not. */
function boxes() {
  const parent = box('charts');
  const charts = columns.step.length > 0 ? view.charts : [];
  for (const e of [...parent.children]) if (!charts.some((c) => 'chart-' + c.key === e.id)) e.remove();
  charts.forEach((c, i) => {
    let e = box('chart-' + c.key);
    if (!e) {
      e = make('div', undefined, 'chart' + (c.wide ? ' wide' : ''));
      e.id = 'chart-' + c.key;
      const plot = make('div');
      plot.id = c.key;
      e.append(make('h2', c.title), plot);
    }
    if (parent.children[i] !== e) parent.insertBefore(e, parent.children[i] ?? null);
  });
  box('controls').hidden = charts.length === 0;
  return charts;
}
function drawAll() {
  pending = false;
  header();
  fill(box('figures'), view.figures, figure, (e, words) => words.forEach((text, i) => say(e.children[i], text)));
  facts();
  if (!touched) control('smoothing').value = view.smoothing;
  show(columns, boxes());
}

const source = new EventSource('events');
source.addEventListener('view', (event) => {
  view = JSON.parse(event.data);
  for (const name of view.columns) {
    columns[name] ??= [];
    columns[name].length = view.from;
  }
  for (const row of view.rows) view.columns.forEach((name, i) => columns[name].push(row[i]));
  /* A page that nobody looks at draws when somebody does. */
  if (!pending) { pending = true; requestAnimationFrame(drawAll); }
});
const link = (text, lost) => { say(box('link'), text); box('link').className = lost ? 'link lost' : 'link'; };
source.addEventListener('open', () => link('live', false));
source.addEventListener('error', () => link('not connected: this is the last that came', true));
setInterval(tick, 1000);`;

export interface WatchPage {
  readonly text: string;
  /** Allows the page's own script and style, by their digests, its events, and nothing else. */
  readonly policy: string;
}

export function watchPage(): WatchPage {
  const lib = plotLibrary();
  const text = page(
    'Temper run',
    lib.style + PLOT_STYLE + STYLE,
    html`<main>
<header>
<div class="top"><h1 id="name">Temper run</h1><span id="status" class="status" role="status">connecting</span
><span id="link" class="link"></span></div>
<p id="about" class="about" hidden></p>
<p id="detail" class="detail" hidden></p>
<div id="way" class="way" hidden><div id="bar" class="bar" role="progressbar" aria-label="steps done" aria-valuemin="0"
aria-valuemax="100"><i></i></div>
<p class="pace"><b id="step"></b><span id="share"></span><span id="left"></span><span id="rate"></span><span
id="ago"></span></p></div>
</header>
<section id="figures" class="figures"></section>
<div id="controls" hidden>${controls(0)}</div>
<section id="charts" class="charts"></section>
<section id="determines" class="table" hidden><h2>What determines this run</h2><table><tbody id="facts"></tbody
></table></section>
<noscript><p>The curves are drawn by a script of this page.</p></noscript>
</main>
${script(lib.script)}
${script(PLOT_SCRIPT + SCRIPT)}
`,
  );
  const digests = (element: string): string =>
    [...text.matchAll(new RegExp(`<${element}>([\\s\\S]*?)</${element}>`, 'g'))]
      .map(
        (m) =>
          `'sha256-${createHash('sha256')
            .update(m[1] ?? '')
            .digest('base64')}'`,
      )
      .join(' ');
  return {
    text,
    policy:
      `default-src 'none'; script-src ${digests('script')}; style-src ${digests('style')}; connect-src 'self'; ` +
      "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  };
}
