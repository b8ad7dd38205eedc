// The web server of a watched run: one page, and the events that fill it, to browsers of this machine alone. A page of
// another site reaches neither: not by a name that leads here (Host), not by a request of its own (Sec-Fetch-Site,
// Origin).
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ConfigError } from '../base/errors.js';
import type { RunFollower } from './follow.js';
import { watchPage } from './page.js';
import { viewOf } from './view.js';

const ADDRESS = '127.0.0.1';
export interface ServerLimits {
  /** How often the run is looked at while somebody watches, ms. */
  readonly pollMs: number;
  /** Pages that are open at a time. */
  readonly readers: number;
  /** A reader that takes nothing for so long is let go, ms. */
  readonly patienceMs: number;
}
export const LIMITS: ServerLimits = { pollMs: 500, readers: 32, patienceMs: 30_000 };
/** Something is sent at least so often, so that a connection that broke is noticed, ms. */
const SIGN_OF_LIFE_MS = 15_000;
/** How long readers get to take the last view when the server closes, ms. */
const GOODBYE_MS = 200;

/** A page that is open. What it has not taken yet is at most one view. */
interface Reader {
  readonly response: ServerResponse;
  /** The version it has; −1: none. */
  version: number;
  /** Its points are of this restart and generation, and so many of them stay as they are. */
  curves: string;
  points: number;
  /** Since when it takes nothing, ms; null: it does. */
  stuckSince: number | null;
  lastSent: number;
}

const HEADERS = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
} as const;

function refuse(response: ServerResponse, status: number, reason: string, more: Record<string, string> = {}): void {
  response.writeHead(status, { ...HEADERS, ...more, 'Content-Type': 'text/plain; charset=utf-8' });
  response.end(`${reason}\n`);
}

/** @returns why a request is not answered, or null */
function objection({ method, url, headers }: IncomingMessage, port: number): readonly [number, string] | null {
  const names = [`${ADDRESS}:${port}`, `localhost:${port}`, ...(port === 80 ? [ADDRESS, 'localhost'] : [])];
  if (!names.includes((headers.host ?? '').toLowerCase())) return [421, `this server is http://${ADDRESS}:${port}/`];
  const site = headers['sec-fetch-site'];
  const foreign = site !== undefined && site !== 'same-origin' && site !== 'none';
  // A link to the page may be followed from anywhere; nothing else may be asked for from elsewhere.
  const followed = url === '/' && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
  const { origin } = headers;
  if ((foreign && !followed) || (origin !== undefined && !names.some((n) => origin === `http://${n}`)))
    return [403, 'another site may not ask'];
  if (method !== 'GET') return [405, 'GET only'];
  if (url !== '/' && url !== '/events') return [404, 'nothing is here'];
  return null;
}

export class WatchServer {
  readonly #readers = new Set<Reader>();
  readonly #page = watchPage();
  readonly #server: Server;
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | null = null;
  port = 0;

  constructor(
    readonly follower: RunFollower,
    readonly limits: ServerLimits = LIMITS,
  ) {
    this.#server = createServer({ requestTimeout: 10_000, headersTimeout: 5000, keepAliveTimeout: 5000 }, (q, r) =>
      this.#answer(q, r),
    );
    this.#server.maxConnections = 4 * limits.readers;
  }
  get readers(): number {
    return this.#readers.size;
  }

  /** @param port 0: one that is free. @throws {ConfigError} port_unusable */
  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (e: NodeJS.ErrnoException) => {
        const next = port === 0 ? '' : '; choose another --port, or leave it out for one that is free';
        const why = e.code === 'EADDRINUSE' ? 'another program has it (EADDRINUSE)' : (e.code ?? e.message);
        const message = `${ADDRESS}:${port}: nobody can be answered there: ${why}${next}`;
        reject(new ConfigError('port_unusable', message, { port, code: e.code }, { cause: e }));
      });
      this.#server.listen(port, ADDRESS, resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
    this.#timer = setInterval(() => void this.#tick(), this.limits.pollMs);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const refused = objection(request, this.port);
    if (refused) {
      refuse(response, ...refused, refused[0] === 405 ? { Allow: 'GET' } : {});
      return;
    }
    if (request.url === '/') {
      response.writeHead(200, {
        ...HEADERS,
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': this.#page.policy,
      });
      response.end(this.#page.text);
      return;
    }
    if (this.#readers.size >= this.limits.readers) {
      refuse(response, 503, 'too many pages watch this run', { 'Retry-After': '10' });
      return;
    }
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream; charset=utf-8', Connection: 'close' });
    response.write('retry: 2000\n\n');
    const now = performance.now();
    const reader: Reader = { response, version: -1, curves: '', points: 0, stuckSince: null, lastSent: now };
    this.#readers.add(reader);
    response.on('close', () => this.#readers.delete(reader));
    response.on('error', () => this.#readers.delete(reader));
    response.on('drain', () => {
      reader.stuckSince = null;
      this.#send(reader);
    });
    void this.#tick();
  }

  /** Looks at the run, if anybody watches, and tells each reader what it does not know. */
  async #tick(): Promise<void> {
    if (this.#readers.size === 0) return;
    this.#polling ??= this.follower
      .poll()
      .catch(() => {}) // what cannot be read now is looked at again
      .finally(() => {
        this.#polling = null;
      });
    await this.#polling;
    for (const reader of this.#readers) this.#send(reader);
  }

  #send(reader: Reader): void {
    const now = performance.now();
    if (reader.stuckSince !== null) {
      if (now - reader.stuckSince > this.limits.patienceMs) reader.response.destroy();
      return;
    }
    const { version, restarts, curves } = this.follower;
    if (reader.version === version) {
      if (now - reader.lastSent > SIGN_OF_LIFE_MS) this.#write(reader, ':\n\n');
      return;
    }
    const of = `${restarts}:${curves.generation}`;
    const from = reader.curves === of ? reader.points : 0;
    reader.version = version;
    reader.curves = of;
    // The last point may still grow.
    reader.points = Math.max(0, curves.points.length - 1);
    this.#write(reader, `event: view\ndata: ${JSON.stringify(viewOf(this.follower, from))}\n\n`);
  }
  #write(reader: Reader, text: string): void {
    reader.lastSent = performance.now();
    if (!reader.response.write(text)) reader.stuckSince = reader.lastSent;
  }

  /** Readers get what there is to be told, as far as they take it at once. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#tick();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const { response } of this.#readers) response.end();
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), GOODBYE_MS);
    await closed;
    clearTimeout(timer);
    await this.follower.close();
  }
}
