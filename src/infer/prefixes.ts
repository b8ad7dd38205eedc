// Beginnings of prompts that are kept computed, each in a cache slot of its own; the least recently used makes room.
// Keys and values of full layers are pages that are shared, those of window layers a copy of their rings.
import type { KvCache } from '../model/kv-cache.js';
import type { ModelAdapter } from '../model/types.js';

/** Shorter prefixes are not worth a slot. */
const MIN_PREFIX_TOKENS = 32;

/** A prompt as it is computed. */
export interface Cut {
  readonly tokens: Int32Array;
  /** Where pieces of it end that others may share, ascending. */
  readonly cuts: readonly number[];
  readonly adapter: ModelAdapter | null;
}
interface Prefix extends Cut {
  readonly slot: number;
}

export class Prefixes {
  /** Least recently used first. */
  readonly #kept: Prefix[] = [];
  readonly #free: number[];

  /** @param slots of the cache, for prefixes alone */
  constructor(
    readonly cache: KvCache,
    slots: readonly number[],
  ) {
    this.#free = [...slots];
  }

  get count(): number {
    return this.#kept.length;
  }
  /** Cache slots that hold one. */
  get slots(): readonly number[] {
    return this.#kept.map((p) => p.slot);
  }

  /**
   * Lets `slot` go on from the longest kept prefix that ends at a cut of the prompt and was cut as the prompt is: it
   * has the bits that computing it would give. At least one token is left to run.
   * @returns its tokens, 0: there is none
   */
  take(slot: number, { tokens, cuts, adapter }: Cut): number {
    let best: Prefix | undefined;
    for (const p of this.#kept) {
      const length = p.tokens.length;
      if (p.adapter !== adapter || length >= tokens.length || length <= (best?.tokens.length ?? 0)) continue;
      if (cuts[p.cuts.length - 1] !== length || !p.cuts.every((c, i) => c === cuts[i])) continue;
      if (p.tokens.every((t, i) => t === tokens[i])) best = p;
    }
    if (!best) return 0;
    this.#kept.splice(this.#kept.indexOf(best), 1);
    this.#kept.push(best);
    this.cache.copy(best.slot, slot);
    return best.tokens.length;
  }
  /** Drops what was computed with an adapter. */
  forget(adapter: ModelAdapter): void {
    for (const prefix of this.#kept.filter((p) => p.adapter === adapter)) {
      this.#kept.splice(this.#kept.indexOf(prefix), 1);
      this.cache.reset(prefix.slot);
      this.#free.push(prefix.slot);
    }
  }
  /** Gives the least recently used one's room back. @returns whether there was one */
  drop(): boolean {
    const prefix = this.#kept.shift();
    if (!prefix) return false;
    this.cache.reset(prefix.slot);
    this.#free.push(prefix.slot);
    return true;
  }
  /** Keeps what `slot` holds: the prompt up to `length`, one of its cuts. */
  keep(slot: number, { tokens, cuts, adapter }: Cut, length: number): void {
    // The slot goes on in a page that is then shared: it needs another one.
    if (length < MIN_PREFIX_TOKENS || this.cache.freePages < 1) return;
    const upTo = cuts.slice(0, cuts.indexOf(length) + 1);
    const known = this.#kept.find(
      (p) =>
        p.adapter === adapter &&
        p.tokens.length === length &&
        p.cuts.length === upTo.length &&
        p.cuts.every((c, i) => c === upTo[i]) &&
        p.tokens.every((t, i) => t === tokens[i]),
    );
    if (known) return;
    if (this.#free.length === 0) this.drop();
    const to = this.#free.pop();
    if (to === undefined) return;
    this.cache.copy(slot, to);
    this.#kept.push({ slot: to, tokens: tokens.slice(0, length), cuts: upTo, adapter });
  }
}
