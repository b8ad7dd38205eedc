// The engine as the main thread sees it: a worker thread holds the model, requests go over by message and come back as
// streams. Nothing here computes, so a server or a progress bar beside it never stalls.
import { setMaxListeners } from 'node:events';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { errorFromData } from '../base/error-data.js';
import { NativeError } from '../base/errors.js';
import type { AdapterInfo } from './adapters.js';
import type {
  EngineEvent,
  EngineInfo,
  EngineOptions,
  FromWorker,
  GenerateRequest,
  ScoreRequest,
  ToWorker,
} from './protocol.js';

export interface Engine {
  readonly info: EngineInfo;
  /** Streams one turn; leaving the loop or aborting stops it. @throws typed errors, `AbortError` */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /** Element i: log p(tokens[i+1] | tokens[0…i]), nats; the trainer's bits, unless denseDtype is q8. */
  score(request: ScoreRequest): Promise<Float32Array>;
  /** sha256 over weights, config and tokenizer, hex; computed at the first call. */
  digest(): Promise<string>;
  /**
   * Reads a PEFT adapter folder. Requests that name it from now on get it; where the name is taken, those under way go
   * on with the adapter they began with. A load that fails changes nothing. @throws {CheckpointError} what reading
   * refuses
   */
  loadAdapter(name: string, folder: string): Promise<AdapterInfo>;
  /** Requests under way go on with it; its memory goes with the last. @throws {ConfigError} adapter_unknown */
  unloadAdapter(name: string): Promise<void>;
  adapters(): Promise<readonly AdapterInfo[]>;
  /** Ends running requests with `AbortError`. A second close does nothing. */
  close(): Promise<void>;
}

interface Pending {
  receive(message: FromWorker): void;
  fail(error: unknown): void;
}

/** Worker code is compiled: from src/ (tests, tsx) it is taken from dist/. */
function workerFile(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const found = [join(here, 'worker.js'), join(dirname(dirname(here)), 'dist', 'infer', 'worker.js')].find((path) =>
    existsSync(path),
  );
  if (!found) throw new NativeError('worker_missing', 'dist/infer/worker.js is missing; run `npm run build:ts`');
  return found;
}
const abortError = (message: string): DOMException => new DOMException(message, 'AbortError');

/**
 * Loads a model in its own thread.
 * @throws {CheckpointError} {ConfigError} what loading refuses
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const worker = new Worker(workerFile(), { workerData: options, name: 'temper-infer' });
  const pending = new Map<number, Pending>();
  let nextId = 0;
  let closing: Promise<void> | undefined;
  let fatal: unknown;
  const send = (message: ToWorker): void => worker.postMessage(message);
  const failAll = (error: unknown): void => {
    fatal ??= error;
    for (const p of pending.values()) p.fail(error);
    pending.clear();
  };
  const exited = new Promise<void>((resolve) => {
    worker.once('exit', (code) => {
      failAll(
        closing
          ? abortError('the engine was closed')
          : new NativeError(
              'worker_exit',
              `the inference thread ended with code ${code}; out of memory is the usual cause`,
            ),
      );
      resolve();
    });
  });
  worker.on('error', (error) => failAll(error));

  const info = await new Promise<EngineInfo>((resolve, reject) => {
    pending.set(-1, {
      receive: (m) => {
        if (m.kind === 'ready') resolve(m.info);
        else if (m.kind === 'error') reject(errorFromData(m.error));
      },
      fail: reject,
    });
    worker.on('message', (message: FromWorker) => {
      const id = message.kind === 'ready' ? -1 : message.id;
      pending.get(id)?.receive(message);
    });
  }).catch(async (error: unknown) => {
    await worker.terminate();
    throw error;
  });
  pending.delete(-1);

  const open = (): void => {
    if (closing) throw new NativeError('engine_closed', 'the engine is closed; open another one');
    if (fatal) throw fatal;
  };

  async function* generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent> {
    signal?.throwIfAborted();
    open();
    const id = nextId++;
    const queue: EngineEvent[] = [];
    let failure: { readonly error: unknown } | undefined;
    let wake: (() => void) | undefined;
    const notify = (): void => {
      wake?.();
      wake = undefined;
    };
    const fail = (error: unknown): void => {
      failure ??= { error };
      notify();
    };
    const onAbort = (): void => {
      fail(signal?.reason ?? abortError('stopped'));
    };
    if (signal) {
      setMaxListeners(0, signal); // one for each request under way is no leak
      signal.addEventListener('abort', onAbort, { once: true });
    }
    pending.set(id, {
      receive(m) {
        if (m.kind === 'event') {
          queue.push(m.event);
          notify();
        } else if (m.kind === 'error') fail(errorFromData(m.error));
      },
      fail,
    });
    let done = false;
    try {
      send({ kind: 'generate', id, request });
      for (;;) {
        // Text that came before a failure still belongs to the caller.
        for (let event = queue.shift(); event; event = queue.shift()) {
          if (event.kind === 'done') done = true;
          yield event;
          if (done) return;
          if (signal?.aborted) break;
        }
        if (failure) throw failure.error;
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (queue.length > 0 || failure) notify();
        });
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      pending.delete(id);
      if (!done && !closing) send({ kind: 'cancel', id });
    }
  }

  function ask<T>(message: (id: number) => ToWorker): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      open();
      const id = nextId++;
      const settle = (): void => {
        pending.delete(id);
      };
      pending.set(id, {
        receive: (m) => {
          settle();
          if (m.kind === 'result') resolve(m.value as T);
          else if (m.kind === 'error') reject(errorFromData(m.error));
        },
        fail: (error) => {
          settle();
          reject(error);
        },
      });
      send(message(id));
    });
  }
  let digest: Promise<string> | undefined;

  return {
    info,
    generate,
    score: (request) => ask<Float32Array>((id) => ({ kind: 'score', id, request })),
    loadAdapter: (name, folder) => ask<AdapterInfo>((id) => ({ kind: 'load', id, name, folder })),
    unloadAdapter: (name) => ask<void>((id) => ({ kind: 'unload', id, name })),
    adapters: () => ask<readonly AdapterInfo[]>((id) => ({ kind: 'adapters', id })),
    digest: () => (digest ??= ask<string>((id) => ({ kind: 'digest', id }))),
    close() {
      closing ??= (async () => {
        send({ kind: 'close' });
        // A step that takes long must not hold up whoever closes.
        const timer = setTimeout(() => void worker.terminate(), 5000);
        await exited;
        clearTimeout(timer);
      })();
      return closing;
    },
  };
}
