// Openings of prompts that are kept computed, each in a cache slot of its own; the least recently used makes room.
import type { KvCache } from '../model/kv-cache.js';
import type { ModelAdapter } from '../model/types.js';

/** Shorter prefixes are not worth a slot. */
const MIN_PREFIX_TOKENS = 32;

interface Prefix {
  readonly slot: number;
  readonly tokens: Int32Array;
  readonly adapter: ModelAdapter | null;
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

  /** Lets `slot` go on from the kept prefix tokens[0…length). @returns whether there is one */
  take(slot: number, tokens: Int32Array, length: number, adapter: ModelAdapter | null): boolean {
    const at = this.#kept.findIndex(
      (p) => p.adapter === adapter && p.tokens.length === length && p.tokens.every((t, i) => t === tokens[i]),
    );
    const [prefix] = at >= 0 ? this.#kept.splice(at, 1) : [];
    if (!prefix) return false;
    this.#kept.push(prefix);
    this.cache.copy(prefix.slot, slot);
    return true;
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
  /** Keeps what `slot` holds: tokens[0…length). */
  keep(slot: number, tokens: Int32Array, length: number, adapter: ModelAdapter | null): void {
    // The slot goes on in a page that is then shared: it needs another one.
    if (length < MIN_PREFIX_TOKENS || this.cache.freePages < 1) return;
    if (this.#free.length === 0) this.drop();
    const to = this.#free.pop();
    if (to === undefined) return;
    this.cache.copy(slot, to);
    this.#kept.push({ slot: to, tokens: tokens.slice(0, length), adapter });
  }
}
