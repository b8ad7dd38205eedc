// One look at a text that tells whether it has any view but itself: most texts have none, and finding that out by
// making all views costs twenty times as much. It may say `false` of a text that has none; never `true` of one that
// has. What is looked for is what each view begins with; see there.
import { decodesHex } from './decoded.js';
import { ENOUGH, GAIN, MIN_LETTERS } from './rot13.js';

/** Classes of ASCII characters; what has none ends whatever it stands in. */
const LOWER = 1,
  UPPER = 2,
  DIGIT = 4,
  /** Others of base64. */
  SIGN = 8,
  HEX = 16,
  /** Between hexadecimal digits. */
  GAP = 32,
  /** Written for letters. */
  FIGURE = 64,
  /** Looked at more closely. */
  SPECIAL = 128;
const LETTER = LOWER | UPPER;
const CODED = LETTER | DIGIT | SIGN;
/** No character of plain text. */
const FOREIGN = 256;

const CLASSES = Uint16Array.from({ length: 128 }, (_, c) => {
  const char = String.fromCharCode(c);
  const of = (set: RegExp, bit: number): number => (set.test(char) ? bit : 0);
  return (
    of(/[a-z]/, LOWER) |
    of(/[A-Z]/, UPPER) |
    of(/[0-9]/, DIGIT) |
    of(/[+/_-]/, SIGN) |
    of(/[0-9A-Fa-f]/, HEX) |
    of(/[ :,\\xX-]/, GAP) |
    of(/[01345789@$!|]/, FIGURE) |
    of(/[=&\\%\r\n]/, SPECIAL) |
    of(/[^\t\n\r\x20-\x7e]/, FOREIGN)
  );
});
const LF = 10,
  CR = 13,
  PERCENT = 37,
  AMPERSAND = 38,
  EQUALS = 61,
  BACKSLASH = 92;
const isHex = (c: number): boolean => c < 128 && ((CLASSES[c] as number) & HEX) !== 0;

/** Characters of a run that may be base64, where `=` follows, and of a further line of it. */
const RUN = 8,
  PADDED = 6,
  LINE = 4;

/** Whether one of the signs stands at `i` that escapes begin with. */
function escapes(text: string, i: number, c: number): boolean {
  const next = text.charCodeAt(i + 1);
  if (c === PERCENT) return isHex(next) && isHex(text.charCodeAt(i + 2));
  return (c === AMPERSAND && next === 0x23) || (c === BACKSLASH && next === 0x75);
}

/** Whether the text is surely all that it says. */
export function isOrdinary(text: string): boolean {
  let before = 0;
  // rot13: what words in a row gain together, as there.
  let word = 0,
    letters = 0,
    sum = 0,
    sumLetters = 0;
  // Base64: the run, whether it has more than words have, how long it must be, whether it goes on in the next line.
  let run = 0,
    isMixed = false,
    least = RUN,
    goesOn = false;
  let hex = 0,
    mayBeHex = false,
    bits = 0;
  /** Figures after a letter; -1: none is before. */
  let figures = -1;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : LF;
    const k = c < 128 ? (CLASSES[c] as number) : FOREIGN;
    if (k === FOREIGN) return false;
    if ((k & LETTER) !== 0) {
      if (figures > 0) return false;
      figures = 0;
      word += GAIN[(c | 32) - 97] as number;
      letters++;
    } else {
      figures = (k & FIGURE) !== 0 && figures >= 0 && figures < 3 ? figures + 1 : -1;
      if (letters > 0) {
        if (sum + word > 0) {
          sum += word;
          sumLetters += letters;
        } else {
          sum = Math.max(word, 0);
          sumLetters = word > 0 ? letters : 0;
        }
        if (sum >= ENOUGH && sumLetters >= MIN_LETTERS) return false;
        word = letters = 0;
      }
    }
    if ((k & HEX) !== 0) {
      if (++hex === 8) mayBeHex = true;
    } else if ((k & GAP) === 0) hex = 0;
    if (c === 48 || c === 49) {
      if (++bits === 8) return false;
    } else bits = 0;
    if ((k & CODED) !== 0) {
      run++;
      isMixed ||= (k & DIGIT) !== 0 || ((k & UPPER) !== 0 && (before & (LOWER | SIGN)) !== 0);
      if (isMixed && run >= least) return false;
    } else {
      if ((k & SPECIAL) !== 0) {
        if (c === EQUALS && isMixed && run >= PADDED) return false;
        if (c === LF || c === CR) {
          // CR LF is one end of a line: what came before CR decides.
          if (!(c === LF && text.charCodeAt(i - 1) === CR)) goesOn = run >= least;
        } else if (escapes(text, i, c)) return false;
      }
      if (c !== LF && c !== CR) goesOn = false;
      least = goesOn && c === LF ? LINE : RUN;
      run = 0;
      isMixed = false;
    }
    before = k;
  }
  return !mayBeHex || !decodesHex(text);
}
