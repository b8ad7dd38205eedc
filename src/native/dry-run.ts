// Runs engine code without running it: tensors get a shape but no memory, ops report their cost instead of computing.
// So `temper plan` counts exactly the allocations that training or serving would make, because it is the same code that
// makes them.
import { addon } from './addon.js';
import { type CostArg, type OpCost, opCost } from './op-costs.js';
import { CATEGORIES, type Category, DTYPES, dtypeBytes } from './tensor.js';

export interface DryRunReport {
  /** Bytes at the peak of each category, and of their sum. */
  readonly peak: Readonly<Record<Category, number>>;
  readonly totalPeak: number;
  /** Bytes of tensors mapped from files. */
  readonly mappedBytes: number;
  /** Bytes of offloaded tensors at their peak; on disk, in none of the categories. */
  readonly offloadedPeak: number;
  /** Device memory: bytes at the peak of each category and of their sum. `peak` and `totalPeak` are the host's. */
  readonly device: { readonly peak: Readonly<Record<Category, number>>; readonly totalPeak: number };
  /** Every op call, in order. */
  readonly ops: readonly OpCall[];
}
export interface OpCall {
  readonly op: string;
  readonly args: readonly CostArg[];
  readonly cost: OpCost;
}

interface Virtual {
  readonly shape: readonly number[];
  readonly dtype: number;
  bytes: number;
  readonly category: number;
  readonly place: number;
  readonly offloaded?: number;
  indices?: Int32Array;
  piece?: Piece;
}
/** Memory of recorded ops, given out as native/binding/tensor_table.cpp does. */
interface Piece {
  readonly bytes: number;
  readonly category: number;
  readonly place: number;
  free: boolean;
}
interface RecordedOps {
  readonly place: number;
  readonly pieces: Piece[];
  readonly sharedBy: { count: number };
  readonly ops: OpCall[];
}

let running = false;
/** Whether a dry run is under way: what only reads contents to judge them may leave it out. */
export const inDryRun = (): boolean => running;

/**
 * Calls `body` with native code stubbed out on this thread. Values read from tensors are zeros; mapped files are not
 * mapped, only measured. `body` must be synchronous. Not re-entrant.
 */
