// How long the calls of a dry run take on this machine: each distinct call (op, shapes, scalars) is run once for real
// on made-up data, and counted as often as it occurs. So a plan knows this machine's kernels, thread count and load
// without loading any model.
import { addon } from './addon.js';
import type { OpCall } from './dry-run.js';
import type { CostArg, TensorArg } from './op-costs.js';
import { type Ops, ops } from './ops.js';
import { DTYPES, Scope, type Tensor } from './tensor.js';

const isTensor = (a: CostArg): a is TensorArg => a !== null && typeof a === 'object';
/** Dropout seeds differ on every call and change nothing of the cost. */
const keyOf = (call: OpCall): string =>
  call.op +
  JSON.stringify(call.args.map((a) => (isTensor(a) ? [a.shape, a.dtype] : a && Math.abs(a) > 2 ** 20 ? 0 : a)));

/**
 * Index arguments that another op computed: experts are taken to be routed evenly. `arg(i)` is the shape of argument i.
 */
const INDICES: Readonly<
  Record<string, Readonly<Record<number, (n: number, arg: (i: number) => readonly number[]) => Int32Array>>>
> = {
  grouped_linear_fwd: { 3: (n, arg) => modulo(n, rowsOf(arg(2))), 4: (n, arg) => even(n, arg(0)[0] ?? 0) },
  grouped_linear_bwd: {
    6: (n, arg) => modulo(n, rowsOf(arg(5))),
    9: (n, arg) => modulo(n, rowsOf(arg(8))),
    11: (n, arg) => even(n, arg(0)[0] ?? arg(6)[0] ?? arg(9)[0] ?? rowsOf(arg(5))),
  },
  moe_combine: { 3: (n) => modulo(n, n) },
  moe_weight_bwd: { 4: (n, arg) => modulo(n, arg(3)[0] ?? 1), 5: (n) => modulo(n, n) },
  topk_bwd: { 3: (n, arg) => modulo(n, arg(0)[1] ?? 1) },
  moe_plan: { 4: (n, arg) => modulo(n, (arg(0)[0] ?? 2) - 1) },
};
const rowsOf = (shape: readonly number[]): number => shape.slice(0, -1).reduce((a, b) => a * b, 1);
const modulo = (n: number, m: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i % Math.max(1, m));
const even = (n: number, rows: number): Int32Array =>
  Int32Array.from({ length: n }, (_, e) => Math.floor((e * rows) / (n - 1)));

function make(scope: Scope, call: OpCall, place: number, seed: number): Tensor | number | null {
  const a = call.args[place];
  if (a === undefined || a === null || !isTensor(a))
    return a === undefined || (a === 0 && NULLABLE_AT(call.op, place)) ? null : (a ?? null);
  const t = scope.empty(DTYPES[a.dtype] ?? 'f32', a.shape);
  if (t.numel === 0) return t;
  if (t.dtype === 'i32') {
    const rule = INDICES[call.op]?.[place];
    t.write(
      a.indices ??
        rule?.(t.numel, (i) => {
          const b = call.args[i];
          return b && isTensor(b) ? b.shape : [];
        }) ??
        new Int32Array(t.numel),
    );
  } else if (t.dtype === 'u8')
    ops.random_bytes(t, seed, 118, 122); // as the scales of a real checkpoint; as blocks, any byte will do
  else ops.random_uniform(t, seed, -0.05, 0.05);
  return t;
}
// A scalar 0 and a null tensor look alike in the argument block; scalars stand at the end of every op's list.
const NULLABLE_AT = (op: string, place: number): boolean => place < (SCALARS_FROM[op] ?? 0);
const SCALARS_FROM: Readonly<Record<string, number>> = {
  rmsnorm_fwd: 6,
  rmsnorm_bwd: 7,
  linear_fwd: 7,
  linear_bwd: 11,
  linear_q8_fwd: 8,
  linear_cross_entropy: 7,
  attention_fwd: 10,
  attention_bwd: 14,
  grouped_linear_fwd: 10,
  grouped_linear_bwd: 16,
  swiglu_bwd: 5,
  moe_combine: 4,
  moe_weight_bwd: 6,
  sample: 6,
};

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
  const args = call.args.map((_, i) => make(scope, call, i, i + 1));
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
