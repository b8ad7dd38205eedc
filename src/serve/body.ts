// Bodies of requests: bounded before they are read, then JSON or refused.
import { hasLoneSurrogate, parseJson } from '../base/json.js';
import type { ApiRequest } from './api.js';
import { ApiError, badRequest } from './api-error.js';

/** How deep JSON may be nested: schemas of tools need a dozen. */
export const MAX_DEPTH = 64;

export function depthOf(text: string): number {
  let depth = 0,
    most = 0,
    quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 91 || c === 123) most = Math.max(most, ++depth);
    else if (c === 93 || c === 125) depth--;
  }
  return most;
}

/** @param most bytes @throws {ApiError} 400, 413, 415 */
export async function readBody(c: ApiRequest, most: number): Promise<unknown> {
  const type = c.req.header('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type))
    throw new ApiError(415, 'invalid_request_error', 'content_type', 'content-type: wanted application/json');
  const tooLarge = (): ApiError =>
    new ApiError(413, 'invalid_request_error', 'body_too_large', `the body has more than ${most} bytes`);
  if (Number(c.req.header('content-length') ?? 0) > most) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of (c.req.raw.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += piece.length;
    if (bytes > most) throw tooLarge();
    pieces.push(piece);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces));
  } catch {
    throw badRequest('invalid_json', 'the body is not UTF-8');
  }
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
