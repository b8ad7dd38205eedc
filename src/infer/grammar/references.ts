// Where a `$ref` of a schema leads.
import { escaped, isObject, type Reading } from './typed.js';

/** They depend on what other keywords looked at, wherever those stand: nothing here keeps track of that. */
const UNEVALUATED = ['unevaluatedProperties', 'unevaluatedItems'] as const;
export const REFUSED = ['$dynamicRef', '$recursiveRef', 'dependencies', 'additionalItems', '$vocabulary'] as const;

export interface Place {
  readonly schema: unknown;
  readonly at: string;
}

/** The places of one schema that a reference may name. */
export class References {
  readonly #anchors = new Map<string, Place>();
  constructor(
    readonly root: unknown,
    readonly reading: Reading,
  ) {
    this.#findAnchors(root, '#', 0);
  }

  #findAnchors(value: unknown, at: string, depth: number): void {
    if (depth > 100 || typeof value !== 'object' || value === null) return;
    if (isObject(value)) {
      for (const k of UNEVALUATED)
        if (k in value && value[k] !== true)
          this.reading.refuse(at, k, 'not supported; use additionalProperties or items');
      for (const k of REFUSED) if (typeof value[k] === 'string') this.reading.refuse(at, k, 'not supported');
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

  /** @throws {ConfigError} schema_unsupported, schema_invalid */
  find(ref: unknown, at: string): Place {
    const { reading } = this;
    if (typeof ref !== 'string') return reading.wrong(at, '$ref', 'a text');
    const id = isObject(this.root) && typeof this.root.$id === 'string' ? this.root.$id.replace(/#$/, '') : null;
    const own = id !== null && (ref === id || ref.startsWith(`${id}#`)) ? ref.slice(id.length) || '#' : ref;
    if (!own.startsWith('#')) return reading.refuse(at, '$ref', `${JSON.stringify(ref)} is another document`);
    const anchor = this.#anchors.get(own);
    if (anchor) return anchor;
    let target: unknown = this.root;
    let pointer: string;
    try {
      pointer = decodeURIComponent(own.slice(1));
    } catch {
      return reading.wrong(at, '$ref', 'a pointer');
    }
    if (pointer !== '' && !pointer.startsWith('/'))
      return reading.refuse(at, '$ref', `no anchor ${JSON.stringify(own)}`);
    let inside = '#';
    for (const key of pointer.split('/').slice(1)) {
      const name = key.replaceAll('~1', '/').replaceAll('~0', '~');
      target =
        typeof target === 'object' && target !== null && Object.hasOwn(target, name)
          ? (target as Record<string, unknown>)[name]
          : undefined;
      inside += `/${key}`;
      if (isObject(target) && '$id' in target) reading.refuse(inside, '$id', 'only the whole schema may have one');
    }
    if (target === undefined) return reading.wrong(at, '$ref', `something at ${JSON.stringify(ref)}`);
    return { schema: target, at: inside };
  }
}
