// Characters that look like ASCII, or that are not seen at all. Folding makes them plain, so that what was disguised
// is read as people read it: compatibility forms as NFKD has them, look-alikes of other scripts, digits of any script,
// nothing in place of what is not seen. What is no ASCII then is one byte, OTHER.
export const OTHER = 0x80;
const EXPANDED = 0x81;

/** Not seen, or steers how text is shown: control characters but tab and line ends, direction, joiners, selectors. */
const ODD_RANGES: readonly (readonly [number, number])[] = [
  [0x00, 0x08],
  [0x0b, 0x0c],
  [0x0e, 0x1f],
  [0x7f, 0x9f],
  [0xad, 0xad],
  [0x34f, 0x34f],
  [0x61c, 0x61c],
  [0x115f, 0x1160],
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x200b, 0x200f],
  [0x202a, 0x202e],
  [0x2060, 0x206f],
  [0x3164, 0x3164],
  [0xfe00, 0xfe0f],
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xfff9, 0xfffb],
  [0xdb40, 0xdb40], // leads U+E0000 to U+E03FF: tags, selectors
];

/** Pairs: what is seen, what it is read as. */
const LOOKALIKES =
  'аaеeоoрpсcуyхxіiјjѕsһhԁdԛqԝwкkтtмmгrпnАAВBЕEКKМMНHОOРPСCТTУYХXІIЈJЅSҮYԌGԚQԜWӀIαaοoνvρpυuιiκkχxγyεeτtωwΑAΒBΕEΖZΗHΙI' +
  'ΚKΜMΝNΟOΡPΤTΥYΧXıiɡgɑaᴀaʙbᴄcᴅdᴇeғfɢgʜhɪiᴊjᴋkʟlᴍmɴnᴏoᴘpʀrꜱsᴛtᴜuᴠvᴡwʏyᴢzօoսuոnհhԱUՕO' +
  '‐-‑-‒-–-—-―-−-‘\'’\'‚,“"”"„"‹<›>〈<〉>❬<❭>⟨<⟩>│|ǀ|∣|¦|▁_⁄/∕/։:∶:․.';

/** Combining marks and what is neither letter nor look-alike of one fold to themselves: nothing to build a table of. */
const SKIPPED: readonly (readonly [number, number])[] = [
  [0x3400, 0x9fff],
  [0xa000, 0xa4ff],
  [0xac00, 0xf8ff],
];
const within = (ranges: readonly (readonly [number, number])[], c: number): boolean =>
  ranges.some(([low, high]) => c >= low && c <= high);

const ALWAYS = 2;
const BESIDE_ASCII = 4;
const ODD = 1;

interface Tables {
  readonly fold: Uint8Array;
  readonly expanded: ReadonlyMap<number, string>;
  readonly kinds: Uint8Array;
}
let made: Tables | null = null;

const ASCII = /^[\x20-\x7e]+$/;
/** What a character is read as: empty, ASCII, or null where it is of its own. */
function plain(char: string): string | null {
  if (/^\p{Nd}$/u.test(char)) {
    // Digits of a script stand in a row of ten.
    let value = 0;
    const code = char.codePointAt(0) ?? 0;
    while (value < 9 && /^\p{Nd}$/u.test(String.fromCodePoint(code - value - 1))) value++;
    return code < 0x1d7ce ? String(value) : char.normalize('NFKD');
  }
  const whole = char.normalize('NFKD').replaceAll(/\p{M}/gu, '');
  return ASCII.test(whole) ? whole.slice(0, 4) : null;
}

