// How many requests are under way. Who finds no place waits in order of arrival; who finds no place to wait is told so
// at once, before anything is computed for him.
import { ApiError } from './api-error.js';

export interface AdmissionLimits {
  /** Requests that run at once: the engine's slots. */
  readonly slots: number;
  /** Requests that may wait for one. */
  readonly queue: number;
  /** Longest wait, ms. */
  readonly queueMs: number;
}
interface Waiting {
  readonly enter: () => void;
}

export class Admission {
  #running = 0;
  #closed = false;
  readonly #waiting: Waiting[] = [];
  #idle: (() => void)[] = [];
  /** Mean length of the last requests, s: what `Retry-After` goes by. */
  #seconds = 1;

  constructor(readonly limits: AdmissionLimits) {}

  get running(): number {
    return this.#running;
  }
  get waiting(): number {
    return this.#waiting.length;
  }
  get #retryAfter(): number {
    return Math.min(600, Math.max(1, Math.ceil((this.#seconds * (this.#waiting.length + 1)) / this.limits.slots)));
  }
  #full(code: 'queue_full' | 'queue_timeout'): ApiError {
    const why = code === 'queue_full' ? 'too many requests wait' : 'no place became free in time';
    return new ApiError(429, 'rate_limit_error', code, `${why}; try again later`, null, this.#retryAfter);
  }

  /**
   * A place; to be given back by the function returned, which may be called again.
   * @throws {ApiError} 429 queue_full, queue_timeout · 503 draining · the signal's reason
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#closed) throw new ApiError(503, 'server_error', 'draining', 'the server is stopping', null, 5);
    if (this.#running >= this.limits.slots) {
      if (this.#waiting.length >= this.limits.queue) throw this.#full('queue_full');
      await this.#wait(signal);
    } else this.#running++;
    const since = performance.now();
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#seconds += 0.1 * ((performance.now() - since) / 1000 - this.#seconds);
      this.#leave();
    };
  }
  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((enter, fail) => {
      const leave = (reason: unknown): void => {
        const at = this.#waiting.indexOf(place);
        if (at >= 0) this.#waiting.splice(at, 1);
        done();
        fail(reason);
        this.#tellIdle();
      };
      const aborted = (): void => leave(signal.reason);
      const timer = setTimeout(() => leave(this.#full('queue_timeout')), this.limits.queueMs);
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', aborted);
      };
      const place: Waiting = {
        enter: () => {
          done();
          enter();
        },
      };
      signal.addEventListener('abort', aborted, { once: true });
      this.#waiting.push(place);
    });
  }
  /** The place goes to the next who waits, so nobody who comes now gets in between. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next.enter();
    else this.#running--;
    this.#tellIdle();
  }
  #tellIdle(): void {
    if (this.#running + this.#waiting.length > 0) return;
    for (const tell of this.#idle.splice(0)) tell();
  }

  /** Nobody enters any more; resolves when those inside and those who waited are done. */
  drain(): Promise<void> {
    this.#closed = true;
    return new Promise((done) => {
      this.#idle.push(done);
      this.#tellIdle();
    });
  }
  get draining(): boolean {
    return this.#closed;
  }
}
