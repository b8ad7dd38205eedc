// What generate and chat show of a turn, with a scripted engine and a scripted judge.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  continued,
  conversation,
  noAnswer,
  runTurn,
  turnExitCode,
  turnJson,
  unjudgedReasons,
  wasWithheld,
} from '../../src/compose/turn.js';
import type { Message } from '../../src/harmony/types.js';
import type { Engine } from '../../src/infer/engine.js';
import type { DoneEvent, EngineEvent } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import { transcript } from '../../src/safeguard/transcript.js';
import { type Judge, JudgeFailure, type UnjudgedCause } from '../../src/safeguard/types.js';

const policy = definePolicy('numbers', 'N1: a digit');
const sober: Judge = {
  name: 's',
  digest: 'd',
  judge: async ({ content, nonce }) => ({
    text: renderVerdict({ rule: /[0-9]/.test(content) ? 'N1' : null, nonce }),
    finish: 'stop',
    rationale: `it says ${content}`,
  }),
};
const mute: Judge = { name: 'm', digest: 'd', judge: async () => ({ text: '', finish: 'stop' }) };

function engineOf(messages: readonly Message[], finish: DoneEvent['finish'] = 'stop'): Engine {
  async function* generate(): AsyncGenerator<EngineEvent> {
    for (const [message, m] of messages.entries())
      for (const text of m.content)
        yield {
          kind: 'text',
          message,
          role: m.role,
          channel: m.channel ?? 'unknown',
          recipient: m.recipient ?? null,
          text,
        };
    yield {
      kind: 'done',
      finish,
      cut: null,
      messages,
      tokens: Int32Array.of(1),
      logprobs: Float32Array.of(0),
      usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0, reasoningTokens: 0, prefillMs: 0, decodeMs: 0 },
    };
  }
  return { generate } as unknown as Engine;
}
const say = (channel: string, content: string, recipient?: string): Message => ({
  role: 'assistant',
  channel,
  content,
  ...(recipient ? { recipient } : {}),
});

async function turnOf(messages: readonly Message[], judge: Judge | null, finish: DoneEvent['finish'] = 'stop') {
  const shown: [string, string, boolean][] = [];
  const turn = await runTurn(
    engineOf(messages, finish),
    { messages: [] },
    judge ? createScreen({ policies: [policy], judge }) : null,
    (...piece) => {
      shown.push(piece);
    },
    new AbortController().signal,
  );
  return { turn, shown, code: turnExitCode(turn), json: JSON.stringify(turnJson(turn)) };
}

describe('a turn', () => {
  it('without a policy streams as it comes', async () => {
    const { shown, code } = await turnOf([say('analysis', 'a1'), say('final', 'b')], null);
    expect(shown).toEqual([
      ['analysis', 'a', false],
      ['analysis', '1', false],
      ['final', 'b', false],
    ]);
    expect(code).toBe(0);
  });
  it('clean: both channels are released', async () => {
    const { shown, code, json } = await turnOf([say('analysis', 'thinking'), say('final', 'done')], sober);
    expect(shown).toEqual([
      ['analysis', 'thinking', false],
      ['final', 'done', false],
    ]);
    expect(code).toBe(0);
    expect(JSON.parse(json)).toMatchObject({ outcome: 'allow', channels: { analysis: 'thinking', final: 'done' } });
  });
  it.each([
    ['a final that violates, under a clean trace', say('analysis', 'fine'), say('final', 'secret 7'), 'final'],
    ['a trace that violates, under a clean final', say('analysis', 'secret 7'), say('final', 'fine'), 'analysis'],
  ])('%s: that channel alone is withheld, in text and in JSON', async (_, a, b, withheld) => {
    const { shown, code, json } = await turnOf([a, b], sober);
    expect(shown.find(([channel]) => channel === withheld)).toEqual([
      withheld,
      `[${withheld} withheld: policy numbers, rule N1]`,
      true,
    ]);
    expect(shown.find(([channel]) => channel !== withheld)?.[1]).toBe('fine');
    expect(code).toBe(10);
    expect(json).not.toContain('secret');
    expect(JSON.parse(json)).toMatchObject({ outcome: 'block', channels: { [withheld]: { withheld: true } } });
  });
  it('a judge that says nothing: nothing is shown, exit code 30', async () => {
    const { shown, code, json } = await turnOf([say('analysis', 'secret'), say('final', 'secret')], mute);
    expect(shown.map(([, text]) => text)).toEqual([
      '[analysis withheld: not judged (empty)]',
      '[final withheld: not judged (empty)]',
    ]);
    expect(code).toBe(30);
    expect(json).not.toContain('secret');
  });
  it('a recipient is judged with the call it heads', async () => {
    const { shown, code, json } = await turnOf([say('commentary', '{}', 'functions.call_0171')], sober);
    expect(shown).toEqual([['commentary', '[commentary withheld: policy numbers, rule N1]', true]]);
    expect(code).toBe(10);
    expect(json).not.toContain('0171');
  });
  it('an unknown channel name is not repeated', async () => {
    const { json } = await turnOf([say('5secret', 'x1')], sober);
    expect(json).not.toContain('secret');
    expect(JSON.parse(json)).toMatchObject({ channels: { other: { withheld: true } } });
  });
});

