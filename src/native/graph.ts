// Device ops recorded once and run again with one launch. Tensors keep their addresses: what changes between runs is written into them before.
import { addon } from './addon.js';

export class Graph implements Disposable {
  #id: number;
  private constructor(id: number) { this.#id = id; }

  /**
   * Records the device ops that `run` calls; none of them runs. It may allocate and free tensors, but neither write nor read any, and must not wait for the device.
   * @throws {NativeError} graph_recording: it did; or what an op refuses
   */
  static record(run: () => void): Graph {
    addon.beginGraph();
    try { run(); } catch (e) {
      addon.endGraph(1);
      throw e;
    }
    return new Graph(addon.endGraph(0));
  }
  /** Queues all recorded ops; results are there after the next read. */
  launch(): void { addon.launchGraph(this.#id); }
  close(): void {
    if (this.#id) addon.freeGraph(this.#id);
    this.#id = 0;
  }
  [Symbol.dispose](): void { this.close(); }
}
