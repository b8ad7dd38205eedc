// A model with an adapter merged into its weights as a merged-mxfp4 export merges it: experts quantised to MXFP4 again,
// attention and router rounded to their own dtype. Training through it (adapter.mergeAware) makes the exported
// checkpoint the trained model. The base is not touched: what the merge makes lies in memory of its own, all layers
// where they are small, else one layer at a time, made again whenever another one was in between.
import { CheckpointError } from '../base/errors.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { isQ8 } from './gpt-oss.js';
import {
  type ExpertWeights,
  type LayerAdapter,
  type LayerWeights,
  type LinearWeights,
  type LoraPair,
  type ModelAdapter,
  type ModelWeights,
  placeOf,
} from './types.js';

/** Up to this many bytes of merged weights all layers are kept, and a step merges once. */
export const KEEP_MERGED_BYTES = 2 ** 28;

const LINEAR = ['q', 'k', 'v', 'o', 'router'] as const;
const EXPERTS = ['gateUp', 'down'] as const;
type Target = (typeof LINEAR)[number] | (typeof EXPERTS)[number];
const TARGETS: readonly Target[] = [...LINEAR, ...EXPERTS];

/**
 * y = round(w + scale·B·A), in y's dtype (f32 is not rounded). w, y wf [N,C]; A f32 [R,C], B f32 [N,R]. The same bits
 * on every backend and at every thread count.
 * @throws {NativeError} not_finite
 */
export function mergeLinear(y: Tensor, w: Tensor, pair: Pick<LoraPair, 'A' | 'B' | 'scale'>): void {
  using s = new Scope('workspace', y.place);
  const one = (t: Tensor): Tensor => t.view(s, [1, ...t.shape]);
  ops.lora_merge(one(y), one(w), null, one(pair.A), one(pair.B), pair.scale, 1, 1);
}
/**
 * Experts quantised again (op mxfp4_merge). blocks u8 [E,N,C/32,16], scales u8 [E,N,C/32]; A f32 [E,R,C], B f32
 * [E,N,R].
 * @param kept receives of each expert Σ ΔW'·ΔW and Σ ΔW², f32 [E,2]
 * @throws {NativeError} not_finite, bad_scale
 */
export function mergeExperts(
  to: { readonly w: Tensor; readonly scales: Tensor },
  base: { readonly w: Tensor; readonly scales: Tensor },
  pair: Pick<LoraPair, 'A' | 'B' | 'scale'>,
  kept: Tensor | null = null,
): void {
  ops.mxfp4_merge(to.w, to.scales, kept, base.w, base.scales, pair.A, pair.B, pair.scale);
}

export interface MergedModel extends ModelWeights {
  /** The base was trained further or its adapter changed: layers are merged again when next used. */
  refresh(): void;
  /** Merges all layers that are kept now, in place of when they are first used. */
  prepare(): void;
}

/** Whether an adapter can be merged into this base as MXFP4. */
export const holdsMxfp4 = (base: ModelWeights): boolean => {
  const [first] = base.layers;
  return first !== undefined && EXPERTS.every((t) => first[t].layout === 0);
};

interface Place {
  /** Layer and version that it holds. */
  layer: number;
  version: number;
  readonly to: Readonly<Partial<Record<Target, { readonly w: Tensor; readonly scales: Tensor | null }>>>;
}

/** Bytes that the merged matrices of a layer take. */
function layerBytes(w: LayerWeights, a: LayerAdapter): number {
  return TARGETS.reduce((sum, t) => sum + (a[t] ? w[t].w.bytes + (w[t].scales?.bytes ?? 0) : 0), 0);
}

/**
 * The model that `base` becomes with `adapter` merged in; `merged` of it names the adapter, so that a backward pass
 * adds to its dA and dB. Base and adapter stay the caller's; close() frees what the merge made.
 * @param keep all layers at once (default: where they take at most KEEP_MERGED_BYTES)
 * @throws {CheckpointError} not_mxfp4: the base's experts are no MXFP4
 */
