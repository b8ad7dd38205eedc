// `temper data check`: what a dataset holds, before anything is trained on it.

import type { FileCheck } from '../../data/check.js';
import { noticesOf } from '../../data/notes.js';
import { overlapText } from '../../data/overlap.js';
import { type Command, collect, examples, group, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { oneLine, printable, printStyled, styled } from '../terminal.js';

interface Options {
  readonly format: string;
  readonly tokenizer?: string;
  readonly maxTokens: number;
  readonly onLong?: 'error' | 'drop' | 'truncate';
  readonly ignore?: readonly string[];
  readonly markup?: 'refuse' | 'text';
  readonly samples: number;
  readonly eval?: readonly string[];
  readonly limit?: number;
  readonly html?: string;
  readonly json?: boolean;
}

/** Green, or in ⟦ ⟧ where there are no colours. */
const trained = (text: string): string => {
  const green = styled('green', text);
  return green === printable(text) ? `⟦${green}⟧` : green;
};

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const WIDTH = 28;

function histogram({ histogram: bars, unit }: FileCheck): string[] {
  const most = Math.max(1, ...bars.map((b) => b.count));
  const label = (from: number): string => (from === 0 ? '0' : `${from}–${2 * from - 1}`);
  const width = Math.max(...bars.map((b) => label(b.from).length));
  return bars.length < 2
    ? []
    : [
        `  ${unit} per ${unit === 'tokens' ? 'example' : 'row'}:`,
        ...bars.map(({ from, count }) => {
          const bar = '█'.repeat(Math.ceil((WIDTH * count) / most)).padEnd(WIDTH);
          return `    ${label(from).padStart(width)} ${bar} ${count}`;
        }),
      ];
}

function leaks({ leakage: l }: FileCheck): string[] {
  if (!l) return [];
  if (l.exact + l.near === 0)
    return [
      `  held out: none of these rows is trained on, to the letter or nearly (all ${l.rows} looked for` +
        `${l.passes > 1 ? `, in ${l.passes} passes` : ''})`,
    ];
  return [
    `  held out: ${l.exact} of ${l.rows} rows are trained on to the letter, ${l.near} nearly:`,
    ...l.first.map(
      (f) => `    ${oneLine(f.heldOut)} is ${f.likeness === 1 ? '' : `${percent(f.likeness)} `}${oneLine(f.trained)}`,
    ),
  ];
}

function show(file: FileCheck): string {
  const l = file.lengths;
  const tokenised = file.unit === 'tokens';
  const lines = [
    `${oneLine(file.path)} (${file.format}${file.because ? `: ${oneLine(file.because)}` : ''}): ${file.rows} rows` +
      (tokenised
        ? `, ${file.examples} examples, ${file.tokens} tokens, ${file.trainedTokens} trained` +
          (file.trainedShare === null ? '' : ` (${percent(file.trainedShare)})`)
        : '; not tokenised, for that give --tokenizer DIR'),
  ];
  if (l)
    lines.push(
      `  ${tokenised ? 'tokens per example' : 'bytes per row'}: ${l.min} least, ${l.median} median, ` +
        `${l.p95} at 95 %, ${l.max} most`,
    );
  lines.push(...histogram(file));
  const channels = Object.entries(file.trainedByChannel)
    .map(([name, n]) => `${name} ${n}`)
    .join(', ');
  if (channels) lines.push(`  trained tokens by channel: ${channels}`);
  if (tokenised && file.untrainedRows)
    lines.push(`  ${file.untrainedRows} examples have nothing to train and are passed over`);
  if (file.nothing) lines.push(`  ${file.nothing}`);
  const { duplicates: d } = file;
  if (d.rows > 0)
    lines.push(
      `  ${d.rows} rows stand twice: ${d.first.map((x) => `${x.line} says what ${x.of} says`).join(', ')}` +
        `${d.rows > d.first.length ? ', …' : ''}`,
    );
  if (d.compared < file.rows - file.badRows)
    lines.push(`  rows that stand twice were looked for among the first ${d.compared} alone`);
  const notes = [...noticesOf(file), ...(file.overlap ? [oneLine(overlapText(file.overlap))] : [])];
  lines.push(...leaks(file), ...notes.map((line) => `  note: ${line}`), `  sha256 ${file.sha256}`);
  for (const s of file.samples)
    lines.push(
      `  ── line ${s.line}, what is trained is ${trained('green').startsWith('⟦') ? 'in ⟦ ⟧' : 'green'}` +
        `${s.stretches.some((x) => x.trained && x.weight !== 1) ? ', with its weight where it is not 1' : ''}`,
      s.stretches
        .map((x) => (x.trained ? trained(x.text) + (x.weight === 1 ? '' : `×${x.weight}`) : printable(x.text)))
        .join(''),
    );
  if (file.badRows)
    lines.push(
      `  ${file.badRows} bad rows:`,
      ...file.errors.map((e) => `    ${oneLine(e.message)}`),
      ...(file.badRows > file.errors.length ? [`    and ${file.badRows - file.errors.length} more`] : []),
    );
  return lines.join('\n');
}

export const command: Command = {
  name: 'data check',
  summary: 'counts, lengths, what is masked, rows that stand twice, leakage, bad rows by line; renders samples',
  register(program) {
    group(program, 'data', 'look at datasets')
      .command('check')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .argument(
        '<file|recipe...>',
        'JSONL, JSON (also in gzip or Zstandard), Parquet or Arrow files, patterns or folders of them; or a recipe ' +
          '(.yaml): its train and eval files, as it would read them',
      )
      .option('--format <name>', 'row format of files; auto: told by the first rows', 'auto')
      .option('--tokenizer <dir>', 'folder with tokenizer.json; without it rows of text are read and checked alone')
      .option(
        '--eval <file>',
        'held-out rows: checked too, and which of them stand in the others; may be given again',
        collect,
      )
      .option('--limit <n>', 'most rows of each file', integerIn(1, 2 ** 31))
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
      .option('--samples <n>', 'examples to render from each file', integerIn(0, 1000), 1)
      .option('--html <file>', 'also write it as a page')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper data check recipes/nano-lora.yaml',
          'temper data check rows.jsonl --tokenizer models/gpt-oss-20b --samples 3',
          'temper data check rows.jsonl --eval held-out.jsonl --html check.html',
          "temper data check 'shards/train-*.parquet' --format tokens",
        )}\nIn samples <|…|> is a control token; the same letters as plain text are written <\\|…|>.\n` +
          'Fields of a row: docs/rows.md. Exit codes: 0 every row can be trained on, 2 some cannot, ' +
          'or there is none.\n',
      )
      .action(async (paths: string[], { eval: heldOut, ...options }: Options) => {
        const { checkDataset } = await import('../../train/train.js');
        const progress = createProgress({ label: 'check', unit: 'rows', quiet: options.json === true });
        const files = await checkDataset(paths, {
          ...options,
          ...(heldOut === undefined ? {} : { heldOut }),
          signal: interruptSignal(),
          onProgress: (rows) => progress.update(rows),
        }).finally(() => progress.finish());
        if (files.some((f) => f.badRows > 0 || f.nothing !== null)) process.exitCode = 2;
        if (options.json) {
          printJson({ files });
          return;
        }
        printStyled(`${files.map(show).join('\n')}\n`);
      });
  },
};
