// Guesses change no token and no bit: every request here is answered by sessions that guess wherever they can and by
// one that never does. When to guess is decided by times, which are made up here.
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { makeGrammar } from '../../src/infer/grammar/grammar.js';
import { TurnConstraint } from '../../src/infer/grammar/turn.js';
import { vocabularyOf } from '../../src/infer/grammar/vocabulary.js';
import { APART } from '../../src/infer/lookup.js';
import type { DoneEvent, GenerateRequest, TextEvent } from '../../src/infer/protocol.js';
import { Runner } from '../../src/infer/runner.js';
import { GREEDY, type Sampled, type Sampling, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import {
  type Drafter,
  MOST_DRAFTS,
  MOST_FORESEEN_ROWS,
  Speculation,
  type Stream,
} from '../../src/infer/speculation.js';
import { createSteer, type SteerOptions } from '../../src/infer/steer.js';
import { Track } from '../../src/infer/track.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const nano = join(packageRoot, 'models', 'nano');
const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir);
const tokenizer = loadTokenizer(nano, { vocabSize: config.vocab_size });
afterAll(() => {
  model.close();
  tokenizer.close();
});

const open = (options: Partial<SessionOptions>): Session =>
  new Session(model, { precision: 'bf16', slots: 4, capacity: 256, prefixes: 2, ...options });
/** Requests are made anew for each run, as what steers them remembers. */
type Make = () => readonly SequenceOptions[];
interface Ran {
  readonly answers: readonly (readonly Omit<Sampled, 'sequence'>[])[];
  readonly steps: number;
  readonly tokens: number;
  readonly usage: Session['usage'];
}
function run(make: Make, options: Partial<SessionOptions>): Ran {
  using session = open(options);
  const requests = make(),
    sequences = requests.map((r) => session.start(r)),
    answers: Omit<Sampled, 'sequence'>[][] = requests.map(() => []);
  let steps = 0;
  for (; !session.idle; steps++)
    for (const { sequence, ...told } of session.step()) answers[sequences.indexOf(sequence)]!.push(told);
  return { answers, steps, tokens: answers.flat().length, usage: session.usage };
}
/** Knows what comes, and is wrong now and then: where `wrong` says so, of a token's number. */
function oracle(make: Make, { answers }: Ran, wrong: (at: number) => boolean): Drafter {
  const known = new Map(make().map((r, i) => [r.tokens.join(), answers[i]!.map((a) => a.token)]));
  return {
    ready: () => true,
    read: () => {},
    end: () => {},
    draft: (streams, counts) =>
      streams.map(({ track }, i) => {
        const at = track.text.length - track.prompt.length;
        const next = known.get(track.prompt.join())!.slice(at, at + counts[i]!);
        return next.map((token, j) => (wrong(at + j) ? token ^ 1 : token));
      }),
  };
}
const ALWAYS = { speculation: { when: 'always' } } as const;
/** Without guesses, with those of the text alone, and with all kinds of right and wrong ones. */
function same(make: Make, options: Partial<SessionOptions> = {}): Ran {
  const plain = run(make, options),
    found = run(make, { ...options, ...ALWAYS }),
    drafter = oracle(make, plain, (at) => (at * 7) % 11 < 3),
    guessing = run(make, { ...options, speculation: { when: 'always', drafter } });
  expect(found.answers).toEqual(plain.answers);
  expect(guessing.answers).toEqual(plain.answers);
  expect(plain.usage).toMatchObject({ draftedTokens: 0, acceptedTokens: 0 });
  expect(guessing.usage.usedPages).toBe(guessing.usage.keptPages);
  return guessing;
}
const request = (
  tokens: Int32Array,
  sampling: Partial<Sampling> = {},
  more: Partial<SequenceOptions> = {},
): SequenceOptions => ({ tokens, maxTokens: 24, stop: new Set(), sampling: { ...GREEDY, ...sampling }, ...more });
/** A text that repeats. */
const repeating = (length: number, period: number, salt = 0): Int32Array => {
  const block = prompt(period, salt);
  return Int32Array.from({ length }, (_, i) => block[i % period]!);
};
const SAMPLINGS: readonly Partial<Sampling>[] = [
  {},
  { temperature: 0.4, seed: 1 },
  { temperature: 1, seed: 2 },
  { temperature: 1, topK: 3, seed: 3 },
  { temperature: 0.7, topP: 0.6, seed: 2 ** 40 + 5 },
  { temperature: 1.5, minP: 0.2, seed: 7 },
];

