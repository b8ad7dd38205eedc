// Exports and their proof as the main thread sees them: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import { localOf } from '../hub/pull.js';
import { pullForRecipe } from '../runs/references.js';
import type { ExportProgress, ExportRequest, ExportResult } from './run-export.js';
import type { VerifyRequest, VerifyResult } from './verify-export.js';

export type { ExportedFormat, ExportProgress, ExportRequest, ExportResult } from './run-export.js';
export type { VerifyRequest, VerifyResult } from './verify-export.js';

/** What the thread answers. */
export type ExportCalls = {
  readonly export: { readonly request: ExportRequest; readonly event: ExportProgress; readonly result: ExportResult };
  readonly verify: { readonly request: VerifyRequest; readonly event: never; readonly result: VerifyResult };
};

export interface ExportOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ExportProgress) => void;
}
/**
 * Writes what a run trained, or an adapter made elsewhere, into a new folder in a form that others load.
 * @throws {TemperError} · the signal's reason
 */
export async function exportRun(
  { run, adapter, model, ...rest }: ExportRequest,
  { signal, onProgress }: ExportOptions = {},
): Promise<ExportResult> {
  const local = async (path: string | undefined): Promise<string | undefined> =>
    path === undefined ? undefined : localOf(path, { signal });
  if (run !== undefined) await pullForRecipe(run, {}, { signal });
  const request = { run, adapter: await local(adapter), model: await local(model), ...rest };
  return runInThread<ExportCalls, 'export'>('export/worker.js', 'export', request, { signal, onEvent: onProgress });
}

export interface VerifyOptions extends Omit<VerifyRequest, 'dir'> {
  readonly signal?: AbortSignal;
}
/** Compares all logits of an export with the adapter the trainer holds. `ok` false: they differ. */
export const verify = (dir: string, { signal, ...rest }: VerifyOptions = {}): Promise<VerifyResult> =>
  runInThread<ExportCalls, 'verify'>('export/worker.js', 'verify', { dir, ...rest }, { signal });