describe('a turn without an answer', () => {
  const call = (m: Message): Message => ({ ...m, recipient: 'functions.f' });
  const turns: readonly (readonly [string, readonly Message[], DoneEvent['finish'], number])[] = [
    ['a final', [say('analysis', 'hm'), say('final', 'done')], 'stop', 0],
    ['a final that was cut off', [say('final', 'do')], 'length', 0],
    ['a call of a tool', [say('analysis', 'hm'), call(say('commentary', '{}'))], 'call', 0],
    ['nothing', [], 'stop', 20],
    ['analysis alone', [say('analysis', 'I should say')], 'stop', 20],
    ['cut off in the analysis', [say('analysis', 'I sho')], 'length', 20],
    ['an empty final', [say('final', '')], 'stop', 20],
    ['a blank final', [say('final', ' \n')], 'stop', 20],
    ['no channel', [{ role: 'assistant', content: 'The table is booked.' }], 'stop', 20],
    ['an unknown channel', [say('Final', 'x')], 'stop', 20],
    ['a final of somebody else', [{ role: 'tool', name: 'f', channel: 'final', content: 'x' }], 'stop', 20],
    ['a call without a recipient', [say('commentary', '{}')], 'call', 20],
    ['a call that was cut off', [call(say('commentary', '{"a'))], 'length', 20],
  ];
  it.each(turns)('%s', async (_, messages, finish, code) => {
    for (const judge of [null, sober]) {
      const { turn } = await turnOf(messages, judge, finish);
      // With nothing to judge nothing is withheld either.
      expect(turnExitCode(turn)).toBe(code);
      expect(turnJson(turn)).toMatchObject({ answered: code === 0 });
      expect(noAnswer(turn) === null).toBe(code === 0);
      if (finish === 'length' && code === 20) expect(noAnswer(turn)).toContain('--max-tokens');
    }
  });
  it('what is withheld comes first', async () => {
    expect((await turnOf([say('analysis', 'a 7')], sober)).code).toBe(10);
    expect((await turnOf([say('analysis', 'a')], mute)).code).toBe(30);
  });
});

describe('several messages of one channel', () => {
  const answer = [
    say('analysis', 'one'),
    say('analysis', 'two'),
    say('final', 'Booked.'),
    say('final', 'Booked.'),
    say('commentary', '{}', 'functions.f'),
    say('commentary', '{}', 'functions.f'),
  ];
  it('are streamed as they are judged: each from a line of its own', async () => {
    const { shown } = await turnOf(answer, null);
    const streamed: Record<string, string> = {};
    for (const [channel, text] of shown) streamed[channel] = (streamed[channel] ?? '') + text;
    expect(streamed).toEqual({
      analysis: 'one\ntwo',
      final: 'Booked.\nBooked.',
      commentary: 'to=functions.f {}\nto=functions.f {}',
    });
    expect(streamed).toEqual(transcript(answer));
  });
});

