// What is worked out of an alternative once: the texts of a string, the digits of a number.
import {
  allows,
  bothMachines,
  type Characters,
  charactersOf,
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
/** By their text: the same pattern stands in a schema many times. */
const sets = new Map<string, Characters | null | 'too_large'>();
export function patternSet(patterns: readonly string[], least: number, most: number): Characters | null | 'too_large' {
  const key = JSON.stringify([patterns, least, most === Infinity ? -1 : most]);
  let set = sets.get(key);
  if (set === undefined) {
    let machine: Machine<unknown> | null = least > 0 || most < Infinity ? lengthMachine(least, most) : null;
    for (const p of patterns) {
      const own: Machine<unknown> = patternMachine(p) as Machine<unknown>;
      machine = machine ? (bothMachines(machine, own) as Machine<unknown>) : own;
    }
    set = machine ? charactersOf(machine) : null;
    if (sets.size > 256) sets.clear();
    sets.set(key, set);
  }
  return set;
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
