// Looking at logs as the main thread does: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { ConsistencyProof, InclusionProof } from './prove.js';
import type { LogReport, VerifyLogRequest } from './verify.js';

export interface ShowRequest {
  readonly dir: string;
  /** The last so many, default 20. */
  readonly last: number;
  /** Of this kind alone. */
  readonly kind?: string;
  readonly receipt?: string;
}
export interface ShownRecord {
  readonly receipt: string;
  readonly kind: string;
  readonly record: Readonly<Record<string, unknown>>;
}
export type LogCalls = {
  readonly verify: { readonly request: VerifyLogRequest; readonly event: number; readonly result: LogReport };
  readonly prove: {
    readonly request: { readonly dir: string; readonly receipt: string; readonly open?: string };
    readonly event: number;
    readonly result: InclusionProof;
  };
  readonly grow: {
    readonly request: { readonly dir: string; readonly since: string };
    readonly event: number;
    readonly result: readonly ConsistencyProof[];
  };
  readonly checkpoints: { readonly request: { readonly dir: string }; readonly event: number; readonly result: string };
  readonly show: { readonly request: ShowRequest; readonly event: number; readonly result: readonly ShownRecord[] };
};
export interface LogCallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of bytes that were read. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}
const call =
  <K extends keyof LogCalls & string>(name: K) =>
  (request: LogCalls[K]['request'], { signal, onProgress }: LogCallOptions = {}): Promise<LogCalls[K]['result']> =>
    runInThread<LogCalls, K>('verdict-log/worker.js', name, request, { signal, onEvent: onProgress });

/** verifyLog in a thread. @throws as verifyLog · the signal's reason */
export const verifyVerdictLog = call('verify');
/** proveRecord in a thread. @throws as proveRecord · the signal's reason */
export const proveVerdict = call('prove');
/** proveGrowth in a thread. @throws as proveGrowth · the signal's reason */
export const proveLogGrowth = call('grow');
/** checkpointsOf in a thread. @throws as checkpointsOf · the signal's reason */
export const logCheckpoints = call('checkpoints');
/**
 * The last records of a log, the newest last.
 * @throws {DataError} log_missing, log_receipt · {IntegrityError} log_altered
 */
export const showLog = call('show');
