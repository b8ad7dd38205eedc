// The one way to work that has a thread of its own: calls go over by message, events and results come back, an
// AbortSignal stops them, errors stay the class they were. What computes or hashes runs behind it, so that no public
// call blocks its caller. channel-worker.ts is the other end.
import { setMaxListeners } from 'node:events';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { MessageChannel, MessagePort, Worker } from 'node:worker_threads';
import {
  type CallMessage,
  type Contract,
  type FromWorker,
  type OneFromWorker,
  type OneToWorker,
  TAKEN,
  type ThreadData,
} from './channel-protocol.js';
import { errorFromData } from './error-data.js';
import { NativeError } from './errors.js';
import { packageRoot } from './machine.js';
import { Outbox } from './outbox.js';
import { asTypedError } from './system-error.js';

export interface ChannelOptions {
  /** Of the thread, as in `temper-infer`. */
  readonly name: string;
  /** Ends the opening. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Memory for JavaScript objects that are young, MiB, a multiple of 3: collecting them stops the thread for as long as
   * looking through a third of it takes. Default: V8's, which throughput is best with.
   */
  readonly youngMiB?: number;
  /**
   * Streams that are asked for in turns of the event loop right after each other go over together, after so many ms at
   * the latest: the thread begins with all of them. Default: each at once.
   */
  readonly gatherMs?: number;
}
export interface CallOptions<Event> {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: Event) => void) | undefined;
  /** The call settles only when the work has: its result says how far it came. Default: an abort rejects at once. */
  readonly waits?: boolean;
  /** Memory of the request that goes over as it is, not as a copy: it is gone here. */
  readonly transfer?: readonly ArrayBuffer[];
}
/** The least that V8 has for young objects. */
export const LEAST_YOUNG_MIB = 3;

/** An open thread. Its calls run side by side as far as the other end lets them. */
export interface Channel<C extends Contract, Info> {
  /** What the thread said when it was ready. */
  readonly info: Info;
  /** @throws what the handler throws, the signal's reason, `AbortError` after close, {NativeError} worker_exit */
  call<K extends keyof C & string>(
    name: K,
    request: C[K]['request'],
    options?: CallOptions<C[K]['event']>,
  ): Promise<C[K]['result']>;
  /** Yields events and returns the result. Leaving the loop or aborting stops the work. */
  stream<K extends keyof C & string>(
    name: K,
    request: C[K]['request'],
    signal?: AbortSignal,
  ): AsyncGenerator<C[K]['event'], C[K]['result'], void>;
  /** Calls under way reject with `AbortError`. A second close does nothing. */
  close(): Promise<void>;
}

/** How long a thread may take to end by itself before it is ended. */
export const GRACE_MS = 5000;

/** Code of threads is compiled: from src/ (tests, tsx) as from dist/ it is taken from dist/. */
function workerFile(file: string): string {
  const path = resolve(packageRoot, 'dist', file);
  if (!existsSync(path)) throw new NativeError('worker_missing', `${path} is missing; run \`npm run build:ts\``);
  return path;
}
const abortError = (message: string): DOMException => new DOMException(message, 'AbortError');

/** A call under way, as it sees its messages. */
interface Pending {
  onEvent(event: unknown): void;
  onResult(value: unknown): void;
  onError(error: unknown): void;
}

