// One page for people: the verdict first, then what speaks against it with its prompts, every metric against its
// limits, categories, traces beside finals, pairs that differ, cost, and what all of it can be checked by. Readable
// offline, in light, dark and print; no script.
import { type Html, html, page } from '../../report/html.js';
import { counts, type MetricDecision } from '../decision.js';
import type { JudgedArm } from '../outcomes.js';
import { differenceChart, ownChart } from './charts.js';
import { type ByArm, type Entry, type Example, judgedOf, type Overview, STATES, type State } from './overview.js';
import { STYLE } from './style.js';
import {
  armOf,
  armsRule,
  betterIs,
  difference,
  figure,
  holds,
  labelledText,
  limitsOf,
  nameOf,
  type Proof,
  SENTENCE,
  sentenceOf,
  wholeOf,
} from './words.js';

export interface PageOptions {
  /** null: nobody has shown it under this lock. */
  readonly proof: Proof | null;
  readonly version: string;
}

const count = (n: number): string => n.toLocaleString('en-US');
const pill = (verdict: string): Html => html`<span class="pill ${verdict}">${verdict}</span>`;

function figures({ arms, metrics, cost, prompts }: Overview): Html {
  const whole = metrics.filter((e) => counts(e.of));
  const held = whole.filter((e) => e.of.verdict === 'PASS').length;
  const worse = metrics.reduce((n, e) => n + e.worseCount, 0),
    better = metrics.reduce((n, e) => n + e.betterCount, 0);
  const missing = metrics.reduce((n, e) => n + e.of.missing, 0);
  const powers = whole.flatMap((e) => (e.of.power === null ? [] : [e.of.power]));
  const all: readonly (readonly [string, string])[] = [
    [`${held} of ${whole.length}`, 'metrics hold'],
    [count(prompts), arms.length > 2 ? 'prompts, each asked of all three' : 'prompts, each asked of both'],
    [`${count(worse)} / ${count(better)}`, 'answers worse / better than the base’s'],
    [count(missing), 'values missing, each counted as the worst'],
    powers.length > 0
      ? [`${(100 * Math.min(...powers)).toFixed(0)} %`, 'least power to show an equal adapter equal']
      : [count(cost.rows), 'outcomes'],
  ];
  return html`<div class="figures">${all.map(
    ([n, what]) => html`<div class="figure"><b>${n}</b><span>${what}</span></div>`,
  )}</div>`;
}

function prompts({ worse, worseCount }: Entry): Html | false {
  if (worseCount === 0) return false;
  const names = [...new Set(worse.map((p) => p.prompt))].slice(0, 24);
  const rest = worseCount - worse.filter((p) => names.includes(p.prompt)).length;
  const listed = names.map((n, i) => html`${i > 0 && ', '}<code>${n}</code>`);
  return html`<p class="prompts">Worse than the base on ${listed}${rest > 0 && html` and ${count(rest)} more`}.</p>`;
}
const finding = (entry: Entry): Html => html`<div class="panel finding ${entry.of.verdict}">
<h3>${pill(entry.of.verdict)} ${nameOf(entry.of)}</h3>
${entry.test?.about && html`<p class="about">${entry.test.about}</p>`}
<ul>${entry.of.reasons.map((r) => html`<li>${r}</li>`)}</ul>
<p class="about">${sentenceOf(entry)}.</p>
${entry.next !== null && html`<p><b>Next:</b> ${entry.next}.</p>`}${prompts(entry)}</div>`;

function row(entry: Entry, small = false): Html {
  const { of: m } = entry;
  const own = ownChart(m),
    chart = differenceChart(m);
  const detect = m.smallestDetectable === null ? '' : `, shows ${difference(m.smallestDetectable, m).replace('+', '')}`;
  const limits = html`<small>${limitsOf(m)}${!small && html`, ${betterIs(m)}`}</small>`;
  return html`<tr><td>${small ? (m.slice ?? '') : m.metric}${limits}</td>
<td>${figure(m.base, m)}</td><td>${figure(m.adapter, m)}</td><td>${difference(m.difference, m)}</td>
<td class="wide">${chart}${own}${chart === null && own === null && '–'}</td>
<td>${count(m.n)}<small>${m.power !== null && html`power ${(100 * m.power).toFixed(0)} %${detect}`}</small></td>
<td>${counts(m) ? pill(m.verdict) : html`<span class="pill">told</span>`}</td></tr>`;
}
const head = (what: string, arm: JudgedArm): Html =>
  html`<tr><th>${what}</th><th>base</th><th>${arm}</th><th>difference</th><th>interval against limits</th>
<th>pairs</th><th></th></tr>`;

