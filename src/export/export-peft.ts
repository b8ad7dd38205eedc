// A run's adapter as PEFT, under the name its base has abroad.
import { existsSync, rmSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { CONFIG_FILE, readPeft, TENSOR_FILE, writePeft } from '../lora/peft.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { readRun } from '../runs/run-folder.js';
import { resolveTrained } from '../runs/trained.js';
import { writeProvenance } from './provenance.js';

export interface ExportRequest {
  readonly run: string;
  readonly out: string;
  /** Name of the base for those who load the adapter, e.g. openai/gpt-oss-20b; default: its folder's name. */
  readonly baseModel?: string;
}
export interface ExportResult {
  readonly out: string;
  /** sha256 by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** @throws {ConfigError} the run trained no adapter, or `out` exists · the signal's reason, with nothing left behind */
export async function exportPeft(request: ExportRequest, signal?: AbortSignal): Promise<ExportResult> {
  const trained = resolveTrained(request.run);
  const record = trained.run ? readRun(trained.run) : null;
  if (!trained.run || !record || !trained.adapter)
    throw new ConfigError(
      'no_adapter',
      `${request.run}: trained no adapter; only a run of method sft or dpo can be exported as peft`,
      { run: request.run },
    );
  const out = resolve(request.out);
  if (existsSync(out)) throw new ConfigError('path_exists', `${request.out}: exists; give a new folder`, { out });
  using base = openCheckpoint(trained.model);
  const adapter = readPeft(trained.adapter, base.config);
  try {
    signal?.throwIfAborted();
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
    writeProvenance(out, { version: 1, run: relative(out, trained.run), digests: record.digests, files });
    return { out, files };
  } catch (e) {
    rmSync(out, { recursive: true, force: true });
    throw e;
  }
}
