// One POST of JSON, and its whole answer. Node's own client: `fetch` gives up 300 s before the headers come, and a
// completion that is not streamed sends none before it is done. Nothing is followed, nothing is sent twice here.
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { pipeline, type Readable, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}
/** What went wrong by name. No message of a library: such a message may quote a header, and so a key. */
export class HttpFailure extends Error {
  constructor(
    readonly kind: 'connection' | 'too_long' | 'encoding',
    /** Code of the system or the library, e.g. ECONNREFUSED. */
    readonly reason: string,
    /** The server had not begun to answer. */
    readonly unanswered: boolean,
  ) {
    super(reason);
    this.name = 'HttpFailure';
  }
}

const DECODERS: Readonly<Record<string, (() => Transform) | null>> = {
  identity: null,
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
};

/** @throws {HttpFailure} no connection, cut off, more than `maxBytes` (unpacked), an encoding that nobody asked for */
export async function postJson(
  url: URL,
  headers: Readonly<Record<string, string>>,
  body: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Reply> {
  let response: IncomingMessage | undefined;
  try {
    response = await send(url, headers, body, signal);
    const encoding = (response.headers['content-encoding'] ?? 'identity').trim().toLowerCase();
    if (!Object.hasOwn(DECODERS, encoding)) {
      response.destroy();
      throw new HttpFailure('encoding', encoding.replaceAll(/[^a-z0-9, -]/g, '?').slice(0, 40), false);
    }
    const decoder = DECODERS[encoding]?.();
    const stream: Readable = decoder ? pipeline(response, decoder, () => {}) : response;
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBytes) {
        response.destroy();
        throw new HttpFailure('too_long', `more than ${maxBytes} bytes`, false);
      }
      chunks.push(chunk);
    }
    return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
  } catch (error) {
    if (error instanceof HttpFailure) throw error;
    throw new HttpFailure('connection', codeOf(error), response === undefined);
  }
}

const send = (
  url: URL,
  headers: Readonly<Record<string, string>>,
  body: string,
  signal: AbortSignal,
): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const start = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = start(url, { method: 'POST', headers, signal }, resolve);
    request.on('error', reject);
    request.end(body);
  });

/** ECONNREFUSED, UNABLE_TO_VERIFY_LEAF_SIGNATURE, Z_DATA_ERROR …; never a message. */
function codeOf(error: unknown): string {
  // A name that resolves to several addresses fails with one error for each.
  const inner: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  const code = inner instanceof Error && 'code' in inner ? String(inner.code) : '';
  return /^[A-Z][A-Z0-9_]{1,60}$/.test(code) ? code : 'error';
}
