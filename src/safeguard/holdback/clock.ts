// Time as hold-back asks for it; tests have one of their own.

export interface Clock {
  /** ms, from any time on. */
  now(): number;
  /** @returns how to forget it */
  later(run: () => void, ms: number): () => void;
}
export const REAL_TIME: Clock = {
  now: () => performance.now(),
  later(run, ms) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};
