// What answers began with is guessed of the next one, at its prompt's end or in its first step: no token and no bit
// depends on it, and what is counted is what was checked.
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { Beginning, Beginnings } from '../../src/infer/beginnings.js';
import { GREEDY, type Sampled, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import { createSteer } from '../../src/infer/steer.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { LoraPool } from '../../src/lora/pool.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { HOST } from '../../src/native/backends.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const told = (beginning: Beginning, ...answers: (readonly number[])[]): void => {
  for (const answer of answers) {
    const of = beginning.begin();
    for (const token of answer) beginning.add(of, token);
  }
};

describe('a beginning', () => {
  it('is guessed as far as most answers went on alike, once there are some', () => {
    const beginning = new Beginning();
    told(beginning, [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 5]);
    expect(beginning.guess([], 7)).toEqual([]);
    told(beginning, [1, 2, 9]);
    expect(beginning.guess([], 7)).toEqual([1, 2]);
    told(beginning, [1, 2, 3, 7]);
    expect(beginning.guess([], 7)).toEqual([1, 2, 3]);
    expect(beginning.guess([], 1)).toEqual([1]);
  });
  it('goes on where the answer stands, and nowhere else', () => {
    const beginning = new Beginning();
    told(beginning, ...Array(5).fill([1, 2, 3]), ...Array(5).fill([1, 7, 8]));
    expect(beginning.guess([], 7)).toEqual([1]);
    expect(beginning.guess([1], 7)).toEqual([]);
    expect(beginning.guess([1, 7], 7)).toEqual([8]);
    expect(beginning.guess([5], 7)).toEqual([]);
  });
  it('is that of late answers, and ends where none is looked at', () => {
    const beginning = new Beginning();
    told(beginning, ...Array(16).fill([1, 2]), ...Array(12).fill([4, 5, 6, 7, 8, 9, 10, 11, 12, 13]));
    expect(beginning.guess([], 99)).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
    expect(beginning.guess([4, 5, 6, 7, 8, 9, 10, 11], 99)).toEqual([]);
  });
  it("is the adapter's and the prompt's end's own, of as many kinds as there is room for", () => {
    const beginnings = new Beginnings(),
      [base, adapter] = [{}, {}];
    const of = (...tokens: number[]): Beginning => beginnings.of(base, Int32Array.from(tokens));
    expect(of(1, 2, 3)).toBe(of(9, 2, 3));
    expect(of(1, 2, 3)).not.toBe(of(1, 2, 4));
    expect(beginnings.of(adapter, Int32Array.of(2, 3))).not.toBe(of(2, 3));
    const kept = of(2, 3);
    for (let i = 0; i < 31; i++) of(i, i);
    expect(of(2, 3)).toBe(kept);
    for (let i = 100; i < 132; i++) of(i, i);
    expect(of(2, 3)).not.toBe(kept);
  });
});

const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir),
  tokenizer = loadTokenizer(join(packageRoot, 'models', 'nano'), { vocabSize: config.vocab_size }),
  pool = new LoraPool(config, HOST, () => {}, true);
const adapter = pool.add((storage) => {
  const spec = adapterSpec(config, { rank: 4, alpha: 32, targets: ['attention'], rsLora: false, dropout: 0 });
  const made = createAdapter(config, spec, { storage });
  made.params.write(Float32Array.from({ length: made.params.numel }, (_, i) => Math.sin(i) * 0.15));
  return made;
});
afterAll(() => {
  pool.close();
  tokenizer.close();
  model.close();
});

