// In a string: which bytes may come, and where it may end.
import type { Characters } from './characters.js';
import { type Frame, NONE } from './frames.js';
import { CLOSED, DEAD, IN, STRING_STEP } from './vocabulary.js';

/** What comes after a string: for a name of an object it depends on what the name is. */
export interface TextEnd {
  close(text: string): readonly Frame[];
  /** `close` gives the same for any text. */
  readonly sameForAll: boolean;
  /** Otherwise: texts for which it gives something of its own; null: it may for any. */
  readonly known?: ReadonlySet<string> | null;
}

/** In a string. The text is kept only where what comes after depends on it. */
export class TextFrame implements Frame {
  readonly ends = false;
  readonly text = this;
  constructor(
    readonly least: number,
    readonly most: number,
    /** null: any characters. */
    readonly set: Characters | null,
    readonly end: TextEnd,
    /** In IN. */
    readonly state: number = IN.plain,
    /** Characters begun. */
    readonly count = 0,
    /** Of the set. */
    readonly inSet = 0,
    /** Of the character that is being written: its bits so far, as UTF-8 or hexadecimal digits. */
    readonly bits = 0,
    readonly written = '',
  ) {}

  step(byte: number): readonly Frame[] {
    const { state } = this;
    const to = STRING_STEP[state * 256 + byte]!;
    if (to === DEAD) return NONE;
    if (to === CLOSED) {
      if (this.count < this.least || this.count > this.most) return NONE;
      if (this.set && !this.set.accepts(this.inSet)) return NONE;
      return this.end.close(this.written);
    }
    const count = state === IN.plain ? this.count + 1 : this.count;
    if (count > this.most) return NONE;
    const keeps = this.set !== null || !this.end.sameForAll;
    if (!keeps) return [this.#to(to, count, 0, 0, '')];
    const bits = bitsAfter(state, this.bits, byte, to);
    if (to !== IN.plain)
      return !this.set || mayGoOn(this.set, this.inSet, to, bits)
        ? [this.#to(to, count, this.inSet, bits, this.written)]
        : NONE;
    const inSet = this.set ? this.set.next(this.inSet, bits) : 0;
    if (inSet < 0) return NONE;
    const written = this.end.sameForAll ? '' : this.written + String.fromCodePoint(bits);
    return [this.#to(to, count, inSet, 0, written)];
  }
  #to(state: number, count: number, inSet: number, bits: number, written: string): TextFrame {
    return new TextFrame(this.least, this.most, this.set, this.end, state, count, inSet, bits, written);
  }
}
/** Some character that begins like that is one that the set goes on with. */
export function mayGoOn(set: Characters, inSet: number, to: number, bits: number): boolean {
  const range = (more: number, from = 0, end = 2 ** more - 1): boolean =>
    set.goesOn(inSet, bits * 2 ** more + from, bits * 2 ** more + end);
  switch (to) {
    case IN.escape:
      return set.goesOn(inSet, 0, 0xffff);
    case IN.hex1:
      return set.goesOn(inSet, 0, 0xffff);
    case IN.hexD:
      return range(12, 0, 0x7ff);
    case IN.hex2:
      return range(12);
    case IN.hex3:
      return range(8);
    case IN.hex4:
      return range(4);
    case IN.one:
      return range(6);
    case IN.two:
      return range(12);
    case IN.three:
      return range(18);
    case IN.afterE0:
      return range(12, 0x800, 0xfff);
    case IN.afterED:
      return range(12, 0, 0x7ff);
    case IN.afterF0:
      return range(18, 0x10000, 0x3ffff);
    default:
      return range(18, 0, 0xffff); // after F4
  }
}
const ESCAPES: Readonly<Record<number, number>> = { 98: 8, 102: 12, 110: 10, 114: 13, 116: 9 };
const hexOf = (b: number): number => (b <= 0x39 ? b - 0x30 : (b | 0x20) - 0x57);
export function bitsAfter(state: number, bits: number, byte: number, to: number): number {
  if (state === IN.plain) {
    if (byte < 0x80) return byte;
    return to === IN.one
      ? byte & 0x1f
      : to === IN.two || to === IN.afterE0 || to === IN.afterED
        ? byte & 0x0f
        : byte & 7;
  }
  if (state === IN.escape) return byte === 0x75 ? 0 : (ESCAPES[byte] ?? byte);
  if (state >= IN.hex1 && state <= IN.hex4) return bits * 16 + hexOf(byte);
  return bits * 64 + (byte & 0x3f);
}
