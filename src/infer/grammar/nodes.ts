// What a value may be, as a list of alternatives, each of one type of JSON. What is inside one is made when it is first
// asked for, so a schema may name itself.
import {
  allows,
  bothMachines,
  type Characters,
  charactersOf,
  lengthMachine,
  type Machine,
  textsOf,
} from './characters.js';
import { decimalOf, hasNumber, type NumberPlan, type NumberRule, planOf } from './decimal.js';
import { patternMachine } from './pattern.js';

export type Lazy = () => Node;
export interface StringAlt {
  readonly kind: 'string';
  /** Characters: code points. */
  readonly least: number;
  readonly most: number;
  readonly patterns: readonly string[];
  /** null: any. */
  readonly texts: readonly string[] | null;
}
export interface NumberAlt {
  readonly kind: 'number';
  readonly rule: NumberRule;
}
export interface ArrayPart {
  readonly first: readonly Lazy[];
  /** After those. */
  readonly rest: Lazy;
}
export interface ArrayAlt {
  readonly kind: 'array';
  readonly parts: readonly ArrayPart[];
  readonly least: number;
  readonly most: number;
}
export interface ObjectPart {
  readonly members: ReadonlyMap<string, Lazy>;
  readonly patterns: readonly { readonly source: string; readonly value: Lazy }[];
  /** Of any other name. */
  readonly rest: Lazy;
}
export interface ObjectAlt {
  readonly kind: 'object';
  /** All of them hold. */
  readonly parts: readonly ObjectPart[];
  readonly required: ReadonlySet<string>;
  readonly least: number;
  readonly most: number;
  /** Who has the first has the others too. */
  readonly needs: ReadonlyMap<string, readonly string[]>;
}
export interface WordAlt {
  readonly kind: 'word';
  readonly word: 'true' | 'false' | 'null';
}
export type Alt = StringAlt | NumberAlt | ArrayAlt | ObjectAlt | WordAlt;
export interface Node {
  readonly alts: readonly Alt[];
}
export type JsonType = 'string' | 'number' | 'integer' | 'array' | 'object' | 'boolean' | 'null';

export const NOTHING: Node = { alts: [] };
const anyLazy: Lazy = () => ANY;
const nothing: Lazy = () => NOTHING;
const WORDS = ['true', 'false', 'null'] as const;
export const ANY_PART: ObjectPart = { members: new Map(), patterns: [], rest: anyLazy };
export const anyOfType = (type: JsonType): readonly Alt[] => {
  switch (type) {
    case 'string':
      return [{ kind: 'string', least: 0, most: Infinity, patterns: [], texts: null }];
    case 'number':
    case 'integer':
      return [{ kind: 'number', rule: { integer: type === 'integer', multiples: [] } }];
    case 'array':
      return [{ kind: 'array', parts: [], least: 0, most: Infinity }];
    case 'object':
      return [{ kind: 'object', parts: [], required: new Set(), least: 0, most: Infinity, needs: new Map() }];
    case 'boolean':
      return WORDS.slice(0, 2).map((word) => ({ kind: 'word', word }));
    case 'null':
      return [{ kind: 'word', word: 'null' }];
  }
};
export const ALL_TYPES: readonly JsonType[] = ['string', 'number', 'array', 'object', 'boolean', 'null'];
export const ANY: Node = { alts: ALL_TYPES.flatMap(anyOfType) };

const memo = (make: () => Node): Lazy => {
  let made: Node | undefined;
  return () => {
    made ??= make();
    return made;
  };
};
export const lazily = memo;

