// `temper data check`: what a dataset holds, before anything is trained on it.

import { Option } from 'commander';
import type { FileCheck } from '../../data/check.js';
import { noticesOf } from '../../data/notes.js';
import { overlapText } from '../../data/overlap.js';
import { type Command, examples, group, integerIn, interruptSignal, printJson } from '../command.js';
import { printable, styled } from '../terminal.js';

interface Options {
  readonly format: string;
  readonly tokenizer?: string;
  readonly maxTokens: number;
  readonly onLong?: 'error' | 'drop' | 'truncate';
  readonly ignore?: readonly string[];
  readonly markup?: 'refuse' | 'text';
  readonly samples: number;
  readonly eval?: string;
  readonly json?: boolean;
}

/** Green, or in ⟦ ⟧ where there are no colours. */
const trained = (text: string): string => {
  const green = styled('green', printable(text));
  return green === printable(text) ? `⟦${green}⟧` : green;
};

function show(file: FileCheck): string {
  const l = file.lengths;
  const lines = [
    `${printable(file.path)} (${file.format}): ${file.rows} rows, ${file.examples} examples, ` +
      `${file.tokens} tokens, ${file.trainedTokens} trained`,
  ];
  if (l) lines.push(`  tokens per example: ${l.min} least, ${l.median} median, ${l.p95} at 95 %, ${l.max} most`);
  const channels = Object.entries(file.trainedByChannel)
    .map(([name, n]) => `${name} ${n}`)
    .join(', ');
  if (channels) lines.push(`  trained tokens by channel: ${channels}`);
  if (file.untrainedRows) lines.push(`  ${file.untrainedRows} examples have nothing to train and are passed over`);
  if (file.nothing) lines.push(`  ${file.nothing}`);
  const notes = [...noticesOf(file), ...(file.overlap ? [printable(overlapText(file.overlap))] : [])];
  if (file.overlap === null) lines.push('  none of these rows is trained on');
  lines.push(...notes.map((line) => `  note: ${line}`), `  sha256 ${file.sha256}`);
  for (const s of file.samples)
    lines.push(
      `  ── line ${s.line}, what is trained is ${trained('green').startsWith('⟦') ? 'in ⟦ ⟧' : 'green'}`,
      s.stretches.map((x) => (x.trained ? trained(x.text) : printable(x.text))).join(''),
    );
  if (file.badRows)
    lines.push(
      `  ${file.badRows} bad rows:`,
      ...file.errors.map((e) => `    ${printable(e.message)}`),
      ...(file.badRows > file.errors.length ? [`    and ${file.badRows - file.errors.length} more`] : []),
    );
  return lines.join('\n');
}

export const command: Command = {
  name: 'data check',
  summary: 'counts, token lengths, what is masked, bad rows by line; renders samples',
  register(program) {
    group(program, 'data', 'look at datasets')
      .command('check')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .argument(
        '<file|recipe>',
        'JSONL, JSON, Parquet or Arrow file, or a recipe (.yaml): its train and eval files, as it would read them',
      )
      .option('--format <name>', 'row format of a file', 'chat')
      .option('--tokenizer <dir>', 'folder with tokenizer.json, for a file that holds text')
      .option('--max-tokens <n>', 'a longer row is bad', integerIn(2, 1 << 24), 4096)
      .addOption(
        new Option('--on-long <what>', 'what a longer row is instead; counted').choices(['error', 'drop', 'truncate']),
      )
      .option('--ignore <names>', 'fields of rows to leave out: id,messages.source', (v: string, before?: string[]) => [
        ...(before ?? []),
        ...v.split(','),
      ])
      .addOption(
        new Option('--markup <what>', 'harmony or <think> markup in what is trained').choices(['refuse', 'text']),
      )
      .option('--eval <file>', 'held-out rows: checked too, and which of them stand in the other file')
      .option('--samples <n>', 'examples to render from each file', integerIn(0, 1000), 1)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper data check recipes/nano-lora.yaml',
          'temper data check rows.jsonl --tokenizer models/gpt-oss-20b --samples 3',
          'temper data check rows.jsonl --format tokens',
          'temper data check train.jsonl --eval heldout.jsonl --tokenizer models/nano',
        )}\nIn samples <|…|> is a control token; the same letters as plain text are written <\\|…|>.\n` +
          'Fields of a row: docs/rows.md. Exit codes: 0 every row can be trained on, 2 some cannot, ' +
          'or there is none.\n',
      )
      .action(async (path: string, { eval: heldOut, ...options }: Options) => {
        const { checkDataset } = await import('../../train/train.js');
        const files = await checkDataset(path, {
          ...options,
          ...(heldOut === undefined ? {} : { heldOut }),
          signal: interruptSignal(),
        });
        if (files.some((f) => f.badRows > 0 || f.nothing !== null)) process.exitCode = 2;
        if (options.json) {
          printJson({ files });
          return;
        }
        process.stdout.write(`${files.map(show).join('\n')}\n`);
      });
  },
};
