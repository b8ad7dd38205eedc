// What an op will cost on the CPU backend, from shapes alone: multiply-adds, bytes of weights read, workspace. Read by
// the dry run behind `temper plan`. The workspace formulas restate
// native/cpu/{gemm,linear,grouped_linear,linear_cross_entropy}.cpp; a test holds them to the allocator's own count.

/** An argument as the op gets it: shape and element size of a tensor, a scalar, or null (0). */
export type CostArg = TensorArg | number | null;
export interface TensorArg {
  readonly shape: readonly number[];
  /** Place in DTYPES. */
  readonly dtype: number;
  readonly bytesPerElement: number;
  /** What was written into an i32 tensor from TypeScript: token ids, row numbers, sequence bounds. */
  readonly indices?: Int32Array;
}
export interface OpCost {
  /** Multiply-adds × 2 of matrix products and attention. */
  readonly flops: number;
  /** Bytes streamed: operands and results once each, weights once per use. */
  readonly bytes: number;
  /** Bytes of workspace the op holds at its peak. */
  readonly workspace: number;
  /** Rows that share one weight matrix: decides how far a product is from the arithmetic limit. */
  readonly rows: number;
}

const shapeOf = (a: CostArg | undefined): readonly number[] => (a && typeof a === 'object' ? a.shape : []);
const dim = (a: CostArg | undefined, i: number): number => shapeOf(a).at(i) ?? 0;
const numel = (a: CostArg | undefined): number => (a && typeof a === 'object' ? a.shape.reduce((x, y) => x * y, 1) : 0);
const size = (a: CostArg | undefined): number => (a && typeof a === 'object' ? numel(a) * a.bytesPerElement : 0);
const scalar = (a: CostArg | undefined): number => (typeof a === 'number' ? a : 0);
const present = (a: CostArg | undefined): boolean => a !== null && a !== undefined && a !== 0;

/** Workspace of one packed operand, m rows contracted over k: pairs of bf16 or single f32, 4 bytes a unit. */
const packed = (m: number, k: number, precision: number): number => 4 * m * Math.ceil(k / (precision ? 2 : 1));
/** Bytes of expert weights that P routed rows touch: each row at most one expert more. */
const touched = (args: readonly (CostArg | undefined)[], P: number, E: number): number =>
  args.reduce<number>((sum, a) => sum + size(a) * Math.min(1, P / E), 0);
const total = (args: readonly CostArg[]): number => args.reduce<number>((sum, a) => sum + size(a), 0);

/** Pairs of a query and a key that it sees; even sequences over all keys where the bounds are not known. */
function scores(
  q: CostArg | undefined,
  k: CostArg | undefined,
  qStart: CostArg | undefined,
  kLen: CostArg | undefined,
  window: number,
): number {
  const starts = qStart && typeof qStart === 'object' ? qStart.indices : undefined,
    lengths = kLen && typeof kLen === 'object' ? kLen.indices : undefined;
  const T = dim(q, 0),
    B = Math.max(1, numel(qStart ?? null) - 1);
  let sum = 0;
  for (let b = 0; b < B; b++) {
    const n = starts ? (starts[b + 1] ?? 0) - (starts[b] ?? 0) : T / B,
      len = lengths?.[b] ?? dim(k, 0) / B;
    const short = window ? Math.min(Math.max(window - (len - n), 0), n) : n; // queries that see all before them
    sum += short * (len - n + (short + 1) / 2) + (n - short) * window;
  }
  return sum;
}

type Rule = (args: readonly CostArg[]) => Partial<OpCost>;

