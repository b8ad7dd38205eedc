// What a gate will cost, before it runs: what there is to do, counted; how long it takes, from how fast models and
// judge were when they were asked a little of it.
import { sha256 } from '../../base/digest.js';
import type { Case } from './cases.js';

/** What a suite asks for, each conversation once, however many tests have it. */
export interface Work {
  /** Answers of one arm. */
  readonly answers: number;
  /** Texts of one arm that are judged, at most. */
  readonly texts: number;
  /** Texts of the suite's own that are judged, once for all arms. */
  readonly own: number;
}
export function workOf(cases: readonly Case[]): Work {
  const conversations = new Map<string, number>();
  const [texts, own] = [new Set<string>(), new Set<string>()];
  for (const { of, prompt, sample } of cases) {
    const asked = prompt.text === null ? [prompt.opening, prompt.turns, sample] : [prompt.text];
    const key = sha256(JSON.stringify(asked));
    const turns = Math.max(1, prompt.turns.length);
    if (prompt.text === null) conversations.set(key, turns);
    if (of.policy === null) continue;
    // Where the analysis counts too, both it and what is said are read.
    const channels = of.counted.some(({ value }) => READS_BOTH.has(value)) ? 2 : 1;
    for (let i = 0; i < turns * channels; i++) (prompt.text === null ? texts : own).add(`${of.policy} ${key} ${i}`);
  }
  return { answers: [...conversations.values()].reduce((a, b) => a + b, 0), texts: texts.size, own: own.size };
}
const READS_BOTH: ReadonlySet<string> = new Set(['any', 'hidden', 'shown']);

/** How fast answers came, as many at once as the gate asks. */
export interface Speed {
  readonly secondsPerPromptToken: number;
  readonly secondsPerToken: number;
  /** Of a prompt, in the mean. */
  readonly promptTokens: number;
  /** Of an answer: the least, the likely and the most, where not all came to their end. */
  readonly tokens: readonly [least: number, likely: number, most: number];
  /** null: it was not asked, or not done in time. */
  readonly secondsPerText: number | null;
}
export interface Estimate {
  readonly seconds: number;
  readonly low: number;
  /** null: nothing says. */
  readonly high: number | null;
}
/** How far a machine that does other work too may be off in either direction. */
const UNSTEADY = 1.5;

/**
 * @param arms that answer · @param known whether the base may have answered before: then the least is without it
 */
export function estimate(work: Work, speed: Speed, arms: number, known: boolean): Estimate {
  const asking = (tokens: number): number =>
    work.answers * (speed.promptTokens * speed.secondsPerPromptToken + tokens * speed.secondsPerToken);
  const perText = speed.secondsPerText ?? 0;
  const [judging, own] = [work.texts * perText, work.own * perText];
  const [least, likely, most] = speed.tokens.map(asking) as [number, number, number];
  const unknown = speed.secondsPerText === null && work.texts + work.own > 0;
  // Arms that say the same are judged once.
  return {
    seconds: arms * (likely + judging) + own,
    low: ((known ? arms - 1 : arms) * least + judging + own) / UNSTEADY,
    high: unknown ? null : (arms * (most + judging) + own) * UNSTEADY,
  };
}
