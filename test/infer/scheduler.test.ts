// The policy over random loads, with a clock that counts what a step costs.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { admit, Company, type Job, prompts, readingMs, streams } from '../../src/infer/scheduler.js';

interface Load {
  readonly at: number;
  readonly prompt: number;
  readonly answer: number;
}
interface Run extends Job {
  readonly name: number;
  readonly load: Load;
  read: number;
  left: number;
}
interface Told {
  readonly name: number;
  /** Clock at each token. */
  readonly times: number[];
  begun: number;
}
const PIECE = 16,
  DECODE_COST = 5;

/** A step costs DECODE_COST if any stream runs, and 1 for each prompt token. */
function simulate(loads: readonly Load[], slots: number): readonly Told[] {
  const told = loads.map((_, name): Told => ({ name, times: [], begun: -1 }));
  const waiting: Run[] = [],
    running: Run[] = [];
  let clock = 0,
    next = 0;
  const token = (run: Run): void => {
    told[run.name]?.times.push(clock);
    if (--run.left === 0) running.splice(running.indexOf(run), 1);
  };
  while (next < loads.length || waiting.length + running.length > 0) {
    if (waiting.length + running.length === 0) clock = Math.max(clock, loads[next]?.at ?? 0);
    for (let load = loads[next]; load && load.at <= clock; load = loads[++next]) {
      const prompt = load.prompt;
      waiting.push({
        name: next,
        load,
        read: 0,
        left: load.answer,
        get decoding() {
          return this.read === prompt;
        },
        held: false,
        piece() {
          return Math.min(prompt - this.read, PIECE);
        },
      });
    }
    let free = slots - running.length;
    for (const run of admit(waiting, () => free-- > 0)) {
      const of = told[run.name];
      if (of) of.begun = clock;
      running.push(run);
    }
    const decode = streams(running, waiting);
    clock += decode.length > 0 ? DECODE_COST : 0;
    for (const run of decode) token(run);
    for (const [run] of prompts([...running], PIECE)) {
      if (!run) continue;
      const n = run.piece();
      clock += n;
      run.read += n;
      if (run.decoding) token(run);
    }
  }
  return told;
}

const load = fc.record({
  at: fc.integer({ min: 0, max: 300 }),
  prompt: fc.integer({ min: 1, max: 200 }),
  answer: fc.integer({ min: 1, max: 30 }),
});
const loads = fc.array(load, { minLength: 1, maxLength: 25 }).map((all) => all.toSorted((a, b) => a.at - b.at));

describe('the policy', () => {
  it('gives every stream its next token within one step: a pass and one budget of prompt tokens', () => {
    let widest = 0;
    fc.assert(
      fc.property(loads, fc.integer({ min: 1, max: 6 }), (all, slots) => {
        for (const [i, { times }] of simulate(all, slots).entries()) {
          expect(times).toHaveLength(all[i]?.answer ?? -1);
          for (let t = 1; t < times.length; t++) {
            const gap = (times[t] ?? 0) - (times[t - 1] ?? 0);
            widest = Math.max(widest, gap);
            // its token may come first in one step, last in the next
            expect(gap).toBeLessThanOrEqual(DECODE_COST + 2 * PIECE);
          }
        }
      }),
      { numRuns: 300, seed: 10 },
    );
    expect(widest).toBeGreaterThan(DECODE_COST + PIECE / 2); // there were prompts beside streams
  });

  it('is first come, first served: jobs begin and get their first token in the order of arrival', () => {
    fc.assert(
      fc.property(loads, fc.integer({ min: 1, max: 6 }), (all, slots) => {
        const told = simulate(all, slots);
        for (let i = 1; i < told.length; i++) {
          expect(told[i]?.begun).toBeGreaterThanOrEqual(told[i - 1]?.begun ?? 0);
          expect(told[i]?.times[0]).toBeGreaterThanOrEqual(told[i - 1]?.times[0] ?? 0);
        }
      }),
      { numRuns: 300, seed: 11 },
    );
  });

  it('fills a step with several short prompts, and stops at the first that no longer fits', () => {
    const jobs = [5, 6, 7, 1].map((n) => ({ n, decoding: false, held: false, piece: () => n }));
    const order: number[] = [];
    for (const [job] of prompts(jobs, 17)) {
      if (!job) continue;
      order.push(job.n);
      job.piece = () => 0;
    }
    expect(order).toEqual([5, 6]);
  });

  it('reads ends of prompts together that may be, in their order, as many as fit', () => {
    // Of the second a piece comes before its end, the fourth may not be read with others.
    const jobs = [[5], [9, 6], [4], [3], [2], [8], [30]].map((left) => ({
      left,
      decoding: false,
      held: false,
      piece: () => left[0] ?? 0,
    }));
    const ends = (job: (typeof jobs)[number]): boolean => job.left.length === 1 && job.left[0] !== 3;
    const groups: number[][] = [];
    for (const group of prompts(jobs, 40, (job) => ends(job))) {
      groups.push(group.map((job) => job.left.shift() ?? 0));
    }
    expect(groups).toEqual([[5], [9], [6, 4], [3], [2, 8]]);
  });

  it('lets nobody overtake one that waits for room', () => {
    const waiting = [3, 9, 1];
    let room = 5;
    const begin = (n: number): boolean => {
      if (n > room) return false;
      room -= n;
      return true;
    };
    expect(admit(waiting, begin)).toEqual([3]);
    expect(waiting).toEqual([9, 1]);
  });
});

it('streams wait half a step for one prompt, more for several, never three steps', () => {
  expect([0, 1, 2, 3, 4, 100].map((waiting) => readingMs(10, waiting))).toEqual([0, 5, 10, 15, 15, 15]);
});

describe('ends of prompts wait for company', () => {
  it('until there is enough for a pass, nobody comes any more, or four steps are over', () => {
    const company = new Company();
    const waits = (ends: readonly number[], comes = true): boolean => company.isAwaited(ends, 100, comes);
    expect([waits([40]), waits([40, 30]), waits([40, 30, 30])]).toEqual([true, true, false]);
    expect([waits([40]), waits([40], false)]).toEqual([true, false]);
    expect(Array.from({ length: 6 }, () => waits([40]))).toEqual([true, true, true, true, false, true]);
  });
  it('and none is held back where none stands ready', () => {
    expect(new Company().isAwaited([], 100, true)).toBe(false);
  });
});
