// The thread's end of a channel (channel.ts): an entry file calls `serve` with what it answers.
import { once } from 'node:events';
import { MessagePort, parentPort, workerData } from 'node:worker_threads';
import {
  type CallMessage,
  type Contract,
  type OneFromWorker,
  TAKEN,
  type ThreadData,
  TOLD,
  type ToWorker,
} from './channel-protocol.js';
import { errorToData } from './error-data.js';
import { type Gathering, Sender } from './gathering.js';
import { asTypedError } from './system-error.js';

/** What a handler gets beside its request. */
export interface Call<Event> {
  /** Aborts when the caller asks to stop. `aborted` and `throwIfAborted` see it in a loop without `await` too. */
  readonly signal: AbortSignal;
  /** @param now it is not gathered with later ones: who gets it acts on it */
  emit(event: Event, now?: boolean): void;
}
export type Handlers<C extends Contract> = {
  readonly [K in keyof C]: (
    request: C[K]['request'],
    call: Call<C[K]['event']>,
  ) => C[K]['result'] | Promise<C[K]['result']>;
};
export interface Served<C extends Contract, Info> {
  readonly info: Info;
  readonly handlers: Handlers<C>;
  /** For a thread that tells many callers something in each step. Default: a message for each thing that is told. */
  readonly gathers?: Gathering;
  close?(): void | Promise<void>;
}

const isAborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, 'aborted')?.get;

/** What a shared signal looks at. */
interface Shared {
  readonly stop: Int32Array;
  readonly abort: () => void;
}
const shared = new WeakMap<AbortSignal, Shared>();
function lookAt(signal: AbortSignal): boolean {
  const of = shared.get(signal);
  if (of && Atomics.load(of.stop, 0) !== 0) of.abort();
  return isAborted?.call(signal) === true;
}
/** What shared signals have in place of a signal's own; one for all of them, so that they are of one kind to V8. */
const SHARED = Object.create(AbortSignal.prototype, {
  aborted: {
    get(this: AbortSignal) {
      return lookAt(this);
    },
  },
  throwIfAborted: {
    value(this: AbortSignal) {
      if (lookAt(this)) throw this.reason;
    },
  },
}) as object;

/** A signal that looks at shared memory when it is asked: messages wait while native code runs. */
function sharedSignal(stop: Int32Array): { readonly signal: AbortSignal; readonly abort: () => void } {
  const controller = new AbortController();
  const { signal } = controller;
  const abort = (): void => controller.abort(new DOMException('stopped', 'AbortError'));
  shared.set(signal, { stop, abort });
  Object.setPrototypeOf(signal, SHARED);
  return { signal, abort };
}

/** What the thread is opened with; one that was begun before that was known is sent it. */
async function dataOf({ data }: ThreadData): Promise<unknown> {
  if (!(data instanceof MessagePort)) return data;
  const [late] = (await once(data, 'message')) as [unknown];
  return late;
}

/** Whoever opened a thread, as it sees it. */
export interface Caller {
  /** It was told something, and has not done yet what follows from it. */
  busy(): boolean;
}

/**
 * Opens what the thread serves and answers calls until it is closed.
 * @param open gets the data the thread was opened with; what it throws is thrown where the channel is opened. Import
 * native code inside, so that a missing addon arrives as an error too
 */
export async function serve<C extends Contract, Info, Data = unknown>(
  open: (data: Data, caller: Caller) => Served<C, Info> | Promise<Served<C, Info>>,
): Promise<void> {
  const port = parentPort;
  if (!port) throw new Error('this file is the entry of a thread; it is opened by openChannel()');
  const given = workerData as ThreadData,
    { told } = given;
  const out = new Sender((message) => {
    Atomics.add(told, TOLD, 1);
    try {
      port.postMessage(message);
    } catch (e) {
      Atomics.sub(told, TOLD, 1);
      throw e;
    }
  });
  const send = (message: OneFromWorker, now?: boolean): void => out.send(message, now);
  let served: Served<C, Info>;
  try {
    served = await open((await dataOf(given)) as Data, {
      busy: () => Atomics.load(told, TOLD) !== Atomics.load(told, TAKEN),
    });
  } catch (error) {
    send({ kind: 'error', id: -1, error: errorToData(asTypedError(error)) });
    return;
  }
  if (served.gathers) out.gather(served.gathers);
  const running = new Map<number, () => void>();
  const answer = async (message: CallMessage): Promise<void> => {
    const { id, name, request, stop } = message;
    const { signal, abort } = sharedSignal(stop);
    running.set(id, abort);
    try {
      const handler = served.handlers[name];
      if (!handler) throw new Error(`the thread has no call ${name}`);
      const value = await handler(request, {
        signal,
        emit: (event, now) => send({ kind: 'event', id, event }, now),
      });
      send({ kind: 'result', id, value });
    } catch (error) {
      send({ kind: 'error', id, error: errorToData(asTypedError(error)) });
    } finally {
      running.delete(id);
    }
  };
  port.on('message', (message: ToWorker) => {
    if (message.kind === 'call') void answer(message);
    else if (message.kind === 'calls') for (const call of message.calls) void answer(call);
    else if (message.kind === 'abort') running.get(message.id)?.();
    else
      void Promise.resolve(served.close?.())
        .catch(() => {}) // nothing is left that could be told
        .finally(() => process.exit(0));
  });
  send({ kind: 'result', id: -1, value: served.info });
}
