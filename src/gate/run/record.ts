// What a gate's folder says of the run in it: what its outcomes depend on, how many cases there are, and which of them
// are its own.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256File } from '../../base/digest.js';
import { IntegrityError } from '../../base/errors.js';
import { writeFileAtomic } from '../../base/files.js';
import { readJsonFile } from '../../base/json-file.js';

export const RUN_FILE = 'run.json';
export const OUTCOMES_FILE = 'outcomes.jsonl';
/** Outcomes of a run that is not over. */
export const PART_FILE = 'outcomes.jsonl.part';

const Record_ = z.strictObject({
  version: z.literal(1),
  /** sha256 over all that the outcomes depend on, hex. */
  identity: z.string(),
  /** Of the whole suite. */
  cases: z.int(),
  shard: z.strictObject({ index: z.int(), of: z.int() }).nullable(),
  /** sha256 of the outcomes of a run that is over, hex; absent: it is not. */
  outcomes: z.string().optional(),
});
export type RunRecord = z.infer<typeof Record_>;

export const writeRunRecord = (folder: string, record: RunRecord): void =>
  writeFileAtomic(join(folder, RUN_FILE), `${JSON.stringify(record, null, 2)}\n`);
/** null: there is none. @throws {IntegrityError} bad_record */
export function readRunRecord(folder: string): RunRecord | null {
  const file = join(folder, RUN_FILE);
  if (!existsSync(file)) return null;
  const bad = (what: string): IntegrityError =>
    new IntegrityError('bad_record', `${file}: ${what}: not what a gate writes; remove the folder or give another`, {
      file,
    });
  const value = readJsonFile(file, 'record', {
    next: 'run the gate again',
    missing: (message) => bad(message),
    bad,
  });
  const parsed = Record_.safeParse(value);
  if (!parsed.success) throw bad(parsed.error.issues[0]?.message ?? 'of another kind');
  return parsed.data;
}
/**
 * What lies there is what the run left: nobody goes on with, or joins, outcomes that were changed since.
 * @throws {IntegrityError} bad_record · the signal's reason
 */
export async function requireOutcomes(folder: string, { outcomes }: RunRecord, signal?: AbortSignal): Promise<void> {
  const file = join(folder, OUTCOMES_FILE);
  if ((await sha256File(file, signal ? { signal } : {})) === outcomes) return;
  const why = outcomes === undefined ? `${RUN_FILE} does not say that the run is over` : 'is not what the run left';
  throw new IntegrityError('bad_record', `${file}: ${why}; bring it back, or run it again without --resume`, { file });
}
