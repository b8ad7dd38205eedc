// reference.bin of a run: what the reference says of each example (train.precomputeReference). A line of JSON, what the
// values belong to and the digest of their bytes, then f64 a value, little-endian; NaN: not computed yet.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { rowSettings } from '../data/load.js';
import type { Place } from '../native/tensor.js';
import type { Recipe } from '../recipe/schema.js';
import type { RunDigests } from './run-folder.js';

const fileOf = (run: string): string => join(run, 'reference.bin');
const VERSION = 1;

/** Digest of all that decides the values: rows, base, tokenizer, formats, and the batches that they are computed in. */
export function referenceDigest(recipe: Recipe, { data, base, tokenizer }: RunDigests, place: Place): string {
  const { train: t } = recipe;
  return sha256(
    JSON.stringify({
      data,
      base,
      tokenizer,
      formats: recipe.data.train.map((f) => f.format),
      rows: rowSettings(recipe.data),
      packing: recipe.data.packing,
      tokensPerBatch: t.tokensPerBatch ?? recipe.data.maxTokens,
      tokensPerStep: t.tokensPerStep,
      rowsPerStep: t.rowsPerStep,
      seed: t.seed,
      precision: t.precision,
      place,
    }),
  );
}

export function writeReferences(run: string, of: string, values: Float64Array): void {
  const bytes = Buffer.alloc(8 * values.length);
  values.forEach((v, i) => {
    bytes.writeDoubleLE(v, 8 * i);
  });
  const header = { version: VERSION, of, values: values.length, sha256: sha256(bytes) };
  writeFileAtomic(fileOf(run), Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), bytes]));
}

/**
 * Fills `values` from the run's file. @returns whether there is one
 * @throws {IntegrityError} bad_reference: damaged, or of other rows, another base, tokenizer or settings
 */
export function readReferences(run: string, of: string, values: Float64Array): boolean {
  const file = fileOf(run);
  if (!existsSync(file)) return false;
  const wrong = (what: string): IntegrityError =>
    new IntegrityError('bad_reference', `${file}: ${what}; remove it, and it is computed again`, { file });
  const all = readInput(file, 'reference');
  const end = all.indexOf(10);
  let header: {
    readonly version?: unknown;
    readonly of?: unknown;
    readonly values?: unknown;
    readonly sha256?: unknown;
  };
  try {
    header = decodeJson(all.subarray(0, Math.max(0, end))) as typeof header;
  } catch {
    throw wrong('does not begin with a line of JSON');
  }
  const bytes = all.subarray(end + 1);
  if (header?.version !== VERSION || bytes.length !== 8 * Number(header.values) || sha256(bytes) !== header.sha256)
    throw wrong('not the bytes that were written');
  if (header.of !== of || header.values !== values.length)
    throw wrong('belongs to other rows, another base or tokenizer, or other settings');
  for (let i = 0; i < values.length; i++) values[i] = bytes.readDoubleLE(8 * i);
  return true;
}
