// Adapters that are resident together. Their parameters lie in one flat f32 tensor, each as createAdapter lays it out,
// and tables say per layer and target where the pairs of each are: ops take rows of several adapters in one pass.

import { NativeError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { AdapterPool, LayerAdapter, LoraTarget, PooledAdapter, PoolTarget } from '../model/types.js';
import { HOST } from '../native/backends.js';
import { ops } from '../native/ops.js';
import { type Place, Scope, type Tensor } from '../native/tensor.js';
import { type Adapter, type AdapterStorage, createAdapter } from './adapter.js';
import { LORA_TARGETS } from './spec.js';

/** Elements of a table's unit; what adapters are aligned to. */
const UNIT = 16;
/** Elements that are rounded in one go. */
const PIECE = 1 << 22;

/** An adapter in a pool. It stays what it is when the pool moves; its tensors do not. */
export interface Resident extends PooledAdapter {
  readonly adapter: Adapter;
  readonly bytes: number;
}
interface Entry extends Resident {
  adapter: Adapter;
  readonly numel: number;
  offset: number;
}
interface Memory {
  readonly scope: Scope;
  readonly params: Tensor;
  readonly rounded: Tensor | null;
}
interface Tables extends AdapterPool {
  readonly scope: Scope;
  /** Rows of each table. */
  readonly rows: number;
  /** i32 [L·7,n,3] and f32 [L·7,n], all tables in the order of layer and target. */
  readonly all: Tensor;
  readonly scales: Tensor;
}

export class LoraPool implements Disposable {
  readonly #entries: Entry[] = [];
  #memory: Memory | null = null;
  #tables: Tables | null = null;
  /** One is being added: its memory, which no entry has yet, stays. */
  #coming = false;

  /**
   * @param moving is called before tensors of the pool are freed: what was recorded with them must go
   * @param rounds keeps the parameters rounded to bf16 as well, for passes at that precision
   */
  constructor(
    readonly config: ModelConfig,
    readonly place: Place = HOST,
    readonly moving: () => void = () => {},
    readonly rounds = false,
  ) {}

  /** Bytes of all parameters in all forms, gaps included. */
  get bytes(): number {
    return (this.#memory?.params.bytes ?? 0) + (this.#memory?.rounded?.bytes ?? 0);
  }

  /**
   * Takes in what `read` makes in the memory it is given. Where that is not there, the pool grows, to what is needed:
   * old and new memory exist at once for a moment.
   * @throws what `read` throws; those that are here are then as before
   */
  add(read: (storage: AdapterStorage) => Adapter): Resident {
    const adding = this.adding((storage) => atOnce(() => read(storage)));
    for (let piece = adding.next(); ; piece = adding.next()) if (piece.done) return piece.value;
  }
  /** As add, in the pieces in which it is read. One at a time; others may be removed meanwhile. */
  *adding(read: (storage: AdapterStorage) => Generator<void, Adapter>): Generator<void, Resident> {
    if (this.#coming)
      throw new NativeError('bad_argument', 'LoraPool: another adapter is being added; wanted one at a time');
    this.#coming = true;
    let adapter: Adapter | null = null;
    try {
      let offset = 0;
      adapter = yield* read((scope, numel) => {
        offset = this.#reserve(numel);
        return (this.#memory as Memory).params.slice(scope, offset, offset + numel);
      });
      yield* this.#round(offset, offset + adapter.params.numel);
      const whole = adapter;
      adapter = null; // what comes now closes it
      return this.#take(whole, offset);
    } finally {
      adapter?.close();
      this.#coming = false;
      this.#tidy();
    }
  }
  *#round(from: number, to: number): Generator<void> {
    const { params, rounded } = this.#memory as Memory;
    for (let at = from; rounded && at < to; at += PIECE, yield) {
      using s = new Scope('workspace', this.place);
      const end = Math.min(to, at + PIECE);
      ops.cast(rounded.slice(s, at, end), params.slice(s, at, end));
    }
  }
  #take(adapter: Adapter, offset: number): Resident {
    const used = new Set(this.#entries.map((e) => e.row));
    let row = 0;
    while (used.has(row)) row++;
    const pool = (): AdapterPool => this.#tables as Tables;
    const entry: Entry = {
      adapter,
      numel: adapter.params.numel,
      bytes: adapter.params.bytes,
      offset,
      row,
      get pool() {
        return pool();
      },
      get layers(): readonly LayerAdapter[] {
        return this.adapter.model.layers;
      },
    };
    this.#entries.push(entry);
    try {
      this.#writeTables();
    } catch (e) {
      this.remove(entry);
      throw e;
    }
    return entry;
  }
  /** Frees one; an adapter that is not here is ignored. The last one takes all memory with it. */
  remove(resident: Resident): void {
    const at = this.#entries.indexOf(resident as Entry);
    if (at < 0) return;
    this.#entries.splice(at, 1);
    resident.adapter.close();
    this.#tidy();
  }
  #tidy(): void {
    if (this.#entries.length === 0 && !this.#coming) this.close();
  }

  /** First element of a gap of `numel`. */
  #reserve(numel: number): number {
    const entries = this.#entries.toSorted((a, b) => a.offset - b.offset);
    let at = 0;
    for (const e of entries) {
      if (e.offset - at >= numel) return at;
      at = e.offset + e.numel;
    }
    if (this.#memory && this.#memory.params.numel - at >= numel) return at;
    return this.#grow(entries, numel);
  }
  #grow(entries: readonly Entry[], numel: number): number {
    const old = this.#memory,
      live = entries.reduce((sum, e) => sum + e.numel, 0);
    const scope = new Scope('adapter', this.place);
    let at = 0;
    try {
      const params = scope.empty('f32', [live + numel]),
        rounded = this.rounds ? scope.empty('bf16', [live + numel]) : null;
      using s = new Scope('workspace', this.place);
      for (const e of entries) {
        ops.cast(params.slice(s, at, at + e.numel), e.adapter.params);
        if (rounded) ops.cast(rounded.slice(s, at, at + e.numel), e.adapter.params);
        at += e.numel;
      }
      this.#memory = { scope, params, rounded };
    } catch (e) {
      scope.close();
      throw e;
    }
    this.moving();
    at = 0;
    for (const e of entries) {
      const here = at;
      e.offset = at;
      at += e.numel;
      e.adapter.close();
      e.adapter = createAdapter(this.config, e.adapter.spec, {
        place: this.place,
        storage: (views, n) => (this.#memory as Memory).params.slice(views, here, here + n),
      });
    }
    if (entries.length > 0) this.#writeTables();
    old?.scope.close();
    return at;
  }

  /** Brings the tables up to date, in place where they have the rows and targets that are needed. */
  #writeTables(): void {
    const wanted = Math.max(0, ...this.#entries.map((e) => e.row)) + 1,
      rank = Math.max(...this.#entries.flatMap((e) => e.adapter.spec.layers.flatMap((l) => ranksOf(l)))),
      has = (layer: number, target: LoraTarget): boolean => this.#entries.some((e) => e.layers[layer]?.[target]);
    const L = this.config.num_hidden_layers,
      old = this.#tables,
      memory = this.#memory as Memory,
      { params } = memory;
    const fits =
      old !== null &&
      old.params === params &&
      old.rows >= wanted &&
      old.rank >= rank &&
      old.layers.every((l, i) => LORA_TARGETS.every((t) => l[t] || !has(i, t)));
    const tables = fits ? old : this.#newTables(memory, Math.max(4, 2 ** Math.ceil(Math.log2(wanted))), rank, has);
    const n = tables.rows,
      table = new Int32Array(L * LORA_TARGETS.length * n * 3),
      scales = new Float32Array(L * LORA_TARGETS.length * n);
    for (const { adapter, offset, row } of this.#entries)
      for (const { layer, target, part, shape, offset: within } of adapter.entries) {
        const at = (layer * LORA_TARGETS.length + LORA_TARGETS.indexOf(target)) * n + row;
        table[3 * at + (part === 'A' ? 0 : 1)] = (offset + within) / UNIT;
        if (part === 'B') continue;
        table[3 * at + 2] = shape[shape.length - 2] ?? 0;
        scales[at] = adapter.model.layers[layer]?.[target]?.scale ?? 0;
      }
    tables.all.write(table);
    tables.scales.write(scales);
    if (fits) return;
    if (old) this.moving();
    this.#tables = tables;
    old?.scope.close();
  }
  #newTables(
    { params, rounded }: Memory,
    rows: number,
    rank: number,
    has: (layer: number, target: LoraTarget) => boolean,
  ): Tables {
    const scope = new Scope('adapter', this.place),
      L = this.config.num_hidden_layers,
      J = LORA_TARGETS.length;
    try {
      const all = scope.empty('i32', [L * J, rows, 3]),
        scales = scope.empty('f32', [L * J, rows]);
      const layers = Array.from({ length: L }, (_, layer) =>
        Object.fromEntries(
          LORA_TARGETS.flatMap((target, j): [LoraTarget, PoolTarget][] => {
            const at = layer * J + j;
            return has(layer, target)
              ? [
                  [
                    target,
                    { table: all.view(scope, [rows, 3], at * rows * 3), scales: scales.view(scope, [rows], at * rows) },
                  ],
                ]
              : [];
          }),
        ),
      );
      return { scope, params, rounded, rank, rows, layers, all, scales };
    } catch (e) {
      scope.close();
      throw e;
    }
  }

  /** Frees all; a pool can be used again. */
  close(): void {
    if (this.#memory) this.moving();
    for (const e of this.#entries.splice(0)) e.adapter.close();
    this.#tables?.scope.close();
    this.#memory?.scope.close();
    this.#tables = null;
    this.#memory = null;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

function* atOnce<T>(make: () => T): Generator<void, T> {
  yield;
  return make();
}
const ranksOf = (layer: Adapter['spec']['layers'][number]): readonly number[] =>
  LORA_TARGETS.map((t) => layer[t]?.rank ?? 0);
