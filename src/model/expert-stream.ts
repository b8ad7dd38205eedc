// Experts of a model that does not fit its GPU: they stay where the file maps them and come to the device layer by
// layer. Two layers are there at a time: the one that computes and the one that comes next, whose upload goes on
// meanwhile. A pass over many tokens hides it; decoding one token cannot.
import { arrive, prefetch } from '../native/device.js';
import { type Place as DevicePlace, Scope, type Tensor } from '../native/tensor.js';
import type { ExpertWeights } from './types.js';

/** The experts of one layer. */
export interface LayerExperts {
  readonly gateUp: ExpertWeights;
  readonly down: ExpertWeights;
}
/** What of an expert matrix is large: biases are on the device anyway. */
const LARGE = ['w', 'scales'] as const;
const MATRICES = ['gateUp', 'down'] as const;

interface Place {
  layer: number;
  readonly on: LayerExperts;
  tickets: number[];
}

export class ExpertStream implements Disposable {
  readonly #scope: Scope;
  readonly #places: Place[] = [];
  #current = -1;

  /**
   * @param host experts per layer, w and scales on the host, all layers of one shape
   * @param place where they are used
   */
  constructor(
    readonly host: readonly LayerExperts[],
    place: DevicePlace,
  ) {
    this.#scope = new Scope('weights', place);
    const [first] = host;
    if (!first) return;
    const room = (m: ExpertWeights): ExpertWeights => ({
      ...m,
      w: this.#scope.empty(m.w.dtype, m.w.shape),
      scales: m.scales && this.#scope.empty(m.scales.dtype, m.scales.shape),
    });
    try {
      for (let i = 0; i < Math.min(2, host.length); i++)
        this.#places.push({ layer: -1, on: { gateUp: room(first.gateUp), down: room(first.down) }, tickets: [] });
    } catch (e) {
      this.close();
      throw e;
    }
  }

  /** Bytes of a layer that cross the bus for each use. */
  get layerBytes(): number {
    return MATRICES.reduce(
      (sum, m) => sum + LARGE.reduce((n, part) => n + (this.host[0]?.[m][part]?.bytes ?? 0), 0),
      0,
    );
  }

  /**
   * The experts of layer `i`, on the device when the next op runs. The layer after it, in the direction of travel, sets
   * off.
   */
  of(i: number): LayerExperts {
    if (i !== this.#current) {
      const step = this.#current < 0 || i > this.#current ? 1 : -1;
      const here = this.#find(i) ?? this.#fetch(i);
      for (const ticket of here.tickets.splice(0)) arrive(ticket);
      this.#current = i;
      const next = i + step;
      if (next >= 0 && next < this.host.length && !this.#find(next)) this.#fetch(next);
    }
    const here = this.#find(i) ?? this.#fetch(i),
      host = this.host[i];
    // Biases belong to the layer, not to the place.
    return {
      gateUp: { ...here.on.gateUp, bias: host?.gateUp.bias ?? null },
      down: { ...here.on.down, bias: host?.down.bias ?? null },
    } as LayerExperts;
  }
  #find(layer: number): Place | undefined {
    return this.#places.find((p) => p.layer === layer);
  }
  /** Into the place that the current layer does not hold. */
  #fetch(layer: number): Place {
    const place = this.#places.find((p) => p.layer !== this.#current) ?? (this.#places[0] as Place);
    for (const ticket of place.tickets.splice(0)) arrive(ticket);
    const host = this.host[layer] as LayerExperts;
    place.layer = layer;
    for (const matrix of MATRICES)
      for (const part of LARGE) {
        const to: Tensor | null = place.on[matrix][part],
          from: Tensor | null = host[matrix][part];
        if (to && from) place.tickets.push(prefetch(to, from));
      }
    return place;
  }

  close(): void {
    for (const place of this.#places.splice(0)) for (const ticket of place.tickets) arrive(ticket);
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
