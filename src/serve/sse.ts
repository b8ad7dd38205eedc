// Server-sent events, and the signal that says that a client has gone. Behind a port they are written into node's own
// response: a web stream between would cost as much as all the rest of a token.
import type { ServerResponse } from 'node:http';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { ApiRequest } from './api.js';
import { isLarge, jsonParts } from './json-pieces.js';
import { isLate, pause } from './turns.js';

export interface ServerEvent {
  /** Name of the event; absent: none is sent. */
  readonly event?: string;
  /** JSON, or a text that is sent as it is. */
  readonly data: unknown;
}
/** While a stream waits for verdicts, a comment tells proxies that it lives. */
const KEEPALIVE_MS = 15_000;
/** A client that takes nothing for so long is given up, ms: it holds a place. */
const STALL_MS = 30_000;
const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
  'x-content-type-options': 'nosniff',
};

const gone = (): DOMException => new DOMException('the client went away', 'AbortError');

/** Aborts when the client of a request goes away. Behind a port node's response tells, and no second controller. */
export function stopWith(c: ApiRequest): AbortController {
  const stop = new AbortController();
  const tell = (): void => stop.abort(gone());
  const out = c.env?.outgoing;
  if (out) {
    const closed = (): void => {
      if (!out.writableFinished) tell();
    };
    if (out.destroyed) closed();
    else out.once('close', closed);
    return stop;
  }
  const { signal } = c.req.raw;
  if (signal.aborted) tell();
  signal.addEventListener('abort', tell, { once: true });
  return stop;
}

const nameOf = ({ event }: ServerEvent): string => (event === undefined ? '' : `event: ${event}\n`);
const written = (event: ServerEvent): string =>
  `${nameOf(event)}data: ${typeof event.data === 'string' ? event.data : JSON.stringify(event.data)}\n\n`;

/** Where a stream goes. */
interface Sink {
  write(text: string): void;
  /** The reader has not taken enough for more. */
  readonly full: boolean;
  /** Calls back when it has. */
  room(then: () => void): void;
  end(): void;
  /** The reader is given up. */
  drop(): void;
}

/** A reader that is slow is not read ahead of, and one that takes nothing is given up. */
async function pump(
  first: IteratorResult<ServerEvent, void>,
  events: AsyncGenerator<ServerEvent, void, void>,
  sink: Sink,
  stop: AbortController,
  failed: (error: unknown) => ServerEvent,
  stallMs: number,
): Promise<void> {
  const { signal } = stop;
  const room = (): Promise<void> =>
    new Promise((done) => {
      const stall = setTimeout(() => {
        sink.drop();
        stop.abort(gone());
      }, stallMs);
      const over = (): void => {
        clearTimeout(stall);
        signal.removeEventListener('abort', over);
        done();
      };
      signal.addEventListener('abort', over);
      if (signal.aborted) over();
      else sink.room(over);
    });
  let within = false;
  const writeLarge = async (event: ServerEvent): Promise<void> => {
    within = true;
    sink.write(`${nameOf(event)}data: `);
    for await (const part of jsonParts(event.data)) {
      if (sink.full) await room();
      if (signal.aborted) return;
      sink.write(part);
    }
    if (sink.full) await room();
    sink.write('\n\n');
    within = false;
  };
  const beat = setInterval(() => {
    if (!sink.full && !within) sink.write(': waiting\n\n');
  }, KEEPALIVE_MS);
  try {
    for (let got = first; !got.done && !signal.aborted; got = await events.next()) {
      const { value } = got;
      if (typeof value.data !== 'string' && isLarge(value.data)) await writeLarge(value);
      else sink.write(written(value));
      beat.refresh();
      if (sink.full) await room();
      else if (isLate()) await pause();
    }
  } catch (e) {
    if (!signal.aborted) sink.write(written(failed(e)));
  } finally {
    clearInterval(beat);
    void events.return().catch(() => {});
    sink.end();
  }
}

/**
 * What comes in one turn of the event loop leaves as one chunk, at the turn's end, or earlier where it is more than the
 * response takes at once.
 * @param out its head is written
 */
function nodeSink(out: ServerResponse): Sink {
  // Node hands a chunk to the socket in four pieces; framed here it is one string, and half the work.
  const framed = out.chunkedEncoding;
  if (framed) out.chunkedEncoding = false;
  let gathered = '';
  /** @param end it is the last */
  const take = (end = ''): readonly [text: string, encoding: BufferEncoding] => {
    const bytes = Buffer.byteLength(gathered);
    // Most text is ASCII, which needs no encoding.
    const encoding = bytes === gathered.length ? 'latin1' : 'utf8';
    const text = framed && bytes > 0 ? `${bytes.toString(16)}\r\n${gathered}\r\n${end}` : gathered + end;
    gathered = '';
    return [text, encoding];
  };
  const flush = (): void => {
    if (gathered !== '' && !out.destroyed) out.write(...take());
  };
  return {
    write(text) {
      if (gathered === '') process.nextTick(flush);
      gathered += text;
      if (gathered.length >= out.writableHighWaterMark) flush();
    },
    get full() {
      return out.writableNeedDrain;
    },
    room: (then) => void out.once('drain', then),
    end: () => void out.end(...take(framed ? '0\r\n\r\n' : '')),
    drop: () => void out.destroy(),
  };
}

/** Not behind a port: a body for whoever asked, a piece each time he asks. */
class WebSink implements Sink {
  readonly body: ReadableStream<Uint8Array>;
  full = false;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  #asked = (): void => {};

  constructor(cancelled: () => void) {
    this.body = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => {
          this.full = false;
          this.#asked();
        },
        cancel: () => {
          this.#controller = null;
          cancelled();
        },
      },
      { highWaterMark: 0 },
    );
  }
  write(text: string): void {
    this.full = true;
    this.#controller?.enqueue(encoder.encode(text));
  }
  room(then: () => void): void {
    this.#asked = then;
  }
  end(): void {
    this.#controller?.close();
    this.#controller = null;
  }
  drop(): void {
    this.#controller?.error(gone());
    this.#controller = null;
  }
}
const encoder = new TextEncoder();

/**
 * Answers a stream. The first event is waited for before anything is sent, so that what fails before it has a status of
 * its own; what fails later is told by `failed`, as a last event. Behind a port the answer has been sent when this
 * returns.
 * @param c       the request
 * @param stallMs how long a reader may take nothing
 */
export async function eventStream(
  c: Pick<ApiRequest, 'env'>,
  events: AsyncGenerator<ServerEvent, void, void>,
  stop: AbortController,
  failed: (error: unknown) => ServerEvent,
  stallMs = STALL_MS,
): Promise<Response> {
  const first = await events.next();
  const out = c.env?.outgoing;
  if (!out) {
    const sink = new WebSink(() => stop.abort(gone()));
    void pump(first, events, sink, stop, failed, stallMs);
    return new Response(sink.body, { headers: HEADERS });
  }
  out.on('error', () => {}); // of a socket that is gone: the request's signal tells
  out.writeHead(200, HEADERS);
  await pump(first, events, nodeSink(out), stop, failed, stallMs);
  // Made after the server's module had put a class of its own in place of node's, it would be sent once more, and end
  // the connection, unless its body was looked at.
  void RESPONSE_ALREADY_SENT.body;
  return RESPONSE_ALREADY_SENT;
}
