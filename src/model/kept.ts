// What lasts from a layer's forward to its backward: its input always, and, where there is room, what the backward
// would otherwise compute once more. Kept is what was computed, in f32: no bit depends on the room.
import type { LayerAdapter, LoraPair, ModelAdapter, ModelWeights } from './types.js';

const trains = (layer: LayerAdapter): boolean =>
  Object.values(layer as Readonly<Record<string, LoraPair | undefined>>).some((pair) => pair?.dA || pair?.dB);
/** Below the lowest trained layer nothing needs a gradient. */
export function lowestTrained(model: ModelWeights, adapter: ModelAdapter | null): number {
  const trained = adapter ?? model.merged;
  return trained ? Math.max(0, trained.layers.findIndex(trains)) : 0;
}

/** From this many bytes of kept activations on, a trainer that is free to choose puts them on disk. */
export const OFFLOAD_FROM_BYTES = 2 ** 30;
/**
 * Bytes that grow with the tokens T of a batch and last from forward to backward in any case: the layers' inputs, the
 * down projections' rank-R products, one gradient.
 */
export function keptActivationBytes(model: ModelWeights, adapter: ModelAdapter | null, T: number): number {
  const { hidden_size: D, num_experts_per_tok: K } = model.config,
    from = lowestTrained(model, adapter);
  const ranks = (adapter?.layers ?? []).slice(from).reduce((sum, l) => sum + (l.down?.A.shape[1] ?? 0), 0);
  return 4 * T * ((model.layers.length - from + 2) * D + K * ranks);
}

/** Of how many layers, counted from the last, the backward finds what it needs instead of computing it once more. */
export interface Keep {
  /** q, k, v and their rotary, attention's output and log-sum-exp, the output projection. */
  readonly attention: number;
  /** The pre-activations of the routed experts. */
  readonly experts: number;
}
export const KEEP_NOTHING: Keep = { attention: 0, experts: 0 };

/** Bytes of each kind in layer i, for a batch of T tokens. */
function layerBytes(model: ModelWeights, adapter: ModelAdapter | null, i: number, T: number): Keep {
  const {
    num_attention_heads: H,
    num_key_value_heads: Hkv,
    head_dim: Dh,
    hidden_size: D,
    num_experts_per_tok: K,
    intermediate_size: F,
  } = model.config;
  const a = adapter?.layers[i];
  const ranks = (['q', 'k', 'v', 'o'] as const).reduce((sum, t) => sum + (a?.[t]?.A.rows ?? 0), 0);
  return {
    attention: 4 * T * (2 * H * Dh + 2 * Hkv * Dh + H + D + ranks),
    experts: 4 * T * K * (2 * F + (a?.gateUp?.A.shape[1] ?? 0)),
  };
}
/** Bytes that a batch of T tokens keeps so. */
export function keepBytes(model: ModelWeights, adapter: ModelAdapter | null, T: number, keep: Keep): number {
  const L = model.layers.length;
  let sum = 0;
  for (let i = 0; i < L; i++) {
    const { attention, experts } = layerBytes(model, adapter, i, T);
    sum += (i >= L - keep.attention ? attention : 0) + (i >= L - keep.experts ? experts : 0);
  }
  return sum;
}
/**
 * The most that a batch of T tokens keeps in so many bytes. Attention of all layers comes first: on an H200 a byte of
 * it saves one to two times what a byte of the experts does (bench/results/2026-11-27-h200.md).
 */
export function keepWithin(model: ModelWeights, adapter: ModelAdapter | null, T: number, bytes: number): Keep {
  const L = model.layers.length,
    most = L - lowestTrained(model, adapter);
  let left = bytes;
  const count = (kind: keyof Keep): number => {
    for (let n = 0; n < most; n++) {
      const needed = layerBytes(model, adapter, L - 1 - n, T)[kind];
      if (needed > left) return n;
      left -= needed;
    }
    return most;
  };
  const attention = count('attention');
  return { attention, experts: attention === most ? count('experts') : 0 };
}
