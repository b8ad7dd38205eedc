// One text for one value: JSON as RFC 8785 (JCS) has it, keys by their UTF-16 code units, no white space.

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

const MAX_DEPTH = 64;
/** Strings that are written as they are. */
const PLAIN = /^[ !#-[\]-~]*$/;

function quoted(text: string): string {
  if (PLAIN.test(text)) return `"${text}"`;
  if (!text.isWellFormed()) throw new TypeError('a text holds half of a surrogate pair');
  return JSON.stringify(text);
}
function sortedKeys(value: object): readonly string[] {
  const keys = Object.keys(value);
  // Most objects are made in order.
  for (let i = 1; i < keys.length; i++) if ((keys[i - 1] as string) > (keys[i] as string)) return keys.sort();
  return keys;
}

/**
 * Members that are undefined are left out.
 * @throws {TypeError} what no JSON has: half a surrogate pair, NaN, infinity
 */
export function canonicalJson(value: Json, depth = 0): string {
  if (typeof value === 'string') return quoted(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new TypeError(`a number is ${value}`);
    return String(value);
  }
  if (value === null || value === true || value === false) return String(value);
  if (typeof value !== 'object') throw new TypeError(`a value is ${typeof value}`);
  if (depth > MAX_DEPTH) throw new TypeError(`nested deeper than ${MAX_DEPTH}`);
  if (Array.isArray(value)) return `[${value.map((v: Json) => canonicalJson(v, depth + 1)).join(',')}]`;
  let members = '';
  for (const key of sortedKeys(value)) {
    const member = (value as JsonObject)[key];
    if (member !== undefined)
      members += `${members === '' ? '' : ','}${quoted(key)}:${canonicalJson(member, depth + 1)}`;
  }
  return `{${members}}`;
}

/** Whether two values are one JSON; what no JSON can hold, or is nested too deep, is none. */
export function sameJson(a: unknown, b: unknown): boolean {
  try {
    return canonicalJson((a ?? null) as Json) === canonicalJson((b ?? null) as Json);
  } catch (e) {
    if (e instanceof TypeError) return false;
    throw e;
  }
}

/** Where two values differ first, as a path; null: nowhere. Members that `made` does not have are not compared. */
export function firstDifference(made: unknown, written: unknown, at = ''): string | null {
  if (typeof made !== 'object' || made === null || Array.isArray(made))
    return sameJson(made, written) ? null : at || 'all of it';
  for (const [key, value] of Object.entries(made)) {
    const other =
      typeof written === 'object' && written !== null ? (written as Record<string, unknown>)[key] : undefined;
    const found = firstDifference(value, other, at === '' ? key : `${at}.${key}`);
    if (found !== null) return found;
  }
  return null;
}