describe('a stream that is guessed has the bits of one that is not', () => {
  const mixed: Make = () =>
    SAMPLINGS.flatMap((s, i) => [
      request(repeating(30 + 9 * i, 3 + i, i), s),
      request(prompt(20 + i, i), s, { maxTokens: 1 + 5 * i }),
    ]);
  it.each([
    ['one at a time', { slots: 1 }],
    ['four at once', {}],
    ['sixteen at once, prompts in pieces', { slots: 16, prefillTokens: 16, yields: true }],
    ['exact products', { precision: 'f32' }],
    ['keys in bf16', { kvDtype: 'bf16' }],
    ['no recorded steps', { graphs: false }],
    ['no room to spare', { cacheTokens: 256 }],
  ] as readonly (readonly [string, Partial<SessionOptions>])[])('%s', (_, options) => {
    const { usage, steps, tokens } = same(mixed, options);
    expect(usage.acceptedTokens).toBeGreaterThan(20);
    expect(usage.draftedTokens).toBeGreaterThan(usage.acceptedTokens);
    if (options.slots === 1) expect(steps).toBeLessThan(tokens);
  });

  it('to the last token that it may have, and to the end of the context', () => {
    for (const maxTokens of [1, 2, 3, 5, 8, 9, 10])
      same(() => [request(repeating(40, 4), {}, { maxTokens })], { capacity: 44 + maxTokens });
    const { answers } = same(() => [request(repeating(40, 4), {}, { maxTokens: 100 })], { capacity: 61 });
    expect(answers[0]).toHaveLength(22);
    expect(answers[0]!.at(-1)!.finish).toBe('length');
  });
  it('at each of its tokens as a stop', () => {
    const [answer = []] = run(() => [request(repeating(40, 4))], {}).answers;
    for (const token of new Set(answer.map((a) => a.token)))
      same(() => [request(repeating(40, 4), {}, { stop: new Set([token]) })]);
  });
  it('from a kept prefix', () => {
    const make: Make = () =>
      [5, 9, 5].map((t) => request(Int32Array.from([...repeating(90, 5), t]), {}, { sharedTokens: 90 }));
    expect(same(make, { slots: 1 }).usage.prefixes).toBe(1);
  });

  const steers: Readonly<Record<string, SteerOptions>> = {
    'a bias': { bias: new Map([[40, 3]]) },
    penalties: { presencePenalty: 0.3, frequencyPenalty: 0.2 },
    'the most probable ones told': { top: 5 },
    'all of that': { bias: new Map([[7, -5]]), frequencyPenalty: 0.5, top: 3 },
  };
  it.each(Object.entries(steers))('steered: %s', (_, options) => {
    const body = tokenizer.special['<|message|>']!;
    const { usage } = same(() =>
      SAMPLINGS.map((s, i) =>
        request(Int32Array.from([...repeating(40, 3 + i, i), body]), s, { steer: createSteer(tokenizer, options) }),
      ),
    );
    expect(usage.draftedTokens).toBeGreaterThan(0);
  });
  it('held to a schema: a guess that may not come does not', () => {
    const vocabulary = vocabularyOf(tokenizer, config.vocab_size);
    const { grammar } = makeGrammar({ type: 'array', items: { enum: ['alpha', 'beta'] }, minItems: 8 });
    const ended = tokenizer.special['<|return|>']!;
    const make: Make = () =>
      SAMPLINGS.map((s, i) => {
        const structure = { vocabulary, final: grammar, calls: [], mustCall: false };
        const constraint = new TurnConstraint(structure, tokenizer);
        const steer = createSteer(tokenizer, { constraint });
        return request(prompt(30, i), s, { maxTokens: 120, steer, stop: new Set([ended]) });
      });
    const { usage, answers } = same(make);
    expect(usage.acceptedTokens).toBeGreaterThan(20);
    const text = answers.map((a) => tokenizer.decode(a.map((t) => t.token)));
    expect(text.filter((t) => /"(alpha|beta)"/.test(t)).length).toBeGreaterThan(0);
  });
  it.each([
    ['one at a time', { slots: 1 }],
    ['four at once, keys in bf16', { kvDtype: 'bf16', cacheTokens: 256 }],
  ] as readonly (readonly [string, Partial<SessionOptions>])[])(
    'of which the whole turn was foreseen: %s',
    (_, options) => {
      const make = (foreseen?: (i: number) => readonly number[]): readonly SequenceOptions[] =>
        SAMPLINGS.map((s, i) =>
          request(prompt(20 + i, i), s, {
            maxTokens: 40,
            ...(foreseen ? { foreseen: Int32Array.from(foreseen(i)) } : {}),
          }),
        );
      const plain = run(() => make(), options);
      const said = (i: number): readonly number[] => [
        ...prompt(20 + i, i).slice(-2),
        ...plain.answers[i]!.map((a) => a.token),
      ];
      // Just that; wrong in a place; wrong from a place on; two ways, the other one last.
      const ways: readonly ((i: number) => readonly number[])[] = [
        said,
        (i) => said(i).map((t, j) => (j === 12 ? t ^ 1 : t)),
        (i) => said(i).map((t, j) => (j < 9 ? t : t ^ 1)),
        (i) => [...said(i), APART, ...said(i).map((t, j) => (j < 15 ? t : t ^ 1))],
      ];
      for (const [n, way] of ways.entries())
        for (const when of ['auto', 'always'] as const) {
          const guessed = run(() => make(way), { ...options, speculation: { when } });
          expect(guessed.answers).toEqual(plain.answers);
          expect(guessed.usage.usedPages).toBe(guessed.usage.keptPages);
          // Six answers of 40 tokens in a few steps.
          if (n === 0) expect(guessed.usage.acceptedTokens).toBeGreaterThan(200);
          if (n === 0 && options.slots === 1) expect(guessed.steps).toBeLessThan(6 * 8);
        }
    },
  );
  it('ends at once, and leaves nothing', () => {
    using session = open(ALWAYS);
    const make: Make = () => [0, 1, 2].map((i) => request(repeating(40, 4, i), {}, { maxTokens: 60 }));
    const [first, ...others] = make().map((r) => session.start(r));
    const told = others.map(() => [] as number[]);
    for (let step = 0; !session.idle; step++) {
      if (step === 4) session.cancel(first!);
      for (const { sequence, token } of session.step()) told[others.indexOf(sequence)]?.push(token);
    }
    expect(session.usage).toMatchObject({ usedPages: 0, freeSlots: 4, running: 0 });
    const alone = run(make, { slots: 1 }).answers.map((a) => a.map((t) => t.token));
    expect(told).toEqual(alone.slice(1));
  });
});

