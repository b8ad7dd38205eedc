// Screening a JSONL file: rows in, one verdict row per channel and policy out, whole or not at all. Rows may carry what
// a reviewer expects. Every row is read before the first is judged, and what a run that stops has judged is kept for
// the next.
import { appendFile, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScreeningError } from '../../base/errors.js';
import { putInPlace } from '../../base/files.js';
import { checkOutputs, placeOf } from '../../base/outputs.js';
import type { VerdictRow } from '../agreement.js';
import { HOPELESS_CALLS, type Screen, type ScreenResult } from '../screen.js';
import type { Columns } from './columns.js';
import { keptPath, ownPart, readKept } from './kept.js';
import { checkRows, rowsOf } from './read.js';
import type { ScreenRow } from './row.js';
import { type BatchSummary, Tally, unwritable } from './tally.js';

export interface BatchOptions {
  readonly input: string;
  readonly output: string;
  readonly screen: Screen;
  /** Which columns to read where rows are not ours; files may then be CSV, Parquet and others. */
  readonly columns?: Columns;
  /** Rows in flight. */
  readonly window?: number;
  readonly signal?: AbortSignal;
  readonly onRow?: (rowsDone: number, result: ScreenResult) => void;
  /** Every verdict as it is written. */
  readonly onVerdict?: (row: VerdictRow) => void;
  /** Told when a run that stops leaves verdicts for the next one. */
  readonly onKept?: (file: string, verdicts: number) => void;
}

/** Where verdicts lie until they are complete: beside what the output links to; those of a stream by themselves. */
async function workPath(output: string): Promise<{ readonly path: string; readonly remove: () => Promise<void> }> {
  const { target, stream } = placeOf(output);
  if (!stream) return { path: target, remove: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), 'temper-screen-'));
  return { path: join(folder, 'verdicts'), remove: () => rm(folder, { recursive: true, force: true }) };
}

/**
 * Screens every row of `input` and writes the verdicts to `output`, in the order of the rows, by way of a file beside
 * it. A run that stops leaves what was judged in `output.part`; the next one takes it from there.
 * @throws {DataError} a bad row (before the judge is asked), no row at all
 * @throws {ConfigError} the output cannot be written (before the judge is asked, unless the disk fills up)
 * @throws {ScreeningError} the judge cannot be reached or run at all
 */
export async function screenFile(options: BatchOptions): Promise<BatchSummary> {
  checkOutputs({ '--out': options.output }, { files: [options.input] });
  const { rows, blank } = await checkRows(options);
  const work = await workPath(options.output);
  try {
    return { ...(await screenInto(work.path, rows, options)), blank };
  } finally {
    await work.remove();
  }
}

/**
 * @param path where the verdicts lie until they are complete
 * @param total rows of the input
 */
async function screenInto(path: string, total: number, options: BatchOptions): Promise<BatchSummary> {
  const { input, output, screen, window = 16, signal, onRow, onKept } = options;
  const kept = await readKept(path);
  const temporary = ownPart(path);
  const out = await open(temporary, 'w').catch((cause: unknown) => {
    throw unwritable(output, cause);
  });
  const tally = new Tally(out, output, path, options.onVerdict);
  let taken = 0;
  const find: typeof kept.find = (...asked) => {
    const found = kept.find(...asked);
    if (found) taken++;
    return found;
  };
  const stop = new AbortController();
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const pending: { readonly row: ScreenRow; readonly result: Promise<ScreenResult> }[] = [];

  const settle = async (): Promise<void> => {
    const head = pending.shift();
    if (!head) return;
    const result = await head.result;
    // A stop is no finding: leave no rows marked `aborted`.
    signal?.throwIfAborted();
    await tally.add(head.row, result);
    onRow?.(tally.rows, result);
    const why = screen.hopeless?.() ?? null;
    if (why !== null && tally.rows < total)
      throw new ScreeningError(
        'judge_unusable',
        `screen: ${why}; stopped at row ${tally.rows} of ${input}, as the first ${HOPELESS_CALLS} calls failed so`,
        { file: input, rows: tally.rows },
      );
  };

  try {
    for await (const row of rowsOf(options, { blank: 0 })) {
      signal?.throwIfAborted();
      pending.push({ row, result: screen.screen(row.channels, both, find) });
      if (pending.length >= window) await settle();
    }
    while (pending.length > 0) await settle();
    await out.sync().catch((cause: unknown) => {
      throw unwritable(output, cause);
    });
    await out.close();
    await putInPlace(temporary, output, signal);
    await kept.remove();
  } catch (error) {
    stop.abort();
    const judged = await keepJudged(tally, pending);
    // What a stream was to get is not kept.
    if (judged > 0 && path === placeOf(output).target) onKept?.(keptPath(path), judged);
    throw error;
  }
  return tally.summary(taken);
}

/**
 * Adds what was judged to `output.part`, rows under way included. @returns how many verdicts; with none nothing is left
 */
async function keepJudged(
  tally: Tally,
  pending: readonly { readonly row: ScreenRow; readonly result: Promise<ScreenResult> }[],
): Promise<number> {
  const { out, part } = tally;
  const temporary = ownPart(part);
  try {
    // Calls that were stopped end at once; what others found meanwhile is paid for too.
    for (const { row, result } of pending) await tally.add(row, await result);
    if (tally.answered > 0) await appendFile(keptPath(part), `\n${await readFile(temporary, 'utf8')}`);
    return tally.answered;
  } catch {
    return 0; // the error that ended the run is the one to tell
  } finally {
    await out.close().catch(() => {});
    await rm(temporary, { force: true });
  }
}

/** 10 if anything is blocked, else 30 if anything is unjudged, else 0. */
export const batchExitCode = (summary: Pick<BatchSummary, 'block' | 'unjudged'>): 0 | 10 | 30 =>
  summary.block > 0 ? 10 : summary.unjudged > 0 ? 30 : 0;
