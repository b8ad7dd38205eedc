// The contract of a detector: a deterministic look at a text, beside the judge. A detector can block; it can never
// allow, as that it found nothing says nothing. A new one is a file here and a line in index.ts; see CONTRIBUTING.
//
// One sweep goes over a text and calls detectors only at what they ask for, so that each costs little and all are
// linear by construction: a call may look at most LOOK_BACK characters back and LOOK_AHEAD ahead, and takes time
// bounded by a constant. No regular expression is run on a text, as JavaScript's go back and try again; on pieces of a
// known length they may.

/** How a text was read when something was found: as it is, or made plain first. */
export type View = 'raw' | 'folded' | 'base64' | 'hex' | 'rot13';

/** Reports a finding from `from` to before `to` of the text that the detector was given. */
export type Report = (rule: string, from: number, to: number, view?: View) => void;

/** What a call may look at before the place that it was called for, and after it. */
export const LOOK_BACK = 320;
export const LOOK_AHEAD = 1024;
/** A run of fewer letters, digits, `+`, `/`, `_` and `-` is no token and hides no encoded text. */
export const MIN_TOKEN = 24;

export interface Rule {
  readonly id: string;
  /** What it finds, for people. */
  readonly finds: string;
  /** Only where it is asked for by name: it finds too much that is meant to be there. */
  readonly onRequest?: boolean;
}

/** State that goes on from piece to piece of a text; what it says must not depend on where the pieces end. */
export interface Feed {
  /** The characters from `from` to before `to`; what comes before them was fed already. */
  feed(text: string, from: number, to: number, report: Report): void;
  /** Another text begins: as if nothing had been fed. */
  begin(): void;
}

/** What must stand beside a trigger for a call to be worth it: any of these. It may let too much through. */
export interface Gate {
  /** By `pairOf` the two characters before: 1 where it is one. */
  readonly after?: Uint8Array;
  /** By its code the character after it, if it is ASCII: 1 where it is one. */
  readonly next?: Uint8Array;
  /** So many token characters before it. */
  readonly run?: number;
}
export const PAIRS = 1 << 14;
/** ASCII alone is told apart. */
export const pairOf = (a: number, b: number): number => ((a & 127) << 7) | (b & 127);
export const gateOf = (chars: string): Uint8Array =>
  Uint8Array.from({ length: 128 }, (_, c) => (chars.includes(String.fromCharCode(c)) ? 1 : 0));

/** Its methods are called by themselves, without `this`. */
export interface Detector {
  readonly name: string;
  /** Raised whenever it may answer otherwise: part of its digest. */
  readonly version: number;
  readonly rules: readonly Rule[];
  /** ASCII characters at which `at` is called. */
  readonly triggers?: string;
  /** By trigger; absent: it is called at each of them. */
  readonly gates?: Readonly<Record<string, Gate>>;
  at?(text: string, i: number, report: Report): void;
  /** Called at the first digit of a run of ASCII digits. */
  digits?(text: string, i: number, report: Report): void;
  /** Called for each run of MIN_TOKEN to LOOK_AHEAD letters, digits, `+`, `/`, `_` and `-`. */
  token?(text: string, from: number, to: number, report: Report): void;
  /** Called for characters that are not seen: see `isOdd` in fold.ts. */
  odd?(text: string, i: number, report: Report): void;
  /** What is shorter has nothing that `start` could find, characters; absent: 0. */
  readonly least?: number;
  /** Of the raw text alone, decoded ones aside. */
  start?(settings: DetectorSettings): Feed | null;
  /** Decoded bytes and folded text are none of its business. */
  readonly rawOnly?: boolean;
}

export interface DetectorSettings {
  /** Strings that must not come back: for the detector of canaries. */
  readonly canaries?: readonly string[];
}

export interface Finding {
  readonly detector: string;
  readonly rule: string;
  readonly view: View;
  /** UTF-16 offsets in the raw text; of a view other than raw and rot13, where the text that was made plain lies. */
  readonly from: number;
  readonly to: number;
}

export const isDigitCode = (c: number): boolean => c >= 48 && c <= 57;
export const isLetterCode = (c: number): boolean => (c >= 65 && c <= 90) || (c >= 97 && c <= 122);
export const isAlnumCode = (c: number): boolean => isDigitCode(c) || isLetterCode(c);
/** NaN, past an end, is neither. */
export const alnumAt = (text: string, i: number): boolean => isAlnumCode(text.charCodeAt(i));

const isHexCode = (c: number): boolean => isDigitCode(c) || (c >= 65 && c <= 70) || (c >= 97 && c <= 102);
/** Letters of ends of lines and tabs as JSON and programs write them: `\n`, `\r`, `\t`, `\b`, `\f`. */
const isEscapeLetter = (c: number): boolean => c === 110 || c === 114 || c === 116 || c === 98 || c === 102;
const PERCENT = 37,
  BACKSLASH = 92,
  U = 117;
/** How many characters from `i` on are of an escape that begins before: 1 of `\n`, 5 of `\u000a`, 2 of `%3D`. */
export function escapedAt(text: string, i: number): number {
  const before = text.charCodeAt(i - 1);
  const all = (from: number, n: number): boolean => {
    for (let k = from; k < from + n; k++) if (!isHexCode(text.charCodeAt(k))) return false;
    return true;
  };
  if (before === PERCENT) return all(i, 2) ? 2 : 0;
  if (before !== BACKSLASH) return 0;
  const c = text.charCodeAt(i);
  return isEscapeLetter(c) ? 1 : c === U && all(i + 1, 4) ? 5 : 0;
}
/** Whether a word begins at `i`: no letter or digit stands before it, or one that is the end of an escape. */
export function beginsWord(text: string, i: number): boolean {
  if (!alnumAt(text, i - 1)) return true;
  if (text.charCodeAt(i - 2) === BACKSLASH) return isEscapeLetter(text.charCodeAt(i - 1));
  if (text.charCodeAt(i - 3) === PERCENT) return escapedAt(text, i - 2) === 2;
  return text.charCodeAt(i - 6) === BACKSLASH && escapedAt(text, i - 5) === 5;
}