/** The thread and who waits for what of it. */
class Connection {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #out: Outbox;
  readonly #told = new Int32Array(new SharedArrayBuffer(8));
  readonly exited: Promise<void>;
  readonly ready: Promise<unknown>;
  #nextId = 0;
  #closing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** @param data what it is opened with, or a port that this will come on */
  constructor(
    file: string,
    data: unknown,
    readonly name: string,
    { youngMiB, gatherMs = 0 }: Pick<ChannelOptions, 'youngMiB' | 'gatherMs'> = {},
  ) {
    this.#worker = new Worker(workerFile(file), {
      workerData: { data, told: this.#told } satisfies ThreadData,
      ...(data instanceof MessagePort ? { transferList: [data] } : {}),
      name: `temper-${name}`,
      ...(youngMiB === undefined ? {} : { resourceLimits: { maxYoungGenerationSizeMb: youngMiB } }),
    });
    this.#out = new Outbox({
      ms: gatherMs,
      post: (message, transfer) => this.#worker.postMessage(message, transfer),
      failed: ({ id }, error) => {
        this.#pending.get(id)?.onError(error);
        this.#pending.delete(id);
      },
    });
    this.ready = new Promise((resolve, reject) => {
      this.#pending.set(-1, { onEvent: () => {}, onResult: resolve, onError: reject });
    });
    const take = (m: OneFromWorker): void => {
      const pending = this.#pending.get(m.id);
      if (m.kind === 'event') pending?.onEvent(m.event);
      else {
        this.#pending.delete(m.id);
        if (m.kind === 'result') pending?.onResult(m.value);
        else pending?.onError(errorFromData(m.error));
      }
    };
    const taken = (): void => void Atomics.add(this.#told, TAKEN, 1);
    this.#worker.on('message', (m: FromWorker) => {
      // What follows from it has been done when the loop comes to that.
      setImmediate(taken);
      if (m.kind !== 'all') {
        take(m);
        return;
      }
      for (const [i, id] of m.ids.entries()) this.#pending.get(id)?.onEvent(m.events[i]);
      m.rest.forEach(take);
    });
    this.#worker.on('error', (error) => this.#fail(asTypedError(error)));
    this.exited = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#fail(
          new NativeError(
            'worker_exit',
            `the ${name} thread ended with code ${code} before it was done; out of memory is the usual cause; ` +
              'what it had written is whole',
            { code },
          ),
        );
        resolve();
      });
    });
  }

  #send(message: OneToWorker, transfer?: readonly ArrayBuffer[]): void {
    this.#out.send(message, transfer);
  }
  #fail(error: unknown): void {
    this.#failure ??= { error };
    for (const p of this.#pending.values()) p.onError(this.#failure.error);
    this.#pending.clear();
  }
  /** Whether the process goes on for it alone. */
  keep(wanted: boolean): void {
    if (wanted) this.#worker.ref();
    else this.#worker.unref();
  }

  /**
   * @param gathers it may go over with others
   * @returns how to stop the call, and how to forget it
   */
  start(
    name: string,
    request: unknown,
    pending: Pending,
    { transfer, gathers = false }: { readonly transfer?: readonly ArrayBuffer[]; readonly gathers?: boolean } = {},
  ): { readonly stop: () => void; readonly forget: () => void } {
    if (this.#closing) throw new NativeError('engine_closed', `the ${this.name} thread is closed; open another one`);
    if (this.#failure) throw this.#failure.error;
    const id = this.#nextId++;
    const stop = new Int32Array(new SharedArrayBuffer(4));
    this.#pending.set(id, pending);
    const message: CallMessage = { kind: 'call', id, name, request, stop };
    if (gathers && this.#out.options.ms > 0) this.#out.gather(message);
    else this.#send(message, transfer);
    return {
      stop: () => {
        Atomics.store(stop, 0, 1);
        this.#send({ kind: 'abort', id });
      },
      forget: () => this.#pending.delete(id),
    };
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#fail(abortError(`the ${this.name} thread was closed`));
      this.#send({ kind: 'close' });
      // A step that takes long must not hold up whoever closes.
      const timer = setTimeout(() => void this.terminate(), GRACE_MS);
      await this.exited;
      clearTimeout(timer);
    })();
    return this.#closing;
  }
  terminate(): Promise<number> {
    return this.#worker.terminate();
  }
}

/** Calls `onAbort` when the signal aborts, at once if it has. @returns how to listen no longer */
function listen(signal: AbortSignal | undefined, onAbort: (reason: unknown) => void): () => void {
  if (!signal) return () => {};
  const listener = (): void => onAbort(signal.reason);
  if (signal.aborted) listener();
  setMaxListeners(0, signal); // one for each call under way is no leak
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

/** A callback of the host that throws, or whose promise rejects, ends its call and not the process. */
function guard<E>(callback: ((event: E) => void) | undefined, fail: (error: unknown) => void): (event: E) => void {
  return (event) => {
    try {
      const answer: unknown = callback?.(event);
      if (answer instanceof Promise) answer.catch(fail);
    } catch (error) {
      fail(error);
    }
  };
}

function callOn<R, E>(
  connection: Connection,
  name: string,
  request: unknown,
  { signal, onEvent, waits = false, transfer }: CallOptions<E>,
): Promise<R> {
  return new Promise<R>((resolve, reject) => {
    if (!waits) signal?.throwIfAborted();
    let done = false;
    const settle = (end: () => void): void => {
      if (done) return;
      done = true;
      end();
      unlisten();
    };
    let thrown: { readonly error: unknown } | undefined;
    const fail = (error: unknown): void => {
      if (done || thrown) return;
      thrown = { error };
      call.stop();
      if (waits) return;
      call.forget();
      settle(() => reject(error));
    };
    const tell = guard(onEvent, fail);
    const pending = {
      onEvent: (event: unknown): void => {
        if (!thrown) tell(event as E);
      },
      onResult: (value: unknown): void => settle(() => (thrown ? reject(thrown.error) : resolve(value as R))),
      onError: (error: unknown): void => settle(() => reject(thrown ? thrown.error : error)),
    };
    const call = connection.start(name, request, pending, transfer ? { transfer } : {});
    const unlisten = listen(signal, (reason) => {
      call.stop();
      if (!waits) {
        call.forget();
        settle(() => reject(reason));
      }
    });
  });
}

async function* streamOn<R, E>(
  connection: Connection,
  name: string,
  request: unknown,
  signal: AbortSignal | undefined,
): AsyncGenerator<E, R, void> {
  signal?.throwIfAborted();
  const events: E[] = [];
  let end: { readonly value: R } | { readonly error: unknown } | undefined;
  let wake = (): void => {};
  const pending: Pending = {
    onEvent(event) {
      events.push(event as E);
      wake();
    },
    onResult(value) {
      end = { value: value as R };
      wake();
    },
    onError(error) {
      end ??= { error };
      wake();
    },
  };
  const call = connection.start(name, request, pending, { gathers: true });
  const unlisten = listen(signal, (error) => {
    end ??= { error };
    wake();
  });
  try {
    for (;;) {
      // What came before a failure still belongs to the caller, but for one that asked to stop.
      for (let event = events.shift(); event !== undefined && !signal?.aborted; event = events.shift()) yield event;
      if (end && 'error' in end) throw end.error;
      if (end) return end.value;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (events.length > 0 || end) resolve();
      });
    }
  } finally {
    unlisten();
    call.forget();
    if (!end || 'error' in end) call.stop();
  }
}

