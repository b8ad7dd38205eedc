// A text as people read it, where characters disguise it: letters of other scripts among Latin ones, wide and circled
// letters, what is not seen, what is turned round. A text without a disguise comes back as it is.
import { disguises, foldTable, isOdd, OTHER, oddities } from '../detectors/fold.js';

const SIMPLE = /^[\t\n\r\x20-\x7e]*$/;
/** Another script's letters may all look Latin; beside Latin ones, at most so far away, they are read as such. */
const NEAR = 64;
/** Scripts that join and part their letters by characters that are not seen. */
const JOINS = /[\p{Script=Arabic}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Sinhala}\p{Script=Khmer}]/u;
/** Small letters that are drawn like capitals. */
const ALSO: Readonly<Record<string, string>> = { н: 'h', в: 'b' };
/** Flags of regions are spelt with tags. */
const FLAG = 0x1f3f4;
const REGION = /^\u{1f3f4}[\u{e0061}-\u{e007a}\u{e0030}-\u{e0039}]{1,6}\u{e007f}/u;
const LETTER = /[\p{L}\p{N}]/u;

/** Right-to-left override shows what follows from its end. */
const turnedRound = (text: string): string =>
  text.replaceAll(/\u202e([^\u202c\u2069\n]*)[\u202c\u2069]?/g, (_, inside: string) => [...inside].reverse().join(''));

/** Words with letters of several scripts, or of look-alikes alone near Latin ones. */
function latinWords(text: string): string {
  const fold = foldTable();
  const latin = (char: string): string | null => {
    const to = char.length === 1 ? (fold[char.charCodeAt(0)] as number) : OTHER;
    return ALSO[char] ?? (to > 0 && to < OTHER ? String.fromCharCode(to) : null);
  };
  const looksLatin = (char: string): boolean => latin(char) !== null;
  return text.replaceAll(/[\p{L}\p{M}]+/gu, (word: string, at: number) => {
    if (/^[A-Za-z]+$/.test(word)) return word;
    const letters = [...word.normalize('NFD')].filter((c) => !/\p{M}/u.test(c));
    const foreign = letters.filter((c) => !/[A-Za-z]/.test(c) && looksLatin(c) && !/\p{Script=Latin}/u.test(c));
    if (foreign.length === 0) return word;
    const mixed = letters.some((c) => /\p{Script=Latin}/u.test(c));
    if (!mixed) {
      // A word of one letter is read as Latin where Latin is on both sides of it.
      const near = letters.length > 1 ? NEAR : 8;
      const before = /[A-Za-z]/.test(text.slice(Math.max(0, at - near), at));
      const after = /[A-Za-z]/.test(text.slice(at + word.length, at + word.length + near));
      if (!letters.every(looksLatin) || !(letters.length > 1 ? before || after : before && after)) return word;
    }
    return [...word].map((c) => latin(c) ?? c).join('');
  });
}

/** Letters and digits that are shown otherwise; what is not seen where it parts or hides something. */
function seen(text: string): string {
  const kinds = oddities();
  const fold = foldTable();
  let out = '';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0xd800 && c < 0xdc00) {
      const code = text.codePointAt(i) ?? 0;
      const char = String.fromCodePoint(code);
      if (code === FLAG) {
        const flag = REGION.exec(text.slice(i, i + 16))?.[0] ?? char;
        out += flag;
        i += flag.length - 1;
        continue;
      }
      i += char.length - 1;
      if (code >= 0xe0000 && code <= 0xe0fff) continue;
      const whole = char.normalize('NFKC');
      out += whole !== char && /^[A-Za-z0-9]+$/.test(whole) ? whole : char;
      continue;
    }
    const kind = kinds[c] as number;
    if (kind === 0) {
      out += text[i];
      continue;
    }
    if (isOdd(kind)) {
      // A run of them: what it parts, or hides, is before it and after it.
      let end = i + 1;
      while (end < text.length && isOdd(kinds[text.charCodeAt(end)] as number)) end++;
      const [before, after] = [text.charAt(i - 1), text.charAt(end)];
      const joins = (c === 0x200c || c === 0x200d) && (JOINS.test(before) || JOINS.test(after));
      const parts = LETTER.test(before) && LETTER.test(after);
      const hides = end - i > 2 || (c >= 0x202a && c <= 0x202e) || disguises(kind, text, i);
      if (joins || !(parts || hides)) out += text.slice(i, end);
      i = end - 1;
      continue;
    }
    const to = fold[c] as number;
    // Letters of other scripts are the business of words.
    const word = /\p{L}/u.test(text.charAt(i)) && !/[A-Za-z0-9]/.test(text.charAt(i).normalize('NFKC'));
    out +=
      !word && disguises(kind, text, i) ? (to > 0 && to < OTHER ? String.fromCharCode(to) : text.charAt(i)) : text[i];
  }
  return out;
}

/** Marks on top of ASCII letters that no letter has. */
const bare = (text: string): string =>
  text.normalize('NFC').replaceAll(/([A-Za-z0-9])(?:(?![\u20e3\ufe0f])\p{M})+/gu, '$1');

export function plainView(text: string): string {
  if (SIMPLE.test(text)) return text;
  const whole = text.normalize('NFC');
  const plain = bare(latinWords(seen(turnedRound(whole))));
  return plain === whole ? text : plain.normalize('NFKC');
}
