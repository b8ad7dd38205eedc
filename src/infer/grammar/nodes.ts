// What a value may be, as a list of alternatives, each of one type of JSON. What is inside one is made when it is first
// asked for, so a schema may name itself.
import { decimalOf, type NumberRule } from './decimal.js';

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
export const anyLazy: Lazy = () => ANY;
const nothing: Lazy = () => NOTHING;
const WORDS = ['true', 'false', 'null'] as const;
export const anyArray = (parts: readonly ArrayPart[]): ArrayAlt => ({ kind: 'array', parts, least: 0, most: Infinity });
export const anyObject = (parts: readonly ObjectPart[]): ObjectAlt => ({
  kind: 'object',
  parts,
  required: new Set(),
  least: 0,
  most: Infinity,
  needs: new Map(),
});
export const anyOfType = (type: JsonType): readonly Alt[] => {
  switch (type) {
    case 'string':
      return [{ kind: 'string', least: 0, most: Infinity, patterns: [], texts: null }];
    case 'number':
    case 'integer':
      return [{ kind: 'number', rule: { integer: type === 'integer', multiples: [] } }];
    case 'array':
      return [anyArray([])];
    case 'object':
      return [anyObject([])];
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
