// What a thread tells its callers, in few messages: each costs both threads more than what is in it. What is told in
// one go is one message; where a step takes a fraction of a wait that nobody sees, events of several steps are.
import type { FromWorker, OneFromWorker } from './channel-protocol.js';

export interface Gathering {
  /** No event waits longer, ms, but for a step that takes longer than those before it. 0: none waits. */
  readonly ms: number;
  /** The same where more calls than so many are told at once: what each message costs counts most there. */
  readonly many?: { readonly calls: number; readonly ms: number };
  /** Two events of one call, one after the other, as one that says the same; null: they stay two. */
  join?(before: unknown, after: unknown): unknown;
}

/** Sends messages by `post`, or what of them comes within the time together. */
export class Sender {
  #gathering: Gathering | null = null;
  /** Events that wait, and the calls they are of. */
  #ids: number[] = [];
  #events: unknown[] = [];
  /** Results and errors; a call has no event after its own. */
  #rest: OneFromWorker[] = [];
  /** Calls that have had an event, with the place of the last one that waits; −1: none does. */
  readonly #calls = new Map<number, number>();
  /** It must leave with the end of this go. */
  #now = false;
  #looking = false;
  #sentAt = Number.NEGATIVE_INFINITY;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    readonly post: (message: FromWorker) => void,
    readonly clock: () => number = () => performance.now(),
  ) {}

  gather(gathering: Gathering): void {
    this.#gathering = gathering;
  }

  /**
   * The first event of a call, results and errors take along all that waits.
   * @param now so does this one
   */
  send(message: OneFromWorker, now = false): void {
    if (!this.#gathering) {
      this.post(message);
      return;
    }
    this.#now ||= now;
    if (message.kind === 'event') this.#event(message.id, message.event);
    else {
      this.#calls.delete(message.id);
      this.#rest.push(message);
      this.#now = true;
    }
    if (this.#looking) return;
    this.#looking = true;
    queueMicrotask(this.#look);
  }
  #event(id: number, event: unknown): void {
    const at = this.#calls.get(id);
    if (at !== undefined && at >= 0) {
      const joined = this.#gathering?.join?.(this.#events[at], event) ?? null;
      if (joined !== null) {
        this.#events[at] = joined;
        return;
      }
    }
    this.#now ||= at === undefined;
    this.#calls.set(id, this.#ids.length);
    this.#ids.push(id);
    this.#events.push(event);
  }

  /** What was told in one go is there: it leaves, or waits for the next step if that is likely to come in time. */
  #look = (): void => {
    this.#looking = false;
    const now = this.clock(),
      step = now - this.#lookedAt,
      left = this.#sentAt + this.#waitMs() - now;
    this.#lookedAt = now;
    if (this.#now || step > left) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), left);
  };
  #waitMs(): number {
    const { ms = 0, many } = this.#gathering ?? {};
    return many && this.#calls.size > many.calls ? many.ms : ms;
  }
  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#now = false;
    this.#sentAt = this.clock();
    const [ids, events, rest] = [this.#ids, this.#events, this.#rest];
    [this.#ids, this.#events, this.#rest] = [[], [], []];
    for (const id of ids) if (this.#calls.has(id)) this.#calls.set(id, -1);
    this.post({ kind: 'all', ids, events, rest });
  }
}
