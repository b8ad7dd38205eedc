// Collapse into repetition: a stretch in which nothing is new. New is a run of 16 characters that did not occur among
// the 1,024 before; white space counts once. What a model says when it is stuck has none for hundreds of characters.
//
// Looked at closely is only what may be such a stretch: every 256 characters the last 16 are searched for in those
// before. A stretch of STUCK characters has at least one such place, and the first is early enough in it.
import { type Detector, type Feed, LOOK_AHEAD, LOOK_BACK, type Report } from './detector.js';

const PERIOD = 1024;
/** Characters in a row without anything new. */
const STUCK = 480;
const GRAM = 16;
const STEP = 256;
/** A word among so many characters before a place may show that there is something new. */
const NEAR = 48;
/** Letters that such a word has; most are not met again by chance. */
const WORD = 6;
/**
 * What is read again where a close look begins, even one place later than it might; a sweep keeps LOOK_AHEAD +
 * LOOK_BACK characters before a new piece.
 */
const HISTORY = PERIOD + STEP + GRAM + NEAR;
if (HISTORY > LOOK_AHEAD + LOOK_BACK) throw new Error('repetition looks back farther than a sweep keeps');
const SLOTS = 12;
const MIX = 0x9e3779b1;
/** Units are read from memory, some at a time. */
const BLOCK = 2048;
const UNITS = new Uint16Array(BLOCK);
const BYTES = Buffer.from(UNITS.buffer);

const isBlank = (c: number): boolean => c === 32 || (c <= 13 && c >= 9);
/** Blanks after blanks in a text of at most BLOCK characters. */
function doubledBlanks(text: string): number {
  BYTES.write(text, 'utf16le');
  let count = 0;
  // Of each two neighbours one stands at an odd place.
  for (let i = 1; i < text.length; i += 2) {
    if (!isBlank(UNITS[i] as number)) continue;
    if (isBlank(UNITS[i - 1] as number)) count++;
    if (i + 1 < text.length && isBlank(UNITS[i + 1] as number)) count++;
  }
  return count;
}
/**
 * Whether a word just before `at` did not occur among the PERIOD characters before it, so that a stretch without
 * anything new begins after it: the next place is early enough to find it. Words are compared, as white space counts
 * once however much of it there is.
 */
function hasNew(text: string, at: number): boolean {
  let length = 0,
    word = 0;
  for (let i = Math.max(0, at - NEAR), start = i; i <= at; i++) {
    if (i < at && !isBlank(text.charCodeAt(i))) continue;
    if (i - start > length) [word, length] = [start, i - start];
    start = i + 1;
  }
  if (length < WORD) return false;
  length = Math.min(length, GRAM);
  const from = Math.max(0, at - HISTORY);
  if (text.slice(from, word + length - 1).includes(text.slice(word, word + length))) return false;
  if (at < HISTORY) return true; // there is nothing before
  return word - from - doubledBlanks(text.slice(from, word)) >= PERIOD + GRAM;
}

class Loop implements Feed {
  #seen = 0;
  #isClose = false;
  #last: Int32Array | null = null;
  #hash = 0;
  #count = 0;
  #stuck = 0;
  #space = false;

  feed(text: string, from: number, to: number, report: Report): void {
    for (let at = from; at < to; ) {
      const end = Math.min(to, at + STEP - (this.#seen % STEP));
      if (this.#isClose) this.#look(text, at, end, report);
      this.#seen += end - at;
      at = end;
      if (this.#seen % STEP !== 0) continue;
      const gram = text.slice(at - GRAM, at);
      const occurs = text.indexOf(gram, Math.max(0, at - GRAM - PERIOD)) < at - GRAM;
      if (!occurs) this.#isClose = false;
      else if (!this.#isClose && !hasNew(text, at)) {
        this.#isClose = true;
        this.#lookAnew();
        this.#look(text, Math.max(0, at - HISTORY), at, report);
      }
    }
  }
  begin(): void {
    this.#seen = 0;
    this.#isClose = false;
  }
  #lookAnew(): void {
    this.#last ??= new Int32Array(1 << SLOTS).fill(-PERIOD - 1);
    // What was counted before is out of reach.
    this.#count = this.#count > 1 << 29 ? this.#anew() : this.#count + PERIOD + 1;
    this.#hash = this.#stuck = 0;
    this.#space = false;
  }
  #anew(): number {
    this.#last?.fill(-PERIOD - 1);
    return 0;
  }
  #look(text: string, from: number, to: number, report: Report): void {
    const last = this.#last as Int32Array;
    let hash = this.#hash,
      count = this.#count,
      stuck = this.#stuck,
      space = this.#space;
    for (let start = from; start < to; start += BLOCK) {
      const end = Math.min(to, start + BLOCK);
      BYTES.write(text.slice(start, end), 'utf16le');
      for (let i = start; i < end; i++) {
        const c = UNITS[i - start] as number;
        const blank = isBlank(c);
        if (blank && space) continue;
        space = blank;
        // Two bits a character: after 16 of them nothing is left of one, so the top bits are those of the last 16.
        hash = ((hash << 2) + Math.imul(blank ? 32 : c, MIX)) | 0;
        const slot = hash >>> (32 - SLOTS);
        // All bits where it was seen, none where it is new: a branch would be guessed wrong too often.
        stuck = (stuck + 1) & ((count - (last[slot] as number) - PERIOD - 1) >> 31);
        if (stuck === STUCK) report('loop', Math.max(0, i + 1 - STUCK), i + 1);
        last[slot] = count++;
      }
    }
    this.#hash = hash;
    this.#count = count;
    this.#stuck = stuck;
    this.#space = space;
  }
}

export const repetition: Detector = {
  name: 'repetition',
  version: 2,
  rules: [{ id: 'loop', finds: `${STUCK} characters in which nothing is new` }],
  rawOnly: true,
  least: STUCK,
  start: () => new Loop(),
};
