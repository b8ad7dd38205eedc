import { afterAll, describe, expect, it } from 'vitest';
import { generateAll } from '../../src/infer/generate-all.js';
import { uniform } from '../../src/infer/random.js';
import { GREEDY, type Sampling, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients, scoreTokens } from '../../src/model/gpt-oss.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir);
afterAll(() => model.close());
const open = (options: Partial<ConstructorParameters<typeof Session>[1]> = {}): Session =>
  new Session(model, { precision: 'f32', slots: 4, capacity: 256, ...options });
const request = (
  tokens: Int32Array,
  sampling: Partial<Sampling> = {},
  more: Partial<SequenceOptions> = {},
): SequenceOptions => ({ tokens, maxTokens: 24, stop: new Set(), sampling: { ...GREEDY, ...sampling }, ...more });

/** log-softmax of the row after `tokens`, computed without a cache. */
function nextLogprobs(tokens: readonly number[]): Float64Array {
  using s = new Scope();
  const T = tokens.length;
  const hidden = forwardHidden(
    s,
    model,
    null,
    { tokens: Int32Array.from(tokens), positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, T) },
    { precision: 'f32', rows: Int32Array.of(T - 1) },
  );
  const z = Float64Array.from(logits(s, model, hidden, 'f32').toFloat32());
  const max = z.reduce((a, b) => Math.max(a, b), -Infinity);
  const lse = max + Math.log(z.reduce((a, b) => a + Math.exp(b - max), 0));
  return z.map((v) => v - lse);
}

