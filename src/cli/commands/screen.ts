// `temper screen`: judges a file of answers and traces, writes every verdict.
import type { VerdictRow } from '../../safeguard/agreement.js';
import type { Columns } from '../../safeguard/batch/columns.js';
import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { addScreenOptions, type ScreenOptions, sayNotices } from '../engine-options.js';
import { createProgress } from '../progress.js';
import { goOnWithoutReader } from '../streams.js';
import { print, tell } from '../terminal.js';

type Options = ScreenOptions & {
  readonly out: string;
  readonly junit?: string;
  readonly sarif?: string;
  readonly textColumn?: string;
  readonly channelColumn?: string;
  readonly idColumn?: string;
  readonly expectColumn?: string;
  readonly json?: boolean;
};

/** undefined: rows are ours; null: a column of rows that are not, but not which is the text. */
function columnsOf(options: Options): Columns | null | undefined {
  const { textColumn: text, channelColumn: channel, idColumn: id, expectColumn: expect } = options;
  if (text === undefined) return [channel, id, expect].some((c) => c !== undefined) ? null : undefined;
  return { text, ...(channel ? { channel } : {}), ...(id ? { id } : {}), ...(expect ? { expect } : {}) };
}

export const command: Command = {
  name: 'screen',
  summary: 'judge a JSONL file by policies; every verdict with rule, channel, rationale and digests',
  register(program) {
    addScreenOptions(
      program
        .command('screen')
        .summary(this.summary)
        .description(
          `${this.summary}.\n\nRows: {"id", "text", "channel"?} or {"id", "channels": {"analysis": ` +
            '…, "final": …}} or {"id", "messages": […]};\n"expect" (a rule or null) adds precision, ' +
            'recall and F1. Only `allow` passes.',
        ),
    )
      .argument('<file>', 'JSONL file; with --text-column also CSV, JSON, Parquet and Arrow')
      .requiredOption('--out <file>', 'verdicts, one JSON object per line')
      .option('--junit <file>', 'the verdicts as JUnit XML')
      .option('--sarif <file>', 'what is not allowed as SARIF 2.1.0')
      .option('--text-column <name>', 'rows are not ours: the column to judge, by name, of CSV also by number')
      .option('--channel-column <name>', 'with --text-column: what channel the text is of; final if absent')
      .option('--id-column <name>', 'with --text-column: what names a row; its line if absent')
      .option('--expect-column <name>', 'with --text-column: the rule that a reviewer says is broken, or safe')
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
        )}\nExit codes: 0 everything is allowed, 10 something is blocked, 30 something could not be judged.\n`,
      )
      .action(async (file: string, options: Options) => {
        const { ConfigError } = await import('../../base/errors.js');
        goOnWithoutReader();
        if (options.policy.length === 0)
          throw new ConfigError('policy_missing', 'screen: no --policy; nothing can be judged without one');
        const columns = columnsOf(options);
        if (columns === null)
          throw new ConfigError(
            'bad_option',
            'screen: --channel-column, --id-column, --expect-column need --text-column',
          );
        const { checkOutputs } = await import('../../base/outputs.js');
        const outputs = { '--out': options.out, '--junit': options.junit, '--sarif': options.sarif };
        checkOutputs(outputs, { files: [file, ...options.policy], folders: [options.judge] });
        const { batchExitCode, screenFile } = await import('../../safeguard/batch/screen-file.js');
        const { ratioText } = await import('../../safeguard/agreement.js');
        const { openScreen } = await import('../../compose/screening.js');
        const open = await openScreen(options, interruptSignal());
        if (!open) return;
        try {
          sayNotices(open.notices);
          const progress = createProgress({ label: 'screen', unit: 'rows', quiet: options.json === true });
          const reported: VerdictRow[] = [];
          const reports = options.junit !== undefined || options.sarif !== undefined;
          const totals = { allow: 0, block: 0, unjudged: 0 };
          const summary = await screenFile({
            input: file,
            output: options.out,
            screen: open.screen,
            ...(columns ? { columns } : {}),
            signal: interruptSignal(),
            window: Math.max(1, options.judgeConcurrency),
            onRow: (rows, result) => {
              totals[result.outcome]++;
              progress.update(rows, `${totals.allow} allowed, ${totals.block} blocked, ${totals.unjudged} unjudged`);
            },
            ...(reports ? { onVerdict: (row) => reported.push({ ...row, rationale: '' }) } : {}),
            onKept: (file, verdicts) =>
              tell('', `temper: ${verdicts} verdicts are kept in ${file}; the same command goes on from there`),
          });
          progress.finish();
          if (reports) {
            const { writeJunit, writeSarif } = await import('../../safeguard/reports.js');
            if (options.junit !== undefined) writeJunit(options.junit, file, reported);
            if (options.sarif !== undefined) writeSarif(options.sarif, file, reported, program.version() ?? '');
          }
          process.exitCode = batchExitCode(summary);
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
              out: options.out,
            });
            return;
          }
          const lines = [
            `${summary.rows} rows, ${summary.verdicts} verdicts: ${summary.allow} allow, ` +
              `${summary.block} block, ${summary.unjudged} unjudged`,
          ];
          if (summary.blank > 0) lines.push(`  ${summary.blank} rows without text were passed over`);
          if (detectors && detectors.off.length > 0)
            lines.push(`  detectors that are off: ${detectors.off.join(', ')}`);
          if (summary.kept > 0) lines.push(`  ${summary.kept} verdicts are those of a run that was stopped`);
          for (const [cause, n] of Object.entries(summary.causes))
            lines.push(`  unjudged by ${cause}: ${n}, first: ${summary.samples[cause] ?? ''}`);
          for (const [name, a] of Object.entries(summary.agreement ?? {})) {
            lines.push(
              `  ${name === 'all' ? 'expected' : `expected, ${name}`}: precision ` +
                `${ratioText(a.precision)}, recall ${ratioText(a.recall)}, F1 ${ratioText(a.f1)}; ` +
                `${a.sameRule} of ${a.truePositives} blocks cite the expected rule` +
                (a.unjudged > 0 ? `; ${a.unjudged} of the verdicts expected are missing` : ''),
            );
          }
          print(...lines, `verdicts in ${options.out}`);
        } finally {
          await open.close();
        }
      });
  },
};
