// What decides beside the sampling, against a plain computation over the uncached model's logits.
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { uniform } from '../../src/infer/random.js';
import { LEAST_TOKENS, Repetition } from '../../src/infer/repetition.js';
import { GREEDY, type Sampled, type Sampling, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { createSteer, largest, type Steer } from '../../src/infer/steer.js';
import { greedily } from '../../src/infer/steered.js';
import { StopStrings } from '../../src/infer/stop-strings.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits } from '../../src/model/gpt-oss.js';
import { Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir);
const tokenizer = loadTokenizer(`${packageRoot}/models/nano`);
afterAll(() => {
  model.close();
  tokenizer.close();
});
const V = config.vocab_size;

function nextLogits(tokens: readonly number[]): Float64Array {
  using s = new Scope();
  const T = tokens.length;
  const hidden = forwardHidden(
    s,
    model,
    null,
    { tokens: Int32Array.from(tokens), positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, T) },
    { precision: 'f32', rows: Int32Array.of(T - 1) },
  );
  return Float64Array.from(logits(s, model, hidden, 'f32').toFloat32());
}
const softmaxOf = (z: Float64Array): Float64Array => {
  const max = z.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = z.reduce((a, b) => a + Math.exp(b - max), 0);
  return z.map((v) => v - max - Math.log(sum));
};
/** What the op says, in plain words. */
function choose(z: Float64Array, s: Sampling, step: number): number {
  const best = z.reduce((a, b) => Math.max(a, b), -Infinity);
  if (s.temperature === 0) return z.indexOf(best);
  let ids = [...z.keys()].filter((v) => z[v]! > -Infinity).sort((a, b) => z[b]! - z[a]! || a - b);
  if (s.topK > 0) ids = ids.slice(0, s.topK);
  const mass = (v: number): number => Math.exp((z[v]! - best) / s.temperature);
  let total = ids.reduce((a, v) => a + mass(v), 0);
  if (s.topP < 1) {
    let reached = 0,
      n = 0;
    while (n < ids.length && (n === 0 || reached < s.topP * total)) reached += mass(ids[n++]!);
    ids = ids.slice(0, n);
  }
  ids = ids.filter((v) => mass(v) >= s.minP).sort((a, b) => a - b);
  total = ids.reduce((a, v) => a + mass(v), 0);
  const u = uniform(s.seed, step);
  let walked = 0;
  for (const v of ids) {
    walked += mass(v);
    if (walked > u * total) return v;
  }
  return ids.at(-1)!;
}
const run = (requests: readonly SequenceOptions[]): Sampled[][] => {
  using session = new Session(model, { precision: 'f32', slots: 4, capacity: 128 });
  const sequences = requests.map((r) => session.start(r));
  const out: Sampled[][] = requests.map(() => []);
  while (!session.idle) for (const s of session.step()) out[sequences.indexOf(s.sequence)]?.push(s);
  return out;
};
const request = (sampling: Partial<Sampling>, steer: Steer | null, salt = 0): SequenceOptions => ({
  tokens: prompt(12, salt),
  maxTokens: 14,
  stop: new Set(),
  sampling: { ...GREEDY, ...sampling },
  steer,
});
const opens = tokenizer.special['<|message|>']!;
const warm: Partial<Sampling> = { temperature: 1, topK: 40, topP: 0.9, minP: 0.02, seed: 77 };

