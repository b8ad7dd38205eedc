// Checksums and check digits of what detectors look for. All take short texts and never throw.
import { createHash } from 'node:crypto';

const CRC = new Int32Array(256).map((_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});
/** CRC-32 (ISO-HDLC, as zlib has it) of a text of one byte a character. */
export function crc32(text: string): number {
  let c = -1;
  for (let i = 0; i < text.length; i++) c = (c >>> 8) ^ (CRC[(c ^ text.charCodeAt(i)) & 255] as number);
  return (c ^ -1) >>> 0;
}

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
export function base62(value: number, length: number): string {
  let text = '';
  for (let rest = value; rest > 0; rest = Math.floor(rest / 62)) text = BASE62.charAt(rest % 62) + text;
  return text.padStart(length, '0');
}
/** Tokens of GitHub and npm: 30 characters, then their CRC-32 in six of base 62. */
export const endsInCrc = (body: string): boolean =>
  body.length === 36 && body.slice(30) === base62(crc32(body.slice(0, 30)), 6);

/** ISO/IEC 7812: cards and others. @param digits ASCII digits alone */
export function luhn(digits: string): boolean {
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    const d = digits.charCodeAt(digits.length - 1 - i) - 48;
    sum += i % 2 === 0 ? d : d > 4 ? 2 * d - 9 : 2 * d;
  }
  return sum % 10 === 0;
}
/** The rest by `by` of a number in ASCII digits. */
export function modulo(digits: string, by: number): number {
  let rest = 0;
  for (let i = 0; i < digits.length; i++) rest = (rest * 10 + digits.charCodeAt(i) - 48) % by;
  return rest;
}
/** ISO 13616: the rest by 97 of an IBAN in capitals, its first four characters moved to the end; 1 where it is one. */
export function ibanRest(iban: string): number {
  let rest = 0;
  for (const c of iban.slice(4) + iban.slice(0, 4)) {
    const value = Number.parseInt(c, 36);
    rest = (value > 9 ? rest * 100 + value : rest * 10 + value) % 97;
  }
  return rest;
}
/** Σ weight · digit. */
export const weighted = (digits: string, weights: readonly number[]): number =>
  weights.reduce((sum, w, i) => sum + w * (digits.charCodeAt(i) - 48), 0);

const D5 = '0123456789123406789523401789563401289567401239567859876043216598710432765982104387659321049876543210';
const P8 = '01234567891576283094580379614289160435279453126870428657390127938064157046913258';
/** Verhoeff's check over the dihedral group of order 10 (Aadhaar). */
export function verhoeff(digits: string): boolean {
  let c = 0;
  for (let i = 0; i < digits.length; i++) {
    const d = digits.charCodeAt(digits.length - 1 - i) - 48;
    c = Number(D5[c * 10 + Number(P8[(i % 8) * 10 + d])]);
  }
  return c === 0;
}

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
/** The bytes of a Base58Check text without its checksum; null: it is none. At most 120 characters are looked at. */
export function base58Check(text: string): Uint8Array | null {
  if (text.length > 120) return null;
  let value = 0n;
  for (const c of text) {
    const digit = BASE58.indexOf(c);
    if (digit < 0) return null;
    value = value * 58n + BigInt(digit);
  }
  let hex = value.toString(16);
  if (hex.length % 2 === 1) hex = `0${hex}`;
  // A one at the beginning is a byte of zero.
  const zeros = /^1*/.exec(text)?.[0].length ?? 0;
  const bytes = Buffer.concat([Buffer.alloc(zeros), Buffer.from(value === 0n ? '' : hex, 'hex')]);
  if (bytes.length < 5) return null;
  const body = bytes.subarray(0, -4);
  const hash = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest();
  return hash(hash(body)).subarray(0, 4).equals(bytes.subarray(-4)) ? body : null;
}

const BECH32 = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
/** BIP 173, whatever the case of the letters. @param text `hrp` 1 `data` */
export function bech32(text: string): boolean {
  const lower = text.toLowerCase();
  const at = lower.lastIndexOf('1');
  const hrp = lower.slice(0, at);
  let check = 1;
  const add = (value: number): void => {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ value;
    for (const [i, g] of [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3].entries())
      if ((top >>> i) & 1) check ^= g;
  };
  for (const c of hrp) add(c.charCodeAt(0) >> 5);
  add(0);
  for (const c of hrp) add(c.charCodeAt(0) & 31);
  for (const c of lower.slice(at + 1)) {
    const value = BECH32.indexOf(c);
    if (value < 0) return false;
    add(value);
  }
  return at > 0 && check === 1;
}

/** A day that a calendar has; `year` of four digits. */
export function isDate(year: number, month: number, day: number): boolean {
  if (month < 1 || month > 12 || day < 1) return false;
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return day <= ([31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] as number);
}
