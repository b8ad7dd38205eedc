// Whether reviewers and judge agree, day by day, and the rows that reviewers made for golden sets.
import { make } from './dom.js';

/** @typedef {import('./api.js').Share} Share */

/** @param {number} x */
const percent = (x) => `${(100 * x).toFixed(1)} %`;
/** @param {Share} s */
function bar({ agreed, of }) {
  const meter = make('meter');
  meter.max = Math.max(1, of);
  meter.value = agreed;
  return meter;
}
/** @param {Share} s */
const cells = (s) => [
  make('td', '', bar(s)),
  make('td', 'number', s.of === 0 ? '' : percent(s.agreed / s.of)),
  make('td', 'number', `${s.agreed.toLocaleString('en')} of ${s.of.toLocaleString('en')}`),
  make('td', 'number note', s.interval ? `${percent(s.interval[0])} to ${percent(s.interval[1])}` : ''),
];
/**
 * @param {string} title
 * @param {string} what
 * @param {readonly (Share & {name: string})[]} rows
 */
function section(title, what, rows) {
  if (rows.length === 0) return [];
  const table = make('table', 'shares');
  table.append(make('tr', '', ...[what, '', 'Agree', 'Decisions', '95 % interval'].map((h) => make('th', '', h))));
  for (const row of rows) table.append(make('tr', '', make('td', '', row.name), ...cells(row)));
  return [make('h3', '', title), table];
}

/**
 * @param {import('./api.js').Agreement} a
 * @param {import('./api.js').Counts | null} counts
 */
export function drawAgreement(a, counts) {
  const head =
    a.judge.of === 0
      ? 'No decisions in 30 days.'
      : `In 30 days reviewers agreed with the judge in ${percent(a.judge.agreed / a.judge.of)} of ` +
        `${a.judge.of.toLocaleString('en')} decisions.`;
  const days = [...a.days]
    .reverse()
    .map((d) => ({ ...d, name: new Date(d.day * 86_400_000).toISOString().slice(0, 10) }));
  const links = make('p', 'links');
  if (counts && counts.relabelled > 0) {
    links.append(make('span', 'note', `${counts.relabelled.toLocaleString('en')} relabelled rows for golden sets: `));
    for (const policy of ['', ...counts.policies]) {
      const a = make('a', '', policy === '' ? 'all' : policy);
      a.href = `review/golden.jsonl${policy === '' ? '' : `?policy=${encodeURIComponent(policy)}`}`;
      a.download = `${policy || 'all'}.golden.jsonl`;
      links.append(a, ' ');
    }
  }
  return [
    make('h2', '', head),
    make(
      'p',
      'note',
      'Agree means: rejected, or labelled block, where the judge blocked. What was not judged is left out.',
    ),
    links,
    ...section('By day', 'Day, UTC', days),
    ...section(
      'By policy',
      'Policy',
      a.policies.map((p) => ({ ...p, name: p.policy })),
    ),
    ...section(
      'Between reviewers',
      'Reviewers',
      a.reviewers.map((r) => ({ ...r, name: r.who.join(' and ') })),
    ),
  ];
}
