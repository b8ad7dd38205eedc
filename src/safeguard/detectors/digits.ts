// Digits as people group them: 4111 1111 1111 1111, 044-668-18-00, 12.34.56.
import { isDigitCode } from './detector.js';

const MAX_CHARACTERS = 48;
const MAX_DIGITS = 20;

/** One sign between two groups: a space of any width, a dash of any, a dot, a slash. */
export function isSeparator(c: number): boolean {
  if (c < 128) return c === 32 || c === 45 || c === 46 || c === 47;
  return c === 0xa0 || (c >= 0x2002 && c <= 0x2015) || c === 0x202f || c === 0x2212 || c === 0x3000;
}

/** More groups than there are digits there are not. */
const MAX_GROUPS = MAX_DIGITS + 2;
class Grouping {
  /** How many groups there are. */
  count = 0;
  /** Digits of each group, 0 where there is none, and where each ends. */
  readonly sizes = new Uint8Array(MAX_GROUPS);
  readonly ends = new Float64Array(MAX_GROUPS);
  /** How many digits there are. */
  total = 0;
  text = '';
  get end(): number {
    return this.ends[this.count - 1] as number;
  }
  /** Digits alone, of the first groups. */
  digits(groups = this.count): string {
    let digits = '';
    for (let k = 0; k < groups; k++) {
      const end = this.ends[k] as number;
      digits += this.text.slice(end - (this.sizes[k] as number), end);
    }
    return digits;
  }
  /** The sign after a group, told by what it means: ' ', '-', '.', '/'. */
  sign(k: number): string {
    const c = this.text.charCodeAt(this.ends[k] as number);
    return c === 46 ? '.' : c === 47 ? '/' : c === 45 || (c >= 0x2010 && c <= 0x2015) || c === 0x2212 ? '-' : ' ';
  }
  /** The signs between all groups. */
  get signs(): string {
    let signs = '';
    for (let k = 0; k < this.count - 1; k++) signs += this.sign(k);
    return signs;
  }
}

export type Groups = Readonly<Grouping>;

/** Used again and again: numbers are many. */
const groups = new Grouping();
/**
 * The groups from the digit at `i` on, as far as single signs join them; the last may be cut at MAX_DIGITS.
 * @returns what is valid until the next call
 */
export function groupsAt(text: string, i: number): Groups {
  groups.text = text;
  groups.total = groups.count = 0;
  groups.sizes.fill(0);
  for (let at = i, start = i; ; start = ++at) {
    while (isDigitCode(text.charCodeAt(at)) && groups.total + at - start <= MAX_DIGITS) at++;
    groups.total += at - start;
    groups.sizes[groups.count] = at - start;
    groups.ends[groups.count++] = at;
    if (!isSeparator(text.charCodeAt(at)) || !isDigitCode(text.charCodeAt(at + 1))) return groups;
    if (at - i > MAX_CHARACTERS || groups.total >= MAX_DIGITS) return groups;
  }
}

/** Whether the digit at `i` goes on with a number: a digit and a single sign stand before it. */
export const goesOn = (text: string, i: number): boolean =>
  isSeparator(text.charCodeAt(i - 1)) && isDigitCode(text.charCodeAt(i - 2));

/** Whether the first groups have these sizes, with these signs between them, and none follows. */
export const isShaped = (g: Groups, sizes: readonly number[], signs: string): boolean =>
  g.count === sizes.length && sizes.every((n, k) => g.sizes[k] === n) && g.signs === signs;

/** Whether one of the words stands in the 48 characters before. */
export function after(text: string, i: number, words: readonly string[]): boolean {
  const before = text.slice(Math.max(0, i - 48), i).toLowerCase();
  return words.some((word) => before.includes(word));
}
