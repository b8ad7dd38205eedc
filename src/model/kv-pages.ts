// Which pages of the cache hold which tokens. A page is PAGE_TOKENS tokens of every full layer; a sequence takes pages
// as it grows. What sequences have in common they share: a page goes back when the last of them lets go, and whoever
// writes to a page that others read gets one of its own first. Numbers only: the memory is kv-cache.ts's.
import { NativeError } from '../base/errors.js';

/** A whole block of keys of every backend's attention. */
export const PAGE_TOKENS = 64;
export const pagesFor = (tokens: number): number => Math.ceil(tokens / PAGE_TOKENS);

/** What a page must get before it is written to: the first `tokens` tokens of the one that is shared. */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
}

export class PageTable {
  /** Pages of a sequence that is as long as it may be. */
  readonly perSequence: number;
  /** [sequences, perSequence] */
  readonly #pages: Int32Array;
  /** Of each sequence: pages it holds, tokens written, tokens it was promised room for (0: no promise). */
  readonly #held: Int32Array;
  readonly #lengths: Int32Array;
  readonly #promised: Int32Array;
  /** Sequences that hold a page. */
  readonly #holders: Int32Array;
  readonly #returned: number[] = [];
  #touched = 0;
  #laidOut = new Int32Array(0);

  /** @param capacity most tokens of a sequence · @param limit pages of all together */
  constructor(
    readonly sequences: number,
    readonly capacity: number,
    readonly limit: number,
  ) {
    this.perSequence = pagesFor(capacity);
    this.#pages = new Int32Array(sequences * this.perSequence);
    this.#held = new Int32Array(sequences);
    this.#lengths = new Int32Array(sequences);
    this.#promised = new Int32Array(sequences);
    this.#holders = new Int32Array(limit);
  }

  /** Tokens of each sequence. */
  get lengths(): Int32Array {
    return this.#lengths.slice();
  }
  length(slot: number): number {
    return this.#lengths[slot] ?? 0;
  }
  /** All pages from here on were never used. */
  get touched(): number {
    return this.#touched;
  }
  get used(): number {
    return this.#touched - this.#returned.length;
  }
  /** Pages that are neither in use nor promised. */
  get free(): number {
    let owed = 0;
    for (let slot = 0; slot < this.sequences; slot++) owed += this.#owed(slot);
    return this.limit - this.used - owed;
  }

  /** Keeps room for `slot` to grow to `tokens` tokens, until it is cut. @returns whether there is room */
  promise(slot: number, tokens: number): boolean {
    const before = this.#promised[slot] ?? 0;
    this.#promised[slot] = Math.min(tokens, this.capacity);
    if (this.free >= 0) return true;
    this.#promised[slot] = before;
    return false;
  }

