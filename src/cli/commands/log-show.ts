// `temper log show`: the last records of a log, as people read them.
import type { ShownRecord } from '../../verdict-log/threads.js';
import { type Command, examples, group, integerIn, interruptSignal, printJson, safeJson } from '../command.js';
import { goOnWithoutReader } from '../streams.js';
import { print } from '../terminal.js';
import { LOG_GROUP } from './log-verify.js';

interface Options {
  readonly last: number;
  readonly kind?: string;
  readonly receipt?: string;
  readonly receipts?: boolean;
  readonly json?: boolean;
}
function lineOf({ kind, record, receipt }: ShownRecord): string {
  const { at, by, outcome, action } = record;
  const said = [at, kind, by, outcome, action].filter((word) => typeof word === 'string');
  return `${said.join('  ')}  ${receipt}`;
}

export const command: Command = {
  name: 'log show',
  summary: 'the last records of a log; it holds digests of contents, not contents',
  register(program) {
    group(program, ...LOG_GROUP)
      .command('show')
      .summary(this.summary)
      .description(this.summary)
      .argument('<dir>', 'folder that --log wrote')
      .option('--last <n>', 'so many', integerIn(1, 1_000_000), 20)
      .option('--kind <name>', 'of this kind alone: verdict, open, close')
      .option('--receipt <id>', 'the record of that receipt, whole')
      .option('--receipts', 'their receipts alone, one a line')
      .option('--json', 'each record whole, as one line of JSON')
      .addHelpText('after', examples('temper log show verdict-log --last 5', 'temper log show verdict-log --json'))
      .action(async (dir: string, options: Options) => {
        const { showLog } = await import('../../verdict-log/threads.js');
        goOnWithoutReader();
        const { last, kind, receipt } = options;
        const records = await showLog(
          { dir, last, ...(kind === undefined ? {} : { kind }), ...(receipt === undefined ? {} : { receipt }) },
          { signal: interruptSignal() },
        );
        if (options.json || receipt !== undefined) for (const r of records) printJson(r);
        else print(...records.map((r) => (options.receipts ? r.receipt : lineOf(r))));
        if (receipt !== undefined && records.length === 0) {
          const { DataError } = await import('../../base/errors.js');
          throw new DataError('log_receipt', `${safeJson(receipt.slice(0, 120))}: ${dir} holds no such record`);
        }
      });
  },
};
