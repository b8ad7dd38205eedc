// Joins what the shards of a gate left: the outcomes that one run would have written, in its order.
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { sha256File } from '../../base/digest.js';
import { ConfigError, IntegrityError } from '../../base/errors.js';
import { putInPlace } from '../../base/files.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import { OUTCOMES_FILE, PART_FILE, type RunRecord, readRunRecord, requireOutcomes, writeRunRecord } from './record.js';
import { isOwn } from './run.js';

interface Part {
  readonly folder: string;
  readonly record: RunRecord;
}
const asShard = ({ record: { shard } }: Part): { readonly index: number; readonly of: number } =>
  shard ?? { index: 1, of: 1 };

/** @throws {ConfigError} bad_run: no shard, or of another run, or one that is missing or there twice */
function readParts(folders: readonly string[]): readonly Part[] {
  const parts = folders.map((folder): Part => {
    const record = readRunRecord(folder);
    if (!record) throw new ConfigError('bad_run', `${folder}: holds no gate; give the --out of each shard`, { folder });
    return { folder, record };
  });
  const [first] = parts;
  if (!first) throw new ConfigError('bad_run', 'gate merge: no shards; give the --out of each');
  const { of } = asShard(first);
  for (const part of parts) {
    const { identity, cases } = part.record;
    if (identity !== first.record.identity || cases !== first.record.cases || asShard(part).of !== of)
      throw new IntegrityError(
        'bad_record',
        `${part.folder}: is of another adapter, suite, judge or setting than ${first.folder}; join shards of one gate`,
        { folder: part.folder },
      );
  }
  const there = parts.map((p) => asShard(p).index);
  for (let index = 1; index <= of; index++) {
    const times = there.filter((i) => i === index).length;
    if (times !== 1)
      throw new ConfigError('bad_run', `gate merge: shard ${index}/${of} is there ${times} times, wanted once`, {
        index,
      });
  }
  return [...parts].sort((a, b) => asShard(a).index - asShard(b).index);
}

/** Case of a row; undefined: the line is none. */
function caseOf(line: string): unknown {
  try {
    return (parseJson(line) as { readonly case?: unknown } | null)?.case;
  } catch {
    return undefined;
  }
}
/**
 * Lines of a shard by their case, in order.
 * @throws {IntegrityError} bad_record: changed since, another shard's, or not in order
 */
async function readLines({ folder, record }: Part): Promise<ReadonlyMap<number, readonly string[]>> {
  const file = join(folder, OUTCOMES_FILE);
  await requireOutcomes(folder, record);
  const pieces: Buffer[] = [];
  for await (const piece of inputPieces(file)) pieces.push(piece);
  const found = new Map<number, string[]>();
  let last = -1;
  for (const [i, line] of Buffer.concat(pieces).toString('utf8').split('\n').entries()) {
    if (line === '') continue;
    const of = caseOf(line);
    if (!Number.isInteger(of) || (of as number) < last || !isOwn(record.shard, of as number))
      throw new IntegrityError('bad_record', `${file}:${i + 1}: is of case ${String(of)}, which is not this shard's`, {
        file,
      });
    last = of as number;
    found.set(last, [...(found.get(last) ?? []), line]);
  }
  return found;
}

/**
 * @param out folder of the gate; outcomes.jsonl and run.json are written there
 * @returns rows
 * @throws {ConfigError} bad_run · {IntegrityError} bad_record · what reading and writing throw
 */
export async function mergeShards(folders: readonly string[], out: string, signal?: AbortSignal): Promise<number> {
  const parts = readParts(folders);
  const lines = await Promise.all(parts.map(readLines));
  const { identity, cases } = (parts[0] as Part).record;
  const path = join(out, PART_FILE);
  const file = openSync(path, 'w');
  let rows = 0;
  try {
    for (let of = 0; of < cases; of++) {
      const part = of % parts.length;
      const own = lines[part]?.get(of);
      if (!own)
        throw new IntegrityError('bad_record', `${parts[part]?.folder}: lacks case ${of}; run that shard again`, {
          case: of,
        });
      rows += own.length;
      writeSync(file, `${own.join('\n')}\n`);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  writeRunRecord(out, { version: 1, identity, cases, shard: null, outcomes: await sha256File(path) });
  await putInPlace(path, join(out, OUTCOMES_FILE), signal);
  return rows;
}
