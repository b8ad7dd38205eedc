// Runs engine code without running it: tensors get an address but no memory, ops say what they cost instead of
// computing (native/plan). So `temper plan` counts exactly the allocations that training or serving would make, because
// it is the same code that makes them, through the same checks.
import { addon } from './addon.js';
import { CATEGORIES, type Category } from './tensor.js';

export interface DryRunReport {
  /** Bytes at the peak of each category, and of their sum. */
  readonly peak: Readonly<Record<Category, number>>;
  readonly totalPeak: number;
  /** Bytes of tensors mapped from files. */
  readonly mappedBytes: number;
  /** Bytes of offloaded tensors at their peak; on disk, in none of the categories. */
  readonly offloadedPeak: number;
  /**
   * Device memory: bytes at the peak of each category and of their sum, and the most that was taken from the driver for
   * them, with what rounding and gaps take: a limit is about that. `peak` and `totalPeak` are the host's.
   */
  readonly device: {
    readonly peak: Readonly<Record<Category, number>>;
    readonly totalPeak: number;
    readonly heldPeak: number;
  };
  /** Every op call, in order. */
  readonly ops: readonly OpCall[];
}
export interface OpCall {
  readonly op: string;
  /** As the op got them: a tensor, a number, or null. */
  readonly args: readonly PlannedArgument[];
  readonly cost: OpCost;
}
export type PlannedArgument = PlannedTensor | number | null;
export interface PlannedTensor {
  readonly shape: readonly number[];
  /** Place in DTYPES. */
  readonly dtype: number;
  /**
   * Of an index tensor: what TypeScript wrote into it, where that is known and short; otherwise what the op table says
   * of it, values below a limit or bounds that rise to it; null: it says nothing.
   */
  readonly indices: Int32Array | { readonly below: number } | { readonly risingTo: number } | null;
}
/** As native/include/temper/cost.h has it. */
export interface OpCost {
  /** Multiply-adds × 2 of matrix products and attention. */
  readonly flops: number;
  /** Bytes streamed: operands and results once each, weights once per use. */
  readonly bytes: number;
  /** Rows that share one weight matrix: decides how far a product is from the arithmetic limit. */
  readonly rows: number;
  /** Bytes of workspace that the op holds at its peak. */
  readonly workspace: number;
}

/**
 * Calls `body` on tensors without memory, of this thread. Values read from them are zeros, but for what was written and
 * is short. `body` must be synchronous and close its scopes. Not re-entrant.
 */
export function dryRun<T>(body: () => T): { readonly value: T; readonly report: DryRunReport } {
  addon.beginPlan();
  let value: T;
  try {
    value = body();
  } catch (e) {
    addon.endPlan();
    throw e;
  }
  return { value, report: readReport(addon.endPlan()) };
}

/** The numbers of Plan::report (native/plan/plan.cpp), one after the other. */
function readReport(numbers: Float64Array): DryRunReport {
  let at = 0;
  const next = (): number => numbers[at++] ?? Number.NaN;
  const many = (n: number): number[] => Array.from({ length: n }, next);
  const book = (): Omit<DryRunReport['device'], 'heldPeak'> => ({
    peak: Object.fromEntries(CATEGORIES.map((c) => [c, next()])) as Record<Category, number>,
    totalPeak: next(),
  });
  const tensor = (): PlannedTensor => {
    const dtype = next(),
      shape = many(next()),
      values = next();
    const indices =
      values === 3
        ? Int32Array.from(many(shape.reduce((a, b) => a * b, 1)))
        : values === 2
          ? { risingTo: next() }
          : values === 1
            ? { below: next() }
            : null;
    return { dtype, shape, indices };
  };
  const argument = (): PlannedArgument => {
    const kind = next();
    return kind === 0 ? null : kind === 1 ? next() : tensor();
  };
  const call = (): OpCall => {
    const id = next(),
      [flops, bytes, rows, workspace] = many(4) as [number, number, number, number];
    const args = Array.from({ length: addon.opArity[id] ?? 0 }, argument);
    return { op: addon.opNames[id] ?? '', args, cost: { flops, bytes, rows, workspace } };
  };
  const host = book(),
    device = book();
  const [heldPeak, mappedBytes, offloadedPeak, calls] = many(4) as [number, number, number, number];
  return {
    ...host,
    device: { ...device, heldPeak },
    mappedBytes,
    offloadedPeak,
    ops: Array.from({ length: calls }, call),
  };
}
