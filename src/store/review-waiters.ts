// Requests of this server that wait for people. A decision may come by any server: the row says it, and is looked at as
// long as somebody waits. Whether a request is released is decided by one change of that row, so that it happens once,
// and never after it was given up.
import type { Decision } from './review-types.js';
import type { Store } from './store.js';

interface Waiter {
  readonly until: number;
  settle(decision: Decision): void;
}
/** Ids asked for at once. */
const AT_ONCE = 200;

export class ReviewWaiters {
  readonly #waiting = new Map<string, Waiter>();
  /** Those that are being settled. */
  readonly #busy = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | null = null;
  #closed = false;
  constructor(
    readonly store: Store,
    readonly pollMs: number,
    readonly now: () => number,
    readonly fault: (e: unknown) => void,
  ) {}

  /** @param until ms since 1970; null: it does not wait */
  wait(id: string, until: number | null, signal?: AbortSignal): Promise<Decision> {
    if (until === null) return Promise.resolve('expired');
    return new Promise((settled) => {
      const stop = (): void => void this.#give(id);
      this.#waiting.set(id, {
        until,
        settle: (decision) => {
          signal?.removeEventListener('abort', stop);
          settled(decision);
        },
      });
      // Whoever comes after the end waits for nobody, and his row says so.
      if (signal?.aborted || this.#closed) stop();
      else signal?.addEventListener('abort', stop, { once: true });
      this.#timer ??= setInterval(() => this.look(), this.pollMs).unref();
      this.look();
    });
  }
  /** Looks now. */
  look(): void {
    this.#looking ??= this.#look()
      .catch(this.fault)
      .finally(() => {
        this.#looking = null;
      });
  }
  async #look(): Promise<void> {
    const late = [...this.#waiting].filter(([, w]) => w.until <= this.now()).map(([id]) => id);
    await Promise.all(late.map((id) => this.#give(id)));
    const ids = [...this.#waiting.keys()].filter((id) => !this.#busy.has(id));
    for (let at = 0; at < ids.length; at += AT_ONCE) {
      const some = ids.slice(at, at + AT_ONCE);
      const decided = await this.store.read((db) =>
        db
          .selectFrom('reviews')
          .select('id')
          .where('id', 'in', some)
          .where('state', 'in', ['approved', 'rejected'])
          .execute(),
      );
      await Promise.all(decided.map(({ id }) => this.#take(id)));
    }
  }
  /** Nobody waits any more, unless somebody has decided just before. */
  async #give(id: string): Promise<void> {
    await this.#settle(id, async () => {
      const given = await this.store.change((db) =>
        db
          .updateTable('reviews')
          .set({ waits: 0 })
          .where('id', '=', id)
          .where('state', 'in', ['held', 'escalated'])
          .executeTakeFirst(),
      );
      return given.numUpdatedRows > 0n ? 'expired' : this.#claim(id);
    });
  }
  async #take(id: string): Promise<void> {
    await this.#settle(id, () => this.#claim(id));
  }
  async #settle(id: string, work: () => Promise<Decision>): Promise<void> {
    const waiter = this.#waiting.get(id);
    if (!waiter || this.#busy.has(id)) return;
    this.#busy.add(id);
    let decision: Decision = 'expired'; // where the store fails nothing is released
    try {
      decision = await work();
    } catch (e) {
      this.fault(e);
    }
    this.#busy.delete(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    waiter.settle(decision);
  }
  /** What was decided; an approval is used up by whoever gets it. */
  #claim(id: string): Promise<Decision> {
    return this.store.change(async (db) => {
      const claimed = await db
        .updateTable('reviews')
        .set({ waits: 0 })
        .where('id', '=', id)
        .where('state', '=', 'approved')
        .where('waits', '=', 1)
        .executeTakeFirst();
      if (claimed.numUpdatedRows > 0n) return 'approved';
      const row = await db.selectFrom('reviews').select('state').where('id', '=', id).executeTakeFirst();
      return row?.state === 'rejected' ? 'rejected' : 'expired';
    });
  }
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#waiting.keys()].map((id) => this.#give(id)));
    clearInterval(this.#timer);
  }
}
