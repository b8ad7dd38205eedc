// Characters that are not seen, or that make a text look other than it is, where they have no use: what hides a message
// in a text, breaks a word up for whoever filters it, or turns its order around.
import { type Detector, isAlnumCode, isLetterCode } from './detector.js';

const isSelector = (text: string, i: number): number => {
  const c = text.charCodeAt(i);
  if (c >= 0xfe00 && c <= 0xfe0f) return 1;
  const low = text.charCodeAt(i + 1);
  return c === 0xdb40 && low >= 0xdd00 && low <= 0xddef ? 2 : 0;
};
const isTag = (text: string, i: number): boolean => {
  const low = text.charCodeAt(i + 1);
  return text.charCodeAt(i) === 0xdb40 && low >= 0xdc00 && low <= 0xdc7f;
};
const isZeroWidth = (c: number): boolean =>
  c === 0xad ||
  c === 0x34f ||
  c === 0x61c ||
  (c >= 0x115f && c <= 0x1160) ||
  c === 0x17b4 ||
  c === 0x17b5 ||
  c === 0x180e ||
  (c >= 0x200b && c <= 0x200f) ||
  (c >= 0x2060 && c <= 0x2064) ||
  (c >= 0x206a && c <= 0x206f) ||
  c === 0x3164 ||
  c === 0xfeff ||
  c === 0xffa0;
const isDirection = (c: number): boolean => (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
const NEAR = 96;
/** Hebrew, Arabic and their kin stand near: direction is theirs. */
function nearRightToLeft(text: string, i: number): boolean {
  for (let at = Math.max(0, i - NEAR); at < i + NEAR; at++) {
    const c = text.charCodeAt(at);
    if ((c >= 0x590 && c <= 0x8ff) || (c >= 0xfb1d && c <= 0xfdff) || (c >= 0xfe70 && c < 0xfeff)) return true;
  }
  return false;
}
/** A flag of a country's part: the black flag, its code in tags, the tag that ends it. */
function isFlag(text: string, i: number): boolean {
  if (text.charCodeAt(i - 2) !== 0xd83c || text.charCodeAt(i - 1) !== 0xdff4) return false;
  for (let at = i, n = 0; n < 8; n++, at += 2) {
    if (!isTag(text, at)) return false;
    if (text.charCodeAt(at + 1) === 0xdc7f) return n >= 3;
  }
  return false;
}

export const invisible: Detector = {
  name: 'invisible',
  version: 1,
  rules: [
    {
      id: 'tags',
      finds: 'tag characters (U+E0000 to U+E007F) that are no flag: text that models read and people do not',
    },
    { id: 'selectors', finds: 'variation selectors in a row, or after a letter: bytes behind a picture' },
    { id: 'zero-width', finds: 'a character without width inside a word, or three in a row' },
    {
      id: 'direction',
      finds: 'overrides of direction, and other changes of it where nothing is written from the right',
    },
    { id: 'control-character', finds: 'a control character other than tab, line end and form feed' },
  ],
  rawOnly: true,
  odd(text, i, report) {
    const c = text.charCodeAt(i);
    const before = text.charCodeAt(i - 1);
    if (c < 0xa0) {
      if (c !== 12 && c !== 0x85) report('control-character', i, i + 1);
    } else if (isSelector(text, i) > 0) {
      // Only the first of a row.
      if ((before >= 0xfe00 && before <= 0xfe0f) || isSelector(text, i - 2) === 2) return;
      const next = i + isSelector(text, i);
      if (isSelector(text, next) > 0 || isLetterCode(before)) report('selectors', i, next);
    } else if (isTag(text, i)) {
      if (!isTag(text, i - 2) && !isFlag(text, i)) report('tags', i, i + 2);
    } else if (isDirection(c)) {
      if (c === 0x202d || c === 0x202e || !nearRightToLeft(text, i)) report('direction', i, i + 1);
    } else if (isZeroWidth(c)) {
      if (isZeroWidth(before)) return;
      let end = i + 1;
      while (end < i + 3 && isZeroWidth(text.charCodeAt(end))) end++;
      // A soft hyphen is for the inside of words.
      const inWord = c !== 0xad && isAlnumCode(before) && isAlnumCode(text.charCodeAt(end));
      if (end - i === 3 || inWord) report('zero-width', i, end);
    }
  },
};
