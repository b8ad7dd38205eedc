// The gate lock: everything that a decision hangs on, by digest, in one file that is committed before the run. Who
// changes a threshold, a prompt, a policy, the judge, a seed or how is sampled afterwards has another lock.
import { resolve } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { hasLoneSurrogate } from '../base/json.js';
import { readJsonFile } from '../base/json-file.js';
import { asReadError } from '../base/system-error.js';
import { NamedDigest } from '../runs/named-digest.js';
import { canonicalJson, type Json } from '../verdict-log/canonical.js';
import { jsonLines } from './outcomes.js';
import { DecisionParameters, filesOf, Limits, type LoadedSuite, Sampling } from './suite.js';

export const LOCK_SCHEMA = 'temper.gate-lock/1';

const Counts = z
  .strictObject({
    positives: z.int().min(1).max(1e9).describe('labelled texts that violate'),
    caught: z.int().min(0).max(1e9).describe('of these, how many the judge called so'),
    negatives: z.int().min(1).max(1e9).describe('labelled texts that do not'),
    passed: z.int().min(0).max(1e9).describe('of these, how many the judge called so'),
  })
  .refine((c) => c.caught <= c.positives && c.passed <= c.negatives, 'counts more than there are');
export type Counts = z.infer<typeof Counts>;
/** How often a judge was right on labelled texts: of both arms together, or of each. */
export const JudgeRates = z.union([
  z.strictObject({ both: Counts }),
  z.strictObject({ base: Counts, adapter: Counts }),
]);
export type JudgeRates = z.infer<typeof JudgeRates>;

export const LockJudge = z.strictObject({
  name: z.string().min(1).max(256),
  digest: NamedDigest,
  calibration: z.strictObject({ digest: NamedDigest, rates: JudgeRates }).nullable(),
  asked: z
    .record(z.string().max(1024), z.union([z.string().max(256), z.number()]))
    .optional()
    .describe('how it is asked, as far as that is not the default'),
});
export type LockJudge = z.infer<typeof LockJudge>;

const LockedMetric = z.strictObject({
  metric: z.string(),
  slice: z.string().nullable(),
  direction: z.enum(['lower', 'higher']),
  ...Limits.shape,
});
export const Lock = z.strictObject({
  schema: z.literal(LOCK_SCHEMA),
  suite: z.strictObject({ name: z.string(), version: z.string(), digest: NamedDigest }),
  files: z
    .array(
      z.strictObject({
        path: z.string(),
        digest: NamedDigest,
        bytes: z.int().min(0),
      }),
    )
    .max(10_000),
  prompts: z
    .record(z.string(), z.int().min(0).nullable())
    .describe('how many prompts each metric has; null: its test makes them itself'),
  judge: LockJudge.nullable(),
  sampling: Sampling,
  seeds: z.array(z.int()),
  samples: z.int().min(1),
  thresholds: z.array(LockedMetric).max(100_000),
  decision: DecisionParameters,
  temper: z.string().min(1).max(64),
});
export type Lock = z.infer<typeof Lock>;

/** "sha256:…" of its canonical JSON. */
export const lockDigest = (lock: Lock): string => `sha256:${sha256(canonicalJson(lock as unknown as Json))}`;
/** As it is written. */
export const lockText = (lock: Lock): string => `${JSON.stringify(lock, null, 1)}\n`;

function thresholdsOf({ suite }: LoadedSuite): Lock['thresholds'] {
  const pick = ({ margin, cap, floor, most }: Limits): Limits => ({
    ...(margin === undefined ? {} : { margin }),
    ...(cap === undefined ? {} : { cap }),
    ...(floor === undefined ? {} : { floor }),
    ...(most === undefined ? {} : { most }),
  });
  return suite.tests.flatMap((t) =>
    t.metrics.flatMap((m) => [
      { metric: m.name, slice: null, direction: m.direction, ...pick(m) },
      ...Object.entries(m.slices ?? {}).map(([slice, l]) => ({
        metric: m.name,
        slice,
        direction: m.direction,
        ...pick(l),
      })),
    ]),
  );
}

/** What a suite's files hold. */
export interface SuiteFiles {
  readonly files: Lock['files'];
  readonly prompts: Lock['prompts'];
  /** Ids of the prompts that each metric has; absent: nobody knows, as where its test makes them itself. */
  readonly ids?: Readonly<Record<string, ReadonlySet<string>>>;
}
/**
 * Reads every file that a suite names.
 * @throws {ConfigError} suite_file: one cannot be read · {DataError} rows that are no JSON objects with an id of their
 * own
 */