/** The one value, whatever the order of its members. */
export function valueNode(value: unknown): Node {
  if (value === null || typeof value === 'boolean') return { alts: [{ kind: 'word', word: `${value}` }] };
  if (typeof value === 'string')
    return { alts: [{ kind: 'string', least: 0, most: Infinity, patterns: [], texts: [value] }] };
  if (typeof value === 'number') {
    const d = decimalOf(value);
    return { alts: [{ kind: 'number', rule: { integer: false, least: d, most: d, multiples: [] } }] };
  }
  if (Array.isArray(value)) {
    const first = value.map((v) => memo(() => valueNode(v)));
    const { length } = value;
    return { alts: [{ kind: 'array', parts: [{ first, rest: nothing }], least: length, most: length }] };
  }
  const entries = Object.entries(value as Record<string, unknown>);
  const members = new Map(entries.map(([k, v]) => [k, memo(() => valueNode(v))]));
  return {
    alts: [
      {
        kind: 'object',
        parts: [{ members, patterns: [], rest: nothing }],
        required: new Set(members.keys()),
        least: 0,
        most: Infinity,
        needs: new Map(),
      },
    ],
  };
}

/** What both allow. */
export const meet = (a: Node, b: Node): Node =>
  a === ANY
    ? b
    : b === ANY
      ? a
      : { alts: a.alts.flatMap((x) => b.alts.flatMap((y): readonly Alt[] => meetAlts(x, y))) };

function meetAlts(a: Alt, b: Alt): readonly Alt[] {
  if (a.kind === 'word') return b.kind === 'word' && a.word === b.word ? [a] : [];
  if (a.kind === 'string') {
    if (b.kind !== 'string') return [];
    const texts = a.texts === null ? b.texts : b.texts === null ? a.texts : a.texts.filter((t) => b.texts?.includes(t));
    return [
      {
        kind: 'string',
        least: Math.max(a.least, b.least),
        most: Math.min(a.most, b.most),
        patterns: [...new Set([...a.patterns, ...b.patterns])],
        texts,
      },
    ];
  }
  if (a.kind === 'number') return b.kind === 'number' ? [{ kind: 'number', rule: meetNumbers(a.rule, b.rule) }] : [];
  if (a.kind === 'array')
    return b.kind !== 'array'
      ? []
      : [
          {
            kind: 'array',
            parts: [...a.parts, ...b.parts],
            least: Math.max(a.least, b.least),
            most: Math.min(a.most, b.most),
          },
        ];
  if (b.kind !== 'object') return [];
  const needs = new Map(a.needs);
  for (const [k, names] of b.needs) needs.set(k, [...(needs.get(k) ?? []), ...names]);
  return [
    {
      kind: 'object',
      parts: [...a.parts, ...b.parts],
      required: new Set([...a.required, ...b.required]),
      least: Math.max(a.least, b.least),
      most: Math.min(a.most, b.most),
      needs,
    },
  ];
}

/** Positive: a is above b. */
function compare(a: { whole: bigint; scale: number }, b: { whole: bigint; scale: number }): number {
  const scale = Math.max(a.scale, b.scale);
  const [x, y] = [a, b].map((d) => d.whole * 10n ** BigInt(scale - d.scale)) as [bigint, bigint];
  return x > y ? 1 : x < y ? -1 : 0;
}
function meetNumbers(a: NumberRule, b: NumberRule): NumberRule {
  // Of two bounds the tighter one; of equal ones that which leaves itself out.
  const low = !a.least || (b.least && compare(b.least, a.least) > 0) ? b : a;
  const high = !a.most || (b.most && compare(b.most, a.most) < 0) ? b : a;
  const sameLow = a.least && b.least && compare(a.least, b.least) === 0;
  const sameHigh = a.most && b.most && compare(a.most, b.most) === 0;
  return {
    integer: a.integer || b.integer,
    ...(low.least
      ? { least: low.least, above: sameLow ? a.above === true || b.above === true : low.above === true }
      : {}),
    ...(high.most
      ? { most: high.most, below: sameHigh ? a.below === true || b.below === true : high.below === true }
      : {}),
    multiples: [...a.multiples, ...b.multiples],
  };
}

// What is worked out of an alternative once.

/** A string: any text of some length, or a set of texts. 'none': there is no such text. */
export type StringPlan =
  | { readonly kind: 'free'; readonly least: number; readonly most: number }
  | { readonly kind: 'set'; readonly set: Characters }
  | 'none'
  | 'too_large';
