// What of a batch, and of AdamW, lies where while a learner is trained. It is a matter of memory and time: no choice
// here changes a bit.
import type { LossOptions } from '../model/gpt-oss.js';
import { KEEP_NOTHING, type Keep, keepWithin, keptActivationBytes, OFFLOAD_FROM_BYTES } from '../model/kept.js';
import { type ModelAdapter, type ModelWeights, placeOf } from '../model/types.js';
import { backendOf, HOST } from '../native/backends.js';
import type { Place, Tensor } from '../native/tensor.js';
import type { Recipe } from '../recipe/schema.js';

/** What a recipe says of it; absent: auto. */
export type MemoryModes = Pick<Recipe['train'], 'offloadActivations' | 'offloadOptimizer' | 'recompute'>;
export type RecomputeMode = NonNullable<MemoryModes['recompute']>;

export interface MemoryUse {
  /** The moments of AdamW lie in host memory. */
  readonly hostMoments: boolean;
  /** Bytes of a batch's layer inputs from which on they go elsewhere: to disk, from a GPU into host memory. */
  readonly offloadFrom: number;
  /** Bytes of a batch that may stay from its forward pass to its backward in place of being computed again. */
  readonly keepBytes: number;
  /** Tokens of the largest batch that this was decided for: a larger one keeps nothing. */
  readonly tokens: number;
}

/** The ways that a recipe leaves open, the one that takes most of the device's memory first; nothing is kept yet. */
export function usesOf(modes: MemoryModes, place: Place): readonly MemoryUse[] {
  const base = { keepBytes: 0, tokens: 0 };
  const { offloadActivations: activations = 'auto', offloadOptimizer: optimizer = 'auto' } = modes;
  const auto = backendOf(place).ownMemory ? [Infinity, 0] : [OFFLOAD_FROM_BYTES];
  const offloads = activations === 'auto' ? auto : [activations === 'always' ? 0 : Infinity];
  const moments = !backendOf(place).ownMemory
    ? [false]
    : optimizer === 'auto'
      ? [false, true]
      : [optimizer === 'always'];
  // Layer inputs leave first: they cross the bus once each way, parameters and gradients three times, and the CPU adds.
  return moments.flatMap((hostMoments) => offloads.map((offloadFrom) => ({ ...base, hostMoments, offloadFrom })));
}

/** Of one learner. Until `settle` it is the first of usesOf. */
export class LearnerMemory {
  #use: MemoryUse;
  constructor(
    readonly model: ModelWeights,
    readonly adapter: ModelAdapter | null,
    readonly params: Tensor,
    modes: MemoryModes,
  ) {
    const [first] = usesOf(modes, placeOf(model));
    if (!first) throw new RangeError('usesOf gave none');
    this.#use = first;
  }
  /** Before the first step. */
  settle(use: MemoryUse): void {
    this.#use = use;
  }
  /** After memory ran out. False: nothing was kept. */
  keepLess(): boolean {
    const kept = this.#use.keepBytes > 0;
    this.#use = { ...this.#use, keepBytes: 0 };
    return kept;
  }
  get use(): MemoryUse {
    return this.#use;
  }
  /** Where the moments of AdamW are to lie. */
  get momentsPlace(): Place {
    return this.#use.hostMoments ? HOST : this.params.place;
  }
  /** Bytes that a batch of this many tokens puts elsewhere: on disk, from a GPU into host memory; 0: none. */
  offloadBytes(tokens: number): number {
    const bytes = keptActivationBytes(this.model, this.adapter, tokens);
    return bytes >= this.#use.offloadFrom ? bytes : 0;
  }
  /** What a batch of this many tokens keeps. */
  keep(tokens: number): Keep {
    const { keepBytes, tokens: most } = this.#use;
    const larger = tokens > most && Number.isFinite(keepBytes);
    return larger ? KEEP_NOTHING : keepWithin(this.model, this.adapter, tokens, keepBytes);
  }
  /** @param folder on whose disk activations may go; it need not be there before the first batch */
  of(tokens: number, folder: string): Pick<LossOptions, 'offload' | 'keep'> {
    return { offload: this.offloadBytes(tokens) > 0 ? folder : null, keep: this.keep(tokens) };
  }
}
