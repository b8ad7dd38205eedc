// A sequence that is cancelled at any step: waiting, in its prompt, between any two of its tokens. Its pages and its
// slot are back at once, and the others have the bits that they have without it.
import { afterAll, expect, it, vi } from 'vitest';
import { GREEDY, type Sequence, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir } = await tinyCheckpoint();
const model = openCheckpoint(dir);
afterAll(() => model.close());

const ask = (length: number, salt: number, maxTokens: number): SequenceOptions => ({
  tokens: prompt(length, salt),
  maxTokens,
  stop: new Set(),
  sampling: salt === 0 ? GREEDY : { ...GREEDY, temperature: 1, seed: salt },
  sharedTokens: salt === 3 ? 40 : 0,
});
const COMPANY = [ask(20, 0, 22), ask(45, 1, 20), ask(70, 2, 16)];
/** Its prompt is seven pieces, and those of the others come first. */
const VICTIM = ask(140, 3, 12);

interface Run {
  readonly bits: readonly string[];
  /** Tokens of the victim before it was cancelled. */
  readonly written: number;
  readonly waited: boolean;
}
/** @param at the step before which it is cancelled; null: it is not there */
function run(options: Partial<SessionOptions>, at: number | null): Run {
  using session = new Session(model, {
    precision: 'f32',
    slots: 4,
    capacity: 170,
    prefillTokens: 24,
    prefixes: 2,
    ...options,
  });
  const out = COMPANY.map(() => [] as number[]);
  const started = COMPANY.map((c) => session.start(c));
  const victim: Sequence | null = at === null ? null : session.start(VICTIM);
  let written = 0,
    waited = false;
  for (let step = 0; !session.idle; step++) {
    if (victim && step === at) {
      waited = !session.progress(victim).begun;
      const before = session.usage;
      session.cancel(victim);
      const after = session.usage;
      expect(after.waiting + after.running).toBe(before.waiting + before.running - 1);
      if (!waited) expect(after.freeSlots).toBe(before.freeSlots + 1);
      if (!waited) expect(after.freePages).toBeGreaterThan(before.freePages);
      session.cancel(victim); // again is nothing
    }
    for (const { sequence, token, logprob } of session.step()) {
      if (sequence === victim) {
        expect(step).toBeLessThan(at ?? 0);
        written++;
      } else out[started.indexOf(sequence)]?.push(token, logprob);
    }
  }
  const { running, waiting, freeSlots, usedPages, keptPages } = session.usage;
  expect({ running, waiting, freeSlots, usedPages }).toEqual({
    running: 0,
    waiting: 0,
    freeSlots: options.slots ?? 4,
    usedPages: keptPages,
  });
  return { bits: out.map((o) => Buffer.from(Float64Array.from(o).buffer).toString('hex')), written, waited };
}

it.each([
  ['a place for each', {}, 20, 1],
  ['pieces that stop between layers', { yields: true }, 40, 5],
  ['one slot too few', { slots: 3 }, 24, 3],
  ['too little cache for all', { cacheTokens: 256 }, 24, 3],
] as const)('%s', (_, options, steps, stride) => {
  const { bits } = run(options, null);
  expect(new Set(bits).size).toBe(COMPANY.length);
  const seen = { waiting: 0, reading: 0, writing: 0 };
  for (let at = 0; at < steps; at += stride) {
    const got = run(options, at);
    expect(got.bits, `cancelled before step ${at}`).toEqual(bits);
    seen[got.waited ? 'waiting' : got.written === 0 ? 'reading' : 'writing']++;
  }
  // It was met in each of its states.
  expect(seen.waiting).toBeGreaterThan(0);
  if ('slots' in options || 'cacheTokens' in options) expect(seen.waiting).toBeGreaterThan(3);
  else expect(seen.reading).toBeGreaterThan(2);
  if (stride === 1) expect(seen.writing).toBeGreaterThan(2);
});

it('one whose prompt is read together with others goes when they are read', () => {
  const ends = [60, 75, 90].map((length, i): SequenceOptions => ({ ...ask(length, i, 6), patient: true }));
  // A pass stops after each layer: by this clock all of them take too long.
  let clock = 0;
  const now = vi.spyOn(performance, 'now').mockImplementation(() => (clock += 20));
  const run = (gone: readonly number[], at: number): [string[], boolean] => {
    using session = new Session(model, { precision: 'bf16', slots: 3, capacity: 170, yields: true });
    const started = ends.map((e) => session.start(e)),
      out = ends.map(() => [] as number[]);
    let stayed = false;
    for (let step = 0; !session.idle; step++) {
      for (const i of step === at ? gone : []) {
        session.cancel(started[i] as Sequence);
        session.cancel(started[i] as Sequence);
        stayed = session.usage.running === ends.length;
      }
      for (const { sequence, token, logprob } of session.step()) {
        const i = started.indexOf(sequence);
        expect(step >= at && gone.includes(i)).toBe(false);
        out[i]?.push(token, logprob);
      }
    }
    expect(session.usage).toMatchObject({ running: 0, waiting: 0, freeSlots: 3, usedPages: 0 });
    return [out.map((o) => o.join()), stayed];
  };
  try {
    const [bits] = run([], 0);
    const [first, stayed] = run([1], 1);
    expect(stayed).toBe(true);
    expect(first).toEqual([bits[0], '', bits[2]]);
    for (let at = 0; at < 12; at++) {
      const [some] = run([0, 2], at);
      expect(some[1]).toBe(bits[1]);
    }
    // With all of them gone the pass is given up.
    expect(run([2, 0, 1], 1)).toEqual([['', '', ''], false]);
  } finally {
    now.mockRestore();
  }
});
