// JSON Schema (draft 2020-12) → nodes. Every keyword is of one of three kinds: the grammar keeps to it, it is left to
// the check of the finished value (`checked`), or it is refused by name.
import { ConfigError } from '../../base/errors.js';
import { decimalOf, type NumberRule } from './decimal.js';
import {
  ALL_TYPES,
  type Alt,
  ANY,
  anyOfType,
  isEmpty,
  type JsonType,
  type Lazy,
  lazily,
  meet,
  NOTHING,
  type Node,
  patternSet,
  valueNode,
} from './nodes.js';
import { PatternUnsupported } from './pattern.js';

type Json = Readonly<Record<string, unknown>>;
export interface CompiledSchema {
  readonly root: Node;
  /** Keywords that the check alone keeps to, with their places: `#/properties/a/not`. */
  readonly checked: readonly string[];
}

/** The grammar lets more through than they do. */
const CHECKED = ['not', 'if', 'contains', 'uniqueItems', 'propertyNames', 'dependentSchemas'] as const;
const REFUSED = ['$dynamicRef', '$recursiveRef', 'dependencies', 'additionalItems', '$vocabulary'] as const;
/** Those of before say the same where they say what is read here; zod names draft 7. */
const DIALECTS = /^https?:\/\/json-schema\.org\/(?:draft\/(?:2020-12|2019-09)|draft-0[4-7])\/schema#?$/;
const ANY_NUMBER = Number.POSITIVE_INFINITY;
/** Members and alternatives of a whole schema. */
const MOST_SCHEMAS = 20_000;

const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
const escaped = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');

class Reader {
  readonly checked = new Set<string>();
  readonly #nodes = new Map<unknown, Node>();
  readonly #open = new Set<unknown>();
  readonly #anchors = new Map<string, { readonly schema: unknown; readonly at: string }>();
  /** What was put off until somebody asks. */
  readonly #later: (() => void)[] = [];
  #schemas = 0;

  constructor(readonly root: unknown) {
    this.#findAnchors(root, '#', 0);
  }
  refuse(at: string, keyword: string, why: string): never {
    throw new ConfigError('schema_unsupported', `${at}: ${keyword}: ${why}`, { at, keyword });
  }
  wrong(at: string, keyword: string, wanted: string): never {
    throw new ConfigError('schema_invalid', `${at}: ${keyword}: wanted ${wanted}`, { at, keyword });
  }

  #findAnchors(value: unknown, at: string, depth: number): void {
    if (depth > 100 || typeof value !== 'object' || value === null) return;
    if (isObject(value)) {
      for (const k of UNEVALUATED)
        if (k in value && value[k] !== true) this.refuse(at, k, 'not supported; use additionalProperties or items');
      for (const k of REFUSED) if (typeof value[k] === 'string') this.refuse(at, k, 'not supported');
      for (const k of ['$anchor', '$dynamicAnchor']) {
        const name = value[k];
        if (typeof name === 'string' && !this.#anchors.has(`#${name}`))
          this.#anchors.set(`#${name}`, { schema: value, at });
      }
    }
    for (const [k, v] of Object.entries(value)) {
      if (k === 'enum' || k === 'const') continue;
      this.#findAnchors(v, `${at}/${escaped(k)}`, depth + 1);
    }
  }

