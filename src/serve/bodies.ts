// The body of a request, read once and within bounds: its own, and one of all bodies that are being read.
import type { IncomingMessage } from 'node:http';
import type { ApiRequest } from './api.js';
import { ApiError, badRequest } from './api-error.js';
import { jsonOf } from './body.js';
import { BodyThread, type Room } from './body-thread.js';
import { READERS, type ReadBody, type ReaderName } from './readers.js';

/** Bodies of so many times the largest one may be read at once. */
const AT_ONCE = 8;
/** Larger ones are read in a thread of their own. */
const LARGE_BYTES = 8 << 10;

/** Of a client that goes away, or is too slow, there is less than it announced: no fault of the server. */
const incomplete = (): ApiError => badRequest('body_incomplete', 'the body ended before all of it was there');

/** Behind a port from node's own stream, by its events: the web's over it, or an iterator, costs more than reading. */
function readFrom(incoming: IncomingMessage, take: (piece: Uint8Array) => void): Promise<void> {
  return new Promise((done, fail) => {
    const over = (end: () => void): void => {
      incoming.off('data', data).off('end', ended).off('error', broken).off('close', broken);
      end();
    };
    const data = (piece: Uint8Array): void => {
      try {
        take(piece);
      } catch (e) {
        incoming.pause(); // it stays open for the answer
        over(() => fail(e));
      }
    };
    const ended = (): void => over(done);
    const broken = (): void => over(() => fail(incomplete()));
    if (incoming.destroyed) fail(incomplete());
    else incoming.on('data', data).on('end', ended).on('error', broken).on('close', broken);
  });
}
async function readPieces(c: ApiRequest, take: (piece: Uint8Array) => void): Promise<void> {
  const { incoming } = c.env ?? {};
  if (incoming) return readFrom(incoming, take);
  let refused = false;
  try {
    for await (const piece of (c.req.raw.body ?? []) as AsyncIterable<Uint8Array>) {
      refused = true;
      take(piece);
      refused = false;
    }
  } catch (e) {
    throw refused ? e : incomplete();
  }
}

/** Reads bodies of at most `most` bytes each. */
export class Bodies {
  #held = 0;
  readonly #thread = new BodyThread();
  constructor(readonly most: number) {}

  /**
   * @throws {ApiError} 400 invalid_json, body_incomplete · 413 body_too_large · 415 content_type, content_encoding
   * · 429 too_many_bodies
   */
  async read(c: ApiRequest): Promise<unknown> {
    return this.#with(c, (pieces) => jsonOf(Buffer.concat(pieces)));
  }
  /**
   * @param tokens most of an answer where the request does not say
   * @param room   for prompt and answer
   * @throws as `read` · what the reader of that name throws
   */
  readAs<K extends ReaderName>(c: ApiRequest, name: K, tokens: number, room: () => Room): Promise<ReadBody<K>> {
    return this.#with(c, (pieces, bytes) =>
      bytes > LARGE_BYTES
        ? this.#thread.read(name, pieces, tokens, room())
        : (READERS[name](jsonOf(Buffer.concat(pieces)), tokens) as ReadBody<K>),
    );
  }
  close(): Promise<void> {
    return this.#thread.close();
  }
  async #with<T>(c: ApiRequest, use: (pieces: readonly Uint8Array[], bytes: number) => T | Promise<T>): Promise<T> {
    const type = c.req.header('content-type') ?? '';
    if (!/^application\/json\s*(;|$)/i.test(type))
      throw new ApiError(415, 'invalid_request_error', 'content_type', 'content-type: wanted application/json');
    const encoding = c.req.header('content-encoding') ?? 'identity';
    if (!/^identity$/i.test(encoding)) {
      const what = `content-encoding: ${JSON.stringify(encoding.slice(0, 100))} is not read here; send it as it is`;
      throw new ApiError(415, 'invalid_request_error', 'content_encoding', what);
    }
    const { most } = this;
    const tooLarge = (): ApiError =>
      new ApiError(413, 'invalid_request_error', 'body_too_large', `the body has more than ${most} bytes`);
    if (Number(c.req.header('content-length') ?? 0) > most) throw tooLarge();
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    try {
      await readPieces(c, (piece) => {
        bytes += piece.length;
        this.#held += piece.length;
        if (bytes > most) throw tooLarge();
        if (this.#held > AT_ONCE * most)
          throw new ApiError(429, 'rate_limit_error', 'too_many_bodies', 'too many bodies are being read', null, 1);
        pieces.push(piece);
      });
      return await use(pieces, bytes);
    } finally {
      this.#held -= bytes;
    }
  }
}
