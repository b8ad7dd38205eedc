// `temper data convert`: rows of any files as one file of JSON lines or Parquet.

import type { ConvertRequest } from '../../train/train.js';
import { type Command, examples, group, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

interface Options extends Omit<ConvertRequest, 'paths'> {
  readonly json?: boolean;
}

export const command: Command = {
  name: 'data convert',
  summary: 'writes rows of any files as Parquet or JSON lines',
  register(program) {
    group(program, 'data', 'look at datasets')
      .command('convert')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .argument('<file...>', 'files, patterns or folders of rows, as data check takes them')
      .requiredOption('--out <file>', '.parquet, .jsonl or .jsonl.gz')
      .option('--format <name>', 'row format of the files; auto: told by the first rows', 'auto')
      .addOption(
        new Option('--to <format>', 'row format that is written; absent: rows as they stand').choices([
          'chat',
          'tokens',
        ]),
      )
      .option('--tokenizer <dir>', 'folder with tokenizer.json, for --to tokens')
      .option('--max-tokens <n>', 'for --to tokens: a longer row is bad', integerIn(2, 1 << 24))
      .addOption(
        new Option('--on-long <what>', 'for --to tokens: what a longer row is instead').choices([
          'error',
          'drop',
          'truncate',
        ]),
      )
      .option('--ignore <names>', 'fields of rows to leave out: id,messages.source', (v: string, before?: string[]) => [
        ...(before ?? []),
        ...v.split(','),
      ])
      .addOption(
        new Option('--markup <what>', 'harmony or <think> markup in what is trained').choices(['refuse', 'text']),
      )
      .option('--limit <n>', 'most rows of each file', integerIn(1, 2 ** 31))
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper data convert rows.jsonl.gz --out rows.parquet',
          "temper data convert 'shards/*.parquet' --to chat --out rows.jsonl.gz",
          'temper data convert rows.jsonl --to tokens --tokenizer models/nano --out tokens.parquet',
        )}\nEvery row is checked; the first bad one ends it, and nothing is written.\n`,
      )
      .action(async (paths: string[], { json, ...options }: Options) => {
        const { convertDataset } = await import('../../train/train.js');
        const progress = createProgress({ label: 'convert', unit: 'rows', quiet: json === true });
        const done = await convertDataset({
          paths,
          ...options,
          signal: interruptSignal(),
          onProgress: (rows) => progress.update(rows),
        }).finally(() => progress.finish());
        if (json) {
          printJson(done);
          return;
        }
        const from = done.files.map((f) => `${f.path} (${f.format})`).join(', ');
        print(`${done.out}: ${done.rows} rows of ${from}`);
      });
  },
};
