// Server-sent events, and the signal that says that a client has gone.
import type { ApiRequest } from './api.js';

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

const gone = (): DOMException => new DOMException('the client went away', 'AbortError');

/** Aborts when the client of a request goes away. */
export function stopWith(c: ApiRequest): AbortController {
  const stop = new AbortController();
  const { signal } = c.req.raw;
  const tell = (): void => stop.abort(gone());
  if (signal.aborted) tell();
  signal.addEventListener('abort', tell, { once: true });
  return stop;
}

const encoder = new TextEncoder();
function encoded({ event, data }: ServerEvent): Uint8Array {
  const name = event === undefined ? '' : `event: ${event}\n`;
  return encoder.encode(`${name}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
}

/**
 * Answers a stream. The first event is waited for before anything is sent, so that what fails before it has a status of
 * its own; what fails later is told by `failed`, as a last event. A reader that is slow is not read ahead of, and one
 * that reads nothing is given up.
 * @param stallMs how long it may read nothing
 */
export async function eventStream(
  events: AsyncGenerator<ServerEvent, void, void>,
  stop: AbortController,
  failed: (error: unknown) => ServerEvent,
  stallMs = STALL_MS,
): Promise<Response> {
  const first = await events.next();
  let next: Promise<IteratorResult<ServerEvent, void>> | null = Promise.resolve(first);
  let stall: NodeJS.Timeout | undefined;
  const giveUp = (): void => {
    clearTimeout(stall);
    stop.abort(gone());
    void events.return().catch(() => {});
  };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(stall);
        next ??= events.next();
        let timer: NodeJS.Timeout | undefined;
        try {
          const beat = new Promise<null>((tell) => {
            timer = setTimeout(tell, KEEPALIVE_MS, null);
          });
          const got = await Promise.race([next, beat]);
          if (got !== null) next = null;
          if (got?.done) {
            controller.close();
            return;
          }
          // It asks for more as soon as it has taken this.
          stall = setTimeout(() => {
            giveUp();
            controller.error(gone());
          }, stallMs);
          controller.enqueue(got === null ? encoder.encode(': waiting\n\n') : encoded(got.value));
        } catch (e) {
          if (!stop.signal.aborted) controller.enqueue(encoded(failed(e)));
          controller.close();
        } finally {
          clearTimeout(timer);
        }
      },
      cancel: giveUp,
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    },
  });
}
