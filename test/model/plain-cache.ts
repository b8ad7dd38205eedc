// A cache as simple as can be: every layer keeps every token of a slot in a line of its own. Keys lie where attention
// finds them without pages and without a ring; KvCache must give the same bits.
import { layerWindow, type ModelConfig } from '../../src/model/config.js';
import { forwardHidden } from '../../src/model/gpt-oss.js';
import { type CachePlan, type KeysAt, KvCache, type KvCacheOptions } from '../../src/model/kv-cache.js';
import type { Batch, ModelWeights } from '../../src/model/types.js';
import { placeOf } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { type Place, Scope, type Tensor } from '../../src/native/tensor.js';

export class PlainCache {
  readonly lengths: Int32Array;
  readonly #scope: Scope;
  readonly #layers: { readonly k: Tensor; readonly v: Tensor }[];
  constructor(
    readonly config: ModelConfig,
    readonly sequences: number,
    readonly capacity: number,
    readonly place: Place = 'cpu',
    /** What the keys and values of full layers are rounded to. */
    readonly dtype: 'f32' | 'bf16' = 'f32',
  ) {
    this.lengths = new Int32Array(sequences);
    this.#scope = new Scope('kv', place);
    const shape = [sequences * capacity, config.num_key_value_heads, config.head_dim];
    this.#layers = Array.from({ length: config.num_hidden_layers }, () => ({
      k: this.#scope.zeros('f32', shape),
      v: this.#scope.zeros('f32', shape),
    }));
  }
  /** What forwardHidden takes. */
  get asCache(): KvCache {
    return this as unknown as KvCache;
  }
  plan(scope: Scope, batch: Batch): CachePlan {
    const B = batch.starts.length - 1;
    const slots = Array.from({ length: B }, (_, b) => batch.slots?.[b] ?? b);
    const rows = slots.flatMap((slot, b) =>
      [...batch.positions.slice(batch.starts[b], batch.starts[b + 1])].map((p) => slot * this.capacity + p),
    );
    const i32 = (x: readonly number[]): Tensor => scope.from(Int32Array.from(x));
    const kStart = i32(slots.map((s) => s * this.capacity)),
      kLen = i32(slots.map((s, b) => (this.lengths[s] ?? 0) + (batch.starts[b + 1] ?? 0) - (batch.starts[b] ?? 0))),
      all = i32(rows);
    return {
      scope,
      batch,
      qStart: scope.from(batch.starts),
      full: { rows: all, pages: all, kLen },
      window: { kind: 'ring', rows: all, kStart, kLen },
    };
  }
  write(_scope: Scope, plan: CachePlan, layer: number, k: Tensor, v: Tensor): KeysAt {
    const own = this.#layers[layer];
    if (!own) throw new Error(`no layer ${layer}`);
    const { kStart, kLen } = plan.window;
    const window = layerWindow(this.config, layer);
    using s = new Scope('workspace', this.place);
    const kept = (x: Tensor): Tensor => {
      if (window > 0 || this.dtype === 'f32') return x;
      const half = s.empty('bf16', x.shape),
        back = s.empty('f32', x.shape);
      ops.cast(half, x);
      ops.cast(back, half);
      return back;
    };
    ops.scatter_rows(own.k, kept(k), plan.full.rows);
    ops.scatter_rows(own.v, kept(v), plan.full.rows);
    const keys = (plan.batch.positions[0] ?? 0) + k.rows;
    return { ...own, kStart, kLen, keys, pages: null, window, ring: 0, page: 0 };
  }
  advance({ batch: { starts, slots } }: CachePlan): void {
    for (let b = 0; b + 1 < starts.length; b++)
      this.lengths[slots?.[b] ?? b] = (this.lengths[slots?.[b] ?? b] ?? 0) + (starts[b + 1] ?? 0) - (starts[b] ?? 0);
  }
  copy(from: number, to: number): void {
    using s = new Scope('workspace', this.place);
    const n = this.lengths[from] ?? 0,
      at = (slot: number): number => slot * this.capacity;
    for (const { k, v } of this.#layers)
      for (const t of n > 0 ? [k, v] : []) ops.cast(t.slice(s, at(to), at(to) + n), t.slice(s, at(from), at(from) + n));
    this.lengths[to] = n;
  }
  close(): void {
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** The next tokens of some slots. */
export type Piece = readonly [slot: number, tokens: readonly number[]];
export function batchOf(cache: KvCache, pieces: readonly Piece[]): Batch {
  const starts = [0];
  for (const [, tokens] of pieces) starts.push((starts.at(-1) ?? 0) + tokens.length);
  return {
    tokens: Int32Array.from(pieces.flatMap(([, tokens]) => tokens)),
    positions: Int32Array.from(pieces.flatMap(([slot, tokens]) => tokens.map((_, i) => cache.length(slot) + i))),
    starts: Int32Array.from(starts),
    slots: Int32Array.from(pieces, ([slot]) => slot),
  };
}
/** Hidden states f32 of all rows of a batch. */
export function hidden(
  model: ModelWeights,
  cache: KvCache,
  batch: Batch,
  precision: 'f32' | 'bf16' = 'f32',
): Float32Array {
  using s = new Scope('activations', placeOf(model));
  return forwardHidden(s, model, null, batch, { precision, cache }).toFloat32();
}

const same = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

/**
 * Random starts, prompts, steps, forks and ends on KvCache and on PlainCache. @returns how much was done; `differ`: the
 * first pass whose bits differ, or −1
 */
export function compareCaches(
  model: ModelWeights,
  o: {
    readonly seed: number;
    readonly steps: number;
    readonly most: number;
    readonly precision?: 'f32' | 'bf16';
    readonly cache?: KvCacheOptions;
    /** What the plain cache rounds to; default: as the other. */
    readonly plainDtype?: 'f32' | 'bf16';
  },
): { readonly passes: number; readonly forks: number; readonly differ: number; readonly usedPages: number } {
  let state = o.seed;
  const pick = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const slots = 5,
    capacity = o.most,
    V = model.config.vocab_size - 24;
  using plain = new PlainCache(model.config, slots, capacity, placeOf(model), o.plainDtype ?? o.cache?.dtype);
  using paged = new KvCache(model.config, slots, capacity, placeOf(model), o.cache);
  let passes = 0,
    forks = 0,
    differ = -1;
  for (let step = 0; step < o.steps; step++) {
    const slot = pick(slots),
      other = pick(slots);
    const kind = pick(8);
    const room = (s: number): number => capacity - paged.length(s);
    const tokens = (n: number): number[] => Array.from({ length: n }, () => 7 + pick(V));
    let pieces: Piece[] = [];
    if (kind < 2) pieces = [[slot, tokens(Math.min(room(slot), 1 + pick(150)))]];
    else if (kind < 5)
      for (let s = 0; s < slots; s++) pieces.push([s, tokens(Math.min(room(s), kind === 4 && s === slot ? 30 : 1))]);
    else if (kind < 7) {
      if (slot === other) continue;
      plain.copy(slot, other);
      paged.copy(slot, other);
      forks++;
    } else {
      plain.lengths[slot] = 0;
      paged.reset(slot);
    }
    pieces = pieces.filter(([, t]) => t.length > 0);
    if (pieces.length === 0) continue;
    const batch = batchOf(paged, pieces);
    const want = hidden(model, plain.asCache, batch, o.precision),
      got = hidden(model, paged, batch, o.precision);
    if (differ < 0 && !same(want, got)) differ = passes;
    passes++;
  }
  for (let s = 0; s < slots; s++) paged.reset(s);
  return { passes, forks, differ, usedPages: paged.usedPages };
}
