// Opens what is to be exported: what a run trained, an adapter made elsewhere on its base, or a checkpoint as it is.
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { pulledFrom } from '../hub/manifest.js';
import { openPeft } from '../lora/peft-file.js';
import type { Orientation } from '../lora/peft-layout.js';
import { digestCheckpoint, openCheckpoint } from '../model/checkpoint.js';
import { checkAdapterBase } from '../runs/adapter-base.js';
import { checkpointFolder, checkpointSteps, type RunRecord, readRun } from '../runs/run-folder.js';
import { resolveTrained } from '../runs/trained.js';
import type { ExportSource, Origin } from './format.js';

export interface SourceRequest {
  /** Run folder; or, for adapters made elsewhere, `adapter` and `model`; or `model` alone. */
  readonly run?: string | undefined;
  readonly adapter?: string | undefined;
  readonly model?: string | undefined;
  /**
   * Name of the base for those who load the export, e.g. openai/gpt-oss-20b; default: the repo it was pulled from, or
   * its folder's name.
   */
  readonly baseModel?: string | undefined;
  /** A checkpoint in place of what the finished run wrote: the last one, the best of its evaluations, or a step. */
  readonly checkpoint?: 'last' | 'best' | number | undefined;
  /** How stacked experts of a foreign adapter lie, where nothing in it tells. */
  readonly expertLayout?: Orientation | undefined;
}

/** The step whose weights are meant. @throws {ConfigError} run_unfinished, no_weights */
function stepOf(run: string, checkpoint: SourceRequest['checkpoint'], record: RunRecord): number {
  const steps = checkpointSteps(resolve(run)),
    last = steps.at(-1) ?? 0;
  if (checkpoint === undefined && record.status !== 'done') {
    const next =
      last === 0
        ? 'and has no checkpoint: start it again'
        : `step ${last} of ${record.steps} is saved: go on with temper train --resume, or export ` +
          'the checkpoint as it is with --checkpoint last';
    throw new ConfigError(
      'run_unfinished',
      `${run}: the run is not finished (${record.status}${record.failure ? `: ${record.failure}` : ''}); ${next}`,
      { run, status: record.status, step: last, steps: record.steps },
    );
  }
  const step = checkpoint === 'best' ? record.best?.step : typeof checkpoint === 'number' ? checkpoint : last;
  if (step === undefined)
    throw new ConfigError('no_weights', `${run}: evaluated no checkpoint (train.evalEvery), so none is the best`, {
      run,
    });
  if (!steps.includes(step))
    throw new ConfigError(
      'no_weights',
      `${run}: has no checkpoint of step ${step}; there ${steps.length === 1 ? 'is' : 'are'} ` +
        `${steps.join(', ') || 'none'}`,
      { run, step, steps },
    );
  return step;
}

interface Found {
  readonly model: string;
  readonly adapter: string | null;
  readonly origin: Origin;
}

function ofRun(run: string, { checkpoint }: SourceRequest): Found {
  const record = readRun(resolve(run));
  const step = record && stepOf(run, checkpoint, record);
  const trained = resolveTrained(run);
  if (!trained.run || !record || step === null)
    throw new ConfigError('not_a_run', `${run}: holds no run.json; wanted a run folder`, { run });
  if (trained.adapter === null && checkpoint !== undefined)
    throw new ConfigError(
      'no_weights',
      `${run}: trained a whole model, whose checkpoints hold the trainer's numbers only; export ` +
        'it without --checkpoint',
      { run },
    );
  const { recipe, model } = trained;
  const adapter =
    trained.adapter === null || checkpoint === undefined
      ? trained.adapter
      : join(checkpointFolder(trained.run, step), 'adapter');
  return { model, adapter, origin: { kind: 'run', run: trained.run, step, record, recipe } };
}

function find(request: SourceRequest): Found {
  const { run, adapter, model } = request;
  if (run !== undefined) {
    if (adapter !== undefined || model !== undefined)
      throw new ConfigError(
        'bad_option',
        `${run}: a run says its own model and adapter; leave --adapter and --model out`,
      );
    return ofRun(run, request);
  }
  if (model === undefined)
    throw new ConfigError(
      'bad_option',
      adapter === undefined
        ? 'nothing to export: give a run folder, or --adapter DIR --model DIR'
        : `${adapter}: an adapter is exported with its base: give --model DIR`,
    );
  if (!existsSync(model)) throw new ConfigError('path_not_found', `${model}: no such folder`, { path: model });
  return {
    model,
    adapter: adapter ?? null,
    origin: adapter === undefined ? { kind: 'model' } : { kind: 'adapter', folder: resolve(adapter) },
  };
}

/** Reads nothing of tensors but their headers, and the base's digest, which may be remembered. */
export async function openSource(request: SourceRequest, signal?: AbortSignal): Promise<ExportSource> {
  signal?.throwIfAborted();
  const { model, adapter: folder, origin } = find(request);
  const base = openCheckpoint(model);
  try {
    const adapter = folder === null ? null : openPeft(folder, base.config, { expertLayout: request.expertLayout });
    const close = (): void => {
      adapter?.close();
      base.close();
    };
    try {
      if (folder !== null) await checkAdapterBase(folder, model, signal);
      const baseDigest = await digestCheckpoint(model, signal ? { signal } : {});
      const pulled = pulledFrom(model);
      return {
        base,
        adapter,
        origin,
        baseModel: request.baseModel ?? pulled?.name ?? basename(resolve(model)),
        commit: pulled?.commit ?? null,
        baseDigest,
        [Symbol.dispose]: close,
      };
    } catch (e) {
      adapter?.close();
      throw e;
    }
  } catch (e) {
    base.close();
    throw e;
  }
}
