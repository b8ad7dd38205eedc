// Exports and their proof as the main thread sees them: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { ExportRequest, ExportResult } from './export-peft.js';
import type { VerifyRequest, VerifyResult } from './verify-export.js';

export type { ExportRequest, ExportResult } from './export-peft.js';
export type { VerifyRequest, VerifyResult } from './verify-export.js';

/** What the thread answers. */
export type ExportCalls = {
  readonly export: { readonly request: ExportRequest; readonly event: never; readonly result: ExportResult };
  readonly verify: { readonly request: VerifyRequest; readonly event: never; readonly result: VerifyResult };
};

/** Writes a run's adapter as PEFT into a new folder. @throws {TemperError} · the signal's reason */
export const exportRun = (
  request: ExportRequest,
  options: { readonly signal?: AbortSignal } = {},
): Promise<ExportResult> => runInThread<ExportCalls, 'export'>('export/worker.js', 'export', request, options);

export interface VerifyOptions extends Omit<VerifyRequest, 'dir'> {
  readonly signal?: AbortSignal;
}
/** Compares all logits of an export with the adapter the trainer holds. `ok` false: they differ. */
export const verify = (dir: string, { signal, ...rest }: VerifyOptions = {}): Promise<VerifyResult> =>
  runInThread<ExportCalls, 'verify'>('export/worker.js', 'verify', { dir, ...rest }, { signal });
