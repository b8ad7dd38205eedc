// Beginnings of prompts that are kept: who goes on from one has the bits of who computed it all, window layers and
// what lies beyond their window included.
import { afterAll, describe, expect, it } from 'vitest';
import { toConversation } from '../../src/harmony/chat.js';
import { renderPrompt } from '../../src/harmony/render.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { turnCuts } from '../../src/infer/cuts.js';
import { GREEDY, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir),
  tokenizer = loadTokenizer(dir, { vocabSize: config.vocab_size });
afterAll(() => {
  tokenizer.close();
  model.close();
});
const open = (prefixes: number): Session =>
  new Session(model, { precision: 'bf16', slots: 2, capacity: 600, prefillTokens: 48, prefixes });
interface Run {
  readonly bits: string;
  readonly cached: number;
}
function run(session: Session, tokens: Int32Array, cuts: readonly number[], shared = 0): Run {
  const options: SequenceOptions = {
    tokens,
    maxTokens: 8,
    stop: new Set(),
    sampling: { ...GREEDY, temperature: 1, seed: 5 },
    sharedTokens: shared,
    cuts,
  };
  const sequence = session.start(options);
  const out: number[] = [];
  while (!session.idle) for (const { token, logprob } of session.step()) out.push(token, logprob);
  return { bits: out.join(), cached: session.progress(sequence).cached };
}
const fresh = (tokens: Int32Array, cuts: readonly number[], shared = 0): string => {
  using session = open(0);
  return run(session, tokens, cuts, shared).bits;
};
/** The first `n` of one prompt, then another. */
const branch = (tokens: Int32Array, n: number, length: number): Int32Array =>
  Int32Array.from([...tokens.slice(0, n), ...prompt(length, 9)]);

describe('kept beginnings', () => {
  it('a conversation goes on from where its last prompt ended', () => {
    using session = open(4);
    const whole = prompt(430, 1);
    const turns = [130, 250, 430];
    let cached: number[] = [];
    for (const [i, end] of turns.entries()) {
      const tokens = whole.slice(0, end),
        cuts = turns.slice(0, i + 1);
      const got = run(session, tokens, cuts, 40);
      expect(got.bits).toBe(fresh(tokens, cuts, 40));
      cached = [...cached, got.cached];
    }
    expect(cached).toEqual([0, 130, 250]);
  });
  it('the longest that fits is taken, from any of several branches', () => {
    using session = open(8);
    const a = prompt(300, 1),
      b = branch(a, 150, 100);
    run(session, a, [150, 300], 40);
    expect(run(session, b, [150, 250], 40)).toEqual({ bits: fresh(b, [150, 250], 40), cached: 40 }); // 150 was not kept
    const c = branch(b, 250, 60);
    expect(run(session, c, [150, 250, 310], 40)).toEqual({ bits: fresh(c, [150, 250, 310], 40), cached: 250 });
    const d = branch(a, 300, 33);
    expect(run(session, d, [150, 300], 40)).toEqual({ bits: fresh(d, [150, 300], 40), cached: 300 });
  });
  it('one that was cut in other places is not: its bits may be others', () => {
    using session = open(8);
    const a = prompt(200, 1);
    run(session, a, [200], 40);
    const b = branch(a, 200, 30);
    expect(run(session, b, [100, 200], 40).cached).toBe(40);
    expect(run(session, b, [200], 0).cached).toBe(0);
    expect(run(session, b, [200], 40).cached).toBe(200);
  });
  it('what is kept goes when it is needed, and counts once where it is shared', () => {
    using session = new Session(model, {
      precision: 'bf16',
      slots: 1,
      capacity: 600,
      prefillTokens: 48,
      prefixes: 4,
      cacheTokens: 640,
    });
    const a = prompt(256, 1);
    run(session, a, [256], 128);
    const { usedPages, keptPages, prefixes } = session.usage;
    expect({ usedPages, keptPages, prefixes }).toEqual({ usedPages: 4, keptPages: 4, prefixes: 2 });
    const b = prompt(580, 2);
    expect(run(session, b, [580]).bits).toBe(fresh(b, [580]));
    expect(run(session, a, [256], 128).cached).toBe(0);
    expect(session.usage.usedPages).toBe(session.usage.keptPages);
  });
});

