// What fields of a config may be, and how they are read: without zod, which takes longer to load than a small model.

/** What a field holds. `ids`: one token id or a list of them. */
export type Kind =
  | { readonly is: 'int'; readonly least?: number; readonly most?: number }
  | { readonly is: 'number'; readonly above?: number }
  | { readonly is: 'boolean' | 'string' | 'object' | 'ids' }
  | { readonly is: 'one' | 'list'; readonly of: readonly (string | number)[] };
/** `absent`: whether it may be missing, and null with it. `T` is what is read of it. */
export interface Field<T> {
  readonly kind: Kind;
  readonly absent?: 'missing' | 'null';
  readonly default?: T;
}
type Shape = Readonly<Record<string, Field<unknown>>>;
type Of<F> = F extends Field<infer T> ? T : never;
type Optional<S extends Shape> = { [K in keyof S]: undefined extends Of<S[K]> ? K : never }[keyof S];
/** What is read by a shape. */
export type Read<S extends Shape> = { [K in Exclude<keyof S, Optional<S>>]: Of<S[K]> } & {
  [K in Optional<S>]?: Of<S[K]>;
};

export const int = (least?: number, most?: number): Field<number> => ({
  kind: { is: 'int', ...(least === undefined ? {} : { least }), ...(most === undefined ? {} : { most }) },
});
export const number = (): Field<number> => ({ kind: { is: 'number' } });
export const positive = (): Field<number> => ({ kind: { is: 'number', above: 0 } });
export const bool = (): Field<boolean> => ({ kind: { is: 'boolean' } });
export const text = (): Field<string> => ({ kind: { is: 'string' } });
export const object = (): Field<Record<string, unknown>> => ({ kind: { is: 'object' } });
export const ids = (): Field<number | number[]> => ({ kind: { is: 'ids' } });
export const oneOf = <T extends string | number>(...of: readonly T[]): Field<T> => ({ kind: { is: 'one', of } });
export const listOf = <T extends string>(...of: readonly T[]): Field<T[]> => ({ kind: { is: 'list', of } });
export const optional = <T>(field: Field<T>): Field<T | undefined> => ({ ...field, absent: 'missing' });
export const nullish = <T>(field: Field<T>): Field<T | null | undefined> => ({ ...field, absent: 'null' });
export const or = <T>(field: Field<T>, value: T): Field<T> => ({ ...field, default: value });

const isInt = (v: unknown): v is number => Number.isSafeInteger(v);
export const isObject = (v: unknown): v is Readonly<Record<string, unknown>> =>
  typeof v === 'object' && v !== null && !Array.isArray(v);

/** What was wanted; null: it is that. */
function wanted(kind: Kind, v: unknown): string | null {
  const { is } = kind;
  switch (is) {
    case 'int': {
      const { least = Number.MIN_SAFE_INTEGER, most = Number.MAX_SAFE_INTEGER } = kind;
      const range = kind.least === undefined ? '' : ` from ${least}${kind.most === undefined ? '' : ` to ${most}`}`;
      return isInt(v) && v >= least && v <= most ? null : `an integer${range}`;
    }
    case 'number': {
      const { above } = kind;
      if (Number.isFinite(v) && (above === undefined || (v as number) > above)) return null;
      return above === undefined ? 'a number' : `a number above ${above}`;
    }
    case 'object':
      return isObject(v) ? null : 'an object';
    case 'ids':
      return isInt(v) || (Array.isArray(v) && v.every(isInt)) ? null : 'a token id or a list of them';
    case 'one':
      return kind.of.some((o) => o === v) ? null : kind.of.map((o) => JSON.stringify(o)).join(' or ');
    case 'list':
      return Array.isArray(v) && v.every((one) => kind.of.includes(one as string))
        ? null
        : `a list of ${kind.of.map((o) => JSON.stringify(o)).join(' and ')}`;
    default:
      return typeof v === is ? null : `a ${is}`;
  }
}
const shown = (v: unknown): string => (v === undefined ? 'nothing' : JSON.stringify(v).slice(0, 80));

/** What is wrong with a field; `field` null: with the whole. */
export interface Wrong {
  readonly field: string | null;
  readonly what: string;
}
/**
 * Reads fields by their shape, defaults filled in. Others are left out.
 * @param strict others are wrong
 */
export function readFields<S extends Shape>(shape: S, value: unknown, strict = false): Read<S> | Wrong {
  if (!isObject(value)) return { field: null, what: `wanted an object, got ${shown(value)}` };
  const read: Record<string, unknown> = {};
  for (const [field, { kind, absent, default: usual }] of Object.entries(shape)) {
    const v = Object.hasOwn(value, field) ? value[field] : undefined;
    if (v === undefined && usual !== undefined) read[field] = usual;
    else if (v === undefined ? absent !== undefined : v === null && absent === 'null') {
      if (v === null) read[field] = null;
    } else {
      const what = wanted(kind, v);
      if (what !== null) return { field, what: `wanted ${what}, got ${shown(v)}` };
      read[field] = v;
    }
  }
  const unknown = strict ? Object.keys(value).filter((key) => !Object.hasOwn(shape, key)) : [];
  if (unknown.length > 0) return { field: null, what: `unknown key ${unknown.join(', ')}` };
  return read as Read<S>;
}
export const isWrong = (read: object): read is Wrong => Object.hasOwn(read, 'what');
