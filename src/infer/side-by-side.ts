// Several engines of one small model, each in a thread that computes alone. A step of such a model is some hundred ops
// of microseconds, which a pool of threads spends more time on meeting than it saves: engines side by side make more of
// the same cores. A large model is read from memory once for all its streams, and stays one engine with the pool.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { HOST } from '../native/backends.js';
import { type Engine, openEngine } from './engine.js';
import type { EngineOptions } from './protocol.js';
import { BATCH_THREAD } from './thread.js';

/** What answers requests; nothing of one engine alone. */
export type Answering = Pick<Engine, 'info' | 'generate' | 'count' | 'digest' | 'close'>;
export interface SideBySide extends Answering {
  /** Sequences that run at once, of all together. */
  readonly slots: number;
}

/** Bytes of weights that stay in the caches of a core, more or less. */
const SMALL_BYTES = 32 * 2 ** 20;
/** Of all slots, for another engine. */
const LEAST_SLOTS = 4;
/** Those that an engine has, if there are so many at all: requests are not dealt evenly, and rows share a step. */
const ROOMY_SLOTS = 8;
/** Each has its code, heap and keys. */
const MOST_ENGINES = 8;
/**
 * Bytes of bytecode after which V8 compiles a function for good, four times as many as it would by itself. Each engine
 * compiles all code anew, on the cores that it computes on: of the first 500 texts that took a quarter.
 */
const HOT_BYTES = 500_000;

/** @returns 1 where it cannot be read: opening says why */
async function enginesFor(model: string, slots: number, threads: number): Promise<number> {
  const names = await readdir(model).catch(() => []);
  const sizes = await Promise.all(
    names.filter((name) => name.endsWith('.safetensors')).map(async (name) => (await stat(join(model, name))).size),
  ).catch(() => [Number.POSITIVE_INFINITY]);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  return bytes === 0 || bytes > SMALL_BYTES
    ? 1
    : Math.max(1, Math.min(threads, MOST_ENGINES, Math.floor(slots / LEAST_SLOTS)));
}

/**
 * Opens as many engines as a model's size, its slots and the CPU's threads make worth it, for requests that are many.
 * A request goes to the one that has the fewest; its tokens are the same in each.
 * @param options `slots`: sequences that run at once, of all together, at least
 * @throws as openEngine
 */
export async function openSideBySide(
  options: EngineOptions & { readonly slots: number },
  signal?: AbortSignal,
): Promise<SideBySide> {
  const { slots, threads = (await import('../native/tensor.js')).getThreads(), device = HOST } = options,
    n = device === HOST ? await enginesFor(options.model, slots, threads) : 1;
  if (n === 1) return { ...(await openEngine(options, signal)), slots };
  // Of the whole process.
  setFlagsFromString(`--interrupt-budget=${HOT_BYTES}`);
  const each = { ...options, slots: Math.max(Math.ceil(slots / n), Math.min(slots, ROOMY_SLOTS)), alone: true };
  const opened = await Promise.allSettled(Array.from({ length: n }, () => openEngine(each, signal, BATCH_THREAD)));
  const engines = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : [])),
    close = async (): Promise<void> => void (await Promise.all(engines.map((engine) => engine.close())));
  const failed = opened.find((one) => one.status === 'rejected');
  if (failed) {
    await close();
    throw failed.reason;
  }
  const first = engines[0] as Engine,
    underWay = new Map(engines.map((engine) => [engine, 0]));
  return {
    info: first.info,
    async *generate(request, stop) {
      const [engine, busy] = [...underWay].reduce((least, one) => (one[1] < least[1] ? one : least));
      underWay.set(engine, busy + 1);
      try {
        yield* engine.generate(request, stop);
      } finally {
        underWay.set(engine, (underWay.get(engine) ?? 1) - 1);
      }
    },
    count: (messages, stop) => first.count(messages, stop),
    digest: (stop) => first.digest(stop),
    close,
    slots: n * each.slots,
  };
}
