// How many threads compute a step. One of a small model is some hundred ops of microseconds, for which threads wait for
// each other longer than they save, and all of them are held up when one loses its core to something else. So both ways
// are tried, and measured times decide; no bit depends on it.
import { getThreads, useAtMost } from '../native/tensor.js';

export interface StepThreadsOptions {
  /** Threads that there are. */
  readonly all: () => number;
  /** So many at most work on what is called from now on. @returns how many it were */
  readonly use: (most: number) => number;
  readonly clock: () => number;
}

/** A step that takes longer is not tried with one thread, ms: its ops are large enough for all. */
const SHORT_MS = 4;
/** Steps of a trial whose median counts, as others on the machine hold up single ones. */
const COUNTED = 7;
/** Those before them: the threads that wait have to wake up. */
const UNCOUNTED = 2;
/** All threads are to save so much of what one takes, as each keeps a core from others. */
const WORTH = 0.1;
/** Steps after which the other way is tried again, and after which where it took so much longer. */
const AGAIN = 250;
const FAR = 1.5;
const MUCH_LATER = 4000;
/**
 * Steps after which a trial that spoke for the other way is repeated: two are to say so. What else runs at times, as
 * code that is compiled, requests that come, holds a core for longer than a trial takes.
 */
const SOON = 50;

const median = (of: readonly number[]): number => of.toSorted((a, b) => a - b)[of.length >> 1] as number;

/** Of steps of one kind. */
export class StepThreads {
  /** What is done until the next trial. */
  #alone = false;
  /** The other way is being tried. */
  #trying = false;
  /** The last trial spoke for the other way. */
  #doubted = false;
  /** Steps until the trial begins; of a trial, those that it still has. */
  #left = UNCOUNTED + COUNTED;
  /** Of the last steps, ms: before the trial, or in it. */
  #times: number[] = [];
  /** What steps took before the trial. */
  #before = 0;

  constructor(
    readonly options: StepThreadsOptions = { all: getThreads, use: useAtMost, clock: () => performance.now() },
  ) {}

  /** @param crowded a core has other work just now: a short step leaves it to that */
  run(launch: () => void, crowded: boolean): void {
    const { use, clock } = this.options,
      all = this.options.all();
    if (all === 1) {
      launch();
      return;
    }
    const wanted = this.#alone === this.#trying ? all : 1,
      threads = crowded && this.#isShort() ? Math.min(wanted, all - 1) : wanted,
      since = clock();
    if (threads === all) launch();
    else {
      const before = use(threads);
      try {
        launch();
      } finally {
        use(before);
      }
    }
    if (threads === wanted) this.#took(clock() - since);
  }
  #isShort(): boolean {
    return this.#alone || this.#trying || (this.#times.length === COUNTED && median(this.#times) <= SHORT_MS);
  }
  #took(ms: number): void {
    this.#times.push(ms);
    if (this.#times.length > COUNTED) this.#times.shift();
    if (--this.#left > 0) return;
    const took = median(this.#times);
    this.#times = [];
    if (!this.#trying) {
      this.#before = took;
      this.#trying = this.#alone || took <= SHORT_MS;
      this.#left = this.#trying ? UNCOUNTED + COUNTED : AGAIN;
      return;
    }
    const [all, alone] = this.#alone ? [took, this.#before] : [this.#before, took];
    this.#trying = false;
    if (all > alone * (1 - WORTH) === this.#alone) {
      this.#doubted = false;
      this.#left = took > FAR * this.#before ? MUCH_LATER : AGAIN;
      return;
    }
    if (this.#doubted) this.#alone = !this.#alone;
    this.#left = this.#doubted ? AGAIN : SOON;
    this.#doubted = !this.#doubted;
  }
}