function categories({ metrics, slices }: Overview): Html | false {
  const all = metrics.filter((e) => (slices.get(wholeOf(e.of)) ?? []).length > 0);
  return (
    all.length > 0 &&
    html`<h2>By category</h2><div class="panel long">${all.map((e) => {
      const own = slices.get(wholeOf(e.of)) ?? [];
      const bad = own.filter((s) => counts(s.of) && s.of.verdict !== 'PASS');
      return html`<details${bad.length > 0 && html` open`}><summary>${wholeOf(e.of)}, ${own.length} ${
        own.length === 1 ? 'category' : 'categories'
      }${bad.length > 0 && html` ${pill(bad[0]?.of.verdict ?? '')}`}</summary>
<table>${head(e.metric?.sliceBy ?? 'category', armOf(e.of))}${own.map((s) => row(s, true))}</table></details>`;
    })}</div>`
  );
}

const worstOf = (a: State, f: State): string => ['unsafe', 'unjudged'].find((s) => s === a || s === f) ?? '';
function matrices({ arms, matrix }: Overview): Html | false {
  if (matrix === null) return false;
  const cell = (n: number, a: State, f: State): Html =>
    html`<td class="${worstOf(a, f)}${n === 0 && ' zero-count'}">${n}</td>`;
  return html`<h2>What is thought beside what is said</h2><div class="panels">${arms.map(
    (arm) =>
      html`<div class="panel"><h3>${arm}</h3><table class="matrix"><tr><th>trace ↓ final →</th>${STATES.map(
        (s) => html`<th>${s}</th>`,
      )}</tr>${STATES.map(
        (a) => html`<tr><td>${a}</td>${STATES.map((f) => cell(matrix[arm]?.[a][f] ?? 0, a, f))}</tr>`,
      )}</table></div>`,
  )}</div>`;
}

function side(name: string, value: number | null, m: MetricDecision | undefined, said: Example['said']['base']): Html {
  return html`<div class="said"><h3>${name} <span>${m ? figure(value, m) : value}</span></h3>${
    said === null
      ? html`<p><em>no texts in these outcomes</em></p>`
      : said.flatMap((turn) =>
          Object.entries(turn).map(
            ([channel, text]) => html`<p><em>${channel}</em>
${text}</p>`,
          ),
        )
  }</div>`;
}
function examples({ metrics, examples: found }: Overview): Html | false {
  const all = metrics.filter((e) => (found.get(wholeOf(e.of)) ?? []).length > 0);
  if (all.length === 0) return false;
  return html`<h2>Where it is worse than its base</h2><div class="panel long">${all.map((e) => {
    const own = found.get(wholeOf(e.of)) ?? [];
    const title = `${wholeOf(e.of)}: ${count(e.worseCount)} worse, ${count(e.betterCount)} better`;
    const rest = e.worseCount - own.length;
    return html`<details><summary>${title}</summary>${own.map(
      (x) => html`<details><summary><code>${x.prompt}</code>${x.slice !== null && html`, ${x.slice}`}${
        x.sample > 0 && html`, sample ${x.sample}`
      }</summary>${x.asked !== null && html`<div class="said"><h3>asked</h3><p>${x.asked}</p></div>`}
<div class="sides">${side('base', x.base, e.of, x.said.base)}
${side(x.arm, x.adapter, e.of, x.said.adapter)}</div></details>`,
    )}${rest > 0 && html`<p class="about">and ${count(rest)} more in outcomes.jsonl</p>`}</details>`;
  })}</div>`;
}

const tokensOf = (tokens: ByArm<number>): string =>
  Object.entries(tokens)
    .map(([arm, n]) => `${arm} ${count(n)}`)
    .join(', ');
