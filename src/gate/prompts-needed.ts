// `temper gate power`: how many prompts a wanted power takes, and what so many prompts show, before anything is
// generated.
import { powerOf, promptsFor, promptsForCap, smallestMargin } from './statistics/power.js';

export interface PowerRequest {
  /** How much worse the adapter may be. */
  readonly margin?: number | undefined;
  /** Most that the adapter's own rate may be. */
  readonly cap?: number | undefined;
  /** What so many prompts show. */
  readonly prompts?: number | undefined;
  /** Share of prompts on which base and adapter differ. Default 0.05. */
  readonly discordance?: number | undefined;
  /** Wanted chance of showing that an adapter like its base is within the margin. Default 0.8. */
  readonly power?: number | undefined;
  /** Chance of a release of what is exactly at the margin. Default 0.05. */
  readonly alpha?: number | undefined;
}
/** null: not asked, or never shown. */
export interface PowerPlan {
  readonly promptsForMargin: number | null;
  /** Without one violation. */
  readonly promptsForCap: number | null;
  readonly power: number | null;
  readonly smallestMargin: number | null;
  readonly smallestCap: number | null;
}
/** Of rates, one sample a prompt, for an adapter that is like its base. */
export function gatePower(request: PowerRequest): PowerPlan {
  const { margin, cap, prompts, discordance = 0.05, power = 0.8, alpha = 0.05 } = request;
  const of = { discordance, alpha, score: true };
  return {
    promptsForMargin: margin === undefined ? null : promptsFor(power, { ...of, margin }),
    promptsForCap: cap === undefined ? null : promptsForCap(cap, alpha),
    power: margin === undefined || prompts === undefined ? null : powerOf(prompts, { ...of, margin }),
    smallestMargin: prompts === undefined ? null : smallestMargin(prompts, power, of),
    smallestCap: prompts === undefined ? null : 1 - alpha ** (1 / prompts),
  };
}
