// Where a `$ref` of a schema leads. A schema may hold resources with an `$id` of their own: references are URIs, read
// against the one that they stand in. No other document is ever asked for.
import { escaped, isObject, type Json, type Reading } from './typed.js';

/** Read against by schemas without an `$id`. */
const NO_BASE = 'schema://document/';
/** Documents that the check knows by itself: what they say is left to it. */
const META = /^https:\/\/json-schema\.org\/draft\/2020-12\/(?:schema|meta\/[a-z-]+)$/;
/** Keywords whose value is a schema, a list of them, or names of some. */
const ONE = [
  'items',
  'contains',
  'additionalProperties',
  'propertyNames',
  'if',
  'then',
  'else',
  'not',
  'unevaluatedItems',
  'unevaluatedProperties',
  'contentSchema',
];
const LIST = ['allOf', 'anyOf', 'oneOf', 'prefixItems'];
const NAMED = ['$defs', 'definitions', 'properties', 'patternProperties', 'dependentSchemas', 'dependencies'];
const DEEPEST = 200;

export interface Place {
  readonly schema: unknown;
  readonly at: string;
}

/** Absolute, and without an empty fragment; null: no URI. */
function resolved(uri: string, base: string): string | null {
  try {
    return new URL(uri, base).href.replace(/#$/, '');
  } catch {
    return null;
  }
}

/** The places of one schema that a reference may name. */
export class References {
  /** By URI, anchors among them. */
  readonly #places = new Map<string, Place>();
  /** Of schemas that were met: the URI that their references are read against. */
  readonly #bases = new Map<unknown, string>();
  /** Every schema in it that is one by its place. */
  readonly places: Place[] = [];
  /** Places of `$dynamicAnchor`s by name. */
  readonly #dynamic = new Map<string, Place[]>();

  constructor(
    root: unknown,
    readonly reading: Reading,
  ) {
    this.#places.set(NO_BASE, { schema: root, at: '#' });
    this.#walk(root, '#', NO_BASE, 0);
  }

  #walk(schema: unknown, at: string, outer: string, depth: number): void {
    if (!isObject(schema) || this.#bases.has(schema)) return;
    if (depth > DEEPEST) this.reading.refuse('#', 'schema', `nested deeper than ${DEEPEST}`);
    const base = this.#baseOf(schema, at, outer);
    this.#bases.set(schema, base);
    this.places.push({ schema, at });
    for (const k of ['$anchor', '$dynamicAnchor']) {
      const name = schema[k];
      if (typeof name === 'string') this.#add(`${base}#${name}`, schema, at, k);
    }
    if (typeof schema.$dynamicAnchor === 'string') {
      const known = this.#dynamic.get(schema.$dynamicAnchor) ?? [];
      this.#dynamic.set(schema.$dynamicAnchor, [...known, { schema, at }]);
    }
    for (const k of ONE) this.#walk(schema[k], `${at}/${k}`, base, depth + 1);
    for (const k of LIST)
      if (Array.isArray(schema[k]))
        for (const [i, v] of (schema[k] as unknown[]).entries()) this.#walk(v, `${at}/${k}/${i}`, base, depth + 1);
    for (const k of NAMED)
      if (isObject(schema[k]))
        for (const [n, v] of Object.entries(schema[k])) this.#walk(v, `${at}/${k}/${escaped(n)}`, base, depth + 1);
  }
  #baseOf(schema: Json, at: string, outer: string): string {
    const { $id: id } = schema;
    if (id === undefined) return outer;
    if (typeof id !== 'string') return this.reading.wrong(at, '$id', 'a URI');
    const own = resolved(id, outer);
    if (own === null || own.includes('#')) return this.reading.refuse(at, '$id', 'wanted a URI without a fragment');
    if (META.test(own)) return this.reading.refuse(at, '$id', `${own} is JSON Schema's own`);
    this.#add(own, schema, at, '$id');
    return own;
  }
  #add(uri: string, schema: unknown, at: string, keyword: string): void {
    const known = this.#places.get(uri);
    if (known && known.schema !== schema)
      this.reading.refuse(at, keyword, `${JSON.stringify(uri)} is what ${known.at} is called, too`);
    this.#places.set(uri, { schema, at });
  }

  /** Where the references of a schema lead; null: left to the check. @throws as `find` */
  of(s: Json, at: string): readonly { readonly keyword: string; readonly to: Place | null }[] {
    return [
      ...(s.$ref === undefined ? [] : [{ keyword: '$ref', to: this.find(s.$ref, s, at) }]),
      ...(s.$dynamicRef === undefined ? [] : [{ keyword: '$dynamicRef', to: this.findDynamic(s.$dynamicRef, s, at) }]),
    ];
  }

  /** @returns null: one of JSON Schema's own documents @throws {ConfigError} schema_unsupported, schema_invalid */
  find(ref: unknown, from: unknown, at: string, keyword = '$ref'): Place | null {
    const { reading } = this;
    if (typeof ref !== 'string') return reading.wrong(at, keyword, 'a text');
    const uri = resolved(ref, this.#bases.get(from) ?? NO_BASE);
    if (uri === null) return reading.wrong(at, keyword, 'a URI');
    const known = this.#places.get(uri);
    if (known) return known;
    const [document = '', fragment = ''] = uri.split('#', 2);
    const root = this.#places.get(document);
    if (!root && META.test(document)) return null;
    if (!root) return reading.refuse(at, keyword, `${JSON.stringify(ref)} is another document`);
    let pointer: string;
    try {
      pointer = decodeURIComponent(fragment);
    } catch {
      return reading.wrong(at, keyword, 'a pointer');
    }
    if (!pointer.startsWith('/')) return reading.refuse(at, keyword, `no anchor ${JSON.stringify(ref)}`);
    return this.#inside(root, document, pointer, ref, at, keyword);
  }
  #inside(root: Place, document: string, pointer: string, ref: string, at: string, keyword: string): Place {
    const { reading } = this;
    let target: unknown = root.schema;
    let inside = root.at;
    for (const key of pointer.split('/').slice(1)) {
      const name = key.replaceAll('~1', '/').replaceAll('~0', '~');
      target =
        typeof target === 'object' && target !== null && Object.hasOwn(target, name)
          ? (target as Record<string, unknown>)[name]
          : undefined;
      inside += `/${key}`;
      if (isObject(target) && '$id' in target && !this.#bases.has(target))
        reading.refuse(inside, '$id', 'a pointer that leads past it');
    }
    if (target === undefined) return reading.wrong(at, keyword, `something at ${JSON.stringify(ref)}`);
    // It may stand where no schema does by itself: its own references are read like those of its document.
    this.#walk(target, inside, document, 0);
    return { schema: target, at: inside };
  }

  baseOf(schema: unknown): string {
    return this.#bases.get(schema) ?? NO_BASE;
  }
  /**
   * Where the references of a schema lead, given the resources that led to it, the outermost first. What JSON Schema's
   * own documents say is no concern of this.
   */
  targets(s: Json, scope: readonly string[]): readonly unknown[] {
    const out: unknown[] = [];
    const direct = s.$ref === undefined ? null : this.find(s.$ref, s, '#');
    if (direct) out.push(direct.schema);
    const place = s.$dynamicRef === undefined ? null : this.find(s.$dynamicRef, s, '#', '$dynamicRef');
    if (!place) return out;
    const name = this.#dynamicName(s.$dynamicRef, place);
    const outermost = name === null ? undefined : scope.find((base) => this.#isDynamic(base, name));
    out.push(outermost === undefined ? place.schema : this.#places.get(`${outermost}#${name}`)?.schema);
    return out;
  }
  #isDynamic(base: string, name: string): boolean {
    const there = this.#places.get(`${base}#${name}`)?.schema;
    return isObject(there) && there.$dynamicAnchor === name;
  }
  /** The anchor by which a `$dynamicRef` is dynamic; null: it is as a `$ref`. */
  #dynamicName(ref: unknown, place: Place): string | null {
    const name = isObject(place.schema) ? place.schema.$dynamicAnchor : undefined;
    return typeof ref === 'string' && typeof name === 'string' && ref.endsWith(`#${name}`) ? name : null;
  }

  /**
   * What a `$dynamicRef` may lead to: the one place, or null where it depends on the way that led there.
   * @throws as `find`
   */
  findDynamic(ref: unknown, from: unknown, at: string): Place | null {
    const place = this.find(ref, from, at, '$dynamicRef');
    const name = place && this.#dynamicName(ref, place);
    return name !== null && (this.#dynamic.get(name)?.length ?? 0) > 1 ? null : place;
  }
}
