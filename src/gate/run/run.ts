// A run of the gate: every case of a suite, in order, its rows appended as they come. A run that was killed goes on
// where it was, and leaves the bytes that it would have left.
import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { sha256File } from '../../base/digest.js';
import { ConfigError, IntegrityError } from '../../base/errors.js';
import { makeFolders } from '../../base/folders.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import { lockFolder } from '../../base/lock.js';
import { asWriteError } from '../../base/system-error.js';
import { syncPath } from '../../base/temporary.js';
import { type Case, countedFor } from './cases.js';
import { OUTCOMES_FILE, PART_FILE, type RunRecord, readRunRecord, requireOutcomes, writeRunRecord } from './record.js';
import type { Scoring } from './score.js';

export interface Shard {
  /** From 1. */
  readonly index: number;
  readonly of: number;
}
export interface RunProgress {
  readonly done: number;
  readonly cases: number;
}
export interface RunOptions {
  readonly folder: string;
  readonly cases: readonly Case[];
  readonly scoring: Scoring;
  /** sha256 over all that the outcomes depend on, hex. */
  readonly identity: string;
  readonly shard: Shard | null;
  /** Go on with what is there. */
  readonly resume: boolean;
  /** Cases under way at once. */
  readonly window: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: RunProgress) => void;
}
export interface RunResult {
  readonly cases: number;
  /** Of them, those that a run before left. */
  readonly kept: number;
  /** Rows of the outcomes. */
  readonly rows: number;
}

export const isOwn = (shard: Shard | null, index: number): boolean =>
  shard === null || index % shard.of === shard.index - 1;
const rowsOfCase = (of: Case, arms: number): number => arms * countedFor(of).length;

interface Kept {
  readonly cases: number;
  readonly rows: number;
  readonly bytes: number;
}
/**
 * Cases whose rows are all there, up to the first one that the judge could not say all of: it is asked again.
 * @throws {IntegrityError} bad_record: a line of another run
 */
async function readPart(path: string, cases: readonly Case[], arms: number): Promise<Kept> {
  const pieces: Buffer[] = [];
  for await (const piece of inputPieces(path)) pieces.push(piece);
  const all = Buffer.concat(pieces);
  let [kept, from, rows] = [{ cases: 0, rows: 0, bytes: 0 }, 0, 0];
  for (const [i, of] of cases.entries()) {
    for (let n = rowsOfCase(of, arms); n > 0; n--) {
      const end = all.indexOf(10, from);
      if (end < 0) return kept;
      let row: { case?: unknown; judge?: unknown; value?: unknown };
      try {
        row = (parseJson(all.toString('utf8', from, end)) ?? {}) as typeof row;
      } catch {
        return kept;
      }
      if (row.case !== of.index)
        throw new IntegrityError(
          'bad_record',
          `${path}: row ${rows + 1} is of case ${String(row.case)}, wanted ${of.index}`,
          {
            file: path,
          },
        );
      if (row.value === null && row.judge !== undefined) return kept;
      from = end + 1;
      rows++;
    }
    kept = { cases: i + 1, rows, bytes: from };
  }
  return kept;
}

/**
 * @throws {ConfigError} bad_run: the folder has another run, or one that is not over and not to be gone on with
 * @throws {IntegrityError} bad_record: what a run left was changed since
 */
async function begin({ folder, identity, cases, shard, resume, signal }: RunOptions): Promise<RunRecord> {
  const before = readRunRecord(folder);
  const record: RunRecord = { version: 1, identity, cases: cases.length, shard };
  const [part, whole] = [PART_FILE, OUTCOMES_FILE].map((name) => join(folder, name)) as [string, string];
  if (resume && before) {
    if (JSON.stringify({ ...before, outcomes: undefined }) !== JSON.stringify(record))
      throw new ConfigError(
        'bad_run',
        `${folder}: holds a run of another adapter, suite, judge, setting or shard; ` +
          'run without --resume to begin again',
        { folder },
      );
    // What is over may have values that the judge owes.
    if (!existsSync(part) && existsSync(whole)) {
      await requireOutcomes(folder, before, signal);
      renameSync(whole, part);
    }
    return record;
  }
  if (existsSync(part) && before)
    throw new ConfigError(
      'bad_run',
      `${folder}: holds a run that is not over; go on with --resume, or remove ${part} to begin again`,
      { folder },
    );
  makeFolders(folder);
  // Outcomes of the run before and a record of this one must not stand side by side.
  for (const file of [part, whole]) rmSync(file, { force: true });
  writeRunRecord(folder, record);
  return record;
}

/**
 * @returns when outcomes.jsonl is complete and on the disk
 * @throws {ConfigError} bad_run, output_unwritable · {IntegrityError} bad_record · what a model or a judge throws
 */
export async function runCases(options: RunOptions): Promise<RunResult> {
  const { folder, scoring, shard, window, signal, onProgress } = options;
  using _lock = lockFolder(
    folder,
    ({ who }) =>
      new ConfigError('bad_run', `${folder}: ${who} runs a gate in it; wait for it, or give another --out`, { folder }),
  );
  const record = await begin(options);
  const own = options.cases.filter((c) => isOwn(shard, c.index));
  const path = join(folder, PART_FILE);
  const kept = existsSync(path) ? await readPart(path, own, scoring.arms.length) : { cases: 0, rows: 0, bytes: 0 };
  let { cases: done, rows } = kept;
  let file: number;
  try {
    file = openSync(path, 'a');
  } catch (e) {
    throw asWriteError(e, path);
  }
  const pending: Promise<string>[] = [];
  const settle = async (): Promise<void> => {
    const text = await pending.shift();
    if (text === undefined) return;
    writeWhole(file, text, path);
    done++;
    onProgress?.({ done, cases: own.length });
  };
  try {
    ftruncateSync(file, kept.bytes);
    onProgress?.({ done, cases: own.length });
    for (const of of own.slice(kept.cases)) {
      signal.throwIfAborted();
      const next = scoring.rows(of).then((made) => {
        rows += made.length;
        return made.map((row) => `${JSON.stringify(row)}\n`).join('');
      });
      next.catch(() => {}); // told where it is awaited
      pending.push(next);
      if (pending.length >= window) await settle();
    }
    while (pending.length > 0) await settle();
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  writeRunRecord(folder, { ...record, outcomes: await sha256File(path) });
  renameSync(path, join(folder, OUTCOMES_FILE));
  syncPath(folder);
  return { cases: own.length, kept: kept.cases, rows };
}

function writeWhole(file: number, text: string, path: string): void {
  const bytes = Buffer.from(text);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  } catch (e) {
    // What came before is what --resume goes on from.
    throw asWriteError(e, path, true);
  }
}
