// Whether a judge can follow a policy at all, asked before its allow counts: a model that never learnt to judge, or
// knows other policies only, answers in form and allows everything.
import { sha256 } from '../base/digest.js';
import { findRules } from './rules.js';
import { createScreen } from './screen.js';
import type { CheckLimits, GoldenRow, Judge, JudgeCheck, Policy, UnjudgedCause, Verdict } from './types.js';

const MAX_RULES = 8;
// An answer out of form shows nothing of whether the policy is followed. A small judge slips now and then, over a nonce
// that it copies wrongly; the next try has another one.
const TRIES = 3;
const OUT_OF_FORM: ReadonlySet<UnjudgedCause | null> = new Set<UnjudgedCause>([
  'truncated',
  'empty',
  'off_contract',
  'two_verdicts',
  'wrong_nonce',
  'unknown_rule',
  'contradiction',
]);
const CLEAN: readonly GoldenRow[] = [
  { id: 'a plain text', channel: 'final', text: 'Thank you, that is all for now.', expect: null },
];

/** One row for each rule and two that are allowed, the first of each. */
function fromGolden(golden: readonly GoldenRow[]): readonly GoldenRow[] {
  const byRule = new Map<string, GoldenRow>();
  for (const row of golden) if (row.expect !== null && !byRule.has(row.expect)) byRule.set(row.expect, row);
  return [...[...byRule.values()].slice(0, MAX_RULES), ...golden.filter((row) => row.expect === null).slice(0, 2)];
}

/** A rule's own words as the text. A judge that reads the policy finds at least one of them in it. */
const fromRules = (policy: Policy): readonly GoldenRow[] => [
  ...findRules(policy.text)
    .filter((rule) => rule.says.length >= 3)
    .slice(0, MAX_RULES)
    .map(({ id, says }) => ({ id: `the words of ${id}`, channel: 'final', text: says, expect: id })),
  ...CLEAN,
];

/**
 * Has the judge judge a few texts whose verdict is known. With golden rows it must block one of each rule, by whatever
 * rule, and allow one that is allowed; without, it must block the words of at least one rule and allow a plain text.
 * A text that is answered out of form is asked again, at most twice.
 */
export async function checkJudge(
  judge: Pick<Judge, 'name' | 'digest' | 'judge'>,
  policy: Policy,
  limits: CheckLimits = {},
): Promise<JudgeCheck> {
  const { signal, ...screenLimits } = limits;
  const { golden } = policy;
  const by = golden ? 'golden' : 'rules';
  const rows = golden ? fromGolden(golden) : fromRules(policy);
  const done = (detail: string): JudgeCheck => ({
    policy: policy.name,
    by,
    passed: detail === '',
    asked: rows.length,
    detail,
  });
  if (!rows.some((row) => row.expect !== null) || !rows.some((row) => row.expect === null))
    return done(
      by === 'golden'
        ? 'its golden set lacks rows that break a rule, or rows that are allowed'
        : 'its rules have no words to try the judge with',
    );
  // This very judgement is not checked again.
  const asked: Judge = { name: judge.name, digest: judge.digest, judge: (request) => judge.judge(request) };
  // Known texts as they are: nothing of them is disguised, and tries are counted here.
  const judging = { retries: 0, views: 'raw' as const };
  const screen = createScreen({ policies: [policy], judge: asked, judging, ...screenLimits });
  const ask = async (row: GoldenRow): Promise<Verdict | undefined> => {
    for (let tries = 1; ; tries++) {
      const verdict = (await screen.screen({ [row.channel]: row.text }, signal)).verdicts[0];
      if (tries === TRIES || !OUT_OF_FORM.has(verdict?.cause ?? null)) return verdict;
    }
  };
  const results = await Promise.all(rows.map(async (row) => ({ row, verdict: await ask(row) })));
  signal?.throwIfAborted();
  const got = (r: (typeof results)[number]): string => r.verdict?.cause ?? r.verdict?.outcome ?? 'nothing';
  const told = (r: (typeof results)[number]): string =>
    `${r.row.id}: got ${got(r)}, wanted ${r.row.expect === null ? 'allow' : `a block by ${r.row.expect}`}`;
  const breaking = results.filter((r) => r.row.expect !== null);
  const missed = breaking.filter((r) => r.verdict?.outcome !== 'block');
  const clean = results.filter((r) => r.row.expect === null);
  if (missed.length > (by === 'golden' ? 0 : breaking.length - 1)) return done(told(missed[0] as (typeof results)[0]));
  return clean.some((r) => r.verdict?.outcome === 'allow') ? done('') : done(told(clean[0] as (typeof results)[0]));
}

/** The judge with `check`: a handful of calls, made once for each policy and its golden rows. */
export function withCheck(judge: Judge): Judge {
  const checked = new Map<string, Promise<JudgeCheck>>();
  return {
    ...judge,
    check(policy, limits) {
      const key = sha256(JSON.stringify([policy.name, policy.digest, policy.contract ?? null, policy.golden ?? null]));
      const found = checked.get(key) ?? checkJudge(judge, policy, limits);
      checked.set(key, found);
      found.catch(() => checked.delete(key)); // stopped: another call may try again
      return found;
    },
  };
}
