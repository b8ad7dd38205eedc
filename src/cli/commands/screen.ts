// `temper screen`: judges files of answers and traces, writes every verdict.

import type { OpenScreen } from '../../compose/screening.js';
import type { OpenSharedVerdicts } from '../../compose/shared-verdicts.js';
import type { Columns } from '../../safeguard/batch/columns.js';
import type { Shard } from '../../safeguard/batch/shard.js';
import type { BatchSummary } from '../../safeguard/batch/tally.js';
import { type Command, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { Option } from '../commander.js';
import { addScreenOptions, type ScreenOptions, sayNotices } from '../engine-options.js';
import { createProgress } from '../progress.js';
import {
  addReportOptions,
  detectorsNamed,
  failCount,
  type ReportOptions,
  report,
  reportFiles,
  settle,
} from '../screen-reports.js';
import { shardFor } from '../shards.js';
import { goOnWithoutReader } from '../streams.js';
import { print, tell } from '../terminal.js';
import { command as merge } from './screen-merge.js';

type Options = ScreenOptions &
  ReportOptions & {
    readonly out: string;
    readonly textColumn?: string;
    readonly channelColumn?: string;
    readonly idColumn?: string;
    readonly expectColumn?: string;
    readonly onBadRow: 'error' | 'unjudged';
    readonly shard?: string;
    readonly rejudge: 'unjudged' | 'all';
    readonly budget?: number;
    readonly callPrice?: number;
    readonly store?: string;
    readonly storeKey?: string;
    readonly json?: boolean;
  };

/** undefined: rows are ours; null: a column of rows that are not, but not which is the text. */
function columnsOf(options: Options): Columns | null | undefined {
  const { textColumn: text, channelColumn: channel, idColumn: id, expectColumn: expect } = options;
  if (text === undefined) return [channel, id, expect].some((c) => c !== undefined) ? null : undefined;
  return { text, ...(channel ? { channel } : {}), ...(id ? { id } : {}), ...(expect ? { expect } : {}) };
}

/** `{shard}` and `{shards}` in the name of an output: tasks of an array may share a folder. */
function named<T extends Options>(options: T, shard: Shard | undefined): T {
  const fill = (path: string): string =>
    path.replaceAll('{shard}', String(shard?.index ?? 1)).replaceAll('{shards}', String(shard?.of ?? 1));
  const outputs = ['out', 'junit', 'sarif', 'codeQuality', 'csv', 'parquet', 'html', 'summary'] as const;
  return Object.assign(
    { ...options },
    Object.fromEntries(
      outputs.flatMap((name) => {
        const path = options[name];
        return path === undefined ? [] : [[name, fill(path)]];
      }),
    ),
  );
}

/** What is shown beside the count of rows. */
function costText(asked: number, price: number | undefined, done: number, total: number): string {
  if (price === undefined) return '';
  const whole = done === 0 ? 0 : (asked / done) * total;
  return `  cost ${(asked * price).toFixed(2)} of about ${(whole * price).toFixed(2)}`;
}

function linesOf(summary: BatchSummary, open: OpenScreen): string[] {
  const { detectors } = open.screen;
  const lines = [
    `${summary.rows} rows, ${summary.verdicts} verdicts: ${summary.allow} allow, ` +
      `${summary.block} block, ${summary.unjudged} unjudged`,
  ];
  if (summary.blank > 0) lines.push(`  ${summary.blank} rows without text were passed over`);
  if (detectors && detectors.off.length > 0) lines.push(`  detectors that are off: ${detectors.off.join(', ')}`);
  if (summary.kept > 0)
    lines.push(
      `  ${summary.kept} verdicts are those of a run before` +
        (summary.shared === undefined ? '' : `, ${summary.shared} of them by way of the store`),
    );
  for (const [cause, n] of Object.entries(summary.causes))
    lines.push(`  unjudged by ${cause}: ${n}, first: ${summary.samples[cause] ?? ''}`);
  return lines;
}
async function agreementLines(summary: BatchSummary): Promise<string[]> {
  const { ratioText } = await import('../../safeguard/agreement.js');
  return Object.entries(summary.agreement ?? {}).map(
    ([name, a]) =>
      `  ${name === 'all' ? 'expected' : `expected, ${name}`}: precision ` +
      `${ratioText(a.precision)}, recall ${ratioText(a.recall)}, F1 ${ratioText(a.f1)}; ` +
      `${a.sameRule} of ${a.truePositives} blocks cite the expected rule` +
      (a.unjudged > 0 ? `; ${a.unjudged} of the verdicts expected are missing` : ''),
  );
}

async function screen(inputs: readonly string[], given: Options, version: string): Promise<void> {
  const { ConfigError } = await import('../../base/errors.js');
  goOnWithoutReader();
  if (given.policy.length === 0)
    throw new ConfigError('policy_missing', 'screen: no --policy; nothing can be judged without one');
  const columns = columnsOf(given);
  if (columns === null)
    throw new ConfigError('bad_option', 'screen: --channel-column, --id-column, --expect-column need --text-column');
  const shard = await shardFor(given.shard);
  const options = named(given, shard);
  const { checkOutputs } = await import('../../base/outputs.js');
  const { inputFiles } = await import('../../safeguard/batch/read.js');
  const files = inputFiles(inputs, columns !== undefined);
  checkOutputs(
    { '--out': options.out, ...reportFiles(options) },
    { files: [...files, ...options.policy, options.store, options.storeKey], folders: [options.judge] },
  );
  const { screenFile } = await import('../../safeguard/batch/screen-file.js');
  const { batchExitCode } = await import('../../safeguard/batch/tally.js');
  const { ASKED_A_SLOT, openScreen } = await import('../../compose/screening.js');
  const signal = interruptSignal();
  if (options.storeKey !== undefined && options.store === undefined)
    throw new ConfigError('bad_option', 'screen: --store-key without --store; add --store FILE or --store URL');
  const open = await openScreen(options, signal, { by: 'screen', many: true });
  if (!open) return;
  let verdicts: OpenSharedVerdicts | undefined;
  try {
    if (options.store !== undefined) {
      const { openSharedVerdicts } = await import('../../compose/shared-verdicts.js');
      verdicts = await openSharedVerdicts({ store: options.store, storeKey: options.storeKey }, signal);
      sayNotices(verdicts.notices);
    }
    const fail = failCount(options.failOn, [...open.screen.policies, ...(await detectorsNamed())]);
    sayNotices(open.notices);
    const progress = createProgress({ label: 'screen', unit: 'rows', quiet: options.json === true });
    const totals = { allow: 0, block: 0, unjudged: 0 };
    let [total, every, reports] = [0, 1, [] as readonly string[]];
    const summary = await screenFile({
      input: inputs,
      output: options.out,
      screen: open.screen,
      ...(open.log ? { sink: open.log } : {}),
      ...(verdicts ? { shared: verdicts.shared } : {}),
      onShareFailed: (error) =>
        tell(`temper: verdicts are not kept any more: ${error instanceof Error ? error.message : 'the store fails'}`),
      ...(columns ? { columns } : {}),
      ...(shard ? { shard } : {}),
      onBadRow: options.onBadRow,
      rejudge: options.rejudge,
      ...(options.budget === undefined ? {} : { budget: options.budget }),
      signal,
      window: Math.max(open.atOnce, ASKED_A_SLOT * options.judgeConcurrency),
      onChecked: (rows) => {
        total = rows;
        every = Math.max(1, Math.min(256, Math.floor(rows / 1000)));
      },
      onRow: (rows, result, asked) => {
        totals[result.outcome]++;
        // A line that is not shown costs more than a row of most files.
        if (rows % every !== 0 && rows !== total) return;
        progress.update(
          rows,
          `${totals.allow} allowed, ${totals.block} blocked, ${totals.unjudged} unjudged` +
            costText(asked, options.callPrice, rows, total),
          total,
        );
      },
      ...(fail.rules.length > 0 ? { onVerdict: (row) => fail.add(row) } : {}),
      onComplete: async (file) => {
        progress.finish();
        reports = await report(file, { options, input: files[0] ?? '', version, signal });
      },
      onKept: (file, verdicts) =>
        tell(`note: ${verdicts} verdicts are kept in ${file}; the same command goes on from there`),
    });
    const settled = settle(summary, fail, batchExitCode(summary));
    const { detectors } = open.screen;
    if (options.json) {
      printJson({
        ...summary,
        judge: { name: open.judge.name, digest: open.judge.digest, checks: open.checks },
        notices: open.notices,
        policies: open.screen.policies.map(({ name, digest, rules, contract = 'temper' }) => {
          return { name, digest, rules, contract };
        }),
        detectors: { digest: detectors?.digest, on: detectors?.on, off: detectors?.off },
        ...(shard ? { shard } : {}),
        out: options.out,
        ...(reports.length > 0 ? { reports } : {}),
      });
      return;
    }
    print(
      ...linesOf(summary, open),
      ...(await agreementLines(summary)),
      ...settled,
      ...reports.map((file) => `report in ${file}`),
      shard ? `verdicts of shard ${shard.index}/${shard.of} in ${options.out}` : `verdicts in ${options.out}`,
    );
  } finally {
    await verdicts?.close();
    await open.close();
  }
}

export const command: Command = {
  name: 'screen',
  summary: 'judge files of answers and traces by policies; every verdict with rule, channel, rationale and digests',
  register(program) {
    const own = program.command('screen').enablePositionalOptions().summary(this.summary);
    addReportOptions(
      addScreenOptions(
        own.description(
          `${this.summary}.\n\nRows: {"id", "text", "channel"?} or {"id", "channels": {"analysis": ` +
            '…, "final": …}} or {"id", "messages": […]};\n"expect" (a rule or null) adds precision, ' +
            'recall and F1. Only `allow` passes.',
        ),
      )
        .argument('<input...>', 'JSON lines or arrays, Parquet, Arrow: files, folders, patterns; with columns also CSV')
        .option(
          '--out <file>',
          'verdicts, one JSON object per line (required); {shard} in it is the number of the shard',
        )
        .option('--text-column <name>', 'rows are not ours: the column to judge, by name, of CSV also by number')
        .option('--channel-column <name>', 'with --text-column: what channel the text is of; final if absent')
        .option('--id-column <name>', 'with --text-column: what names a row; its line if absent')
        .option('--expect-column <name>', 'with --text-column: the rule that a reviewer says is broken, or safe')
        .addOption(
          new Option(
            '--on-bad-row <what>',
            'a row that cannot be read ends the run before the judge is asked, or is unjudged',
          )
            .choices(['error', 'unjudged'])
            .default('error'),
        )
        .option(
          '--shard <i/n>',
          'judge only this part of the rows, and leave what `screen merge` joins; by default what the variables of ' +
            'Slurm, Kubernetes, AWS Batch or GitLab say; off: all rows',
        )
        .addOption(
          new Option('--rejudge <what>', 'of a run before, what is asked again: what could not be judged, or all')
            .choices(['unjudged', 'all'])
            .default('unjudged'),
        )
        .option(
          '--budget <n>',
          'most verdicts to ask the judge for; then the run ends and keeps them',
          integerIn(1, 1e12),
        )
        .option(
          '--store <where>',
          'verdicts that are used again, in whatever run: a file of SQLite, or postgres://USER@HOST/DATABASE',
        )
        .option(
          '--store-key <file>',
          'private key (`temper key new`) without which nobody can put a verdict there; needed for a database',
        )
        .option(
          '--call-price <amount>',
          'what a verdict of the judge costs, to be shown as it adds up',
          numberIn(0, 1e6),
        ),
    )
      .option('--threads <n>', 'CPU threads of a local judge', integerIn(1, 1024))
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper screen answers.jsonl --policy policies/contact/policy.md --judge ' +
            'models/nano-judge --out verdicts.jsonl',
          'temper screen answers.jsonl --policy p.md --judge http://127.0.0.1:8000/v1 --judge-model ' +
            'gpt-oss-safeguard-20b --out v.jsonl',
          'temper screen prompts.csv --text-column prompt --id-column id --policy p.md --judge-contract ' +
            'gpt-oss-safeguard --judge http://127.0.0.1:8000/v1 --judge-model gpt-oss-safeguard-20b --out v.jsonl',
          "temper screen 'answers/*.parquet' --shard 3/8 --policy p.md --judge models/nano-judge --out part-3.jsonl",
        )}\nExit codes: 0 everything is allowed, 10 something is blocked, 30 something could not be judged.\n`,
      )
      .action(async (inputs: string[], options: Options) => {
        // Not `requiredOption`: that would be asked of `screen merge` too.
        if (options.out === undefined) own.error("error: required option '--out <file>' not specified");
        await screen(inputs, options, program.version() ?? '');
      });
    merge.register(program);
  },
};
