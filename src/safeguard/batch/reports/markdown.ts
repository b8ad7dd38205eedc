// A summary in Markdown, for a job's page: $GITHUB_STEP_SUMMARY takes 1 MiB, of which this needs a small part.
import { writeFileAtomic } from '../../../base/files.js';
import { md, mdTable as table } from '../../../report/markdown.js';
import { type Counts, OUTCOMES, type Overview, policyLabel, STATES } from './overview.js';
import { channelOf, fileOf, type ReportSource, shortId } from './source.js';

const MOST_FINDINGS = 50;
const MOST_EXAMPLES = 5;

const counts = (name: string, c: Counts): (string | number)[] => [md(name), ...OUTCOMES.map((o) => c[o])];

export function markdownOf(overview: Overview, source: ReportSource): string {
  const { byOutcome, findings, policies, channels } = overview;
  const state = byOutcome.block > 0 ? '❌ blocked' : byOutcome.unjudged > 0 ? '⚠️ not all judged' : '✅ all allowed';
  const shown = findings.slice(0, MOST_FINDINGS);
  const parts = [
    `## Screening: ${state}`,
    `${overview.rows} rows of ${md(source.input)}: ${byOutcome.allow} verdicts allow, ${byOutcome.block} block, ` +
      `${byOutcome.unjudged} unjudged.`,
    table(
      ['policy', ...OUTCOMES],
      [...policies].map(([name, c]) => counts(policyLabel(name), c)),
    ),
    table(
      ['channel', ...OUTCOMES],
      [...channels].map(([name, c]) => counts(name || '(none)', c)),
    ),
    'Rows by what their analysis (down) and their final answer (across) are:',
    table(
      ['analysis \\ final', ...STATES],
      STATES.map((a) => [a, ...STATES.map((f) => overview.matrix[a][f])]),
    ),
  ];
  if (shown.length > 0) {
    parts.push(
      table(
        ['finding', 'verdicts', 'first rows'],
        shown.map((f) => [
          md(f.key),
          f.count,
          f.examples
            .slice(0, MOST_EXAMPLES)
            .map((v) => md(`${fileOf(v, source)}:${v.line} ${shortId(v)} ${channelOf(v)}`))
            .join('<br>'),
        ]),
      ),
    );
    if (findings.length > shown.length) parts.push(`${findings.length - shown.length} more kinds of finding.`);
  }
  return `${parts.join('\n\n')}\n`;
}

export const writeMarkdown = (out: string, overview: Overview, source: ReportSource): void =>
  writeFileAtomic(out, markdownOf(overview, source));
