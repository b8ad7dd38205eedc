// `temper review golden`: what reviewers relabelled, as rows of a golden set.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { print } from '../terminal.js';

interface Options {
  readonly store: string;
  readonly policy?: string;
  readonly out: string;
  readonly append?: boolean;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'review golden',
  summary: 'what reviewers relabelled in /review, as rows of a golden set',
  register(program) {
    group(program, 'review', 'what people review at /review of temper serve')
      .command('golden')
      .summary(this.summary)
      .description(`${this.summary}. With --append a golden set gets the rows that it does not have yet, by their ids.`)
      .requiredOption('--store <where>', 'a file of SQLite, or postgres://USER@HOST/DATABASE, as temper serve has it')
      .requiredOption('--out <file>', 'JSONL to write')
      .option('--policy <name>', 'rows of this policy (default: of all)')
      .option('--append', 'keep the rows that are in the file')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper review golden --store reviews.db --policy contact --out contact.jsonl',
          'temper review golden --store reviews.db --policy contact --out policies/contact/golden.jsonl --append',
        ),
      )
      .action(async ({ store, policy, out, append = false, json }: Options) => {
        const { exportGolden } = await import('../../store/golden.js');
        const result = await exportGolden({ where: store, policy, out, append, signal: interruptSignal() });
        if (json) printJson(result);
        else
          print(
            `${out}: ${result.added} row${result.added === 1 ? '' : 's'} of reviewers` +
              (append ? `, beside ${result.kept} that were there` : ''),
          );
      });
  },
};