type Told = Omit<Sampled, 'sequence'>;
/** Waves of requests, each wave at once. @returns what each was told, and the tokens of each step */
function run(waves: readonly (readonly SequenceOptions[])[], options: Partial<SessionOptions>) {
  using session = new Session(model, { precision: 'bf16', slots: 4, capacity: 256, prefixes: 4, ...options });
  const answers: Told[][] = [],
    steps: number[] = [],
    of: { drafted: number; accepted: number }[] = [];
  for (const wave of waves) {
    const sequences = wave.map((request) => session.start(request)),
      told: Told[][] = wave.map(() => []);
    while (!session.idle) {
      const sampled = session.step();
      steps.push(sampled.length);
      for (const { sequence, ...rest } of sampled) told[sequences.indexOf(sequence)]!.push(rest);
    }
    answers.push(...told);
    of.push(...sequences.map((s) => session.progress(s)));
  }
  return { answers, steps, of, usage: session.usage };
}
/** Steps that are said to take so long that a row beside them is cheap. */
const slow = (): Partial<SessionOptions> => {
  let now = 0;
  const clock = (): number => {
    now += 5;
    return now;
  };
  return { speculation: { when: 'auto', clock } };
};
const request = (tokens: Int32Array, more: Partial<SequenceOptions> = {}): SequenceOptions => ({
  tokens,
  maxTokens: 10,
  stop: new Set(),
  sampling: GREEDY,
  ...more,
});
const SHORT = prompt(12),
  LONG = prompt(60, 1);
/** Those whose beginning is learned, alone, and then some of other prompts, samplings and adapters. */
const asked = (tokens: Int32Array): (readonly SequenceOptions[])[] => [
  ...Array.from({ length: 5 }, () => [request(tokens)]),
  [request(tokens), request(tokens, { sampling: { ...GREEDY, temperature: 0.3, seed: 4 } }), request(prompt(30, 3))],
  [request(tokens, { sampling: { ...GREEDY, temperature: 2, seed: 5 }, adapter }), request(tokens, { adapter })],
  // Another prompt of the same end: what is guessed does not come.
  [request(Int32Array.from([...prompt(9, 2), ...tokens.subarray(-2)])), request(tokens, { maxTokens: 2 })],
  [request(tokens, { steer: createSteer(tokenizer, { top: 3, plain: true }) })],
];

describe('an answer that begins as those before it has the bits of one that is not guessed', () => {
  it.each([
    ['with its prompt', SHORT],
    ['in its first step', LONG],
  ])('%s', (_, tokens) => {
    const plain = run(asked(tokens), {}),
      guessed = run(asked(tokens), slow());
    expect(guessed.answers).toEqual(plain.answers);
    expect(guessed.usage.usedPages).toBe(guessed.usage.keptPages);
    const { drafted, accepted } = guessed.of[4]!;
    expect(accepted).toBeGreaterThanOrEqual(7);
    expect(drafted).toBeGreaterThanOrEqual(accepted);
    expect(guessed.steps.length).toBeLessThan(plain.steps.length);
    expect(guessed.usage.draftedTokens).toBe(guessed.of.reduce((n, s) => n + s.drafted, 0));
    expect(guessed.usage.acceptedTokens).toBe(guessed.of.reduce((n, s) => n + s.accepted, 0));
  });
  it('comes with its prompt at once, and as far as it may go', () => {
    for (const [maxTokens, capacity, wanted] of [
      [10, 256, 8],
      [3, 256, 3],
      [1, 256, 1],
      [10, 15, 3],
    ] as const) {
      const learned = Array.from({ length: 4 }, () => [request(SHORT)]);
      const { steps } = run([...learned, [request(SHORT, { maxTokens })]], { ...slow(), capacity });
      const plain = run([...learned, [request(SHORT, { maxTokens })]], { capacity });
      const last = plain.answers.at(-1)!.length;
      expect(steps.at(-1 - Math.max(0, last - wanted))).toBe(wanted);
    }
  });
  it('also after a kept prefix, which others go on from as before', () => {
    const waves = Array.from({ length: 8 }, (_, i) => [
      request(Int32Array.from([...LONG, 40 + i, ...SHORT]), { sharedTokens: LONG.length }),
    ]);
    const plain = run(waves, {}),
      guessed = run(waves, slow());
    expect(guessed.answers).toEqual(plain.answers);
    expect(guessed.usage).toMatchObject({ prefixes: plain.usage.prefixes, keptPages: plain.usage.keptPages });
    expect(guessed.usage.draftedTokens).toBeGreaterThan(0);
  });
  it('in the first step also of a model whose steps are short, while it is alone', () => {
    const { of } = run(asked(LONG), { speculation: { when: 'auto' } });
    expect(of[4]!.accepted).toBeGreaterThanOrEqual(7);
  });
  it('off, nothing is guessed', () => {
    expect(run(asked(SHORT), { speculation: null }).usage.draftedTokens).toBe(0);
  });
});
