// Whether any value keeps to a node, and by which bytes one may begin: nothing is begun that cannot come to an end.
import { inTime } from './deadline.js';
import { hasNumber } from './decimal.js';
import { itemNode, memberNode, namesOf, requiredOf } from './members.js';
import type { Alt, Node } from './nodes.js';
import { numberPlan, stringPlan } from './plans.js';

/** Deeper than that a schema is taken to have a value. */
const DEEPEST = 24;
const emptiness = new WeakMap<Node, boolean>();
/** No finite value keeps to it. */
export function isEmpty(node: Node, inside: readonly Node[] = []): boolean {
  const known = emptiness.get(node);
  if (known !== undefined) return known;
  inTime();
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
      return isEmptyOne(alt) ? '' : '-0123456789';
    case 'string':
      return isEmptyOne(alt) ? '' : '"';
    case 'array':
      return isEmptyOne(alt) ? '' : '[';
    case 'object':
      return isEmptyOne(alt) ? '' : '{';
  }
};
