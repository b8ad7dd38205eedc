// `temper doctor --tune`: which tiles are fastest on the card at hand for the products of gpt-oss. Each op that has
// such products is run with every tile, in turns, class by class; what was measured becomes a table
// (src/native/tiles.ts). No tile changes a bit, so this is about time alone.
import { setImmediate } from 'node:timers/promises';
import { NativeError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import { synchronize } from '../native/device.js';
import { ops, PRECISION } from '../native/ops.js';
import { type Place, Scope, type Tensor } from '../native/tensor.js';
import { forgetTiles, type TileChoice, takeTile, tiledProducts, tileNames } from '../native/tiles.js';

export interface TuneOptions {
  /** Where the open device is. */
  readonly place: Place;
  /** Tokens of the ops. */
  readonly rows: readonly number[];
  /** Rank of the adapters. */
  readonly rank: number;
  /** No measurement begins later. */
  readonly seconds: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number, op: string) => void;
}
export interface TuneResult {
  readonly seconds: number;
  /** Ops measured, and those there are: fewer where the time was up or the memory short. */
  readonly ops: number;
  readonly opsInAll: number;
  /** Every class that was measured; the tile is that before where no other is clearly faster. */
  readonly classes: readonly TileChoice[];
}

/** A tile is taken where it is faster by more than what measurements differ by. */
const WORTH = 1.02;
/** A measurement runs an op this long or longer. Turns are taken while there is time, these at least and at most. */
const MEASURE_MS = 2;
const [FEWEST_TURNS, MOST_TURNS] = [2, 6];
const MOST_REPETITIONS = 50;

interface Work {
  readonly name: string;
  /** Makes its tensors. @returns the op */
  prepare(s: Scope): () => void;
}

const random = (s: Scope, shape: readonly number[], seed: number): Tensor => {
  const t = s.empty('f32', shape);
  ops.random_normal(t, seed, 1);
  return t;
};
const weight = (s: Scope, shape: readonly number[], seed: number): Tensor => {
  const t = s.empty('bf16', shape);
  ops.random_normal(t, seed, 0.02);
  return t;
};
const bytes = (s: Scope, shape: readonly number[], seed: number, low: number, high: number): Tensor => {
  const t = s.empty('u8', shape);
  ops.random_bytes(t, seed, low, high);
  return t;
};
/** Rows of each expert, between half and one and a half times as many as on average. */
function unevenOffsets(rows: number, experts: number): Int32Array {
  const offsets = new Int32Array(experts + 1);
  for (let e = 1; e < experts; e++) {
    const share = e / experts;
    offsets[e] = Math.round(rows * share * (0.5 + share / 2));
  }
  offsets[experts] = rows;
  return offsets;
}

function dense(name: string, rows: number, N: number, C: number, rank: number): Work[] {
  const make = (s: Scope) => ({
    x: random(s, [rows, C], 1),
    y: s.empty('f32', [rows, N]),
    h: s.empty('f32', [rows, rank]),
    w: weight(s, [N, C], 2),
    A: random(s, [rank, C], 3),
    B: random(s, [N, rank], 4),
  });
  return [
    {
      name: `${name} forward, ${rows} rows`,
      prepare(s) {
        const { x, y, h, w, A, B } = make(s);
        return () => ops.linear_fwd(y, h, x, w, null, A, B, 1, 0, 0, PRECISION.bf16, 0);
      },
    },
    {
      name: `${name} backward, ${rows} rows`,
      prepare(s) {
        const { x, h, w, A, B } = make(s),
          [dx, dA, dB] = [s.empty('f32', [rows, C]), s.zeros('f32', [rank, C]), s.zeros('f32', [N, rank])],
          dy = random(s, [rows, N], 5);
        ops.random_normal(h, 6, 1);
        return () => ops.linear_bwd(dx, null, null, dA, dB, dy, x, h, w, A, B, 1, 0, 0, 0, PRECISION.bf16);
      },
    },
  ];
}