describe('prompts that grow', () => {
  const SHARED = 40;
  const growing = (prefixes: number): Session =>
    new Session(model, {
      ...{ precision: 'bf16', slots: 3, capacity: 700, prefillTokens: 512, prefixes },
      speculation: { when: 'auto' },
    });
  /** A text of `n` tokens behind the opening, and behind it what ends each question. */
  const question = (n: number, salt = 1): Int32Array =>
    Int32Array.from([...prompt(SHARED), ...prompt(n, salt), ...prompt(9, 50 + salt)]);
  const ask = (session: Session, tokens: Int32Array) => {
    const sequence = session.start({
      tokens,
      maxTokens: 6,
      stop: new Set(),
      sampling: { ...GREEDY, temperature: 1, seed: 5 },
      sharedTokens: SHARED,
      patient: true,
      growing: true,
    });
    const out: number[] = [];
    return { sequence, out };
  };
  /** Those at once. */
  function askAll(session: Session, all: readonly Int32Array[]): readonly Run[] {
    const asked = all.map((tokens) => ask(session, tokens));
    while (!session.idle)
      for (const { sequence, token, logprob } of session.step())
        asked.find((a) => a.sequence === sequence)?.out.push(token, logprob);
    return asked.map(({ sequence, out }) => ({ bits: out.join(), cached: session.progress(sequence).cached }));
  }
  function alone(tokens: Int32Array): string {
    using session = growing(0);
    return askAll(session, [tokens])[0]?.bits ?? '';
  }
  it('go on from where they differ, with the bits of who reads it all', () => {
    using session = growing(4);
    const lengths = [12, 30, 31, 90, 300, 460, 540, 600];
    const got = lengths.map((n) => askAll(session, [question(n)])[0]);
    expect(got.map((g) => g?.bits)).toEqual(lengths.map((n) => alone(question(n))));
    expect(got.map((g) => g?.cached)).toEqual([0, ...lengths.slice(0, -1).map((n) => SHARED + n)]);
    // Of one text the opening, and the last that it was.
    expect(session.usage.prefixes).toBe(2);
  });
  it('and do so beside each other, whatever they were kept by', () => {
    using session = growing(5);
    for (const n of [20, 50, 80]) {
      const all = [1, 2, 3].map((salt) => question(n + salt, salt));
      const got = askAll(session, all);
      expect(got.map((g) => g.bits)).toEqual(all.map(alone));
      expect(got.map((g) => g.cached)).toEqual(
        n === 20 ? [0, SHARED, SHARED] : [1, 2, 3].map((salt) => SHARED + n - 30 + salt),
      );
    }
    expect(session.usage.prefixes).toBe(4);
  });
  it('are kept where guesses leave rings room to take tokens back, and nowhere else', () => {
    using session = new Session(model, { precision: 'bf16', slots: 1, capacity: 200, prefixes: 4 });
    for (const n of [20, 50])
      expect(askAll(session, [question(n)])[0]).toEqual({ bits: alone(question(n)), cached: n === 20 ? 0 : SHARED });
  });
});

describe('where prompts are cut', () => {
  const words = 'Book a table for four people, please, by the window and not too late. '.repeat(6);
  const talk = (turns: number): Int32Array =>
    renderPrompt(
      {
        messages: toConversation({
          messages: Array.from({ length: 2 * turns - 1 }, (_, i) =>
            i % 2 === 0
              ? { role: 'user', content: `${i} ${words}` }
              : { role: 'assistant', content: `${i} Done`, reasoning_content: 'They want a table.' },
          ),
        }).messages,
      },
      tokenizer,
    );
  it('each prompt ends at a cut that is one of the next, too', () => {
    const all = [1, 2, 3, 4].map(talk);
    for (const [i, tokens] of all.entries()) {
      const cuts = turnCuts(tokens, tokenizer, 0);
      expect(cuts).toHaveLength(i + 1);
      expect(cuts.at(-1)).toBe(tokens.length);
      const next = all[i + 1];
      if (!next) continue;
      expect([...next.slice(0, tokens.length)]).toEqual([...tokens]);
      expect(turnCuts(next, tokenizer, 0).slice(0, i + 1)).toEqual(cuts);
    }
  });
  it('none is so close to the one before that a pass of its own costs more than it saves', () => {
    const { messages } = toConversation({
      messages: Array.from({ length: 21 }, (_, i) => ({ role: i % 2 ? 'assistant' : 'user', content: 'Hi' })),
    });
    const tokens = renderPrompt({ messages }, tokenizer);
    const cuts = [0, ...turnCuts(tokens, tokenizer, 0)];
    expect(cuts.length).toBeGreaterThan(2);
    for (let i = 1; i < cuts.length; i++) expect((cuts[i] ?? 0) - (cuts[i - 1] ?? 0)).toBeGreaterThanOrEqual(64);
  });
});
