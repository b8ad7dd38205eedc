// Text behind base64, hexadecimal digits, bits and escapes, put in the place of what encodes it. Runs that decode to
// anything but text, as most long words do, are left alone.

import { revealed, textOf } from './hidden.js';
import { plainView } from './plain.js';

/** Encoded again, and again: looked into so often. */
const MAX_DEPTH = 4;
const MIN_BYTES = 4;
const BASE64 = /[A-Za-z0-9+/_-]{8,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}|[A-Za-z0-9+/]{6,7}={1,2}/g;
const HEX = /(?<![0-9A-Za-z])(?:0x|\\x)?[0-9A-Fa-f]{2}(?:[ :,-]{0,2}(?:0x|\\x)?[0-9A-Fa-f]{2}){3,}(?![0-9A-Za-z])/g;
const BITS = /(?<![0-9A-Za-z])[01]{8}(?:[ ,]?[01]{8}){3,}(?![0-9A-Za-z])/g;
const PERCENT = /(?:%[0-9A-Fa-f]{2}[A-Za-z0-9_.~+-]{0,8}){3,}/g;
const UNICODE = /(?:\\u[0-9A-Fa-f]{4}){3,}/g;
const ENTITIES = /(?:&#(?:[0-9]{1,7}|x[0-9A-Fa-f]{1,6});){3,}/gi;

/**
 * Bytes that nobody wrote as text hardly are such: a row of ASCII characters, or of UTF-8's longer ones. Short ones
 * must be words, as digits may happen to be bytes of letters.
 */
function isSaying(text: string): boolean {
  const characters = [...text];
  const beyond = characters.filter((c) => c > '\x7f').length;
  if (beyond >= 6 || (beyond === 0 && characters.length >= 16)) return new Set(characters).size >= 2;
  const letters = text.match(/\p{L}/gu)?.length ?? 0;
  return letters >= 4 && letters * 2 >= characters.length && new Set(text.toLowerCase()).size >= 3;
}

/** The text at the beginning of bytes: its end may be cut, or be followed by what is none. */
function beginning(bytes: Uint8Array): string | null {
  const whole = textOf(bytes);
  if (whole !== null) return isSaying(whole) ? whole : null;
  let end = 0;
  while (end < bytes.length && ((bytes[end] as number) >= 0x20 || [9, 10, 13].includes(bytes[end] as number))) end++;
  // A character that was cut takes up to three bytes.
  for (let cut = 0; cut < 4 && end - cut >= 12; cut++) {
    const text = textOf(bytes.subarray(0, end - cut));
    if (text !== null) return isSaying(text) && 2 * (end - cut) >= bytes.length ? text : null;
  }
  return null;
}

/** Of text it has capitals or figures soon: words of a language have none, but for a first letter. */
const MIXED = /[a-z+/_-][A-Z]|[A-Z][a-z]+[A-Z]|[0-9]/;
/** The first bytes that some characters encode, each way to begin: most words show at once that they encode nothing. */
const PRINTED = 0x20;
function mayBegin(body: string): boolean {
  const head = Buffer.from(body.slice(0, 12), 'base64');
  for (const b of head) if (b < PRINTED && b !== 9 && b !== 10 && b !== 13) return false;
  return head.length > 0;
}

function ofBase64(run: string): string {
  if (!MIXED.test(run)) return run;
  const joined = run.replaceAll(/\s/g, '');
  const padded = joined.endsWith('=');
  // Characters may stand before it that are none of it: four ways to begin.
  for (let phase = 0; phase < 4; phase++) {
    const body = joined.slice(phase);
    if (!mayBegin(body)) continue;
    const bytes = Buffer.from(body, 'base64');
    if (bytes.length < (padded && phase === 0 ? MIN_BYTES : 9)) continue;
    const text = beginning(bytes);
    if (text !== null) return `${joined.slice(0, phase)}${phase > 0 ? ' ' : ''}${text}`;
  }
  return run;
}
function ofHex(run: string): string {
  const digits = run.replaceAll(/0x|\\x|[ :,-]/g, '');
  const bytes = Buffer.from(digits, 'hex');
  if (bytes.some((b) => b < PRINTED && b !== 9 && b !== 10 && b !== 13)) return run;
  const text = beginning(bytes);
  // A number of a card is hexadecimal too.
  return text === null || (text.length < 16 && /^[0-9]+$/.test(digits) && !/^[A-Za-z ]+$/.test(text)) ? run : text;
}
function ofBits(run: string): string {
  const bytes = run.match(/[01]{8}/g) ?? [];
  return beginning(Uint8Array.from(bytes, (b) => Number.parseInt(b, 2))) ?? run;
}
function ofPercent(run: string): string {
  if ((run.match(/%/g)?.length ?? 0) < 3) return run;
  try {
    return decodeURIComponent(run);
  } catch {
    return run;
  }
}
const ofCode = (code: number, or: string): string =>
  code >= 0x20 && code <= 0x10ffff ? String.fromCodePoint(code) : or;

const entity = (run: string): string =>
  run.replaceAll(/&#(?:([0-9]+)|x([0-9a-f]+));/gi, (all, dec: string | undefined, hex: string | undefined) =>
    ofCode(dec === undefined ? Number.parseInt(hex ?? '', 16) : Number(dec), all),
  );
const unicode = (run: string): string =>
  run.replaceAll(/\\u([0-9A-Fa-f]{4})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));

/** Each way with what no run of it is without: most texts have none of it. */
const WAYS: readonly (readonly [RegExp, RegExp, (run: string) => string])[] = [
  [/&#/, ENTITIES, entity],
  [/\\u/, UNICODE, unicode],
  [/%[0-9A-Fa-f]{2}/, PERCENT, ofPercent],
  [/[01]{8}/, BITS, ofBits],
  [/[0-9A-Fa-f]{2}(?:[ :,-]{0,2}(?:0x|\\x)?[0-9A-Fa-f]{2}){3}/, HEX, ofHex],
  [/[A-Za-z0-9+/_-]{8}|=/, BASE64, ofBase64],
];
function once(text: string): string {
  let seen = text;
  for (const [sign, runs, decode] of WAYS) if (sign.test(seen)) seen = seen.replaceAll(runs, decode);
  return seen;
}

/** Whether a run of hexadecimal digits in it says something. */
export const decodesHex = (text: string): boolean => text.replaceAll(HEX, ofHex) !== text;

export function decodedView(text: string): string {
  let seen = text;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const next = once(seen);
    if (next === seen) return seen;
    seen = plainView(revealed(next));
  }
  return seen;
}
