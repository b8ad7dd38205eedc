// Several votes of one judge on one text. Every second one is asked the other way round (`compliant` for `violation`,
// 1 and 0 changed over), so that a leaning to one label cancels out; from the third on answers are sampled.
//
// How votes are counted, fail closed:
//   without a threshold    one block is a block, and only if all allow it is allowed
//   with a calibrated one  the score of the votes decides: from the threshold on a block, below it allowed
//   in either case         a vote without a verdict keeps the text back, unless it is blocked anyway
// The score is the mean of the log-odds at the verdict tokens; where the judge tells none, the log-odds of the votes
// themselves, ln((blocks + 1/2) / (allows + 1/2)).
import { held } from './calibration.js';
import { ANY_RULE } from './contracts/label.js';
import type { UnjudgedCause } from './types.js';

export interface Vote {
  readonly outcome: 'allow' | 'block' | 'unjudged';
  readonly rule: string | null;
  readonly cause: UnjudgedCause | null;
  readonly detail: string;
  readonly rationale: string;
  readonly score?: number;
  /** Why this vote cannot allow, whatever it says. */
  readonly allowVoid?: { readonly cause: UnjudgedCause; readonly detail: string };
}
export interface VoteCount {
  readonly allow: number;
  readonly block: number;
  readonly unjudged: number;
}
export const countVotes = (votes: readonly Pick<Vote, 'outcome'>[]): VoteCount => {
  const of = (outcome: Vote['outcome']): number => votes.filter((v) => v.outcome === outcome).length;
  return { allow: of('allow'), block: of('block'), unjudged: of('unjudged') };
};

/** How vote `index` is asked. @param swaps whether it can be asked the other way round */
export const voteSettings = (
  index: number,
  swaps: boolean,
): { readonly swapped: boolean; readonly temperature: number; readonly seed: number } => ({
  swapped: swaps && index % 2 === 1,
  temperature: index < (swaps ? 2 : 1) ? 0 : 0.7,
  seed: index,
});

function scoreOf(votes: readonly Vote[]): number | undefined {
  const judged = votes.filter((v) => v.outcome !== 'unjudged');
  const scores = judged.flatMap((v) => v.score ?? []);
  if (scores.length > 0 && scores.length === judged.length) return scores.reduce((a, b) => a + b, 0) / scores.length;
  const { allow, block } = countVotes(votes);
  return votes.length > 1 && allow + block > 0 ? Math.log((block + 0.5) / (allow + 0.5)) : undefined;
}

/** @param threshold nats; undefined: the judge's own word counts. */
function counted(votes: readonly Vote[], threshold: number | undefined): Vote {
  const { allow, block, unjudged } = countVotes(votes);
  const first = (outcome: Vote['outcome']): Vote | undefined => votes.find((v) => v.outcome === outcome);
  const score = scoreOf(votes);
  const scored = score === undefined ? {} : { score };
  if (allow + block === 0) return first('unjudged') as Vote;
  const said = (block > 0 ? first('block') : first('allow')) as Vote;
  const word =
    said.outcome === 'block'
      ? { outcome: said.outcome, rule: said.rule ?? ANY_RULE }
      : ({ outcome: 'allow', rule: null } as const);
  const decided = threshold === undefined ? word : held(word, score, threshold);
  if (decided === null)
    return {
      ...said,
      outcome: 'unjudged',
      rule: null,
      cause: 'judge_error',
      detail: 'the judge gave no score to hold to its calibrated threshold',
    };
  if (decided.outcome === 'block') return { ...said, ...scored, ...decided };
  if (unjudged === 0) return { ...(first('allow') ?? said), ...scored, ...decided };
  return {
    ...(first('unjudged') as Vote),
    ...scored,
    cause: 'disagreement',
    detail:
      `of ${votes.length} votes ${allow} allow, ${block} block, ${unjudged} have no verdict ` +
      `(${first('unjudged')?.detail})`,
  };
}

/** The votes as one; its words are those of a vote that says the same. */
export function decide(votes: readonly Vote[], threshold?: number): Vote {
  const [only] = votes;
  // One vote whose word counts, as most are.
  if (only && votes.length === 1 && threshold === undefined && !(only.outcome === 'allow' && only.allowVoid))
    return only.outcome === 'block' && only.rule === null ? { ...only, rule: ANY_RULE } : only;
  const one = counted(votes, threshold);
  const void_ = one.outcome === 'allow' ? votes.find((v) => v.allowVoid)?.allowVoid : undefined;
  const { allowVoid: _, ...vote } = one;
  return void_ ? { ...vote, outcome: 'unjudged', rule: null, ...void_ } : vote;
}
