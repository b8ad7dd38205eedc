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
/** What is read again where a close look begins; a sweep keeps LOOK_AHEAD + LOOK_BACK characters before a new piece. */
const HISTORY = PERIOD + STEP + GRAM;
if (HISTORY > LOOK_AHEAD + LOOK_BACK) throw new Error('repetition looks back farther than a sweep keeps');
const SLOTS = 12;
const MIX = 0x9e3779b1;

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
      const before = text.slice(Math.max(0, at - GRAM - PERIOD), at - 1);
      const occurs = before.includes(text.slice(at - GRAM, at));
      if (occurs && !this.#isClose) {
        this.#begin();
        this.#look(text, Math.max(0, at - HISTORY), at, report);
      }
      this.#isClose = occurs;
    }
  }
  #begin(): void {
    this.#last ??= new Int32Array(1 << SLOTS);
    this.#last.fill(-PERIOD - 1);
    this.#hash = this.#count = this.#stuck = 0;
    this.#space = false;
  }
  #look(text: string, from: number, to: number, report: Report): void {
    const last = this.#last as Int32Array;
    let hash = this.#hash,
      count = this.#count,
      stuck = this.#stuck,
      space = this.#space;
    for (let i = from; i < to; i++) {
      const c = text.charCodeAt(i);
      const blank = c === 32 || (c <= 13 && c >= 9);
      if (blank && space) continue;
      space = blank;
      // Two bits a character: after 16 of them nothing is left of one, so the top bits are those of the last 16.
      hash = ((hash << 2) + Math.imul(blank ? 32 : c, MIX)) | 0;
      const slot = hash >>> (32 - SLOTS);
      if (count - (last[slot] as number) <= PERIOD) {
        if (++stuck === STUCK) report('loop', Math.max(0, i + 1 - STUCK), i + 1);
      } else stuck = 0;
      last[slot] = count++;
    }
    this.#hash = hash;
    this.#count = count;
    this.#stuck = stuck;
    this.#space = space;
  }
}

export const repetition: Detector = {
  name: 'repetition',
  version: 1,
  rules: [{ id: 'loop', finds: `${STUCK} characters in which nothing is new` }],
  rawOnly: true,
  start: () => new Loop(),
};
