// A second opinion on a finished value, where Ajv's is known to differ from the standard: which members and items were
// looked at (`unevaluatedProperties`, `unevaluatedItems`), and where a `$dynamicRef` leads. What both allow passes.
// JSON Schema 2020-12, core sections 7.1 and 11.
import { isDeepStrictEqual } from 'node:util';
import { allows } from './characters.js';
import { inTime } from './deadline.js';
import { isMultiple } from './decimal.js';
import { patternSet } from './plans.js';
import type { References } from './references.js';
import { isObject, type Json } from './typed.js';

/** What of a value was looked at. */
interface Seen {
  readonly names: ReadonlySet<string>;
  readonly items: ReadonlySet<number>;
}
const NOTHING: Seen = { names: new Set(), items: new Set() };
const both = (a: Seen, b: Seen): Seen =>
  b === NOTHING
    ? a
    : a === NOTHING
      ? b
      : { names: new Set([...a.names, ...b.names]), items: new Set([...a.items, ...b.items]) };

const equal = (a: unknown, b: unknown): boolean => isDeepStrictEqual(plain(a), plain(b));
/** −0 is 0, and objects are told apart by what they hold. */
const plain = (v: unknown): unknown => {
  if (typeof v === 'number') return v + 0;
  if (Array.isArray(v)) return v.map(plain);
  return isObject(v) ? Object.fromEntries(Object.entries(v).map(([k, w]) => [k, plain(w)])) : v;
};
const isType = (value: unknown, type: unknown): boolean => {
  switch (type) {
    case 'integer':
      return Number.isInteger(value);
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    default:
      return typeof value === type;
  }
};
const matches = (pattern: string, text: string): boolean => {
  const set = patternSet([pattern], 0, Number.POSITIVE_INFINITY);
  return set !== null && set !== 'too_large' && allows(set, text);
};
const list = (v: unknown): readonly unknown[] => (Array.isArray(v) ? v : []);
const entries = (v: unknown): readonly [string, unknown][] => (isObject(v) ? Object.entries(v) : []);

export class Evaluator {
  constructor(
    readonly root: unknown,
    readonly references: References,
  ) {}

  /** @throws {ConfigError} schema_unsupported: it takes too long */
  allows(value: unknown): boolean {
    return this.#run(this.root, value, []) !== null;
  }

