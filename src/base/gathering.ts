// What a thread tells its callers, in few messages: each costs both threads more than what is in it. What is told in
// one go is one message; where a step takes a fraction of a wait that nobody sees, events of several steps are.
import type { OneFromWorker } from './channel-protocol.js';

export interface Gathering {
  /** No event waits longer, ms, but for a step that takes longer than those before it. 0: none waits. */
  readonly ms: number;
  /** Two events of one call, one after the other, as one that says the same; null: they stay two. */
  join?(before: unknown, after: unknown): unknown;
}

/** Sends messages by `post`, or what of them comes within the time together. */
export class Sender {
  #gathering: Gathering | null = null;
  #waiting: OneFromWorker[] = [];
  /** Calls that have had an event, with the place of the last one that waits; −1: none does. */
  readonly #calls = new Map<number, number>();
  /** It must leave with the end of this go. */
  #now = false;
  #looking = false;
  #sentAt = Number.NEGATIVE_INFINITY;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    readonly post: (message: unknown) => void,
    readonly clock: () => number = () => performance.now(),
  ) {}

  gather(gathering: Gathering): void {
    this.#gathering = gathering;
  }

  /** The first event of a call, results and errors take along all that waits. */
  send(message: OneFromWorker): void {
    if (!this.#gathering) {
      this.post(message);
      return;
    }
    const { id } = message;
    if (message.kind !== 'event') {
      this.#calls.delete(id);
      this.#waiting.push(message);
      this.#now = true;
    } else if (!this.#joined(id, message.event)) {
      this.#now ||= !this.#calls.has(id);
      this.#calls.set(id, this.#waiting.push(message) - 1);
    }
    if (this.#looking) return;
    this.#looking = true;
    queueMicrotask(this.#look);
  }
  /** Whether it now is part of the event that waits. */
  #joined(id: number, event: unknown): boolean {
    const at = this.#calls.get(id) ?? -1;
    const before = at < 0 ? undefined : this.#waiting[at];
    if (before?.kind !== 'event') return false;
    const joined = this.#gathering?.join?.(before.event, event) ?? null;
    if (joined === null) return false;
    this.#waiting[at] = { kind: 'event', id, event: joined };
    return true;
  }

  /** What was told in one go is there: it leaves, or waits for the next step if that is likely to come in time. */
  #look = (): void => {
    this.#looking = false;
    const now = this.clock(),
      step = now - this.#lookedAt,
      left = this.#sentAt + (this.#gathering?.ms ?? 0) - now;
    this.#lookedAt = now;
    if (this.#now || step > left) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), left);
  };
  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#now = false;
    this.#sentAt = this.clock();
    const messages = this.#waiting;
    this.#waiting = [];
    for (const m of messages) if (m.kind === 'event' && this.#calls.has(m.id)) this.#calls.set(m.id, -1);
    this.post(messages.length === 1 ? messages[0] : { kind: 'all', messages });
  }
}
