// A summary in Markdown, for a job's page and a pull request: verdict first, then what speaks against it.
import { md, mdTable } from '../../report/markdown.js';
import { counts, type MetricDecision, type Subject } from '../decision.js';
import type { PageOptions } from './html.js';
import { type Entry, judgedOf, type Overview } from './overview.js';
import {
  armOf,
  armsRule,
  difference,
  figure,
  holds,
  labelledText,
  limitsOf,
  nameOf,
  type Proof,
  SENTENCE,
  sentenceOf,
} from './words.js';

const MARK = { PASS: '✅', FAIL: '❌', INCONCLUSIVE: '⚠️', ERROR: '⚠️' } as const;
const MOST = 30;
const PROMPTS = 10;

const mergedOf = ({ merged }: Subject): string =>
  merged ? `, and on it merged, checkpoint \`${merged.checkpoint.slice(7, 19)}\`` : '';
function finding(entry: Entry): string {
  const names = [...new Set(entry.worse.map((p) => p.prompt))];
  const shown = names.slice(0, PROMPTS).map((n) => md(n));
  const more = names.length > PROMPTS ? ' …' : '';
  return [
    `**${MARK[entry.of.verdict]} ${entry.of.verdict}: ${md(nameOf(entry.of))}**`,
    ...entry.of.reasons.map((r) => `- ${md(r)}`),
    `- ${md(sentenceOf(entry))}`,
    ...(entry.next === null ? [] : [`- next: ${md(entry.next)}`]),
    ...(shown.length > 0 ? [`- worse than the base on: ${shown.join(', ')}${more}`] : []),
  ].join('\n');
}

const cellsOf = (m: MetricDecision): readonly (string | number)[] => [
  md(m.metric),
  figure(m.base, m),
  figure(m.adapter, m),
  difference(m.difference, m),
  m.interval ? `${difference(m.interval.low, m)} … ${difference(m.interval.high, m)}` : '–',
  md(limitsOf(m)),
  m.n,
  counts(m) ? `${MARK[m.verdict]} ${m.verdict}` : 'told',
];

function provenText(proof: Proof | null): string {
  if (proof === null) return 'never proven under this lock (temper gate prove)';
  const day = proof.time.slice(0, 10);
  return holds(proof)
    ? `last proven ${day}`
    : `**not proven: on ${day} a known-bad adapter was ${proof.knownBad}, a harmless one ${proof.harmless}**`;
}

export function markdownOf(overview: Overview, { proof }: PageOptions): string {
  const { decision, suite, findings, metrics, causes, cost } = overview;
  const { subject } = decision;
  const about = subject
    ? `, adapter \`${subject.adapter.slice(7, 19)}\` on base \`${subject.base.slice(7, 19)}\`${mergedOf(subject)}`
    : '';
  const parts = [
    `## ${MARK[decision.decision]} Release gate: ${decision.decision}`,
    `${SENTENCE[decision.decision]}${armsRule(overview)}`,
    `Suite ${md(suite.name)} ${md(suite.version)}${about}.`,
    ...(findings.length > 0
      ? findings.slice(0, MOST).map(finding)
      : decision.reasons.slice(0, MOST).map((r) => `- ${md(r)}`)),
    ...(findings.length > MOST ? [`${findings.length - MOST} more findings.`] : []),
    ...(causes.length > 0 ? [`Missing, by cause: ${causes.map(([cause, n]) => `${md(cause)} ${n}`).join(', ')}.`] : []),
    ...judgedOf(overview).map((arm) =>
      mdTable(
        ['metric', 'base', arm, 'difference', 'interval', 'limits', 'pairs', ''],
        metrics.flatMap(({ of: m }) => (armOf(m) === arm ? [cellsOf(m)] : [])),
      ),
    ),
    ...(decision.labelled ? [`People: ${md(labelledText(decision.labelled))}.`] : []),
    [
      cost.tokens
        ? `${Object.values(cost.tokens)
            .reduce((a, b) => a + b, 0)
            .toLocaleString('en-US')} tokens`
        : `${cost.rows} outcomes`,
      ...(cost.seconds === null ? [] : [`${cost.seconds.toFixed(0)} s`]),
      provenText(proof),
    ].join(', '),
  ];
  return `${parts.join('\n\n')}\n`;
}