describe('bias, penalties, masks and log-probabilities are what a plain computation says', () => {
  it.each([
    ['greedy', {}],
    ['sampled', warm],
  ])('%s', (_, sampling) => {
    const bias = new Map([
      [5, 4],
      [9, -3],
    ]);
    const only = new Int32Array(Math.ceil(V / 32)).fill(-1);
    for (let t = 100; t < 300; t++) only[t >> 5]! &= ~(1 << (t & 31));
    let step = 0;
    const first = new Int32Array(only.length);
    first[opens >> 5] = 1 << (opens & 31); // a body begins
    const maskAt = (i: number): Int32Array | null => (i === 0 ? first : i < 4 ? null : only);
    const constraint = { mask: () => maskAt(step), took: () => void step++ };
    const options = { bias, presencePenalty: 0.7, frequencyPenalty: 0.4, top: 5, constraint };
    const [out = []] = run([request(sampling, createSteer(tokenizer, options))]);
    const text = [...prompt(12)];
    const counts = new Map<number, number>();
    let inBody = false;
    for (const [i, { token, logprob, top }] of out.entries()) {
      const raw = nextLogits(text);
      const logp = softmaxOf(raw);
      const z = raw.slice();
      for (const [t, by] of bias) z[t]! += by;
      for (const [t, n] of counts) z[t]! -= 0.7 + 0.4 * n;
      const mask = maskAt(i);
      if (mask) for (let t = 0; t < V; t++) if (!((mask[t >> 5]! >> (t & 31)) & 1)) z[t] = -Infinity;
      expect(token).toBe(choose(z, { ...GREEDY, ...sampling }, i));
      expect(Math.abs(logprob - logp[token]!)).toBeLessThan(1e-4);
      const best = [...logp.keys()].sort((a, b) => logp[b]! - logp[a]!).slice(0, 5);
      expect(top?.map((c) => c.token)).toEqual(best);
      for (const c of top ?? []) expect(Math.abs(c.logprob - logp[c.token]!)).toBeLessThan(1e-4);
      if (inBody && !tokenizer.isSpecial(token)) counts.set(token, (counts.get(token) ?? 0) + 1);
      if (tokenizer.isSpecial(token)) inBody = token === opens;
      text.push(token);
    }
    expect(counts.size).toBeGreaterThan(2);
  });
  it('others beside a steered one have the bits that they have alone, and so has it', () => {
    const make = (): Steer | null => createSteer(tokenizer, { bias: new Map([[7, 5]]), top: 3, presencePenalty: 1 });
    const requests = (): SequenceOptions[] => [request(warm, null, 1), request(warm, make(), 2), request({}, null, 3)];
    const plain = ({ token, logprob, top }: Sampled): unknown => ({ token, logprob, top });
    const together = run(requests()).map((r) => r.map(plain));
    const alone = requests().map((r) => run([r])[0]?.map(plain));
    expect(together).toEqual(alone);
    // A steer that wishes nothing changes nothing.
    const idle: Steer = { wish: () => null, took: () => {} };
    expect(run([request(warm, idle, 1)])[0]?.map(plain)).toEqual(alone[0]);
    expect(createSteer(tokenizer, {})).toBeNull();
  });
  it('at temperature 0 the token that leads is found without the others, or another may', () => {
    const values = [0, 1, 2, 2.5, -1, NaN, Infinity, -Infinity],
      lead = (z: Float32Array): number =>
        z.reduce((best, x, i) => (Number.isFinite(x) && !(x <= z[best]!) ? i : best), z.findIndex(Number.isFinite));
    let seed = 3,
      found = 0;
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    for (let i = 0; i < 2000; i++) {
      const raw = Float32Array.from({ length: 6 }, (_, j) => (j === 0 ? 0 : values[next(values.length)]!));
      const add = new Map(Array.from({ length: 1 + next(4) }, () => [next(8), values[next(5)]! - 0.5]));
      const z = raw.map((x, t) => x + (add.get(t) ?? 0));
      const token = greedily(raw, add, lead(raw));
      if (token === null) continue;
      expect(token).toBe(lead(z));
      found++;
    }
    expect(found).toBeGreaterThan(1000);
  });
  it('the largest, in order, the lower place first, without NaN', () => {
    const z = Float32Array.from([1, NaN, 3, 3, -Infinity, 2, 3]);
    expect(largest(z, 4)).toEqual([2, 3, 6, 5]);
    expect(largest(z, 0)).toEqual([]);
    expect(largest(z, 20)).toEqual([2, 3, 6, 5, 0]);
  });
});

describe('texts that end an answer', () => {
  /** Character by character: it ends where one is first complete, the longest of them. */
  const plain = (text: string, stops: readonly string[]): string => {
    for (let i = 1; i <= text.length; i++) {
      const found = stops.filter((s) => text.slice(0, i).endsWith(s)).sort((a, b) => b.length - a.length)[0];
      if (found !== undefined) return text.slice(0, i - found.length);
    }
    return text;
  };
  it('are found however the text is cut, and nothing of them leaves', () => {
    let seed = 5;
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    const word = (n: number): string => Array.from({ length: 1 + next(n) }, () => 'ab\n'[next(3)]).join('');
    let stopped = 0;
    for (let i = 0; i < 1500; i++) {
      const stops = Array.from({ length: 1 + next(3) }, () => word(4));
      const text = word(20);
      const strings = new StopStrings(stops);
      let out = '';
      for (let at = 0; at < text.length; ) {
        const n = 1 + next(4);
        out += strings.push(text.slice(at, at + n));
        at += n;
      }
      out += strings.rest();
      expect(out).toBe(plain(text, stops));
      if (strings.stopped) stopped++;
    }
    expect(stopped).toBeGreaterThan(500);
  });
});

describe('going round in circles', () => {
  const endsAt = (tokens: readonly number[], times: number): number => {
    const r = new Repetition(times);
    return tokens.findIndex((t) => r.push(t));
  };
  it('is told when a block stands so many times, and not before', () => {
    const block = Array.from({ length: 10 }, (_, i) => i);
    const text = [99, 98, ...block, ...block, ...block, ...block];
    expect(endsAt(text, 3)).toBe(2 + 30 - 1);
    expect(endsAt(text, 4)).toBe(2 + 40 - 1);
    expect(endsAt(text, 5)).toBe(-1);
    // One token many times: it must be long enough to be no row of dots.
    expect(
      endsAt(
        Array.from({ length: 40 }, () => 3),
        4,
      ),
    ).toBe(LEAST_TOKENS - 1);
    expect(
      endsAt(
        Array.from({ length: 300 }, (_, i) => i),
        2,
      ),
    ).toBe(-1);
  });
});

it('penalties count the tokens of plain text from the first, and of messages those of their bodies', () => {
  const penalties = { presencePenalty: 0.25, frequencyPenalty: 0.5 };
  const [plain, messages] = [createSteer(tokenizer, { ...penalties, plain: true }), createSteer(tokenizer, penalties)];
  for (const steer of [plain, messages]) for (const token of [300, 301, 300]) steer?.took(token);
  expect([...(plain?.wish()?.add ?? [])]).toEqual([
    [300, -1.25],
    [301, -0.75],
  ]);
  expect(messages?.wish()).toBe(null);
});
