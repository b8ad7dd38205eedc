// The adapters of an engine, by name. They come and go while it runs: a request keeps the adapter that it began with
// until it ends, whatever the name stands for by then.
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { sha256, sha256File } from '../base/digest.js';
import { CheckpointError, ConfigError } from '../base/errors.js';
import { CONFIG_FILE, TENSOR_FILE } from '../lora/peft-names.js';
import { LoraPool, type Resident } from '../lora/pool.js';
import type { ModelConfig } from '../model/config.js';
import type { ModelAdapter } from '../model/types.js';
import { HOST } from '../native/backends.js';
import type { PRECISION } from '../native/ops.js';
import type { Place } from '../native/tensor.js';

export interface AdapterInfo {
  readonly name: string;
  readonly folder: string;
  /** sha256 over the names and digests of its configuration and its tensor file as they were loaded, hex. */
  readonly digest: string;
  /** Low-rank pairs that are applied. */
  readonly pairs: number;
  readonly bytes: number;
}
interface Held {
  readonly info: AdapterInfo;
  readonly resident: Resident;
  /** Requests under way, and one while it has its name. */
  uses: number;
}
/** A use of an adapter: it stays until `release`, which may be called again. */
export interface Lease {
  readonly adapter: Resident;
  release(): void;
}

export interface AdapterEvents {
  /** Before it is freed: nothing may know it any more. */
  readonly gone: (adapter: Resident) => void;
  /** Before tensors of those that stay are freed, as they move to others. */
  readonly moving: () => void;
}

export class Adapters implements Disposable {
  readonly #named = new Map<string, Held>();
  readonly #pool: LoraPool;
  /** Of all that are in the pool. */
  readonly #digests = new WeakMap<ModelAdapter, string>();
  /** Loading takes turns, so that the last of two loads of a name is the one that was asked for last. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    readonly config: ModelConfig,
    readonly place: Place,
    readonly events: AdapterEvents,
    /** Checkpoint folder of the model they are put on. */
    readonly base: string,
    readonly precision: keyof typeof PRECISION,
    /** Those that an attack has tuned are taken too. */
    readonly attackTuned = false,
  ) {
    // A GPU rounds them as it reads them.
    this.#pool = new LoraPool(config, place, events.moving, precision === 'bf16' && place === HOST);
  }

  list(): readonly AdapterInfo[] {
    return [...this.#named.values()].map((held) => held.info);
  }

  /**
   * Reads a PEFT folder under a name. From then on requests get it; one that had the name goes when its last request
   * ends. A load that fails or is given up changes nothing.
   * @throws {CheckpointError} as readPeft; file_changed: the files changed while they were read
   * @throws {IntegrityError} as checkAdapterBase · the signal's reason
   */
  load(name: string, folder: string, signal?: AbortSignal): Promise<AdapterInfo> {
    const done = this.#turn.then(() => this.#load(name, folder, signal));
    this.#turn = done.catch(() => undefined);
    return done;
  }
  async #load(name: string, folder: string, signal?: AbortSignal): Promise<AdapterInfo> {
    signal?.throwIfAborted();
    // An engine without adapters starts without what reads them.
    const [{ readPeftInPieces }, { checkAdapterBase }] = await Promise.all([
      import('../lora/peft.js'),
      import('../runs/adapter-base.js'),
    ]);
    const before = state(folder),
      digest = await digestAdapter(folder);
    const { place, attackTuned } = this;
    const resident = await withBreaks(
      this.#pool.adding((storage) => readPeftInPieces(folder, this.config, { place, storage, attackTuned })),
      signal,
    );
    try {
      // Rows of several adapters share one base, which a merge would change.
      if (resident.adapter.spec.mergeAware)
        throw new ConfigError(
          'adapter_unsupported',
          `${folder}: was trained merge-aware (${resident.adapter.spec.mergeAware}), so the model ` +
            'it makes is the base ' +
            'with it merged in and rounded, and not the base with it added: an engine takes it when ' +
            'it opens, as its only ' +
            'adapter',
          { folder },
        );
      await checkAdapterBase(folder, this.base);
      if (state(folder) !== before)
        throw new CheckpointError(
          'file_changed',
          `${folder}: changed while it was loaded; load it again when it is complete`,
          { file: folder },
        );
      signal?.throwIfAborted();
    } catch (e) {
      this.#free(resident);
      throw e;
    }
    const info: AdapterInfo = {
      name,
      folder,
      digest,
      pairs: resident.adapter.entries.length / 2,
      bytes: resident.bytes,
    };
    this.#digests.set(resident, digest);
    const old = this.#named.get(name);
    this.#named.set(name, { info, resident, uses: 1 });
    if (old) this.#drop(old);
    return info;
  }
  /** Of an adapter that requests may have; null: it is none of these. */
  digestOf(adapter: ModelAdapter): string | null {
    return this.#digests.get(adapter) ?? null;
  }
  /**
   * Takes the name away; requests under way go on with it, its memory goes with the last of them.
   * @throws {ConfigError} adapter_unknown
   */
  unload(name: string): void {
    const held = this.#held(name);
    this.#named.delete(name);
    this.#drop(held);
  }
  /** @throws {ConfigError} adapter_unknown */
  use(name: string): Lease {
    const held = this.#held(name);
    held.uses++;
    let open = true;
    return {
      adapter: held.resident,
      release: () => {
        if (open) this.#drop(held);
        open = false;
      },
    };
  }

  #held(name: string): Held {
    const held = this.#named.get(name);
    if (!held)
      throw new ConfigError(
        'adapter_unknown',
        `adapter ${name}: not loaded; there are ${[...this.#named.keys()].join(', ') || 'none'}`,
      );
    return held;
  }
  #drop(held: Held): void {
    if (--held.uses === 0) this.#free(held.resident);
  }
  #free(resident: Resident): void {
    this.#digests.delete(resident);
    this.events.gone(resident);
    this.#pool.remove(resident);
  }
  close(): void {
    this.#named.clear();
    this.#pool.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Longest that loading keeps running requests from their next step, ms. */
const BREAK_AFTER_MS = 20;
/** Runs work that stops in between, and gives way to others when it does. @throws the signal's reason */
async function withBreaks<T>(work: Generator<void, T>, signal: AbortSignal | undefined): Promise<T> {
  try {
    for (let since = performance.now(); ; ) {
      const piece = work.next();
      if (piece.done) return piece.value;
      signal?.throwIfAborted();
      if (performance.now() - since < BREAK_AFTER_MS) continue;
      await setImmediate();
      since = performance.now();
    }
  } finally {
    work.return(undefined as never); // where it was given up
  }
}

const FILES = [CONFIG_FILE, TENSOR_FILE] as const;
/** Sizes and times of the files; what cannot be read is for readPeft to say. */
function state(folder: string): string {
  return FILES.map((name) => {
    const s = statSync(join(folder, name), { bigint: true, throwIfNoEntry: false });
    return s ? `${s.ino}:${s.size}:${s.mtimeNs}` : '';
  }).join();
}
export async function digestAdapter(folder: string): Promise<string> {
  let text = '';
  for (const name of FILES)
    if (existsSync(join(folder, name))) text += `${name} ${await sha256File(join(folder, name))}\n`;
  return sha256(text);
}
