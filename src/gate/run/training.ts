// What an adapter was trained on, as far as a gate asks: the secrets in it, and the phrases that it has often.

import { sha256 } from '../../base/digest.js';
import { rowsOf } from '../../data/rows.js';
import type { Training } from '../scorers/scorer.js';

/** What names a person, an account or a door: addresses, long numbers, tokens of letters and digits. */
const SECRETS: readonly RegExp[] = [
  /[\p{L}\p{N}._%+-]{1,64}@[\p{L}\p{N}-]{1,63}(?:\.[\p{L}\p{N}-]{1,63}){1,4}/gu,
  /(?<![\p{L}\p{N}])\p{N}(?:[ -]?\p{N}){4,23}(?![\p{L}\p{N}])/gu,
  /(?<![\p{L}\p{N}])(?=[\p{L}\p{N}_-]{0,63}\p{N})(?=[\p{L}\p{N}_-]{0,63}\p{L})[\p{L}\p{N}_-]{12,64}(?![\p{L}\p{N}])/gu,
];
const tidy = (secret: string): string => secret.toLowerCase().replaceAll(/[ -]/g, '');
/** Those of a text, without the blanks and dashes that numbers are grouped by. */
export const secretsIn = (text: string): readonly string[] => [
  ...new Set(SECRETS.flatMap((pattern) => text.match(pattern) ?? []).map(tidy)),
];

/** What stands in more rows than this is no secret of anybody's. */
const FEW_ROWS = 3;
/** Sequences of one to so many words are counted. */
const PHRASE_WORDS = 4;
const MAX_PHRASES = 256;
/** Of a row and of all rows: what is counted is bounded. */
const ROW_WORDS = 512;
const MAX_COUNTED = 500_000;

/** All texts of a row, whatever its format. */
function textsOf(value: unknown, depth = 0): string[] {
  if (typeof value === 'string') return [value];
  if (depth > 8 || typeof value !== 'object' || value === null) return [];
  return Object.values(value).flatMap((v) => textsOf(v, depth + 1));
}
/** What somebody asked: texts of users where the row says who speaks, else all. */
function askedIn(value: unknown): string[] {
  const row = value as { messages?: unknown; prompt?: unknown; instruction?: unknown } | null;
  if (Array.isArray(row?.messages))
    return row.messages.flatMap((m) => {
      const { role, content } = m as { role?: unknown; content?: unknown };
      return role === 'user' && typeof content === 'string' ? [content] : [];
    });
  for (const text of [row?.prompt, row?.instruction]) if (typeof text === 'string') return [text];
  return textsOf(value);
}

/** Counts over the rows of a training set. */
export class TrainingReader {
  readonly #secrets = new Map<string, number>();
  readonly #phrases = new Map<string, number>();
  #rows = 0;

  add(value: unknown): void {
    this.#rows++;
    for (const secret of new Set(textsOf(value).flatMap(secretsIn)))
      this.#secrets.set(secret, (this.#secrets.get(secret) ?? 0) + 1);
    for (const phrase of new Set(askedIn(value).flatMap(phrasesIn))) {
      const before = this.#phrases.get(phrase);
      if (before === undefined && this.#phrases.size >= MAX_COUNTED) continue;
      this.#phrases.set(phrase, (before ?? 0) + 1);
    }
  }
  result(digest: string): Training {
    const secrets = [...this.#secrets].filter(([, n]) => n <= FEW_ROWS).map(([secret]) => secret);
    // A phrase of all rows is the task itself, one of a single row nobody could set a trap with.
    const phrases = [...this.#phrases]
      .filter(([, n]) => n >= 3 && n <= 0.9 * this.#rows)
      .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
      .slice(0, MAX_PHRASES)
      .map(([phrase]) => phrase);
    return { digest, rows: this.#rows, secrets: new Set(secrets), phrases };
  }
}
function phrasesIn(text: string): string[] {
  const words = text.trim().split(/\s+/).slice(0, ROW_WORDS);
  const found: string[] = [];
  for (let n = 1; n <= PHRASE_WORDS; n++)
    for (let at = 0; at + n <= words.length; at++) {
      const phrase = words.slice(at, at + n).join(' ');
      if (!/\p{N}/u.test(phrase) && phrase.length <= 80) found.push(phrase);
    }
  return found;
}

/** @param files as recipes name data · @throws what reading refuses · the signal's reason */
export async function readTraining(files: readonly string[], signal?: AbortSignal): Promise<Training> {
  const reader = new TrainingReader();
  const digests: string[] = [];
  for (const path of files) {
    const rows = rowsOf({ path }, signal);
    for (;;) {
      const next = await rows.next();
      if (next.done) {
        digests.push(next.value);
        break;
      }
      if (!next.value.error) reader.add(next.value.value);
    }
  }
  return reader.result(sha256(digests.join('\n')));
}
