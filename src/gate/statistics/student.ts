// Student's distribution, by that of the beta: df/(df + t²) has it with df/2 and 1/2.
import { betaQuantile } from './beta.js';

/**
 * @param p 0.75 ≤ p < 1; nearer to a half digits are lost
 * @param df degrees of freedom, any real number above 0
 */
export function studentQuantile(p: number, df: number): number {
  const x = betaQuantile(2 * (1 - p), df / 2, 0.5);
  return Math.sqrt(df * (1 / x - 1));
}
