// What the commands of `temper policy` share: golden sets of any file, reruns, tables.
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { TemperError } from '../base/errors.js';
import { integerIn } from './command.js';
import type { ScreenOptions } from './engine-options.js';
import { addJudgeOptions } from './engine-options.js';
import { tell } from './terminal.js';

export interface GoldenOptions {
  readonly golden?: string;
  readonly textColumn?: string;
  readonly channelColumn?: string;
  readonly idColumn?: string;
  readonly expectColumn?: string;
}
export type PolicyJudgeOptions = GoldenOptions &
  Omit<ScreenOptions, 'policy' | 'detector' | 'detectors'> & { readonly json?: boolean };

export const addGoldenOptions = (command: Command): Command =>
  command
    .option('--golden <file>', 'golden rows; absent: golden.jsonl beside policy.md')
    .option('--text-column <name>', 'of --golden, where rows are not ours: the column to judge, by name or number')
    .option('--expect-column <name>', 'of --golden: the rule that a reviewer says is broken, or safe')
    .option('--channel-column <name>', 'of --golden: what channel the text is of; final if absent')
    .option('--id-column <name>', 'of --golden: what names a row; its line if absent');

/** Options of commands that judge a golden set. */
export const addPolicyJudgeOptions = (command: Command): Command =>
  addJudgeOptions(addGoldenOptions(command))
    .option('--threads <n>', 'CPU threads of a local judge', integerIn(1, 1024))
    .option('--json', 'one machine-readable result on stdout');

/** Where golden rows are. @throws {ConfigError} bad_option */
export async function goldenSource(options: GoldenOptions): Promise<{
  readonly file?: string;
  readonly columns?: {
    readonly text: string;
    readonly expect?: string;
    readonly channel?: string;
    readonly id?: string;
  };
}> {
  const { golden: file, textColumn: text, expectColumn: expect, channelColumn: channel, idColumn: id } = options;
  if (text === undefined) {
    if (expect === undefined && channel === undefined && id === undefined) return file === undefined ? {} : { file };
    const { ConfigError } = await import('../base/errors.js');
    throw new ConfigError('bad_option', '--expect-column, --channel-column and --id-column need --text-column');
  }
  const columns = { text, ...(expect ? { expect } : {}), ...(channel ? { channel } : {}), ...(id ? { id } : {}) };
  return { ...(file === undefined ? {} : { file }), columns };
}

const stamp = async (file: string): Promise<string> => {
  const s = await stat(file, { bigint: true }).catch(() => null);
  return s ? `${s.ino} ${s.size} ${s.mtimeNs}` : 'none';
};
/**
 * Yields once, and with `watch` again whenever one of the files has changed since. Ends never by itself then.
 * @throws the signal's reason
 */
export async function* runs(
  files: () => readonly string[],
  watch: boolean,
  signal: AbortSignal,
  intervalMs = 300,
): AsyncGenerator<void, void, void> {
  const all = async (): Promise<string> => (await Promise.all(files().map(stamp))).join('\n');
  for (;;) {
    const before = await all();
    yield;
    if (!watch) return;
    while ((await all()) === before) await sleep(intervalMs, undefined, { signal });
  }
}
/**
 * Runs once, and with `watch` again after each change; then an error of a file that is being written is told, and not
 * the end.
 */
export async function rerun(
  files: () => readonly string[],
  watch: boolean,
  signal: AbortSignal,
  once: () => Promise<void>,
): Promise<void> {
  for await (const _ of runs(files, watch, signal)) {
    try {
      await once();
    } catch (error) {
      if (!watch || signal.aborted || !(error instanceof TemperError)) throw error;
      tell(`temper: ${error.message}`);
    }
    if (watch) tell('temper: looking for changes; Ctrl-C ends it');
  }
}

/** 0.912 [0.83, 0.96]; a ratio of nothing in words. */
export const estimateText = (
  e: { readonly value: number; readonly low: number; readonly high: number } | null,
): string => (e === null ? 'undefined' : `${e.value.toFixed(3)} [${e.low.toFixed(2)}, ${e.high.toFixed(2)}]`);

/** Columns of one width each. */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((r) => (r[i] ?? '').length)));
  return rows.map((r) => `  ${r.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd());
}
interface Figures {
  readonly rows: number;
  readonly violating: number;
  readonly unjudged: number;
  readonly precision: Parameters<typeof estimateText>[0];
  readonly recall: Parameters<typeof estimateText>[0];
  readonly f1: Parameters<typeof estimateText>[0];
  readonly falsePositives: Parameters<typeof estimateText>[0];
}
export const figureRows = (overall: Figures, channels: Readonly<Record<string, Figures>>): readonly string[] =>
  table([
    ['', 'rows', 'violating', 'unjudged', 'precision', 'recall', 'F1', 'false positives'],
    ...[['all', overall] as const, ...Object.entries(channels)].map(([name, f]) => [
      name,
      String(f.rows),
      String(f.violating),
      String(f.unjudged),
      estimateText(f.precision),
      estimateText(f.recall),
      estimateText(f.f1),
      estimateText(f.falsePositives),
    ]),
  ]);
