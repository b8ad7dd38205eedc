// `temper policy calibrate`: the threshold of a judge under a policy, and how well it judges, with intervals.

import { type Command, examples, group, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { Option } from '../commander.js';
import {
  addPolicyJudgeOptions,
  estimateText,
  figureRows,
  goldenSource,
  type PolicyJudgeOptions,
  table,
} from '../policy-options.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

type Options = PolicyJudgeOptions & {
  readonly out?: string;
  readonly by: 'f1' | 'fpr';
  readonly fpr: number;
  readonly resamples: number;
  readonly seed: number;
};

export const command: Command = {
  name: 'policy calibrate',
  summary: 'precision, recall, F1, recall at 1 % false positives, calibration error and threshold of a judge',
  register(program) {
    addPolicyJudgeOptions(
      group(program, 'policy', 'write, test and calibrate policies')
        .command('calibrate')
        .summary(this.summary)
        .description(
          `${this.summary}, overall and by channel, with 95 % intervals.\n\nThe threshold goes into a file ` +
            'beside the policy, bound by digests to policy, judge and\ngolden set; screening holds scores to it.',
        )
        .argument('<policy>', 'file, or folder with a policy.md'),
    )
      .option('--out <file>', 'absent: calibration.json beside policy.md, where screening looks for it')
      .addOption(
        new Option(
          '--by <what>',
          'the threshold with the best F1, or the lowest with no more false positives than --fpr',
        )
          .choices(['f1', 'fpr'])
          .default('f1'),
      )
      .option('--fpr <share>', 'share of safe rows that may be blocked', numberIn(0, 1), 0.01)
      .option('--resamples <n>', 'of the bootstrap', integerIn(100, 100_000), 2000)
      .option('--seed <n>', 'of the bootstrap and the folds', integerIn(0, 2 ** 32 - 1), 1)
      .addHelpText(
        'after',
        `${examples(
          'temper policy calibrate policies/contact --judge models/nano-judge --out calibration.json',
          'temper policy calibrate policies/secrets --by fpr --judge models/gpt-oss-safeguard-20b',
        )}\nExit codes: 0 it is written, 30 nothing could be judged.\n`,
      )
      .action(async (path: string, options: Options) => {
        const [{ openPolicyBench }, { calibrate }, { writeCalibration }, { calibrationPath }, { checkOutputs }] =
          await Promise.all([
            import('../../compose/policy-bench.js'),
            import('../../safeguard/policies/calibrate.js'),
            import('../../safeguard/calibration.js'),
            import('../../safeguard/policy.js'),
            import('../../base/outputs.js'),
          ]);
        const signal = interruptSignal();
        const source = await goldenSource(options);
        const bench = await openPolicyBench(path, { ...options, golden: source }, signal);
        const { resamples, seed, fpr, by: chosenBy } = options;
        const out = options.out ?? calibrationPath(bench.file);
        const progress = createProgress({
          label: 'calibrate',
          unit: 'rows',
          total: bench.golden.cases.length,
          quiet: options.json === true,
        });
        try {
          checkOutputs({ '--out': out }, { files: [bench.file, bench.golden.file] });
          const { entry, rows } = await calibrate(
            bench.policy,
            bench.judge,
            bench.golden,
            { resamples, seed, fpr, chosenBy, signal, ...(bench.effort === null ? {} : { effort: bench.effort }) },
            { ...bench.limits, onCase: (n) => progress.update(n) },
          );
          progress.finish();
          const judged = rows.some((r) => r.outcome !== 'unjudged');
          process.exitCode = judged ? 0 : 30;
          if (judged) writeCalibration(out, entry);
          if (options.json) {
            printJson({ ...entry, out: judged ? out : null });
            return;
          }
          const { overall, channels, threshold } = entry;
          print(
            `${entry.policy.name} by ${entry.judge.name}, with 95 % intervals, ` +
              `${entry.decidedBy === 'threshold' ? 'rows under thresholds of others' : "by the judge's word"}:`,
            ...figureRows(overall, channels),
            ...table([
              ['', `recall at ${100 * fpr} % false positives`, 'calibration error'],
              ...[['all', overall] as const, ...Object.entries(channels)].map(([name, f]) => [
                name,
                estimateText(f.recallAtFpr),
                estimateText(f.ece),
              ]),
            ]),
            threshold === null
              ? '  no threshold: the judge gave no scores, or its rows are of one kind'
              : `  threshold, nats: ${estimateText(threshold)}`,
            judged ? `written to ${out}` : 'nothing was judged, and nothing is written',
          );
        } finally {
          progress.finish();
          await bench.close();
        }
      });
  },
};
