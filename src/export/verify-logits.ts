// Logits of an export beside those of what was trained, every element, on held-out rows and on made-up ones.
import { setImmediate } from 'node:timers/promises';
import { epochOrder } from '../data/order.js';
import type { Applied } from '../lora/apply.js';
import { forwardHidden, logits } from '../model/gpt-oss.js';
import type { Batch, ModelAdapter, ModelWeights } from '../model/types.js';
import { Scope } from '../native/tensor.js';
import type { ExportSource, Reloaded } from './format.js';
import { heldOutRows } from './held-out.js';

/** Sequences of tokens of the whole vocabulary, and held-out rows beside them. */
const MADE_UP = 2;
const HELD_OUT = 4;
/** Tokens of a sequence at most: longer than a window, and short enough that its logits fit memory. */
const MOST_TOKENS = 256;

const batchOf = (tokens: Int32Array): Batch => ({
  tokens,
  positions: Int32Array.from({ length: tokens.length }, (_, i) => i),
  starts: Int32Array.of(0, tokens.length),
});

/** @param rows file of held-out rows in place of the run's own; where there are none, all are made up */
export async function probes(
  source: ExportSource,
  rows?: string,
  signal?: AbortSignal,
): Promise<readonly Int32Array[]> {
  const { vocab_size: V, sliding_window: window } = source.base.config;
  const length = Math.min(MOST_TOKENS, Math.max(32, (window ?? 128) + 32));
  const held = await heldOutRows(source, rows, HELD_OUT * 4 * MOST_TOKENS, signal);
  const examples = (held?.batches ?? []).flatMap((b) => b.examples).slice(0, HELD_OUT);
  const made = examples.length > 0 ? MADE_UP : MADE_UP + HELD_OUT;
  return [
    ...examples.map((e) => Int32Array.from(e.tokens.subarray(0, MOST_TOKENS))),
    ...Array.from({ length: made }, (_, r) => {
      const order = epochOrder(V, 20, r);
      return Int32Array.from({ length }, (_, i) => order[i % V] ?? 0);
    }),
  ];
}

/** f32 [T, V] of one sequence. */
export function logitsOf(model: ModelWeights, adapter: ModelAdapter | null, tokens: Int32Array): Float32Array {
  using scope = new Scope('activations');
  const hidden = forwardHidden(scope, model, adapter, batchOf(tokens), { precision: 'f32' });
  return logits(scope, model, hidden, 'f32').toFloat32();
}

export interface Comparison {
  readonly compared: number;
  /** Largest |difference| of any logit, and the largest |logit|. */
  readonly maxDifference: number;
  readonly maxLogit: number;
  /** How far the logits are from those of the base alone: 0 would mean that nothing was trained. */
  readonly maxEffect: number;
  /** The same two as root mean squares over all logits. */
  readonly rmsDifference: number;
  readonly rmsEffect: number;
}
/** Takes two sides, and what is between them and nothing, element by element. NaN counts as an infinite difference. */
export class Comparer {
  #compared = 0;
  #difference = 0;
  #logit = 0;
  #effect = 0;
  #squares = 0;
  #effectSquares = 0;
  add(got: Float32Array, want: Float32Array, bare: Float32Array | null = null): void {
    for (let i = 0; i < Math.max(got.length, want.length); i++) {
      const w = want[i] ?? Number.NaN;
      const d = Math.abs((got[i] ?? Number.NaN) - w);
      if (!(d <= this.#difference)) this.#difference = Number.isNaN(d) ? Infinity : d;
      this.#squares += d * d;
      this.#logit = Math.max(this.#logit, Math.abs(w));
      if (!bare) continue;
      const moved = Math.abs(w - (bare[i] ?? 0));
      this.#effect = Math.max(this.#effect, moved);
      this.#effectSquares += moved * moved;
    }
    this.#compared += want.length;
  }
  result(): Comparison {
    return {
      compared: this.#compared,
      maxDifference: this.#difference,
      maxLogit: this.#logit,
      maxEffect: this.#effect,
      rmsDifference: Math.sqrt(this.#squares / (this.#compared || 1)),
      rmsEffect: Math.sqrt(this.#effectSquares / (this.#compared || 1)),
    };
  }
}

/** Every logit of the probes: of the export, of what was trained, and of the base alone. */
export async function compareLogits(
  base: ModelWeights,
  exported: Reloaded,
  trained: Pick<Applied, 'model' | 'adapter'>,
  sequences: readonly Int32Array[],
  signal?: AbortSignal,
): Promise<Comparison> {
  const comparer = new Comparer();
  const effect = trained.adapter !== null || trained.model !== base;
  for (const tokens of sequences) {
    await setImmediate(); // lets messages in; native calls block this thread
    const run = (model: ModelWeights, adapter: ModelAdapter | null): Float32Array => {
      signal?.throwIfAborted();
      return logitsOf(model, adapter, tokens);
    };
    comparer.add(
      run(exported.model, exported.adapter),
      run(trained.model, trained.adapter),
      effect ? run(base, null) : null,
    );
  }
  return comparer.result();
}
