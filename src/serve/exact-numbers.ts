// Schemas with numbers that JavaScript has none for, as 9223372036854775807: what is compiled and checked would be
// another schema than the one that was asked for.
import { withNumbers } from '../base/json.js';
import { badRequest } from './api-error.js';

/** A number as its digits without zeros around them, and the power of ten of the last one. */
function exactly(token: string): string {
  const [, sign = '', whole = '', fraction = '', power = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(token) ?? [];
  const digits = `${whole}${fraction}`.replace(/^0+/, ''),
    short = digits.replace(/0+$/, '');
  return short === '' ? '0' : `${sign}${short}e${Number(power) - fraction.length + digits.length - short.length}`;
}
const bits = new DataView(new ArrayBuffer(8));
/** The next number after `n`, which is none between them. */
function neighbour(n: number, isLarger: boolean): number {
  bits.setFloat64(0, n);
  bits.setBigInt64(0, bits.getBigInt64(0) + (isLarger === n > 0 ? 1n : -1n));
  return bits.getFloat64(0);
}
/** Bounds of 64 bits, which JavaScript writes without an exponent. */
const INTEGER = /^-?\d{1,20}$/;
/** A bound that is no number is the next one within it: what keeps to that keeps to it. null: it is not known. */
function inwards(token: string, keyword: string): number | null {
  if (!INTEGER.test(token)) return null;
  const asked = BigInt(token),
    isLeast = LEAST.includes(keyword);
  // As it is and as it is written, which may be another one.
  const isOutside = (n: number): boolean =>
    [BigInt(n), BigInt(String(n))].some((v) => (isLeast ? v < asked : v > asked));
  let n = Number(token);
  while (isOutside(n)) n = neighbour(n, isLeast);
  return n;
}
const LEAST = ['minimum', 'exclusiveMinimum'],
  MOST = ['maximum', 'exclusiveMaximum'];
/** Under these, fewer values of a part are not fewer of the whole. */
const TURNS = /"(?:not|if|oneOf|contains|unevaluatedProperties|unevaluatedItems)":/;
/** What stands in these says nothing. */
const REMARKS = ['default', 'examples', 'example'];
/** In these names stand, which may be called as keywords are. */
const NAMED = ['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas'];
/** The keywords that lead to a place, without the names in between. */
const keywordsOf = (path: readonly string[]): readonly string[] => {
  const keywords: string[] = [];
  for (let i = 0; i < path.length; i++) {
    const key = path[i] as string;
    keywords.push(key);
    if (NAMED.includes(key)) i++;
  }
  return keywords;
};

/**
 * A schema with the same numbers, or with bounds that are as near as there are numbers within.
 * @param field of the body, that an error names
 * @throws {ApiError} 400 schema_unsupported: names a number and its place
 */
export function withExactNumbers<T extends object>(schema: T, field: string): T {
  const turns = TURNS.test(JSON.stringify(schema));
  return withNumbers(schema, (token, path) => {
    const n = Number(token);
    if (Number.isFinite(n) && exactly(token) === exactly(String(n))) return token;
    const keywords = keywordsOf(path),
      keyword = keywords.at(-1) ?? '',
      isValue = keywords.some((key) => key === 'const' || key === 'enum');
    if (!isValue && keywords.some((key) => REMARKS.includes(key))) return 'null';
    const near = !isValue && !turns && [...LEAST, ...MOST].includes(keyword) ? inwards(token, keyword) : null;
    if (near !== null) return String(near);
    throw badRequest(
      'schema_unsupported',
      `schema: #/${path.join('/')}: ${token.slice(0, 60)} cannot be held exactly; wanted at most 15 digits`,
      field,
    );
  });
}
