// Rows that say nearly the same: MinHash signatures over shingles of three words, found by bands of them
// (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.3–3.4). 256 bytes a row that is kept.

/** Values of a signature, cut into bands of so many. */
const SIZE = 64;
const BAND = 4;
const WORDS = 3;
/** Shingles of a row that are looked at. */
const MOST_SHINGLES = 4096;
/** Rows that are kept: signatures of 12 MB, bands of a few times that. */
const MOST_ROWS = 50_000;
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

/** The least hash of all shingles, under 64 hash functions. */
export function signatureOf(text: string): Uint32Array {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) ?? [];
  const signature = new Uint32Array(SIZE).fill(0xffffffff);
  const count = Math.min(Math.max(1, words.length - WORDS + 1), MOST_SHINGLES);
  for (let s = 0; s < count; s++) {
    const h = hashOf(words, s);
    for (let i = 0; i < SIZE; i++) {
      let v = Math.imul(h ^ (h >>> 16), FACTORS[i] as number) + (FACTORS[SIZE - 1 - i] as number);
      v = (v ^ (v >>> 15)) >>> 0;
      if (v < (signature[i] as number)) signature[i] = v;
    }
  }
  return signature;
}
const likeness = (a: Uint32Array, b: Uint32Array): number => {
  let same = 0;
  for (let i = 0; i < SIZE; i++) if (a[i] === b[i]) same++;
  return same / SIZE;
};

/** Rows by what they say; of another one it tells those that are nearly the same. */
export class NearRows {
  readonly #signatures: Uint32Array[] = [];
  readonly #bands = new Map<string, number[]>();
  get isFull(): boolean {
    return this.#signatures.length >= MOST_ROWS;
  }
  *#keys(signature: Uint32Array): Generator<string> {
    for (let b = 0; b < SIZE; b += BAND) {
      let [x, y] = [b, 0x5bd1e995];
      for (let k = 0; k < BAND; k++) {
        x = Math.imul(x ^ (signature[b + k] as number), 0x85ebca6b);
        y = Math.imul(y ^ (signature[b + k] as number) ^ (x >>> 13), 0xc2b2ae35);
      }
      yield `${b}:${x}:${y}`;
    }
  }
  /** @returns its number, from 0; −1: there is no more room */
  add(value: unknown): number {
    if (this.isFull) return -1;
    const signature = signatureOf(saidIn(value));
    const number = this.#signatures.push(signature) - 1;
    for (const key of this.#keys(signature)) {
      const known = this.#bands.get(key);
      if (known) known.push(number);
      else this.#bands.set(key, [number]);
    }
    return number;
  }
  /** Rows that are nearly the same, with the estimated share of what they have in common. */
  like(value: unknown): { readonly number: number; readonly likeness: number }[] {
    const signature = signatureOf(saidIn(value));
    const numbers = new Set<number>();
    for (const key of this.#keys(signature)) for (const n of this.#bands.get(key) ?? []) numbers.add(n);
    return [...numbers]
      .map((number) => ({ number, likeness: likeness(signature, this.#signatures[number] as Uint32Array) }))
      .filter((f) => f.likeness >= NEAR);
  }
}
