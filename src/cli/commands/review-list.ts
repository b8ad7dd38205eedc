// `temper review list`: the queue as lines, without a word of what was held.

import type { Queue } from '../../store/review-types.js';
import { QUEUES } from '../../store/review-types.js';
import { type Command, examples, group, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { oneLine, print } from '../terminal.js';

interface Options {
  readonly store: string;
  readonly queue: Queue;
  readonly policy?: string;
  readonly limit: number;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'review list',
  summary: 'what waits for review, and what was decided; never the texts',
  register(program) {
    group(program, 'review', 'what people review at /review of temper serve')
      .command('list')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .requiredOption('--store <where>', 'a file of SQLite, or postgres://USER@HOST/DATABASE, as temper serve has it')
      .addOption(new Option('--queue <name>', 'which').choices(QUEUES).default('open'))
      .option('--policy <name>', 'of this policy (default: of all)')
      .option('--limit <n>', 'most lines', integerIn(1, 200), 50)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper review list --store reviews.db',
          'temper review list --store reviews.db --queue decided --json',
        ),
      )
      .action(async ({ store: where, queue, policy, limit, json }: Options) => {
        const [{ openStore }, { countsOf, pageOf }] = await Promise.all([
          import('../../store/store.js'),
          import('../../store/review-pages.js'),
        ]);
        const store = await openStore(where, { existing: true, signal: interruptSignal() });
        try {
          const counts = await countsOf(store);
          const { items } = await pageOf(store, { queue, policy, limit });
          if (json) printJson({ counts, items });
          else {
            const { held, escalated, approved, rejected } = counts.states;
            print(`${held} held, ${escalated} escalated, ${approved} approved, ${rejected} rejected`);
            for (const i of items)
              print(
                oneLine(
                  `  ${i.id}  ${new Date(i.at).toISOString().slice(0, 19)}  ${i.state}  ${i.channel}  ${i.policy} ` +
                    `${i.rule ?? i.cause ?? i.verdict}`,
                ),
              );
          }
        } finally {
          await store.close();
        }
      });
  },
};
