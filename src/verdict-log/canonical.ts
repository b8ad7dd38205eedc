// One text for one value: JSON as RFC 8785 (JCS) has it, keys by their UTF-16 code units, no white space.

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

const MAX_DEPTH = 64;

/**
 * Members that are undefined are left out.
 * @throws {TypeError} what no JSON has: half a surrogate pair, NaN, infinity
 */
export function canonicalJson(value: Json, depth = 0): string {
  if (depth > MAX_DEPTH) throw new TypeError(`nested deeper than ${MAX_DEPTH}`);
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new TypeError('a text holds half of a surrogate pair');
    return JSON.stringify(value);
  }
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`a number is ${value}`);
  if (value === null || typeof value !== 'object') {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined) throw new TypeError(`a value is ${typeof value}`);
    return text;
  }
  if (Array.isArray(value)) return `[${value.map((v: Json) => canonicalJson(v, depth + 1)).join(',')}]`;
  const members: string[] = [];
  for (const key of Object.keys(value).sort()) {
    const member = (value as JsonObject)[key];
    if (member !== undefined) members.push(`${canonicalJson(key)}:${canonicalJson(member, depth + 1)}`);
  }
  return `{${members.join(',')}}`;
}