  /** All of it, whatever is never asked for included: what is refused is refused now. */
  read(): Node {
    const node = this.node(this.root, '#');
    for (let next = this.#later.pop(); next; next = this.#later.pop()) next();
    return node;
  }

  lazy(schema: unknown, at: string): Lazy {
    const own = lazily(() => this.node(schema, at));
    this.#later.push(() => void own());
    return own;
  }

  node(schema: unknown, at: string): Node {
    if (schema === true) return ANY;
    if (schema === false) return NOTHING;
    if (!isObject(schema)) return this.wrong(at, 'schema', 'an object, true or false');
    const known = this.#nodes.get(schema);
    if (known) return known;
    if (this.#open.has(schema)) return this.refuse(at, '$ref', 'it leads back to itself without a value between');
    if (++this.#schemas > MOST_SCHEMAS) return this.refuse(at, 'schema', `more than ${MOST_SCHEMAS} of them`);
    this.#open.add(schema);
    try {
      const node = this.#make(schema, at);
      this.#nodes.set(schema, node);
      return node;
    } finally {
      this.#open.delete(schema);
    }
  }

  #make(s: Json, at: string): Node {
    for (const k of REFUSED) if (k in s) this.refuse(at, k, 'not supported');
    if ('$schema' in s && !DIALECTS.test(String(s.$schema))) this.refuse(at, '$schema', 'wanted draft 2020-12');
    if ('$id' in s && at !== '#') this.refuse(at, '$id', 'only the whole schema may have one');
    for (const k of CHECKED) if (k !== 'not' && says(s, k)) this.checked.add(`${at}/${k}`);
    let node: Node = { alts: this.#types(s, at).flatMap((t) => this.#typed(t, s, at)) };
    if (node.alts.length === ANY.alts.length && !this.#hasKeywords(s)) node = ANY;
    const also = (other: Node): void => {
      node = meet(node, other);
    };
    if (s.$ref !== undefined) also(this.#reference(s.$ref, at));
    if ('const' in s) also(valueNode(s.const));
    if (s.enum !== undefined) {
      if (!Array.isArray(s.enum)) this.wrong(at, 'enum', 'a list');
      also(union((s.enum as readonly unknown[]).map(valueNode)));
    }
    for (const [i, v] of this.#list(s, 'allOf', at).entries()) also(this.node(v, `${at}/allOf/${i}`));
    if (s.anyOf !== undefined) also(union(this.#list(s, 'anyOf', at).map((v, i) => this.node(v, `${at}/anyOf/${i}`))));
    if (s.oneOf !== undefined) {
      const of = this.#list(s, 'oneOf', at).map((v, i) => this.node(v, `${at}/oneOf/${i}`));
      if (!apart(of)) this.checked.add(`${at}/oneOf`);
      also(union(of));
    }
    if (s.not !== undefined) also(this.#not(s.not, `${at}/not`));
    return node;
  }
  #hasKeywords(s: Json): boolean {
    return TYPED.some((k) => s[k] !== undefined);
  }

  #list(s: Json, keyword: string, at: string): readonly unknown[] {
    const list = s[keyword];
    if (list === undefined) return [];
    if (!Array.isArray(list) || list.length === 0) return this.wrong(at, keyword, 'a list with something in it');
    return list;
  }
  #types(s: Json, at: string): readonly JsonType[] {
    if (s.type === undefined) return ALL_TYPES;
    const given = Array.isArray(s.type) ? s.type : [s.type];
    for (const t of given)
      if (t !== 'integer' && !ALL_TYPES.includes(t as JsonType)) this.wrong(at, 'type', 'names of types');
    const types = given as readonly JsonType[];
    return types.includes('number') ? types.filter((t) => t !== 'integer') : types;
  }

  #typed(type: JsonType, s: Json, at: string): readonly Alt[] {
    switch (type) {
      case 'string': {
        const patterns = s.pattern === undefined ? [] : [this.#pattern(s.pattern, at, 'pattern')];
        const [least, most] = this.#bounds(s, 'minLength', 'maxLength', at);
        if (patterns.length > 0) this.#size(patterns, least, most, at, 'pattern');
        return [{ kind: 'string', least, most, patterns, texts: null }];
      }
      case 'number':
      case 'integer':
        return [{ kind: 'number', rule: this.#number(type, s, at) }];
      case 'array':
        return this.#array(s, at);
      case 'object':
        return this.#object(s, at);
      default:
        return anyOfType(type);
    }
  }
  #bounds(s: Json, low: string, high: string, at: string): [number, number] {
    const of = (k: string, otherwise: number): number => {
      const v = s[k];
      if (v === undefined) return otherwise;
      if (typeof v !== 'number' || v < 0 || !Number.isInteger(v)) return this.wrong(at, k, 'an integer from 0');
      return v;
    };
    return [of(low, 0), of(high, ANY_NUMBER)];
  }
  #pattern(value: unknown, at: string, keyword: string): string {
    if (typeof value !== 'string') return this.wrong(at, keyword, 'a text');
    this.#size([value], 0, ANY_NUMBER, at, keyword);
    return value;
  }
  #size(patterns: readonly string[], least: number, most: number, at: string, keyword: string): void {
    try {
      if (patternSet(patterns, least, most) === 'too_large')
        this.refuse(at, keyword, 'too large together with its lengths');
    } catch (e) {
      if (e instanceof PatternUnsupported) this.refuse(at, keyword, `${e.message} is not supported`);
      throw e;
    }
  }
  #number(type: JsonType, s: Json, at: string): NumberRule {
    const of = (k: string): ReturnType<typeof decimalOf> | undefined => {
      const v = s[k];
      if (v === undefined) return undefined;
      if (typeof v !== 'number' || !Number.isFinite(v)) return this.wrong(at, k, 'a number');
      return decimalOf(v);
    };
    const [least, most, above, below] = [of('minimum'), of('maximum'), of('exclusiveMinimum'), of('exclusiveMaximum')];
    const multiple = of('multipleOf');
    if (multiple && multiple.whole <= 0n) this.wrong(at, 'multipleOf', 'a number above 0');
    const rule = (r: Partial<NumberRule>): Node => ({
      alts: [{ kind: 'number', rule: { integer: type === 'integer', multiples: multiple ? [multiple] : [], ...r } }],
    });
    let node = rule({ ...(least ? { least } : {}), ...(most ? { most } : {}) });
    if (above) node = meet(node, rule({ least: above, above: true, multiples: [] }));
    if (below) node = meet(node, rule({ most: below, below: true, multiples: [] }));
    const [alt] = node.alts;
    return alt?.kind === 'number' ? alt.rule : { integer: false, multiples: [] };
  }
  #array(s: Json, at: string): readonly Alt[] {
    const [least, most] = this.#bounds(s, 'minItems', 'maxItems', at);
    if (Array.isArray(s.items)) this.refuse(at, 'items', 'a list of them is prefixItems since 2020-12');
    const first = this.#list(s, 'prefixItems', at).map((v, i) => this.lazy(v, `${at}/prefixItems/${i}`));
    const any = first.length === 0 && s.items === undefined;
    const parts = any ? [] : [{ first, rest: s.items === undefined ? () => ANY : this.lazy(s.items, `${at}/items`) }];
    return [{ kind: 'array', parts, least, most }];
  }
  #object(s: Json, at: string): readonly Alt[] {
    const [least, most] = this.#bounds(s, 'minProperties', 'maxProperties', at);
    const map = (k: string): readonly (readonly [string, unknown])[] => {
      const v = s[k];
      if (v === undefined) return [];
      return isObject(v) ? Object.entries(v) : this.wrong(at, k, 'an object');
    };
    const members = new Map(
      map('properties').map(([k, v]) => [k, this.lazy(v, `${at}/properties/${escaped(k)}`)] as const),
    );
    const patterns = map('patternProperties').map(([k, v]) => ({
      source: this.#pattern(k, at, 'patternProperties'),
      value: this.lazy(v, `${at}/patternProperties/${escaped(k)}`),
    }));
    const rest =
      s.additionalProperties === undefined
        ? () => ANY
        : this.lazy(s.additionalProperties, `${at}/additionalProperties`);
    const names = (k: string, v: unknown): readonly string[] =>
      Array.isArray(v) && v.every((n) => typeof n === 'string') ? (v as string[]) : this.wrong(at, k, 'names');
    const required = new Set(s.required === undefined ? [] : names('required', s.required));
    const needs = new Map(map('dependentRequired').map(([k, v]) => [k, names('dependentRequired', v)] as const));
    const any = members.size === 0 && patterns.length === 0 && s.additionalProperties === undefined;
    return [{ kind: 'object', parts: any ? [] : [{ members, patterns, rest }], required, least, most, needs }];
  }

  #reference(ref: unknown, at: string): Node {
    if (typeof ref !== 'string') return this.wrong(at, '$ref', 'a text');
    const id = isObject(this.root) && typeof this.root.$id === 'string' ? this.root.$id.replace(/#$/, '') : null;
    const own = id !== null && (ref === id || ref.startsWith(`${id}#`)) ? ref.slice(id.length) || '#' : ref;
    if (!own.startsWith('#')) return this.refuse(at, '$ref', `${JSON.stringify(ref)} is another document`);
    const anchor = this.#anchors.get(own);
    if (anchor) return this.node(anchor.schema, anchor.at);
    let target: unknown = this.root;
    let pointer: string;
    try {
      pointer = decodeURIComponent(own.slice(1));
    } catch {
      return this.wrong(at, '$ref', 'a pointer');
    }
    if (pointer !== '' && !pointer.startsWith('/')) return this.refuse(at, '$ref', `no anchor ${JSON.stringify(own)}`);
    let inside = '#';
    for (const key of pointer.split('/').slice(1)) {
      const name = key.replaceAll('~1', '/').replaceAll('~0', '~');
      target =
        typeof target === 'object' && target !== null && Object.hasOwn(target, name)
          ? (target as Record<string, unknown>)[name]
          : undefined;
      inside += `/${key}`;
      if (isObject(target) && '$id' in target) this.refuse(inside, '$id', 'only the whole schema may have one');
    }
    if (target === undefined) return this.wrong(at, '$ref', `something at ${JSON.stringify(ref)}`);
    return this.node(target, inside);
  }

  /** What is not of some types can be said; anything else is left to the check. */
  #not(schema: unknown, at: string): Node {
    if (schema === true) return NOTHING;
    if (schema === false) return ANY;
    if (!isObject(schema)) return this.wrong(at, 'not', 'a schema');
    const keys = Object.keys(schema).filter((k) => !NOTES.includes(k));
    if (keys.length === 0) return NOTHING;
    this.node(schema, at); // what is refused in it is refused
    const types = keys.length === 1 && keys[0] === 'type' ? this.#types(schema, at) : null;
    if (types && !types.includes('integer'))
      return { alts: ALL_TYPES.filter((t) => !types.includes(t)).flatMap(anyOfType) };
    this.checked.add(at);
    return ANY;
  }
}
/** They depend on what other keywords looked at, wherever those stand: nothing here keeps track of that. */
const UNEVALUATED = ['unevaluatedProperties', 'unevaluatedItems'] as const;
/** Whether it asks for anything. */
function says(s: Json, keyword: (typeof CHECKED)[number]): boolean {
  const value = s[keyword];
  if (value === undefined) return false;
  switch (keyword) {
    case 'uniqueItems':
      return value !== false;
    case 'if':
      return s.then !== undefined || s.else !== undefined;
    case 'propertyNames':
      return value !== true;
    default:
      return true;
  }
}
const NOTES: readonly string[] = ['title', 'description', '$comment', 'default', 'examples'];
/** Keywords that say something of values of one type. */
const TYPED: readonly string[] = [
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
  'minProperties',
  'maxProperties',
];
const union = (nodes: readonly Node[]): Node => (nodes.includes(ANY) ? ANY : { alts: nodes.flatMap((n) => n.alts) });

/** No value keeps to two of them, for certain. */
function apart(nodes: readonly Node[]): boolean {
  return nodes.every((a, i) => nodes.slice(i + 1).every((b) => isApart(a, b)));
}
const isApart = (a: Node, b: Node): boolean =>
  a.alts.every((x) => b.alts.every((y) => x.kind !== y.kind || isEmpty(meet({ alts: [x] }, { alts: [y] }))));

/** @throws {ConfigError} schema_unsupported, schema_invalid: names the keyword and its place */
export function compileSchema(schema: unknown): CompiledSchema {
  const reader = new Reader(schema);
  const root = reader.read();
  if (isEmpty(root)) throw new ConfigError('schema_unsupported', '#: no value keeps to this schema', { at: '#' });
  return { root, checked: [...reader.checked] };
}
