// Where an adapter comes from, as the folder and the run beside it tell: recipe, data, base.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Provenance, readProvenance } from '../lora/provenance.js';
import { type RunRecord, readRun } from '../runs/run-folder.js';
import { runAround } from '../runs/trained.js';
import type { TrainingRun } from './predicates.js';

export interface Origin {
  /** temper.json; null: the folder has none. */
  readonly record: Provenance | null;
  /** The run, where it is at hand. */
  readonly run: string | null;
  /** null: nothing tells how it was trained. */
  readonly training: TrainingRun | null;
  readonly base: { readonly name: string; readonly digest: string | null };
}

function ofRun(record: RunRecord, baseName: string): TrainingRun {
  const { name, method, seed, steps, digests, versions } = record;
  return {
    name,
    method,
    seed,
    steps,
    digests,
    data: record.data.map((d) => ({ file: d.file, sha256: d.sha256 })),
    versions,
    baseName,
  };
}
/** What temper.json repeats of a run that is not at hand. */
function ofRecord({ digests, step }: Provenance, baseName: string): TrainingRun | null {
  const { recipe, data, base, tokenizer } = digests as Readonly<Record<string, unknown>>;
  if (typeof recipe !== 'string' || typeof data !== 'string' || typeof base !== 'string') return null;
  return {
    name: 'a run that is not at hand',
    method: 'unknown',
    seed: null,
    steps: step ?? null,
    digests: { recipe, data, base, tokenizer: typeof tokenizer === 'string' ? tokenizer : '' },
    data: [],
    versions: {},
    baseName,
  };
}

/**
 * @param run the run's folder, where the caller knows it
 * @throws {IntegrityError} bad_provenance, bad_run: records that cannot be read
 */
export function originOf(dir: string, run?: string): Origin {
  const record = readProvenance(dir);
  const beside = record?.run === undefined ? null : resolve(dir, record.run);
  const found = run ?? (beside !== null && existsSync(beside) ? beside : record === null ? runAround(dir) : null);
  const ran = found === null ? null : readRun(found);
  const baseName = record?.base?.name ?? 'the base';
  const digest = record?.digests.base ?? ran?.digests.base ?? null;
  return {
    record,
    run: ran === null ? null : found,
    training: ran ? ofRun(ran, baseName) : record ? ofRecord(record, baseName) : null,
    base: { name: baseName, digest },
  };
}
