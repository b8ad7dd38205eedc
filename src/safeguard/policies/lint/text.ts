// The words of a policy: how long it is, what leaves a decision open, what says it the wrong way round.
import type { PolicyRules, PolicySection } from '../../rules.js';
import { type Found, found } from './finding.js';

/** Tokens: what judges follow best, and what none follows (the guide of gpt-oss-safeguard). */
export const BUDGET = { low: 400, high: 600, long: 2000, most: 10_000 } as const;

const PIECE = /[^\S\n]?[\p{Script=Latin}\p{M}]+|[^\S\n]?[\p{L}\p{M}]+|\p{N}{1,3}|[^\s\p{L}\p{N}\p{M}]+|\n+/gu;
/** About as many tokens of o200k as a text has: whole Latin words up to nine letters, half of others' letters. */
export function estimateTokens(text: string): number {
  let tokens = 0;
  for (const [piece] of text.matchAll(PIECE)) {
    const letters = piece.trim();
    if (/^\p{Script=Latin}/u.test(letters)) tokens += Math.ceil(letters.length / 9);
    else if (/^\p{L}/u.test(letters)) tokens += Math.ceil(letters.length / 2);
    else tokens += Math.max(1, Math.ceil(letters.length / 4));
  }
  return tokens;
}

export interface PolicyLine {
  /** Of the file, from 1. */
  readonly line: number;
  /** As it stands. */
  readonly raw: string;
  /** Without what it quotes: an example's words are not the policy's. */
  readonly text: string;
  readonly section: PolicySection;
}
/** Bounded, as a text of opening quotes alone would otherwise be searched to its end from each of them. */
const UP_TO = '{0,1000}';
const QUOTED = new RegExp(
  [
    ...[`“[^”]${UP_TO}”`, `„[^“”]${UP_TO}[“”]`, `«[^»]${UP_TO}»`, '"[^"]*"', '`[^`]*`'],
    String.raw`(?<=[\s(])'[^']${UP_TO}'(?=[\s.,;:)]|$)`,
  ].join('|'),
  'gu',
);
export const quotesIn = (line: string): readonly string[] => line.match(QUOTED) ?? [];

/** @param before lines of front matter */
export const linesOf = (body: string, { sections }: PolicyRules, before: number): readonly PolicyLine[] =>
  body.split(/\r\n|\r|\n/).map((raw, i) => ({
    line: before + i + 1,
    raw,
    text: raw.replaceAll(QUOTED, '""'),
    section: sections[i] ?? 'rules',
  }));

export function lengthOf(tokens: number, exact: boolean): readonly Found[] {
  const has = `${exact ? '' : 'about '}${tokens} tokens`;
  if (tokens > BUDGET.most)
    return [
      found('length', 'error', null, `${has}, at most ${BUDGET.most}; no judge follows so long a policy: split it`),
    ];
  if (tokens > BUDGET.high)
    return [
      found(
        'length',
        tokens > BUDGET.long ? 'warning' : 'note',
        null,
        `${has}; ${BUDGET.low} to ${BUDGET.high} suit a full-size judge best: cut it, or split it into policies`,
      ),
    ];
  if (tokens >= BUDGET.low) return [];
  return [
    found(
      'length',
      'note',
      null,
      `${has}; ${BUDGET.low} to ${BUDGET.high} suit a full-size judge best: add definitions, what is allowed, examples`,
    ),
  ];
}