/** Made when the first text asks for them: some milliseconds. */
function tables(): Tables {
  if (made) return made;
  const fold = new Uint8Array(65536).fill(OTHER);
  const kinds = new Uint8Array(65536);
  const expanded = new Map<number, string>();
  for (let c = 0; c < 0x80; c++) fold[c] = c;
  for (let c = 0x80; c < 0x10000; c++) {
    if (within(SKIPPED, c)) continue;
    const text = plain(String.fromCharCode(c));
    if (text === null) continue;
    fold[c] = text.length === 1 ? text.charCodeAt(0) : EXPANDED;
    if (text.length > 1) expanded.set(c, text);
    // Wide letters, letters in circles and digits are what they look like; accents and quotes are everywhere.
    const char = String.fromCharCode(c);
    const whole = char.normalize('NFKC');
    const alone = (c > 0x2000 && whole.length === 1 && /[\w<>|@-]/.test(whole)) || /\p{Nd}/u.test(char);
    kinds[c] = alone ? ALWAYS : c > 0x24f ? BESIDE_ASCII : 0;
  }
  for (let i = 0; i < LOOKALIKES.length; i += 2) {
    const c = LOOKALIKES.charCodeAt(i);
    fold[c] = LOOKALIKES.charCodeAt(i + 1);
    kinds[c] = /\p{L}/u.test(LOOKALIKES.charAt(i)) || '<>|_'.includes(LOOKALIKES.charAt(i + 1)) ? BESIDE_ASCII : 0;
  }
  // Spaces and dashes between digits are read where they stand.
  for (let c = 0x2000; c < 0x2016; c++) kinds[c] = 0;
  for (const c of [0x202f, 0x205f, 0x3000, 0x2026]) kinds[c] = 0;
  for (const [low, high] of ODD_RANGES)
    for (let c = low; c <= high; c++) {
      kinds[c] = ODD | BESIDE_ASCII;
      if (c !== 0xdb40) fold[c] = 0;
    }
  kinds[0xd835] = ALWAYS; // leads the letters of mathematics
  made = { fold, expanded, kinds };
  return made;
}

/** Letters, digits and what tokens are written with: a comma after a Cyrillic word disguises nothing. */
const COMPANY = Uint8Array.from({ length: 128 }, (_, c) => (/[\w<>|@]/.test(String.fromCharCode(c)) ? 1 : 0));
const isCompany = (c: number): boolean => c < 128 && COMPANY[c] === 1;
/** Bits per UTF-16 unit; 0: nothing to do. Look it up once per sweep, as it is made lazily. */
export const oddities = (): Uint8Array => tables().kinds;
/** A look-alike among its own: most letters of some scripts are one. */
export const isAtHome = (kind: number, text: string, i: number): boolean =>
  kind === BESIDE_ASCII && !isCompany(text.charCodeAt(i - 1)) && !isCompany(text.charCodeAt(i + 1));
export const isOdd = (kind: number): boolean => (kind & ODD) !== 0;
/** Whether folding may bring out something at `i`: a letter in disguise, or what is hidden in a word. */
export function disguises(kind: number, text: string, i: number): boolean {
  if ((kind & ALWAYS) !== 0) return true;
  return (kind & BESIDE_ASCII) !== 0 && (isCompany(text.charCodeAt(i - 1)) || isCompany(text.charCodeAt(i + 1)));
}

const astral = new Map<number, string>();
function plainAstral(code: number): string {
  // Tags and selectors are not seen.
  if (code >= 0xe0000 && code <= 0xe0fff) return '';
  const known = astral.get(code);
  if (known !== undefined) return known;
  const text = (code < 0x20000 ? plain(String.fromCodePoint(code)) : null) ?? '\x80';
  if (astral.size < 4096) astral.set(code, text);
  return text;
}

const scratch = Buffer.allocUnsafe(1 << 17);
/** A text of at most 32 Ki units made plain, one byte a character. */
export function foldText(text: string): string {
  const { fold, expanded } = tables();
  let n = 0;
  const put = (more: string): void => {
    for (let k = 0; k < more.length; k++) scratch[n++] = more.charCodeAt(k);
  };
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0xd800 && c < 0xdc00) {
      const code = text.codePointAt(i) ?? 0;
      if (code > 0xffff) i++;
      put(plainAstral(code));
      continue;
    }
    const to = fold[c] as number;
    if (to === EXPANDED) put(expanded.get(c) ?? '');
    else if (to !== 0 || c === 0) scratch[n++] = to;
  }
  return scratch.toString('latin1', 0, n);
}

/** Per unit what it folds to: ASCII, OTHER (and longer ones), 0: nothing. */
export const foldTable = (): Uint8Array => tables().fold;
