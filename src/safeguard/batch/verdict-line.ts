// A verdict as it is written: what JSON.stringify makes of the head and the verdict in one object, in a tenth of the
// time. Lines of one policy differ in a few members; the text between these is kept from the first such line.
import type { VerdictRow } from '../agreement.js';
import type { Verdict } from '../types.js';

type Head = Omit<VerdictRow, keyof Verdict>;
/** Members that differ from line to line. */
const VARYING: ReadonlySet<string> = new Set([
  ...['row', 'id', 'line', 'expect', 'channel', 'content', 'rule', 'rationale', 'detail', 'latencyMs', 'score'],
  ...['characters', 'judged', 'windows'],
]);
/** Members that hold members of their own. */
const INSIDE: ReadonlySet<string> = new Set(['digests', 'coverage']);

/** What a member is in all lines of a form, if not the same value: another one, an object that begins, `["raw"]`. */
const DIFFERS = Symbol('differs');
const BEGINS = Symbol('begins');
const RAW = Symbol('raw');
interface Form {
  /** null: the members of an object end. */
  readonly keys: (string | null)[];
  readonly values: unknown[];
  /** Before the first member that differs, between two of them, after the last. */
  readonly texts: string[];
}

/** Texts that are written as they are. */
const PLAIN = /^[ !#-[\]-~]*$/;
/** The small ones, as most are. */
const NUMBERS = Array.from({ length: 1024 }, (_, n) => String(n));
function textOf(value: unknown): string {
  if (typeof value === 'string') return PLAIN.test(value) ? `"${value}"` : JSON.stringify(value);
  if (typeof value === 'number') return NUMBERS[value] ?? JSON.stringify(value);
  return value === null ? 'null' : (JSON.stringify(value) as string);
}
/** Views that most texts have. */
const isRaw = (value: unknown): boolean => Array.isArray(value) && value.length === 1 && value[0] === 'raw';
/** What is `===` to itself later has the same text then: objects may be changed, unless they are frozen. */
const isLasting = (value: unknown): boolean => typeof value !== 'object' || value === null || Object.isFrozen(value);

/** The form of a line; null: it holds what no other line will. */
function formOf(head: object, verdict: object): Form | null {
  const form: Form = { keys: [], values: [], texts: [] };
  let text = '{';
  const take = (object: object, isFirst: boolean): boolean => {
    let comma = isFirst ? '' : ',';
    for (const [key, value] of Object.entries(object)) {
      if (value === undefined) continue;
      text += `${comma}${JSON.stringify(key)}:`;
      comma = ',';
      form.keys.push(key);
      if (INSIDE.has(key) && typeof value === 'object' && value !== null) {
        form.values.push(BEGINS);
        text += '{';
        if (!take(value, true)) return false;
        form.keys.push(null);
        form.values.push(null);
        text += '}';
      } else if (VARYING.has(key)) {
        form.values.push(DIFFERS);
        form.texts.push(text);
        text = '';
      } else if (isRaw(value)) {
        form.values.push(RAW);
        text += '["raw"]';
      } else if (isLasting(value)) {
        form.values.push(value);
        text += JSON.stringify(value);
      } else return false;
    }
    return true;
  };
  if (!take(head, true) || !take(verdict, form.keys.length === 0)) return null;
  form.texts.push(`${text}}`);
  return form;
}

/** A line of a form as far as it is written. */
let [line, members, gaps] = ['', 0, 0];
/** Writes the members of an object there. @returns false: they are not of the form */
function follow(form: Form, object: object): boolean {
  const { keys, values, texts } = form;
  // Values of JSON have no keys but their own.
  for (const key in object) {
    const value = (object as Readonly<Record<string, unknown>>)[key];
    if (value === undefined) continue;
    if (keys[members] !== key) return false;
    const known = values[members++];
    if (known === DIFFERS) line += textOf(value) + (texts[++gaps] as string);
    else if (known === BEGINS) {
      if (typeof value !== 'object' || value === null || !follow(form, value)) return false;
      if (keys[members++] !== null) return false;
    } else if (known === RAW ? !isRaw(value) : known !== value) return false;
  }
  return true;
}

/** Forms by policy, and how many of one there are at most: outcomes, causes, thresholds. */
const forms = new Map<string, Form[]>();
const MOST_POLICIES = 256;
const MOST_FORMS = 32;

/** The line of head and verdict by that form; null: they are of another. */
function lineBy(form: Form, head: object, verdict: object): string | null {
  line = form.texts[0] as string;
  members = gaps = 0;
  return follow(form, head) && follow(form, verdict) && members === form.keys.length ? line : null;
}
export function verdictLine(head: Head, verdict: Verdict): string {
  let known = forms.get(verdict.policy);
  if (!known) {
    known = [];
    if (forms.size < MOST_POLICIES) forms.set(verdict.policy, known);
  }
  for (const form of known) {
    const written = lineBy(form, head, verdict);
    if (written !== null) return written;
  }
  const written = JSON.stringify({ ...head, ...verdict });
  const form = known.length < MOST_FORMS ? formOf(head, verdict) : null;
  if (form && lineBy(form, head, verdict) === written) known.push(form);
  return written;
}
