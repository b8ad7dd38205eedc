// Tensors of a GPU that wait in host memory until the backward pass wants them. Both copies go on beside the ops: out
// while the layer computes that reads the tensor, back while the layer above it runs backward.

import { HOST, type Place } from '../native/backends.js';
import { arrive, evict, prefetch } from '../native/device.js';
import { Scope, type Tensor } from '../native/tensor.js';

export class Parked {
  readonly #scope = new Scope('activations', HOST);
  readonly #place: Place;
  readonly #host: Tensor;
  #ticket: number | null;
  #back: Tensor | null = null;

  /** @param from stays, and is not written, until `left` */
  constructor(from: Tensor) {
    this.#place = from.place;
    try {
      this.#host = this.#scope.empty(from.dtype, from.shape);
      this.#ticket = evict(this.#host, from);
    } catch (e) {
      this.#scope.close();
      throw e;
    }
  }
  /** Ops called from here on may write where it was. */
  left(): void {
    const ticket = this.#ticket;
    this.#ticket = null;
    if (ticket !== null) arrive(ticket);
  }
  /** Sets off back to the device. */
  fetch(): void {
    if (this.#back) return;
    this.left();
    this.#back = this.#scope.open('activations', this.#place).empty(this.#host.dtype, this.#host.shape);
    this.#ticket = prefetch(this.#back, this.#host);
  }
  /** On the device, when the next op runs. */
  here(): Tensor {
    this.fetch();
    this.left();
    return this.#back as Tensor;
  }
  close(): void {
    try {
      this.left();
    } finally {
      this.#scope.close();
    }
  }
}

/** Those of one pass: closed with it, also where it ends in an error. */
export class Parking implements Disposable {
  readonly #parked: Parked[] = [];
  park(from: Tensor): Parked {
    const parked = new Parked(from);
    this.#parked.push(parked);
    return parked;
  }
  [Symbol.dispose](): void {
    for (const parked of this.#parked) {
      try {
        parked.close();
      } catch {
        // A copy that failed beside a pass that failed: the pass says why.
      }
    }
  }
}
