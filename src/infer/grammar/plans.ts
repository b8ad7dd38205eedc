// What is worked out of an alternative once: the texts of a string, the digits of a number.
import {
  allows,
  bothMachines,
  type Characters,
  type CharacterTable,
  charactersOf,
  fromTable,
  lengthMachine,
  type Machine,
  textsOf,
} from './characters.js';
import { type NumberPlan, planOf } from './decimal.js';
import type { NumberAlt, StringAlt } from './nodes.js';
import { patternMachine } from './pattern.js';

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
/** What patterns and lengths allow. null: no text */
export type PatternSet = Characters | null | 'too_large';
/** The same as it passes between threads. */
export type PatternTable = CharacterTable | null | 'too_large';
/** By their text: the same pattern stands in a schema many times. The latest ones. */
const sets = new Map<string, PatternSet>();
const MOST_SETS = 512;
/** Keys that were asked for while something was recorded. */
let asked: Set<string> | null = null;
let worked = 0;
/** How many sets this thread has worked out itself: for tests. */
export const setsWorkedOut = (): number => worked;

export function patternSet(patterns: readonly string[], least: number, most: number): PatternSet {
  const key = JSON.stringify([patterns, least, most === Infinity ? -1 : most]);
  asked?.add(key);
  let set = sets.get(key);
  if (set === undefined) {
    worked++;
    let machine: Machine<unknown> | null = least > 0 || most < Infinity ? lengthMachine(least, most) : null;
    for (const p of patterns) {
      const own = patternMachine(p);
      machine = machine ? (bothMachines(machine, own) as Machine<unknown>) : own;
    }
    set = machine ? charactersOf(machine) : null;
    keep(key, set);
  }
  return set;
}
function keep(key: string, set: PatternSet): void {
  sets.delete(key);
  sets.set(key, set);
  if (sets.size > MOST_SETS) sets.delete(sets.keys().next().value!);
}
/** One that was worked out or taken; undefined: not lately. */
export const knownSet = (key: string): PatternSet | undefined => sets.get(key);
/** Takes what another thread worked out. */
export function takeSets(tables: Iterable<readonly [string, PatternTable]>): void {
  for (const [key, table] of tables)
    keep(key, sets.get(key) ?? (table === null || table === 'too_large' ? table : fromTable(table)));
}
/** @returns beside what the work gave: every set that it asked for, to be taken by another thread */
export function recordSets<T>(work: () => T): {
  readonly result: T;
  readonly sets: readonly (readonly [string, PatternTable])[];
} {
  const outer = asked;
  asked = new Set();
  try {
    const result = work();
    const kept = [...asked].flatMap((key): readonly (readonly [string, PatternTable])[] => {
      const set = sets.get(key);
      if (set === undefined) return [];
      return [[key, set === null || set === 'too_large' ? set : set.table!]];
    });
    return { result, sets: kept };
  } finally {
    asked = outer;
  }
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