function denseInEightBits(name: string, rows: number, N: number, C: number): Work[] {
  return C % 32
    ? []
    : [
        {
          name: `${name} in 8 bits, ${rows} rows`,
          prepare(s) {
            const [x, y] = [random(s, [rows, C], 1), s.empty('f32', [rows, N])],
              [q, scales] = [s.empty('u8', [N, C]), s.empty('bf16', [N, C / 32])];
            ops.q8_quantize(q, scales, weight(s, [N, C], 2));
            return () => ops.linear_q8_fwd(y, null, x, q, scales, null, null, null, 1, PRECISION.bf16, 0);
          },
        },
      ];
}

function experts(name: string, tokens: number, N: number, C: number, rank: number, config: ModelConfig): Work[] {
  const E = config.num_local_experts,
    P = tokens * config.num_experts_per_tok;
  const make = (s: Scope) => ({
    offsets: s.from(unevenOffsets(P, E)),
    blocks: bytes(s, [E, N, C / 32, 16], 2, 0, 255),
    scales: bytes(s, [E, N, C / 32], 3, 118, 122),
    A: random(s, [E, rank, C], 4),
    B: random(s, [E, N, rank], 5),
    x: random(s, [P, C], 6),
    h: s.empty('f32', [P, rank]),
  });
  return [
    {
      name: `${name} forward, ${tokens} tokens`,
      prepare(s) {
        const { offsets, blocks, scales, A, B, x, h } = make(s),
          y = s.empty('f32', [P, N]);
        return () =>
          ops.grouped_linear_fwd(y, h, x, null, offsets, blocks, scales, null, A, B, 1, 0, PRECISION.bf16, 0);
      },
    },
    {
      name: `${name} backward, ${tokens} tokens`,
      prepare(s) {
        const { offsets, blocks, scales, A, B, x, h } = make(s),
          [dx, dA, dB] = [s.empty('f32', [P, C]), s.zeros('f32', [E, rank, C]), s.zeros('f32', [E, N, rank])],
          dy = random(s, [P, N], 7);
        ops.random_normal(h, 8, 1);
        return () =>
          ops.grouped_linear_bwd(
            dx,
            null,
            null,
            dA,
            dB,
            dy,
            null,
            null,
            x,
            null,
            h,
            offsets,
            blocks,
            scales,
            A,
            B,
            1,
            0,
            PRECISION.bf16,
          );
      },
    },
  ];
}

function head(rows: number, config: ModelConfig): Work {
  return {
    name: `head, ${rows} rows`,
    prepare(s) {
      const { hidden_size: D, vocab_size: V } = config,
        [nll, dx] = [s.empty('f32', [rows]), s.empty('f32', [rows, D])],
        [x, w] = [random(s, [rows, D], 1), weight(s, [V, D], 2)],
        targets = s.from(Int32Array.from({ length: rows }, (_, i) => (i * 7919) % V));
      return () => ops.linear_cross_entropy(nll, dx, null, x, w, targets, null, PRECISION.bf16);
    },
  };
}

/** The ops with products of that model's shapes: what trains first, as time may be up. */
function worksOf(config: ModelConfig, rows: readonly number[], rank: number): Work[] {
  const { hidden_size: D, intermediate_size: F } = config,
    [Q, KV] = [config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim];
  // the most rows first: they take the most of a step
  const falling = [...new Set(rows)].sort((a, b) => b - a);
  return [
    ...falling.flatMap((t) => [
      ...experts('gate and up', t, 2 * F, D, rank, config),
      ...experts('down', t, D, F, rank, config),
      ...dense('q', t, Q, D, rank),
      ...dense('k and v', t, KV, D, rank),
      ...dense('o', t, D, Q, rank),
    ]),
    head(Math.min(256, falling[0] ?? 1), config),
    ...falling.flatMap((t) => [
      ...denseInEightBits('q', t, Q, D),
      ...denseInEightBits('k and v', t, KV, D),
      ...denseInEightBits('o', t, D, Q),
    ]),
  ];
}

