// Keys and values of running sequences. Full layers keep every token, in pages (kv-pages.ts); window layers keep a ring
// rows, token p in row p mod ring: as many as the window has, and some more where tokens may be taken back.
import { NativeError } from '../base/errors.js';
import { HOST } from '../native/backends.js';
import { ops } from '../native/ops.js';
import { dtypeBytes, type Place, Scope, type Tensor } from '../native/tensor.js';
import { layerWindow, type ModelConfig } from './config.js';
import { PAGE_TOKENS, PageTable, pagesFor } from './kv-pages.js';
import type { Batch } from './types.js';

interface LayerCache {
  readonly k: Tensor;
  readonly v: Tensor;
}
/** Rows [from, from + rows) of one of the cache's tensors. */
export interface SlotRows {
  readonly of: Tensor;
  readonly from: number;
  readonly rows: number;
}
/** The keys and values of a layer that a batch's queries see, as op attention_fwd takes them. */
export interface KeysAt extends LayerCache {
  readonly kStart: Tensor | null;
  /** i32 [B] */
  readonly kLen: Tensor;
  /** The same of a batch of one sequence. */
  readonly keys: number;
  readonly pages: Tensor | null;
  readonly window: number;
  readonly ring: number;
  readonly page: number;
}
/** Row numbers of one batch, made once and used by every layer. */
export interface CachePlan {
  readonly scope: Scope;
  readonly batch: Batch;
  readonly qStart: Tensor;
  /** Rows of the new keys, and the pages of all, i32 [B,M]. */
  readonly full: { readonly rows: Tensor; readonly pages: Tensor; readonly kLen: Tensor };
  readonly window: WindowPlan;
}
/** Where a batch's tokens go. */
interface LaidOut {
  readonly slots: readonly number[];
  /** Tokens of each sequence with its new ones. */
  readonly kLen: Int32Array;
  /** Row of each new token in full layers. */
  readonly rows: Int32Array;
  /** Every sequence brings one token. */
  readonly single: boolean;
}
type WindowPlan =
  /** Every sequence brings one token: write to the ring, attend in the ring. */
  | { readonly kind: 'ring'; readonly rows: Tensor; readonly kStart: Tensor; readonly kLen: Tensor }
  /**
   * Longer pieces: the ring's last tokens and the new ones are laid out in a line first, attended there, then the
   * newest go to the ring. A sequence's line begins at a multiple of PAGE_TOKENS of its keys: attention cuts its sums
   * there, so that a token has the same bits in any piece.
   */
  | {
      readonly kind: 'line';
      readonly oldRows: Tensor | null;
      readonly oldTo: Tensor;
      readonly newTo: Tensor;
      readonly lineRows: number;
      readonly kStart: Tensor;
      readonly kLen: Tensor;
      readonly lastFrom: Tensor;
      readonly lastTo: Tensor;
    };

const mostOften = (values: readonly number[]): number => {
  const times = new Map<number, number>();
  for (const v of values) times.set(v, (times.get(v) ?? 0) + 1);
  return Math.max(0, ...times.values());
};

export interface KvCacheOptions {
  /** Pages of PAGE_TOKENS tokens of all sequences together; default: enough for each to be as long as it may. */
  readonly pages?: number;
  /** What keys and values of full layers are kept in; bf16 rounds them to nearest even. Default f32. */
  readonly dtype?: 'f32' | 'bf16';
  /**
   * Most tokens of a slot that `rewind` takes back, and of those that it gets beside one in a pass of single tokens.
   * Rings are so much longer, in whole blocks. Default 0.
   */
  readonly lookahead?: number;
}

export class KvCache implements Disposable {
  readonly window: number;
  /** Rows of a ring. */
  readonly ring: number;
  readonly lookahead: number;
  readonly dtype: 'f32' | 'bf16';
  readonly #scope: Scope;
  readonly #layers: LayerCache[] = [];
  readonly #windows: number[];
  readonly #table: PageTable;
  /** Pages whose memory is taken. */
  #committed = 0;
  #closed = false;