const stringPlans = new WeakMap<StringAlt, StringPlan>();
export function stringPlan(alt: StringAlt): StringPlan {
  let plan = stringPlans.get(alt);
  if (plan === undefined) {
    plan = makeStringPlan(alt);
    stringPlans.set(alt, plan);
  }
  return plan;
}
/** By their text: the same pattern stands in a schema many times. */
const sets = new Map<string, Characters | null | 'too_large'>();
export function patternSet(patterns: readonly string[], least: number, most: number): Characters | null | 'too_large' {
  const key = JSON.stringify([patterns, least, most === Infinity ? -1 : most]);
  let set = sets.get(key);
  if (set === undefined) {
    let machine: Machine<unknown> | null = least > 0 || most < Infinity ? lengthMachine(least, most) : null;
    for (const p of patterns) {
      const own: Machine<unknown> = patternMachine(p) as Machine<unknown>;
      machine = machine ? (bothMachines(machine, own) as Machine<unknown>) : own;
    }
    set = machine ? charactersOf(machine) : null;
    if (sets.size > 256) sets.clear();
    sets.set(key, set);
  }
  return set;
}
function makeStringPlan({ least, most, patterns, texts }: StringAlt): StringPlan {
  if (texts) {
    const own = patterns.map((p) => patternSet([p], 0, Infinity));
    if (own.includes('too_large')) return 'too_large';
    const fits = texts.filter((t) => {
      const n = [...t].length;
      return n >= least && n <= most && own.every((p) => p !== null && p !== 'too_large' && allows(p, t));
    });
    return fits.length === 0 ? 'none' : { kind: 'set', set: textsOf(fits) };
  }
  if (least > most) return 'none';
  if (patterns.length === 0) return { kind: 'free', least, most };
  const set = patternSet(patterns, least, most);
  return set === null ? 'none' : set === 'too_large' ? set : { kind: 'set', set };
}
const numberPlans = new WeakMap<NumberAlt, NumberPlan>();
export function numberPlan(alt: NumberAlt): NumberPlan {
  let plan = numberPlans.get(alt);
  if (!plan) {
    plan = planOf(alt.rule);
    numberPlans.set(alt, plan);
  }
  return plan;
}

const items = new WeakMap<ArrayAlt, Map<number, Node>>();
/** Of the item at that place. */
export function itemNode(alt: ArrayAlt, at: number): Node {
  let known = items.get(alt);
  if (!known) {
    known = new Map();
    items.set(alt, known);
  }
  // Beyond what is listed all are alike.
  const place = Math.min(at, Math.max(0, ...alt.parts.map((p) => p.first.length)));
  let node = known.get(place);
  if (!node) {
    node = alt.parts.reduce<Node>((n, p) => meet(n, (p.first[place] ?? p.rest)()), ANY);
    known.set(place, node);
  }
  return node;
}
const memberNodes = new WeakMap<ObjectAlt, Map<string, Node>>();
/** Of the member of that name; without alternatives: there may be none. */
export function memberNode(alt: ObjectAlt, name: string): Node {
  let known = memberNodes.get(alt);
  if (!known) {
    known = new Map();
    memberNodes.set(alt, known);
  }
  let node = known.get(name);
  if (!node) {
    node = ANY;
    for (const part of alt.parts) {
      const own = part.members.get(name);
      const matching = part.patterns.filter(({ source }) => {
        const set = patternSet([source], 0, Infinity);
        return set !== null && set !== 'too_large' && allows(set, name);
      });
      if (own) node = meet(node, own());
      for (const { value } of matching) node = meet(node, value());
      if (!own && matching.length === 0) node = meet(node, part.rest());
    }
    if (known.size < 1000) known.set(name, node);
  }
  return node;
}

