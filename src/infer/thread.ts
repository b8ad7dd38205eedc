// The thread of an engine.
import { beginThread, LEAST_YOUNG_MIB } from '../base/channel.js';

export const ENGINE_FILE = 'infer/worker.js';
/** Prompts that come together are read together: a pass over one that has begun holds up all that came after it. */
const GATHER_MS = 8;
/** A collection is then a fraction of a small model's step. */
export const ENGINE_THREAD = { name: 'infer', youngMiB: LEAST_YOUNG_MIB, gatherMs: GATHER_MS } as const;

/** Nobody waits for one step: V8 collects as throughput is best with. */
export const BATCH_THREAD = { name: 'infer' } as const;

/** The next engine that is opened finds its thread with the code read. */
export const beginEngine = (): void => beginThread(ENGINE_FILE, ENGINE_THREAD);
