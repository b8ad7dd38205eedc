// How whoever reads a stream lets it wait: while its brake is on the engine gives it no token. Shared memory, as a
// message would be read some tokens later.

export class Brake {
  /** One i32, 1: on. Goes to the engine with the request. */
  readonly cell = new Int32Array(new SharedArrayBuffer(4));

  set(on: boolean): void {
    if (on) Atomics.store(this.cell, 0, 1);
    else if (Atomics.exchange(this.cell, 0, 0) === 1) Atomics.notify(this.cell, 0);
  }
}

export const isOn = (cell: Int32Array): boolean => Atomics.load(cell, 0) === 1;

/** Waits for brakes to be let off, each once at a time. */
export class BrakeWatch {
  readonly #watched = new Set<Int32Array>();

  /** @param onOff told when one of these is off; before this returns, where one is already */
  watch(cells: readonly Int32Array[], onOff: () => void): void {
    for (const cell of cells) {
      if (this.#watched.has(cell)) continue;
      const { async, value } = Atomics.waitAsync(cell, 0, 1);
      if (!async) {
        onOff();
        continue;
      }
      this.#watched.add(cell);
      void value.then(() => {
        this.#watched.delete(cell);
        onOff();
      });
    }
  }
}
