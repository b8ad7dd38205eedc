// How often somebody may try to sign in: a handful at once from one address, then one every few seconds, and a bound
// for all addresses together. Guessing a key of 16 characters is hopeless anyway; this keeps the log and the store
// quiet.

interface Bucket {
  left: number;
  at: number;
}
const OWN = { most: 8, everyMs: 10_000 };
const ALL = { most: 100, everyMs: 500 };
/** Addresses that are remembered; the first ones go. */
const MOST = 10_000;

export class Attempts {
  readonly #own = new Map<string, Bucket>();
  readonly #all: Bucket;
  /** @param now for tests */
  constructor(readonly now: () => number = Date.now) {
    this.#all = { left: ALL.most, at: now() };
  }
  #fill(bucket: Bucket, { most, everyMs }: typeof OWN): Bucket {
    const now = this.now();
    bucket.left = Math.min(most, bucket.left + Math.max(0, now - bucket.at) / everyMs);
    bucket.at = now;
    return bucket;
  }
  /** @returns 0: tried; else seconds after which it may be tried again */
  take(address: string): number {
    const own = this.#own.get(address) ?? { left: OWN.most, at: this.now() };
    // The last who tried stands last.
    this.#own.delete(address);
    this.#own.set(address, own);
    if (this.#own.size > MOST) this.#own.delete(this.#own.keys().next().value as string);
    const both = [
      [this.#fill(own, OWN), OWN.everyMs],
      [this.#fill(this.#all, ALL), ALL.everyMs],
    ] as const;
    const waits = both.map(([b, everyMs]) => (b.left >= 1 ? 0 : Math.ceil(((1 - b.left) * everyMs) / 1000)));
    const wait = Math.max(...waits);
    if (wait === 0) for (const [b] of both) b.left--;
    return wait;
  }
  /** It was no guess. */
  giveBack(address: string): void {
    const own = this.#own.get(address);
    if (own) own.left = Math.min(OWN.most, own.left + 1);
    this.#all.left = Math.min(ALL.most, this.#all.left + 1);
  }
}
