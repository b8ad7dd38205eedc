// Sentences of others (a server, a judge) as details of a verdict: one line, cut, and never what must not leave by
// them.

const MAX_CHARS = 240;

/** One line without control or format characters, at most `max` characters. */
export function oneLine(text: string, max = MAX_CHARS): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\s]+/gu, ' ').trim();
  return line.length > max ? `${[...line].slice(0, max - 1).join('')}…` : line;
}

/** Letters and digits alone: how a text is quoted, spaced or escaped does not matter. */
const bare = (text: string): string => text.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, '');
const RUN = 12;
const DIGITS = 6;

/**
 * Whether `text` holds a piece of `secret`: 12 letters and digits in a row, all of it if it is shorter, or 6 digits of
 * a number.
 */
export function repeats(text: string, secret: string): boolean {
  const [said, kept] = [bare(text), bare(secret)];
  if (kept.length < RUN) return kept.length >= 4 && said.includes(kept);
  for (let at = 0; at + RUN <= said.length; at++) if (kept.includes(said.slice(at, at + RUN))) return true;
  for (const [run] of said.matchAll(/[0-9]+/g))
    for (let at = 0; at + DIGITS <= run.length; at++) if (kept.includes(run.slice(at, at + DIGITS))) return true;
  return false;
}
