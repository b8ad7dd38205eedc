// Keywords that say something of values of one type → alternatives of that type.
import { decimalOf, type NumberRule } from './decimal.js';
import { meet } from './meet.js';
import { type Alt, ANY, anyOfType, type JsonType, type Lazy, type Node } from './nodes.js';
import { PatternUnsupported } from './pattern-sets.js';
import { patternSet } from './plans.js';

export type Json = Readonly<Record<string, unknown>>;
export const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
export const escaped = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');

/** What reads a schema, as far as one keyword needs it. */
export interface Reading {
  /** @throws {ConfigError} schema_unsupported */
  refuse(at: string, keyword: string, why: string): never;
  /** @throws {ConfigError} schema_invalid */
  wrong(at: string, keyword: string, wanted: string): never;
  lazy(schema: unknown, at: string): Lazy;
}
const ANY_NUMBER = Number.POSITIVE_INFINITY;

/** Keywords that say something of values of one type. */
export const TYPED: readonly string[] = [
  'type',
  'pattern',
  'minLength',
  'maxLength',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'multipleOf',
  'items',
  'prefixItems',
  'minItems',
  'maxItems',
  'properties',
  'patternProperties',
  'additionalProperties',
  'required',
  'dependentRequired',
  'dependencies',
  'minProperties',
  'maxProperties',
];
/** Keywords that are neither kept to nor checked. */
const REFUSED = ['$recursiveRef', 'additionalItems', '$vocabulary'] as const;
/** @throws {ConfigError} schema_unsupported */
export function requireKept(r: Reading, s: Json, at: string): void {
  for (const k of REFUSED) if (k in s) r.refuse(at, k, 'not supported');
}
export function listOf(r: Reading, s: Json, keyword: string, at: string): readonly unknown[] {
  const list = s[keyword];
  if (list === undefined) return [];
  if (!Array.isArray(list) || list.length === 0) return r.wrong(at, keyword, 'a list with something in it');
  return list;
}

