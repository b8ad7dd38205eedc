// What `screen` and `screen merge` share: reports, `--fail-on`, and how a run ends.
import type { Command as CommanderCommand } from 'commander';
import { ConfigError } from '../base/errors.js';
import type { VerdictRow } from '../safeguard/agreement.js';
import { FailCount, parseFailRule } from '../safeguard/batch/fail-on.js';
import type { ReportName } from '../safeguard/batch/reports/index.js';
import type { BatchSummary } from '../safeguard/batch/tally.js';
import { collect } from './command.js';
import { print, tell } from './terminal.js';

export interface ReportOptions {
  readonly junit?: string;
  readonly sarif?: string;
  readonly codeQuality?: string;
  readonly csv?: string;
  readonly parquet?: string;
  readonly html?: string;
  readonly summary?: string;
  readonly annotations?: boolean;
  readonly failOn: readonly string[];
}
export function addReportOptions(command: CommanderCommand): CommanderCommand {
  return command
    .option('--junit <file>', 'the verdicts as JUnit XML: blocked is a failure, unjudged an error')
    .option('--sarif <file>', 'what is not allowed as SARIF 2.1.0; more files where one is over what GitHub takes')
    .option('--code-quality <file>', "what is not allowed as GitLab's code quality report")
    .option('--csv <file>', 'the verdicts as CSV, without what a spreadsheet would compute')
    .option('--parquet <file>', 'the verdicts as Parquet')
    .option('--html <file>', 'a page: policies, rules, channels, analysis against final answer, examples')
    .option('--summary <file>', 'a summary in Markdown, such as $GITHUB_STEP_SUMMARY takes')
    .option('--annotations', 'GitHub annotations: 10 errors and 10 warnings, as many as a step shows')
    .option(
      '--fail-on <rule>',
      'what ends with exit code 10 or 30: block, unjudged, POLICY or POLICY/RULE, with @CHANNEL, >N or >N%; may be ' +
        'given several times; without it all that is not allowed does',
      collect,
      [],
    );
}

/** The files that reports go to, by their options. */
export const reportFiles = (o: ReportOptions): Readonly<Record<string, string | undefined>> => ({
  '--junit': o.junit,
  '--sarif': o.sarif,
  '--code-quality': o.codeQuality,
  '--csv': o.csv,
  '--parquet': o.parquet,
  '--html': o.html,
  '--summary': o.summary,
});
const wantedOf = (o: ReportOptions): Partial<Record<ReportName, string | undefined>> => ({
  junit: o.junit,
  sarif: o.sarif,
  'code-quality': o.codeQuality,
  csv: o.csv,
  parquet: o.parquet,
  html: o.html,
  summary: o.summary,
});

/** What a rule may speak of. */
export interface Named {
  readonly name: string;
  /** null: nobody knows them here. */
  readonly rules: readonly string[] | null;
}
/** Detectors by the names of their verdicts. */
export async function detectorsNamed(): Promise<readonly Named[]> {
  const { DETECTORS, detectorPolicy } = await import('../safeguard/detectors/index.js');
  return DETECTORS.map(({ name, rules }) => ({ name: detectorPolicy(name), rules: rules.map((r) => r.id) }));
}
/**
 * @param named detectors and policies; absent: nobody knows yet
 * @throws {ConfigError} bad_option: wrong form, or of what there is not, so that nothing would ever fail by it
 */
export function failCount(given: readonly string[], named?: readonly Named[]): FailCount {
  const rules = given.map(parseFailRule);
  for (const { text, policy, rule } of rules) {
    if (policy === null || named === undefined) continue;
    const known = named.find((p) => p.name === policy);
    const what = known ? `policy ${policy} has no rule ${rule}` : `there is no policy ${policy}`;
    const has = (own: readonly string[]): boolean => own.some((r) => r === rule || r.startsWith(`${rule}.`));
    if (known && (rule === null || known.rules === null || has(known.rules))) continue;
    throw new ConfigError('bad_option', `--fail-on ${text}: ${what}, and nothing would ever fail by it`);
  }
  return new FailCount(rules);
}

export interface Ending {
  readonly options: ReportOptions & { readonly json?: boolean };
  /** Whose rows they are. */
  readonly input: string;
  readonly version: string;
  readonly signal: AbortSignal;
}
/** Writes the reports from the complete file of verdicts, and prints annotations. @returns files */
export async function report(file: string, { options, input, version, signal }: Ending): Promise<readonly string[]> {
  const wanted = wantedOf(options);
  if (!options.annotations && Object.values(wanted).every((w) => w === undefined)) return [];
  const [{ writeReports }, { overviewOf }, { annotationsOf }] = await Promise.all([
    import('../safeguard/batch/reports/index.js'),
    import('../safeguard/batch/reports/overview.js'),
    import('../safeguard/batch/reports/annotations.js'),
  ]);
  const source = { file, input, version, signal };
  let overview: ReturnType<typeof overviewOf> | undefined;
  const once = (): ReturnType<typeof overviewOf> => (overview ??= overviewOf(source));
  const files = await writeReports(wanted, source, once);
  if (options.annotations) {
    const lines = annotationsOf(await once(), source);
    // GitHub reads both streams; the one result on stdout stays alone there.
    if (options.json) tell(...lines);
    else if (lines.length > 0) print(...lines);
  }
  return files;
}

/** Sets the exit code. @returns lines on what was broken, or passed over */
export function settle(summary: BatchSummary, fail: FailCount, plain: 0 | 10 | 30): readonly string[] {
  if (fail.rules.length === 0) {
    process.exitCode = plain;
    return [];
  }
  process.exitCode = fail.exitCode();
  for (const { text, channel } of fail.idle())
    tell(`note: --fail-on ${text}: there is no verdict of it on channel ${channel}, so it held nothing`);
  const broken = fail.broken();
  const lines = broken.map(({ rule, count, of }) => `  --fail-on ${rule.text}: ${count} of ${of} verdicts`);
  const passed = summary.block + summary.unjudged;
  if (broken.length === 0 && passed > 0)
    lines.push(
      `  NOT ALL IS ALLOWED, and no --fail-on is broken: ${summary.block} block, ${summary.unjudged} unjudged`,
    );
  return lines;
}
export const countFor =
  (fail: FailCount): ((row: VerdictRow) => void) =>
  (row) =>
    fail.add(row);