describe('a turn that is guessed', async () => {
  const runner = async (speculation: 'always' | 'off'): Promise<Runner> =>
    Runner.open({ model: nano, contextTokens: 512, threads: 1, speculation });
  const plain = await runner('off'),
    guessing = await runner('always');
  afterAll(() => {
    plain.close();
    guessing.close();
  });
  const ask = async (of: Runner, more: Partial<GenerateRequest>): Promise<[DoneEvent, string]> => {
    const content = 'Please book a table for 4 people on friday at 19:30 for Rossi';
    const text: TextEvent[] = [];
    const done = (await of.handlers.generate(
      { messages: [{ role: 'user', content }], maxTokens: 80, sampling: { temperature: 0 }, ...more },
      { signal: new AbortController().signal, emit: (e: TextEvent) => void text.push(e) } as never,
    )) as DoneEvent;
    return [done, text.map((e) => e.text).join('')];
  };
  const asks: Readonly<Record<string, Partial<GenerateRequest>>> = {
    greedy: {},
    sampled: { sampling: { temperature: 1, seed: 4 } },
    'with a stop string': { prompt: 'a b c a b c a b c', stop: ['b c'] },
    'with log-probabilities': { topLogprobs: 3, sampling: { temperature: 0.5, seed: 9 } },
    'that repeats itself': { prompt: 'ab ab ab ab ab ab', repetitionStop: 4 },
    'with penalties': { frequencyPenalty: 0.4, presencePenalty: 0.2 },
  };
  it.each(Object.entries(asks))('%s: the same text and numbers', async (_, more) => {
    const [one, two] = [await ask(plain, more), await ask(guessing, more)];
    const { usage, ...rest } = two[0],
      { usage: wanted, ...told } = one[0];
    expect(rest).toEqual(told);
    expect(two[1]).toBe(one[1]);
    expect(usage.completionTokens).toBe(wanted.completionTokens);
    expect(wanted).not.toHaveProperty('draftedTokens');
  });
  it('is the same with a prediction, right or wrong, and a right one is taken', async () => {
    const [, said] = await ask(plain, {});
    const answer = (await ask(plain, {}))[0].messages.find((m) => m.channel === 'final')?.content ?? said;
    const accepted = async (prediction: string): Promise<number> => {
      const [done, text] = await ask(guessing, { prediction });
      expect(text).toBe(said);
      return done.usage.acceptedTokens ?? 0;
    };
    const [right, wrong] = [await accepted(answer), await accepted('Bread and butter. '.repeat(9))];
    expect(right).toBeGreaterThan(wrong);
  });
  it('is the same with turns foreseen, and the whole of one comes in a few steps', async () => {
    const [{ messages, usage }, said] = await ask(plain, {});
    const turn = messages.map(({ channel = '', content }) => ({ channel, content }));
    const other = turn.map(({ channel, content }) => ({ channel, content: content.replace(/[0-9]/, '?') }));
    for (const prediction of [[turn], [other, turn], [turn, other], [other], [[]], []]) {
      const [done, text] = await ask(guessing, { prediction });
      expect(text).toBe(said);
      if (prediction.at(-1) === turn) expect(done.usage.acceptedTokens).toBeGreaterThan(0.7 * usage.completionTokens);
    }
  });
  it('says how many guesses were right', async () => {
    const [{ usage }] = await ask(guessing, { prompt: 'ab ab ab ab ab ab', maxTokens: 60 });
    expect(usage.draftedTokens).toBeGreaterThan(0);
    expect(usage.acceptedTokens).toBeLessThanOrEqual(usage.draftedTokens!);
  });
});