  /**
   * Memory for pages is taken as sequences grow on the host, all at once on a GPU; that of the rings is counted at
   * once, and there when a slot is first written to.
   * @param sequences slots · @param capacity most tokens one slot can hold
   */
  constructor(
    readonly config: ModelConfig,
    readonly sequences: number,
    readonly capacity: number,
    readonly place: Place = HOST,
    options: KvCacheOptions = {},
  ) {
    this.dtype = options.dtype ?? 'f32';
    this.#scope = new Scope('kv', place);
    this.#windows = Array.from({ length: config.num_hidden_layers }, (_, i) => layerWindow(config, i));
    this.window = Math.max(0, ...this.#windows);
    this.lookahead = options.lookahead ?? 0;
    const tight = this.lookahead === 0 || this.window === 0;
    this.ring = tight ? this.window : pagesFor(this.window + this.lookahead) * PAGE_TOKENS;
    this.#table = new PageTable(sequences, capacity, options.pages ?? sequences * pagesFor(capacity));
    const { num_key_value_heads: Hkv, head_dim: Dh } = config;
    try {
      for (const window of this.#windows) {
        const make = (): Tensor => {
          if (window === 0) return this.#scope.reserved(this.dtype, [this.#table.limit * PAGE_TOKENS, Hkv, Dh]);
          const shape = [sequences * this.ring, Hkv, Dh];
          // One that is for a single text is written to at once, and memory that was used before is there.
          if (sequences === 1) return this.#scope.zeros('f32', shape);
          const ring = this.#scope.reserved('f32', shape);
          ring.commit(ring.rows);
          return ring;
        };
        this.#layers.push({ k: make(), v: make() });
      }
    } catch (e) {
      this.close();
      throw e;
    }
  }

  /** Tokens held, per slot. */
  get lengths(): Int32Array {
    return this.#table.lengths;
  }
  length(slot: number): number {
    return this.#table.length(slot);
  }
  /** Ends the slot's sequence: its pages are free where no other sequence reads them, and so is its promise. */
  reset(slot: number): void {
    this.truncate(slot, 0);
  }

  /** Pages that a sequence of so many tokens takes. */
  pagesFor(tokens: number): number {
    return pagesFor(tokens);
  }
  /** All pages, those in use, and those that are neither in use nor promised. */
  get pages(): number {
    return this.#table.limit;
  }
  get usedPages(): number {
    return this.#table.used;
  }
  get freePages(): number {
    return this.#table.free;
  }
  /** Pages that these slots hold, shared ones once. */
  pagesOf(slots: readonly number[]): number {
    return new Set(slots.flatMap((slot) => this.#table.pagesOf(slot))).size;
  }
  /**
   * Keeps room for `slot` to grow to `tokens` tokens, until it is reset or truncated: no `cache_full` up to there.
   * Pages that it shares count once. @returns false: there is none, nothing was kept
   */
  promise(slot: number, tokens: number): boolean {
    return this.#table.promise(slot, tokens);
  }
  /** Bytes of a page, over all full layers. */
  get pageBytes(): number {
    const { num_key_value_heads: Hkv, head_dim: Dh } = this.config;
    const layers = this.#windows.filter((window) => window === 0).length;
    return 2 * layers * PAGE_TOKENS * Hkv * Dh * (this.dtype === 'bf16' ? 2 : 4);
  }
  /** Counts the memory of all pages as in use from now on, as when every sequence is as long as it may be. */
  commitAll(): void {
    this.#commit(this.#table.limit);
  }
  #commit(pages: number): void {
    if (pages <= this.#committed) return;
    this.#layers.forEach(({ k, v }, i) => {
      if (this.#windows[i] === 0) for (const t of [k, v]) t.commit(pages * PAGE_TOKENS);
    });
    this.#committed = pages;
  }

  /**
   * Forgets all tokens from `length` on.
   * @throws {NativeError} cache_truncate: the ring has already lost tokens that would be needed
   */
  truncate(slot: number, length: number): void {
    const held = this.length(slot);
    if (slot < 0 || slot >= this.sequences || length < 0 || length > held)
      throw new NativeError(
        'cache_truncate',
        `KvCache.truncate: slot ${slot} of ${this.sequences} to ${length} of ${held} tokens; ` +
          'wanted a slot that exists and no more tokens than it holds',
      );
    if (length > 0 && length < held && this.window > 0 && held > this.window) {
      throw new NativeError(
        'cache_truncate',
        `KvCache.truncate: slot ${slot} holds ${held} tokens, its window rings only the last ` +
          `${this.window}; reset it and prefill again, or copy() a prefix before going on`,
      );
    }
    this.#table.cut(slot, length);
  }
  /**
   * Takes the last tokens back, as if they had never come; what the slot was promised stays.
   * @throws {NativeError} cache_truncate: more of them than `lookahead`
   */
  rewind(slot: number, length: number): void {
    const held = this.length(slot);
    if (length < 0 || length > held || held - length > this.lookahead)
      throw new NativeError(
        'cache_truncate',
        `KvCache.rewind: slot ${slot} to ${length} of ${held} tokens; at most ${this.lookahead} can be taken back`,
      );
    this.#table.advance(slot, length);
  }

  /**
   * The last tokens are taken back because the next pass brings the same ones anew, to where they are.
   * @throws {NativeError} cache_truncate: more of them than a pass brings of a stream
   */
  redo(slot: number, length: number): void {
    const held = this.length(slot);
    if (length < 0 || length > held || held - length > this.lookahead + 1)
      throw new NativeError(
        'cache_truncate',
        `KvCache.redo: slot ${slot} to ${length} of ${held} tokens; at most ${this.lookahead + 1} can come anew`,
      );
    this.#table.advance(slot, length);
  }

  /**
   * Makes slot `to` the same as slot `from`: a prefilled prefix (a policy, a system message) is computed once and
   * continued many times. They share the pages; whoever goes on in a page that is not full gets a copy of it then.
   * @throws {NativeError} cache_full: no page is left for that copy; `to` is then empty
   */
  copy(from: number, to: number): void {
    if (from === to) return;
    this.#table.share(from, to);
    this.#layers.forEach((layer, i) => {
      const window = this.#windows[i] ?? 0;
      const { ring } = this;
      if (window > 0) this.#copyRows(layer, from * ring, to * ring, Math.min(this.length(from), ring));
    });
  }
  #copyRows({ k, v }: LayerCache, from: number, to: number, rows: number): void {
    if (rows === 0) return;
    using s = new Scope('workspace', this.place);
    for (const t of [k, v]) ops.cast(t.slice(s, to, to + rows), t.slice(s, from, from + rows));
  }
  /** Room for `tokens` tokens, in pages of its own where it writes. */
  #grow(slot: number, tokens: number): void {
    const copy = this.#table.grow(slot, tokens);
    this.#commit(this.#table.touched);
    if (!copy) return;
    this.#layers.forEach((layer, i) => {
      if (this.#windows[i] === 0) this.#copyRows(layer, copy.from * PAGE_TOKENS, copy.to * PAGE_TOKENS, copy.tokens);
    });
  }

  /** Rows that hold the tokens of a slot, layer after layer, in an order that their number alone decides. */
  rowsOf(slot: number): readonly SlotRows[] {
    const length = this.length(slot),
      pages = this.#table.pagesOf(slot);
    return this.#layers.flatMap(({ k, v }, i) => {
      const window = this.#windows[i] ?? 0;
      if (window > 0) return [k, v].map((of) => ({ of, from: slot * this.ring, rows: Math.min(length, this.ring) }));
      return [k, v].flatMap((of) =>
        pages.map((page, at) => ({
          of,
          from: page * PAGE_TOKENS,
          rows: Math.min(PAGE_TOKENS, length - at * PAGE_TOKENS),
        })),
      );
    });
  }
  /** Bytes of all rows of `tokens` tokens. */
  bytesFor(tokens: number): number {
    const { num_key_value_heads: Hkv, head_dim: Dh } = this.config;
    return this.#layers.reduce((sum, { k }, i) => {
      const window = this.#windows[i] ?? 0;
      return sum + 2 * (window > 0 ? Math.min(tokens, this.ring) : tokens) * Hkv * Dh * dtypeBytes(k.dtype);
    }, 0);
  }
  /**
   * An empty slot holds `tokens` tokens from now on, whose rows (rowsOf) the caller writes.
   * @throws {NativeError} cache_full: it is then still empty
   */
  fill(slot: number, tokens: number): void {
    try {
      this.#grow(slot, tokens);
    } catch (e) {
      this.reset(slot);
      throw e;
    }
    this.#table.advance(slot, tokens);
  }

  /**
   * Lays out where a batch's keys and values go. A slot may stand in it several times with one token each, one after
   * the other: each sees those before it.
   * @throws {NativeError} bad_batch: positions do not continue their slots; cache_full: a slot would exceed its
   * capacity, or no page is left
   */
  plan(scope: Scope, batch: Batch): CachePlan {
    const laid = this.#layOut(batch),
      { slots, kLen, single } = laid;
    const kLenT = scope.from(kLen),
      columns = single ? this.#table.perSequence : Math.max(1, pagesFor(Math.max(...kLen)));
    return {
      scope,
      batch,
      qStart: scope.from(batch.starts),
      full: {
        rows: scope.from(laid.rows),
        pages: scope.from(this.#table.table(slots, columns), [slots.length, columns]),
        kLen: kLenT,
      },
      window: single ? this.#ringPlan(scope, laid, kLenT) : this.#linePlan(scope, laid, batch.starts),
    };
  }
  /** Takes the pages of a batch's tokens. */
  #layOut({ starts, positions, tokens, slots: given }: Batch): LaidOut {
    const B = starts.length - 1;
    const slots = Array.from({ length: B }, (_, b) => given?.[b] ?? b);
    /** Tokens of each slot up to the row that is laid out. */
    const stands = new Map<number, number>();
    const most = tokens.length === B ? this.lookahead + 1 : 1;
    if (slots.some((s) => s < 0 || s >= this.sequences) || (B > 1 && mostOften(slots) > most))
      throw new NativeError(
        'bad_batch',
        `KvCache: slots ${slots.join(',')} of ${this.sequences}; wanted slots that exist, each at most ${most}×`,
      );
    const rows = new Int32Array(tokens.length),
      kLen = new Int32Array(B);
    let single = true;
    slots.forEach((slot, b) => {
      const from = starts[b] ?? 0,
        n = (starts[b + 1] ?? 0) - from,
        held = stands.get(slot) ?? this.length(slot);
      if (positions[from] !== held)
        throw new NativeError(
          'bad_batch',
          `KvCache: sequence ${b} starts at position ${positions[from]}, its slot ${slot} holds ` +
            `${held} tokens; positions must go on where the slot stands`,
        );
      this.#grow(slot, held + n);
      stands.set(slot, held + n);
      if (n !== 1) single = false;
      kLen[b] = held + n;
      for (let t = 0; t < n; t++) rows[from + t] = this.#table.row(slot, held + t);
    });
    return { slots, kLen, rows, single };
  }
  #ringPlan(scope: Scope, laid: LaidOut, kLen: Tensor): WindowPlan {
    return { kind: 'ring', rows: scope.from(this.#ringRows(laid)), kStart: scope.from(this.#ringStarts(laid)), kLen };
  }
  #ringRows({ slots, kLen }: LaidOut): Int32Array {
    return kLen.map((n, b) => (slots[b] ?? 0) * this.ring + ((n - 1) % (this.ring || 1)));
  }
  #ringStarts({ slots, kLen }: LaidOut): Int32Array {
    return kLen.map((_, b) => (slots[b] ?? 0) * this.ring);
  }
  #linePlan(scope: Scope, { slots, kLen }: LaidOut, starts: Int32Array): WindowPlan {
    const R = this.ring,
      seen = Math.max(this.window - 1, 0);
    const fresh = (b: number): number => (starts[b + 1] ?? 0) - (starts[b] ?? 0),
      olds = kLen.map((n, b) => Math.min(n - fresh(b), seen)),
      sum = (counts: Int32Array): number => counts.reduce((all, n) => all + n, 0);
    const oldRows = new Int32Array(sum(olds)),
      oldTo = new Int32Array(oldRows.length),
      newTo = new Int32Array(starts.at(-1) ?? 0),
      lastFrom = new Int32Array(sum(kLen.map((_, b) => Math.min(fresh(b), R)))),
      lastTo = new Int32Array(lastFrom.length),
      lineStart = new Int32Array(kLen.length),
      lineLen = new Int32Array(kLen.length);
    let line = 0,
      o = 0,
      l = 0;
    slots.forEach((slot, b) => {
      const from = starts[b] ?? 0,
        n = fresh(b),
        held = (kLen[b] ?? 0) - n,
        old = olds[b] ?? 0,
        before = old > 0 ? (held - old) % PAGE_TOKENS : 0; // rows that no query sees
      lineStart[b] = line;
      lineLen[b] = before + old + n;
      line += before;
      for (let j = held - old; j < held; j++) {
        oldRows[o] = slot * R + (j % (R || 1));
        oldTo[o++] = line++;
      }
      for (let t = 0; t < n; t++) newTo[from + t] = line++;
      for (let t = Math.max(0, n - R); t < n; t++) {
        lastFrom[l] = from + t;
        lastTo[l++] = slot * R + ((held + t) % (R || 1));
      }
    });
    return {
      kind: 'line',
      oldRows: o > 0 ? scope.from(oldRows) : null,
      oldTo: scope.from(o > 0 ? oldTo : Int32Array.of(0)),
      newTo: scope.from(newTo),
      lineRows: line,
      kStart: scope.from(lineStart),
      kLen: scope.from(lineLen),
      lastFrom: scope.from(lastFrom),
      lastTo: scope.from(lastTo),
    };
  }

  /**
   * The plan of another batch of as many sequences, one token each, in the tensors of `plan`: a recorded pass runs
   * again on it.
   * @throws {NativeError} as plan; bad_batch: another number of sequences or of tokens
   */
  replan(plan: CachePlan, batch: Batch): CachePlan {
    const B = plan.batch.starts.length - 1;
    if (plan.window.kind !== 'ring' || batch.starts.length - 1 !== B || batch.tokens.length !== B)
      throw new NativeError(
        'bad_batch',
        `KvCache.replan: ${batch.starts.length - 1} sequences of ${batch.tokens.length} tokens in ` +
          `the plan of ${B}; wanted as many, one token each`,
      );
    const laid = this.#layOut(batch);
    if (!laid.single) throw new NativeError('bad_batch', 'KvCache.replan: wanted one token of each sequence');
    plan.full.rows.write(laid.rows);
    plan.full.pages.write(this.#table.table(laid.slots, this.#table.perSequence));
    plan.full.kLen.write(laid.kLen);
    plan.window.rows.write(this.#ringRows(laid));
    plan.window.kStart.write(this.#ringStarts(laid));
    return { ...plan, batch };
  }

  /**
   * Rows of the new keys and values of `layer`, and what attention then reads; null: they are laid out in a line first,
   * by `write`.
   */
  placesOf(plan: CachePlan, layer: number): { readonly rows: Tensor; readonly at: KeysAt } | null {
    const cache = this.#layers[layer],
      window = this.#windows[layer] ?? 0;
    if (!cache) throw new NativeError('bad_batch', `KvCache: no layer ${layer}`);
    const { kLen, pages, rows } = plan.full,
      keys = (plan.batch.positions[0] ?? 0) + plan.batch.tokens.length;
    // Field by field: copies of objects cost as much as an op.
    const { k, v } = cache;
    if (window === 0)
      return { rows, at: { k, v, kStart: null, kLen, keys, pages, window, ring: 0, page: PAGE_TOKENS } };
    const w = plan.window;
    if (w.kind !== 'ring') return null;
    return {
      rows: w.rows,
      at: { k, v, kStart: w.kStart, kLen: w.kLen, keys, pages: null, window, ring: this.ring, page: 0 },
    };
  }
  /**
   * Writes the new keys and values of `layer`, k and v f32 [T,Hkv,Dh], rotary already applied.
   * @param scope holds what attention then reads · @returns where that is
   */
  write(scope: Scope, plan: CachePlan, layer: number, k: Tensor, v: Tensor): KeysAt {
    const places = this.placesOf(plan, layer);
    if (places) {
      ops.scatter_rows(places.at.k, k, places.rows);
      ops.scatter_rows(places.at.v, v, places.rows);
      return places.at;
    }
    const cache = this.#layers[layer] as LayerCache,
      window = this.#windows[layer] ?? 0,
      w = plan.window as Extract<WindowPlan, { kind: 'line' }>;
    const inLine = (ring: Tensor, fresh: Tensor): Tensor => {
      if (!w.oldRows) return fresh; // a first prefill: the new rows are the line
      using s = new Scope('workspace', this.place);
      const all = scope.empty('f32', [w.lineRows, ...fresh.shape.slice(1)]);
      const old = s.empty('f32', [w.oldRows.rows, ...fresh.shape.slice(1)]);
      ops.gather_rows(old, ring, w.oldRows);
      ops.scatter_rows(all, old, w.oldTo);
      ops.scatter_rows(all, fresh, w.newTo);
      return all;
    };
    const toRing = (ring: Tensor, fresh: Tensor): void => {
      using s = new Scope('workspace', this.place);
      const last = s.empty('f32', [w.lastFrom.rows, ...fresh.shape.slice(1)]);
      ops.gather_rows(last, fresh, w.lastFrom);
      ops.scatter_rows(ring, last, w.lastTo);
    };
    const line = { k: inLine(cache.k, k), v: inLine(cache.v, v) };
    toRing(cache.k, k);
    toRing(cache.v, v);
    const { kStart, kLen, lineRows } = w;
    return { k: line.k, v: line.v, kStart, kLen, keys: lineRows, pages: null, window, ring: 0, page: 0 };
  }

  /**
   * The batch's tokens are all written: lengths grow. Called once per forward, after the last layer; a slot whose
   * forward failed must be reset.
   */
  advance(plan: CachePlan): void {
    const { starts, slots } = plan.batch;
    for (let b = 0; b + 1 < starts.length; b++) {
      const slot = slots?.[b] ?? b;
      this.#table.advance(slot, this.length(slot) + (starts[b + 1] ?? 0) - (starts[b] ?? 0));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
