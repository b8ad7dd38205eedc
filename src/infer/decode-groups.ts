// Which streams decode in which pass: all of a pool's adapters and those without one together, each other adapter by
// itself. Streams change less often than steps, so that it is worked out where they do.
import type { StepAdapter } from '../model/decode-step.js';
import { isPooled } from '../model/types.js';
import { rowOf, type State } from './state.js';

export interface DecodeGroup {
  readonly adapter: StepAdapter;
  /** Those of one adapter side by side: they are one product in each op. */
  readonly states: readonly State[];
  /** Of each its adapter's row in the pool, −1: none; null: nobody's lies in one. */
  readonly adapterRows: Int32Array | null;
}

export class DecodeGroups {
  #all: readonly State[] = [];
  #groups: readonly DecodeGroup[] = [];

  of(all: readonly State[]): readonly DecodeGroup[] {
    if (all.length === this.#all.length && all.every((state, i) => state === this.#all[i])) return this.#groups;
    const pool = all.map((s) => s.adapter).find(isPooled)?.pool ?? null; // where those without an adapter go along
    const keyOf = ({ adapter }: State): StepAdapter => (isPooled(adapter) ? adapter.pool : (adapter ?? pool));
    this.#all = all;
    this.#groups = [...new Set(all.map(keyOf))].map((adapter) => {
      const states = all.filter((s) => keyOf(s) === adapter).sort((a, b) => rowOf(a) - rowOf(b));
      return { adapter, states, adapterRows: pool && Int32Array.from(states, rowOf) };
    });
    return this.#groups;
  }
  /** Adapters moved or went. */
  forget(): void {
    this.#all = [];
    this.#groups = [];
  }
}
