// How a judge fares, for whoever watches: metrics read it when they are asked for.

export interface JudgeHealth {
  /** Of the circuit breaker: closed asks, open blocks at once, half_open tries whether it can ask again. */
  readonly breaker?: 'closed' | 'half_open' | 'open';
  /** Since the start: calls, those that were sent again, those that were sent twice at once. */
  readonly calls?: number;
  readonly retries?: number;
  readonly hedges?: number;
  /** Texts of known verdict that it got wrong. */
  readonly canaryMisses?: number;
}
/** What a judge may offer beside `Judge`. */
export interface HasHealth {
  health(): JudgeHealth;
}
/** @param screen that asks it: knows of its canaries */
export function healthOf(judge: object, screen: { canaryMisses?(): number } = {}): JudgeHealth | null {
  const own = 'health' in judge && typeof judge.health === 'function' ? (judge as HasHealth).health() : null;
  const canaryMisses = screen.canaryMisses?.();
  return canaryMisses === undefined ? own : { ...own, canaryMisses };
}
