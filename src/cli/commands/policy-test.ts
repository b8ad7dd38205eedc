// `temper policy test`: the golden set judged, and held to the thresholds of the policy's front matter.
import type { GoldenRun } from '../../safeguard/policies/golden-run.js';
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import {
  addPolicyJudgeOptions,
  estimateText,
  figureRows,
  goldenSource,
  type PolicyJudgeOptions,
  rerun,
  table,
} from '../policy-options.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

type Options = PolicyJudgeOptions & { readonly watch?: boolean };
const SHOWN = 20;

export const command: Command = {
  name: 'policy test',
  summary: 'judge the golden set of a policy and hold it to the thresholds of its front matter',
  register(program) {
    addPolicyJudgeOptions(
      group(program, 'policy', 'write, test and calibrate policies')
        .command('test')
        .summary(this.summary)
        .description(`${this.summary}, overall, by channel and by rule.`)
        .argument('<policy>', 'file, or folder with a policy.md'),
    )
      .option('--watch', 'test again whenever policy or golden set change; the judge stays open')
      .addHelpText(
        'after',
        `${examples(
          'temper policy test policies/contact --judge models/nano-judge',
          'temper policy test policies/secrets --judge http://127.0.0.1:8000/v1 --judge-model gpt-oss-safeguard-20b',
        )}\nA calibrated threshold beside the policy counts, as it does in screening.\n` +
          'Exit codes: 0 every threshold is held, 10 one is not, 30 rows could not be judged.\n',
      )
      .action(async (path: string, options: Options) => {
        const [{ openPolicyBench, policyFile }, { measureAll }, { goldenRun }, { loadPolicy, goldenPath }, golden] =
          await Promise.all([
            import('../../compose/policy-bench.js'),
            import('../../safeguard/policies/measure.js'),
            import('../../safeguard/policies/golden-run.js'),
            import('../../safeguard/policy.js'),
            import('../../safeguard/policies/golden.js'),
          ]);
        const signal = interruptSignal();
        const source = await goldenSource(options);
        const bench = await openPolicyBench(path, { ...options, golden: source }, signal);
        const file = policyFile(path);
        try {
          const watched = (): string[] => [file, source.file ?? goldenPath(file)];
          await rerun(watched, options.watch === true, signal, async () => {
            const policy = await loadPolicy(file, {
              golden: false,
              ...(options.judgeContract ? { contract: options.judgeContract } : {}),
            });
            const rows = (await golden.readGolden(policy, file, { ...source, signal })) ?? bench.golden;
            const progress = createProgress({
              label: 'test',
              unit: 'rows',
              total: rows.cases.length,
              quiet: options.json === true,
            });
            const limits = { ...bench.limits, signal, onCase: (n: number) => progress.update(n) };
            const measured = await measureAll(policy, bench.judge, rows.cases, limits, true).finally(() =>
              progress.finish(),
            );
            const run = goldenRun(policy, measured, { signal });
            process.exitCode = exitCodeOf(run);
            if (options.json) printJson(resultOf(bench.judge, policy.digest, rows.digest, run));
            else say(policy.name, bench.judge.name, run);
          });
        } finally {
          await bench.close();
        }
      });
  },
};

/** What is unjudged alone is the judge's failure, anything else the policy's or the judge's answer. */
const exitCodeOf = ({ misses }: GoldenRun): number =>
  misses.length === 0 ? 0 : misses.some((m) => m.what === 'unjudged') ? 30 : 10;

function resultOf(
  judge: { readonly name: string; readonly digest: string },
  policy: string,
  golden: string,
  { wrong, ...run }: GoldenRun,
): unknown {
  return {
    judge: { name: judge.name, digest: judge.digest },
    digests: { policy, golden },
    passed: run.misses.length === 0,
    ...run,
    wrong: wrong.map(({ case: c, verdict }) => ({
      id: c.id,
      channel: c.channel,
      expect: c.expect,
      outcome: verdict.outcome,
      rule: verdict.rule,
      cause: verdict.cause,
    })),
  };
}

function say(policy: string, judge: string, run: GoldenRun): void {
  const { overall, channels, rules, misses, wrong } = run;
  const causes = new Map<string, { n: number; readonly first: string }>();
  for (const { verdict } of wrong) {
    if (verdict.cause === null) continue;
    const seen = causes.get(verdict.cause);
    if (seen) seen.n++;
    else causes.set(verdict.cause, { n: 1, first: verdict.detail });
  }
  print(
    `${policy} by ${judge}, with 95 % intervals:`,
    ...figureRows(overall, channels),
    ...table([
      ['rule', 'rows', 'recall', 'by this rule'],
      ...Object.entries(rules).map(([rule, f]) => [rule, String(f.rows), estimateText(f.recall), String(f.byRule)]),
    ]),
    ...[...causes].map(([cause, { n, first }]) => `  unjudged by ${cause}: ${n}, first: ${first}`),
    ...wrong.slice(0, SHOWN).map(({ case: c, verdict }) => {
      const got = verdict.rule ?? verdict.cause ?? verdict.outcome;
      return `  wrong: ${c.id} (${c.channel}): got ${got}, wanted ${c.expect ?? 'allow'}`;
    }),
    ...(wrong.length > SHOWN ? [`  and ${wrong.length - SHOWN} more`] : []),
    ...(run.usual ? ['  no thresholds in the front matter: held to the usual ones'] : []),
    ...misses.map(
      (m) =>
        `  not held: ${m.where}, ${m.what} ${m.got === null ? 'undefined' : m.got.toFixed(3)}, ` +
        `wanted ${m.side} ${m.wanted}`,
    ),
    misses.length === 0 ? 'every threshold is held' : `${misses.length} thresholds are not held`,
  );
}
