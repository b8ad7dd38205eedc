// How long the calls of a dry run take on this machine: each distinct call (op, shapes, scalars) is run once for real
// on made-up data, and counted as often as it occurs. So a plan knows this machine's kernels, thread count and load
// without loading any model.
import { addon } from './addon.js';
import { type Ops, ops } from './ops.js';
import type { OpCall, PlannedArgument, PlannedTensor } from './plan.js';
import { DTYPES, Scope, type Tensor } from './tensor.js';

const isTensor = (a: PlannedArgument): a is PlannedTensor => a !== null && typeof a === 'object';
/** Dropout seeds differ on every call and change nothing of the cost. */
const keyOf = (call: OpCall): string =>
  call.op +
  JSON.stringify(call.args.map((a) => (isTensor(a) ? [a.shape, a.dtype] : a && Math.abs(a) > 2 ** 20 ? 0 : a)));

/** Indices as the plan knows them; what another op would have computed is made up, experts evenly routed. */
function indicesOf(n: number, indices: PlannedTensor['indices']): Int32Array {
  if (indices instanceof Int32Array) return indices;
  if (indices && 'below' in indices) return Int32Array.from({ length: n }, (_, i) => i % indices.below);
  const last = indices?.risingTo ?? 0;
  return Int32Array.from({ length: n }, (_, i) => Math.floor((i * last) / Math.max(1, n - 1)));
}

function make(scope: Scope, a: PlannedArgument, seed: number): Tensor | number | null {
  if (!isTensor(a)) return a;
  const t = scope.empty(DTYPES[a.dtype] ?? 'f32', a.shape);
  if (t.numel === 0) return t;
  if (t.dtype === 'i32') t.write(indicesOf(t.numel, a.indices));
  else if (t.dtype === 'u8')
    ops.random_bytes(t, seed, 118, 122); // as the scales of a real checkpoint; as blocks, any byte will do
  else ops.random_uniform(t, seed, -0.05, 0.05);
  return t;
}

export interface Timing {
  readonly seconds: number;
  readonly byOp: Readonly<Record<string, { readonly calls: number; readonly seconds: number; readonly flops: number }>>;
}

/**
 * Seconds that the calls would take one after the other.
 * @param budgetMs time to spend measuring; long calls are run once, short ones several times and the median taken
 */
export function timeCalls(
  calls: readonly OpCall[],
  options: { readonly budgetMs?: number; readonly signal?: AbortSignal } = {},
): Timing {
  const groups = new Map<string, OpCall[]>();
  for (const call of calls) {
    const key = keyOf(call),
      group = groups.get(key);
    if (group) group.push(call);
    else groups.set(key, [call]);
  }
  const share = (options.budgetMs ?? 8000) / Math.max(1, groups.size);
  const byOp: Record<string, { calls: number; seconds: number; flops: number }> = {};
  let seconds = 0;
  for (const group of groups.values()) {
    options.signal?.throwIfAborted();
    // Attention of one shape differs by what its queries see: the call nearest to the mean stands for all, by
    // operations.
    const flops = group.reduce((sum, c) => sum + c.cost.flops, 0),
      mean = flops / group.length;
    const call = group.reduce((best, c) =>
      Math.abs(c.cost.flops - mean) < Math.abs(best.cost.flops - mean) ? c : best,
    );
    const all = medianSeconds(call, share) * (call.cost.flops > 0 ? flops / call.cost.flops : group.length);
    seconds += all;
    const row = byOp[call.op] ?? { calls: 0, seconds: 0, flops: 0 };
    byOp[call.op] = row;
    row.calls += group.length;
    row.seconds += all;
    row.flops += flops;
  }
  return { seconds, byOp };
}

function medianSeconds(call: OpCall, budgetMs: number): number {
  using scope = new Scope('workspace');
  const args = call.args.map((a, i) => make(scope, a, i + 1));
  const run = ops[call.op as keyof Ops] as (...a: (Tensor | number | null)[]) => void;
  const times: number[] = [];
  const end = performance.now() + budgetMs;
  do {
    const from = performance.now();
    run(...args);
    times.push((performance.now() - from) / 1000);
  } while (performance.now() < end && times.length < 15);
  // The first call meets cold pages; it counts only when there is no other.
  const warm = times.length > 1 ? times.slice(1) : times;
  return warm.sort((a, b) => a - b)[warm.length >> 1] ?? 0;
}

/**
 * Runs `work` with each op call timed by itself; a device is waited for after every call, so that small ops look slower
 * than they are in a row.
 */
export function timeEachOp(
  work: () => void,
): ReadonlyMap<string, { readonly calls: number; readonly seconds: number }> {
  const sums = new Map<string, { calls: number; seconds: number }>();
  const table = addon as { call: (id: number) => void },
    call = table.call;
  table.call = (id) => {
    addon.synchronize();
    const from = performance.now();
    call(id);
    addon.synchronize();
    const op = addon.opNames[id] ?? '',
      sum = sums.get(op) ?? { calls: 0, seconds: 0 };
    sums.set(op, { calls: sum.calls + 1, seconds: sum.seconds + (performance.now() - from) / 1000 });
  };
  try {
    work();
  } finally {
    table.call = call;
  }
  return sums;
}