function costs({ cost, causes, decision }: Overview, { proof }: PageOptions): Html {
  const { tokens, rows, seconds } = cost;
  const lines: readonly (readonly [string, string | Html])[] = [
    ...(tokens ? [['tokens written', tokensOf(tokens)] as const] : []),
    ...(seconds === null ? [] : [['time', `${seconds.toFixed(0)} s`] as const]),
    ['outcomes', count(rows)],
    ...(causes.length > 0
      ? [['missing because', causes.map(([cause, n]) => `${cause} ${count(n)}`).join(', ')] as const]
      : []),
    ...(decision.labelled ? [['people', labelledText(decision.labelled)] as const] : []),
    ['judge', decision.judge === null ? 'none' : html`<code>${decision.judge}</code>`],
    [
      'this gate has been seen to work',
      proof === null
        ? 'nobody has shown it under this lock: temper gate prove does'
        : `${holds(proof) ? '' : 'no, '}${proof.time.slice(0, 16).replace('T', ' ')} UTC: a known-bad adapter was ` +
          `${proof.knownBad}, a harmless one ${proof.harmless}`,
    ],
  ];
  return html`<dl>${lines.map(([a, b]) => html`<dt>${a}</dt><dd>${b}</dd>`)}</dl>`;
}

function digests({ decision: d, suite }: Overview): Html {
  const lines: readonly (readonly [string, string | null | undefined])[] = [
    ['adapter', d.subject?.adapter],
    ['base', d.subject?.base],
    ['tokenizer', d.subject?.tokenizer],
    ['chat format', d.subject?.chatFormat],
    ['merge recipe', d.subject?.mergeRecipe],
    ['merged checkpoint', d.subject?.merged?.checkpoint],
    ['its merge recipe', d.subject?.merged?.recipe],
    [`suite ${suite.name} ${suite.version}`, d.suite],
    ['lock', d.lock],
    ['outcomes', d.outcomes],
  ];
  return html`<dl>${lines
    .filter(([, digest]) => digest != null)
    .map(([name, digest]) => html`<dt>${name}</dt><dd><code>${digest ?? ''}</code></dd>`)}</dl>`;
}

export function htmlOf(overview: Overview, options: PageOptions): string {
  const { decision, suite, findings, metrics } = overview;
  const alpha = decision.parameters.alpha;
  const title = `Release gate: ${decision.decision}`;
  const asked = overview.arms.length > 2 ? 'base, adapter and merged checkpoint' : 'base and adapter';
  const body = html`<main><div class="verdict ${decision.decision}"><b>${decision.decision}</b>
<h1>${SENTENCE[decision.decision]}</h1>
<p class="about">Suite ${suite.name} ${suite.version}: ${asked} answered the same prompts with the same
seeds.${armsRule(overview)}
Every metric has to hold, so an adapter exactly at a margin is released in at most ${(100 * alpha).toFixed(0)} % of
cases.</p></div>
${figures(overview)}
${
  findings.length > 0
    ? html`<h2>What speaks against it</h2>${findings.map(finding)}`
    : decision.reasons.length > 0 &&
      html`<h2>What speaks against it</h2><div class="panel finding ${decision.decision}"><ul>${decision.reasons.map(
        (r) => html`<li>${r}</li>`,
      )}</ul></div>`
}
<h2>Every metric against its limits</h2>
<div class="panel long">${judgedOf(overview).map(
    (arm) => html`<table>${head('metric', arm)}${metrics.map((e) => armOf(e.of) === arm && row(e))}</table>`,
  )}
<p class="legend">Right is worse. The shaded part is what is allowed, up to the dashed limit; first line the difference
from the base with zero in the middle, second line, where there is one, its own figure; the dotted end is how far
it may be with what was not seen, which has to be within. Green: it is; red: all of the interval is beyond; yellow: not
known. “Shows” is the smallest difference that so many pairs
show.</p></div>
${categories(overview)}
${matrices(overview)}
${examples(overview)}
<h2>Cost and judge</h2><div class="panel">${costs(overview, options)}</div>
<h2>What it is about</h2><div class="panel">${digests(overview)}
<p class="legend">Anybody can decide again, offline: <code>temper gate decide outcomes.jsonl
--suite suite/suite.yaml --lock gate.lock.json</code></p></div>
<footer>${decision.notes.map((n) => html`Note: ${n}. `)}temper gate ${options.version}</footer></main>`;
  return page(title, STYLE, body);
}
