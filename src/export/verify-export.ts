// The proof that an export is what was trained: every logit compared, every digest checked.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { sha256File } from '../base/digest.js';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { epochOrder } from '../data/order.js';
import { readPeft } from '../lora/peft.js';
import { readProvenance } from '../lora/provenance.js';
import { digestCheckpoint, openCheckpoint } from '../model/checkpoint.js';
import { forwardHidden, logits } from '../model/gpt-oss.js';
import type { Batch, ModelAdapter, ModelWeights } from '../model/types.js';
import { Scope } from '../native/tensor.js';
import { loadTrainedAdapter } from '../runs/checkpoint.js';
import { checkpointSteps, readRun } from '../runs/run-folder.js';
import { recipeOf, runAround } from '../runs/trained.js';

export interface VerifyRequest {
  readonly dir: string;
  /** Run it was exported from; found through temper.json or the folders around it if absent. */
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
/** An export holds the trainer's f32 values in another order, and the kernels are the same: so are the bits. */
const TOLERANCE = 0;
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
  const provenance = readProvenance(request.dir);
  if (provenance) {
    const there = resolve(request.dir, provenance.run);
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

/** @throws {IntegrityError} export_changed, base_changed: not the files that were exported, not the base trained on */
async function checkDigests(dir: string, base: string, wantedBase: string, signal?: AbortSignal): Promise<void> {
  const options = signal ? { signal } : {};
  for (const [name, wanted] of Object.entries(readProvenance(dir)?.files ?? {})) {
    const got = existsSync(join(dir, name)) ? await sha256File(join(dir, name), options) : 'missing';
    if (got !== wanted)
      throw new IntegrityError(
        'export_changed',
        `${join(dir, name)}: digest is ${got.slice(0, 12)}, exported was ${wanted.slice(0, 12)}; export it again`,
        { file: name, got, wanted },
      );
  }
  const got = await digestCheckpoint(base, { ...options, fresh: true });
  if (got !== wantedBase)
    throw new IntegrityError(
      'base_changed',
      `${base}: digest is ${got.slice(0, 12)}, trained on was ${wantedBase.slice(0, 12)}; bring back that base`,
      { got, wanted: wantedBase },
    );
}

type Comparison = Pick<VerifyResult, 'compared' | 'maxDifference' | 'maxLogit' | 'maxEffect'>;
/** Every logit of the probes, with one adapter, with the other and with none. */
async function compareLogits(
  base: ModelWeights,
  exported: ModelAdapter,
  trained: ModelAdapter,
  signal?: AbortSignal,
): Promise<Comparison> {
  let [compared, maxDifference, maxLogit, maxEffect] = [0, 0, 0, 0];
  for (const batch of probes(base)) {
    await setImmediate(); // lets messages in; native calls block this thread
    const run = (adapter: ModelAdapter | null): Float32Array => {
      signal?.throwIfAborted();
      return logitsOf(base, adapter, batch);
    };
    const [got, want, bare] = [run(exported), run(trained), run(null)];
    for (let i = 0; i < want.length; i++) {
      const w = want[i] ?? Number.NaN;
      const d = Math.abs((got[i] ?? Number.NaN) - w);
      if (!(d <= maxDifference)) maxDifference = Number.isNaN(d) ? Infinity : d;
      maxLogit = Math.max(maxLogit, Math.abs(w));
      maxEffect = Math.max(maxEffect, Math.abs(w - (bare[i] ?? 0)));
    }
    compared += want.length;
  }
  return { compared, maxDifference, maxLogit, maxEffect };
}

/**
 * Reads an export as a stranger would and compares every logit with the adapter as the trainer holds it (the flat
 * parameters of the last checkpoint).
 * @throws {IntegrityError} files that are not those exported, a base that is not the one trained on
 */
export async function verifyExport(request: VerifyRequest, signal?: AbortSignal): Promise<VerifyResult> {
  const run = findRun(request);
  const {
    loaded: { recipe },
  } = recipeOf(run);
  const record = readRun(run);
  const steps = checkpointSteps(run),
    step = readProvenance(request.dir)?.step ?? steps.at(-1);
  if (!record || step === undefined || !steps.includes(step))
    throw new ConfigError(
      'no_weights',
      `${run}: has no checkpoint${step === undefined ? '' : ` of step ${step}`} to compare with`,
      { run },
    );
  if (recipe.train.method === 'pretrain' || !recipe.model.base)
    throw new ConfigError('no_adapter', `${run}: trained no adapter`, { run });
  await checkDigests(request.dir, recipe.model.base, record.digests.base, signal);
  using base = openCheckpoint(recipe.model.base);
  const exported = readPeft(request.dir, base.config);
  try {
    // The trainer's own bytes in the trainer's own layout: nothing of the PEFT form is on this path.
    const trained = await loadTrainedAdapter(run, step, base.config, signal);
    try {
      const found = await compareLogits(base, exported.model, trained.model, signal);
      const ok = found.maxDifference <= TOLERANCE;
      return { ok, dir: resolve(request.dir), run, step, ...found, tolerance: TOLERANCE };
    } finally {
      trained.close();
    }
  } finally {
    exported.close();
  }
}
