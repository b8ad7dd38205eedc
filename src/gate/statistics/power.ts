// How many prompts it takes to show that an adapter like its base is no worse than a margin allows.
import { normalCdf, normalQuantile } from './normal.js';
import { scoreVariance } from './paired.js';

export interface Plan {
  readonly margin: number;
  /** Variance of a prompt's difference; with one sample of a rate the share of prompts that differ. */
  readonly discordance: number;
  /** One-sided. */
  readonly alpha: number;
  /** The score test of one sample a prompt; false: a mean of differences, as the bootstrap has it. */
  readonly score: boolean;
}
/** Standard deviation of a difference of one prompt, at the margin as the test takes it, and where there is none. */
function deviations({ margin, discordance, score }: Plan): { readonly atMargin: number; readonly atNone: number } {
  const atNone = Math.sqrt(discordance);
  if (!score) return { atMargin: atNone, atNone };
  return { atMargin: Math.sqrt(scoreVariance(discordance / 2, discordance / 2, margin)), atNone };
}

/** Chance that n prompts show it where there is no difference. */
export function powerOf(n: number, plan: Plan): number {
  const { atMargin, atNone } = deviations(plan);
  // Half a pair more that got worse, as measure.ts counts it.
  const margin = plan.score ? plan.margin - 0.5 / n : plan.margin;
  const distance = margin * Math.sqrt(n) - normalQuantile(1 - plan.alpha) * atMargin;
  if (atNone === 0) return distance >= 0 ? 1 : 0;
  return normalCdf(distance / atNone);
}
/** The fewest prompts with that chance; null: a margin of 0 is never shown. */
export function promptsFor(power: number, plan: Plan): number | null {
  if (!(plan.margin > 0)) return null;
  const { atMargin, atNone } = deviations(plan);
  const z = normalQuantile(1 - plan.alpha) * atMargin + normalQuantile(power) * atNone;
  let n = Math.max(1, Math.ceil((z / plan.margin) ** 2 - 1e-9));
  if (!plan.score) return n;
  // The half pair takes some more: with x = √n it is the root of margin·x² − z·x − 1/2.
  const root = (z + Math.sqrt(z * z + 2 * plan.margin)) / (2 * plan.margin);
  n = Math.max(n, Math.ceil(root * root - 1e-9));
  return n;
}
/** The least margin that n prompts show with that chance. */
export function smallestMargin(n: number, power: number, plan: Omit<Plan, 'margin'>): number {
  const most = plan.score ? 1 : Math.sqrt(plan.discordance) * 1e3;
  let [low, high] = [0, most];
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (powerOf(n, { ...plan, margin: middle }) >= power) high = middle;
    else low = middle;
  }
  return high;
}
/** Prompts without one violation that show a rate to be at most `cap`. */
export const promptsForCap = (cap: number, alpha: number): number | null =>
  cap <= 0 ? null : cap >= 1 ? 1 : Math.ceil(Math.log(alpha) / Math.log1p(-cap) - 1e-9);
