// Text behind base64 (either alphabet) and hexadecimal digits. A run is decoded where its beginning gives text; what
// gives bytes of anything else, as most long words do, is left alone.
const VALUES = new Uint8Array(128).fill(255);
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].entries())
  VALUES[c.charCodeAt(0)] = i;
VALUES[45] = 62;
VALUES[95] = 63;
const isHex = (c: number): boolean => (c >= 48 && c <= 57) || (c >= 65 && c <= 70) || (c >= 97 && c <= 102);
const SAMPLE = 48;
/** Of the bytes of a sample, in eighths. Bytes of other languages count as text, random bytes reach 5 at most. */
const ENOUGH = 7;

/** UTF-8 is text too, but then its bytes are of high value in company: counted where the one before was high. */
const isText = (b: number): boolean => (b >= 0x20 && b < 0x7f) || b === 10 || b === 13 || b === 9;

/** How many eighths of the bytes are text that base64 from `from` gives; -1: a character of another alphabet. */
function textAt(text: string, from: number, to: number): number {
  const end = Math.min(to, from + SAMPLE);
  let [bits, have, good, all] = [0, 0, 0, 0];
  for (let i = from; i < end; i++) {
    const c = text.charCodeAt(i);
    if (c === 10 || c === 13) continue;
    const value = c < 128 ? (VALUES[c] as number) : 255;
    if (value === 255) return -1;
    bits = ((bits << 6) | value) & 0xffff;
    have += 6;
    if (have < 8) continue;
    have -= 8;
    all++;
    if (isText((bits >> have) & 255)) good++;
    else if (all - good > 8) return 0;
  }
  return all === 0 ? 0 : (8 * good) / all;
}

export interface Decoded {
  readonly text: string;
  readonly view: 'base64' | 'hex';
}

/** The texts behind the characters from `from` to before `to`, line ends in them passed over: mostly none. */
export function decodings(text: string, from: number, to: number): readonly Decoded[] {
  const found: Decoded[] = [];
  const hexEnd = Math.min(to, from + SAMPLE);
  let h = from;
  while (h < hexEnd && isHex(text.charCodeAt(h))) h++;
  if (h === hexEnd) {
    const decoded = Buffer.from(text.slice(from, to), 'hex').toString('latin1');
    let good = 0;
    for (let i = 0; i < Math.min(SAMPLE, decoded.length); i++) if (isText(decoded.charCodeAt(i))) good++;
    if (8 * good >= ENOUGH * Math.min(SAMPLE, decoded.length)) found.push({ text: decoded, view: 'hex' });
  }
  // Characters may stand before it that are none of it: four ways to begin.
  for (let phase = 0; phase < 4 && phase + 16 < to - from; phase++)
    if (textAt(text, from + phase, to) >= ENOUGH) {
      found.push({ text: Buffer.from(text.slice(from + phase, to), 'base64').toString('latin1'), view: 'base64' });
      break;
    }
  return found;
}
