// JSON Schema (draft 2020-12) → nodes. Every keyword is of one of three kinds: the grammar keeps to it, it is left to
// the check of the finished value (`checked`), or it is refused by name.
import { ConfigError } from '../../base/errors.js';
import { requireNoCircles } from './circles.js';
import { inTime } from './deadline.js';
import { evaluatedBy, type Follow } from './evaluated.js';
import { meet } from './meet.js';
import {
  ALL_TYPES,
  type Alt,
  ANY,
  anyArray,
  anyLazy,
  anyObject,
  anyOfType,
  type JsonType,
  type Lazy,
  lazily,
  NOTHING,
  type Node,
  valueNode,
} from './nodes.js';
import { isEmpty } from './reachable.js';
import { References } from './references.js';
import {
  checkPatterns,
  isObject,
  type Json,
  listOf,
  patternOf,
  type Reading,
  requireKept,
  TYPED,
  typed,
} from './typed.js';

export interface CompiledSchema {
  readonly root: Node;
  /** Keywords that the check alone keeps to, with their places: `#/properties/a/not`. */
  readonly checked: readonly string[];
  readonly references: References;
}

/** The grammar lets more through than they do. */
const CHECKED = ['if', 'contains', 'uniqueItems', 'propertyNames', 'dependentSchemas', 'dependencies'] as const;
/** Those of before say the same where they say what is read here; zod names draft 7. */
const DIALECTS = /^https?:\/\/json-schema\.org\/(?:draft\/(?:2020-12|2019-09)|draft-0[4-7])\/schema#?$/;
/** Members and alternatives of a whole schema. */
const MOST_SCHEMAS = 20_000;
/** Schemas that hold for one value, each leading to the next. */
const DEEPEST = 500;

class Reader implements Reading {
  readonly checked = new Set<string>();
  readonly #nodes = new Map<unknown, Node>();
  readonly #open = new Set<unknown>();
  readonly references: References;
  /** What was put off until somebody asks. */
  readonly #later: (() => void)[] = [];
  #schemas = 0;

  constructor(readonly root: unknown) {
    this.references = new References(root, this);
  }
  refuse(at: string, keyword: string, why: string): never {
    throw new ConfigError('schema_unsupported', `${at}: ${keyword}: ${why}`, { at, keyword });
  }
  wrong(at: string, keyword: string, wanted: string): never {
    throw new ConfigError('schema_invalid', `${at}: ${keyword}: wanted ${wanted}`, { at, keyword });
  }

