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
  /** Of a mean: how much worse a prompt may be that was not seen. Absent: none is reckoned with. */
  readonly unseen?: number;
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
  const root = Math.sqrt(n);
  // Half a pair more that got worse, as measure.ts counts it.
  const bound = plan.score
    ? 0.5 / n + (normalQuantile(1 - plan.alpha) * atMargin) / root
    : upperBound(atNone / root, (plan.unseen ?? 0) / n, plan.alpha);
  const distance = (plan.margin - bound) * root;
  if (atNone === 0) return distance >= 0 ? 1 : 0;
  return normalCdf(distance / atNone);
}
/**
 * How far bounded-mean.ts has its bound above the mean: a quantile of a normal number and an exponential one, which is
 * the weight of the prompt that was not seen.
 */
function upperBound(deviation: number, unseen: number, alpha: number): number {
  if (unseen === 0) return normalQuantile(1 - alpha) * deviation;
  if (deviation === 0) return -Math.log(alpha) * unseen;
  const ratio = deviation / unseen;
  // P(above x); where the exponent is large the normal factor is small beyond measure.
  const above = (x: number): number => {
    const part = normalCdf(x / deviation - ratio);
    return normalCdf(-x / deviation) + (part === 0 ? 0 : Math.exp(Math.log(part) + ratio ** 2 / 2 - x / unseen));
  };
  let [low, high] = [0, normalQuantile(1 - alpha) * deviation - Math.log(alpha) * unseen];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (above(middle) > alpha) low = middle;
    else high = middle;
  }
  return high;
}
/** The fewest prompts with that chance; null: a margin of 0 is never shown, nor one that no count is enough for. */
export function promptsFor(power: number, plan: Plan): number | null {
  const n = plan.margin > 0 ? fewest(power, plan) : Number.POSITIVE_INFINITY;
  return Number.isSafeInteger(n) ? n : null;
}
function fewest(power: number, plan: Plan): number {
  const { atMargin, atNone } = deviations(plan);
  const z = normalQuantile(1 - plan.alpha) * atMargin + normalQuantile(power) * atNone;
  const n = Math.max(1, Math.ceil((z / plan.margin) ** 2 - 1e-9));
  if (plan.score) {
    // The half pair takes some more: with x = √n it is the root of margin·x² − z·x − 1/2.
    const root = (z + Math.sqrt(z * z + 2 * plan.margin)) / (2 * plan.margin);
    return Math.max(n, Math.ceil(root * root - 1e-9));
  }
  if (!plan.unseen) return n;
  const enough = (prompts: number): boolean => powerOf(prompts, plan) >= power;
  let [few, many] = [n - 1, n];
  while (Number.isSafeInteger(many) && !enough(many)) [few, many] = [many, 2 * many];
  while (Number.isSafeInteger(many) && many - few > 1) {
    const middle = Math.floor((few + many) / 2);
    if (enough(middle)) many = middle;
    else few = middle;
  }
  return many;
}
/** The least margin that n prompts show with that chance. */
export function smallestMargin(n: number, power: number, plan: Omit<Plan, 'margin'>): number {
  const most = plan.score ? 1 : Math.sqrt(plan.discordance) * 1e3 + (plan.unseen ?? 0);
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