describe('guesses are made where they pay', () => {
  const KIND = {};
  interface Made {
    readonly ms: number;
    readonly plainMs: number;
    readonly tokens: number;
    readonly guessed: number;
  }
  /** Streams of which `right(i)` says how often a guess comes true, with steps of `cost(rows)` ms. */
  function simulate(rights: readonly number[], cost: (rows: number) => number, tokensWanted = 600): Made[] {
    const speculation = new Speculation({ when: 'auto', clock: () => 0 });
    let state = 1;
    const random = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    const streams = rights.map((): Stream => {
      return { track: new Track(repeating(60, 6)), room: 50, slot: 0, params: [], uniform: () => 0 };
    });
    const got = rights.map(() => ({ ms: 0, tokens: 0, guessed: 0 }));
    while (got.some((g) => g.tokens < tokensWanted)) {
      const drafts = speculation.drafts(KIND, streams);
      const ms = cost(streams.length + drafts.flat().length);
      const outcomes = drafts.map((d, i) => {
        let n = 1;
        while (n <= d.length && random() < rights[i]!) n++;
        return { tokens: n, missed: n <= d.length };
      });
      speculation.ran(KIND, streams, drafts, outcomes, ms);
      outcomes.forEach(({ tokens }, i) => {
        got[i]!.ms += ms;
        got[i]!.tokens += tokens;
        got[i]!.guessed += drafts[i]!.length;
        for (let t = 0; t < tokens; t++) streams[i]!.track.took(repeating(7 + t, 6)[t % 6]!);
      });
    }
    return got.map((g) => ({ ...g, plainMs: g.tokens * cost(streams.length) }));
  }
  /** By how much a stream was faster. */
  const gain = ({ ms, plainMs }: Made): number => plainMs / ms;
  const cheap = (rows: number): number => 10 + 0.5 * rows;
  const dear = (rows: number): number => 10 * rows;

  it('right guesses of cheap rows: much faster', () => {
    const [one] = simulate([0.95], cheap);
    expect(gain(one!)).toBeGreaterThan(2.5);
  });
  it.each([
    ['wrong guesses', [0], cheap],
    ['seldom right, rows not cheap', [0.2], (rows: number) => 10 + 4 * rows],
    ['rows that cost what a step does, always right', [1], dear],
    ['rows that cost more than that', [0.9], (rows: number) => 10 * rows ** 1.3],
  ] satisfies readonly (readonly [string, number[], (rows: number) => number])[])(
    '%s: no slower than three per cent',
    (_, rights, cost) => {
      for (const made of simulate(rights, cost)) expect(gain(made)).toBeGreaterThan(0.97);
    },
  );
  it('a stream that is guessed well does not slow those beside it', () => {
    const made = simulate([1, 0, 0, 0], (rows) => 10 + 2 * rows, 800);
    for (const m of made) expect(gain(m)).toBeGreaterThan(0.97);
    const [good, ...others] = simulate([1, 0, 0, 0], (rows) => 20 + 0.05 * rows, 800);
    expect(gain(good!)).toBeGreaterThan(2);
    for (const m of others) expect(gain(m)).toBeGreaterThan(0.97);
  });
  it('what does not pay is seldom tried, and tried again', () => {
    const [short] = simulate([0], cheap, 300),
      [long] = simulate([0], cheap, 1500);
    expect(short!.guessed).toBeLessThan(60);
    expect(long!.guessed).toBeGreaterThan(short!.guessed);
    expect(long!.guessed).toBeLessThan(300);
  });
  it('keeps to the rows that a device has bits for, and to the room there is', () => {
    const stream = (room: number): Stream => ({
      track: new Track(repeating(60, 6)),
      room,
      slot: 0,
      params: [],
      uniform: () => 0,
    });
    const lengths = (streams: readonly Stream[], mostRows?: number): number[] =>
      new Speculation({ when: 'always', ...(mostRows === undefined ? {} : { mostRows }) })
        .drafts(KIND, streams)
        .map((d) => d.length);
    expect(lengths([stream(50)])).toEqual([MOST_DRAFTS]);
    expect(lengths([stream(3)])).toEqual([3]);
    expect(lengths([stream(0), stream(-1), stream(9)])).toEqual([0, 0, 7]);
    expect(lengths([stream(50), stream(50), stream(50)])).toEqual([6, 5, 5]);
    expect(lengths([stream(50), stream(50), stream(50)], 8)).toEqual([2, 2, 1]);
    expect(lengths([stream(50)], 1)).toEqual([0]);
  });
  describe('what is foreseen', () => {
    const said = prompt(60, 5);
    const stream = (foresees = true): Stream => ({
      track: new Track(Int32Array.from([...prompt(30, 1), ...said.slice(0, 3)]), foresees ? said : undefined),
      room: 100,
      slot: 0,
      params: [],
      uniform: () => 0,
    });
    const speculation = (mostRows?: number): Speculation =>
      new Speculation({ when: 'auto', clock: () => 0, ...(mostRows === undefined ? {} : { mostRows }) });
    const lengths = (of: Speculation, streams: readonly Stream[], right: number): number[] => {
      const drafts = of.drafts(KIND, streams);
      const outcomes = drafts.map((d) => ({ tokens: 1 + Math.min(right, d.length), missed: right < d.length }));
      of.ran(KIND, streams, drafts, outcomes, 1);
      return drafts.map((d) => d.length);
    };
    it('is checked at once, more of it the surer it is, whatever a step takes', () => {
      const sure = speculation();
      const [first = 0] = lengths(sure, [stream()], 99);
      expect(first).toBeGreaterThan(3);
      for (let i = 0; i < 12; i++) lengths(sure, [stream()], 99);
      expect(lengths(sure, [stream()], 99)).toEqual([57]);
      const several = lengths(sure, [stream(), stream(), stream()], 99);
      expect(several.reduce((a, b) => a + b)).toBe(MOST_FORESEEN_ROWS);
    });
    it('is let be where it does not come, and tried again', () => {
      const unsure = speculation();
      const tried = Array.from({ length: 400 }, () => lengths(unsure, [stream()], 0)[0]!);
      expect(tried.filter((n) => n > 0).length).toBeLessThan(40);
      expect(tried.slice(200).some((n) => n > 0)).toBe(true);
    });
    it('waits for nobody: beside a stream that foresees nothing times decide', () => {
      expect(lengths(speculation(), [stream(), stream(false)], 99)).toEqual([0, 0]);
      expect(lengths(speculation(8), [stream()], 99)).toEqual([0]);
    });
  });
});