const RULES: Readonly<Record<string, Rule>> = {
  linear_fwd([, , x, w, , A, , , dropout, , precision]) {
    const N = dim(w, 0),
      C = dim(w, 1),
      T = numel(x ?? null) / C,
      R = dim(A, 0),
      p = scalar(precision);
    return {
      flops: 2 * T * (N * C + R * (N + C)),
      rows: T,
      workspace: Math.max(
        packed(T, C, p) + packed(T, R, p),
        (present(A) && scalar(dropout) > 0 ? 4 * T * C : 0) + packed(T, C, p),
      ),
    };
  },
  linear_bwd([dx, dw, , dA, dB, dy, , , w, A, , , dropout, , , precision]) {
    const N = dim(w, 0),
      C = dim(w, 1),
      T = numel(dy ?? null) / N,
      R = dim(A, 0),
      p = scalar(precision),
      drop = scalar(dropout) > 0 ? 4 * T * C : 0;
    const products = (present(dx) ? 1 : 0) + (present(dw) ? 1 : 0);
    return {
      flops: 2 * T * (products * N * C + 2 * R * (N + C)),
      rows: T,
      workspace:
        4 * T * R +
        Math.max(
          present(dx) ? packed(T, N, p) + packed(T, R, p) : 0,
          present(dx) ? drop + packed(T, R, p) : 0,
          present(dw) ? packed(N, T, p) : 0,
          present(dA) ? drop + packed(R, T, p) : 0,
          present(dB) ? packed(N, T, p) : 0,
        ),
    };
  },
  linear_q8_fwd([, , x, q, , , A, , , precision]) {
    const N = dim(q, 0),
      C = dim(q, 1),
      T = dim(x, 0),
      R = dim(A, 0),
      p = scalar(precision);
    return { flops: 2 * T * (N * C + R * (N + C)), rows: T, workspace: packed(T, C, p) + packed(T, R, p) };
  },
  lora_fwd([y, h, x, , , , , precision]) {
    const T = dim(y, 0),
      N = dim(y, 1),
      R = dim(h, 1),
      C = dim(x, 1),
      p = scalar(precision);
    return {
      flops: 2 * T * R * (N + C),
      rows: T,
      workspace: Math.max(packed(T, C, p), packed(T, R, p)),
      bytes: 2 * size(y) + size(h) + size(x) + 4 * T * R * (N + C),
    };
  },
  grouped_lora_fwd([y, h, x, , , , , , , precision]) {
    const P = dim(y, 0),
      N = dim(y, 1),
      R = dim(h, 1),
      C = dim(x, 1),
      p = scalar(precision);
    return {
      flops: 2 * P * R * (N + C),
      rows: P,
      workspace: Math.max(packed(P, C, p), packed(P, R, p)),
      bytes: 2 * size(y) + size(h) + size(x) + 4 * P * R * (N + C),
    };
  },
  linear_cross_entropy([, dx, dw, x, w, , , precision]) {
    const V = dim(w, 0),
      D = dim(w, 1),
      S = numel(x ?? null) / D,
      p = scalar(precision);
    const chunk = Math.min(S, Math.min(1020, Math.max(12, Math.floor(Math.floor((96 * 2 ** 20) / (4 * V)) / 12) * 12)));
    return {
      flops: 2 * S * V * D * (1 + (present(dx) ? 1 : 0) + (present(dw) ? 1 : 0)),
      rows: chunk,
      workspace:
        4 * chunk * V +
        Math.max(packed(chunk, D, p), present(dx) ? packed(chunk, V, p) : 0, present(dw) ? packed(V, chunk, p) : 0),
    };
  },
  embedding_fwd: ([y, table]) => ({ bytes: size(y) + dim(y, 0) * (size(table) / Math.max(1, dim(table, 0))) }),
  grouped_linear_fwd([y, h, x, , offsets, w, scales, bias, A, B, , , precision]) {
    const P = dim(y, 0),
      N = dim(y, 1),
      C = dim(x, -1),
      E = numel(offsets ?? null) - 1,
      R = dim(A, 1),
      p = scalar(precision);
    return {
      flops: 2 * P * (N * C + R * (N + C)),
      rows: P / E,
      workspace: packed(P, C, p) + packed(P, R, p),
      bytes: size(y) + size(h) + size(x) + touched([w, scales, bias, A, B], P, E),
    };
  },
  grouped_linear_bwd([dx, dw, , dA, dB, dy, dyRows, , x, xRows, , offsets, , , A, , , , precision]) {
    const N = dim(dy, -1),
      C = dim(x, -1),
      E = numel(offsets ?? null) - 1,
      R = dim(A, 1),
      p = scalar(precision);
    const P = present(dx)
      ? dim(dx, 0)
      : present(dyRows)
        ? numel(dyRows ?? null)
        : present(xRows)
          ? numel(xRows ?? null)
          : numel(dy ?? null) / N;
    const each = p ? P / 2 + E / 4 : P; // rows of an expert rounded up to pairs
    return {
      flops: 2 * P * ((present(dx) ? N * C : 0) + (present(dw) ? N * C : 0) + 2 * R * (N + C)),
      rows: P / E,
      workspace:
        4 * P * R +
        Math.max(
          present(dx) ? packed(P, N, p) + packed(P, R, p) : 0,
          present(dw) ? 4 * N * each : 0,
          present(dB) ? 4 * N * each : 0,
          present(dA) ? 4 * R * each : 0,
        ),
    };
  },
  attention_fwd([, , q, k, , , qStart, , kLen, , window]) {
    return { flops: 4 * scores(q, k, qStart, kLen, scalar(window)) * dim(q, 1) * dim(q, 2), rows: dim(q, 0) };
  },
  attention_bwd([, , , , , q, k, , , , , qStart, , kLen, window]) {
    return {
      flops: 10 * scores(q, k, qStart, kLen, scalar(window)) * dim(q, 1) * dim(q, 2),
      rows: dim(q, 0),
      workspace: 4 * dim(q, 0) * dim(q, 1),
    };
  },
};