export function dryRun<T>(body: () => T): { readonly value: T; readonly report: DryRunReport } {
  const tensors = new Map<number, Virtual>();
  // By place: 0 the host, 1 the device.
  const books = [0, 1].map(() => ({ live: CATEGORIES.map(() => 0), peak: CATEGORIES.map(() => 0), totalPeak: 0 }));
  let limit = 0,
    opened = -1;
  let mappedBytes = 0;
  let offloaded = 0;
  let offloadedPeak = 0;
  let next = 2 ** 52; // above every real handle and every scalar an op takes
  const graphs = new Map<number, RecordedOps>();
  let recording: RecordedOps | null = null;
  const ops: OpCall[] = [];
  const numel = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
  const sum = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0);
  const note = (workspace: number, place: number): void => {
    const book = books[place];
    if (!book) return;
    const w = CATEGORIES.indexOf('workspace');
    book.live.forEach((bytes, c) => {
      book.peak[c] = Math.max(book.peak[c] ?? 0, bytes + (c === w ? workspace : 0));
    });
    book.totalPeak = Math.max(book.totalPeak, sum(book.live) + workspace);
  };
  const hold = (v: { readonly place: number; readonly category: number }, bytes: number): void => {
    const live = books[v.place]?.live;
    if (live) live[v.category] = (live[v.category] ?? 0) + bytes;
  };
  const add = (v: Virtual): number => {
    tensors.set(next, v);
    hold(v, v.bytes);
    note(0, v.place);
    return next++;
  };
  const bytesOf = (dtype: number): number => dtypeBytes(DTYPES[dtype] ?? 'f32');

  const stubs: Partial<Record<keyof typeof addon, unknown>> = {
    alloc(dtype: number, shape: readonly number[], category: number, place = 0) {
      const bytes = numel(shape) * bytesOf(dtype);
      if (recording?.place !== place) return add({ shape, dtype, bytes, category, place });
      let piece = recording.pieces
        .filter((p) => p.free && p.bytes >= bytes && Math.floor(p.bytes / 2) <= bytes)
        .sort((a, b) => a.bytes - b.bytes)[0];
      if (!piece) {
        piece = { bytes, category, place, free: false };
        recording.pieces.push(piece);
        hold(piece, bytes);
      }
      piece.free = false;
      return add({ shape, dtype, bytes: 0, category, place, piece });
    },
    reserve: (dtype: number, shape: readonly number[], category: number) =>
      add({ shape, dtype, bytes: 0, category, place: 0 }),
    commit(handle: number, bytes: number) {
      const v = tensors.get(handle);
      if (!v || bytes <= v.bytes) return;
      hold(v, bytes - v.bytes);
      v.bytes = bytes;
      note(0, v.place);
    },
    beginGraph(place: number, shared: number) {
      const other = graphs.get(shared);
      recording = { place, pieces: other?.pieces ?? [], sharedBy: other?.sharedBy ?? { count: 0 }, ops: [] };
    },
    endGraph(abandon: 0 | 1) {
      const ended = recording;
      recording = null;
      if (!ended) return 0;
      if (!abandon) {
        ended.sharedBy.count++;
        graphs.set(next, ended);
        return next++;
      }
      if (ended.sharedBy.count === 0) for (const p of ended.pieces) hold(p, -p.bytes);
      return 0;
    },
    launchGraph(graph: number) {
      for (const op of graphs.get(graph)?.ops ?? []) {
        note(op.cost.workspace, graphs.get(graph)?.place ?? 0);
        ops.push(op);
      }
    },
    freeGraph(graph: number) {
      const g = graphs.get(graph);
      graphs.delete(graph);
      if (g && --g.sharedBy.count === 0) for (const p of g.pieces) hold(p, -p.bytes);
    },
    openDevice: (_path: string, _driver: string, _build: string, index: number, bytes: number) => {
      opened = Math.max(0, index);
      limit = bytes || limit;
    },
    openedDevice: () => opened,
    prefetch: () => 0,
    arrive() {
      /* nothing moves */
    },
    deviceMemory: () =>
      Float64Array.from([
        ...(books[1]?.live ?? []),
        ...(books[1]?.peak ?? []),
        sum(books[1]?.live ?? []),
        books[1]?.totalPeak ?? 0,
        sum(books[1]?.live ?? []),
        books[1]?.totalPeak ?? 0,
        limit,
      ]),
    listDevices: () => [],
    allocScratch: (_folder: string, dtype: number, shape: readonly number[]) => {
      const bytes = numel(shape) * bytesOf(dtype);
      offloaded += bytes;
      offloadedPeak = Math.max(offloadedPeak, offloaded);
      return add({ shape, dtype, bytes: 0, category: 0, place: 0, offloaded: bytes });
    },
    view: (handle: number, _offset: number, shape: readonly number[]) =>
      add({
        shape,
        dtype: tensors.get(handle)?.dtype ?? 0,
        bytes: 0,
        category: 0,
        place: tensors.get(handle)?.place ?? 0,
      }),
    mapTensor: (_file: number, _offset: number, dtype: number, shape: readonly number[]) => {
      mappedBytes += numel(shape) * bytesOf(dtype);
      return add({ shape, dtype, bytes: 0, category: 0, place: 0 });
    },
    free(handle: number) {
      const v = tensors.get(handle);
      if (!v) return;
      tensors.delete(handle);
      if (v.piece) v.piece.free = true;
      hold(v, -v.bytes);
      offloaded -= v.offloaded ?? 0;
    },
    write(handle: number, data: ArrayBufferView) {
      const t = tensors.get(handle);
      if (t && data instanceof Int32Array) t.indices = data.slice();
    },
    read() {
      /* zeros */
    },
    zero() {
      /* zeros already */
    },
    copy() {
      /* zeros too */
    },
    call(id: number) {
      let place = 0;
      const args: CostArg[] = Array.from(addon.args.subarray(0, addon.opArity[id] ?? 0), (v) => {
        const t = tensors.get(v);
        if (t?.place) place = 1;
        return t
          ? {
              shape: t.shape,
              dtype: t.dtype,
              bytesPerElement: bytesOf(t.dtype),
              ...(t.indices ? { indices: t.indices } : {}),
            }
          : v;
      });
      const op = addon.opNames[id] ?? '';
      const cost = opCost(op, args, place ? 'cuda' : 'cpu');
      if (recording?.place === place) {
        recording.ops.push({ op, args, cost });
        return;
      }
      note(cost.workspace, place);
      ops.push({ op, args, cost });
    },
  };
  const table = addon as unknown as Record<string, unknown>;
  const kept = Object.fromEntries(Object.keys(stubs).map((k) => [k, table[k]]));
  Object.assign(table, stubs);
  running = true;
  try {
    const value = body();
    const named = (place: number): Record<Category, number> =>
      Object.fromEntries(CATEGORIES.map((c, i) => [c, books[place]?.peak[i] ?? 0])) as Record<Category, number>;
    return {
      value,
      report: {
        peak: named(0),
        totalPeak: books[0]?.totalPeak ?? 0,
        device: { peak: named(1), totalPeak: books[1]?.totalPeak ?? 0 },
        mappedBytes,
        offloadedPeak,
        ops,
      },
    };
  } finally {
    Object.assign(table, kept);
    running = false;
  }
}
