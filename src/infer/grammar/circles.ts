// Schemas that are asked of one value and lead back to themselves: no check of a value would come to an end. Found
// before the first one, in whatever of a schema a check may come to look at.
import { inTime } from './deadline.js';
import type { Place, References } from './references.js';
import { escaped, isObject, type Json, type Reading, requireKept } from './typed.js';

/** Keywords whose schemas are asked of the value itself: one, a list of them, or some by name. */
const ITSELF = {
  one: ['not', 'if', 'then', 'else'],
  list: ['allOf', 'anyOf', 'oneOf'],
  named: ['dependentSchemas', 'dependencies'],
} as const;
/** The same of what is inside the value. */
const INSIDE = {
  one: ['items', 'contains', 'additionalProperties', 'propertyNames', 'unevaluatedItems', 'unevaluatedProperties'],
  list: ['prefixItems'],
  named: ['properties', 'patternProperties'],
} as const;

interface Step extends Place {
  readonly keyword: string;
}
/** Schemas below a schema, by these keywords. */
function stepsOf(s: Json, at: string, keywords: typeof ITSELF | typeof INSIDE): readonly Step[] {
  const list = (k: string): readonly unknown[] => (Array.isArray(s[k]) ? (s[k] as readonly unknown[]) : []);
  const named = (k: string): readonly [string, unknown][] => (isObject(s[k]) ? Object.entries(s[k]) : []);
  return [
    ...keywords.one.map((keyword) => ({ keyword, schema: s[keyword], at: `${at}/${keyword}` })),
    ...keywords.list.flatMap((keyword) =>
      list(keyword).map((schema, i) => ({ keyword, schema, at: `${at}/${keyword}/${i}` })),
    ),
    ...keywords.named.flatMap((keyword) =>
      named(keyword).map(([name, schema]) => ({ keyword, schema, at: `${at}/${keyword}/${escaped(name)}` })),
    ),
  ].filter(({ schema }) => isObject(schema));
}

/**
 * Looks at every schema that a check may come to.
 * @throws {ConfigError} schema_unsupported: a circle, a keyword that nobody keeps to, a reference to what is not there
 */
export function requireNoCircles(root: unknown, references: References, reading: Reading): void {
  const done = new Set<unknown>(),
    open = new Set<unknown>();
  const inside: Place[] = [{ schema: root, at: '#' }];
  const look = ({ schema, at }: Place): void => {
    if (!isObject(schema) || done.has(schema)) return;
    inTime();
    requireKept(reading, schema, at);
    open.add(schema);
    const led = references.of(schema, at).flatMap(({ keyword, to }) => (to ? [{ ...to, keyword }] : []));
    for (const to of [...led, ...stepsOf(schema, at, ITSELF)]) {
      if (open.has(to.schema)) reading.refuse(at, to.keyword, 'it leads back to itself without a value between');
      look(to);
    }
    open.delete(schema);
    done.add(schema);
    inside.push(...stepsOf(schema, at, INSIDE));
  };
  for (let next = inside.pop(); next; next = inside.pop()) look(next);
}
