// What a gate will ask, counted from its suite alone: no model is opened.
import { type Case, casesOf, readTests } from '../gate/run/cases.js';
import { workOf } from '../gate/run/cost.js';
import { type LoadedSuite, loadSuite } from '../gate/suite.js';

export interface GateWork {
  readonly prompts: number;
  readonly cases: number;
  /** Answers of all arms at most: what two tests ask alike is asked once, and the base may be known. */
  readonly answers: number;
  /** Most tokens that are written. */
  readonly mostTokens: number;
  /** Texts that are judged, at most. */
  readonly texts: number;
}
/** @param arms that answer, the base among them */
export function countWork({ suite }: LoadedSuite, cases: readonly Case[], arms: number): GateWork {
  const work = workOf(cases);
  return {
    prompts: new Set(cases.map((c) => `${c.of.test.name} ${c.prompt.id}`)).size,
    cases: cases.length,
    answers: arms * work.answers,
    mostTokens: arms * work.answers * suite.sampling.maxTokens,
    texts: arms * work.texts + work.own,
  };
}

/**
 * Of base and adapter. Prompts that a search has yet to find are not among them.
 * @throws as loadSuite and readTests
 */
export async function gateWork(suite: string): Promise<GateWork> {
  const loaded = loadSuite(suite);
  return countWork(loaded, casesOf(loaded, await readTests(loaded)), 2);
}
