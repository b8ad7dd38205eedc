// JSON as it was written. JSON.parse keeps the last of two equal keys, rounds numbers and moves keys that look like
// numbers to the front: here equal keys are refused, and what JSON.stringify would not give back is kept as text.
/** Deeper nesting is refused: everything after this may recurse. */
const MAX_DEPTH = 256;

/** Where objects and lists stand in their texts that JSON.stringify would write otherwise. */
const asWritten = new WeakMap<object, { readonly text: string; readonly at: number }>();

interface Open {
  readonly at: number;
  readonly value: unknown;
  /** null: a list. */
  readonly keys: Set<string> | null;
  key: string;
  index: number;
  /** JSON.stringify gives it back, but for white space and escapes. */
  exact: boolean;
  /** Largest key so far that JavaScript sorts as a number; Infinity after any other key. */
  largest: number;
}

/** Place after the string that begins at `at`. */
function stringEnd(text: string, at: number): number {
  for (let i = at + 1; ; i++) {
    i = text.indexOf('"', i);
    let slashes = 0;
    while (text.charCodeAt(i - 1 - slashes) === 0x5c) slashes++;
    if (slashes % 2 === 0) return i + 1;
  }
}
const stringAt = (text: string, from: number, to: number): string => {
  const inside = text.slice(from + 1, to - 1);
  return inside.includes('\\') ? (JSON.parse(text.slice(from, to)) as string) : inside;
};
const isSpace = (c: number): boolean => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;
const isDigit = (c: number): boolean => c >= 0x30 && c <= 0x39;
/** Keys that JavaScript sorts as numbers, before all others. */
const INDEX_KEY = /^(0|[1-9]\d{0,9})$/;
/** A number, or one of the three words. */
const PLAIN = /[^\s,\]}]+/y;
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

/** Place after the number at `at`; negative where JSON.stringify would write it otherwise. */
function numberEnd(text: string, at: number): number {
  let end = at;
  while (isDigit(text.charCodeAt(end))) end++;
  const next = text.charCodeAt(end);
  const short = end > at && end - at <= 15 && (end - at === 1 || text.charCodeAt(at) !== 0x30);
  if (short && next !== 0x2e && next !== 0x65 && next !== 0x45) return end;
  NUMBER.lastIndex = at;
  const token = NUMBER.exec(text)?.[0] ?? '';
  return String(Number(token)) === token ? at + token.length : -(at + token.length);
}

const isPlainSpace = (c: number): boolean => c <= 0x20;
/** Keys in a value, those of inner objects included; −1: nested too deep. */
function countKeys(value: unknown, depth = 0): number {
  if (typeof value !== 'object' || value === null) return 0;
  if (depth === MAX_DEPTH) return -1;
  let count = 0;
  if (Array.isArray(value))
    for (const v of value) {
      const inside = countKeys(v, depth + 1);
      if (inside < 0) return -1;
      count += inside;
    }
  else
    for (const key in value) {
      const inside = countKeys((value as Record<string, unknown>)[key], depth + 1);
      if (inside < 0) return -1;
      count += 1 + inside;
    }
  return count;
}
/**
 * Whether a text is one whose value has lost nothing: numbers as they would be written, no keys that look like them, as
 * many keys in the text as in the value. Most rows of conversations are; others are looked at letter by letter.
 */
function isSimple(text: string, value: unknown): boolean {
  let keys = 0;
  for (let i = 0; ; ) {
    const quote = text.indexOf('"', i);
    for (const end = quote < 0 ? text.length : quote; i < end; ) {
      const c = text.charCodeAt(i);
      i = c === 0x2d || isDigit(c) ? numberEnd(text, i) : i + 1;
      if (i < 0) return false;
    }
    if (quote < 0) return keys === countKeys(value);
    const end = stringEnd(text, quote);
    for (i = end; isPlainSpace(text.charCodeAt(i)); ) i++;
    if (text.charCodeAt(i) !== 0x3a) continue;
    const first = text.charCodeAt(quote + 1);
    if (isDigit(first) || first === 0x5c) return false;
    keys++;
    i++;
  }
}

/**
 * What JSON.parse gives, checked against the text; `jsonText` knows what was lost.
 * @throws {SyntaxError} not JSON, two equal keys in one object, nested deeper than 256
 */
