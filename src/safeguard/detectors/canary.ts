// Canaries: strings planted in training data, or whatever else must never come back. Compared are letters and digits
// alone, whatever their case, spacing, accents, look-alikes and figures in their place (leet), also turned by rot13.
import type { Detector, Feed, Report } from './detector.js';
import { foldTable, OTHER } from './fold.js';

/** Letters and digits of a canary that are compared, at least and at most. */
export const MIN_CANARY = 10;
const MOST = 64;
const LEET: Readonly<Record<string, string>> = {
  '0': 'o',
  '1': 'i',
  l: 'i',
  '!': 'i',
  '|': 'i',
  '3': 'e',
  '4': 'a',
  '@': 'a',
  '5': 's',
  $: 's',
  '7': 't',
};
const PLAIN = Uint8Array.from({ length: 128 }, (_, c) => {
  const char = String.fromCharCode(c).toLowerCase();
  return LEET[char]?.charCodeAt(0) ?? (/[a-z0-9]/.test(char) ? char.charCodeAt(0) : 0);
});
/** What of a unit is compared; 0: nothing. */
function plain(c: number, fold: Uint8Array): number {
  if (c < 128) return PLAIN[c] as number;
  const folded = fold[c] as number;
  return folded < 128 ? (PLAIN[folded] as number) : folded === OTHER ? c : 0;
}
/** The units of a text that are compared, at most MOST. */
export function skeleton(text: string): readonly number[] {
  const fold = foldTable();
  const units: number[] = [];
  for (let i = 0; i < text.length && units.length < MOST; i++) {
    const unit = plain(text.charCodeAt(i), fold);
    if (unit !== 0) units.push(unit);
  }
  return units;
}
const rot13 = (text: string): string =>
  text.replaceAll(/[A-Za-z]/g, (c) => String.fromCharCode(c.charCodeAt(0) + (/[A-Ma-m]/.test(c) ? 13 : -13)));

const BASE = 0x01000193;
const power = (n: number): number => {
  let p = 1;
  for (let k = 0; k < n; k++) p = Math.imul(p, BASE);
  return p;
};

/** The canaries by a hash of their last units: `width` of them. */
class Nest {
  readonly width: number;
  readonly leaves: number;
  readonly byHash = new Map<number, { readonly units: readonly number[]; readonly turned: boolean }[]>();
  readonly may = new Uint8Array(1 << 16);
  constructor(canaries: readonly string[]) {
    const all = canaries.flatMap((text) => [
      { units: skeleton(text), turned: false },
      { units: skeleton(rot13(text)), turned: true },
    ]);
    this.width = Math.min(...all.map(({ units }) => units.length));
    this.leaves = power(this.width);
    for (const one of all) {
      let hash = 0;
      for (const unit of one.units.slice(-this.width)) hash = (Math.imul(hash, BASE) + unit) | 0;
      this.byHash.set(hash, [...(this.byHash.get(hash) ?? []), one]);
      this.may[hash >>> 16] = 1;
    }
  }
}
const nests = new WeakMap<readonly string[], Nest>();

class Watch implements Feed {
  /** The last units, and where they stood: before what was fed last the places are of another piece, so `from` is. */
  readonly #ring = new Uint16Array(MOST);
  #count = 0;
  #hash = 0;
  constructor(readonly nest: Nest) {}
  begin(): void {
    this.#count = this.#hash = 0;
  }
  feed(text: string, from: number, to: number, report: Report): void {
    const { width, leaves, may, byHash } = this.nest;
    const fold = foldTable();
    const ring = this.#ring;
    for (let i = from; i < to; i++) {
      const unit = plain(text.charCodeAt(i), fold);
      if (unit === 0) continue;
      const old = this.#count >= width ? (ring[(this.#count - width) % MOST] as number) : 0;
      this.#hash = (Math.imul(this.#hash, BASE) + unit - Math.imul(old, leaves)) | 0;
      ring[this.#count++ % MOST] = unit;
      if (may[this.#hash >>> 16] === 0) continue;
      for (const { units, turned } of byHash.get(this.#hash) ?? [])
        if (this.#ends(units)) report('canary', i + 1 - units.length, i + 1, turned ? 'rot13' : 'raw');
    }
  }
  #ends(units: readonly number[]): boolean {
    if (this.#count < units.length) return false;
    for (let k = 1; k <= units.length; k++)
      if (this.#ring[(this.#count - k) % MOST] !== units[units.length - k]) return false;
    return true;
  }
}

export const canary: Detector = {
  name: 'canary',
  version: 1,
  rules: [{ id: 'canary', finds: 'a string of the training data that must not come back' }],
  start({ canaries = [] }) {
    if (canaries.length === 0) return null;
    const nest = nests.get(canaries) ?? new Nest(canaries);
    nests.set(canaries, nest);
    return new Watch(nest);
  },
};