  /**
   * Takes the pages for `tokens` tokens. They stay the slot's if the pass that was to fill them fails.
   * @returns what to copy before they are written
   * @throws {NativeError} cache_full
   */
  grow(slot: number, tokens: number): PageCopy | null {
    const length = this.length(slot);
    if (tokens > this.capacity)
      throw new NativeError(
        'cache_full',
        `KvCache: slot ${slot} holds ${length} tokens and gets ${tokens - length} more, capacity is ` +
          `${this.capacity}; make the cache larger or the text shorter`,
      );
    const shared = tokens > length && this.#sharesTail(slot);
    const need = Math.max(0, pagesFor(tokens) - this.#heldBy(slot)) + (shared ? 1 : 0);
    if (need > 0) this.#require(need, this.free + this.#owed(slot), slot);
    let copy: PageCopy | null = null;
    if (shared) {
      const at = this.#at(slot, length),
        from = this.#pages[at] ?? 0,
        to = this.#take();
      this.#letGo(from);
      this.#pages[at] = to;
      copy = { from, to, tokens: length % PAGE_TOKENS };
    }
    for (let i = this.#heldBy(slot); i < pagesFor(tokens); i++) {
      this.#pages[slot * this.perSequence + i] = this.#take();
      this.#held[slot] = i + 1;
    }
    return copy;
  }
  /** Tokens up to `length` are written. */
  advance(slot: number, length: number): void {
    this.#lengths[slot] = length;
  }
  /** Forgets all tokens from `length` on, and the slot's promise. */
  cut(slot: number, length: number): void {
    for (let i = pagesFor(length); i < this.#heldBy(slot); i++)
      this.#letGo(this.#pages[slot * this.perSequence + i] ?? 0);
    this.#held[slot] = Math.min(this.#heldBy(slot), pagesFor(length));
    this.#lengths[slot] = length;
    this.#promised[slot] = 0;
  }
  /**
   * Slot `to` reads from now on all that `from` holds; its promise stays.
   * @throws {NativeError} cache_full: then it is empty and has none
   */
  share(from: number, to: number): void {
    if (from === to) return;
    const promised = this.#promised[to] ?? 0,
      length = this.length(from),
      held = pagesFor(length);
    this.cut(to, 0);
    this.#promised[to] = promised;
    for (let i = 0; i < held; i++) {
      const page = this.#pages[from * this.perSequence + i] ?? 0;
      this.#pages[to * this.perSequence + i] = page;
      this.#holders[page] = (this.#holders[page] ?? 0) + 1;
    }
    this.#held[to] = held;
    this.#lengths[to] = length;
    if (this.free >= 0) return;
    const room = this.free + 1;
    this.cut(to, 0);
    this.#require(1, room, from); // whoever writes next needs a page of its own, and all are promised
  }

  /** Row of the cache that holds token `position`. */
  row(slot: number, position: number): number {
    return (this.#pages[this.#at(slot, position)] ?? 0) * PAGE_TOKENS + (position % PAGE_TOKENS);
  }
  /** Numbers of the pages that a slot holds. */
  pagesOf(slot: number): readonly number[] {
    const from = slot * this.perSequence;
    return [...this.#pages.subarray(from, from + this.#heldBy(slot))];
  }
  /** The first `columns` pages of each of these: [slots.length, columns]. Good until the next call. */
  table(slots: readonly number[], columns: number): Int32Array {
    if (this.#laidOut.length !== slots.length * columns) this.#laidOut = new Int32Array(slots.length * columns);
    const out = this.#laidOut;
    slots.forEach((slot, b) => {
      const from = slot * this.perSequence;
      out.set(this.#pages.subarray(from, from + columns), b * columns);
    });
    return out;
  }

  #at(slot: number, position: number): number {
    return slot * this.perSequence + Math.floor(position / PAGE_TOKENS);
  }
  #heldBy(slot: number): number {
    return this.#held[slot] ?? 0;
  }
  /** Whether the page that the next token goes to has tokens that another sequence reads. */
  #sharesTail(slot: number): boolean {
    const length = this.length(slot);
    return length % PAGE_TOKENS > 0 && (this.#holders[this.#pages[this.#at(slot, length)] ?? 0] ?? 0) > 1;
  }
  /** Pages that a slot may still take of what it was promised. */
  #owed(slot: number): number {
    const promised = this.#promised[slot] ?? 0;
    if (promised <= this.length(slot)) return 0;
    return Math.max(0, pagesFor(promised) - this.#heldBy(slot)) + (this.#sharesTail(slot) ? 1 : 0);
  }
  #require(need: number, room: number, slot: number): void {
    if (need > room)
      throw new NativeError(
        'cache_full',
        `KvCache: slot ${slot} needs ${need} more pages of ${PAGE_TOKENS} tokens, ${Math.max(0, room)} of ` +
          `${this.limit} are free; end a sequence or make the cache larger`,
        { need, room, limit: this.limit },
      );
  }
  #take(): number {
    const page = this.#returned.pop() ?? this.#touched++;
    this.#holders[page] = 1;
    return page;
  }
  #letGo(page: number): void {
    const left = (this.#holders[page] ?? 0) - 1;
    this.#holders[page] = left;
    if (left === 0) this.#returned.push(page);
  }
}
