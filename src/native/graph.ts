// Ops recorded once and run again with one launch. Tensors keep their addresses: what changes between runs is written
// into them before.
import { addon } from './addon.js';
import { type Place, placeNumber } from './backends.js';

export class Graph implements Disposable {
  #id: number;
  private constructor(id: number) {
    this.#id = id;
  }

  /**
   * Records the ops on tensors of `place` that `run` calls; none of them runs. It may allocate and free tensors, but
   * neither write nor read any, and must not wait for the device. What it allocates stays until the graph closes.
   * @param shared on the host: a graph whose memory this one uses too; what one leaves there the other overwrites
   * @throws {NativeError} graph_recording: it did; or what an op refuses
   */
  static record(run: () => void, place: Place, shared: Graph | null = null): Graph {
    addon.beginGraph(placeNumber(place), shared ? shared.#id : 0);
    try {
      run();
    } catch (e) {
      addon.endGraph(1);
      throw e;
    }
    return new Graph(addon.endGraph(0));
  }
  /**
   * Runs all recorded ops; on a device they are queued, results are there after the next read.
   * @throws {NativeError} stale_tensor: a tensor from outside was freed (on the host; on a device it must not be); or
   * what an op throws
   * @throws {CheckpointError} file_changed
   */
  launch(): void {
    addon.launchGraph(this.#id);
  }
  close(): void {
    if (this.#id) addon.freeGraph(this.#id);
    this.#id = 0;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
