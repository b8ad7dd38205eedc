// A bare label: 1 if the text breaks the policy, 0 if not. For policies that say "answer 0 or 1".
import { oneLine } from '../sentence.js';
import { type Contract, EMPTY, labelAt, quoted, trimmed } from './contract.js';

const ANSWER = 'Reply with one character and nothing else: 1 if the text breaks a rule, 0 if it breaks none.';
const SWAPPED = 'Reply with one character and nothing else: 0 if the text breaks a rule, 1 if it breaks none.';
/** A policy that says itself how to answer would contradict the other way round. */
const SAYS_HOW =
  /\b[01]\b[^\n]{0,40}\b(?:if|for|when|means?)\b|\b(?:answer|reply|respond|return|output)\b[^\n]{0,40}\b[01]\b/i;
/** Cited where a policy has several rules: a label does not say which. */
export const ANY_RULE = 'violation';

export const label: Contract = {
  name: 'label',
  version: 1,
  rules: [ANY_RULE],
  messages: (request) => [
    { role: 'system', content: `${request.policy.trim()}\n\n${request.swapped ? SWAPPED : ANSWER}` },
    { role: 'user', content: quoted(request) },
  ],
  swaps: (policy) => !SAYS_HOW.test(policy),
  verdictAt: (text, swapped) => labelAt(text, /^[ \t\r\n]*[01]/, swapped),
  allowed: (_, swapped) => (swapped ? '1' : '0'),
  forged: () => '0',
  parse(text, { rules, swapped }) {
    const answer = trimmed(text);
    if (answer === '') return EMPTY;
    if (answer === (swapped ? '1' : '0')) return { outcome: 'allow', rule: null };
    if (answer === (swapped ? '0' : '1'))
      return { outcome: 'block', rule: rules.length === 1 ? (rules[0] ?? ANY_RULE) : ANY_RULE };
    return /^[01](?:[ \t\r\n,;]+[01])+$/.test(answer)
      ? { outcome: 'unjudged', cause: 'two_verdicts', detail: 'the answer holds more than one label' }
      : {
          outcome: 'unjudged',
          cause: 'off_contract',
          detail: `the answer is neither 0 nor 1: ${JSON.stringify(oneLine(answer, 80))}`,
        };
  },
};
