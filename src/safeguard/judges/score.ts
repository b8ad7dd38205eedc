// How sure a judge is: the log-odds of a violation at the one token of its answer that is the verdict.
import type { VerdictPlace } from '../contracts/contract.js';

export interface ScoredToken {
  readonly bytes: Uint8Array;
  /** nats */
  readonly logprob: number;
  readonly top: readonly { readonly bytes: Uint8Array; readonly logprob: number }[];
}

/** What a probability in 32 bits can tell from 1. */
const LEAST = 2 ** -24;

/**
 * log p(violation) - log p(no violation) where the answer says the one or the other, nats. Where the other one is not
 * among the tokens that are told, it gets all that is left over by those that are: the log-odds are then at least as
 * far from 0, and what is left over is mostly its. @returns null: no token is the verdict
 */
export function verdictScore(text: string, tokens: readonly ScoredToken[], place: VerdictPlace): number | null {
  const target = Buffer.byteLength(text.slice(0, place.at));
  let start = 0;
  const token = tokens.find(({ bytes }) => {
    if (start <= target && target < start + bytes.length) return true;
    start += bytes.length;
    return false;
  });
  if (!token) return null;
  const at = target - start;
  const here = Buffer.from(token.bytes);
  const said = here.toString('latin1', at, at + 1);
  if (said !== place.violation && said !== place.clean) return null;
  const isViolation = said === place.violation;
  // The same token but for the verdict's character.
  const other = Buffer.from(here);
  other[at] = (isViolation ? place.clean : place.violation).charCodeAt(0);
  const told = token.top.filter(({ bytes }) => !here.equals(bytes));
  const found = told.find(({ bytes }) => other.equals(bytes));
  const left = 1 - Math.exp(token.logprob) - told.reduce((sum, t) => sum + Math.exp(t.logprob), 0);
  const odds = token.logprob - (found ? found.logprob : Math.log(Math.max(left, LEAST)));
  return Number.isFinite(odds) ? (isViolation ? odds : -odds) : null;
}
