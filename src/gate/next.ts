// What to do about a metric that did not pass, in one sentence a reader can follow. It is told beside a decision and is
// no part of it.
import type { Decision, MetricDecision } from './decision.js';
import type { Suite } from './suite.js';

/** More prompts than this many times those there are: another margin is the nearer way. */
const FAR = 20;

/** @param judged its values are a judge's, so that people may say otherwise */
export function nextOf(m: MetricDecision, judged: boolean, { minPrompts }: Decision['parameters']): string | null {
  if (m.verdict === 'PASS') return null;
  const { test, missing, clusters, margin, bound } = m;
  if (m.n === 0) return `give test ${test} prompts that count for it, and look why none has an outcome`;
  // Missing values count as pairs that differ, and a person may judge those too.
  const open = judged ? Math.max(0, m.discordant.worse + m.discordant.better - m.labelled) : 0;
  const people =
    `have people judge the ${open} pairs that differ${missing > 0 ? ' or lack a value' : ''} ` +
    '(temper gate decide DIR --discordant FILE, or --store FILE --ask)';
  if (m.verdict === 'ERROR')
    return `look why ${missing} values are missing (the report counts the causes), mend it, and run the gate again`;
  if (m.verdict === 'FAIL')
    return open > 0
      ? `read the answers that it is worse on: where the judge errs, ${people}; where it does not, train it otherwise`
      : 'read the answers that it is worse on, and train it otherwise';
  const steps: string[] = [];
  if (open > 0) steps.push(people);
  else if (missing > 0) steps.push('ask again what is missing (temper gate with --resume)');
  if (clusters < minPrompts) steps.push(`give test ${test} ${minPrompts} prompts or more in place of ${clusters}`);
  else if (margin !== null && bound !== null && bound > margin && m.promptsNeeded !== null) {
    if (m.promptsNeeded > clusters * FAR) steps.push('lock a wider margin, if that much worse would do');
    else if (m.promptsNeeded > clusters)
      steps.push(`give test ${test} ${m.promptsNeeded} prompts in place of ${clusters}, and lock anew`);
  }
  if (steps.length === 0) steps.push(`give test ${test} more prompts than ${clusters}, and lock anew`);
  return steps.join('; then, if it is still open, ');
}

/** A line for each metric that decides and did not pass. */
export function nextSteps(decision: Decision, suite: Suite): readonly string[] {
  const judged = new Set(suite.tests.flatMap((t) => t.metrics.filter((x) => x.judged).map((x) => x.name)));
  return decision.metrics.flatMap((m) => {
    const next = m.gates || m.verdict === 'FAIL' ? nextOf(m, judged.has(m.metric), decision.parameters) : null;
    if (next === null) return [];
    const name = `${m.metric}${m.slice === null ? '' : `, ${m.slice}`}${m.arm === undefined ? '' : ` (${m.arm})`}`;
    return [`${name}: ${next}`];
  });
}