  /** All of it, whatever is never asked for included: what is refused is refused now. */
  read(): Node {
    const node = this.node(this.root, '#');
    for (let next = this.#later.pop(); next; next = this.#later.pop()) next();
    requireNoCircles(this.root, this.references, this);
    // Of schemas that the check alone looks at, too.
    for (const { schema, at } of this.references.places) if (isObject(schema)) checkPatterns(this, schema, at);
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
    inTime();
    if (this.#open.size > DEEPEST) return this.refuse(at, '$ref', `more than ${DEEPEST} schemas in one place`);
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
    requireKept(this, s, at);
    if ('$schema' in s && !DIALECTS.test(String(s.$schema))) this.refuse(at, '$schema', 'wanted draft 2020-12');
    for (const k of CHECKED) if (says(s, k)) this.checked.add(`${at}/${k}`);
    let node: Node = { alts: this.#types(s, at).flatMap((t) => typed(this, t, s, at)) };
    if (node.alts.length === ANY.alts.length && !this.#hasKeywords(s)) node = ANY;
    const also = (other: Node): void => {
      node = meet(node, other);
    };
    for (const { keyword, to } of this.references.of(s, at))
      if (to) also(this.node(to.schema, to.at));
      else this.checked.add(`${at}/${keyword}`);
    if ('const' in s) also(valueNode(s.const));
    if (s.enum !== undefined) {
      if (!Array.isArray(s.enum)) this.wrong(at, 'enum', 'a list');
      also(union((s.enum as readonly unknown[]).map(valueNode)));
    }
    for (const [i, v] of listOf(this, s, 'allOf', at).entries()) also(this.node(v, `${at}/allOf/${i}`));
    if (s.anyOf !== undefined)
      also(union(listOf(this, s, 'anyOf', at).map((v, i) => this.node(v, `${at}/anyOf/${i}`))));
    if (s.oneOf !== undefined) {
      const of = listOf(this, s, 'oneOf', at).map((v, i) => this.node(v, `${at}/oneOf/${i}`));
      if (!apart(of)) this.checked.add(`${at}/oneOf`);
      also(union(of));
    }
    const always = s.if === undefined ? null : alwaysOr(s.if),
      branch = always ? 'then' : 'else';
    if (always !== null && s[branch] !== undefined) also(this.node(s[branch], `${at}/${branch}`));
    if (s.not !== undefined) also(this.#not(s.not, `${at}/not`));
    if (left(s.unevaluatedProperties)) also(this.#unevaluated(s, 'members', `${at}/unevaluatedProperties`));
    if (left(s.unevaluatedItems)) also(this.#unevaluated(s, 'items', `${at}/unevaluatedItems`));
    return node;
  }
  /** What is certainly left keeps to it; what may be is left to the check. */
  #unevaluated(s: Json, kind: 'members' | 'items', at: string): Node {
    const follow: Follow = (of) => this.references.of(of, at).map(({ to }) => (to ? to.schema : null));
    const by = evaluatedBy(s, kind, follow);
    if (by?.all) return ANY;
    if (!by?.certain) this.checked.add(at);
    if (!by) return ANY;
    const alt: Alt =
      kind === 'items'
        ? anyArray([
            { first: Array.from({ length: by.first }, () => anyLazy), rest: this.lazy(s.unevaluatedItems, at) },
          ])
        : anyObject([
            {
              members: new Map([...by.names].map((name) => [name, anyLazy])),
              patterns: [...by.patterns].map((p) => ({
                source: patternOf(this, p, at, 'patternProperties'),
                value: anyLazy,
              })),
              rest: this.lazy(s.unevaluatedProperties, at),
            },
          ]);
    return { alts: ALL_TYPES.flatMap((t) => (t === alt.kind ? [alt] : anyOfType(t))) };
  }
  #hasKeywords(s: Json): boolean {
    return TYPED.some((k) => s[k] !== undefined);
  }

  #types(s: Json, at: string): readonly JsonType[] {
    if (s.type === undefined) return ALL_TYPES;
    const given = Array.isArray(s.type) ? s.type : [s.type];
    for (const t of given)
      if (t !== 'integer' && !ALL_TYPES.includes(t as JsonType)) this.wrong(at, 'type', 'names of types');
    const types = given as readonly JsonType[];
    return types.includes('number') ? types.filter((t) => t !== 'integer') : types;
  }

  /** What is not of some types can be said; anything else is left to the check. */
  #not(schema: unknown, at: string): Node {
    const always = alwaysOr(schema);
    if (always !== null) return always ? NOTHING : ANY;
    if (!isObject(schema)) return this.wrong(at, 'not', 'a schema');
    const keys = Object.keys(schema).filter((k) => !NOTES.includes(k));
    this.node(schema, at); // what is refused in it is refused
    const types = keys.length === 1 && keys[0] === 'type' ? this.#types(schema, at) : null;
    if (types && !types.includes('integer'))
      return { alts: ALL_TYPES.filter((t) => !types.includes(t)).flatMap(anyOfType) };
    this.checked.add(at);
    return ANY;
  }
}
/** Of a schema that all values keep to, or none: which; null: it depends on the value. */
const alwaysOr = (schema: unknown): boolean | null =>
  typeof schema === 'boolean'
    ? schema
    : isObject(schema) && Object.keys(schema).every((k) => NOTES.includes(k))
      ? true
      : null;
const left = (unevaluated: unknown): boolean => unevaluated !== undefined && unevaluated !== true;
/** Whether it asks for anything. */
function says(s: Json, keyword: (typeof CHECKED)[number]): boolean {
  const value = s[keyword];
  if (value === undefined) return false;
  switch (keyword) {
    case 'uniqueItems':
      return value !== false;
    case 'if':
      return alwaysOr(value) === null && (s.then !== undefined || s.else !== undefined);
    case 'propertyNames':
      return value !== true;
    case 'dependencies':
      return !isObject(value) || Object.values(value).some((v) => !Array.isArray(v));
    default:
      return true;
  }
}
const NOTES: readonly string[] = ['title', 'description', '$comment', 'default', 'examples'];
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
  return { root, checked: [...reader.checked], references: reader.references };
}
/** The root of a schema that was compiled before: what is inside is read when it is asked for. */
export const openSchema = (schema: unknown): Node => new Reader(schema).node(schema, '#');
