// The body of a request as JSON that the rest may rely on: no equal keys, no depth that is not needed, no text that is
// none.
import { hasLoneSurrogate, parseJson } from '../base/json.js';
import { badRequest } from './api-error.js';

const utf8 = new TextDecoder('utf-8', { fatal: true });
/** How deep JSON may be nested: schemas of tools need a dozen. */
export const MAX_DEPTH = 64;

/** How deep brackets are nested, outside of strings; of text that is no JSON too. */
export function depthOf(text: string): number {
  let depth = 0,
    most = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 34) {
      // Strings are most of a body: they are passed over at the speed of a search.
      for (let escaped = true; escaped; ) {
        i = text.indexOf('"', i + 1);
        if (i < 0) return most;
        let slashes = 0;
        while (text.charCodeAt(i - 1 - slashes) === 92) slashes++;
        escaped = slashes % 2 === 1;
      }
    } else if (c === 91 || c === 123) most = Math.max(most, ++depth);
    else if (c === 93 || c === 125) depth--;
  }
  return most;
}

/** @throws {ApiError} 400 invalid_json */
export function jsonOf(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw badRequest('invalid_json', 'the body is not UTF-8');
  }
  if (depthOf(text) > MAX_DEPTH) throw badRequest('invalid_json', `the body is nested deeper than ${MAX_DEPTH} levels`);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch {
    throw badRequest('invalid_json', 'the body is not JSON, or has a key twice');
  }
  // UTF-8 has none: only an escape can say one.
  if (text.includes('\\u') && hasLoneSurrogate(json))
    throw badRequest('invalid_json', 'the body holds half of a surrogate pair, which is no text');
  return json;
}
