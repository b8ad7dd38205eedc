// JSON files that a model, an adapter, an export or a run brings: UTF-8, no key twice. JSON.parse alone would take the
// last of two equal keys where another reader takes the first, so that both compute with different models.
import type { TemperError } from './errors.js';
import { type InputKind, readInput } from './inputs.js';
import { parseJson } from './json.js';
import { asReadError } from './system-error.js';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @throws {SyntaxError} not UTF-8, not JSON, a key twice in one object */
export function decodeJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new SyntaxError('it is not UTF-8');
  }
  if (text.startsWith('\ufeff')) throw new SyntaxError('it begins with a byte order mark');
  return parseJson(text);
}

export interface JsonFailures {
  /** What to do where it is not there. */
  readonly next: string;
  /** It cannot be read: not there, no permission, a folder. */
  readonly missing: (message: string) => TemperError;
  /** It is read, and is no JSON. @param what e.g. "not JSON: the key "a" is there twice in one object" */
  readonly bad: (what: string) => TemperError;
}
/** The value of a whole file. @throws {TemperError} as `failures` makes them, and what readInput refuses */
export function readJsonFile(path: string, kind: InputKind, failures: JsonFailures): unknown {
  let bytes: Buffer;
  try {
    bytes = readInput(path, kind);
  } catch (e) {
    throw asReadError(e, path, failures.next, failures.missing);
  }
  try {
    return decodeJson(bytes);
  } catch (e) {
    if (!(e instanceof SyntaxError)) throw e;
    throw Object.assign(failures.bad(`not JSON: ${e.message}`), { cause: e });
  }
}
