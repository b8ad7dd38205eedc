// The rows of what is to be screened, in order: files, folders and patterns, of ours or of others by their columns; of
// all of them, or of one shard.
import { createHash } from 'node:crypto';
import { isAbsolute, relative, resolve } from 'node:path';
import { ConfigError, DataError } from '../../base/errors.js';
import { dataFiles } from '../../data/files.js';
import type { Policy } from '../types.js';
import { type Columns, checkColumns, nothingPassed, type Passed, readColumns } from './columns.js';
import { isCsv } from './csv.js';
import { lineBatches, textBatches, textOfLine } from './lines.js';
import { badRow, parseRow, rowOf, type ScreenRow } from './row.js';
import { isOwn, type Shard } from './shard.js';

/** All rows of a small file, such as a golden set. @throws {DataError} a bad row, no file */
export async function readRows(file: string): Promise<readonly ScreenRow[]> {
  const rows: ScreenRow[] = [];
  for await (const batch of lineBatches(file))
    for (const line of batch) {
      if (line.error) throw line.error;
      const text = textOfLine(file, line);
      if (text !== undefined) rows.push(parseRow(file, line.line, text));
    }
  return rows;
}

export interface RowsOptions {
  readonly files: readonly string[];
  /** Which columns to read where rows are not ours; files may then be CSV, too. */
  readonly columns?: Columns | undefined;
  /** What a reviewer expects is of these. */
  readonly policies: readonly Policy[];
  /** Gives a row that cannot be read as `bad`, instead of throwing. */
  readonly tolerant?: boolean | undefined;
  /** Only the rows of one; every file is read all the same. */
  readonly shard?: Shard | undefined;
  readonly signal?: AbortSignal | undefined;
}
/** What there is to know of the rows once all were read. */
export interface RowsRead {
  /** In all shards. */
  readonly rows: number;
  /** In this one. */
  readonly own: number;
  /** Rows without text in their column, passed over. */
  readonly blank: number;
  /** sha256 of the files' bytes, hex, in their order. */
  readonly digests: readonly string[];
}

const ROWS_AT_ONCE = 256;

/**
 * The files that paths, folders and patterns name, each once, as they are called from here.
 * @param byColumns of folders, CSV files too
 * @throws {DataError} no_data_files, data_splits, file_missing
 */
export function inputFiles(inputs: readonly string[], byColumns = false): readonly string[] {
  const seen = new Map<string, string>();
  for (const input of inputs)
    for (const file of dataFiles(input, byColumns)) {
      const near = isAbsolute(file) && !isAbsolute(input) ? relative('', file) : file;
      if (!seen.has(resolve(file))) seen.set(resolve(file), near);
    }
  return [...seen.values()];
}

/** The rows, some at a time. @returns what all of them are · @throws {DataError} a bad row or file */
export async function* rowBatches(options: RowsOptions): AsyncGenerator<readonly ScreenRow[], RowsRead, void> {
  const { files, columns, shard } = options;
  const place: Place = { row: 0, own: 0, passed: columns ? nothingPassed(columns) : { blank: 0, absent: new Set() } };
  const digests: string[] = [];
  for (const file of files) {
    const several = files.length > 1 ? { file } : {};
    const named = (row: ScreenRow, ordinal: number): ScreenRow =>
      shard || files.length > 1
        ? {
            ...row,
            ...several,
            ...(files.length > 1 && row.id === String(row.line) ? { id: `${file}:${row.line}` } : {}),
            row: ordinal,
          }
        : row;
    const batches = columns ? byColumns(file, columns, options, place) : ours(file, options, place);
    for (;;) {
      const next = await batches.next();
      if (next.done) {
        digests.push(next.value);
        break;
      }
      const own: ScreenRow[] = [];
      // What is not this shard's is null: it counts, and nothing else of it is needed.
      for (const row of next.value) {
        const ordinal = place.row++;
        if (row && isOwn(shard, ordinal)) own.push(named(row, ordinal));
      }
      place.own += own.length;
      if (own.length > 0) yield own;
    }
  }
  if (place.row > 0) checkColumns(files, place.passed);
  return { rows: place.row, own: place.own, blank: place.passed.blank, digests };
}

type Place = { row: number; own: number; readonly passed: Passed };
type Batches = AsyncGenerator<readonly (ScreenRow | null)[], string, void>;

async function* byColumns(file: string, columns: Columns, options: RowsOptions, place: Place): Batches {
  const { policies, signal, tolerant } = options;
  const { sha256File } = await import('../../base/digest.js');
  const digest = await sha256File(file, signal ? { signal } : {}).catch(() => ''); // the reader says what is wrong
  let rows: ScreenRow[] = [];
  for await (const row of readColumns(file, columns, policies, place.passed, { signal, tolerant })) {
    rows.push(row);
    if (rows.length < ROWS_AT_ONCE) continue;
    signal?.throwIfAborted();
    yield rows;
    rows = [];
  }
  if (rows.length > 0) yield rows;
  return digest;
}

async function* ours(file: string, options: RowsOptions, place: Place): Batches {
  if (isCsv(file))
    throw new ConfigError('bad_option', `${file}: rows of a table by their columns; add --text-column NAME`);
  // Readers of other kinds are loaded where there is one.
  if (/\.(?:jsonl|ndjson)$/i.test(file)) return yield* fromLines(file, options, place);
  const { sourceOf } = await import('../../data/sources/index.js');
  const source = await sourceOf(file).catch((cause: unknown) => {
    if (cause instanceof DataError && cause.code === 'unreadable') return null;
    throw cause;
  });
  if (source === null || source.name === 'jsonl') return yield* fromLines(file, options, place);
  const reading = source.read(file, options.signal);
  for await (const batch of reading.batches)
    yield batch.map(({ line, value, error }) => {
      try {
        if (error) throw error;
        return rowOf(file, line, plainNumbers(value));
      } catch (cause) {
        return excused(line, options, cause);
      }
    });
  return reading.digest();
}

async function* fromLines(file: string, options: RowsOptions, place: Place): Batches {
  const { shard, signal } = options;
  const hash = createHash('sha256');
  for await (const lines of textBatches(file, { hash, signal })) {
    const rows: (ScreenRow | null)[] = [];
    for (const line of lines) {
      const isCheap = shard !== undefined && (line.text?.charCodeAt(0) ?? line.bytes?.[0]) === 0x7b;
      if (isCheap && !isOwn(shard, place.row + rows.length)) {
        rows.push(null);
        continue;
      }
      try {
        if (line.error) throw line.error;
        const text = textOfLine(file, line);
        if (text !== undefined) rows.push(parseRow(file, line.line, text));
      } catch (cause) {
        rows.push(excused(line.line, options, cause, isOwn(shard, place.row + rows.length)));
      }
    }
    if (rows.length > 0) yield rows;
  }
  return hash.digest('hex');
}

/** A bad row, where it is let through. @param own whether what is wrong with it matters here · @throws the cause */
function excused(line: number, options: RowsOptions, cause: unknown, own = true): ScreenRow | null {
  if (!(cause instanceof DataError)) throw cause;
  if (options.tolerant) return badRow(line, cause);
  if (own) throw cause;
  return null;
}

/** 64-bit integers of tables as the schema of rows has numbers; an id keeps all its digits. */
function plainNumbers(value: unknown, key = ''): unknown {
  if (typeof value === 'bigint') return key === 'id' ? String(value) : Number(value);
  if (Array.isArray(value)) return value.map((v) => plainNumbers(v));
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plainNumbers(v, k)]));
}
