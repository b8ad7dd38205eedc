// Streams that whoever reads them lets wait: they get no token, keep what they have, hold nobody up, and go on with the
// bits that they have without a stop.
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { Brake } from '../../src/infer/brake.js';
import { type Engine, openEngine } from '../../src/infer/engine.js';
import type { GenerateRequest } from '../../src/infer/protocol.js';
import { GREEDY, type Sequence, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir } = await tinyCheckpoint();
const model = openCheckpoint(dir);
afterAll(() => model.close());

const ask = (salt: number, brake?: Brake): SequenceOptions => ({
  tokens: prompt(30 + salt, salt),
  maxTokens: 10,
  stop: new Set(),
  sampling: { ...GREEDY, temperature: 1, seed: salt },
  brake: brake?.cell,
});
const open = (slots: number): Session => new Session(model, { precision: 'bf16', slots, capacity: 100 });
/** @returns tokens and bits of each, as they come */
function collect(): { readonly of: Map<Sequence, number[]>; readonly step: (session: Session, steps: number) => void } {
  const of = new Map<Sequence, number[]>();
  return {
    of,
    step(session, steps) {
      for (let i = 0; i < steps && !session.idle; i++)
        for (const { sequence, token, logprob } of session.step())
          of.set(sequence, [...(of.get(sequence) ?? []), token, logprob]);
    },
  };
}
const alone = (salt: number): readonly number[] | undefined => {
  using session = open(1);
  const { of, step } = collect();
  const sequence = session.start(ask(salt));
  step(session, 100);
  return of.get(sequence);
};

describe('a stream that is held', () => {
  it('gets no token while others do, keeps its room, and goes on with its own bits', () => {
    using session = open(2);
    const { of, step } = collect(),
      brake = new Brake();
    const [held, other] = [session.start(ask(1, brake)), session.start(ask(2))];
    step(session, 3);
    const before = of.get(held)?.length ?? 0;
    brake.set(true);
    expect(session.heldBy).toBeNull();
    step(session, 20);
    expect(of.get(other)).toEqual(alone(2));
    expect(of.get(held)).toHaveLength(before);
    expect(before).toBeGreaterThan(0);
    // Nothing is left to do, and it still has its pages.
    expect(session.heldBy).toEqual([brake.cell]);
    expect(session.usage).toMatchObject({ running: 1, freeSlots: 1 });
    expect(session.usage.usedPages).toBeGreaterThan(0);
    brake.set(false);
    expect(session.heldBy).toBeNull();
    step(session, 20);
    expect(of.get(held)).toEqual(alone(1));
  });
  it('is not waited for while somebody needs its room', () => {
    using session = open(1);
    const { of, step } = collect(),
      brake = new Brake();
    brake.set(true);
    const held = session.start(ask(1, brake));
    step(session, 10);
    // Its prompt gave a token.
    expect(of.get(held)).toHaveLength(2);
    const other = session.start(ask(2));
    expect(session.heldBy).toBeNull();
    step(session, 40);
    expect([of.get(held), of.get(other)]).toEqual([alone(1), alone(2)]);
    expect(session.idle).toBe(true);
  });
  it('that is cancelled gives all back at once', () => {
    using session = open(1);
    const { step } = collect(),
      brake = new Brake();
    brake.set(true);
    const held = session.start(ask(1, brake));
    step(session, 10);
    session.cancel(held);
    expect(session.usage).toMatchObject({ running: 0, freeSlots: 1, usedPages: 0 });
    expect(session.idle).toBe(true);
  });
});

describe('an engine', () => {
  const nano = fileURLToPath(new URL('../../models/nano', import.meta.url));
  const request = (salt: number): GenerateRequest => ({
    messages: [{ role: 'user', content: `Please tell of ${salt}` }],
    maxTokens: 24,
    sampling: { seed: salt },
  });
  const textOf = async (engine: Engine, salt: number, brake?: Brake): Promise<string> => {
    let text = '';
    for await (const event of engine.generate({ ...request(salt), ...(brake ? { brake: brake.cell } : {}) }))
      if (event.kind === 'text') text += event.text;
    return text;
  };
  it('serves others while streams are held, sleeps when all are, and wakes by the brake', async () => {
    const engine = await openEngine({ model: nano, slots: 3, threads: 1, contextTokens: 256 });
    try {
      const free = await Promise.all([1, 2, 3].map((salt) => textOf(engine, salt)));
      const brakes = [new Brake(), new Brake()];
      for (const brake of brakes) brake.set(true);
      let ended = 0;
      const held = brakes.map((brake, i) => textOf(engine, i + 1, brake).finally(() => ended++));
      // The third comes and goes beside them, twice: the engine has slept between.
      for (let i = 0; i < 2; i++) {
        expect(await textOf(engine, 3)).toBe(free[2]);
        expect([ended, (await engine.state()).running]).toEqual([0, 2]);
      }
      brakes[0]?.set(false);
      expect(await held[0]).toBe(free[0]);
      expect(ended).toBe(1);
      brakes[1]?.set(false);
      expect(await held[1]).toBe(free[1]);
    } finally {
      await engine.close();
    }
  });
  it('gives back what a held stream has when it is not wanted any more', async () => {
    const engine = await openEngine({ model: nano, slots: 1, threads: 1, contextTokens: 256 });
    try {
      const brake = new Brake(),
        stop = new AbortController();
      brake.set(true);
      const events = engine.generate({ ...request(1), brake: brake.cell }, stop.signal)[Symbol.asyncIterator]();
      const waits = events.next();
      while ((await engine.state()).usedPages === 0);
      stop.abort(new Error('gone'));
      await expect(waits.then(() => events.next())).rejects.toThrow('gone');
      expect(await engine.state()).toMatchObject({ running: 0, usedPages: 0, freeSlots: 1 });
      brake.set(false);
      expect((await textOf(engine, 2)).length).toBeGreaterThan(0);
    } finally {
      await engine.close();
    }
  });
});