export function parseJson(text: string): unknown {
  const root: unknown = JSON.parse(text);
  if (isSimple(text, root)) return root;
  const stack: Open[] = [];
  const child = (): unknown => {
    const top = stack.at(-1);
    if (!top) return root;
    // The first of two equal keys: what JSON.parse kept is the last one's value.
    if (typeof top.value !== 'object' || top.value === null) return undefined;
    return (top.value as Record<string | number, unknown>)[top.keys ? top.key : top.index];
  };
  for (let i = 0; i < text.length; ) {
    const c = text.charCodeAt(i);
    const top = stack.at(-1);
    if (c === 0x22) {
      const end = stringEnd(text, i);
      let next = end;
      while (isSpace(text.charCodeAt(next))) next++;
      if (top?.keys && text.charCodeAt(next) === 0x3a) {
        takeKey(top, stringAt(text, i, end));
        i = next + 1;
      } else i = end;
    } else if (c === 0x7b || c === 0x5b) {
      if (stack.length === MAX_DEPTH) throw new SyntaxError(`it is nested deeper than ${MAX_DEPTH}`);
      const keys = c === 0x7b ? new Set<string>() : null;
      stack.push({ at: i++, value: child(), keys, key: '', index: 0, exact: true, largest: -1 });
    } else if (c === 0x7d || c === 0x5d) {
      i++;
      stack.pop();
      if (!top || top.exact) continue;
      if (typeof top.value === 'object' && top.value !== null) asWritten.set(top.value, { text, at: top.at });
      const parent = stack.at(-1);
      if (parent) parent.exact = false;
    } else if (c === 0x2d || isDigit(c)) {
      const end = numberEnd(text, i);
      if (end < 0 && top) top.exact = false;
      i = Math.abs(end);
    } else {
      if (c === 0x2c && top) top.index++;
      i++;
    }
  }
  return root;
}

function takeKey(top: Open, key: string): void {
  if (top.keys?.has(key)) throw new SyntaxError(`the key ${JSON.stringify(key)} is there twice in one object`);
  top.keys?.add(key);
  top.key = key;
  const number = INDEX_KEY.test(key) && Number(key) < 2 ** 32 - 1 ? Number(key) : Number.POSITIVE_INFINITY;
  if (number !== Number.POSITIVE_INFINITY && number < top.largest) top.exact = false;
  top.largest = Math.max(top.largest, number);
}

/** Another number for one of a text; `path`: the keys that lead to it, those of lists are empty. */
export type Rewrite = (token: string, path: readonly string[]) => string;
/**
 * The value at `at` without white space and null members, its numbers and the order of its keys as they stand.
 * @param rewrite other numbers, and members that are null stay
 */
function compact(
  text: string,
  at: number,
  rewrite: Rewrite | null = null,
  path: readonly string[] = [],
): { readonly text: string; readonly end: number } {
  const skip = (i: number): number => {
    while (isSpace(text.charCodeAt(i))) i++;
    return i;
  };
  const c = text[at];
  if (c === '"') {
    const end = stringEnd(text, at);
    return { text: JSON.stringify(stringAt(text, at, end)), end };
  }
  if (c !== '{' && c !== '[') {
    PLAIN.lastIndex = at;
    const plain = PLAIN.exec(text)?.[0] ?? '',
      end = at + plain.length;
    return { text: rewrite && /\d/.test(plain) ? rewrite(plain, path) : plain, end };
  }
  const parts: string[] = [];
  const close = c === '{' ? '}' : ']';
  for (let i = skip(at + 1); ; i = skip(i + 1)) {
    if (text[i] === close) return { text: c + parts.join(',') + close, end: i + 1 };
    let key = '',
      named = '';
    if (c === '{') {
      const end = stringEnd(text, i);
      key = stringAt(text, i, end);
      named = `${JSON.stringify(key)}:`;
      i = skip(skip(end) + 1);
    }
    const value = compact(text, i, rewrite, rewrite ? [...path, key] : path);
    if (c !== '{' || rewrite || value.text !== 'null') parts.push(named + value.text);
    i = skip(value.end);
    if (text[i] === close) i--;
  }
}

/**
 * A value as compact JSON: numbers and order of keys as in the text it was parsed from, members that are null left out.
 * 64-bit integers of tables are written whole.
 */
export function jsonText(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const written = asWritten.get(value);
  if (written) return compact(written.text, written.at).text;
  if (Array.isArray(value)) return `[${value.map(jsonText).join(',')}]`;
  return `{${Object.entries(value)
    .filter(([, v]) => v !== null && v !== undefined)
    .map(([k, v]) => `${JSON.stringify(k)}:${jsonText(v)}`)
    .join(',')}}`;
}

