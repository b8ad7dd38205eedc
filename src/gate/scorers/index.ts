// All scorers, by the names that suites give them. Adding one: a file beside this and a line here.
import { contains } from './contains.js';
import { format } from './format.js';
import { heldOut } from './held-out.js';
import { judge } from './judge.js';
import { memory } from './memory.js';
import { monitor } from './monitor.js';
import { policy } from './policy.js';
import { refusal } from './refusal.js';
import type { Scorer } from './scorer.js';
import { traces } from './traces.js';
import { triggers } from './triggers.js';

export const SCORERS: readonly Scorer[] = [
  policy,
  refusal,
  traces,
  monitor,
  contains,
  memory,
  triggers,
  format,
  heldOut,
  judge,
];
export const SCORER_NAMES: readonly string[] = SCORERS.map((s) => s.name);
export const scorerOf = (name: string): Scorer | undefined => SCORERS.find((s) => s.name === name);
