// Beginnings of prompts that are kept computed, each in a cache slot of its own; the least recently used makes room.
// Openings, which end at the first cut, are many requests', ends of conversations one user's: neither kind takes the
// other's half of the slots. What grows is kept to its end, and others go on from where they differ.
// Keys and values of full layers are pages that are shared, those of window layers a copy of their rings.
import type { KvCache, SlotRows } from '../model/kv-cache.js';
import type { ModelAdapter } from '../model/types.js';

/** Shorter prefixes are not worth a slot. */
export const MIN_PREFIX_TOKENS = 32;

/** A prompt as it is computed. */
export interface Cut {
  readonly tokens: Int32Array;
  /** Where pieces of it end that others may share, ascending. */
  readonly cuts: readonly number[];
  /** The cut that ends its opening; 0: it has none. */
  readonly opening: number;
  readonly adapter: ModelAdapter | null;
  /** After its last cut a token has the same bits in any piece. */
  readonly growing?: boolean;
}
/** One that is kept. */
export interface Prefix extends Cut {
  readonly slot: number;
}

export const isOpening = ({ tokens, opening }: Cut): boolean => tokens.length === opening;

const sameCuts = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((c, i) => c === b[i]);
/** Tokens that both begin with, one less than the prompt has at the most. */
function common({ tokens }: Prefix, prompt: Int32Array): number {
  const most = Math.min(tokens.length, prompt.length - 1);
  let n = 0;
  while (n < most && tokens[n] === prompt[n]) n++;
  return n;
}

export class Prefixes {
  /** Least recently used first. */
  readonly #kept: Prefix[] = [];
  readonly #free: number[];
  /** Told of each that was computed and is kept from now on. */
  onKept: (prefix: Prefix) => void = () => {};

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
  /** How many there may be. */
  get most(): number {
    return this.#kept.length + this.#free.length;
  }
  /** Cache slots that hold one. */
  get slots(): readonly number[] {
    return this.#kept.map((p) => p.slot);
  }

  /**
   * Lets `slot` go on from the longest kept prefix that ends at a cut of the prompt and was cut as the prompt is, or
   * from what the prompt has grown from: it has the bits that computing it would give. At least one token is left to
   * run.
   * @returns its tokens, 0: there is none
   */
  take(slot: number, cut: Cut): number {
    const { tokens, cuts, adapter } = cut;
    let best: Prefix | undefined,
      most = 0;
    for (const p of this.#kept) {
      const length = !p.growing ? p.tokens.length : sameCuts(p.cuts, cuts) ? this.#grown(p, cut) : 0;
      if (p.adapter !== adapter || length >= tokens.length || length <= most) continue;
      if (!p.growing) {
        if (cuts[p.cuts.length - 1] !== length || !p.cuts.every((c, i) => c === cuts[i])) continue;
        if (!p.tokens.every((t, i) => t === tokens[i])) continue;
      }
      [best, most] = [p, length];
    }
    if (!best) return 0;
    this.#kept.splice(this.#kept.indexOf(best), 1);
    this.#kept.push(best);
    this.cache.copy(best.slot, slot);
    if (most < best.tokens.length) this.cache.rewind(slot, most);
    return most;
  }
  /** Tokens of a kept prompt that another goes on from; 0: it has not grown from that. */
  #grown(p: Prefix, { tokens, adapter, growing }: Cut): number {
    if (!growing || p.adapter !== adapter) return 0;
    const same = common(p, tokens),
      back = p.tokens.length - same;
    // More of it is its own than is taken back: it is no other one of the same opening.
    return same - (p.cuts.at(-1) ?? 0) > back && back <= this.cache.lookahead ? same : 0;
  }
  /** Drops what was computed with an adapter. */
  forget(adapter: ModelAdapter): void {
    for (const prefix of this.#kept.filter((p) => p.adapter === adapter)) this.#let(prefix);
  }
  /** Gives the least recently used one's room back. @returns whether there was one */
  drop(): boolean {
    const [prefix] = this.#kept;
    this.#let(prefix);
    return prefix !== undefined;
  }
  #let(prefix: Prefix | undefined): void {
    if (!prefix) return;
    this.#kept.splice(this.#kept.indexOf(prefix), 1);
    this.cache.reset(prefix.slot);
    this.#free.push(prefix.slot);
  }
  /** Keeps what `slot` holds: the prompt up to `length`, one of its cuts. */
  keep(slot: number, { tokens, cuts, opening, adapter }: Cut, length: number): void {
    // The slot goes on in a page that is then shared: it needs another one.
    if (length < MIN_PREFIX_TOKENS || this.cache.freePages < 1) return;
    const upTo = cuts.slice(0, cuts.indexOf(length) + 1);
    const prefix = { tokens: tokens.slice(0, length), cuts: upTo, opening, adapter };
    if (this.has(prefix)) return;
    const to = this.#slot(isOpening(prefix));
    if (to === undefined) return;
    this.cache.copy(slot, to);
    const kept = { slot: to, ...prefix };
    this.#kept.push(kept);
    this.onKept(kept);
  }
  /** Keeps all that `slot` holds, a prompt that others grow from, in the place of what that has grown from. */
  keepGrowing(slot: number, cut: Cut): void {
    if (this.cache.lookahead === 0 || this.cache.freePages < 1) return;
    for (const p of this.#kept.filter((p) => p.growing && this.#grown(p, cut) > 0)) this.#let(p);
    const to = this.#slot(false);
    if (to === undefined) return;
    this.cache.copy(slot, to);
    this.#kept.push({ slot: to, ...cut });
  }
  /** undefined: there is none for it. */
  #slot(opening: boolean): number | undefined {
    if (this.#free.length === 0) {
      const half = Math.floor(this.#kept.length / 2),
        ends = this.#kept.filter((p) => !isOpening(p)).length;
      const others = this.#kept.filter((p) => isOpening(p) === (opening ? ends <= half : ends < half));
      this.#let(others[0]);
    }
    return this.#free.pop();
  }
  /** Whether just that is kept. */
  has({ tokens, cuts, adapter }: Cut): boolean {
    return this.#kept.some(
      (p) =>
        !p.growing &&
        p.adapter === adapter &&
        p.tokens.length === tokens.length &&
        p.cuts.length === cuts.length &&
        p.cuts.every((c, i) => c === cuts[i]) &&
        p.tokens.every((t, i) => t === tokens[i]),
    );
  }
  /** Where its keys and values lie; null: it is kept no more. */
  rowsOf(prefix: Prefix): readonly SlotRows[] | null {
    return this.#kept.includes(prefix) ? this.cache.rowsOf(prefix.slot) : null;
  }
  /**
   * Keeps what was computed elsewhere, where there is room.
   * @param write puts its keys and values into these rows · @returns whether it is kept
   */
  put(prefix: Cut, write: (rows: readonly SlotRows[]) => void): boolean {
    if (this.has(prefix)) return true;
    const { cache } = this,
      length = prefix.tokens.length;
    // Requests that were promised pages come first; other prefixes are not worth more than this one.
    while (cache.freePages < cache.pagesFor(length)) if (!this.drop()) return false;
    const slot = this.#slot(isOpening(prefix));
    if (slot === undefined) return false;
    try {
      cache.fill(slot, length);
      write(cache.rowsOf(slot));
    } catch (e) {
      cache.reset(slot);
      this.#free.push(slot);
      throw e;
    }
    this.#kept.push({ slot, ...prefix });
    return true;
  }
}
