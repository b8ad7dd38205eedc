// A run's adapter as PEFT, under the name its base has abroad.
import { existsSync, rmSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { checkOutputs } from '../base/outputs.js';
import { CONFIG_FILE, readPeft, TENSOR_FILE, writePeft } from '../lora/peft.js';
import { writeProvenance } from '../lora/provenance.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { checkAdapterBase } from '../runs/adapter-base.js';
import { checkpointFolder, checkpointSteps, type RunRecord, readRun } from '../runs/run-folder.js';
import { resolveTrained } from '../runs/trained.js';

export interface ExportRequest {
  readonly run: string;
  readonly out: string;
  /** Name of the base for those who load the adapter, e.g. openai/gpt-oss-20b; default: its folder's name. */
  readonly baseModel?: string;
  /** A checkpoint in place of what the finished run wrote: the last one, the best of its evaluations, or a step. */
  readonly checkpoint?: 'last' | 'best' | number;
}
export interface ExportResult {
  readonly out: string;
  /** Steps that the exported weights had. */
  readonly step: number;
  /** sha256 by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** The step whose weights are meant. @throws {ConfigError} run_unfinished, no_weights */
function stepOf({ run, checkpoint }: ExportRequest, folder: string, record: RunRecord): number {
  const steps = checkpointSteps(folder),
    last = steps.at(-1) ?? 0;
  if (checkpoint === undefined && record.status !== 'done') {
    const next =
      last === 0
        ? 'and has no checkpoint: start it again'
        : `step ${last} of ${record.steps} is saved: go on with temper train --resume, or export ` +
          'the checkpoint as it is ' +
          'with --checkpoint last';
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

/**
 * @throws {ConfigError} the run trained no adapter, is not finished, or `out` exists · {CheckpointError} not_finite ·
 * the signal's reason, with nothing left behind
 */
export async function exportPeft(request: ExportRequest, signal?: AbortSignal): Promise<ExportResult> {
  const record = readRun(resolve(request.run));
  const step = record && stepOf(request, resolve(request.run), record);
  const trained = resolveTrained(request.run);
  if (!trained.run || !record || !trained.adapter || step === null)
    throw new ConfigError(
      'no_adapter',
      `${request.run}: trained no adapter; only a run of method sft or dpo can be exported as peft`,
      { run: request.run },
    );
  const out = resolve(request.out);
  if (existsSync(out)) throw new ConfigError('path_exists', `${request.out}: exists; give a new folder`, { out });
  checkOutputs({ '--out': out }, { folders: [trained.model] }, 'folder');
  const from =
    request.checkpoint === undefined ? trained.adapter : join(checkpointFolder(trained.run, step), 'adapter');
  using base = openCheckpoint(trained.model);
  const adapter = readPeft(from, base.config);
  try {
    signal?.throwIfAborted();
    await checkAdapterBase(from, trained.model, signal);
    await writePeft(adapter, out, {
      baseModel: request.baseModel ?? basename(trained.model),
      about: trained.recipe.about,
    });
  } finally {
    adapter.close();
  }
  try {
    const files: Record<string, string> = {};
    for (const name of [CONFIG_FILE, TENSOR_FILE])
      files[name] = await sha256File(join(out, name), signal ? { signal } : {});
    writeProvenance(out, { version: 1, run: relative(out, trained.run), step, digests: record.digests, files });
    return { out, step, files };
  } catch (e) {
    rmSync(out, { recursive: true, force: true });
    throw e;
  }
}