/**
 * Workspace of the CUDA backend
 * (native/cuda/{staging,linear,grouped_linear,linear_cross_entropy,attention,attention_bwd}.cu): bf16 copies of
 * activations, low-rank products, a chunk of logits, packed heads. Of other ops it is small.
 */
const CUDA_WORKSPACE: Readonly<Record<string, (args: readonly CostArg[]) => number>> = {
  linear_fwd: ([, , x, w, , A, , , dropout]) => {
    const C = dim(w, 1),
      T = numel(x ?? null) / C;
    return 2 * T * (C + dim(A, 0)) + (present(A) && scalar(dropout) > 0 ? 2 * T * C : 0);
  },
  linear_bwd: ([, , , , , dy, , , w, A]) => {
    const N = dim(w, 0),
      C = dim(w, 1),
      T = numel(dy ?? null) / N,
      R = dim(A, 0);
    return 2 * T * (N + C) + 8 * T * R;
  },
  linear_q8_fwd: ([, , x, , , , A]) => 2 * dim(x, 0) * (dim(x, 1) + dim(A, 0)),
  linear_cross_entropy([, dx, , x, w]) {
    const V = dim(w, 0),
      D = dim(w, 1),
      S = Math.min(256, numel(x ?? null) / D);
    return S * (4 * V + (present(dx) ? 2 * V : 0) + 2 * D);
  },
  grouped_linear_fwd: ([y, , x, , , , , , A]) => 2 * dim(y, 0) * dim(A, 1) + size(x) / 2,
  grouped_linear_bwd([dx, , , , , dy, dyRows, , x, , , offsets, , , A]) {
    const P = present(dx) ? dim(dx, 0) : present(dyRows) ? numel(dyRows ?? null) : dim(dy, 0);
    return offsets ? 2 * P * (dim(dy, -1) + dim(x, -1)) + 8 * P * dim(A, 1) : 0;
  },
  attention_bwd: ([, , , , , q, , , , , , , , , , , precision]) =>
    12 * dim(q, 0) * dim(q, 1) + 2 * (scalar(precision) ? 1 : 3) * 2 * numel(q ?? null), // bf16 parts of two operands
};

export function opCost(op: string, args: readonly CostArg[], place: 'cpu' | 'cuda' = 'cpu'): OpCost {
  const cost = { flops: 0, workspace: 0, rows: 0, bytes: total(args), ...RULES[op]?.(args) };
  return place === 'cpu' ? cost : { ...cost, workspace: CUDA_WORKSPACE[op]?.(args) ?? 0 };
}
