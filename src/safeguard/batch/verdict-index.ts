// Where verdicts stand in files, by what they are verdicts on: 64 bits of that, and a place. Two verdicts whose 64 bits
// are equal are taken for one on the same; whoever reads the line sees whether it is.
import type { Verdict } from '../types.js';

export type Asked = Pick<Verdict, 'policy' | 'channel' | 'digests'>;
/** Places of one file, bytes: 16 TiB; 512 files in the 53 bits of a number. */
const FILE = 2 ** 44;
const EMPTY = -1;

/** FNV-1a over UTF-16 code units. */
function hashOf(text: string, seed: number): number {
  let h = seed;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

const DIGESTS: ReadonlySet<string> = new Set(['policy', 'content', 'judge', 'judging', 'detectors']);
/** Whether all but text and detectors is the same, as far as that is seen at once. */
function isAlike(a: Asked, b: Asked): boolean {
  if (a.policy !== b.policy || a.channel !== b.channel) return false;
  const [own, other] = [a.digests, b.digests];
  if (own.policy !== other.policy || own.judge !== other.judge || own.judging !== other.judging) return false;
  for (const name in own) if (!DIGESTS.has(name)) return false;
  for (const name in other) if (!DIGESTS.has(name)) return false;
  return true;
}

export class VerdictIndex {
  #places = new Float64Array(1024).fill(EMPTY);
  #low = new Uint32Array(1024);
  #high = new Uint32Array(1024);
  /** Policy, channel and judge are the same for many: hashed once. */
  readonly #heads = new Map<string, readonly [number, number]>();
  size = 0;

  /** The one that was asked for last, as most are the same as that, and its hash. */
  #last: Asked | null = null;
  #lastHead: readonly [number, number] = [0, 0];

  #headOf(asked: Asked): readonly [number, number] {
    if (this.#last && isAlike(asked, this.#last)) return this.#lastHead;
    const { policy, channel, digests } = asked;
    const { content: _, detectors: __, ...who } = digests;
    const head = JSON.stringify([policy, channel, who]);
    let hashed = this.#heads.get(head);
    if (!hashed) {
      hashed = [hashOf(head, 0x811c9dc5), hashOf(head, 0x5bd1e995)];
      if (this.#heads.size < 4096) this.#heads.set(head, hashed);
    }
    [this.#last, this.#lastHead] = [asked, hashed];
    return hashed;
  }
  #hash(asked: Asked): readonly [number, number] {
    const hashed = this.#headOf(asked);
    const { content } = asked.digests;
    // Of half a digest as well, as one hash of two seeds is not two.
    return [hashOf(content, hashed[0]), hashOf(content.slice(32), hashed[1])];
  }
  /** Slot of the key, or the empty one where it would be. */
  #slot(low: number, high: number): number {
    const mask = this.#places.length - 1;
    for (let slot = low & mask; ; slot = (slot + 1) & mask)
      if (this.#places[slot] === EMPTY || (this.#low[slot] === low && this.#high[slot] === high)) return slot;
  }
  #grow(): void {
    const [places, low, high] = [this.#places, this.#low, this.#high];
    const slots = 2 * places.length;
    [this.#places, this.#low, this.#high] = [
      new Float64Array(slots).fill(EMPTY),
      new Uint32Array(slots),
      new Uint32Array(slots),
    ];
    for (let i = 0; i < places.length; i++) {
      if (places[i] === EMPTY) continue;
      const slot = this.#slot(low[i] as number, high[i] as number);
      [this.#places[slot], this.#low[slot], this.#high[slot]] = [
        places[i] as number,
        low[i] as number,
        high[i] as number,
      ];
    }
  }

  /** The later of two on the same stands. */
  set(asked: Asked, file: number, at: number): void {
    if (this.size > 0.6 * this.#places.length) this.#grow();
    const [low, high] = this.#hash(asked);
    const slot = this.#slot(low, high);
    if (this.#places[slot] === EMPTY) this.size++;
    [this.#places[slot], this.#low[slot], this.#high[slot]] = [file * FILE + at, low, high];
  }
  get(asked: Asked): { readonly file: number; readonly at: number } | undefined {
    if (this.size === 0) return undefined;
    const place = this.#places[this.#slot(...this.#hash(asked))] as number;
    return place === EMPTY ? undefined : { file: Math.floor(place / FILE), at: place % FILE };
  }
}