/** Deeper than that a schema is taken to have a value. */
const DEEPEST = 24;
const emptiness = new WeakMap<Node, boolean>();
/** No finite value keeps to it. */
export function isEmpty(node: Node, inside: readonly Node[] = []): boolean {
  const known = emptiness.get(node);
  if (known !== undefined) return known;
  if (inside.includes(node)) return true; // a value that holds itself never ends
  if (inside.length > DEEPEST) return false;
  const path = [...inside, node];
  const empty = node.alts.every((alt) => isEmptyAlt(alt, path));
  // Within another node that is looked at, an answer of yes may come of that alone.
  if (!empty || inside.length === 0) emptiness.set(node, empty);
  return empty;
}
function isEmptyAlt(alt: Alt, path: readonly Node[]): boolean {
  switch (alt.kind) {
    case 'word':
      return false;
    case 'string':
      return stringPlan(alt) === 'none';
    case 'number':
      return !hasNumber(numberPlan(alt));
    case 'array':
      if (alt.least > alt.most) return true;
      for (let i = 0; i < Math.min(alt.least, DEEPEST); i++) if (isEmpty(itemNode(alt, i), path)) return true;
      return false;
    case 'object': {
      const all = requiredOf(alt, alt.required);
      if (all.size > alt.most || alt.least > alt.most) return true;
      for (const name of all) if (isEmpty(memberNode(alt, name), path)) return true;
      const names = namesOf(alt);
      return names.only !== null && names.only.filter((n) => !isEmpty(memberNode(alt, n), path)).length < alt.least;
    }
  }
}
const emptyAlts = new WeakMap<Alt, boolean>();
/** The same of one alternative. */
export function isEmptyOne(alt: Alt): boolean {
  let empty = emptyAlts.get(alt);
  if (empty === undefined) {
    empty = isEmpty({ alts: [alt] });
    emptyAlts.set(alt, empty);
  }
  return empty;
}

const firsts = new WeakMap<Node, readonly (readonly Alt[])[]>();
const NO_ALTS: readonly Alt[] = [];
/** Alternatives that may begin with a byte. */
export function altsAt(node: Node, byte: number): readonly Alt[] {
  let known = firsts.get(node);
  if (!known) {
    const table: Alt[][] = [];
    for (const alt of node.alts) for (const b of Buffer.from(beginnings(alt))) table[b] = [...(table[b] ?? []), alt];
    known = table;
    firsts.set(node, known);
  }
  return known[byte] ?? NO_ALTS;
}
const beginnings = (alt: Alt): string => {
  switch (alt.kind) {
    case 'word':
      return alt.word[0] as string;
    case 'number':
      return '-0123456789';
    case 'string':
      return '"';
    case 'array':
      return isEmptyOne(alt) ? '' : '[';
    case 'object':
      return isEmptyOne(alt) ? '' : '{';
  }
};

/** Those, and what they need. */
export function requiredOf(alt: ObjectAlt, names: Iterable<string>): ReadonlySet<string> {
  const all = new Set(names);
  for (const n of all) for (const m of alt.needs.get(n) ?? []) all.add(m);
  return all;
}

/** Which names an object may have. */
export interface Names {
  /** All of them, where they are given ones; null: others too. */
  readonly only: readonly string[] | null;
  /** Of texts that a pattern finds, or given ones; null: any. */
  readonly pattern: string | null;
  /** Names that mean something of their own. */
  readonly known: ReadonlySet<string>;
}
const nameSets = new WeakMap<ObjectAlt, Names>();
const literal = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
export function namesOf(alt: ObjectAlt): Names {
  let names = nameSets.get(alt);
  if (!names) {
    const known = new Set([...alt.parts.flatMap((p) => [...p.members.keys()]), ...alt.required]);
    const closed = alt.parts.filter((p) => p.rest().alts.length === 0);
    const bare = closed.find((p) => p.patterns.length === 0);
    const first = closed[0];
    names = bare
      ? { only: [...bare.members.keys()], pattern: null, known }
      : first
        ? {
            only: null,
            pattern: [
              ...[...first.members.keys()].map((k) => `^${literal(k)}$`),
              ...first.patterns.map((p) => p.source),
            ].join('|'),
            known,
          }
        : { only: null, pattern: null, known };
    nameSets.set(alt, names);
  }
  return names;
}
