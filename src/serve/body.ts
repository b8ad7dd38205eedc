// The body of a request, read once and within bounds: its own, and one of all bodies that are being read.
import { hasLoneSurrogate, parseJson } from '../base/json.js';
import type { ApiRequest } from './api.js';
import { ApiError, badRequest } from './api-error.js';

/** How deep JSON may be nested: schemas of tools need a dozen. */
export const MAX_DEPTH = 64;
/** Bodies of so many times the largest one may be read at once. */
const AT_ONCE = 8;

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

/** Reads bodies of at most `most` bytes each. */
export class Bodies {
  #held = 0;
  constructor(readonly most: number) {}

  /** @throws {ApiError} 400 invalid_json · 413 body_too_large · 415 content_type · 429 too_many_bodies */
  async read(c: ApiRequest): Promise<unknown> {
    const type = c.req.header('content-type') ?? '';
    if (!/^application\/json\s*(;|$)/i.test(type))
      throw new ApiError(415, 'invalid_request_error', 'content_type', 'content-type: wanted application/json');
    return parseBody(await this.#text(c));
  }
  async #text(c: ApiRequest): Promise<string> {
    const { most } = this;
    const tooLarge = (): ApiError =>
      new ApiError(413, 'invalid_request_error', 'body_too_large', `the body has more than ${most} bytes`);
    if (Number(c.req.header('content-length') ?? 0) > most) throw tooLarge();
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    try {
      for await (const piece of (c.req.raw.body ?? []) as AsyncIterable<Uint8Array>) {
        bytes += piece.length;
        this.#held += piece.length;
        if (bytes > most) throw tooLarge();
        if (this.#held > AT_ONCE * most)
          throw new ApiError(429, 'rate_limit_error', 'too_many_bodies', 'too many bodies are being read', null, 1);
        pieces.push(piece);
      }
    } finally {
      this.#held -= bytes;
    }
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces));
    } catch {
      throw badRequest('invalid_json', 'the body is not UTF-8');
    }
  }
}

function parseBody(text: string): unknown {
  if (depthOf(text) > MAX_DEPTH) throw badRequest('invalid_json', `the body is nested deeper than ${MAX_DEPTH} levels`);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch {
    throw badRequest('invalid_json', 'the body is not JSON');
  }
  if (hasLoneSurrogate(json))
    throw badRequest('invalid_json', 'the body holds half of a surrogate pair, which is no text');
  return json;
}
