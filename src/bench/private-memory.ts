// The process's private memory as the kernel counts it (RssAnon), sampled from a thread of its own: the work it watches
// blocks the caller's.
import { Worker } from 'node:worker_threads';
import { anonymousBytes, procField } from '../base/machine.js';

// A string, so that it runs the same from source as compiled. Slot 0: highest sample since the caller last wrote 0
// there; slot 1: samples. On Linux a priority is a thread's own: where it may, it goes before all others, or on a busy
// machine it would get no turn while memory is at its highest.
const SAMPLER = `
const { workerData } = require('node:worker_threads');
const { openSync, readSync } = require('node:fs');
const { setPriority } = require('node:os');
try {
  setPriority(-20);
} catch {} // not this user's to ask for
const out = new Float64Array(workerData), text = Buffer.alloc(8192), fd = openSync('/proc/self/status');
setInterval(() => {
  const read = text.toString('latin1', 0, readSync(fd, text, 0, text.length, 0));
  const bytes = Number(${String(procField('RssAnon'))}.exec(read)?.[1]) * 1024;
  if (bytes > out[0]) out[0] = bytes;
  out[1]++;
}, 5);`;

export class PrivateMemory implements Disposable {
  readonly #out = new Float64Array(new SharedArrayBuffer(16));
  readonly #worker: Worker | null;
  constructor() {
    this.#worker = Number.isNaN(anonymousBytes())
      ? null
      : new Worker(SAMPLER, {
          eval: true,
          workerData: this.#out.buffer,
          resourceLimits: { maxYoungGenerationSizeMb: 1 },
        });
    this.#worker?.unref();
    // Its own start-up is no part of what is measured.
    for (let i = 0; this.#worker && i < 200 && (this.#out[1] ?? 0) < 2; i++)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
  reset(): void {
    this.#out[0] = 0;
  }
  /** Highest figure since reset(), bytes; NaN where the system does not tell. */
  peak(): number {
    return this.#worker ? Math.max(this.#out[0] ?? 0, anonymousBytes()) : Number.NaN;
  }
  [Symbol.dispose](): void {
    void this.#worker?.terminate();
  }
}
