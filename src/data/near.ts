// Rows that say nearly the same: MinHash signatures over shingles of three words, found by bands of them
// (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.3–3.4). Of each value of a signature 8 bits
// are kept (Li, König: b-Bit Minwise Hashing, 2010): 200 bytes a row with the chains of its bands.

/** Values of a signature, cut into bands of so many: four bytes, one word. */
const SIZE = 64;
const BANDS = SIZE / 4;
const WORDS = 3;
/** Shingles of a row that are looked at, from its beginning. */
const MOST_SHINGLES = 65_536;
/** Estimated share of common shingles from which on two rows are nearly the same. */
export const NEAR = 0.8;

const ROLES_APART: ReadonlySet<unknown> = new Set(['system', 'developer']);
const FIELDS_APART: ReadonlySet<string> = new Set(['tools', 'system', 'role', 'from', 'id', 'reasoning_effort']);

/** What a row says, without what many rows share: system prompts, tools, names of roles. */
export function saidIn(value: unknown): string {
  const out: string[] = [];
  const walk = (v: unknown): void => {
    if (typeof v === 'string') out.push(v);
    else if (Array.isArray(v)) {
      if (v.length > 0 && v.every((x) => typeof x === 'number')) out.push(v.join(' '));
      else for (const x of v) walk(x);
    } else if (typeof v === 'object' && v !== null) {
      const { role, from } = v as { readonly role?: unknown; readonly from?: unknown };
      if (ROLES_APART.has(role) || ROLES_APART.has(from)) return;
      for (const [k, x] of Object.entries(v)) if (!FIELDS_APART.has(k)) walk(x);
    }
  };
  walk(value);
  return out.join('\n');
}

const FACTORS = Array.from({ length: SIZE }, (_, i) => (Math.imul(i + 1, 0x9e3779b1) | 1) >>> 0);
function hashOf(words: readonly string[], from: number): number {
  let h = 0x811c9dc5;
  for (let k = 0; k < WORDS; k++) {
    const word = words[from + k] ?? '';
    for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 0x01000193);
    h = Math.imul(h ^ 0x20, 0x01000193);
  }
  h ^= h >>> 15;
  h = Math.imul(h, 0x85ebca6b);
  return (h ^ (h >>> 13)) >>> 0;
}

const WORD = /[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu;
/** The least hash of all shingles, under 64 hash functions: 8 bits of each. */
export function signatureOf(text: string): Uint8Array {
  const words: string[] = [];
  for (const [word] of text.matchAll(WORD)) if (words.push(word.toLowerCase()) === MOST_SHINGLES + WORDS - 1) break;
  const least = new Uint32Array(SIZE).fill(0xffffffff);
  const count = Math.max(1, words.length - WORDS + 1);
  for (let s = 0; s < count; s++) {
    const h = hashOf(words, s);
    for (let i = 0; i < SIZE; i++) {
      let v = Math.imul(h ^ (h >>> 16), FACTORS[i] as number) + (FACTORS[SIZE - 1 - i] as number);
      v = (v ^ (v >>> 15)) >>> 0;
      if (v < (least[i] as number)) least[i] = v;
    }
  }
  return Uint8Array.from(least, (v) => (Math.imul(v ^ (v >>> 16), 0x45d9f3b) >>> 13) & 0xff);
}

const wordAt = (bytes: Uint8Array, at: number): number =>
  (bytes[at] as number) |
  ((bytes[at + 1] as number) << 8) |
  ((bytes[at + 2] as number) << 16) |
  ((bytes[at + 3] as number) << 24);
/** Two values agree by chance once in 256. */
const likenessOf = (agreeing: number): number => Math.max(0, (256 * agreeing - SIZE) / (255 * SIZE));
const FEWEST = Array.from({ length: SIZE + 1 }, (_, n) => n).findIndex((n) => likenessOf(n) >= NEAR);

/** Rows by what they say; of another one it tells those that are nearly the same. At most `capacity` of them. */
export class NearRows {
  #size = 0;
  #room = 1024;
  #signatures = new Uint8Array(SIZE * this.#room);
  /** Of a row the next one of the same band, by BANDS · number + band; −1: the last. */
  #next = new Int32Array(BANDS * this.#room);
  #heads = new Int32Array(BANDS * this.#room).fill(-1);
  /** The question in which a row was last looked at. */
  #looked = new Uint32Array(this.#room);
  #question = 0;
  constructor(readonly capacity = Infinity) {}
  get size(): number {
    return this.#size;
  }

  #bucket(signature: Uint8Array, from: number, band: number): number {
    const word = wordAt(signature, from + 4 * band) ^ Math.imul(band + 1, 0x9e3779b1);
    const mixed = Math.imul(word ^ (word >>> 15), 0x85ebca6b);
    return (mixed ^ (mixed >>> 13)) & (this.#heads.length - 1);
  }
  #link(number: number): void {
    for (let band = 0; band < BANDS; band++) {
      const at = this.#bucket(this.#signatures, SIZE * number, band);
      this.#next[BANDS * number + band] = this.#heads[at] as number;
      this.#heads[at] = BANDS * number + band;
    }
  }
  #grow(): void {
    this.#room *= 2;
    const grown = <T extends Uint8Array | Uint32Array>(into: T, from: T): T => {
      into.set(from);
      return into;
    };
    this.#signatures = grown(new Uint8Array(SIZE * this.#room), this.#signatures);
    this.#looked = grown(new Uint32Array(this.#room), this.#looked);
    this.#next = new Int32Array(BANDS * this.#room);
    this.#heads = new Int32Array(BANDS * this.#room).fill(-1);
    for (let n = 0; n < this.#size; n++) this.#link(n);
  }

  /** @returns its number, from 0; −1: there is no more room */
  add(value: unknown): number {
    if (this.#size >= this.capacity) return -1;
    if (this.#size === this.#room) this.#grow();
    this.#signatures.set(signatureOf(saidIn(value)), SIZE * this.#size);
    this.#link(this.#size);
    return this.#size++;
  }
  /**
   * Rows that are nearly the same, with the estimated share of what they have in common.
   * @param isWanted rows that are not are passed over
   */
  like(
    value: unknown,
    isWanted: (number: number) => boolean = () => true,
  ): { readonly number: number; readonly likeness: number }[] {
    const found: { readonly number: number; readonly likeness: number }[] = [];
    if (this.#size === 0) return found;
    const signature = signatureOf(saidIn(value));
    this.#question = (this.#question + 1) >>> 0;
    for (let band = 0; band < BANDS; band++) {
      const word = wordAt(signature, 4 * band);
      for (let at = this.#heads[this.#bucket(signature, 0, band)] as number; at >= 0; at = this.#next[at] as number) {
        const number = Math.floor(at / BANDS);
        if (at % BANDS !== band || wordAt(this.#signatures, SIZE * number + 4 * band) !== word) continue;
        if (this.#looked[number] === this.#question) continue;
        this.#looked[number] = this.#question;
        const agreeing = this.#agreeing(signature, SIZE * number);
        if (agreeing >= FEWEST && isWanted(number)) found.push({ number, likeness: likenessOf(agreeing) });
      }
    }
    return found;
  }
  #agreeing(signature: Uint8Array, from: number): number {
    let same = 0;
    for (let i = 0; i < SIZE; i++) if (signature[i] === this.#signatures[from + i]) same++;
    return same;
  }
}
