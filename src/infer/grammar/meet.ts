// What two nodes both allow.
import { ConfigError } from '../../base/errors.js';
import { inTime } from './deadline.js';
import type { NumberRule } from './decimal.js';
import { type Alt, ANY, type Node } from './nodes.js';

/** Cases of anyOf, times those of another. */
const MOST_ALTS = 2000;

/** @throws {ConfigError} schema_unsupported */
export function meet(a: Node, b: Node): Node {
  if (a === ANY) return b;
  if (b === ANY) return a;
  inTime();
  const alts = a.alts.flatMap((x) => b.alts.flatMap((y): readonly Alt[] => meetAlts(x, y)));
  if (alts.length > MOST_ALTS)
    throw new ConfigError('schema_unsupported', `#: anyOf: more than ${MOST_ALTS} cases of it come together`);
  return { alts };
}

function meetAlts(a: Alt, b: Alt): readonly Alt[] {
  if (a.kind === 'word') return b.kind === 'word' && a.word === b.word ? [a] : [];
  if (a.kind === 'string') {
    if (b.kind !== 'string') return [];
    const texts = a.texts === null ? b.texts : b.texts === null ? a.texts : a.texts.filter((t) => b.texts?.includes(t));
    return [
      {
        kind: 'string',
        least: Math.max(a.least, b.least),
        most: Math.min(a.most, b.most),
        patterns: [...new Set([...a.patterns, ...b.patterns])],
        texts,
      },
    ];
  }
  if (a.kind === 'number') return b.kind === 'number' ? [{ kind: 'number', rule: meetNumbers(a.rule, b.rule) }] : [];
  if (a.kind === 'array')
    return b.kind !== 'array'
      ? []
      : [
          {
            kind: 'array',
            parts: [...a.parts, ...b.parts],
            least: Math.max(a.least, b.least),
            most: Math.min(a.most, b.most),
          },
        ];
  if (b.kind !== 'object') return [];
  const needs = new Map(a.needs);
  for (const [k, names] of b.needs) needs.set(k, [...(needs.get(k) ?? []), ...names]);
  return [
    {
      kind: 'object',
      parts: [...a.parts, ...b.parts],
      required: new Set([...a.required, ...b.required]),
      least: Math.max(a.least, b.least),
      most: Math.min(a.most, b.most),
      needs,
    },
  ];
}

/** Positive: a is above b. */
function compare(a: { whole: bigint; scale: number }, b: { whole: bigint; scale: number }): number {
  const scale = Math.max(a.scale, b.scale);
  const [x, y] = [a, b].map((d) => d.whole * 10n ** BigInt(scale - d.scale)) as [bigint, bigint];
  return x > y ? 1 : x < y ? -1 : 0;
}
function meetNumbers(a: NumberRule, b: NumberRule): NumberRule {
  // Of two bounds the tighter one; of equal ones that which leaves itself out.
  const low = !a.least || (b.least && compare(b.least, a.least) > 0) ? b : a;
  const high = !a.most || (b.most && compare(b.most, a.most) < 0) ? b : a;
  const sameLow = a.least && b.least && compare(a.least, b.least) === 0;
  const sameHigh = a.most && b.most && compare(a.most, b.most) === 0;
  return {
    integer: a.integer || b.integer,
    ...(low.least
      ? { least: low.least, above: sameLow ? a.above === true || b.above === true : low.above === true }
      : {}),
    ...(high.most
      ? { most: high.most, below: sameHigh ? a.below === true || b.below === true : high.below === true }
      : {}),
    multiples: [...a.multiples, ...b.multiples],
  };
}
