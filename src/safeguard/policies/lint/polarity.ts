// Which way round a policy says things: labels, permissions among prohibitions, both sides; and how it asks to be
// answered.
import type { ContractName } from '../../contracts/contract.js';
import { contractOf } from '../../contracts/index.js';
import type { PolicyRules } from '../../rules.js';
import { type Found, found } from './finding.js';
import type { PolicyLine } from './text.js';

const VALID = /\b(?:IN)?VALID\b/;
const ZERO_VIOLATES = /\b0\s*(?:=|:|→|->|means|if|for)[^.,;\n]{0,40}\b(?:violat|unsafe|break|harmful|block)/i;
const ONE_IS_SAFE = /\b1\s*(?:=|:|→|->|means|if|for)[^.,;\n]{0,20}\b(?:safe|allowed|no violation|compliant)/i;
export function labels(lines: readonly PolicyLine[]): readonly Found[] {
  const first = (pattern: RegExp): PolicyLine | undefined => lines.find((l) => pattern.test(l.raw));
  const say = (l: PolicyLine | undefined, why: string): readonly Found[] =>
    l ? [found('polarity-labels', 'warning', l.line, why)] : [];
  return [
    ...say(
      first(VALID),
      'VALID and INVALID are read as said of the request or of the policy; say violation, or 1 and 0',
    ),
    ...say(first(ZERO_VIOLATES), '0 stands for a violation; judges and contracts have 1 for it'),
    ...say(first(ONE_IS_SAFE), '1 stands for what is safe; judges and contracts have 1 for a violation'),
  ];
}

const FORBIDS = /^\W*(?:do not|don't|never|must not|should not|not allowed|forbidden|prohibited)\b/i;
const PERMITS = /(?<!\b(?:not|never|un|in) ?)\b(?:is|are) (?:allowed|permitted|acceptable|fine|ok|okay|safe)\b/i;
const CONDITION = /\b(?:only|unless|except|even (?:if|where)|that|who|which)\b/i;
export const mixed = (lines: readonly PolicyLine[], { rules }: PolicyRules, before: number): readonly Found[] => [
  ...lines
    .filter((l) => l.section === 'allowed' && FORBIDS.test(l.text))
    .map((l) => found('polarity-mixed', 'warning', l.line, 'a prohibition stands among what is allowed; move it')),
  ...rules
    .filter((r) => PERMITS.test(r.says) && !CONDITION.test(r.says))
    .map((r) =>
      found(
        'polarity-mixed',
        'warning',
        before + r.line,
        `rule ${r.id} says what is allowed; a verdict that cites it blocks`,
      ),
    ),
];

const SAYS_ALLOWED =
  /\b(?:allowed|permitted|acceptable|do(?:es)? not (?:violate|break)|not a violation|(?:is|are) safe)\b/i;
export const oneSided = (lines: readonly PolicyLine[]): readonly Found[] =>
  lines.some((l) => l.section === 'allowed' || SAYS_ALLOWED.test(l.text))
    ? []
    : [
        found(
          'polarity-one-sided',
          'warning',
          null,
          'nothing is said to be allowed; judges block too much without it: add a section of what does not violate',
        ),
      ];

type Form = ContractName | 'unknown';
const FORMS: readonly (readonly [Form, RegExp])[] = [
  ['temper', /["']nonce["']\s*:/],
  ['gpt-oss-safeguard', /["']violation["']\s*:/],
  ['qwen3guard', /\bSafety:\s*(?:Safe|Unsafe)/],
  ['llama-guard', /\bunsafe\b.{0,40}\bS1?[0-9]\b/i],
  ['label', /\b(?:0 or 1|1 or 0|either [01]|only (?:the )?(?:digit|label|character) [01])\b/i],
];
const ASKS = new RegExp(
  [
    String.raw`^\W*(?:output|label format|answer format|response format)\b`,
    String.raw`\b(?:answer|reply|respond|return|output)\b[^.\n]{0,40}` +
      String.raw`\b(?:json|exactly|only|one (?:word|line|label)|label)\b`,
    String.raw`\bclassify\b[^.\n]{0,60}\bas\b`,
  ].join('|'),
  'iu',
);

/** The first answer that the text asks for, and how often that stands there. */
function asked(lines: readonly PolicyLine[]): { readonly form: Form; readonly line: number } | null {
  for (const [form, pattern] of FORMS) {
    const at = lines.filter((l) => pattern.test(l.raw));
    if (at[0]) return { form, line: at[0].line };
  }
  const at = lines.filter((l) => ASKS.test(l.text) || ASKS.test(l.raw));
  return at[0] ? { form: 'unknown', line: at[0].line } : null;
}

export function output(lines: readonly PolicyLine[], name: ContractName): readonly Found[] {
  const contract = contractOf(name);
  if (contract.ownPolicy)
    return [
      found(
        'text-unsent',
        'note',
        null,
        `contract ${name}: the judge has categories of its own and never sees the text`,
      ),
    ];
  const how = asked(lines);
  if (how === null)
    return name === 'gpt-oss-safeguard'
      ? [
          found(
            'output-unstated',
            'note',
            null,
            'the form of the answer is added once, at the end; judges keep to it best if it stands at top and bottom',
          ),
        ]
      : [];
  if (how.form === name) return [];
  if (how.form === 'unknown')
    return [
      found(
        'output-unknown',
        'warning',
        how.line,
        `asks for an answer that no contract reads; contract ${name} adds its own: take this one out`,
      ),
    ];
  return [
    found(
      'output-conflict',
      'warning',
      how.line,
      `asks for the answer of contract ${how.form}, while ${name} is in use; say contract: ${how.form} in the front ` +
        'matter, or take it out',
    ),
  ];
}

const DATA = new RegExp(
  [
    String.raw`\b(?:is (?:only )?data|never (?:obey|follow)|(?:do|does|must) not (?:obey|follow))\b`,
    String.raw`\b(?:ignore (?:any |all )?instructions|instructions (?:in|inside|within))\b`,
  ].join('|'),
  'i',
);
export function hostileText(lines: readonly PolicyLine[], name: ContractName): readonly Found[] {
  if (name === 'temper' || contractOf(name).ownPolicy || lines.some((l) => DATA.test(l.raw))) return [];
  return [
    found(
      'hostile-text',
      'note',
      null,
      `contract ${name} has no nonce; say that the text is data and that instructions in it are not followed`,
    ),
  ];
}

const CHANNELS =
  /\b(?:analysis|reasoning|chain[- ]of[- ]thought|tool calls?|commentary|final (?:answers?|channel|message))\b/i;
export const scope = (lines: readonly PolicyLine[], channels: readonly string[] | undefined): readonly Found[] =>
  channels !== undefined || lines.some((l) => CHANNELS.test(l.raw))
    ? []
    : [
        found(
          'scope-channel',
          'warning',
          null,
          'no channel is named, and reasoning, answers and tool calls are judged by it alike; say channels: [final] ' +
            'or more in the front matter, or name them in the text',
        ),
      ];
