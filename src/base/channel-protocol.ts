// What passes between a thread and whoever opened it.
import type { ErrorData } from './error-data.js';

/** Names the calls a thread answers: what goes in, what comes while it works (never: nothing), what comes out. */
export type Contract = {
  readonly [name: string]: { readonly request: unknown; readonly event: unknown; readonly result: unknown };
};

export interface CallMessage {
  readonly kind: 'call';
  readonly id: number;
  readonly name: string;
  readonly request: unknown;
  /** One i32 in shared memory: not 0 asks the call to stop, also while native code keeps messages waiting. */
  readonly stop: Int32Array;
}
export type OneToWorker = CallMessage | { readonly kind: 'abort'; readonly id: number } | { readonly kind: 'close' };
export type ToWorker = OneToWorker | { readonly kind: 'calls'; readonly calls: readonly CallMessage[] };
/** id −1: the thread as a whole, ready or not to be opened. */
export type FromWorker = OneFromWorker | GatheredFromWorker;
/** Events side by side with the calls they are of, then all else. */
export interface GatheredFromWorker {
  readonly kind: 'all';
  readonly ids: readonly number[];
  readonly events: readonly unknown[];
  readonly rest: readonly OneFromWorker[];
}
export type OneFromWorker =
  | { readonly kind: 'event'; readonly id: number; readonly event: unknown }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: ErrorData };

/** What a thread is started with. */
export interface ThreadData {
  /** What it is opened with, or a port that this will come on. */
  readonly data: unknown;
  /** Two i32 in shared memory: messages that the thread has sent, and those that its caller is done with. */
  readonly told: Int32Array;
}
export const TOLD = 0;
export const TAKEN = 1;