export function readSuiteFiles(loaded: LoadedSuite): SuiteFiles {
  const rows = new Map<string, readonly Readonly<Record<string, unknown>>[]>();
  const files = filesOf(loaded.suite).map(({ path, isPrompts }) => {
    const bytes = suiteFile(loaded, path);
    if (isPrompts) rows.set(path, promptRows(bytes, resolve(loaded.folder, path)));
    return { path, digest: `sha256:${sha256(bytes)}`, bytes: bytes.length };
  });
  files.sort((a, b) => (a.path < b.path ? -1 : 1));
  const prompts: Record<string, number | null> = {};
  const ids: Record<string, ReadonlySet<string>> = {};
  for (const test of loaded.suite.tests)
    for (const m of test.metrics) {
      const only = Object.entries(m.only ?? {});
      const of = test.prompts === undefined ? undefined : rows.get(test.prompts);
      prompts[m.name] = null;
      if (of === undefined) continue;
      const own = new Set(of.filter((r) => only.every(([k, v]) => r[k] === v)).map((r) => r.id as string));
      ids[m.name] = own;
      prompts[m.name] = own.size;
    }
  return { files, prompts, ids };
}
function suiteFile(loaded: LoadedSuite, path: string): Buffer {
  const full = resolve(loaded.folder, path);
  try {
    return readInput(full, 'prompts');
  } catch (e) {
    const next = `${loaded.file} names it; a suite's files lie beside it`;
    throw asReadError(e, full, next, (message) => new ConfigError('suite_file', message, { file: full }));
  }
}
/** Rows of a file of prompts, each an object with an `id`, no two alike. @throws {ConfigError} suite_file */
export function promptRows(bytes: Uint8Array, file: string): readonly Readonly<Record<string, unknown>>[] {
  const seen = new Map<string, number>();
  const rows: Record<string, unknown>[] = [];
  for (const [row, line] of jsonLines(bytes, file, 'one object per line, each with an id of its own')) {
    const bad = (what: string): ConfigError =>
      new ConfigError('suite_file', `${file}:${line}: ${what}; wanted an object with an id of its own`, { file, line });
    if (typeof row !== 'object' || row === null || Array.isArray(row)) throw bad('is no object');
    const { id } = row as Record<string, unknown>;
    if (typeof id !== 'string' || id.length === 0 || id.length > 1024) throw bad('has no id');
    const other = seen.get(id);
    if (other !== undefined) throw bad(`has the id of line ${other}`);
    seen.set(id, line);
    rows.push(row as Record<string, unknown>);
  }
  return rows;
}

export interface LockOptions {
  readonly judge: LockJudge | null;
  /** Version of Temper. */
  readonly version: string;
}
/** @throws as readSuiteFiles */
export function makeLock(loaded: LoadedSuite, { judge, version }: LockOptions, given?: SuiteFiles): Lock {
  const { suite } = loaded;
  const { files, prompts } = given ?? readSuiteFiles(loaded);
  return {
    schema: LOCK_SCHEMA,
    suite: { name: suite.name, version: suite.version, digest: loaded.digest },
    files,
    prompts,
    judge,
    sampling: suite.sampling,
    seeds: suite.seeds,
    samples: suite.samples,
    thresholds: thresholdsOf(loaded),
    decision: suite.decision,
    temper: version,
  };
}

/** @throws {ConfigError} lock_unreadable · {IntegrityError} bad_lock: what it is not · what readInput refuses */
export function readLock(file: string): Lock {
  const value = readJsonFile(file, 'record', {
    next: 'temper gate lock makes one',
    missing: (message) => new ConfigError('lock_unreadable', message, { file }),
    bad: (what) => new IntegrityError('bad_lock', `${file}: ${what}; make it again with temper gate lock`, { file }),
  });
  const read = Lock.safeParse(value);
  // No digest could name what no UTF-8 has.
  if (read.success && !hasLoneSurrogate(value)) return read.data;
  const [issue] = read.error?.issues ?? [];
  const why = issue?.message ?? 'half of a surrogate pair';
  const what = `${JSON.stringify(issue?.path.join('.') ?? '').slice(0, 200)}: ${why}`;
  throw new IntegrityError('bad_lock', `${file}: no gate lock: ${what}; make it again with temper gate lock`, { file });
}

/**
 * In what a suite, and the judge that is at hand, are not what the lock says; empty: in nothing.
 * @param files what the suite's files are now; null: they are not at hand, and the lock's word counts
 * @param judge undefined: nobody asks one, and the lock's word counts
 */
export function lockFaults(
  lock: Lock,
  loaded: LoadedSuite,
  files: SuiteFiles | null,
  judge?: LockJudge | null,
): readonly string[] {
  const faults: string[] = [];
  const differs = (what: string, locked: unknown, now: unknown): void => {
    const [a, b] = [canonicalJson(locked as Json), canonicalJson(now as Json)];
    if (a !== b) faults.push(`${what}: the lock has ${brief(a)}, this is ${brief(b)}`);
  };
  differs('the suite', lock.suite, {
    name: loaded.suite.name,
    version: loaded.suite.version,
    digest: loaded.digest,
  });
  differs('sampling', lock.sampling, loaded.suite.sampling);
  differs('seeds', lock.seeds, loaded.suite.seeds);
  differs('samples', lock.samples, loaded.suite.samples);
  differs('thresholds', lock.thresholds, thresholdsOf(loaded));
  differs('how is decided', lock.decision, loaded.suite.decision);
  const locked = new Map(lock.files.map((f) => [f.path, f]));
  for (const { path } of filesOf(loaded.suite))
    if (!locked.has(path)) faults.push(`${path}: the suite names it, the lock does not have it`);
  if (files !== null) {
    for (const f of files.files) if (locked.has(f.path)) differs(f.path, locked.get(f.path), f);
    differs('numbers of prompts', lock.prompts, files.prompts);
  }
  if (judge !== undefined) differs('the judge', decisive(lock.judge), decisive(judge));
  return faults;
}
/** What a judge is called where it lies changes no verdict. */
const decisive = (judge: LockJudge | null): Omit<LockJudge, 'name'> | null => {
  if (judge === null) return null;
  const { name: _, ...rest } = judge;
  return rest;
};
const brief = (text: string): string => (text.length > 160 ? `${text.slice(0, 160)}…` : text);

/** @throws {IntegrityError} lock_mismatch */
export function requireLock(lock: Lock, loaded: LoadedSuite, files: SuiteFiles | null, judge?: LockJudge | null): void {
  const faults = lockFaults(lock, loaded, files, judge);
  if (faults.length > 0)
    throw new IntegrityError('lock_mismatch', `not what was locked: ${faults.join('; also ')}`, { faults });
}
