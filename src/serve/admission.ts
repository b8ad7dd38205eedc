// How many requests are under way. Who finds no place waits; who finds no place to wait is told so at once, before
// anything is computed for him. A place that becomes free goes to the highest priority, then to the key that has the
// fewest, then to who came first. One key cannot fill the queue against the others: when it is full, the newest of the
// key that waits with most makes room for one that waits with fewer.
import { ApiError } from './api-error.js';

export interface AdmissionLimits {
  /** Requests that run at once: the engine's slots. */
  readonly slots: number;
  /** Requests that may wait for one. */
  readonly queue: number;
  /** Longest wait, ms. */
  readonly queueMs: number;
}
/** Who wants a place. */
export interface Applicant {
  /** Name of its key. */
  readonly key: string;
  readonly priority: number;
}
interface Waiting extends Applicant {
  readonly enter: () => void;
  readonly leave: (reason: unknown) => void;
}
const NOBODY: Applicant = { key: '', priority: 0 };

export class Admission {
  #limits: AdmissionLimits;
  #running = 0;
  #closed = false;
  /** In the order of arrival. */
  readonly #waiting: Waiting[] = [];
  readonly #held = new Map<string, number>();
  #idle: (() => void)[] = [];
  /** Mean length of the last requests, s: what `Retry-After` goes by. */
  #seconds = 1;

  constructor(limits: AdmissionLimits) {
    this.#limits = limits;
  }
  get limits(): AdmissionLimits {
    return this.#limits;
  }
  /** Those who wait stay. */
  setQueue(queue: number, queueMs: number): void {
    this.#limits = { ...this.#limits, queue, queueMs };
  }

  get running(): number {
    return this.#running;
  }
  get waiting(): number {
    return this.#waiting.length;
  }
  #full(code: 'queue_full' | 'queue_timeout'): ApiError {
    const why = code === 'queue_full' ? 'too many requests wait' : 'no place became free in time';
    return new ApiError(429, 'rate_limit_error', code, `${why}; try again later`, null, this.retryAfter);
  }
  /** Seconds until somebody who comes now may have a place. */
  get retryAfter(): number {
    return Math.min(600, Math.max(1, Math.ceil((this.#seconds * (this.#waiting.length + 1)) / this.limits.slots)));
  }

  /** Whether who comes now would have a place, or one to wait in. @throws {ApiError} 429 queue_full · 503 draining */
  check(who: Applicant = NOBODY): void {
    if (this.#closed) throw new ApiError(503, 'server_error', 'draining', 'the server is stopping', null, 5);
    if (this.#running >= this.limits.slots && this.#isFull && !this.#victim(who)) throw this.#full('queue_full');
  }
  get #isFull(): boolean {
    return this.#waiting.length >= this.limits.queue;
  }
  /**
   * A place; to be given back by the function returned, which may be called again. Who is refused at once is told
   * before this returns; the promise rejects for who waited in vain.
   * @throws {ApiError} 429 queue_full, queue_timeout · 503 draining · the signal's reason
   */
  enter(signal: AbortSignal, who: Applicant = NOBODY): Promise<() => void> {
    signal.throwIfAborted();
    this.check(who);
    if (this.#running >= this.limits.slots) {
      if (this.#isFull) this.#victim(who)?.leave(this.#full('queue_full'));
      return this.#wait(signal, who).then(() => this.#place(who));
    }
    this.#running++;
    this.#count(who.key, 1);
    return Promise.resolve(this.#place(who));
  }
  /** @returns how it is given back */
  #place(who: Applicant): () => void {
    const since = performance.now();
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#seconds += 0.1 * ((performance.now() - since) / 1000 - this.#seconds);
      this.#leave(who);
    };
  }
  #count(key: string, n: number): void {
    const held = (this.#held.get(key) ?? 0) + n;
    if (held > 0) this.#held.set(key, held);
    else this.#held.delete(key);
  }
  /** Whoever waits with less right than `who`. */
  #victim({ key, priority }: Applicant): Waiting | undefined {
    const waits = new Map<string, number>();
    for (const w of this.#waiting) waits.set(w.key, (waits.get(w.key) ?? 0) + 1);
    const least = Math.min(priority, ...this.#waiting.map((w) => w.priority));
    const most = Math.max(0, ...this.#waiting.filter((w) => w.priority === least).map((w) => waits.get(w.key) ?? 0));
    if (least === priority && most < (waits.get(key) ?? 0) + 2) return undefined;
    return this.#waiting.findLast((w) => w.priority === least && waits.get(w.key) === most);
  }
  #wait(signal: AbortSignal, who: Applicant): Promise<void> {
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
        ...who,
        leave,
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
  #leave({ key }: Applicant): void {
    this.#count(key, -1);
    const rank = (w: Waiting): number => this.#held.get(w.key) ?? 0;
    let next: Waiting | undefined;
    for (const w of this.#waiting)
      if (!next || w.priority > next.priority || (w.priority === next.priority && rank(w) < rank(next))) next = w;
    if (next) {
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#count(next.key, 1);
      next.enter();
    } else this.#running--;
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
