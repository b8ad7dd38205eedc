// `temper policy check`: a policy and its golden set looked at as code is. No judge is asked.

import type { ContractName } from '../../safeguard/contracts/contract.js';
import { CONTRACT_NAMES } from '../../safeguard/contracts/contract.js';
import type { Severity } from '../../safeguard/policies/lint/finding.js';
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { addGoldenOptions, type GoldenOptions, goldenSource, rerun } from '../policy-options.js';
import { print } from '../terminal.js';

type Options = GoldenOptions & {
  readonly judgeContract?: ContractName;
  readonly tokenizer?: string;
  readonly failOn: Severity | 'none';
  readonly watch?: boolean;
  readonly json?: boolean;
};

export const command: Command = {
  name: 'policy check',
  summary: 'lint policies and their golden sets: length, hedges, polarity, output, scope, examples; asks no judge',
  register(program) {
    addGoldenOptions(
      group(program, 'policy', 'write, test and calibrate policies')
        .command('check')
        .summary(this.summary)
        .description(`${this.summary}.`)
        .argument('<policy...>', 'files, or folders with a policy.md'),
    )
      .addOption(
        new Option(
          '--judge-contract <name>',
          'the contract it will be judged by; absent: as its front matter says',
        ).choices([...CONTRACT_NAMES]),
      )
      .option('--tokenizer <dir>', 'count tokens by this tokenizer.json; absent: they are estimated')
      .addOption(
        new Option('--fail-on <severity>', 'exit with 10 if a finding is at least so severe')
          .choices(['note', 'warning', 'error', 'none'])
          .default('error'),
      )
      .option('--watch', 'check again whenever a file changes')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper policy check policies/secrets',
          'temper policy check policies/*/policy.md --fail-on warning',
          'temper policy check policy.txt --golden golden.csv --text-column 2 --expect-column 10',
        )}\nExit codes: 0 nothing so severe, 10 findings, 2 a file cannot be read.\n`,
      )
      .action(async (paths: string[], options: Options) => {
        const { checkPolicy, failsOn } = await import('../../safeguard/policies/check.js');
        const { policyFile } = await import('../../compose/policy-bench.js');
        const { calibrationPath, goldenPath } = await import('../../safeguard/policy.js');
        const golden = await goldenSource(options);
        const countTokens = options.tokenizer === undefined ? undefined : await counter(options.tokenizer);
        const files = (): string[] => paths.map(policyFile);
        const watched = (): string[] => files().flatMap((f) => [f, golden.file ?? goldenPath(f), calibrationPath(f)]);
        await rerun(watched, options.watch === true, interruptSignal(), async () => {
          const checks = [];
          for (const file of files())
            checks.push(await checkPolicy(file, { contract: options.judgeContract, golden, countTokens }));
          process.exitCode = options.failOn !== 'none' && failsOn(checks, options.failOn) ? 10 : 0;
          if (options.json) printJson({ policies: checks });
          else
            for (const c of checks)
              print(
                `${c.file}: ${c.rules.length} rules, ` +
                  `${c.tokens === null ? 'no' : `${c.exact ? '' : 'about '}${c.tokens}`} tokens, ` +
                  `contract ${c.contract}, ${c.goldenRows ?? 'no'} golden rows: ` +
                  (c.findings.length === 0 ? 'nothing found' : `${c.findings.length} findings`),
                ...c.findings.map(
                  (f) => `  ${f.line === null ? '' : `line ${f.line}: `}${f.severity} ${f.id}: ${f.message}`,
                ),
              );
        });
      });
  },
};

async function counter(folder: string): Promise<(text: string) => number> {
  const { loadTokenizer } = await import('../../harmony/tokenizer.js');
  const tokenizer = loadTokenizer(folder);
  return (text) => tokenizer.encode(text).length;
}
