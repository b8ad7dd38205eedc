// What `unevaluatedProperties` and `unevaluatedItems` leave to say: names and places that no other keyword beside them
// looks at, as far as that is certain whatever the value is.
import { isObject, type Json } from './typed.js';

/** Where the references of a schema lead; null: it cannot be told. */
export type Follow = (schema: Json) => readonly (unknown | null)[];

export interface Evaluated {
  /** Every member, or item, is looked at: nothing is left. */
  readonly all: boolean;
  /** What is looked at is so for any value; else it may be less. */
  readonly certain: boolean;
  readonly names: ReadonlySet<string>;
  readonly patterns: ReadonlySet<string>;
  /** Items from the first. */
  readonly first: number;
}

const ALWAYS = ['allOf'];
const PERHAPS = ['anyOf', 'oneOf'];
const ONE_PERHAPS = ['if', 'then', 'else'];
const NAMED_PERHAPS = ['dependentSchemas', 'dependencies'];
const REST = { members: ['additionalProperties', 'unevaluatedProperties'], items: ['items', 'unevaluatedItems'] };

/** @returns null: what is looked at cannot be told beforehand */
export function evaluatedBy(root: Json, kind: 'members' | 'items', follow: Follow): Evaluated | null {
  const names = new Set<string>(),
    patterns = new Set<string>(),
    seen = new Set<unknown>();
  let [first, all, certain, known] = [0, false, true, true];
  const own = (s: Json, perhaps: boolean): void => {
    const before = names.size + patterns.size + first;
    if (kind === 'members') {
      for (const n of Object.keys(isObject(s.properties) ? s.properties : {})) names.add(n);
      for (const p of Object.keys(isObject(s.patternProperties) ? s.patternProperties : {})) patterns.add(p);
    } else {
      if (Array.isArray(s.prefixItems)) first = Math.max(first, s.prefixItems.length);
      if (s.contains !== undefined) known = false; // looks at those that it finds
    }
    if (perhaps && names.size + patterns.size + first > before) certain = false;
    if (REST[kind].some((k) => s[k] !== undefined && !(s === root && k.startsWith('unevaluated')))) {
      if (perhaps) known = false;
      else all = true;
    }
  };
  const visit = (s: unknown, perhaps: boolean): void => {
    if (!isObject(s) || seen.has(s)) return;
    seen.add(s);
    own(s, perhaps);
    for (const to of follow(s)) {
      if (to === null) known = false;
      else visit(to, perhaps);
    }
    const each = (value: unknown, may: boolean): void => {
      for (const v of isObject(value) ? Object.values(value) : Array.isArray(value) ? value : []) visit(v, may);
    };
    for (const k of ALWAYS) each(s[k], perhaps);
    for (const k of PERHAPS) each(s[k], true);
    for (const k of ONE_PERHAPS) visit(s[k], true);
    for (const k of NAMED_PERHAPS) each(s[k], true);
  };
  visit(root, false);
  return known || all ? { all, certain, names, patterns, first } : null;
}