describe('Session', () => {
  it(
    'greedy decoding with the cache takes the tokens of the uncached model, past the window, ' +
      'and their log-probabilities',
    () => {
      using session = open();
      const start = [...prompt(50)];
      const [out] = generateAll(session, [request(Int32Array.from(start), {}, { maxTokens: 40 })]);
      const text = [...start];
      for (const [i, token] of (out?.tokens ?? []).entries()) {
        const logp = nextLogprobs(text);
        expect(token).toBe(logp.indexOf(logp.reduce((a, b) => Math.max(a, b), -Infinity)));
        expect(Math.abs((out?.logprobs[i] ?? 0) - (logp[token] ?? 0))).toBeLessThan(1e-4);
        text.push(token);
      }
      expect(text.length).toBe(90);
    },
  );

  it('prefill in pieces gives the tokens of a prefill at once', () => {
    using whole = open({ prefillTokens: 512 });
    using pieces = open({ prefillTokens: 7 });
    const r = request(prompt(100), { temperature: 1, seed: 5 });
    expect([...(generateAll(pieces, [r])[0]?.tokens ?? [])]).toEqual([...(generateAll(whole, [r])[0]?.tokens ?? [])]);
  });

  it('a sequence samples the same alone and among others, whatever the slots', () => {
    const requests = Array.from({ length: 7 }, (_, i) =>
      request(prompt(5 + 13 * i, i), { temperature: 1, topK: 50, topP: 0.95, seed: i % 3 }, { maxTokens: 10 + i }),
    );
    const alone = requests.map((r) => {
      using session = open({ slots: 1 });
      return generateAll(session, [r])[0];
    });
    for (const slots of [1, 3, 8]) {
      using session = open({ slots });
      const together = generateAll(session, requests);
      expect(together.map((o) => [...o.tokens])).toEqual(alone.map((o) => [...(o?.tokens ?? [])]));
    }
    const [a, b] = alone;
    expect([...(a?.tokens ?? [])]).not.toEqual([...(b?.tokens ?? [])]);
  });

  it.each(['f32', 'bf16'] as const)(
    'a kept prefix gives the bits of a prefill, and is told apart by tokens, length and adapter (%s)',
    (precision) => {
      const head = [...prompt(100)];
      const ask = (shared: number, ...tail: number[]): SequenceOptions =>
        request(
          Int32Array.from([...head, ...tail]),
          { temperature: 1, seed: 8 },
          { sharedTokens: shared, maxTokens: 6 },
        );
      const requests = [
        ask(100, 5),
        ask(100, 9, 9, 4),
        ask(70, 8),
        ask(100, 5),
        { ...ask(100, 7), tokens: Int32Array.from([6, ...head.slice(1), 7]) },
        ask(101, 5),
        ask(400, 5),
        { ...ask(100, 5), adapter: { layers: [] } },
      ];
      using plain = open({ precision });
      const wanted = generateAll(plain, requests);
      for (const prefixes of [1, 2]) {
        using keeping = open({ precision, prefixes });
        for (let round = 0; round < 2; round++) {
          const got = generateAll(keeping, requests);
          expect(got.map((o) => [...o.tokens])).toEqual(wanted.map((o) => [...o.tokens]));
          expect(got.map((o) => [...o.logprobs])).toEqual(wanted.map((o) => [...o.logprobs]));
        }
      }
    },
  );

  it('a kept prefix saves its prefill', () => {
    const tokens = prompt(200);
    using keeping = open({ prefixes: 1, prefillTokens: 10 });
    const steps = (): number => {
      keeping.start(request(tokens, {}, { sharedTokens: 190, maxTokens: 1 }));
      let n = 0;
      for (; !keeping.idle; n++) keeping.step();
      return n;
    };
    expect(steps()).toBe(20);
    expect(steps()).toBe(1);
  });

  it('a prompt of 1,000 tokens beside a running stream: each step brings the stream its token', () => {
    using session = open({ capacity: 1020, prefillTokens: 128 });
    const stream = session.start(request(prompt(9), {}, { maxTokens: 40 }));
    session.step();
    const long = session.start(request(prompt(1000, 3), {}, { maxTokens: 4 }));
    const steps: (readonly unknown[])[] = [];
    while (!session.idle) steps.push(session.step().map((s) => s.sequence));
    const first = Math.ceil(1000 / 128); // pieces: one a step
    expect(steps.slice(0, first - 1)).toEqual(Array.from({ length: first - 1 }, () => [stream]));
    expect(steps.slice(first - 1, first + 3)).toEqual(Array.from({ length: 4 }, () => [stream, long]));
    expect(steps.slice(first + 3)).toEqual(Array.from({ length: 39 - first - 3 }, () => [stream]));
  });

  it('a cache too small for all lets sequences wait, and answers as a large one does', () => {
    const prompts = [100, 60, 130, 20, 90].map((n, i) => request(prompt(n, i), {}, { sharedTokens: n - 3 }));
    using large = open();
    const want = generateAll(large, prompts);
    using session = open({ cacheTokens: 256, prefixes: 2 });
    expect(session.cachePages).toEqual({ all: 4, free: 4, pageTokens: 64 });
    const running = prompts.map((p) => session.start(p));
    const got = running.map(() => [] as number[]);
    let least = 4;
    while (!session.idle) {
      for (const { sequence, token } of session.step()) got[running.indexOf(sequence)]?.push(token);
      least = Math.min(least, session.cachePages.free);
    }
    expect(got).toEqual(want.map((w) => [...w.tokens]));
    expect(least).toBe(0);
    expect(() => session.start(request(prompt(200), {}, { maxTokens: 100 }))).not.toThrow(); // 256 is the context
    using narrow = open({ cacheTokens: 128 });
    expect(() => narrow.start(request(prompt(100), {}, { maxTokens: 29 }))).toThrow(
      expect.objectContaining({ code: 'cache_full', details: { need: 3, limit: 2 } }),
    );
    expect(narrow.idle).toBe(true);
  });

  it('another seed samples another text, the same seed the same', () => {
    using session = open();
    const run = (seed: number): number[] => [
      ...(generateAll(session, [request(prompt(9), { temperature: 1, seed })])[0]?.tokens ?? []),
    ];
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
    expect(run(1)).not.toEqual(run(1 + 2 ** 32));
  });

  it('stops on a stop token, which is the last one, and nowhere else', () => {
    using session = open();
    const free = generateAll(session, [request(prompt(12), { temperature: 1, seed: 3 })])[0];
    const stop = free?.tokens[9] ?? -1;
    const first = free?.tokens.indexOf(stop) ?? -1;
    const stopped = generateAll(session, [
      request(prompt(12), { temperature: 1, seed: 3 }, { stop: new Set([stop]) }),
    ])[0];
    expect(stopped?.finish).toBe('stop');
    expect([...(stopped?.tokens ?? [])]).toEqual([...(free?.tokens.slice(0, first + 1) ?? [])]);
    expect(free).toMatchObject({ finish: 'length' });
    expect(free?.tokens.length).toBe(24);
  });

  it('ends at the capacity of the cache', () => {
    using session = open({ capacity: 20 });
    const out = generateAll(session, [request(prompt(15), {}, { maxTokens: 100 })])[0];
    // The last token need not be in the cache.
    expect(out).toMatchObject({ finish: 'length' });
    expect(out?.tokens.length).toBe(6);
  });

  it('cancelled sequences leave their slot to those that wait', () => {
    using session = open({ slots: 1 });
    const a = session.start(request(prompt(4)));
    const b = session.start(request(prompt(4, 1)));
    session.step();
    session.cancel(a);
    session.cancel(a);
    expect(session.step().map((s) => s.sequence)).toEqual([b]);
    session.cancel(b);
    expect(session.idle).toBe(true);
    expect(() => generateAll(session, [request(prompt(4))], AbortSignal.abort())).toThrow(
      expect.objectContaining({ name: 'AbortError' }),
    );
    expect(session.idle).toBe(true);
  });

  it.each([
    ['prompt_empty', request(new Int32Array(0))],
    ['prompt_too_long', request(prompt(256))],
    ['token_range', request(Int32Array.of(3, config.vocab_size))],
    ['token_range', request(Int32Array.of(-1))],
    ['max_tokens', request(prompt(3), {}, { maxTokens: 0 })],
  ])('%s', (code, options) => {
    using session = open();
    expect(() => session.start(options)).toThrow(expect.objectContaining({ code, exitCode: 2 }));
    expect(session.idle).toBe(true);
  });

  it('gives back its memory', () => {
    const before = memoryStats().totalLive;
    {
      using session = open();
      generateAll(session, [request(prompt(20))]);
    }
    expect(memoryStats().totalLive).toBe(before);
  });
});