/** A value that parseJson made as compact JSON that says all that its text did, members that are null among it. */
export function exactText(value: unknown): string {
  const written = typeof value === 'object' && value !== null ? asWritten.get(value) : undefined;
  return written ? compact(written.text, written.at, (token) => token).text : (JSON.stringify(value) ?? 'null');
}

/** Whether the text it was parsed from says more than the value: numbers too long, keys in an order of their own. */
export const isRounded = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && asWritten.has(value);

/** The value with other numbers, each chosen by its text; itself where nothing of its text was lost. */
export function withNumbers<T extends object>(value: T, rewrite: Rewrite): T {
  const written = asWritten.get(value);
  return written ? (JSON.parse(compact(written.text, written.at, rewrite).text) as T) : value;
}

export const PROTO = '__proto__';
/** Whether an object in it has a key that readers of JSON drop or take for something else: its value would be lost. */
export function hasProto(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.hasOwn(value, PROTO) || Object.values(value).some(hasProto);
}

/** Whether a string or a key in it holds half of a surrogate pair: UTF-8 has none, a tokenizer would replace it. */
export function hasLoneSurrogate(value: unknown): boolean {
  if (typeof value === 'string') return !value.isWellFormed();
  if (value === null || typeof value !== 'object') return false;
  if (Array.isArray(value)) return value.some(hasLoneSurrogate);
  return Object.entries(value).some(([k, v]) => !k.isWellFormed() || hasLoneSurrogate(v));
}

type Path = readonly (string | number)[];
/** A schema's `default: null` means something where null is one of its values. */
const takesNull = (o: Readonly<Record<string, unknown>>): boolean =>
  o.nullable === true ||
  [o.type, o.anyOf, o.oneOf].some(
    (list) =>
      Array.isArray(list) && list.some((v) => v === 'null' || (v as { type?: unknown } | null)?.type === 'null'),
  );

/**
 * The value without members that are null, which is how a table says "absent"; entries of lists stay. What holds none
 * is returned as it is. @param onDrop told of each
 */
export function withoutNulls(value: unknown, onDrop: (path: Path) => void = () => {}, path: Path = []): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) {
    if (value.every((v) => v === null || typeof v !== 'object')) return value;
    const out = value.map((v, i) => withoutNulls(v, onDrop, [...path, i]));
    return out.every((v, i) => v === value[i]) ? value : keepText(value, out);
  }
  let changed = false;
  const members: [string, unknown][] = [];
  for (const [k, v] of Object.entries(value)) {
    if (v === null && !(k === 'default' && takesNull(value as Record<string, unknown>))) {
      onDrop([...path, k]);
      changed = true;
      continue;
    }
    const inner = withoutNulls(v, onDrop, [...path, k]);
    changed ||= inner !== v;
    members.push([k, inner]);
  }
  return changed ? keepText(value, Object.fromEntries(members)) : value;
}

function keepText<T extends object>(from: object, to: T): T {
  const written = asWritten.get(from);
  if (written) asWritten.set(to, written);
  return to;
}

/** Columns that hold conversations. */
const CONVERSATIONS = ['messages', 'conversations', 'conversation', 'chosen', 'rejected', 'prompt'] as const;
const isMessage = (v: unknown): boolean => typeof v === 'object' && v !== null && ('role' in v || 'from' in v);

/**
 * A row whose conversations are JSON text, as a table without nested columns keeps them, with the lists that they say.
 * Any other text stays text: a prompt or an answer may be one. @param onParsed told of each
 */
export function withParsedConversations(row: unknown, onParsed: () => void = () => {}): unknown {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return row;
  const fields = row as Readonly<Record<string, unknown>>;
  const parsed: Record<string, unknown> = {};
  for (const name of CONVERSATIONS) {
    const text = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (typeof text !== 'string' || !/^\s*\[\s*\{/.test(text)) continue;
    let value: unknown;
    try {
      value = parseJson(text);
    } catch {
      continue;
    }
    if (!Array.isArray(value) || !value.every(isMessage)) continue;
    parsed[name] = value;
    onParsed();
  }
  // The order of the fields is that of the row.
  return Object.keys(parsed).length === 0
    ? row
    : Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, parsed[k] ?? v]));
}