  /** @param scope bases of the resources that led here, the outermost first @returns null: it does not keep to it */
  #run(schema: unknown, value: unknown, outer: readonly string[]): Seen | null {
    if (schema === false) return null;
    if (!isObject(schema)) return NOTHING;
    inTime();
    const base = this.references.baseOf(schema);
    const scope = outer.at(-1) === base ? outer : [...outer, base];
    if (!this.#itself(schema, value)) return null;
    let seen: Seen | null = NOTHING;
    const also = (found: Seen | null): void => {
      seen = seen && found && both(seen, found);
    };
    for (const to of this.references.targets(schema, scope)) also(this.#run(to, value, scope));
    also(this.#combined(schema, value, scope));
    if (seen && isObject(value)) also(this.#members(schema, value, scope));
    if (seen && Array.isArray(value)) also(this.#items(schema, value, scope));
    if (seen === null) return null;
    return this.#left(schema, value, seen, scope);
  }

  /** What is asked of the value without looking into it. */
  #itself(s: Json, value: unknown): boolean {
    if (s.type !== undefined && !(Array.isArray(s.type) ? s.type : [s.type]).some((t) => isType(value, t)))
      return false;
    if ('const' in s && !equal(value, s.const)) return false;
    if (s.enum !== undefined && !list(s.enum).some((v) => equal(value, v))) return false;
    const least = (k: string, n: number): boolean => typeof s[k] !== 'number' || n >= s[k];
    const most = (k: string, n: number): boolean => typeof s[k] !== 'number' || n <= s[k];
    if (typeof value === 'number')
      return (
        least('minimum', value) &&
        most('maximum', value) &&
        (typeof s.exclusiveMinimum !== 'number' || value > s.exclusiveMinimum) &&
        (typeof s.exclusiveMaximum !== 'number' || value < s.exclusiveMaximum) &&
        (typeof s.multipleOf !== 'number' || isMultiple(value, s.multipleOf))
      );
    if (typeof value === 'string') {
      const length = [...value].length;
      const found = typeof s.pattern !== 'string' || matches(s.pattern, value);
      return found && least('minLength', length) && most('maxLength', length);
    }
    if (Array.isArray(value)) {
      const unique = (): boolean => value.every((v, i) => !value.slice(i + 1).some((w) => equal(v, w)));
      return least('minItems', value.length) && most('maxItems', value.length) && (s.uniqueItems !== true || unique());
    }
    if (!isObject(value)) return true;
    const has = (name: unknown): boolean => Object.hasOwn(value, String(name));
    const n = Object.keys(value).length;
    const needs = [...entries(s.dependentRequired), ...entries(s.dependencies).filter(([, v]) => Array.isArray(v))];
    return (
      least('minProperties', n) &&
      most('maxProperties', n) &&
      list(s.required).every(has) &&
      needs.every(([k, names]) => !has(k) || list(names).every(has))
    );
  }

  #combined(s: Json, value: unknown, scope: readonly string[]): Seen | null {
    const run = (schema: unknown): Seen | null => this.#run(schema, value, scope);
    let seen: Seen = NOTHING;
    for (const sub of list(s.allOf)) {
      const found = run(sub);
      if (!found) return null;
      seen = both(seen, found);
    }
    for (const k of ['anyOf', 'oneOf']) {
      if (s[k] === undefined) continue;
      const kept = list(s[k])
        .map(run)
        .filter((f) => f !== null);
      if (kept.length === 0 || (k === 'oneOf' && kept.length > 1)) return null;
      for (const found of kept) seen = both(seen, found);
    }
    if (s.not !== undefined && run(s.not)) return null;
    if (s.if !== undefined) {
      const found = run(s.if);
      const then = found ? s.then : s.else;
      const more = then === undefined ? NOTHING : run(then);
      if (!more) return null;
      seen = both(both(seen, found ?? NOTHING), more);
    }
    if (!isObject(value)) return seen;
    const dependent = [...entries(s.dependentSchemas), ...entries(s.dependencies).filter(([, v]) => !Array.isArray(v))];
    for (const [k, sub] of dependent) {
      if (!Object.hasOwn(value, k)) continue;
      const found = run(sub);
      if (!found) return null;
      seen = both(seen, found);
    }
    return seen;
  }

  #members(s: Json, value: Json, scope: readonly string[]): Seen | null {
    const names = new Set<string>();
    const keeps = (schema: unknown, name: string): boolean => {
      names.add(name);
      return this.#run(schema, value[name], scope) !== null;
    };
    for (const [name, sub] of entries(s.properties)) if (Object.hasOwn(value, name) && !keeps(sub, name)) return null;
    for (const [pattern, sub] of entries(s.patternProperties))
      for (const name of Object.keys(value)) if (matches(pattern, name) && !keeps(sub, name)) return null;
    if (s.additionalProperties !== undefined)
      for (const name of Object.keys(value)) if (!names.has(name) && !keeps(s.additionalProperties, name)) return null;
    if (s.propertyNames !== undefined)
      for (const name of Object.keys(value)) if (!this.#run(s.propertyNames, name, scope)) return null;
    return { names, items: NOTHING.items };
  }

  #items(s: Json, value: readonly unknown[], scope: readonly string[]): Seen | null {
    const items = new Set<number>();
    const first = list(s.prefixItems);
    for (const [i, v] of value.entries()) {
      const sub = i < first.length ? first[i] : s.items;
      if (sub === undefined) continue;
      if (!this.#run(sub, v, scope)) return null;
      items.add(i);
    }
    if (s.contains !== undefined) {
      const found = [...value.keys()].filter((i) => this.#run(s.contains, value[i], scope));
      const least = typeof s.minContains === 'number' ? s.minContains : 1;
      const most = typeof s.maxContains === 'number' ? s.maxContains : Number.POSITIVE_INFINITY;
      if (found.length < least || found.length > most) return null;
      for (const i of found) items.add(i);
    }
    return { names: NOTHING.names, items };
  }

  /** What nobody looked at keeps to what is said of the rest. */
  #left(s: Json, value: unknown, seen: Seen, scope: readonly string[]): Seen | null {
    if (s.unevaluatedProperties !== undefined && isObject(value)) {
      const left = Object.keys(value).filter((n) => !seen.names.has(n));
      if (!left.every((n) => this.#run(s.unevaluatedProperties, value[n], scope))) return null;
      return { names: new Set(Object.keys(value)), items: seen.items };
    }
    if (s.unevaluatedItems !== undefined && Array.isArray(value)) {
      const left = [...value.keys()].filter((i) => !seen.items.has(i));
      if (!left.every((i) => this.#run(s.unevaluatedItems, value[i], scope))) return null;
      return { names: seen.names, items: new Set(value.keys()) };
    }
    return seen;
  }
}
