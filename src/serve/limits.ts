// What each key has used of what it may: requests and tokens of the last minute, requests at once. A key that has none
// left is told when it will have some, before anything is computed for it.
import { ApiError } from './api-error.js';
import type { ApiKey } from './keys.js';

/** Seconds. */
export type Clock = () => number;
const clock: Clock = () => performance.now() / 1000;

/** Fills at `perMinute`, to one minute's worth; may be overdrawn by what is known afterwards only. */
class Bucket {
  #level: number;
  #at: number;
  constructor(
    readonly perMinute: number,
    readonly now: Clock,
  ) {
    this.#level = perMinute;
    this.#at = now();
  }
  get level(): number {
    const now = this.now();
    this.#level = Math.min(this.perMinute, this.#level + ((now - this.#at) * this.perMinute) / 60);
    this.#at = now;
    return this.#level;
  }
  take(n: number): void {
    this.#level = this.level - n;
  }
  /** Seconds until the level is `wanted`. */
  wait(wanted: number): number {
    return Math.max(0, ((wanted - this.level) * 60) / this.perMinute);
  }
}

const refused = (code: string, what: string, seconds: number): ApiError =>
  new ApiError(
    429,
    'rate_limit_error',
    code,
    `${what}; try again later`,
    null,
    Math.min(600, Math.max(1, Math.ceil(seconds))),
  );

/** One key's. */
export class KeyUsage {
  running = 0;
  #key: ApiKey;
  #requests: Bucket | null = null;
  #tokens: Bucket | null = null;

  constructor(
    key: ApiKey,
    readonly now: Clock,
  ) {
    this.#key = key;
    this.update(key);
  }
  /** New limits; what was used counts on where a limit stayed. */
  update(key: ApiKey): void {
    this.#key = key;
    const { requestsPerMinute: requests, tokensPerMinute: tokens } = key;
    const bucket = (old: Bucket | null, perMinute: number | undefined): Bucket | null =>
      perMinute === undefined ? null : old?.perMinute === perMinute ? old : new Bucket(perMinute, this.now);
    this.#requests = bucket(this.#requests, requests);
    this.#tokens = bucket(this.#tokens, tokens);
  }
  /** Whether a request may begin. @throws {ApiError} 429 request_limit, token_limit, concurrency_limit */
  check(): void {
    const { concurrent, tokensPerMinute } = this.#key;
    if (this.full) throw refused('concurrency_limit', `this key may have ${concurrent} requests at once`, 1);
    if (this.#tokens && this.#tokens.level < 1)
      throw refused('token_limit', `this key may use ${tokensPerMinute} tokens a minute`, this.#tokens.wait(1));
    this.#requireRequest();
  }
  #requireRequest(): void {
    const { requestsPerMinute } = this.#key;
    if (this.#requests && this.#requests.level < 1)
      throw refused('request_limit', `this key may ask ${requestsPerMinute} times a minute`, this.#requests.wait(1));
  }
  /** A request begins, or waits to. @returns how it ends, which may be called again · @throws as `check` */
  begin(): () => void {
    this.check();
    this.#requests?.take(1);
    return this.hold();
  }
  /** A request that the model writes nothing for: it counts as one. @throws {ApiError} 429 request_limit */
  ask(): void {
    this.#requireRequest();
    this.#requests?.take(1);
  }
  /** It has as many at once as it may. */
  get full(): boolean {
    const { concurrent } = this.#key;
    return concurrent !== undefined && this.running >= concurrent;
  }
  /** One more runs, of a request that began. @returns how it ends, which may be called again */
  hold(): () => void {
    this.running++;
    let open = true;
    return () => {
      if (open) this.running--;
      open = false;
    };
  }
  /** Tokens are counted. */
  get countsTokens(): boolean {
    return this.#tokens !== null;
  }
  /** Tokens that a request used. */
  spend(tokens: number): void {
    this.#tokens?.take(tokens);
  }
}

/**
 * One request of a key, and its answers: it counts once, however many those are. Where the key may not have so many at
 * once, some of them wait for the others.
 */
export class Asking {
  #begun = false;
  /** Of its answers: those that run. */
  #open = 0;
  readonly #waiting: (() => void)[] = [];
  constructor(readonly usage: KeyUsage) {}

  get begun(): boolean {
    return this.#begun;
  }
  /**
   * An answer begins; the first is refused before this returns.
   * @returns how it ends, which may be called again · @throws as `begin` of its key · the signal's reason
   */
  enter(signal: AbortSignal): (() => void) | Promise<() => void> {
    if (this.#begun) return this.#open > 0 && this.usage.full ? this.#wait(signal) : this.#place(this.usage.hold());
    const end = this.usage.begin();
    this.#begun = true;
    return this.#place(end);
  }
  #place(end: () => void): () => void {
    this.#open++;
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      end();
      this.#open--;
      this.#waiting.shift()?.();
    };
  }
  #wait(signal: AbortSignal): Promise<() => void> {
    return new Promise((enter, fail) => {
      signal.throwIfAborted();
      const go = (): void => {
        signal.removeEventListener('abort', stop);
        enter(this.#place(this.usage.hold()));
      };
      const stop = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1);
        fail(signal.reason as Error);
      };
      this.#waiting.push(go);
      signal.addEventListener('abort', stop, { once: true });
    });
  }
}

export class Limits {
  readonly #usage = new Map<string, KeyUsage>();
  constructor(readonly now: Clock = clock) {}

  of(key: ApiKey): KeyUsage {
    let usage = this.#usage.get(key.name);
    if (!usage) {
      usage = new KeyUsage(key, this.now);
      this.#usage.set(key.name, usage);
    }
    usage.update(key);
    return usage;
  }
  /** Requests under way of each key that has any. */
  get running(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#usage].filter(([, u]) => u.running > 0).map(([name, u]) => [name, u.running]));
  }
}
