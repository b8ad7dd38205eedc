// Sets of characters, as patterns name them.
import { LAST, type Ranges } from './characters.js';

/** What a pattern has and this does not read. */
export class PatternUnsupported extends Error {}

export const sorted = (ranges: Ranges): Ranges => {
  const out: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else out.push([from, to]);
  }
  return out;
};
export const without = (ranges: Ranges): Ranges => {
  const out: [number, number][] = [];
  let at = 0;
  for (const [from, to] of sorted(ranges)) {
    if (from > at) out.push([at, from - 1]);
    at = to + 1;
  }
  if (at <= LAST) out.push([at, LAST]);
  return out;
};
export const DIGIT: Ranges = [[0x30, 0x39]];
export const WORD: Ranges = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
export const SPACES: Ranges = [
  [9, 13],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
export const BREAKS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const properties = new Map<string, Ranges>();
/** Code points that a set of JavaScript's own holds. */
export function rangesOf(source: string): Ranges {
  const known = properties.get(source);
  if (known) return known;
  let re: RegExp;
  try {
    re = new RegExp(`^${source}$`, 'u');
  } catch {
    throw new PatternUnsupported(`${source} is no set of characters`);
  }
  const out: [number, number][] = [];
  for (let code = 0; code <= LAST; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    if (!re.test(String.fromCodePoint(code))) continue;
    const last = out.at(-1);
    if (last && last[1] === code - 1) last[1] = code;
    else out.push([code, code]);
  }
  if (properties.size > 64) properties.clear();
  properties.set(source, out);
  return out;
}
export const one = (code: number): Ranges => [[code, code]];
export const isOne = (r: Ranges): boolean => r.length === 1 && r[0]![0] === r[0]![1];
