// `temper screen merge`: joins what the shards of a screening left.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
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
import { goOnWithoutReader } from '../streams.js';
import { print } from '../terminal.js';

interface Options extends ReportOptions {
  readonly out: string;
  readonly input?: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'screen merge',
  summary: 'join the verdicts of all shards, and report on them',
  register(program) {
    const screen = group(program, 'screen', this.summary);
    if (screen.commands.some((c) => c.name() === 'merge')) return;
    addReportOptions(
      screen
        .command('merge')
        .summary(this.summary)
        .description(
          `${this.summary}.\n\nPARTs are what \`temper screen --shard i/n --out PART\` leaves, one of each shard. A ` +
            'shard ' +
            'that is missing or there twice, a part that was\ncut or changed, other inputs, policies or judges: exit ' +
            'code 40, and nothing is written.',
        ),
    )
      .argument('<part...>', 'one file of each shard, in any order')
      .requiredOption('--out <file>', 'verdicts, one JSON object per line, as one run would have written them')
      .option('--input <file>', 'what reports call the file that was screened, where it was one; as the parts say')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper screen merge part-1.jsonl part-2.jsonl --out verdicts.jsonl'))
      .action(async (parts: string[], options: Options) => {
        goOnWithoutReader();
        failCount(options.failOn);
        const { checkOutputs } = await import('../../base/outputs.js');
        checkOutputs({ '--out': options.out, ...reportFiles(options) }, { files: parts });
        const { inputName, mergeParts, policiesIn } = await import('../../safeguard/batch/merge.js');
        const input = options.input ?? inputName(parts) ?? 'the input';
        const judged = options.failOn.length === 0 ? [] : policiesIn(parts);
        // Where no text was judged nobody knows by which policies it would have been.
        const named = judged.map((name) => ({ name, rules: null }));
        const fail = failCount(options.failOn, named.length > 0 ? [...named, ...(await detectorsNamed())] : undefined);
        const { batchExitCode } = await import('../../safeguard/batch/tally.js');
        const progress = createProgress({ label: 'screen merge', unit: 'rows', quiet: options.json === true });
        const signal = interruptSignal();
        const version = program.version() ?? '';
        let files: readonly string[] = [];
        const summary = await mergeParts({
          parts,
          output: options.out,
          signal,
          onRow: (row, rows) => progress.update(row, '', rows),
          onVerdict: (row) => fail.add(row),
          onComplete: async (file) => {
            progress.finish();
            files = await report(file, { options, input, version, signal });
          },
        });
        const lines = settle(summary, fail, batchExitCode(summary));
        if (options.json) {
          printJson({ ...summary, parts: parts.length, out: options.out, reports: files });
          return;
        }
        print(
          `${parts.length} parts, ${summary.rows} rows, ${summary.verdicts} verdicts: ${summary.allow} allow, ` +
            `${summary.block} block, ${summary.unjudged} unjudged`,
          ...lines,
          ...files.map((file) => `report in ${file}`),
          `verdicts in ${options.out}`,
        );
      });
  },
};
