// The golden set beside a policy: large enough, of both kinds, each rule in it, no row against another.
import type { Policy } from '../../types.js';
import type { Golden, GoldenCase } from '../golden.js';
import { type Found, found, normalised } from './finding.js';

export const MIN_ROWS = 20;
export const MIN_SHARE = 0.25;

export const isKnown = (expect: string, rules: readonly string[]): boolean =>
  rules.some((r) => r === expect || r.startsWith(`${expect}.`));

/** @param named rows name rules of the policy: those of others may say only `unsafe` */
export function goldenFindings(policy: Policy, golden: Golden | null, named: boolean): readonly Found[] {
  if (golden === null)
    return [
      found('golden-missing', 'warning', null, 'no golden set; ship at least 20 rows, golden.jsonl beside policy.md'),
    ];
  const { cases } = golden;
  const broken = cases.filter((c) => c.expect !== null);
  const findings: Found[] = [];
  if (cases.length < MIN_ROWS)
    findings.push(found('golden-small', 'warning', null, `${cases.length} golden rows, wanted at least ${MIN_ROWS}`));
  if (Math.min(broken.length, cases.length - broken.length) < MIN_SHARE * cases.length)
    findings.push(
      found(
        'golden-unbalanced',
        'warning',
        null,
        `${broken.length} of ${cases.length} golden rows break a rule; wanted a quarter to three quarters`,
      ),
    );
  findings.push(...pairs(cases));
  if (named) findings.push(...byRule(policy, cases));
  for (const channel of policy.channels ?? []) {
    const own = cases.filter((c) => c.channel === channel);
    if (!own.some((c) => c.expect === null) || !own.some((c) => c.expect !== null))
      findings.push(
        found(
          'golden-channel',
          'warning',
          null,
          `channel ${channel}: wanted rows that break a rule and rows that are safe`,
        ),
      );
  }
  return findings;
}

/** Rows that say the same, or the contrary, of one text on one channel. */
function pairs(cases: readonly GoldenCase[]): readonly Found[] {
  const first = new Map<string, GoldenCase>();
  return cases.flatMap((c): Found[] => {
    const key = `${c.channel} ${normalised(c.text)}`;
    const other = first.get(key);
    if (!other) {
      first.set(key, c);
      return [];
    }
    const [a, b] = [`row ${c.id} (line ${c.line})`, `row ${other.id} (line ${other.line})`];
    return (c.expect === null) === (other.expect === null)
      ? [found('golden-repeated', 'warning', null, `${a} has the text of ${b}; one of them measures nothing`)]
      : [found('golden-contradiction', 'error', null, `${a} and ${b} expect the contrary of one text`)];
  });
}

function byRule({ rules }: Policy, cases: readonly GoldenCase[]): readonly Found[] {
  const unknown = cases.filter((c) => c.expect !== null && !isKnown(c.expect, rules));
  const missing = rules.filter(
    (rule) =>
      !rules.some((r) => r.startsWith(`${rule}.`)) &&
      !cases.some((c) => c.expect !== null && (c.expect === rule || rule.startsWith(`${c.expect}.`))),
  );
  return [
    ...unknown.map((c) =>
      found('golden-unknown-rule', 'error', null, `row ${c.id} (line ${c.line}) expects ${c.expect}, which is no rule`),
    ),
    ...missing.map((rule) =>
      found('golden-no-rule', 'warning', null, `no golden row breaks ${rule}; nobody would notice if it were gone`),
    ),
  ];
}
