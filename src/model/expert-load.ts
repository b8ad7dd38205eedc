// How evenly a router spreads its rows over the experts: the busiest one of a layer is who the others wait for.
import { Scope, type Tensor } from '../native/tensor.js';

/** Rows of each expert in each layer, of the passes that were counted. */
export class ExpertLoad {
  readonly #rows: Float64Array; // [layers, experts]
  constructor(
    readonly layers: number,
    readonly experts: number,
  ) {
    this.#rows = new Float64Array(layers * experts);
  }

  /** @param offsets i32 [experts+1]: where the rows of each expert begin (op moe_plan) */
  add(layer: number, offsets: Int32Array): void {
    for (let e = 0; e < this.experts; e++) {
      const at = layer * this.experts + e;
      this.#rows[at] = (this.#rows[at] ?? 0) + (offsets[e + 1] ?? 0) - (offsets[e] ?? 0);
    }
  }

  /**
   * Rows of the busiest expert ÷ those of the mean one, the mean of that over the layers, of what was counted since the
   * last call: 1 is even, experts ÷ experts per token the most. null: nothing was.
   */
  take(): number | null {
    let sum = 0,
      counted = 0;
    for (let layer = 0; layer < this.layers; layer++) {
      const rows = this.#rows.subarray(layer * this.experts, (layer + 1) * this.experts),
        all = rows.reduce((a, b) => a + b, 0);
      if (all === 0) continue;
      sum += (Math.max(...rows) * this.experts) / all;
      counted++;
    }
    this.#rows.fill(0);
    return counted === 0 ? null : sum / counted;
  }
}

/** The offsets of one pass, kept where they were made until somebody waits for the device anyway. */
export class RoutedRows {
  readonly #offsets: Tensor; // i32 [layers·pieces, experts+1]
  readonly #layers: number[] = [];
  /** @param pieces that the experts of a layer are run in */
  constructor(
    s: Scope,
    readonly load: ExpertLoad,
    pieces: number,
  ) {
    this.#offsets = s.empty('i32', [load.layers * pieces, load.experts + 1], 'workspace');
  }
  note(layer: number, offsets: Tensor): void {
    using s = new Scope('workspace', offsets.place);
    const at = this.#layers.push(layer) - 1;
    this.#offsets.slice(s, at, at + 1).copy(offsets);
  }
  /** Reads all that was noted into `load`. Waits for a device. */
  count(): void {
    const all = this.#offsets.read() as Int32Array,
      size = this.load.experts + 1;
    this.#layers.forEach((layer, at) => {
      this.load.add(layer, all.subarray(at * size, (at + 1) * size));
    });
  }
}