/** Threads that were begun before it was known what they are opened with, by their files. */
const begun = new Map<string, { readonly connection: Connection; readonly port: MessagePort }>();
/**
 * Starts a thread that `openChannel` of that file will open: it reads its code meanwhile. One that is never opened ends
 * with the process.
 * @throws {NativeError} worker_missing
 */
export function beginThread(file: string, { name, ...options }: ChannelOptions): void {
  const { port1: port, port2 } = new MessageChannel();
  const connection = new Connection(file, port2, name, options);
  connection.ready.catch(() => {}); // told where it is opened
  connection.keep(false);
  begun.set(file, { connection, port });
}
function connect(file: string, data: unknown, { name, ...options }: ChannelOptions): Connection {
  const before = begun.get(file);
  if (!before) return new Connection(file, data, name, options);
  begun.delete(file);
  const { connection, port } = before;
  try {
    port.postMessage(data);
  } catch (e) {
    void connection.terminate();
    throw e;
  }
  port.close();
  connection.keep(true);
  return connection;
}

/**
 * Starts a thread and waits until it is ready.
 * @param file compiled entry below dist/, as in `infer/worker.js`, or an absolute path
 * @param data what the other end opens with; goes over by structured clone
 * @throws what the other end refuses, the signal's reason, {NativeError} worker_missing, worker_exit
 */
export async function openChannel<C extends Contract, Info>(
  file: string,
  data: unknown,
  options: ChannelOptions,
): Promise<Channel<C, Info>> {
  const { signal } = options;
  signal?.throwIfAborted();
  const connection = connect(file, data, options);
  let unlisten = (): void => {};
  try {
    const aborted = new Promise<never>((_, reject) => {
      unlisten = listen(signal, reject);
    });
    const info = (await Promise.race([connection.ready, aborted])) as Info;
    return {
      info,
      call: (method, request, asked = {}) => callOn(connection, method, request, asked),
      stream: (method, request, stop) => streamOn(connection, method, request, stop),
      close: () => connection.close(),
    };
  } catch (error) {
    // Ready too late, the thread closes what it opened.
    void connection.close();
    throw error;
  } finally {
    unlisten();
  }
}

/**
 * One call in a thread of its own. When it settles, the thread has ended: nothing goes on behind the caller's back. An
 * abort is obeyed at the next safe point; after `graceMs` the thread is ended by force and no longer waited for
 * (Infinity: never).
 * @throws what the handler throws, the signal's reason when it was aborted
 */
export async function runInThread<C extends Contract, K extends keyof C & string>(
  file: string,
  name: K,
  request: C[K]['request'],
  options: CallOptions<C[K]['event']> & { readonly graceMs?: number } = {},
): Promise<C[K]['result']> {
  const { signal, onEvent, graceMs = GRACE_MS, waits = false } = options;
  if (!waits) signal?.throwIfAborted();
  const connection = new Connection(file, null, name);
  let timer: NodeJS.Timeout | undefined;
  let forced = false;
  // Stops for the caller's signal and for a callback that throws; the latter is what the call then rejects with.
  const stop = new AbortController();
  let thrown: { readonly error: unknown } | undefined;
  const guarded = guard(onEvent, (error) => {
    thrown ??= { error };
    stop.abort(error);
  });
  const unlink = listen(signal, (reason) => stop.abort(reason));
  let unlisten = (): void => {};
  const late = new Promise<never>((_, reject) => {
    unlisten = listen(stop.signal, (reason) => {
      if (graceMs === Infinity) return;
      timer = setTimeout(() => {
        forced = true;
        void connection.terminate(); // native code is let go only when it returns
        reject(reason);
      }, graceMs);
    });
  });
  const work = async (): Promise<C[K]['result']> => {
    await connection.ready;
    const call = { signal: stop.signal, onEvent: guarded, waits: true };
    return callOn<C[K]['result'], C[K]['event']>(connection, name, request, call);
  };
  try {
    const result = await Promise.race([work(), late]);
    if (thrown) throw thrown.error;
    if (!waits) signal?.throwIfAborted();
    return result;
  } catch (error) {
    if (thrown) throw thrown.error;
    if (!waits) signal?.throwIfAborted();
    throw error;
  } finally {
    unlink();
    unlisten();
    const closed = connection.close();
    if (!forced) await closed;
    clearTimeout(timer);
  }
}
