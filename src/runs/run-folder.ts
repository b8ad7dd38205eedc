// A run's folder: recipe.yaml, run.json, metrics.jsonl, checkpoints/step-N, then adapter/ (or model/) and report.html.
// Whatever is in it is whole: files and folders appear by renaming.

import { accessSync, constants, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError, IntegrityError, TrainError } from '../base/errors.js';
import { removeTemporaries, writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readJsonFile } from '../base/json-file.js';
import { asWriteError } from '../base/system-error.js';
import { removeLeftovers, temporaryName } from '../base/temporary.js';
import type { MergeAware } from '../lora/spec.js';
import type { Keep } from '../model/kept.js';
import { DEVICE_BACKENDS, type Device, HOST, type Place } from '../native/backends.js';
import type { Recipe } from '../recipe/schema.js';

/** What determines the run, and how far it got. */
export interface RunRecord {
  readonly version: 1;
  readonly name: string;
  readonly about: string;
  readonly status: 'running' | 'stopped' | 'failed' | 'done';
  readonly method: Recipe['train']['method'];
  readonly seed: number;
  readonly steps: number;
  readonly digests: RunDigests;
  readonly data: readonly {
    readonly file: string;
    readonly format: string;
    readonly sha256: string;
    readonly rows: number;
    readonly tokens: number;
    readonly trainedTokens: number;
    readonly untrainedRows: number;
    /** Examples longer than maxTokens: left out, cut; absent: none. */
    readonly dropped?: number;
    readonly truncated?: number;
  }[];
  readonly versions: Readonly<Record<string, string>>;
  /** `device` is not in records of before there was a choice. */
  readonly machine: { readonly isa: string; readonly threads: number; readonly device?: Device };
  /** The commits that hf:// references of the recipe meant when it began; absent: it has none. */
  readonly hub?: Readonly<Record<string, string>>;
  readonly trainedParameters: number;
  /** Where it keeps what since it began or went on last; not in records of before there was a choice. */
  readonly memory?: MemoryLayout;
  /** The model that it trains is the base with the adapter merged in like this; absent: added to it. */
  readonly mergeAware?: MergeAware;
  readonly output: string;
  /** Of its evaluations (train.evalEvery) the one with the lowest held-out loss; its checkpoint is kept. */
  readonly best?: {
    readonly step: number;
    readonly evalLoss: number;
    readonly evalMatch?: number;
    readonly evalAccuracy?: number;
  };
  /** Of a run that failed: the error, one line. */
  readonly failure?: string;
  /** The step after which train.patience ended it. */
  readonly endedEarly?: number;
  /**
   * Recipes it went by before it was resumed with changed ones, oldest first: how many steps it was to have, how many
   * it had done. Exact: up to there the bits are those of the recipe after it, from the start.
   */
  readonly earlier?: readonly {
    readonly recipe: string;
    readonly steps: number;
    readonly done: number;
    readonly exact: boolean;
  }[];
}
/** No bit depends on it. */
export interface MemoryLayout {
  /** Where the moments of AdamW lie. */
  readonly moments: Place;
  readonly layers: number;
  /** Of how many of them, counted from the last, the largest batch keeps what its backward pass needs. */
  readonly kept: Keep;
  /** The step in which memory ran out, since when nothing is kept; absent: none. */
  readonly ranOutAt?: number;
}
export interface RunDigests {
  readonly recipe: string;
  readonly data: string;
  readonly base: string;
  readonly tokenizer: string;
}

export const defaultRunFolder = (recipeName: string): string => resolve('runs', recipeName);

/** What a record must say for anything to go by it. */
const Known = z.looseObject({
  version: z.literal(1),
  status: z.enum(['running', 'stopped', 'failed', 'done']),
  method: z.string(),
  steps: z.int(),
  digests: z.looseObject({ recipe: z.string(), data: z.string(), base: z.string(), tokenizer: z.string() }),
  machine: z.looseObject({ isa: z.string() }),
  best: z.looseObject({ step: z.int(), evalLoss: z.number() }).optional(),
  earlier: z.array(z.looseObject({ recipe: z.string(), steps: z.int(), done: z.int(), exact: z.boolean() })).optional(),
});

const runFile = (run: string): string => join(run, 'run.json');
export const checkpointsFolder = (run: string): string => join(run, 'checkpoints');

