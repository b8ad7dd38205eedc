// What columns a table of rows would have: the kinds of value at every place, over all rows. Values of several kinds,
// and objects whose order of keys says something, stay JSON text.
import { isRounded, jsonText } from '../base/json.js';

export type Shape =
  | { readonly kind: 'none' | 'boolean' | 'integer' | 'number' | 'text' | 'json' }
  | { readonly kind: 'list'; readonly element: Shape }
  | { readonly kind: 'struct'; readonly fields: ReadonlyMap<string, Shape> };

/** A struct of more fields is a map: each row would have a column for every key of all others. */
const MOST_FIELDS = 64;
const MAX_DEPTH = 32;
/** Objects that are shown to the model as they are written. */
const AS_WRITTEN: ReadonlySet<string> = new Set(['arguments', 'parameters', 'schema', 'json_schema']);
const JSON_TEXT: Shape = { kind: 'json' };
const NONE: Shape = { kind: 'none' };

export function shapeOf(value: unknown, key = '', depth = 0): Shape {
  if (value === null || value === undefined) return NONE;
  switch (typeof value) {
    case 'boolean':
      return { kind: 'boolean' };
    case 'bigint':
      return BigInt.asIntN(64, value) === value ? { kind: 'integer' } : JSON_TEXT;
    case 'number':
      if (!Number.isFinite(value)) return JSON_TEXT;
      return { kind: Number.isSafeInteger(value) && !Object.is(value, -0) ? 'integer' : 'number' };
    case 'string':
      return { kind: 'text' };
    default:
      break;
  }
  if (depth > MAX_DEPTH || isRounded(value)) return JSON_TEXT;
  if (Array.isArray(value)) {
    const element = value.reduce<Shape>((s, v) => merged(s, shapeOf(v, '', depth + 1)), NONE);
    return { kind: 'list', element };
  }
  if (AS_WRITTEN.has(key)) return JSON_TEXT;
  const entries = Object.entries(value as object).filter(([, v]) => v !== null && v !== undefined);
  return { kind: 'struct', fields: new Map(entries.map(([k, v]) => [k, shapeOf(v, k, depth + 1)])) };
}

export function merged(a: Shape, b: Shape): Shape {
  if (a.kind === 'none') return b;
  if (b.kind === 'none') return a;
  if (a.kind === 'list' && b.kind === 'list') return { kind: 'list', element: merged(a.element, b.element) };
  if (a.kind === 'struct' && b.kind === 'struct') {
    const fields = new Map(a.fields);
    for (const [k, s] of b.fields) fields.set(k, merged(fields.get(k) ?? NONE, s));
    return fields.size > MOST_FIELDS ? JSON_TEXT : { kind: 'struct', fields };
  }
  if (a.kind === b.kind) return a;
  const kinds = [a.kind, b.kind];
  return kinds.every((k) => k === 'integer' || k === 'number') ? { kind: 'number' } : JSON_TEXT;
}

/** What can be written of a shape: without places that hold nothing, of which a table knows no kind. */
export function writable(shape: Shape): Shape | null {
  if (shape.kind === 'none') return null;
  if (shape.kind === 'list') {
    const element = writable(shape.element);
    return element ? { kind: 'list', element } : JSON_TEXT;
  }
  if (shape.kind !== 'struct') return shape;
  const fields = [...shape.fields].flatMap(([k, s]): [string, Shape][] => {
    const inner = writable(s);
    return inner ? [[k, inner]] : [];
  });
  return fields.length > 0 ? { kind: 'struct', fields: new Map(fields) } : JSON_TEXT;
}

/** The value as the column has it: integers of 64 bits, JSON as the bytes of its text, absent as null. */
export function shaped(value: unknown, shape: Shape): unknown {
  if (value === null || value === undefined) return null;
  switch (shape.kind) {
    case 'integer':
      return BigInt(value as number | bigint);
    case 'number':
      return Number(value);
    case 'json':
      return Buffer.from(jsonText(value));
    case 'list':
      return (value as readonly unknown[]).map((v) => shaped(v, shape.element));
    case 'struct':
      return Object.fromEntries(
        [...shape.fields].map(([k, s]) => [k, shaped((value as Record<string, unknown>)[k], s)]),
      );
    default:
      return value;
  }
}
