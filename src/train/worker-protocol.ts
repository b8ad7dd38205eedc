// What passes between the main thread and the training thread. Errors travel as data and come back as the class they were.
import * as errors from '../native/errors.js';
import type { TrainProgress, TrainRequest, TrainResult } from './session.js';

export type WorkerInput = { readonly request: TrainRequest; /** [0] ≠ 0: stop at the next safe point. */ readonly stop: SharedArrayBuffer };
export type WorkerMessage =
  | { readonly kind: 'progress'; readonly progress: TrainProgress }
  | { readonly kind: 'done'; readonly result: TrainResult }
  | { readonly kind: 'failed'; readonly error: ErrorData };

export interface ErrorData { readonly name: string; readonly code: string | undefined; readonly message: string; readonly details: Record<string, unknown>; readonly stack: string | undefined }

export function errorToData(e: unknown): ErrorData {
  if (!(e instanceof Error)) return { name: 'Error', code: undefined, message: String(e), details: {}, stack: undefined };
  const own = e instanceof errors.TemperError;
  // Details must survive the structured clone; what cannot be written as JSON is dropped.
  let details: Record<string, unknown> = {};
  if (own) try { details = JSON.parse(JSON.stringify(e.details)) as Record<string, unknown>; } catch { /* not plain data */ }
  return { name: e.name, code: own ? e.code : undefined, message: e.message, details, stack: e.stack };
}

export function errorFromData(d: ErrorData): Error {
  const known = (errors as Record<string, unknown>)[d.name];
  if (d.code !== undefined && typeof known === 'function') {
    const Kind = known as new (code: string, message: string, details: Record<string, unknown>) => Error;
    return new Kind(d.code, d.message, d.details);
  }
  const e = new Error(d.message);
  e.name = d.name;
  if (d.stack) e.stack = d.stack;
  return e;
}
