// Responses that are made while nobody waits: asked for again by id, watched from any event on, cancelled.
import { ApiError, asApiError, badRequest } from './api-error.js';
import type { ResponseEvent } from './responses-response.js';
import { fields, type Turn } from './responses-turn.js';

/** Those that are under way. */
const MOST_RUNNING = 64;
/** Those that ended, and can still be watched from the beginning. */
const MOST_ENDED = 16;
/** Events of one that are remembered; of a longer one the first ones go. */
const MOST_EVENTS = 20_000;

/** What is told of a response before its end. */
const UNFINISHED = { completed_at: null, error: null, incomplete_details: null, usage: null };

export class Job {
  readonly #stop = new AbortController();
  readonly #events: ResponseEvent[] = [];
  /** Events before the first that is remembered. */
  #gone = 0;
  #over = false;
  readonly #leave: () => void;
  #told: () => void = () => {};
  #more: Promise<void> = Promise.resolve();
  /** It is known to the next server too, should this one die; else it was not promised. */
  readonly kept: Promise<void>;
  readonly done: Promise<void>;

  /** @throws {ApiError} 429, 503 */
  constructor(readonly turn: Turn) {
    this.#leave = turn.apply(this.#stop.signal);
    this.#renew();
    for (const event of turn.writer.queued()) this.#push(event);
    this.kept = turn.keepAs();
    this.kept.catch(() => {}); // told where it is waited for
    this.done = this.#run(this.kept);
  }
  get over(): boolean {
    return this.#over;
  }
  /** As it stands: what is written is shown when it is whole. */
  get response(): Record<string, unknown> {
    const { response } = this.turn.writer;
    if (this.#over) return response;
    // Made, and not kept yet, it is not there for the next request.
    const open = response.status === 'queued' ? {} : { ...UNFINISHED, status: 'in_progress' };
    return { ...response, ...open, output: [] };
  }

  #renew(): void {
    this.#more = new Promise((tell) => {
      this.#told = tell;
    });
  }
  #push(event: ResponseEvent): void {
    this.#events.push(event);
    if (this.#events.length > MOST_EVENTS) this.#gone += this.#events.splice(0, MOST_EVENTS / 2).length;
    const told = this.#told;
    this.#renew();
    told();
  }
  async #run(kept: Promise<void>): Promise<void> {
    const { turn } = this;
    const { signal } = this.#stop;
    try {
      await kept;
      for await (const event of turn.events(signal)) this.#push(event);
    } catch (e) {
      const { writer, service } = turn;
      const last = signal.aborted ? writer.cancelled() : writer.failed(asApiError(e, service.log, fields).message);
      await turn.keepAs().catch(service.log);
      this.#push(last);
    } finally {
      this.#leave();
      this.#over = true;
      this.#told();
    }
  }
  /** It ends soon; where it has ended nothing changes. */
  async cancel(): Promise<void> {
    this.#stop.abort(new DOMException('the response was cancelled', 'AbortError'));
    await this.done;
  }

  /** Events after that one, and those to come. @throws {ApiError} 400 where they are not remembered */
  async *events(after: number): AsyncGenerator<ResponseEvent, void, void> {
    for (let next = after + 1; ; ) {
      if (next < this.#gone)
        throw badRequest('invalid_value', `starting_after: wanted at least ${this.#gone - 1}`, 'starting_after');
      const event = this.#events[next - this.#gone];
      if (event) {
        next++;
        yield event;
      } else if (this.#over) return;
      else await this.#more;
    }
  }
}

export class Jobs {
  readonly #jobs = new Map<string, Job>();

  /** @throws {ApiError} 429, 503 */
  start(turn: Turn): Job {
    const ended = [...this.#jobs].filter(([, job]) => job.over);
    for (const [id] of ended.slice(0, Math.max(0, ended.length - MOST_ENDED))) this.#jobs.delete(id);
    if (this.#jobs.size - Math.min(ended.length, MOST_ENDED) >= MOST_RUNNING)
      throw new ApiError(
        429,
        'rate_limit_error',
        'queue_full',
        'too many responses are made in the background',
        null,
        5,
      );
    const job = new Job(turn);
    this.#jobs.set(turn.writer.id, job);
    return job;
  }
  /** null: none that runs, or ended lately, or another key's */
  find(id: string, owner: string | null): Job | null {
    const job = this.#jobs.get(id);
    return job?.turn.owner === owner ? job : null;
  }
  /** It ends, and is kept nowhere. */
  async forget(id: string, owner: string | null): Promise<boolean> {
    const job = this.find(id, owner);
    if (!job) return false;
    job.turn.forgotten = true;
    this.#jobs.delete(id);
    await job.cancel();
    return true;
  }
}
