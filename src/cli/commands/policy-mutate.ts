// `temper policy mutate`: whether the golden set notices when a rule or an example is gone, or turned round.

import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { addPolicyJudgeOptions, goldenSource, type PolicyJudgeOptions } from '../policy-options.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

type Options = PolicyJudgeOptions & { readonly examples: boolean; readonly failOn: 'rules' | 'all' | 'none' };

export const command: Command = {
  name: 'policy mutate',
  summary: 'drop and invert each rule and example of a policy; its golden set must notice each',
  register(program) {
    addPolicyJudgeOptions(
      group(program, 'policy', 'write, test and calibrate policies')
        .command('mutate')
        .summary(this.summary)
        .description(`${this.summary}. Survivors are listed.`)
        .argument('<policy>', 'file, or folder with a policy.md'),
    )
      .option('--no-examples', 'leave the examples of the text as they are: fewer calls')
      .addOption(
        new Option('--fail-on <what>', 'exit with 10 if mutants of these survive')
          .choices(['rules', 'all', 'none'])
          .default('rules'),
      )
      .addHelpText(
        'after',
        `${examples(
          'temper policy mutate policies/contact --judge models/nano-judge',
          'temper policy mutate policies/secrets --no-examples --judge http://127.0.0.1:8000/v1 --judge-model judge',
        )}\nA mutant is noticed by a golden row that was judged right and is now allowed, blocked, or blocked by\n` +
          'another rule. Exit codes: 0 all are noticed, 10 some survive.\n',
      )
      .action(async (path: string, options: Options) => {
        const [{ openPolicyBench }, { mutate }] = await Promise.all([
          import('../../compose/policy-bench.js'),
          import('../../safeguard/policies/mutate.js'),
        ]);
        const signal = interruptSignal();
        const bench = await openPolicyBench(path, { ...options, golden: await goldenSource(options) }, signal);
        const progress = createProgress({ label: 'mutate', unit: 'mutants', quiet: options.json === true });
        try {
          const run = await mutate(bench.policy, bench.text, bench.judge, bench.golden, {
            ...bench.limits,
            signal,
            examples: options.examples,
            onMutant: (done, all) => progress.update(done, '', all),
          });
          progress.finish();
          const failing = run.survivors.filter((m) => options.failOn === 'all' || m.kind.endsWith('rule'));
          process.exitCode = options.failOn !== 'none' && failing.length > 0 ? 10 : 0;
          if (options.json) {
            const { name, digest } = bench.judge;
            printJson({ policy: bench.policy.name, judge: { name, digest }, ...run });
            return;
          }
          print(
            `${bench.policy.name} by ${bench.judge.name}: ${run.right} of ${run.rows} golden rows are judged right; ` +
              `${run.mutants.length - run.survivors.length} of ${run.mutants.length} mutants are noticed ` +
              `(${run.calls} calls)`,
            ...run.survivors.map(
              (m) => `  survived: ${m.kind} ${m.rule ?? 'of what is allowed'}, line ${m.line}: ${m.why}`,
            ),
          );
        } finally {
          progress.finish();
          await bench.close();
        }
      });
  },
};
