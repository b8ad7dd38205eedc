// Which rows make which step: a function of (seed, lengths) alone, so that a run can go on from any step without
// remembering more than its number.

export interface StepOptions {
  readonly seed: number;
  readonly epochs?: number | undefined;
  readonly steps?: number | undefined;
  readonly tokensPerStep?: number | undefined;
  readonly rowsPerStep?: number | undefined;
}
export interface StepPlan {
  readonly steps: number;
  /** Rows of step n (from 0) and the epoch they belong to (from 0). */
  rows(step: number): { readonly epoch: number; readonly indices: readonly number[] };
}

/** 32 well-mixed bits of a counter (the murmur3 finaliser, twice keyed). */
function mix(a: number, b: number): number {
  let h = (Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
/** A seed for one use in one place: 53 bits of (seed, a, b). */
export const deriveSeed = (seed: number, a: number, b: number): number =>
  mix(mix(seed, a), b) * 2 ** 21 + (mix(mix(seed, b + 1), a + 1) >>> 11);

/** Order of `count` rows in an epoch: Fisher–Yates, keyed by seed and epoch. */
export function epochOrder(count: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor((mix(mix(seed, epoch), i) / 2 ** 32) * (i + 1));
    const t = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = t;
  }
  return order;
}

const DEFAULT_TOKENS_PER_STEP = 16384;

/**
 * Rows are taken in the epoch's order; a step ends before the row that would exceed it, and an epoch ends its last
 * step.
 */
export function planSteps(lengths: ArrayLike<number>, options: StepOptions): StepPlan {
  if (lengths.length === 0) return { steps: 0, rows: () => ({ epoch: 0, indices: [] }) };
  const limit = options.rowsPerStep ?? options.tokensPerStep ?? DEFAULT_TOKENS_PER_STEP;
  const cost = options.rowsPerStep === undefined ? (i: number): number => lengths[i] ?? 0 : (): number => 1;
  const split = (epoch: number): number[][] => {
    const out: number[][] = [];
    let current: number[] = [];
    let used = 0;
    for (const i of epochOrder(lengths.length, options.seed, epoch)) {
      if (current.length > 0 && used + cost(i) > limit) {
        out.push(current);
        current = [];
        used = 0;
      }
      current.push(i);
      used += cost(i);
    }
    if (current.length > 0) out.push(current);
    return out;
  };
  const starts = [0];
  let cached: { epoch: number; steps: number[][] } | undefined;
  const epochSteps = (epoch: number): number[][] => {
    if (cached?.epoch !== epoch) cached = { epoch, steps: split(epoch) };
    return cached.steps;
  };
  const startOf = (epoch: number): number => {
    while (starts.length <= epoch) starts.push((starts.at(-1) ?? 0) + epochSteps(starts.length - 1).length);
    return starts[epoch] ?? 0;
  };
  let steps = options.steps ?? 0;
  if (options.steps === undefined) {
    const epochs = options.epochs ?? 1;
    const whole = Math.floor(epochs);
    steps = startOf(whole) + Math.ceil((epochs - whole) * (epochs > whole ? epochSteps(whole).length : 0));
  }
  return {
    steps,
    rows(step) {
      let epoch = 0;
      while (startOf(epoch + 1) <= step) epoch++;
      return { epoch, indices: epochSteps(epoch)[step - startOf(epoch)] ?? [] };
    },
  };
}
