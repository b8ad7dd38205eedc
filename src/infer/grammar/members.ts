// What is inside an array or an object: the node of an item, of a member, and which names there may be.
import { allows, textsIn } from './characters.js';
import { meet } from './meet.js';
import { ANY, type ArrayAlt, type Node, type ObjectAlt } from './nodes.js';
import { patternSet } from './plans.js';

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
/** Names that a pattern finds: as `^[ab]$` finds two, which may both have come. */
function byPattern(pattern: string, known: ReadonlySet<string>): Names {
  const set = patternSet([pattern], 0, Infinity);
  const only = set === null ? [] : set === 'too_large' ? null : textsIn(set, MOST_NAMES);
  return { only, pattern: only ? null : pattern, known };
}
const MOST_NAMES = 64;
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
        ? byPattern(
            [...[...first.members.keys()].map((k) => `^${literal(k)}$`), ...first.patterns.map((p) => p.source)].join(
              '|',
            ),
            known,
          )
        : { only: null, pattern: null, known };
    nameSets.set(alt, names);
  }
  return names;
}
