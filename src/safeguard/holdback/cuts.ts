// Where a text may be cut so that its beginning can leave: after sentences and lines, in a long stretch without either
// between words. Never in a word, which may be half of a key, of a number or of a character. Whether there is a cut
// follows from the text before it and one character after it, so that no chunking moves one.

/** Shorter sentences go with the next. */
export const MIN_SENTENCE = 16;
/** Longer ones may be cut between words. */
export const LONG_SENTENCE = 280;

const TERMINATORS = '.!?…‼⁇⁈⁉';
/** No blank follows these. */
const WIDE_TERMINATORS = '。！？｡．';
const CLOSERS = '"\'”’»›)]}*_`」』）】〉》';
const BLANK = /\s/u;
const MARK = /\p{M}|\u200d/u;
/** Scripts that write no blanks between words. */
const isWide = (c: number): boolean => (c >= 0x2e80 && c < 0xd800) || (c >= 0xf900 && c <= 0xfaff);
const isLow = (c: number): boolean => c >= 0xdc00 && c <= 0xdfff;

/** Finds the cuts of one message as it comes. */
export class CutFinder {
  #text = '';
  #last = 0;
  /** The next place to be decided: before the character there. */
  #at = 1;

  /** @returns new cuts, UTF-16 offsets, rising */
  push(piece: string): readonly number[] {
    this.#text += piece;
    const cuts: number[] = [];
    for (; this.#at < this.#text.length; this.#at++) {
      if (this.#at - this.#last < MIN_SENTENCE || !this.#isCut(this.#at)) continue;
      this.#last = this.#at;
      cuts.push(this.#at);
    }
    return cuts;
  }
  #isCut(at: number): boolean {
    const text = this.#text;
    const next = text.charAt(at),
      before = text.charAt(at - 1);
    if (before === '\n') return next !== '\n';
    const blank = BLANK.test(next);
    if (blank || WIDE_TERMINATORS.includes(before) || CLOSERS.includes(before)) {
      let end = at;
      while (end > this.#last && CLOSERS.includes(text.charAt(end - 1))) end--;
      const last = text.charAt(end - 1);
      if (blank && TERMINATORS.includes(last) && end > this.#last) return true;
      if (WIDE_TERMINATORS.includes(last) && end > this.#last)
        return !(CLOSERS + WIDE_TERMINATORS + TERMINATORS).includes(next) && !MARK.test(next);
    }
    if (at - this.#last < LONG_SENTENCE) return false;
    return blank || (isWide(text.charCodeAt(at - 1)) && !isLow(text.charCodeAt(at)) && !MARK.test(next));
  }
}

/** All cuts of a text that has ended, its end not among them. */
export const cutsOf = (text: string): readonly number[] => new CutFinder().push(text);
