// How long the server waits for a client: to send what it announced, and to take what it is answered.
import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** ms */
export interface Timeouts {
  /** A head that is not there by then is not coming. */
  readonly head: number;
  /** Head and body. */
  readonly request: number;
  /** A whole answer of which nothing is taken for so long is given up; streams see to it themselves (sse.ts). */
  readonly answer: number;
}
export const TIMEOUTS: Timeouts = { head: 10_000, request: 60_000, answer: 30_000 };
/** How often it is looked for those that are late. */
const CHECK_MS = 2000;

/** Of node:http, for what comes in. */
export const httpOptions = ({ head, request }: Timeouts) =>
  ({
    headersTimeout: head,
    requestTimeout: request,
    connectionsCheckingInterval: Math.min(CHECK_MS, head),
    maxHeaderSize: 16 << 10,
    requireHostHeader: false, // refused with the others that cannot be read (http-faults.ts)
  }) as const;

/** Gives up clients that do not take the rest of an answer that is all there: they would hold a connection for good. */
export function endSlowReaders(server: EventEmitter, { answer }: Timeouts): void {
  server.prependListener('request', (_: IncomingMessage, response: ServerResponse) => {
    // The socket counts from what it last wrote, and without a listener it is closed. What is kept alive counts anew.
    response.once('prefinish', () => response.setTimeout(answer));
  });
}
