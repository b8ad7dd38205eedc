// Learning rate by step.
export interface Schedule {
  readonly schedule: 'constant' | 'linear' | 'cosine';
  readonly lr: number;
  readonly warmup: number;
  readonly minLr: number;
}

/**
 * @param step from 1 to `steps`. The first `warmup` share rises in equal parts to lr, which the step after it has in
 * full; then constant, a line or half a cosine towards minLr·lr, which would be reached one step after the last.
 */
export function learningRate(step: number, steps: number, s: Schedule): number {
  const before = step - 1;
  const warm = Math.round(s.warmup * steps);
  if (before < warm) return (s.lr * (before + 1)) / (warm + 1);
  const progress = (before - warm) / Math.max(1, steps - warm);
  const fall =
    s.schedule === 'constant' ? 1 : s.schedule === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
  return s.lr * (s.schedule === 'constant' ? 1 : s.minLr + (1 - s.minLr) * fall);
}
