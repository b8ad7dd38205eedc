// What a sequence is answered does not depend on who else is served: tokens and log-probabilities of random mixes of
// adapters, prompts, lengths and arrivals, bit for bit against each sequence alone.
import fc from 'fast-check';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { generateAll } from '../../src/infer/generate-all.js';
import { PromptPass } from '../../src/infer/prompt-pass.js';
import { GREEDY, type Sampled, type Sequence, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { LoraPool, type Resident } from '../../src/lora/pool.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { quantizeDense } from '../../src/model/q8.js';
import type { ModelAdapter, ModelWeights } from '../../src/model/types.js';
import { HOST } from '../../src/native/backends.js';
import { getThreads, setThreads } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const bf16 = openCheckpoint(dir),
  q8 = quantizeDense(openCheckpoint(dir)),
  pool = new LoraPool(config, HOST, () => {}, true);
afterAll(() => {
  pool.close();
  q8.close();
  bf16.close();
});

/** An adapter whose B is not zero, in the pool. */
function resident(seed: number, choice: Partial<AdapterChoice>): Resident {
  return pool.add((storage) => {
    const adapter = createAdapter(
      config,
      adapterSpec(config, { rank: 4, alpha: 32, targets: ['attention'], rsLora: false, dropout: 0, ...choice }),
      { storage },
    );
    adapter.params.write(Float32Array.from({ length: adapter.params.numel }, (_, i) => Math.sin(seed + i) * 0.15));
    return adapter;
  });
}
const adapters: readonly (ModelAdapter | null)[] = [
  null,
  resident(1, { targets: ['attention', 'experts'] }),
  resident(2, { rank: 3, targets: ['attention', 'experts', 'router'] }),
  resident(3, { rank: 8, targets: ['q_proj', 'experts'], layers: [1] }),
];

interface Ask {
  readonly adapter: number;
  readonly length: number;
  readonly shared: number;
  readonly salt: number;
  readonly maxTokens: number;
  readonly greedy: boolean;
  /** Step before which it arrives. */
  readonly at: number;
  /** Nobody waits for its tokens. */
  readonly patient?: boolean;
}
const ask = fc.record<Ask>({
  adapter: fc.nat({ max: 3 }),
  length: fc.integer({ min: 1, max: 150 }),
  shared: fc.constantFrom(0, 0, 40),
  salt: fc.nat({ max: 2 }),
  maxTokens: fc.integer({ min: 1, max: 12 }),
  greedy: fc.boolean(),
  at: fc.nat({ max: 12 }),
  patient: fc.boolean(),
});
const optionsOf = (a: Ask): SequenceOptions => ({
  tokens: prompt(a.length, a.salt),
  maxTokens: a.maxTokens,
  stop: new Set(),
  sampling: a.greedy ? GREEDY : { ...GREEDY, temperature: 1, topK: 40, topP: 0.95, seed: a.salt },
  adapter: adapters[a.adapter] ?? null,
  sharedTokens: a.shared,
  patient: a.patient ?? false,
});
/** A number of its own for each sequence of bits. */
const bits = (tokens: readonly number[], logprobs: readonly number[]): string =>
  `${tokens.join()} ${Buffer.from(Float32Array.from(logprobs).buffer).toString('hex')}`;

const base: Omit<SessionOptions, 'slots'> = { precision: 'f32', capacity: 170, prefillTokens: 24, prefixes: 2 };
const remembered = new Map<string, string>();
function alone(model: ModelWeights, a: Ask, options: Partial<SessionOptions>): string {
  const key = JSON.stringify([model === q8, { ...a, at: 0 }, options]);
  const known = remembered.get(key);
  if (known !== undefined) return known;
  using session = new Session(model, { ...base, slots: 1, ...options, graphs: false, prefixes: 0 });
  const [out] = generateAll(session, [optionsOf(a)]);
  const text = bits([...(out?.tokens ?? [])], [...(out?.logprobs ?? [])]);
  remembered.set(key, text);
  return text;
}
/** All in one session, each arriving at its step. @returns bits, and the most sequences that decoded in one step */
function together(model: ModelWeights, asks: readonly Ask[], options: Partial<SessionOptions>): [string[], number] {
  using session = new Session(model, { ...base, slots: 8, ...options });
  const started = new Map<Sequence, number>(),
    out = asks.map(() => ({ tokens: [] as number[], logprobs: [] as number[] }));
  let most = 0;
  for (let step = 0; step <= 12 || !session.idle; step++) {
    for (const [i, a] of asks.entries()) if (a.at === step) started.set(session.start(optionsOf(a)), i);
    const sampled: readonly Sampled[] = session.step();
    most = Math.max(most, sampled.length);
    for (const { sequence, token, logprob } of sampled) {
      const of = out[started.get(sequence) ?? -1];
      of?.tokens.push(token);
      of?.logprobs.push(logprob);
    }
  }
  return [out.map((o) => bits(o.tokens, o.logprobs)), most];
}

describe.each([
  ['f32', () => bf16, { precision: 'f32' }],
  ['bf16', () => bf16, { precision: 'bf16' }],
  ['8-bit attention and head', () => q8, { precision: 'bf16' }],
] as const)('a sequence has the bits that it has alone: %s', (_, modelOf, options) => {
  it('whatever adapters, prompts and arrivals are beside it', () => {
    let most = 0;
    fc.assert(
      fc.property(
        fc.array(ask, { minLength: 8, maxLength: 16 }),
        fc.constantFrom(1, 3, 16, 16),
        fc.integer({ min: 1, max: 3 }),
        fc.constantFrom(24, 512),
        (asks, slots, threads, prefillTokens) => {
          const before = getThreads();
          try {
            setThreads(threads);
            const [got, size] = together(modelOf(), asks, { ...options, slots, prefillTokens });
            most = Math.max(most, size);
            expect(got).toEqual(asks.map((a) => alone(modelOf(), a, { ...options, prefillTokens })));
          } finally {
            setThreads(before);
          }
        },
      ),
      { numRuns: 8, seed: 5 },
    );
    expect(most).toBeGreaterThan(4);
  });

  it('twenty streams at once, more than any kernel takes at a time', () => {
    const asks = Array.from({ length: 20 }, (_v, i): Ask => {
      return {
        adapter: i % 4,
        length: 3 + 7 * (i % 5),
        shared: 0,
        salt: i % 3,
        maxTokens: 6,
        greedy: i % 2 === 0,
        at: 0,
      };
    });
    const [got, most] = together(modelOf(), asks, { ...options, slots: 20, prefillTokens: 512 });
    expect(got).toEqual(asks.map((a) => alone(modelOf(), a, { ...options, prefillTokens: 512 })));
    expect(most).toBeGreaterThan(16);
    expect(new Set(got).size).toBeGreaterThan(10);
  });
});

it.each([
  // Of two adapters, at two times.
  ['as rows among many', 60, (i: number) => (i < 8 ? 0 : 1), [4, 3, 4, 3]],
  ['as rows alone, of any adapters', 8, (i: number) => i % 4, [7, 7]],
] as const)(
  'ends of prompts that are read together, %s, have the bits of each by itself',
  (_, length, adapterOf, sizes) => {
    const asks = Array.from({ length: 14 }, (_v, i): Ask => {
      const adapter = adapterOf(i);
      return { adapter, length: length + i, shared: 0, salt: i, maxTokens: 3, greedy: true, at: i % 2, patient: true };
    });
    const passes = vi.spyOn(PromptPass.prototype, 'begin');
    for (const [model, precision] of [
      [bf16, 'f32'],
      [bf16, 'bf16'],
      [q8, 'bf16'],
    ] as const) {
      const options = { precision, prefillTokens: 512 } as const;
      passes.mockClear();
      const [got] = together(model, asks, { ...options, slots: 14 });
      expect(passes.mock.calls.map(([states]) => states.length)).toEqual(sizes);
      expect(got).toEqual(asks.map((a) => alone(model, a, options)));
      expect(new Set(got).size).toBeGreaterThan(10);
    }
    passes.mockRestore();
  },
);

it('ends of prompts wait for those whose slots are taken a little longer', () => {
  const asks = Array.from({ length: 12 }, (_v, i): Ask => {
    const maxTokens = 2 + (i % 3);
    return { adapter: 0, length: 60 + i, shared: 0, salt: i, maxTokens, greedy: true, at: 0, patient: true };
  });
  const sizes = (some: readonly Ask[]): readonly number[] => {
    const options = { precision: 'bf16', prefillTokens: 512, slots: 4 } as const;
    const passes = vi.spyOn(PromptPass.prototype, 'begin');
    const [got] = together(bf16, some, options);
    const lengths = passes.mock.calls.map(([states]) => states.length);
    passes.mockRestore();
    expect(got).toEqual(some.map((a) => alone(bf16, a, { ...options, slots: 1 })));
    return lengths;
  };
  expect(sizes(asks)).toEqual([4, 4, 4]);
  // Whose tokens somebody waits for wait for nobody.
  expect(sizes(asks.map((a) => ({ ...a, patient: false })))).toEqual(asks.map(() => 1));
});

it('short prompts that come at once are read together, beside streams up to a bound', () => {
  const asks = Array.from({ length: 13 }, (_v, i): Ask => {
    return { adapter: 0, length: 18 + i, shared: 0, salt: i, maxTokens: 20, greedy: true, at: i === 0 ? 0 : 2 };
  });
  const options = { precision: 'bf16', prefillTokens: 512, slots: 13 } as const;
  const passes = vi.spyOn(PromptPass.prototype, 'begin');
  const [got] = together(bf16, asks, options);
  const lengths = passes.mock.calls.map(([states]) => states.map((q) => q.options.tokens.length));
  passes.mockRestore();
  expect(got).toEqual(asks.map((a) => alone(bf16, a, { ...options, slots: 1 })));
  // 128 tokens at most; what fits no more comes next. All but the first are read in the step that they came in.
  expect(lengths).toEqual([[18], [19, 20, 21, 22, 23], [24, 25, 26, 27], [28, 29, 30]]);
});

it('pieces of prompts that stop between layers change nothing', () => {
  const asks = Array.from({ length: 12 }, (_, i): Ask => {
    return { adapter: i % 4, length: 20 + 11 * i, shared: 0, salt: i % 3, maxTokens: 8, greedy: i % 2 === 0, at: i };
  });
  const options = { precision: 'bf16', prefillTokens: 48 } as const;
  const [got] = together(bf16, asks, { ...options, slots: 12, yields: true });
  expect(got).toEqual(asks.map((a) => alone(bf16, a, options)));
});

it('nor do long pieces that stop within a layer', () => {
  const asks = Array.from({ length: 6 }, (_, i): Ask => {
    return { adapter: i % 4, length: 60 + 90 * i, shared: 0, salt: i % 3, maxTokens: 30, greedy: i % 2 === 0, at: i };
  });
  const options = { precision: 'bf16', prefillTokens: 512, capacity: 600 } as const;
  const [got] = together(bf16, asks, { ...options, slots: 6, yields: true });
  expect(got).toEqual(asks.map((a) => alone(bf16, a, options)));
});

it('tokens that are guessed, right and wrong, change nothing, whatever adapters are beside each other', () => {
  const asks = Array.from({ length: 12 }, (_, i): Ask => {
    const shared = i % 3 === 0 ? 40 : 0;
    return { adapter: i % 4, length: 50 + 9 * i, shared, salt: i % 3, maxTokens: 12, greedy: i % 2 === 0, at: i % 5 };
  });
  // The base guesses: right where it is asked itself, now and then where an adapter is.
  for (const options of [
    { precision: 'bf16', prefillTokens: 48, slots: 12 },
    { precision: 'f32', prefillTokens: 48, slots: 3, yields: true },
  ] as const) {
    const guessed = { ...options, draft: bf16, speculation: { when: 'always' } } as const;
    const [got] = together(bf16, asks, guessed);
    const { precision, prefillTokens } = options;
    expect(got).toEqual(asks.map((a) => alone(bf16, a, { precision, prefillTokens })));
  }
});

it('an adapter that lies in a pool gives the bits of one that lies by itself', () => {
  const own = resident(9, { targets: ['attention', 'experts', 'router'] });
  const plain: ModelAdapter = { layers: own.layers };
  for (const precision of ['f32', 'bf16'] as const) {
    const run = (adapter: ModelAdapter): unknown => {
      using session = new Session(bf16, { ...base, precision, slots: 1 });
      return generateAll(session, [
        {
          tokens: prompt(40),
          maxTokens: 12,
          stop: new Set(),
          sampling: { ...GREEDY, temperature: 1, seed: 3 },
          adapter,
        },
      ]);
    };
    expect(run(own)).toEqual(run(plain));
    expect(run(own)).not.toEqual(run(adapters[1] as ModelAdapter));
  }
  pool.remove(own);
});