export function mergedModel(
  base: ModelWeights,
  adapter: ModelAdapter,
  options: { readonly keep?: boolean } = {},
): MergedModel {
  if (!holdsMxfp4(base))
    throw new CheckpointError(
      'not_mxfp4',
      "the base's experts are not in MXFP4, which they would be merged into; take the released layout (_blocks and " +
        '_scales), or leave adapter.mergeAware out',
    );
  if (isQ8(base))
    throw new CheckpointError(
      'not_mxfp4',
      'attention and head of the base are in 8 bits, into which nothing is merged; open it without 8 bits (q8)',
    );
  const pairs = (i: number): LayerAdapter => adapter.layers[i] ?? {};
  const total = base.layers.reduce((sum, w, i) => sum + layerBytes(w, pairs(i)), 0);
  const scope = new Scope('weights', placeOf(base));
  let version = 1,
    closed = false;
  const room = (i: number, places: readonly LayerAdapter[]): Place => {
    const w = base.layers[i] as LayerWeights;
    const to: Partial<Record<Target, { w: Tensor; scales: Tensor | null }>> = {};
    for (const t of TARGETS) {
      if (!places.some((a) => a[t])) continue;
      const { w: from, scales = null } = w[t];
      to[t] = { w: scope.empty(from.dtype, from.shape), scales: scales && scope.empty(scales.dtype, scales.shape) };
    }
    return { layer: -1, version: 0, to };
  };
  const places: Place[] = [];
  try {
    // A stream brings the released experts whenever a layer is touched, so nothing is saved by keeping them.
    const keep = !base.streamsExperts && (options.keep ?? total <= KEEP_MERGED_BYTES);
    if (keep) base.layers.forEach((_, i) => void places.push(room(i, [pairs(i)])));
    else places.push(room(0, adapter.layers));
  } catch (e) {
    scope.close();
    throw e;
  }
  /** The place of layer i, merged. */
  const at = (i: number): Place => {
    const place = (places.length > 1 ? places[i] : places[0]) as Place;
    if (place.layer === i && place.version === version) return place;
    place.version = 0;
    const w = base.layers[i] as LayerWeights;
    w.verify?.();
    for (const t of TARGETS) {
      const pair = pairs(i)[t],
        to = place.to[t];
      if (!pair || !to) continue;
      const from = w[t];
      if (to.scales && from.scales)
        mergeExperts({ w: to.w, scales: to.scales }, { w: from.w, scales: from.scales }, pair);
      else mergeLinear(to.w, from.w, pair);
    }
    place.layer = i;
    place.version = version;
    return place;
  };
  const layers = base.layers.map((layer, i): LayerWeights => {
    const merged = (t: Target): LinearWeights | ExpertWeights => {
      const { w, scales } = at(i).to[t] ?? layer[t];
      return scales ? { ...layer[t], w, scales } : { ...layer[t], w };
    };
    return Object.defineProperties(
      { ...untouched(layer) },
      Object.fromEntries(
        TARGETS.map((t) => [t, { get: () => (pairs(i)[t] ? merged(t) : layer[t]), enumerable: true }] as const),
      ),
    ) as LayerWeights;
  });
  const { config, embed, norm, head, headScales, streamsExperts } = base;
  return {
    config,
    embed,
    norm,
    head,
    ...(headScales ? { headScales } : {}),
    ...(streamsExperts ? { streamsExperts } : {}),
    layers,
    merged: adapter,
    refresh: () => void version++,
    prepare: () => {
      if (places.length > 1) base.layers.forEach((_, i) => void at(i));
    },
    close() {
      if (closed) return;
      closed = true;
      scope.close();
    },
  };
}

/** What no adapter changes; the getters of a layer that is streamed are not called. */
function untouched(layer: LayerWeights): Omit<LayerWeights, Target> {
  const { inputNorm, sinks, postNorm, window } = layer;
  return { inputNorm, sinks, postNorm, window, ...(layer.verify ? { verify: layer.verify } : {}) };
}
