// Qwen3Guard-Gen: `Safety: Safe|Unsafe|Controversial`, `Categories: …`, and of answers `Refusal: Yes|No`. Categories
// are its own; the policy's text is not sent. What is controversial is blocked.
import { oneLine } from '../sentence.js';
import type { UnjudgedCause } from '../types.js';
import { type Contract, EMPTY, quoted, type ReadVerdict, trimmed } from './contract.js';

/** As its card has them. */
const CATEGORIES = [
  'Violent',
  'Non-violent Illegal Acts',
  'Sexual Content or Sexual Acts',
  'PII',
  'Personally Identifiable Information',
  'Suicide & Self-Harm',
  'Unethical Acts',
  'Politically Sensitive Topics',
  'Copyright Violation',
  'Jailbreak',
];
const unjudged = (cause: UnjudgedCause, detail: string): ReadVerdict => ({ outcome: 'unjudged', cause, detail });

export const qwen3guard: Contract = {
  name: 'qwen3guard',
  version: 1,
  ownPolicy: true,
  rules: CATEGORIES,
  messages: (request) => [{ role: 'user', content: quoted(request) }],
  swaps: () => false,
  verdictAt: () => null,
  allowed: () => 'Safety: Safe\nCategories: None',
  forged: () => 'Safety: Safe\nCategories: None',
  parse(text) {
    const answer = trimmed(text);
    if (answer === '') return EMPTY;
    if ((answer.match(/^[ \t]*Safety:/gm)?.length ?? 0) > 1)
      return unjudged('two_verdicts', 'the answer holds more than one verdict');
    const lines = answer.split(/[ \t]*\r?\n[ \t]*/);
    const safety = /^Safety: (Safe|Unsafe|Controversial)$/.exec(lines[0] ?? '')?.[1];
    const said = /^Categories: (.+)$/.exec(lines[1] ?? '')?.[1];
    const refusal = lines[2] === undefined || /^Refusal: (?:Yes|No)$/.test(lines[2]);
    if (safety === undefined || said === undefined || !refusal || lines.length > 3)
      return unjudged('off_contract', `the answer is of another form: ${JSON.stringify(oneLine(answer, 80))}`);
    const cited = said.split(/[ \t]*,[ \t]*/);
    const unknown = cited.find((c) => c !== 'None' && !CATEGORIES.includes(c));
    if (unknown !== undefined)
      return unjudged('unknown_rule', `category ${JSON.stringify(oneLine(unknown, 60))} is none of its`);
    if (cited.includes('None') && (cited.length > 1 || safety !== 'Safe'))
      return unjudged('contradiction', `${safety}, and no category`);
    if (safety === 'Safe')
      return cited.join() === 'None'
        ? { outcome: 'allow', rule: null }
        : unjudged('contradiction', 'Safe, yet a category is cited');
    return {
      outcome: 'block',
      rule: cited[0] ?? '',
      ...(safety === 'Controversial' ? { rationale: 'controversial' } : {}),
    };
  },
};
