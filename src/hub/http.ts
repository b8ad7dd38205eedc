// Requests to a hub and to where it sends on: redirects followed by hand, so that the token goes to nobody else; faults
// that pass tried again, within a budget; silence ended. Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
import type { Readable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';
import { type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { ConfigError, HubError, TemperError } from '../base/errors.js';
import { parseJson } from '../base/json.js';
import { formatSeconds } from '../base/units.js';
import { type Proxies, proxiesOf, proxyVariable, refusedByProxy } from './proxy.js';
import { type HubSettings, mayHaveToken } from './settings.js';

const MAX_REDIRECTS = 10;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Most that an answer of the API may have, bytes. */
const API_BYTES = 64 * 2 ** 20;
const CONNECT_MS = 15_000;
const BACKOFF_MS = 300;
const MOST_BACKOFF_MS = 20_000;
/** A hub that asks for more patience than this is told to the user instead. */
const MOST_PATIENCE_MS = 300_000;

/** What the hub says of a file in headers of its own. */
export interface Told {
  readonly commit?: string;
  readonly etag?: string;
  readonly size?: string;
}
export interface Answer {
  readonly status: number;
  readonly body: Readable;
  /** Where the body comes from in the end. */
  readonly url: URL;
  header(name: string): string | undefined;
}
/** A fault that may pass. @param waitMs what the other side asks for */
export class PassingFault extends Error {
  constructor(
    message: string,
    readonly waitMs = 0,
    /** Another status than the one that was wanted. */
    readonly status = 0,
  ) {
    super(message);
  }
}

const isAbort = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

/** What a failed request says of itself, in a word; addresses may hold a signature and are left out. */
export function faultName(e: unknown): string {
  for (let at = e, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++)
    if ('code' in at && typeof at.code === 'string') return at.code;
  return e instanceof Error ? e.name : String(e);
}

/** Retry-After, in seconds or as a date; the hub's own `ratelimit` names the seconds until its next window. */
function askedWait(header: (name: string) => string | undefined): number {
  const after = header('retry-after')?.trim();
  const seconds =
    after === undefined
      ? Number(/(?:^|;)\s*t=(\d+)/.exec(header('ratelimit') ?? '')?.[1] ?? 0)
      : /^\d+$/.test(after)
        ? Number(after)
        : (Date.parse(after) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : 0;
}

export class HubClient {
  readonly dispatcher: Dispatcher;
  readonly isHttps: boolean;
  readonly #proxies: Proxies;
  /** @throws {ConfigError} hub_proxy */
  constructor(readonly settings: HubSettings) {
    this.isHttps = settings.endpoint.startsWith('https:');
    this.#proxies = proxiesOf();
    const { http, https } = this.#proxies;
    this.dispatcher = new EnvHttpProxyAgent({
      ...(http === undefined ? {} : { httpProxy: http }),
      ...(https === undefined ? {} : { httpsProxy: https }),
      connect: { timeout: CONNECT_MS },
      headersTimeout: settings.stallMs,
      bodyTimeout: settings.stallMs,
      keepAliveTimeout: 10_000,
    });
  }
  async close(): Promise<void> {
    await this.dispatcher.destroy();
  }

  /** The token never stands in what is said. */
  hide(text: string): string {
    const { token } = this.settings;
    return (token === null ? text : text.replaceAll(token, '…')).slice(0, 300);
  }
  urlOf(path: string): URL {
    return new URL(`${this.settings.endpoint}${path}`);
  }

  /** Why a request came to no answer. @returns {ConfigError} hub_proxy: the proxy wants to know who asks */
  unreached(url: URL, e: unknown): Error {
    const variable = proxyVariable(this.#proxies, url);
    const status = variable === null ? 0 : refusedByProxy(e);
    if (status === 407)
      return new ConfigError(
        'hub_proxy',
        `the proxy that ${variable} names wants a user and a password, or others (407); give them as ` +
          'http://USER:PASSWORD@HOST:PORT',
        { variable, status },
      );
    if (status > 0) return new PassingFault(`the proxy that ${variable} names refuses ${url.host} with ${status}`);
    const by = variable === null ? '' : `; ${variable} names a proxy`;
    return new PassingFault(`${url.host} cannot be reached (${faultName(e)}${by})`);
  }

  /**
   * One GET, along its redirects. Every status but a redirect is an answer.
   * @param onTold what the hub itself says, before what it says is followed; may throw
   * @throws {PassingFault} · {HubError} hub_answer: a redirect that must not be followed · the signal's reason
   */
  async get(
    from: URL,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
    onTold?: (told: Told) => void,
  ): Promise<Answer> {
    let url = from;
    for (let hops = 0; ; hops++) {
      signal?.throwIfAborted();
      const mine = mayHaveToken(this.settings, url);
      const { token, stallMs } = this.settings;
      let response: Dispatcher.ResponseData;
      try {
        response = await request(url, {
          dispatcher: this.dispatcher,
          headers: {
            'user-agent': 'temper-oss',
            'accept-encoding': 'identity',
            ...headers,
            ...(mine && token !== null ? { authorization: `Bearer ${token}` } : {}),
          },
          headersTimeout: stallMs,
          bodyTimeout: stallMs,
          ...(signal ? { signal } : {}),
        });
      } catch (e) {
        if (isAbort(signal)) throw signal?.reason;
        throw this.unreached(url, e);
      }
      const header = (name: string): string | undefined => {
        const value = response.headers[name];
        return Array.isArray(value) ? value[0] : value;
      };
      const { statusCode: status, body } = response;
      if (status < 400 && url.origin === new URL(this.settings.endpoint).origin)
        try {
          onTold?.(toldBy(header));
        } catch (e) {
          drop(body);
          throw e;
        }
      if (!REDIRECTS.has(status)) return { status, body, url, header };
      drop(body);
      url = this.#next(url, header('location'), hops);
    }
  }

  #next(from: URL, location: string | undefined, hops: number): URL {
    const refuse = (why: string): HubError =>
      new HubError('hub_answer', `${from.host}: redirects ${why}; nothing of it was used`, { host: from.host });
    if (location === undefined) throw refuse('to nowhere');
    if (hops >= MAX_REDIRECTS) throw refuse(`more than ${MAX_REDIRECTS} times`);
    let url: URL;
    try {
      url = new URL(location, from);
    } catch {
      throw refuse('to what is no address');
    }
    if (!/^https?:$/.test(url.protocol)) throw refuse(`to ${url.protocol}, wanted https`);
    if (from.protocol === 'https:' && url.protocol === 'http:') throw refuse('from https to http');
    url.username = '';
    url.password = '';
    return url;
  }

  /** A status that is no success: what the user must mend is thrown as that, the rest may pass. */
  async refusal(what: string, answer: Answer): Promise<unknown> {
    const { status, url, header } = answer;
    drop(answer.body);
    const own = url.origin === new URL(this.settings.endpoint).origin;
    const said = this.hide(header('x-error-message') ?? '').trim();
    const details = { what, status, host: url.host };
    if (own && (status === 401 || status === 403)) {
      const code = header('x-error-code');
      const { token } = this.settings;
      const why =
        code === 'GatedRepo'
          ? `is gated: ask for access at ${this.settings.endpoint}, then give a token of that account as HF_TOKEN`
          : token === null
            ? 'is not there, or is private and needs a token (HF_TOKEN, or `hf auth login`)'
            : mayHaveToken(this.settings, url)
              ? 'is not there, or the token that was given may not read it'
              : 'needs a token, which is not sent over http; use an https endpoint';
      return new ConfigError('hub_access', `${what}: ${why} (${status}${said ? `: ${said}` : ''})`, details);
    }
    if (own && status === 404) {
      const code = header('x-error-code');
      const missing = code === 'RevisionNotFound' ? 'has no such revision' : 'is not there';
      return new ConfigError('hub_not_found', `${what}: ${missing} (404${said ? `: ${said}` : ''})`, details);
    }
    const passes = status === 429 || status === 408 || status >= 500 || (!own && status >= 400);
    if (passes) return this.passingStatus(url, status, header);
    return new HubError('hub_answer', `${what}: ${url.host} answers ${status}${said ? `: ${said}` : ''}`, details);
  }

  passingStatus(url: URL, status: number, header: (name: string) => string | undefined): PassingFault {
    return new PassingFault(`${url.host} answers ${status}`, askedWait(header), status);
  }

  /**
   * Runs `once` until it succeeds, or has failed by faults that may pass as often as the budget says without bringing
   * anything. `once` calls `progressed` when it has.
   * @throws {HubError} hub_unreachable · what `once` throws · the signal's reason
   */
  async tried<T>(what: string, once: (progressed: () => void) => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (let failed = 0; ; ) {
      let moved = false;
      try {
        return await once(() => {
          moved = true;
        });
      } catch (e) {
        if (isAbort(signal)) throw signal?.reason;
        if (e instanceof TemperError || !(e instanceof PassingFault)) throw e;
        failed = moved ? 1 : failed + 1;
        const patience = e.waitMs <= MOST_PATIENCE_MS;
        if (failed > this.settings.retries || !patience)
          throw new HubError(
            'hub_unreachable',
            `${what}: ${this.hide(e.message)}${
              patience ? `, ${failed} times` : ` and asks to wait for ${formatSeconds(e.waitMs / 1000)}`
            }; what came is kept: run it again to go on`,
            { what, status: e.status, tries: failed },
          );
        const own = Math.min(MOST_BACKOFF_MS, BACKOFF_MS * 2 ** (failed - 1)) * (0.5 + Math.random() / 2);
        await pause(Math.max(own, e.waitMs), signal);
      }
    }
  }

  /** The JSON that the API answers, and its headers. @throws as tried · {ConfigError} hub_access, hub_not_found */
  json(
    what: string,
    url: URL,
    signal?: AbortSignal,
  ): Promise<{ readonly value: unknown; header(name: string): string | undefined }> {
    return this.tried(
      what,
      async () => {
        const answer = await this.get(url, { accept: 'application/json' }, signal);
        if (answer.status !== 200) throw await this.refusal(what, answer);
        const text = await this.#text(answer, signal);
        try {
          return { value: parseJson(text), header: answer.header };
        } catch {
          throw new HubError('hub_answer', `${what}: ${answer.url.host} answers what is no JSON; is it a hub?`, {
            host: answer.url.host,
          });
        }
      },
      signal,
    );
  }

  async #text({ body, url }: Answer, signal?: AbortSignal): Promise<string> {
    const pieces: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const piece of body as AsyncIterable<Buffer>) {
        bytes += piece.length;
        if (bytes > API_BYTES)
          throw new HubError('hub_answer', `${url.host}: answers more than ${API_BYTES} bytes of JSON`, {
            host: url.host,
          });
        pieces.push(piece);
      }
    } catch (e) {
      if (isAbort(signal)) throw signal?.reason;
      throw e instanceof TemperError ? e : new PassingFault(`${url.host} broke off (${faultName(e)})`);
    } finally {
      drop(body);
    }
    return Buffer.concat(pieces).toString('utf8');
  }
}

const toldBy = (header: (name: string) => string | undefined): Told => {
  const [commit, etag, size] = ['x-repo-commit', 'x-linked-etag', 'x-linked-size'].map(header);
  return {
    ...(commit === undefined ? {} : { commit }),
    ...(etag === undefined ? {} : { etag }),
    ...(size === undefined ? {} : { size }),
  };
};

/** Lets go of a body that is not wanted, however long it is. */
export function drop(body: Readable): void {
  body.on('error', () => {});
  body.destroy();
}
/** A body that broke off. */
export const brokeOff = (url: URL, e: unknown): PassingFault =>
  new PassingFault(`${url.host} broke off (${faultName(e)})`);

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await wait(ms, undefined, signal ? { signal } : {});
  } catch (e) {
    throw isAbort(signal) ? signal?.reason : e;
  }
}
