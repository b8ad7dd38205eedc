// Every error Temper throws on purpose: what, where, got, wanted, next step, in one line. The CLI prints `message` and
// exits with `exitCode`.
import type { ErrorCode } from './error-codes.js';

export type { ErrorCode };
/**
 * Exit codes: 2 usage or bad input, 10 violation, 20 inconclusive (a turn without an answer: no error, so that no class
 * here has it), 30 judge or infrastructure, 40 integrity.
 */
export type ExitCode = 1 | 2 | 10 | 20 | 30 | 40;

export class TemperError extends Error {
  readonly exitCode: ExitCode = 2;
  /**
   * @param code    stable name, listed in docs/errors.md with where it is raised
   * @param message one line: what, where, got, wanted, next step
   * @param details the same facts as data
   */
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly details: Readonly<Record<string, unknown>> = {},
    options?: { cause?: unknown },
  ) {
    super(message.replaceAll(/\s*\n\s*/g, ' '), options);
    this.name = new.target.name;
  }
}
/** Command line or recipe: unknown key, value out of range, path that is not there. */
export class ConfigError extends TemperError {}
/** A dataset row or file: details carry `file` and `line`. */
export class DataError extends TemperError {}
/** A checkpoint, tokenizer or adapter file: details carry `file` and `tensor` where known. */
export class CheckpointError extends TemperError {}
/** Arithmetic or memory in native code; details carry `op`. */
export class NativeError extends TemperError {}
/** Training stopped on purpose: NaN loss, no space for a checkpoint. */
export class TrainError extends TemperError {}
/** The judge cannot be reached or run at all: nothing it was asked was answered (one unjudged item is a verdict). */
export class ScreeningError extends TemperError {
  override readonly exitCode = 30;
}
/** A digest, lock or log does not match. */
export class IntegrityError extends TemperError {
  override readonly exitCode = 40;
}
/** No release gate let this out: nothing judged it, or it did not pass. */
export class GateError extends TemperError {
  override readonly exitCode = 10;
}
/** A hub of models cannot be reached, or answers what it must not. */
export class HubError extends TemperError {
  override readonly exitCode = 30;
}
/** What outlives a server (src/store) cannot be reached, or refuses. */
export class StoreError extends TemperError {
  override readonly exitCode = 30;
}