export function readRun(run: string): RunRecord | null {
  if (!existsSync(runFile(run))) return null;
  const file = runFile(run);
  const damaged = (what: string): IntegrityError =>
    new IntegrityError(
      'bad_run',
      `${file}: ${what}; the run's record is damaged, start the run again in another folder`,
      {
        file,
      },
    );
  const value = readJsonFile(file, 'record', {
    next: 'give the folder of a run',
    missing: (message) => new IntegrityError('bad_run', message, { file }),
    bad: damaged,
  });
  const parsed = Known.safeParse(value);
  if (parsed.success) return value as RunRecord;
  const { path, message } = parsed.error.issues[0] ?? { path: [], message: 'of another kind' };
  throw damaged(`${path.join('.') || 'the record'}: ${message}`);
}
export const writeRun = (run: string, record: RunRecord): void =>
  writeFileAtomic(runFile(run), `${JSON.stringify(record, null, 2)}\n`);

const BEGUN: ReadonlySet<string> = new Set(['recipe.yaml', 'checkpoints', 'metrics.jsonl']);
/** A folder with what a run writes before its record, and nothing else: it was ended there, and may begin again. */
export const isBegun = (run: string): boolean =>
  existsSync(run) &&
  statSync(run).isDirectory() &&
  readdirSync(run).every((n) => n.endsWith('.tmp') || BEGUN.has(n)) &&
  checkpointSteps(run).length === 0;

/**
 * Looks whether a run can be put there; makes nothing.
 * @throws {ConfigError} run_exists: it already holds a run that was not asked to go on; output_unwritable
 */
export function requireRunPlace(run: string, resume: boolean): void {
  if (existsSync(run) && !statSync(run).isDirectory())
    throw new ConfigError('run_exists', `${run}: is a file; choose another folder with --out`, { run });
  if (!resume && existsSync(run) && !isBegun(run))
    throw new ConfigError(
      'run_exists',
      readRun(run)
        ? `${run}: already holds a run; go on with --resume, or choose another folder with --out`
        : `${run}: is not empty, and what it holds is no run; choose another folder with --out`,
      { run },
    );
  try {
    if (existsSync(run)) accessSync(run, constants.W_OK | constants.X_OK);
  } catch (e) {
    throw asWriteError(e, run);
  }
}

/** Makes the folder ready; it is never seen empty, which is no run to go on with. @throws as requireRunPlace */
export function openRunFolder(run: string, resume: boolean): void {
  requireRunPlace(run, resume);
  if (!existsSync(run)) {
    makeFolders(dirname(run));
    removeLeftovers(run);
    const made = temporaryName(run);
    mkdirSync(made);
    mkdirSync(checkpointsFolder(made));
    renameSync(made, run);
  }
  makeFolders(checkpointsFolder(run));
  removeTemporaries(run);
  removeTemporaries(checkpointsFolder(run));
}

/** What a run computes on. */
export function deviceOf({ machine: { device, isa } }: RunRecord): Device {
  const place = DEVICE_BACKENDS.find((b) => b.name === isa)?.name ?? HOST;
  return device ?? { place, name: place, hardware: null, reason: null };
}
/** Steps with a checkpoint, ascending. */
export function checkpointSteps(run: string): number[] {
  const folder = checkpointsFolder(run);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .map((n) => /^step-(\d+)$/.exec(n)?.[1])
    .filter((n) => n !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
}
export const checkpointFolder = (run: string, step: number): string => join(checkpointsFolder(run), `step-${step}`);

/** @param best a step whose checkpoint stays in any case */
export function removeOldCheckpoints(run: string, keep: number, best: number | null = null): void {
  for (const step of checkpointSteps(run).slice(0, -keep))
    if (step !== best) rmSync(checkpointFolder(run, step), { recursive: true, force: true });
}

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
/** Turns "no space" from any depth of causes into the error that says what is still good. */
export function asDiskError(e: unknown, run: string, what: string): unknown {
  for (let at: unknown = e, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const code = (at as NodeJS.ErrnoException).code;
    if (code === undefined || !FULL.has(code)) continue;
    const last = checkpointSteps(run).at(-1);
    return new TrainError(
      'disk_full',
      `${relative(process.cwd(), run) || run}: no space left to write ${what} (${code}); ` +
        `${last === undefined ? 'there is no checkpoint yet' : `the checkpoint of step ${last} is good`}; ` +
        'free space and go on with --resume',
      { run, what, lastCheckpoint: last ?? null },
      { cause: e },
    );
  }
  return e;
}