const anyOf = (...words: readonly string[]): string => String.raw`\b(?:${words.join('|')})\b`;
const HEDGES = new RegExp(
  anyOf(
    ...[
      'may',
      'May(?= [a-z])',
      'might',
      'could',
      'generally',
      'usually',
      'typically',
      'normally',
      'often',
      'sometimes',
      'occasionally',
    ],
    ...[
      'probably',
      'possibly',
      'perhaps',
      'maybe',
      'mostly',
      'largely',
      'somewhat',
      'arguably',
      'reasonabl[ey]',
      'etc',
    ],
    ...['tends? to', 'seems?', 'appears? to', 'in (?:most|many|some) cases', 'and so on', 'and the like'],
    ...['(?:as|where|when|if) (?:appropriate|necessary|applicable)', 'case[- ]by[- ]case'],
    'use (?:your|good|best) judge?ment',
  ),
  'g',
);
export const hedges = (lines: readonly PolicyLine[]): readonly Found[] =>
  lines
    .filter((l) => l.section !== 'examples')
    .flatMap((l) =>
      [...l.text.matchAll(HEDGES)].map(([word]) =>
        found(
          'hedge',
          'warning',
          l.line,
          `"${word}" leaves the decision open; say when it breaks the rule and when not`,
        ),
      ),
    );

const NEGATED =
  '(?:un|in|im|il|ir|dis|non-?)' +
  '(?:allowed|safe|acceptable|permitted|harmful|usual|likely|lawful|legal|appropriate|compliant|related|common)';
const NEGATES =
  "(?:(?:do|does|did|is|are|was|were|must|should|can|will|may)(?: not|n't)|cannot|never|nobody|nothing|no one)";
const DOUBLE = [
  String.raw`\b(?:not|never|n't) (?:${NEGATED}|prohibited|forbidden|banned|without|lack|omit|refuse)\b`,
  String.raw`\b(?:not|never|n't) fail\b`,
  String.raw`\bfail(?:s|ed|ing)? to (?:not|avoid|omit|refuse)\b`,
  String.raw`\b${NEGATES}\b[^.;:,()"–—]{0,60}(?:\b(?:not|never|nothing|nobody|cannot)\b|n't\b)`,
];
const DOUBLE_NEGATION = new RegExp(DOUBLE.join('|'), 'i');
export const doubleNegations = (lines: readonly PolicyLine[]): readonly Found[] =>
  lines
    .filter((l) => l.section !== 'examples')
    .flatMap((l) => {
      const match = DOUBLE_NEGATION.exec(l.text);
      return match
        ? [found('double-negation', 'warning', l.line, `"${match[0]}" negates twice; say it without a negation`)]
        : [];
    });

/** Clauses that only a whole answer can break or keep: sums, wholes, and what has to be in it. */
const WHOLE = new RegExp(
  anyOf(
    ...['as a whole', 'taken together', 'in (?:total|combination|aggregate|sum)', 'throughout', 'overall'],
    '(?:whole|entire|full) (?:answer|text|response|reply|message|exchange|conversation)',
    String.raw`(?:at least|more than) (?:one|two|three|four|five|[0-9]+) (?:of|times|such|\w+s)`,
    ...[
      '(?:two|three|four|several) or more',
      'repeated(?:ly)?',
      'repetitive',
      String.raw`(?:unless|if|where) (?:it|the \w+) also`,
    ],
    ...['fails? to (?:mention|include|add|say|warn|name)', '(?:does|do) not (?:mention|include|add|contain|warn|name)'],
    ...['omits?', 'lacks?', '(?:ends?|begins?) with(?:out)?'],
  ),
  'i',
);
export function buffering(lines: readonly PolicyLine[], whole: boolean): readonly Found[] {
  const clauses = lines
    .filter((l) => l.section === 'rules' || l.section === 'allowed')
    .flatMap((l) => {
      const match = WHOLE.exec(l.text);
      return match ? [{ line: l.line, words: match[0] }] : [];
    });
  if (whole)
    return clauses.length > 0
      ? []
      : [
          found(
            'buffer-unneeded',
            'note',
            null,
            'buffer: whole holds back each answer to its end, and no clause speaks of the whole; is it meant?',
          ),
        ];
  return clauses.map(({ line, words }) =>
    found(
      'buffer-unstated',
      'warning',
      line,
      `"${words}" can be told of a whole answer only, while streams release what was judged so far; ` +
        'add buffer: whole to the front matter, or say it of a sentence',
    ),
  );
}
