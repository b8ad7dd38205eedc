// Exports: a run's adapter as PEFT under the name its base has abroad, and the proof that an export is what was
// trained.
import { existsSync, readFileSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { epochOrder } from '../data/order.js';
import { CONFIG_FILE, readPeft, TENSOR_FILE, writePeft } from '../lora/peft.js';
import { digestCheckpoint, openCheckpoint } from '../model/checkpoint.js';
import { forwardHidden, logits } from '../model/gpt-oss.js';
import type { Batch, ModelAdapter, ModelWeights } from '../model/types.js';
import { Scope } from '../native/tensor.js';
import { loadTrainedAdapter } from '../runs/checkpoint.js';
import { checkpointSteps, readRun } from '../runs/run-folder.js';
import { recipeOf, resolveTrained, runAround } from '../runs/trained.js';

export interface ExportRequest {
  readonly run: string;
  readonly out: string;
  /** Name of the base for those who load the adapter, e.g. openai/gpt-oss-20b; default: its folder's name. */
  readonly baseModel?: string;
}
/** temper.json beside an export: where it comes from and what its files must hash to. */
interface Provenance {
  readonly version: 1;
  readonly run: string;
  readonly digests: unknown;
  readonly files: Readonly<Record<string, string>>;
}
const PROVENANCE = 'temper.json';

/** @throws {ConfigError} the run trained no adapter, or `out` exists */
export async function exportPeft(
  request: ExportRequest,
): Promise<{ readonly out: string; readonly files: Readonly<Record<string, string>> }> {
  const trained = resolveTrained(request.run);
  const record = trained.run ? readRun(trained.run) : null;
  if (!trained.run || !record || !trained.adapter)
    throw new ConfigError(
      'no_adapter',
      `${request.run}: trained no adapter; only a run of method sft can be exported as peft`,
      { run: request.run },
    );
  const out = resolve(request.out);
  if (existsSync(out)) throw new ConfigError('path_exists', `${request.out}: exists; give a new folder`, { out });
  const base = openCheckpoint(trained.model);
  try {
    const adapter = readPeft(trained.adapter, base.config);
    try {
      await writePeft(adapter, out, {
        baseModel: request.baseModel ?? basename(trained.model),
        about: trained.recipe.about,
      });
    } finally {
      adapter.close();
    }
  } finally {
    base.close();
  }
  const files: Record<string, string> = {};
  for (const name of [CONFIG_FILE, TENSOR_FILE]) files[name] = await sha256File(join(out, name));
  const provenance: Provenance = { version: 1, run: relative(out, trained.run), digests: record.digests, files };
  writeFileAtomic(join(out, PROVENANCE), `${JSON.stringify(provenance, null, 2)}\n`);
  return { out, files };
}

export interface VerifyRequest {
  readonly dir: string /** Run it was exported from; found through temper.json or the folders around it if absent. */;
  readonly run?: string;
}
export interface VerifyResult {
  readonly ok: boolean;
  readonly dir: string;
  readonly run: string;
  readonly step: number;
  readonly compared: number;
  /** Largest |difference| of any logit, and the largest |logit|. */
  readonly maxDifference: number;
  readonly maxLogit: number;
  /** How far the logits are from those of the base alone: 0 would mean that nothing was trained. */
  readonly maxEffect: number;
  readonly tolerance: number;
}
const TOLERANCE = 1e-4;
const PROBE_ROWS = 4;

/**
 * Sequences over the whole vocabulary, longer than a window; one batch each, so that only one row's logits are held at
 * a time.
 */
function probes(base: ModelWeights): Batch[] {
  const { vocab_size: V, sliding_window: window } = base.config;
  const length = Math.min(256, Math.max(32, (window ?? 128) + 32));
  return Array.from({ length: PROBE_ROWS }, (_, r) => {
    const order = epochOrder(V, 20, r);
    return {
      tokens: Int32Array.from({ length }, (_, i) => order[i % V] ?? 0),
      positions: Int32Array.from({ length }, (_, i) => i),
      starts: Int32Array.of(0, length),
    };
  });
}

function logitsOf(base: ModelWeights, adapter: ModelAdapter | null, batch: Batch): Float32Array {
  using scope = new Scope('activations');
  return logits(scope, base, forwardHidden(scope, base, adapter, batch, { precision: 'f32' }), 'f32').toFloat32();
}

function findRun(request: VerifyRequest): string {
  if (request.run) return resolve(request.run);
  const file = join(request.dir, PROVENANCE);
  if (existsSync(file)) {
    const there = resolve(request.dir, (JSON.parse(readFileSync(file, 'utf8')) as Provenance).run);
    if (readRun(there)) return there;
  }
  const around = runAround(request.dir);
  if (!around)
    throw new ConfigError(
      'run_not_found',
      `${request.dir}: the run it was exported from is not known; name it with --run`,
      { dir: request.dir },
    );
  return around;
}

/**
 * Reads an export as a stranger would and compares every logit with the adapter as the trainer holds it (the flat
 * parameters of the last checkpoint).
 * @throws {IntegrityError} files that are not those exported, a base that is not the one trained on
 */
export async function verifyExport(request: VerifyRequest): Promise<VerifyResult> {
  const run = findRun(request);
  const {
    loaded: { recipe },
  } = recipeOf(run);
  const record = readRun(run);
  const step = checkpointSteps(run).at(-1);
  if (!record || step === undefined)
    throw new ConfigError('no_weights', `${run}: has no checkpoint to compare with`, { run });
  if (recipe.train.method !== 'sft' || !recipe.model.base)
    throw new ConfigError('no_adapter', `${run}: trained no adapter`, { run });
  const provenance = join(request.dir, PROVENANCE);
  if (existsSync(provenance)) {
    for (const [name, wanted] of Object.entries((JSON.parse(readFileSync(provenance, 'utf8')) as Provenance).files)) {
      const got = existsSync(join(request.dir, name)) ? await sha256File(join(request.dir, name)) : 'missing';
      if (got !== wanted)
        throw new IntegrityError(
          'export_changed',
          `${join(request.dir, name)}: digest is ${got.slice(0, 12)}, exported was ` +
            `${wanted.slice(0, 12)}; export it again`,
          { file: name, got, wanted },
        );
    }
  }
  const baseDigest = await digestCheckpoint(recipe.model.base);
  if (baseDigest !== record.digests.base)
    throw new IntegrityError(
      'base_changed',
      `${recipe.model.base}: digest is ${baseDigest.slice(0, 12)}, trained on was ` +
        `${record.digests.base.slice(0, 12)}; bring back the base of the run`,
      { got: baseDigest, wanted: record.digests.base },
    );
  const base = openCheckpoint(recipe.model.base);
  try {
    const exported = readPeft(request.dir, base.config);
    // The trainer's own bytes in the trainer's own layout: nothing of the PEFT form is on this path.
    const trained = await loadTrainedAdapter(run, step, base.config);
    try {
      let compared = 0,
        maxDifference = 0,
        maxLogit = 0,
        maxEffect = 0;
      for (const batch of probes(base)) {
        const got = logitsOf(base, exported.model, batch),
          want = logitsOf(base, trained.model, batch),
          bare = logitsOf(base, null, batch);
        for (let i = 0; i < want.length; i++) {
          const w = want[i] ?? Number.NaN;
          const d = Math.abs((got[i] ?? Number.NaN) - w);
          if (!(d <= maxDifference)) maxDifference = Number.isNaN(d) ? Infinity : d;
          maxLogit = Math.max(maxLogit, Math.abs(w));
          maxEffect = Math.max(maxEffect, Math.abs(w - (bare[i] ?? 0)));
        }
        compared += want.length;
      }
      return {
        ok: maxDifference <= TOLERANCE * maxLogit,
        dir: resolve(request.dir),
        run,
        step,
        compared,
        maxDifference,
        maxLogit,
        maxEffect,
        tolerance: TOLERANCE,
      };
    } finally {
      exported.close();
      trained.close();
    }
  } finally {
    base.close();
  }
}
