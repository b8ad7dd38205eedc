// Rows of golden sets out of a store, into a file that is whole or as it was.
import { existsSync } from 'node:fs';
import { DataError } from '../base/errors.js';
import { OutputFile } from '../base/files.js';
import { readInputText } from '../base/inputs.js';
import { parseJson } from '../base/json.js';
import { checkOutputs } from '../base/outputs.js';
import { goldenRows } from './review-pages.js';
import { openStore } from './store.js';

export interface GoldenOptions {
  /** A file of SQLite, or a URL. */
  readonly where: string;
  /** Absent: rows of all policies. */
  readonly policy?: string | undefined;
  readonly out: string;
  /** Rows that are in the file stay; those with an id that is there are not added again. */
  readonly append?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}
export interface GoldenResult {
  readonly added: number;
  readonly kept: number;
}

/** Lines of a golden set, and their ids. @throws {DataError} row_json */
function present(file: string): { readonly lines: readonly string[]; readonly ids: ReadonlySet<unknown> } {
  const lines = readInputText(file, 'config')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const ids = lines.map((line, i) => {
    try {
      return (parseJson(line) as { readonly id?: unknown } | null)?.id;
    } catch {
      throw new DataError('row_json', `${file}:${i + 1}: not JSON; wanted one object per line`, { file, line: i + 1 });
    }
  });
  return { lines, ids: new Set(ids) };
}

/** @throws what opening the store, reading the file and writing it refuse · the signal's reason */
export async function exportGolden({ where, policy, out, append, signal }: GoldenOptions): Promise<GoldenResult> {
  checkOutputs({ '--out': out });
  const before = append === true && existsSync(out) ? present(out) : { lines: [], ids: new Set<unknown>() };
  const store = await openStore(where, { existing: true, signal });
  try {
    const file = await OutputFile.open(out, signal);
    try {
      for (const line of before.lines) await file.write(Buffer.from(`${line}\n`), signal);
      let added = 0;
      for await (const row of goldenRows(store, policy)) {
        if (before.ids.has(row.id)) continue;
        await file.write(Buffer.from(`${JSON.stringify(row)}\n`), signal);
        added++;
      }
      file.commit();
      return { added, kept: before.lines.length };
    } finally {
      file.discard();
    }
  } finally {
    await store.close();
  }
}
