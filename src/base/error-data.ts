// Errors between threads: they travel as plain data and come back as the class they were.
import type { ErrorCode } from './error-codes.js';
import * as errors from './errors.js';

export interface ErrorData {
  readonly name: string;
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly details: Record<string, unknown>;
  readonly stack: string | undefined;
}

export function errorToData(e: unknown): ErrorData {
  if (!(e instanceof Error))
    return { name: 'Error', code: undefined, message: String(e), details: {}, stack: undefined };
  const own = e instanceof errors.TemperError;
  // Details must survive the structured clone; what cannot be written as JSON is dropped.
  let details: Record<string, unknown> = {};
  if (own)
    try {
      details = JSON.parse(JSON.stringify(e.details)) as Record<string, unknown>;
    } catch {
      /* not plain data */
    }
  return { name: e.name, code: own ? e.code : undefined, message: e.message, details, stack: e.stack };
}

export function errorFromData(d: ErrorData): Error {
  const known = (errors as Record<string, unknown>)[d.name];
  if (d.code !== undefined && typeof known === 'function') {
    const Kind = known as new (code: ErrorCode, message: string, details: Record<string, unknown>) => Error;
    return new Kind(d.code, d.message, d.details);
  }
  const e = new Error(d.message);
  e.name = d.name;
  if (d.stack) e.stack = d.stack;
  return e;
}
