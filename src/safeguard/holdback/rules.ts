// What a policy says of releasing, in its front matter: whether its clauses can be judged on a beginning, what happens
// where it blocks, whether allowed thoughts leave.
import { ConfigError } from '../../base/errors.js';
import type { Policy, Verdict } from '../types.js';

/** `refuse`: a text in its place · `truncate`: the answer ends where it was still allowed · `review`: people decide. */
export const BLOCK_ACTIONS = ['refuse', 'truncate', 'review'] as const;
export type BlockAction = (typeof BLOCK_ACTIONS)[number];
export const ANALYSIS_RULES = ['drop', 'release'] as const;
export type AnalysisRule = (typeof ANALYSIS_RULES)[number];

/** What a policy may say. */
export interface PolicyRelease {
  /** Absent: refuse. */
  readonly onBlock?: BlockAction;
  /** Stands in the place of what is withheld; absent: a notice that names policy and rule. */
  readonly refusal?: string;
  /** Whether allowed thoughts leave; absent: they are dropped. */
  readonly analysis?: AnalysisRule;
}
export const RELEASE_FIELDS: readonly string[] = ['onBlock', 'refusal', 'analysis'];
const MAX_REFUSAL = 2000;

/** @throws {ConfigError} policy_release */
export function releaseIn(name: string, fields: Readonly<Record<string, unknown>>): PolicyRelease {
  const bad = (field: string, why: string): ConfigError =>
    new ConfigError('policy_release', `policy ${name}: front matter, ${field}: ${why}`);
  const oneOf = <T extends string>(field: string, all: readonly T[]): T | undefined => {
    const given = fields[field];
    const known = all.find((a) => a === given);
    if (given !== undefined && known === undefined)
      throw bad(field, `${JSON.stringify(given)} is unknown; wanted ${all.join(' or ')}`);
    return known;
  };
  if (fields.analysis === 'summarise' || fields.analysis === 'summarize')
    throw bad(
      'analysis',
      'summaries are not supported: a summary is another text than the one that was judged; wanted drop or release',
    );
  const { refusal } = fields;
  if (refusal !== undefined && (typeof refusal !== 'string' || refusal.trim() === '' || refusal.length > MAX_REFUSAL))
    throw bad('refusal', `wanted a text of at most ${MAX_REFUSAL} characters`);
  const onBlock = oneOf('onBlock', BLOCK_ACTIONS);
  const analysis = oneOf('analysis', ANALYSIS_RULES);
  return {
    ...(onBlock === undefined ? {} : { onBlock }),
    ...(refusal === undefined ? {} : { refusal }),
    ...(analysis === undefined ? {} : { analysis }),
  };
}

/** The strictest is first: people decide before anything of it is shown, and a refusal shows less than a beginning. */
const STRICTEST: readonly BlockAction[] = ['review', 'refuse', 'truncate'];

/** What all policies together say. */
export interface ReleaseRules {
  /** Nothing leaves before all was judged. */
  readonly whole: boolean;
  /** null: no policy says. */
  readonly analysis: AnalysisRule | null;
  /** What is to be done about verdicts that did not allow. */
  actionOn(verdicts: readonly Pick<Verdict, 'policy' | 'outcome'>[]): BlockAction;
  /** The texts of those that did not allow; null: none has one. */
  refusalOf(verdicts: readonly Pick<Verdict, 'policy' | 'outcome'>[]): string | null;
}

export function releaseRules(policies: readonly Policy[]): ReleaseRules {
  const byName = new Map(policies.map((p) => [p.name, p]));
  const failed = (verdicts: readonly Pick<Verdict, 'policy' | 'outcome'>[]) =>
    verdicts.filter((v) => v.outcome !== 'allow');
  const strictest = (of: readonly Policy[]): BlockAction =>
    STRICTEST.find((a) => of.some((p) => (p.onBlock ?? 'refuse') === a)) ?? 'refuse';
  const said = policies.map((p) => p.analysis).filter((a) => a !== undefined);
  return {
    whole: policies.some((p) => p.buffer === 'whole'),
    analysis: said.length === 0 ? null : policies.every((p) => p.analysis === 'release') ? 'release' : 'drop',
    actionOn(verdicts) {
      const own = failed(verdicts).map((v) => byName.get(v.policy));
      // A detector has no policy of its own: all of them together say what is done.
      return strictest(own.every((p) => p !== undefined) && own.length > 0 ? own : policies);
    },
    refusalOf(verdicts) {
      const texts = failed(verdicts).flatMap((v) => byName.get(v.policy)?.refusal ?? []);
      return texts.length === 0 ? null : [...new Set(texts)].join(' ');
    },
  };
}
