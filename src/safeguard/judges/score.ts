// How sure a judge is: the log-odds of a violation at the one token of its answer that is the verdict.
import type { VerdictPlace } from '../contracts/contract.js';

export interface ScoredToken {
  readonly bytes: Uint8Array;
  /** nats */
  readonly logprob: number;
  readonly top: readonly { readonly bytes: Uint8Array; readonly logprob: number }[];
}

/**
 * log p(violation) - log p(no violation) where the answer says the one or the other, nats. Where the other is not among
 * the tokens that are told, it is taken to be as likely as the last of them: the log-odds are then at least as far from
 * 0. @returns null: no token is the verdict
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
  const found = token.top.find(({ bytes }) => other.equals(bytes));
  const least = Math.min(token.logprob, ...token.top.map((t) => t.logprob));
  const odds = token.logprob - (found ?? { logprob: least }).logprob;
  return Number.isFinite(odds) ? (isViolation ? odds : -odds) : null;
}
