// What keeps a failing judge from costing much: retries and hedges within a budget, and a breaker that blocks. Time is
// that of a monotonic clock: a clock that jumps changes nothing.

/** A share of the calls may be spent, and a few at the beginning. */
export class Budget {
  #left: number;
  /** Calls that were made of it. */
  spent = 0;
  constructor(
    readonly share: number,
    readonly most: number,
  ) {
    this.#left = most;
  }
  /** A call was made. */
  earn(): void {
    this.#left = Math.min(this.most, this.#left + this.share);
  }
  /** @returns whether one more may be made */
  spend(): boolean {
    if (this.#left < 1) return false;
    this.#left--;
    this.spent++;
    return true;
  }
}

/** Latencies of late, and what share of them is faster than. */
export class Latencies {
  readonly #ms: number[] = [];
  #next = 0;
  static readonly KEPT = 128;
  /** Fewer say nothing of a quantile. */
  static readonly ENOUGH = 20;
  add(ms: number): void {
    this.#ms[this.#next] = ms;
    this.#next = (this.#next + 1) % Latencies.KEPT;
  }
  /** null: too few were seen. */
  quantile(share: number): number | null {
    if (this.#ms.length < Latencies.ENOUGH) return null;
    const sorted = [...this.#ms].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number;
  }
}

/** Failed calls in a row that open it. */
export const BREAKER_FAILURES = 10;
const FIRST_REST_MS = 5_000;
const LONGEST_REST_MS = 60_000;

/** Open: nothing is asked, and so nothing is allowed. After a rest one call is let through to see. */
export class Breaker {
  #failures = 0;
  #openSince: number | null = null;
  #restMs = FIRST_REST_MS;
  #trying = false;
  #why = '';
  constructor(readonly now: () => number = () => performance.now()) {}

  get state(): 'closed' | 'half_open' | 'open' {
    if (this.#openSince === null) return 'closed';
    return this.#trying || this.#openSince + this.#restMs <= this.now() ? 'half_open' : 'open';
  }
  /** Why nothing may be asked now; null: it may, and `succeeded` or `failed` is to be told. */
  refuses(): string | null {
    if (this.#openSince === null) return null;
    const left = this.#openSince + this.#restMs - this.now();
    if (left <= 0 && !this.#trying) {
      this.#trying = true;
      return null;
    }
    const next = this.#trying ? 'one call is trying it' : `tried again in ${Math.max(1, Math.ceil(left / 1000))} s`;
    return `not asked, as its last ${this.#failures} calls failed (${this.#why}); ${next}`;
  }
  succeeded(): void {
    this.#failures = 0;
    this.#openSince = null;
    this.#trying = false;
    this.#restMs = FIRST_REST_MS;
  }
  failed(why: string): void {
    this.#failures++;
    this.#why = why;
    if (this.#openSince !== null && this.#trying) this.#restMs = Math.min(LONGEST_REST_MS, 2 * this.#restMs);
    else if (this.#failures < BREAKER_FAILURES) return;
    this.#trying = false;
    this.#openSince = this.now();
  }
  /** The call was stopped from outside: it says nothing. */
  stopped(): void {
    this.#trying = false;
  }
}

/**
 * Sends once, and once more if that takes longer than `delayMs` and `may` says so. The first good reply counts, and the
 * other request is ended; where none is good, the last one to end.
 */
export async function hedged<T>(
  send: (signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
  hedge: { readonly delayMs: number; readonly may: () => boolean; readonly good: (reply: T) => boolean } | null,
): Promise<T> {
  if (!hedge) return send(signal);
  const stops: AbortController[] = [];
  return new Promise<T>((resolve, reject) => {
    let open = 0;
    let timer: NodeJS.Timeout | undefined;
    const over = (settle: () => void): void => {
      clearTimeout(timer);
      settle();
      for (const stop of stops) stop.abort();
    };
    const start = (): void => {
      const stop = new AbortController();
      stops.push(stop);
      open++;
      send(AbortSignal.any([signal, stop.signal])).then(
        (reply) => {
          open--;
          if (hedge.good(reply) || open === 0) over(() => resolve(reply));
        },
        (error: unknown) => {
          open--;
          if (open === 0) over(() => reject(error));
        },
      );
    };
    start();
    timer = setTimeout(() => {
      if (open > 0 && hedge.may()) start();
    }, hedge.delayMs);
  });
}