describe('why nothing was judged', () => {
  const failing = (reason: UnjudgedCause, message: string): Judge => ({
    ...sober,
    judge: async () => {
      throw new JudgeFailure(reason, message);
    },
  });
  it('is told once for each cause, in text and in JSON', async () => {
    const { turn, json } = await turnOf(
      [say('analysis', 'aa'), say('final', 'bb')],
      failing('http_status', 'judge x: answered 401: bad key'),
    );
    expect(unjudgedReasons(turn)).toEqual(['not judged (http_status): judge x: answered 401: bad key']);
    expect(json).toContain('answered 401: bad key');
  });
  it("without a judge's own words, which may quote what is withheld", async () => {
    const quoting: Judge = { ...sober, judge: async () => ({ text: 'it says frq, backwards', finish: 'stop' }) };
    const { turn, json } = await turnOf([say('final', 'qrf')], quoting);
    expect(unjudgedReasons(turn)).toHaveLength(1);
    expect(json + unjudgedReasons(turn).join('')).not.toContain('backwards');
  });
});

describe('the conversation goes on', () => {
  const user: Message = { role: 'user', content: 'hi' };
  it('with what was released, and without a turn of which something was withheld', async () => {
    const answer = [say('analysis', 'fine'), say('commentary', '{}', 'functions.f'), say('final', 'done')];
    const { turn } = await turnOf(answer, sober);
    expect(wasWithheld(turn)).toBe(false);
    expect(continued([], user, turn)).toEqual([user, answer[0], answer[2]]);
    const { turn: blocked } = await turnOf([say('analysis', 'secret 7'), say('final', 'done')], sober);
    expect(wasWithheld(blocked)).toBe(true);
    expect(continued([user], user, blocked)).toEqual([user]);
  });
});

it('whatever the model writes, only text that a judge saw and allowed is shown, in text and in JSON', async () => {
  const field = fc.string({ maxLength: 8 });
  const message = fc.record(
    {
      role: fc.constantFrom('assistant', 'assistant', 'user', 'tool', 'developer'),
      channel: fc.oneof(fc.constantFrom('analysis', 'commentary', 'final'), field),
      recipient: field,
      name: field,
      contentType: field,
      // What is forbidden is marked so that it can be found again.
      content: fc.oneof(
        field,
        fc.nat(99).map((n) => `⟪secret ${n}⟫`),
      ),
    },
    { requiredKeys: ['role', 'content'] },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(message, { maxLength: 6 }), async (messages) => {
      const allowed = new Set<string>();
      const judge: Judge = {
        name: 'j',
        digest: 'd',
        judge: async ({ content, nonce }) => {
          const bad = content.includes('⟪');
          if (!bad) allowed.add(content);
          return { text: renderVerdict({ rule: bad ? 'N1' : null, nonce }), finish: 'stop' };
        },
      };
      const { shown, json, code } = await turnOf(messages as Message[], judge);
      for (const [, text, withheld] of shown) expect(withheld || allowed.has(text)).toBe(true);
      expect(json).not.toContain('⟪');
      expect(shown.some(([, text]) => text.includes('⟪'))).toBe(false);
      expect(code).toBe(messages.some((m) => Object.values(m).some((v) => v.includes('⟪'))) ? 10 : code);
    }),
    { numRuns: 300 },
  );
});

it('a turn ends the conversation it began with: system, developer, turns', () => {
  const user: Message = { role: 'user', content: 'hi' };
  const messages = conversation({ system: 'Be brief', effort: 'low' }, [user]);
  expect(messages.map((m) => m.role)).toEqual(['system', 'developer', 'user']);
  expect(messages[0]?.content).toContain('Reasoning: low');
  expect(messages[1]?.content).toBe('# Instructions\n\nBe brief');
  expect(conversation({ effort: 'medium' }, [user]).map((m) => m.role)).toEqual(['system', 'user']);
});
