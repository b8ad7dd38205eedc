// A bare label: 1 if the text breaks the policy, 0 if not. For policies that say "answer 0 or 1".
import { breakControlSpellings } from '../contract.js';
import { oneLine } from '../sentence.js';
import { type Contract, EMPTY, trimmed } from './contract.js';

const ANSWER = 'Reply with one character and nothing else: 1 if the text breaks a rule, 0 if it breaks none.';
/** Cited where a policy has several rules: a label does not say which. */
export const ANY_RULE = 'violation';

export const label: Contract = {
  name: 'label',
  version: 1,
  rules: [ANY_RULE],
  messages: ({ policy, content }) => [
    { role: 'system', content: `${policy.trim()}\n\n${ANSWER}` },
    { role: 'user', content: breakControlSpellings(content) },
  ],
  parse(text, { rules }) {
    const answer = trimmed(text);
    if (answer === '') return EMPTY;
    if (answer === '0') return { outcome: 'allow', rule: null };
    if (answer === '1') return { outcome: 'block', rule: rules.length === 1 ? (rules[0] ?? ANY_RULE) : ANY_RULE };
    return /^[01](?:[ \t\r\n,;]+[01])+$/.test(answer)
      ? { outcome: 'unjudged', cause: 'two_verdicts', detail: 'the answer holds more than one label' }
      : {
          outcome: 'unjudged',
          cause: 'off_contract',
          detail: `the answer is neither 0 nor 1: ${JSON.stringify(oneLine(answer, 80))}`,
        };
  },
};