export function typed(r: Reading, type: JsonType, s: Json, at: string): readonly Alt[] {
  switch (type) {
    case 'string': {
      const patterns = s.pattern === undefined ? [] : [patternOf(r, s.pattern, at, 'pattern')];
      const [least, most] = bounds(r, s, 'minLength', 'maxLength', at);
      if (patterns.length > 0) checkSize(r, patterns, least, most, at, 'pattern');
      return [{ kind: 'string', least, most, patterns, texts: null }];
    }
    case 'number':
    case 'integer':
      return [{ kind: 'number', rule: numberOf(r, type, s, at) }];
    case 'array':
      return arrayOf(r, s, at);
    case 'object':
      return objectOf(r, s, at);
    default:
      return anyOfType(type);
  }
}
function bounds(r: Reading, s: Json, low: string, high: string, at: string): [number, number] {
  const of = (k: string, otherwise: number): number => {
    const v = s[k];
    if (v === undefined) return otherwise;
    if (typeof v !== 'number' || v < 0 || !Number.isInteger(v)) return r.wrong(at, k, 'an integer from 0');
    return v;
  };
  return [of(low, 0), of(high, ANY_NUMBER)];
}
/** @throws {ConfigError} schema_unsupported, schema_invalid */
export function patternOf(r: Reading, value: unknown, at: string, keyword: string): string {
  if (typeof value !== 'string') return r.wrong(at, keyword, 'a text');
  checkSize(r, [value], 0, ANY_NUMBER, at, keyword);
  return value;
}
/** @throws {ConfigError} schema_unsupported, schema_invalid */
export function checkPatterns(r: Reading, s: Json, at: string): void {
  if (s.pattern !== undefined) patternOf(r, s.pattern, at, 'pattern');
  for (const p of Object.keys(isObject(s.patternProperties) ? s.patternProperties : {}))
    patternOf(r, p, at, 'patternProperties');
}
function checkSize(
  r: Reading,
  patterns: readonly string[],
  least: number,
  most: number,
  at: string,
  keyword: string,
): void {
  try {
    if (patternSet(patterns, least, most) === 'too_large') r.refuse(at, keyword, 'too large together with its lengths');
  } catch (e) {
    if (e instanceof PatternUnsupported) r.refuse(at, keyword, `${e.message} is not supported`);
    throw e;
  }
}
function numberOf(r: Reading, type: JsonType, s: Json, at: string): NumberRule {
  const of = (k: string): ReturnType<typeof decimalOf> | undefined => {
    const v = s[k];
    if (v === undefined) return undefined;
    if (typeof v !== 'number' || !Number.isFinite(v)) return r.wrong(at, k, 'a number');
    return decimalOf(v);
  };
  const [least, most, above, below] = [of('minimum'), of('maximum'), of('exclusiveMinimum'), of('exclusiveMaximum')];
  const multiple = of('multipleOf');
  if (multiple && multiple.whole <= 0n) r.wrong(at, 'multipleOf', 'a number above 0');
  const rule = (r: Partial<NumberRule>): Node => ({
    alts: [{ kind: 'number', rule: { integer: type === 'integer', multiples: multiple ? [multiple] : [], ...r } }],
  });
  let node = rule({ ...(least ? { least } : {}), ...(most ? { most } : {}) });
  if (above) node = meet(node, rule({ least: above, above: true, multiples: [] }));
  if (below) node = meet(node, rule({ most: below, below: true, multiples: [] }));
  const [alt] = node.alts;
  return alt?.kind === 'number' ? alt.rule : { integer: false, multiples: [] };
}
function arrayOf(r: Reading, s: Json, at: string): readonly Alt[] {
  const [least, most] = bounds(r, s, 'minItems', 'maxItems', at);
  if (Array.isArray(s.items)) r.refuse(at, 'items', 'a list of them is prefixItems since 2020-12');
  const first = listOf(r, s, 'prefixItems', at).map((v, i) => r.lazy(v, `${at}/prefixItems/${i}`));
  const any = first.length === 0 && s.items === undefined;
  const parts = any ? [] : [{ first, rest: s.items === undefined ? () => ANY : r.lazy(s.items, `${at}/items`) }];
  return [{ kind: 'array', parts, least, most }];
}
function objectOf(r: Reading, s: Json, at: string): readonly Alt[] {
  const [least, most] = bounds(r, s, 'minProperties', 'maxProperties', at);
  const map = (k: string): readonly (readonly [string, unknown])[] => {
    const v = s[k];
    if (v === undefined) return [];
    return isObject(v) ? Object.entries(v) : r.wrong(at, k, 'an object');
  };
  const members = new Map(map('properties').map(([k, v]) => [k, r.lazy(v, `${at}/properties/${escaped(k)}`)] as const));
  const patterns = map('patternProperties').map(([k, v]) => ({
    source: patternOf(r, k, at, 'patternProperties'),
    value: r.lazy(v, `${at}/patternProperties/${escaped(k)}`),
  }));
  const rest =
    s.additionalProperties === undefined ? () => ANY : r.lazy(s.additionalProperties, `${at}/additionalProperties`);
  const names = (k: string, v: unknown): readonly string[] =>
    Array.isArray(v) && v.every((n) => typeof n === 'string') ? (v as string[]) : r.wrong(at, k, 'names');
  const required = new Set(s.required === undefined ? [] : names('required', s.required));
  // As drafts before 2019-09 have it: names, or a schema, which is left to the check.
  const before = map('dependencies').filter(([, v]) => Array.isArray(v));
  const needs = new Map(before.map(([k, v]) => [k, names('dependencies', v)] as const));
  for (const [k, v] of map('dependentRequired'))
    needs.set(k, [...(needs.get(k) ?? []), ...names('dependentRequired', v)]);
  const any = members.size === 0 && patterns.length === 0 && s.additionalProperties === undefined;
  return [{ kind: 'object', parts: any ? [] : [{ members, patterns, rest }], required, least, most, needs }];
}
