// A verdict as it is written: what JSON.stringify makes of the head and the verdict in one object, in a fifth of the
// time. Most of its texts need no escapes; pieces are put together once for many lines, as strings that grow by pieces
// are most of what the collector would have to do.
import type { VerdictRow } from '../agreement.js';
import type { Verdict } from '../types.js';

/** Texts that are written as they are. */
const PLAIN = /^[ !#-[\]-~]*$/;

interface Name {
  /** `,"name":` */
  readonly plain: string;
  /** With the quote after it with which a text begins. */
  readonly quoted: string;
}
/** How a member begins, by its name: the few that there are. */
const names = new Map<string, Name>();
function nameOf(key: string): Name {
  const known = names.get(key);
  if (known) return known;
  const plain = `,${JSON.stringify(key)}:`;
  const name = { plain, quoted: `${plain}"` };
  if (names.size < 256) names.set(key, name);
  return name;
}
/** The small ones, as most are. */
const NUMBERS = Array.from({ length: 1024 }, (_, n) => String(n));
function numberText(n: number): string {
  const text = n >= 0 && n < NUMBERS.length ? NUMBERS[n] : undefined;
  return Object.is(n, -0) ? '0' : (text ?? (Number.isFinite(n) ? String(n) : 'null'));
}

/** Puts the members there, with a comma before each. @returns their length */
function putMembers(pieces: string[], value: object): number {
  let length = 0;
  // Values of JSON have no keys but their own.
  for (const key in value) {
    const member = (value as Readonly<Record<string, unknown>>)[key];
    if (member === undefined) continue;
    const name = nameOf(key);
    if (typeof member === 'string' && PLAIN.test(member)) {
      pieces.push(name.quoted, member, '"');
      length += name.quoted.length + member.length + 1;
    } else if (key === 'digests' || key === 'coverage') {
      const at = pieces.length;
      length += putMembers(pieces, member as object) + name.plain.length + 1;
      // The comma before the first of them is the brace.
      const first = pieces[at];
      if (first === undefined) {
        pieces.push(`${name.plain}{`);
        length++;
      } else pieces[at] = openedOf(name.plain, first);
      pieces.push('}');
    } else {
      const text =
        member === null
          ? 'null'
          : typeof member === 'number'
            ? numberText(member)
            : isRaw(member)
              ? '["raw"]'
              : (JSON.stringify(member) as string);
      pieces.push(name.plain, text);
      length += name.plain.length + text.length;
    }
  }
  return length;
}
const opened = new Map<string, Map<string, string>>();
/** `,"digests":{"policy":"`, of `,"digests":` and `,"policy":"`. */
function openedOf(name: string, first: string): string {
  const of = opened.get(name) ?? new Map<string, string>();
  if (opened.size < 8) opened.set(name, of);
  const known = of.get(first);
  if (known !== undefined) return known;
  const text = `${name}{${first.slice(1)}`;
  if (of.size < 256) of.set(first, text);
  return text;
}
/** Views that most texts have. */
const isRaw = (member: unknown): boolean => Array.isArray(member) && member.length === 1 && member[0] === 'raw';

/** Puts the pieces of a line there. @returns its length */
export function putVerdict(pieces: string[], head: Omit<VerdictRow, keyof Verdict>, verdict: Verdict): number {
  const at = pieces.length;
  const length = putMembers(pieces, head) + putMembers(pieces, verdict) + 1;
  const first = pieces[at] ?? '';
  pieces[at] = openedOf('', first);
  pieces.push('}');
  return length;
}
export function verdictLine(head: Omit<VerdictRow, keyof Verdict>, verdict: Verdict): string {
  const pieces: string[] = [];
  putVerdict(pieces, head, verdict);
  return pieces.join('');
}