/** Time by tile of a class, of all ops in which it was measured, and of the rule's tile in each. */
interface Sums {
  rule: number;
  readonly byTile: Map<string, number>;
  /** The rule's tiles and how much of the time they had. */
  readonly before: Map<string, number>;
}
const add = (to: Map<string, number>, key: string, value: number): void => {
  to.set(key, (to.get(key) ?? 0) + value);
};
/** The key with the largest value; the first of equal ones. */
const largest = (of: Map<string, number>): string => [...of].reduce((a, b) => (b[1] > a[1] ? b : a))[0];

function chosen(product: string, { rule, byTile, before }: Sums): TileChoice {
  const usual = largest(before),
    [tile, time] = [...byTile].reduce((a, b) => (b[1] < a[1] ? b : a));
  const speedup = rule / time;
  return speedup >= WORTH
    ? { product, before: usual, tile, speedup }
    : { product, before: usual, tile: usual, speedup: 1 };
}

/** Seconds of one call, over as many as take long enough to be measured. */
function timeOf(run: () => void, repetitions: number): number {
  const from = performance.now();
  for (let i = 0; i < repetitions; i++) run();
  synchronize();
  return (performance.now() - from) / repetitions / 1000;
}

/**
 * Measures an op's classes, each with every tile in turns while the others keep the rule's.
 * @returns false: the time was up before every tile had its turn, and nothing was added
 */
async function measure(
  run: () => void,
  into: Map<string, Sums>,
  until: { readonly share: number; readonly end: number },
  signal: AbortSignal | undefined,
): Promise<boolean> {
  forgetTiles();
  tiledProducts(); // of others
  run();
  synchronize();
  const classes = tiledProducts().map((c) => ({ ...c, best: new Map<string, number>() })),
    trials = classes.flatMap(({ product, best }) => tileNames().map((tile) => ({ product, tile, best }))),
    repetitions = Math.min(MOST_REPETITIONS, Math.max(1, Math.ceil(MEASURE_MS / 1000 / timeOf(run, 1))));
  const timeIsUp = (turn: number): boolean =>
    performance.now() > (turn < FEWEST_TURNS ? until.end : Math.min(until.share, until.end));
  for (let turn = 0; turn < MOST_TURNS && !timeIsUp(turn); turn++)
    for (const { product, tile, best } of trials) {
      await setImmediate(); // so that Ctrl-C is seen
      signal?.throwIfAborted();
      if (turn === 0 && timeIsUp(turn)) return false;
      takeTile(product, tile);
      best.set(tile, Math.min(best.get(tile) ?? Infinity, timeOf(run, repetitions)));
      takeTile(product, '');
    }
  for (const { product, tile: rule, best } of classes) {
    const byRule = best.get(rule);
    if (byRule === undefined) return false;
    const sums = into.get(product) ?? { rule: 0, byTile: new Map<string, number>(), before: new Map<string, number>() };
    sums.rule += byRule;
    add(sums.before, rule, byRule);
    for (const [tile, time] of best) add(sums.byTile, tile, time);
    into.set(product, sums);
  }
  return true;
}

/**
 * Measures the open device. Its table is empty afterwards: what was chosen is used from the next start on.
 * @throws the signal's reason · {NativeError} no_device
 */
export async function tune(config: ModelConfig, options: TuneOptions): Promise<TuneResult> {
  const { place, signal, onProgress } = options;
  const from = performance.now(),
    end = from + options.seconds * 1000,
    works = worksOf(config, options.rows, options.rank),
    sums = new Map<string, Sums>();
  let measured = 0;
  try {
    for (const [i, work] of works.entries()) {
      signal?.throwIfAborted();
      onProgress?.(i, works.length, work.name);
      const now = performance.now();
      if (now > end) break;
      const share = now + (end - now) / (works.length - i);
      try {
        using s = new Scope('workspace', place);
        if (await measure(work.prepare(s), sums, { share, end }, signal)) measured++;
      } catch (e) {
        // A card may be too small for the largest; what fits is measured.
        if (!(e instanceof NativeError && e.code === 'out_of_device_memory')) throw e;
      }
    }
  } finally {
    forgetTiles();
  }
  return {
    seconds: (performance.now() - from) / 1000,
    ops: measured,
    opsInAll: works.length,
    classes: [...sums].map(([product, of]) => chosen(product, of)).sort((a, b) => b.speedup - a.speedup),
  };
}
