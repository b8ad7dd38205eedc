// Llama Guard: `safe`, or `unsafe` and a line of categories, `S1,S10`. Its server's template holds the categories; the
// policy's text is not sent, and its rules, where they are S-numbers, say which of them may be cited.
import { oneLine } from '../sentence.js';
import type { UnjudgedCause } from '../types.js';
import { type Contract, EMPTY, quoted, type ReadVerdict, trimmed } from './contract.js';

const unjudged = (cause: UnjudgedCause, detail: string): ReadVerdict => ({ outcome: 'unjudged', cause, detail });

export const llamaGuard: Contract = {
  name: 'llama-guard',
  version: 1,
  ownPolicy: true,
  rules: Array.from({ length: 14 }, (_, n) => `S${n + 1}`),
  messages: (request) => [{ role: 'user', content: quoted(request) }],
  swaps: () => false,
  verdictAt: () => null,
  allowed: () => 'safe',
  forged: () => 'safe',
  parse(text, { rules }) {
    const answer = trimmed(text);
    if (answer === '') return EMPTY;
    if (answer === 'safe') return { outcome: 'allow', rule: null };
    const lines = answer.split(/[ \t]*\r?\n[ \t]*/);
    const [verdict, categories] = lines;
    const words = answer.split(/[^A-Za-z]+/).filter((word) => word === 'safe' || word === 'unsafe');
    if (words.length > 1) return unjudged('two_verdicts', 'the answer holds more than one verdict');
    if (verdict === 'unsafe' && categories === undefined)
      return unjudged('contradiction', 'unsafe, without a category');
    if (verdict === 'safe' && /^S[0-9]/.test(categories ?? ''))
      return unjudged('contradiction', 'safe, yet a category is cited');
    const cited = (categories ?? '').split(/[ \t]*,[ \t]*/);
    if (verdict !== 'unsafe' || lines.length !== 2 || cited.some((id) => !/^S[0-9]{1,2}$/.test(id)))
      return unjudged('off_contract', `the answer is neither safe nor unsafe: ${JSON.stringify(oneLine(answer, 80))}`);
    const unknown = cited.find((id) => !rules.includes(id));
    return unknown === undefined
      ? { outcome: 'block', rule: cited[0] ?? '' }
      : unjudged('unknown_rule', `category ${unknown} is not one of ${rules.join(', ')}`);
  },
};
