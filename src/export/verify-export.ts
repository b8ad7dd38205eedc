// The proof that an export is what was trained: every digest checked, the weights or every logit compared, and where it
// is asked, the real consumer's logits too.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { CheckpointError, ConfigError, IntegrityError } from '../base/errors.js';
import type { Adapter } from '../lora/adapter.js';
import { applyAdapter } from '../lora/apply.js';
import { adapterOf } from '../lora/peft.js';
import { type Provenance, readProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { loadTrainedAdapter } from '../runs/checkpoint.js';
import { checkpointSteps, readRun } from '../runs/run-folder.js';
import { recipeOf } from '../runs/trained.js';
import { askConsumer, type ConsumerResult } from './consumer.js';
import type { ExportFormat, ExportSource, LlamaFile, WeightCheck } from './format.js';
import { FORMATS } from './formats/index.js';
import { askLlama } from './gguf/llama-consumer.js';
import { runOfExport } from './origin-at-hand.js';
import { openSource, type SourceRequest } from './source.js';
import { type Comparison, compareLogits, probes } from './verify-logits.js';

/** Of the largest logit: what rounding may always cost, however little was trained. */
const LEAST_LOST = 0.02;
/** Of the largest logit: two orders of summing in f32. */
const MERGED_TOLERANCE = 1e-4;

export interface VerifyRequest {
  readonly dir: string;
  /** Run it was exported from; found through temper.json or the folders around it if absent. */
  readonly run?: string | undefined;
  /** Base checkpoint, where temper.json does not lead to it. */
  readonly model?: string | undefined;
  /** Held-out rows in place of the run's own. */
  readonly rows?: string | undefined;
  /** A Python with peft, and one with transformers: their logits are compared with ours. */
  readonly peft?: string | undefined;
  readonly transformers?: string | undefined;
  /** llama.cpp's llama-server, or the folder it is in: its log-probabilities are compared with ours. */
  readonly llama?: string | undefined;
}
export interface VerifyResult extends Comparison {
  readonly ok: boolean;
  readonly dir: string;
  readonly format: string;
  /** null: it comes of no run. */
  readonly run: string | null;
  readonly step: number | null;
  /** What a difference may be, of the largest logit; null: rounding decides, and the weights were checked. */
  readonly tolerance: number | null;
  /** Elements computed again in plain arithmetic, and what was wrong; null: the format has no weights of its own. */
  readonly weights: WeightCheck | null;
  /** What real consumers answered. */
  readonly consumers: readonly ConsumerResult[];
}

const findRun = ({ dir, run }: VerifyRequest, provenance: Provenance | null): string | null =>
  run ? resolve(run) : runOfExport(dir, provenance);

/** The source that the export was made of. @throws {ConfigError} run_not_found, no_weights, no_adapter */
function requestOf(request: VerifyRequest, provenance: Provenance | null): SourceRequest & { readonly step?: number } {
  const { dir } = request;
  const elsewhere = provenance !== null && provenance.run === undefined && request.run === undefined;
  if (elsewhere) {
    const model = request.model ?? (provenance.model === undefined ? undefined : resolve(dir, provenance.model));
    return {
      model,
      ...(provenance.adapter === undefined ? {} : { adapter: resolve(dir, provenance.adapter) }),
      ...(provenance.expertLayout ? { expertLayout: provenance.expertLayout } : {}),
    };
  }
  const run = findRun(request, provenance);
  if (run === null)
    throw new ConfigError('run_not_found', `${dir}: the run it was exported from is not known; name it with --run`, {
      dir,
    });
  const {
    loaded: { recipe },
  } = recipeOf(run);
  const steps = checkpointSteps(run),
    step = provenance?.step ?? steps.at(-1);
  if (!readRun(run) || step === undefined || !steps.includes(step))
    throw new ConfigError(
      'no_weights',
      `${run}: has no checkpoint${step === undefined ? '' : ` of step ${step}`} to compare with`,
      { run },
    );
  if (recipe.train.method === 'pretrain') return { run, step };
  return { run, checkpoint: step, step };
}

/** @throws {IntegrityError} export_changed, base_changed: not the files that were exported, not the base trained on */
async function checkDigests(
  dir: string,
  provenance: Provenance | null,
  base: string,
  wantedBase: string | undefined,
  signal?: AbortSignal,
): Promise<void> {
  const options = signal ? { signal } : {};
  for (const [name, wanted] of Object.entries(provenance?.files ?? {})) {
    const got = existsSync(join(dir, name)) ? await sha256File(join(dir, name), options) : 'missing';
    if (got !== wanted)
      throw new IntegrityError(
        'export_changed',
        `${join(dir, name)}: digest is ${got.slice(0, 12)}, exported was ${wanted.slice(0, 12)}; export it again`,
        { file: name, got, wanted },
      );
  }
  if (wantedBase === undefined) return;
  const got = await digestCheckpoint(base, { ...options, fresh: true });
  if (got !== wantedBase)
    throw new IntegrityError(
      'base_changed',
      `${base}: digest is ${got.slice(0, 12)}, trained on was ${wantedBase.slice(0, 12)}; bring back that base`,
      { got, wanted: wantedBase },
    );
}

function formatOf(dir: string, name: string): ExportFormat {
  const format = FORMATS.find((f) => f.name === name);
  if (format) return format;
  throw new IntegrityError(
    'bad_provenance',
    `${dir}: its temper.json names format ${name}, wanted one of ${FORMATS.map((f) => f.name).join(', ')}`,
    { dir, format: name },
  );
}

/** @throws {ConfigError} consumer_failed */
function llamaFile(format: ExportFormat, dir: string): LlamaFile {
  const file = format.llama?.(dir);
  if (file) return file;
  const names = FORMATS.filter((f) => f.llama).map((f) => f.name);
  throw new ConfigError('consumer_failed', `--llama: loads ${names.join(', ')}, this export is ${format.name}`, {
    format: format.name,
  });
}

/** The adapter as the trainer holds it: its own flat parameters, in its own layout; one made elsewhere as it is. */
async function trainedAdapter(source: ExportSource, signal?: AbortSignal): Promise<Adapter | null> {
  const { origin, base, adapter } = source;
  if (!adapter) return null;
  return origin.kind === 'run' ? loadTrainedAdapter(origin.run, origin.step, base.config, signal) : adapterOf(adapter);
}

/**
 * Reads an export as a stranger would and compares every logit with what was trained, as the trainer holds it (the flat
 * parameters of the checkpoint); of formats that round, every kind of weight as well.
 * @throws {IntegrityError} files that are not those exported, a base that is not the one trained on
 */
export async function verifyExport(request: VerifyRequest, signal?: AbortSignal): Promise<VerifyResult> {
  const { dir } = request;
  const provenance = readProvenance(dir);
  const { step, ...from } = requestOf(request, provenance);
  const format = formatOf(dir, provenance?.format ?? 'peft');
  if (step !== undefined && format.name === 'peft' && from.checkpoint === undefined)
    throw new ConfigError('no_adapter', `${from.run}: trained no adapter`, { run: from.run });
  // The run's own record is not enough: its base may have changed since.
  const wanted = from.run === undefined ? provenance?.digests.base : wantedBase(from.run, provenance);
  const baseFolder = from.run === undefined ? from.model : baseOf(from.run);
  if (baseFolder !== undefined) await checkDigests(dir, provenance, baseFolder, wanted, signal);
  using source = await openSource(from, signal);
  const trained = await trainedAdapter(source, signal);
  try {
    using exported = format.reload(dir, source.base);
    using wantedModel = applyAdapter(source.base, trained);
    const sequences = await probes(source, request.rows, signal);
    const found = await compareLogits(source.base, exported, wantedModel, sequences, signal);
    const weights = (await format.checkWeights?.(source, dir, signal)) ?? null;
    const consumers: ConsumerResult[] = [];
    for (const kind of ['peft', 'transformers'] as const) {
      const python = request[kind];
      if (python !== undefined)
        consumers.push(
          await askConsumer(
            { kind, python, format: format.name, dir, base: source.base.dir },
            exported,
            sequences,
            signal,
          ),
        );
    }
    if (request.llama !== undefined)
      consumers.push(await askLlama(request.llama, llamaFile(format, dir), source, exported, sequences, { signal }));
    // A model trained through the rounding of this merge is what the merge gives.
    const exact = source.adapter?.spec.mergeAware !== undefined && format.mergeAware === true;
    const tolerance = exact ? MERGED_TOLERANCE : format.tolerance,
      { effectLost } = format;
    const most =
      effectLost === undefined ? Infinity : Math.max(effectLost * found.rmsEffect, LEAST_LOST * found.maxLogit);
    const close =
      tolerance === null
        ? Number.isFinite(found.rmsDifference) && found.rmsDifference <= most
        : found.maxDifference <= tolerance * found.maxLogit;
    return {
      ok: close && (weights?.wrong.length ?? 0) === 0 && consumers.every((c) => c.ok),
      dir: resolve(dir),
      format: format.name,
      run: from.run ?? null,
      step: step ?? null,
      ...found,
      tolerance,
      weights,
      consumers,
    };
  } finally {
    trained?.close();
  }
}

/** The base folder a run computes on; of one that trained a whole model, that model. */
function baseOf(run: string): string {
  const { recipe } = recipeOf(run).loaded;
  return recipe.train.method === 'pretrain' ? join(run, 'model') : (recipe.model.base ?? '');
}
function wantedBase(run: string, provenance: Provenance | null): string | undefined {
  const record = readRun(run);
  if (record && record.method !== 'pretrain') return record.digests.base;
  if (provenance) return provenance.digests.base;
  throw new CheckpointError('no_adapter', `${run}: trained no adapter`, { run });
}
