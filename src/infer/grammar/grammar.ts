// A schema made ready in one thread and held to in another: what is costly (patterns, a look at all of it) is done
// where it is compiled; where tokens are sampled a node is made when a value reaches it.
import { sha256 } from '../../base/digest.js';
import type { Characters } from './characters.js';
import { within } from './deadline.js';
import { type Masks, type SetMasks, setMasks } from './masks.js';
import { itemNode, memberNode, namesOf } from './members.js';
import type { Alt, Node } from './nodes.js';
import { knownSet, type PatternTable, patternSet, recordSets, stringPlan, takeSets } from './plans.js';
import { isEmpty } from './reachable.js';
import type { References } from './references.js';
import { compileSchema, openSchema } from './schema.js';
import type { Vocabulary } from './vocabulary.js';

/** What passes between threads. */
export interface Grammar {
  /** sha256 of the text. */
  readonly id: string;
  /** The schema, as JSON. */
  readonly text: string;
  /** Sets of characters that its patterns and lengths make. */
  readonly sets: readonly (readonly [string, PatternTable])[];
  /** By set: what it does to the vocabulary, from the states that a text comes to first. */
  readonly masks: readonly (readonly [string, SetMasks])[];
  /** Keywords that the check alone keeps to, with their places. */
  readonly checked: readonly string[];
}

/** Nodes that are looked at beforehand: schemas that name themselves have no end of them. */
const MOST_NODES = 4000;
/** Of compiling. */
const MOST_MS = 10_000;

/** Asks for everything that a text could come to ask for. */
function visit(root: Node): void {
  const seen = new Set<Node>();
  const open = [root];
  const of = (alt: Alt): void => {
    if (alt.kind === 'string') stringPlan(alt);
    else if (alt.kind === 'array') {
      const places = Math.max(0, ...alt.parts.map((p) => p.first.length));
      for (let i = 0; i <= Math.min(places, alt.most); i++) open.push(itemNode(alt, i));
    } else if (alt.kind === 'object') {
      const { known, pattern } = namesOf(alt);
      if (pattern !== null) patternSet([pattern], 0, Number.POSITIVE_INFINITY);
      for (const name of known) open.push(memberNode(alt, name));
      for (const part of alt.parts) {
        open.push(part.rest());
        for (const { value } of part.patterns) open.push(value());
      }
    }
  };
  for (let node = open.pop(); node && seen.size < MOST_NODES; node = open.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    isEmpty(node);
    for (const alt of node.alts) of(alt);
  }
}

/** Bytes of masks that a grammar brings, and the states of one set that are looked at. */
const MASK_BYTES = 2 << 20,
  MASK_STATES = 32;
/** The same grammar with the masks of its sets. @throws {ConfigError} schema_unsupported: it takes too long */
export function withMasks(grammar: Grammar, vocabulary: Vocabulary): Grammar {
  const ofState = 4 * vocabulary.words + vocabulary.closers.length;
  let left = Math.floor(MASK_BYTES / ofState);
  const masks: [string, SetMasks][] = [];
  for (const [key] of grammar.sets) {
    const set = knownSet(key);
    const states = set && set !== 'too_large' ? Math.min(left, MASK_STATES, set.table?.accepts.length ?? 0) : 0;
    if (states === 0) continue;
    masks.push([key, setMasks(vocabulary, set as Characters, states)]);
    left -= states;
  }
  return { ...grammar, masks };
}

/** @param ms how long it may take · @throws {ConfigError} schema_unsupported, schema_invalid */
export function makeGrammar(
  schema: unknown,
  ms = MOST_MS,
): { readonly grammar: Grammar; readonly references: References } {
  const text = JSON.stringify(schema);
  return within(ms, () => {
    const { result, sets } = recordSets(() => {
      const made = compileSchema(schema);
      visit(made.root);
      return made;
    });
    return {
      grammar: { id: sha256(text), text, sets, masks: [], checked: result.checked },
      references: result.references,
    };
  });
}

/** The latest ones. */
const opened = new Map<string, Node>();
const MOST_OPENED = 64;
/** The node of its values, made of what `makeGrammar` found. */
export function openGrammar({ id, text, sets, masks: made }: Grammar, masks: Masks): Node {
  takeSets(sets);
  for (const [key, own] of made) {
    const set = knownSet(key);
    if (set && set !== 'too_large') masks.adopt(set, own);
  }
  const root = opened.get(id) ?? openSchema(JSON.parse(text));
  opened.delete(id);
  opened.set(id, root);
  if (opened.size > MOST_OPENED) opened.delete(opened.keys().next().value!);
  return root;
}