describe.each(['f32', 'bf16'] as const)('scoring in %s', (precision) => {
  it('as serving runs it has the bits of the trainer', () => {
    const tokens = prompt(150, 2);
    using cache = new KvCache(config, 1, 200);
    const served = scoreTokens(model, null, tokens, { precision, cache });
    const rows = Int32Array.from({ length: 149 }, (_, i) => i);
    const trained = lossAndGradients(
      model,
      null,
      { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, 150) },
      { rows, targets: tokens.slice(1), weights: new Float32Array(149).fill(1) },
      { precision, seed: 1, grads: null, gradients: true },
    );
    expect(served).toEqual(trained.nll.map((x) => -x));
  });
});

describe('uniform', () => {
  it('is a function of seed and step, in [0, 1), exact in f32', () => {
    for (const seed of [0, 1, 2 ** 32, 2 ** 53 - 1])
      for (const step of [0, 1, 1e6]) {
        const u = uniform(seed, step);
        expect(u).toBe(uniform(seed, step));
        expect(Math.fround(u)).toBe(u);
        expect(u >= 0 && u < 1).toBe(true);
      }
  });
  it.each([
    ['over steps', (i: number) => uniform(7, i)],
    ['over seeds', (i: number) => uniform(i, 0)],
    ['over high seeds', (i: number) => uniform(i * 2 ** 32, 3)],
  ])('is even %s', (_, draw) => {
    const N = 40_000;
    const bins = new Float64Array(64);
    for (let i = 0; i < N; i++) {
      const b = Math.floor(draw(i) * 64);
      bins[b] = (bins[b] ?? 0) + 1;
    }
    const chi2 = bins.reduce((sum, n) => sum + (n - N / 64) ** 2 / (N / 64), 0);
    // 63 degrees of freedom: beyond 130 once in a million; a lattice would fall below 20.
    expect(chi2).toBeLessThan(130);
    expect(chi2).toBeGreaterThan(20);
  });
});
