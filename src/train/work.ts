// What a step has to do, and how much of a device's limit it reached doing it. One step is run dry (native/plan) and
// its operations are counted; those of another follow from its tokens, its targets and what its queries see.

import type { PackedBatch } from '../data/pack.js';
import { layerWindow, type ModelConfig } from '../model/config.js';
import type { Limits } from '../native/machine.js';
import type { DryRunReport } from '../native/plan.js';

/** Multiply-adds × 2 of products and attention, and bytes streamed: OpCost, summed. */
export interface Work {
  readonly flops: number;
  readonly bytes: number;
}
/** What the work of batches grows with. */
interface Extent {
  readonly tokens: number;
  readonly targets: number;
  /** Pairs of a query and a key that it sees, over all layers. */
  readonly pairs: number;
}

/** Of a sequence of n tokens: pairs of a query and a key at or before it, at most `window` of them (0: any number). */
function pairsOf(n: number, window: number): number {
  const w = window > 0 ? Math.min(window, n) : n;
  return (w * (w + 1)) / 2 + (n - w) * w;
}
function extentOf(config: ModelConfig, batches: readonly PackedBatch[]): Extent {
  const windows = Array.from({ length: config.num_hidden_layers }, (_, i) => layerWindow(config, i));
  let [tokens, targets, pairs] = [0, 0, 0];
  for (const { batch, targets: of } of batches) {
    tokens += batch.tokens.length;
    targets += of.rows.length;
    for (let b = 0; b + 1 < batch.starts.length; b++) {
      const n = (batch.starts[b + 1] ?? 0) - (batch.starts[b] ?? 0);
      pairs += windows.reduce((sum, window) => sum + pairsOf(n, window), 0);
    }
  }
  return { tokens, targets, pairs };
}

type Calls = DryRunReport['ops'];
const sumOf = (calls: Calls, of: (c: Calls[number]) => number): number => calls.reduce((sum, c) => sum + of(c), 0);
/** Per token, target and pair: an op belongs to the one that it grows with. */
interface Rates {
  readonly flops: Extent;
  /** Whatever the batch. */
  readonly stillBytes: number;
  readonly bytesPerToken: number;
}
function ratesOf(calls: Calls, fewer: Calls, still: Calls, at: Extent, atFewer: Extent): Rates {
  const flops = (wanted: (op: string) => boolean): number => sumOf(calls, (c) => (wanted(c.op) ? c.cost.flops : 0));
  const isPairs = (op: string): boolean => op.startsWith('attention_'),
    isTargets = (op: string): boolean => op === 'linear_cross_entropy';
  // Weights are read whatever the batch: two batches tell them from what comes with each token.
  const bytes = (of: Calls): number => sumOf(of, (c) => c.cost.bytes);
  const [more, less] = [bytes(calls) - bytes(still), bytes(fewer) - bytes(still)];
  const slope = at.tokens === atFewer.tokens ? more / at.tokens : (more - less) / (at.tokens - atFewer.tokens);
  const bytesPerToken = Math.min(slope, more / at.tokens);
  return {
    flops: {
      tokens: flops((op) => !isPairs(op) && !isTargets(op)) / at.tokens,
      targets: at.targets > 0 ? flops(isTargets) / at.targets : 0,
      pairs: flops(isPairs) / at.pairs,
    },
    stillBytes: bytes(still),
    bytesPerToken,
  };
}

/** Of the steps of one run. */
export class StepWork {
  readonly #rates: Rates;
  /** Bytes that each batch streams beside those of its tokens. */
  readonly #batchBytes: number;
  /**
   * @param dry the calls of a step over such batches, none at all included
   * @param typical batches of a step, at least one token in each
   * @param limits of the device that the steps run on
   */
  constructor(
    readonly config: ModelConfig,
    dry: (batches: readonly PackedBatch[]) => Calls,
    typical: readonly [PackedBatch, ...PackedBatch[]],
    readonly limits: Limits,
  ) {
    const bySize = [...typical].sort((a, b) => b.batch.tokens.length - a.batch.tokens.length) as [PackedBatch],
      most = bySize[0],
      least = bySize.at(-1) ?? most;
    const still = dry([]),
      calls = dry([most]),
      fewer = least === most ? calls : dry([least]);
    const at = extentOf(config, [most]);
    this.#rates = ratesOf(calls, fewer, still, at, extentOf(config, [least]));
    this.#batchBytes =
      sumOf(calls, (c) => c.cost.bytes) - this.#rates.stillBytes - this.#rates.bytesPerToken * at.tokens;
  }

  of(batches: readonly PackedBatch[]): Work {
    const { flops, stillBytes, bytesPerToken } = this.#rates,
      at = extentOf(this.config, batches);
    return {
      flops: flops.tokens * at.tokens + flops.targets * at.targets + flops.pairs * at.pairs,
      bytes: stillBytes + batches.length * this.#batchBytes + bytesPerToken * at.tokens,
    };
  }

  /** Of the larger of the two limits, arithmetic or bandwidth, whichever this work needs longer for. */
  percentOfLimit(batches: readonly PackedBatch[], seconds: number): number {
    const { flops, bytes } = this.of(batches),
      { gflops, gbPerSecond } = this.limits;
    return (100 * Math.max(flops / (gflops * 1e9), bytes / (gbPerSecond * 1e9))) / seconds;
  }
}
