// Calls on their way to a thread. Those that come right after each other go over as one message: a thread that begins
// to compute for the first of them looks for the others when that is done, and does for each what it could do for all.
import type { CallMessage, OneToWorker, ToWorker } from './channel-protocol.js';

export interface OutboxOptions {
  /** Longest that a call waits for others, ms, and only while each turn of the event loop brings one more. */
  readonly ms: number;
  readonly post: (message: ToWorker, transfer: readonly ArrayBuffer[]) => void;
  /** A call that waited cannot be sent. */
  readonly failed: (call: CallMessage, error: unknown) => void;
  readonly clock?: () => number;
  /** Calls back in the next turn of the event loop, when it has taken what has come. */
  readonly nextTurn?: (then: () => void) => void;
}

export class Outbox {
  /** In their order. */
  #waiting: CallMessage[] = [];
  /** So many of them were there a turn ago. */
  #seen = 0;
  #since = 0;
  #looking = false;
  readonly #clock: () => number;
  readonly #nextTurn: (then: () => void) => void;

  constructor(readonly options: OutboxOptions) {
    this.#clock = options.clock ?? (() => performance.now());
    this.#nextTurn = options.nextTurn ?? setImmediate;
  }

  /** Sends a message, after those that wait. @throws what cannot be sent */
  send(message: OneToWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#flush();
    this.options.post(message, transfer);
  }
  /** Sends a call with others that come in the same turn of the event loop, or in the turns right after it. */
  gather(call: CallMessage): void {
    if (this.#waiting.length === 0) {
      this.#since = this.#clock();
      this.#seen = 0;
    }
    this.#waiting.push(call);
    if (this.#looking) return;
    this.#looking = true;
    this.#nextTurn(this.#look);
  }

  #look = (): void => {
    const more = this.#waiting.length > this.#seen;
    this.#looking = more && this.#clock() - this.#since < this.options.ms;
    this.#seen = this.#waiting.length;
    if (this.#looking) this.#nextTurn(this.#look);
    else this.#flush();
  };
  #flush(): void {
    const calls = this.#waiting;
    if (calls.length === 0) return;
    this.#waiting = [];
    try {
      this.options.post({ kind: 'calls', calls }, []);
    } catch {
      for (const call of calls) this.#sendAlone(call);
    }
  }
  /** One that cannot be sent takes no other with it. */
  #sendAlone(call: CallMessage): void {
    try {
      this.options.post(call, []);
    } catch (error) {
      this.options.failed(call, error);
    }
  }
}
