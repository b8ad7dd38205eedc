// An adapter in memory: every A and B is a view of one flat f32 tensor, so that the optimizer and the gradient norm are
// one call each.
import type { ModelConfig } from '../model/config.js';
import type { LayerAdapter, LoraPair, LoraTarget, ModelAdapter } from '../model/types.js';
import { ops } from '../native/ops.js';
import { type Place, Scope, type Tensor } from '../native/tensor.js';
import { type AdapterSpec, isAttentionTarget, isExpertTarget, LORA_TARGETS, loraScale, matrixShape } from './spec.js';

/** Views start on 64-byte lines; the gap between them stays 0 in parameters, gradients and moments. */
const ALIGN = 16;

export interface AdapterEntry {
  readonly layer: number;
  readonly target: LoraTarget;
  readonly part: 'A' | 'B';
  /** A [R, C] or [E, R, C]; B [N, R] or [E, N, R]. */
  readonly shape: readonly number[];
  /** First element in the flat tensor. */
  readonly offset: number;
}

export interface Adapter {
  readonly config: ModelConfig;
  readonly spec: AdapterSpec;
  readonly entries: readonly AdapterEntry[];
  readonly model: ModelAdapter;
  /** f32 [P], all A and B. */
  readonly params: Tensor;
  /** f32 [P], null when the adapter is only used. */
  readonly grads: Tensor | null;
  /** The view of one entry, in `entries`' order. */
  readonly tensors: readonly Tensor[];
  close(): void;
}

/** Where everything lies. @returns entries and the elements of the flat tensor */
export function adapterLayout(
  config: ModelConfig,
  spec: AdapterSpec,
): { readonly entries: readonly AdapterEntry[]; readonly numel: number } {
  const entries: AdapterEntry[] = [];
  let offset = 0;
  for (const [layer, targets] of spec.layers.entries()) {
    for (const target of LORA_TARGETS) {
      const t = targets[target];
      if (!t) continue;
      const { inputs, outputs } = matrixShape(config, target);
      const experts = isExpertTarget(target) ? [config.num_local_experts] : [];
      for (const [part, shape] of [
        ['A', [...experts, t.rank, inputs]],
        ['B', [...experts, outputs, t.rank]],
      ] as const) {
        entries.push({ layer, target, part, shape, offset });
        offset += Math.ceil(shape.reduce((a, b) => a * b, 1) / ALIGN) * ALIGN;
      }
    }
  }
  return { entries, numel: offset };
}

/** One seed per tensor: splitmix-like, kept under 2^53 so that it stays an exact integer. */
function tensorSeed(seed: number, layer: number, target: LoraTarget): number {
  let h =
    Math.imul(seed ^ 0x51ed270b, 0x9e3779b1) ^
    Math.imul(layer + 1, 0x85ebca6b) ^
    Math.imul(LORA_TARGETS.indexOf(target) + 1, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

export interface CreateOptions {
  readonly seed?: number;
  /** Makes room for gradients (default false). */
  readonly trainable?: boolean;
  /** false: leaves A and B at 0, for a reader that fills them (default true). */
  readonly initialise?: boolean;
  /** Where it lies: the place of the model it is for (default the host). */
  readonly place?: Place;
  /** Memory of its parameters that is another's: f32 [numel], a view in `scope`; its contents are left as they are. */
  readonly storage?: AdapterStorage;
}
export type AdapterStorage = (scope: Scope, numel: number) => Tensor;

/**
 * A uniform in ±1/√in (kaiming-uniform with a = √5, as PEFT draws it on the stacked matrix), B zero: a new adapter
 * changes nothing. The same seed gives the same bits.
 */
export function createAdapter(config: ModelConfig, spec: AdapterSpec, options: CreateOptions = {}): Adapter {
  const scope = new Scope('adapter', options.place);
  try {
    const { entries, numel } = adapterLayout(config, spec);
    const params = options.storage?.(scope, numel) ?? scope.zeros('f32', [numel]);
    const grads = options.trainable ? scope.zeros('f32', [numel]) : null;
    const tensors = entries.map((e) => params.view(scope, e.shape, e.offset));
    const gradViews = entries.map((e) => (grads ? grads.view(scope, e.shape, e.offset) : null));
    if (options.initialise !== false && !options.storage) {
      entries.forEach((e, i) => {
        if (e.part !== 'A') return;
        const bound = 1 / Math.sqrt(matrixShape(config, e.target).inputs);
        ops.random_uniform(tensors[i] as Tensor, tensorSeed(options.seed ?? 0, e.layer, e.target), -bound, bound);
      });
    }
    const layers: { -readonly [T in LoraTarget]?: LoraPair }[] = Array.from(
      { length: config.num_hidden_layers },
      () => ({}),
    );
    for (let i = 0; i < entries.length; i += 2) {
      const e = entries[i] as AdapterEntry;
      const t = spec.layers[e.layer]?.[e.target];
      const at = layers[e.layer];
      if (!t || !at) continue;
      at[e.target] = {
        A: tensors[i] as Tensor,
        B: tensors[i + 1] as Tensor,
        scale: loraScale(t, spec.rsLora),
        dropout: isAttentionTarget(e.target) ? spec.dropout : 0,
        dA: gradViews[i] ?? null,
        dB: gradViews[i + 1] ?? null,
      };
    }
    return {
      config,
      spec,
      entries,
      params,
      grads,
      tensors,
      model: { layers: layers as readonly LayerAdapter[] },
      close: () => scope.close(),
    };
  } catch (e) {
    scope.close();
    throw e;
  }
}
