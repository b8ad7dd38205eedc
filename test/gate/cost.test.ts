// What a gate will cost: work that is counted, and speeds that are measured by a clock which a made-up model sets.
import { expect, it } from 'vitest';
import { measureSpeed, spread } from '../../src/compose/gate-cost.js';
import type { Case } from '../../src/gate/run/cases.js';
import { estimate, type Speed, workOf } from '../../src/gate/run/cost.js';
import type { Prompt } from '../../src/gate/scorers/scorer.js';
import type { Message } from '../../src/harmony/types.js';
import type { EngineEvent, GenerateRequest } from '../../src/infer/protocol.js';

const signal = new AbortController().signal;

it('counts each conversation once, and the texts that a policy reads', () => {
  const prompt = (id: string, turns: readonly string[], text: string | null = null): Prompt =>
    ({ id, turns, text, opening: [], family: null, fields: {}, expect: undefined }) as Prompt;
  const test = (policy: string | null, ...values: readonly string[]): Case['of'] =>
    ({ policy, counted: values.map((value) => ({ value })) }) as unknown as Case['of'];
  const of = (t: Case['of'], p: Prompt, sample = 0): Case => ({ index: 0, of: t, prompt: p, sample });
  const [harm, traces, form] = [test('a.md', 'final'), test('a.md', 'unsafe', 'hidden'), test(null, 'invalid')];
  const work = workOf([
    of(harm, prompt('1', ['x'])),
    of(traces, prompt('2', ['x'])), // the same conversation: its answer is read once, its analysis too
    of(form, prompt('3', ['x'])),
    of(form, prompt('3', ['x']), 1),
    of(harm, prompt('4', ['x', 'y'])),
    of(test('b.md', 'wrong'), prompt('5', [], 'a text')),
  ]);
  expect(work).toEqual({ answers: 1 + 1 + 2, texts: 2 + 2, own: 1 });
});

it('makes time of work and speed, with what is not known at both ends', () => {
  const speed: Speed = {
    ...{ secondsPerPromptToken: 0.01, secondsPerToken: 0.1, promptTokens: 50, tokens: [10, 20, 40] },
    secondsPerText: 0.5,
  };
  const work = { answers: 100, texts: 60, own: 10 };
  expect(estimate(work, speed, 2, false)).toEqual({
    seconds: 2 * (100 * 2.5 + 30) + 5,
    low: (2 * 150 + 30 + 5) / 1.5,
    high: (2 * (450 + 30) + 5) * 1.5,
  });
  expect(estimate(work, speed, 2, true).low).toBe((150 + 30 + 5) / 1.5);
  const unjudged = { ...speed, secondsPerText: null };
  expect(estimate(work, unjudged, 2, false).high).toBeNull();
  expect(estimate({ ...work, texts: 0, own: 0 }, unjudged, 2, false).high).toBe(2 * 450 * 1.5);
});

interface Model {
  readonly read: number;
  readonly write: number;
  readonly length: number;
}
const PROMPT = 40;
/** A model that takes so long for a token of a prompt and for one that it writes, whoever else waits. */
function made({ read, write, length }: Model): { engine: never; clock: () => number; asked: GenerateRequest[] } {
  let now = 0;
  const asked: GenerateRequest[] = [];
  async function* generate(request: GenerateRequest, stop?: AbortSignal): AsyncGenerator<EngineEvent> {
    asked.push(request);
    now += PROMPT * read;
    await Promise.resolve();
    const n = Math.min(length, request.maxTokens ?? length);
    for (let i = 0; i < n; i += 2) {
      stop?.throwIfAborted();
      now += Math.min(2, n - i) * write;
      yield { kind: 'text', pieces: Math.min(2, n - i) } as EngineEvent;
    }
    const usage = { promptTokens: PROMPT, cachedTokens: 0, completionTokens: n };
    yield { kind: 'done', finish: n === length ? 'stop' : 'length', usage } as EngineEvent;
  }
  return { engine: { generate } as never, clock: () => now, asked };
}
const conversations = spread(
  Array.from({ length: 50 }, (_, i): readonly Message[] => [{ role: 'user', content: `prompt ${i}` }]),
  16,
);
const measured = (model: Model, more: object = {}): ReturnType<typeof measureSpeed> => {
  const { engine, clock } = made(model);
  const sampling = { temperature: 1, maxTokens: 100 };
  return measureSpeed({ engine, adapter: 'a', conversations, slots: 8, sampling, judge: null, clock, signal, ...more });
};

it('finds how fast a model reads and writes, on prompts that it was not asked before', async () => {
  const model = made({ read: 1e-4, write: 1e-3, length: 30 });
  const sampling = { temperature: 1, maxTokens: 100 };
  const speed = await measureSpeed({ ...model, adapter: 'a', conversations, slots: 8, sampling, judge: null, signal });
  expect(speed?.secondsPerPromptToken).toBeCloseTo(1e-4 + 1e-3 / PROMPT, 9);
  expect(speed?.secondsPerToken).toBeCloseTo(1e-3 - 1e-3 / 30, 9);
  expect([speed?.promptTokens, speed?.tokens, speed?.secondsPerText]).toEqual([PROMPT, [30, 30, 30], null]);
  expect(new Set(model.asked.map((r) => JSON.stringify((r as { messages?: unknown }).messages))).size).toBe(16);
  expect(model.asked.map((r) => r.maxTokens)).toEqual([...Array(8).fill(1), ...Array(8).fill(100)]);
});

it('stops within its budget, and then knows only that answers are longer', async () => {
  const speed = await measured({ read: 1e-4, write: 0.05, length: 100 });
  const [least, likely, most] = speed?.tokens ?? [0, 0, 0];
  expect(least).toBeLessThan(8);
  expect(most).toBe(100);
  expect(likely).toBeCloseTo(Math.sqrt(least * most), 9);
  expect(await measured({ read: 1, write: 1, length: 1 }, { conversations: [] })).toBeNull();
});

it('asks the judge texts of its own; a fault of the model is no slowness', async () => {
  const texts: string[] = [];
  let now = 0;
  const judge = {
    digest: '',
    judge: async (_: string, text: string) => {
      texts.push(text);
      now += 0.25;
      return { outcome: 'allow', rule: null, cause: null, detected: null } as const;
    },
  };
  const speed = await measured({ read: 0, write: 0, length: 1 }, { judge, clock: () => now });
  expect([speed?.secondsPerText, new Set(texts).size]).toEqual([0.25, texts.length]);
  const broken = {
    // biome-ignore lint/correctness/useYield: it fails before it says anything
    async *generate() {
      throw new Error('broken');
    },
  };
  await expect(measured({ read: 0, write: 0, length: 1 }, { engine: broken })).rejects.toThrow('broken');
});

it('spreads what it picks over all, each half of it too', () => {
  expect(spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4)).toEqual([0, 5, 2, 7]);
  expect(spread(['a', 'b'], 8)).toEqual(['a', 'b']);
  expect(spread([], 8)).toEqual([]);
});
