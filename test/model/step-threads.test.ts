// How many threads compute a step: what is faster, tried again now and then; with a clock of its own.
import { describe, expect, it } from 'vitest';
import { StepThreads } from '../../src/model/step-threads.js';

/** A machine of `all` threads, on which a step takes `ms` of how many work on it. */
function machine(all: number, ms: (threads: number) => number) {
  let now = 0,
    limit = 1024;
  const used: number[] = [];
  const threads = new StepThreads({
    all: () => Math.min(all, limit),
    use: (most) => {
      const before = limit;
      limit = most;
      return before;
    },
    clock: () => now,
  });
  const launch = (): void => {
    const n = Math.min(all, limit);
    used.push(n);
    now += ms(n);
  };
  return {
    launch,
    limit: () => limit,
    threads,
    /** Threads of each of so many steps. */
    run(steps: number, crowded = false): readonly number[] {
      used.length = 0;
      for (let i = 0; i < steps; i++) threads.run(launch, crowded);
      return used.slice();
    },
  };
}
const count = (of: readonly number[], n: number): number => of.filter((x) => x === n).length;

/** Steps until the first trial has ended, and until one that says the same has. */
const FIRST = 18,
  SECOND = FIRST + 50 + 9;

describe('threads of a step', () => {
  it('are all where that is faster, and one in a trial now and then', () => {
    const m = machine(2, (n) => (n === 1 ? 1.3 : 1));
    expect(m.run(FIRST)).toEqual([...new Array(9).fill(2), ...new Array(9).fill(1)]);
    expect(count(m.run(10 * 259), 1)).toBe(90);
    expect(m.limit()).toBe(1024);
  });
  it('are one where all save little', () => {
    for (const took of [0.92, 1, 1.4]) {
      const m = machine(2, (n) => (n === 1 ? 1 : took));
      m.run(SECOND);
      expect(count(m.run(2590), 2)).toBe(90);
    }
  });
  it('change when the other way has become faster, and single steps that are held up change nothing', () => {
    let alone = 1.3,
      i = 0;
    const m = machine(2, (n) => (n === 1 ? alone : ++i % 3 === 0 ? 20 : 1));
    m.run(FIRST);
    expect(count(m.run(2590), 2)).toBe(2500);
    alone = 0.8;
    m.run(400);
    expect(count(m.run(2590), 1)).toBe(2500);
  });
  it('change when two trials say so, as what else runs may be over with the next', () => {
    for (const busySteps of [20, 59]) {
      let i = 0;
      const m = machine(2, (n) => (n === 1 ? 1.3 : i++ < busySteps ? 3 : 1));
      expect(count(m.run(SECOND), 1)).toBe(18);
      expect(count(m.run(200), 1)).toBe(busySteps === 20 ? 0 : 200);
      // Two trials more, and it is as it was.
      m.run(150);
      expect(count(m.run(200), 2)).toBeGreaterThan(190);
    }
  });
  it('are tried when those that wait have woken up', () => {
    let last = 0;
    const m = machine(2, (n) => {
      const wakes = n === 2 && last !== 2;
      last = n;
      return n === 1 ? 1 : wakes ? 50 : 0.6;
    });
    m.run(FIRST);
    expect(count(m.run(1000), 2)).toBeGreaterThan(900);
  });
  it('are all of a long step, whatever else there is to do', () => {
    const m = machine(2, (n) => (n === 1 ? 6 : 5));
    expect(count(m.run(1000), 2)).toBe(1000);
    expect(count(m.run(1000, true), 2)).toBe(1000);
  });
  it('are tried rarely where the other way is far slower', () => {
    const m = machine(4, (n) => (n === 1 ? 3 : 1));
    m.run(FIRST);
    expect(count(m.run(4000), 1)).toBe(0);
    expect(count(m.run(9), 1)).toBe(9);
  });
  it('leave a core to others of a short step, which is no trial', () => {
    const m = machine(4, (n) => (n === 1 ? 1.2 : n === 3 ? 9 : 1));
    m.run(FIRST + 20);
    expect(m.run(500, true)).toEqual(new Array(500).fill(3));
    expect(m.run(200)).toEqual(new Array(200).fill(4));
  });
  it('are all again after a step that throws', () => {
    const m = machine(2, (n) => (n === 1 ? 0.5 : 1));
    m.run(FIRST);
    const fails = (): void => {
      throw new Error('no');
    };
    expect(() => m.threads.run(fails, false)).toThrow('no');
    expect(m.limit()).toBe(1024);
  });
  it('are not asked for where there is one', () => {
    const m = machine(1, () => 1);
    expect(count(m.run(30, true), 1)).toBe(30);
    expect(m.limit()).toBe(1024);
  });
});
