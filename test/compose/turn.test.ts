// What generate and chat show of a turn, with a scripted engine and a scripted judge.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { continued, conversation, runTurn, turnExitCode, turnJson, wasWithheld } from '../../src/compose/turn.js';
import type { Message } from '../../src/harmony/types.js';
import type { Engine } from '../../src/infer/engine.js';
import type { EngineEvent } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';

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

function engineOf(messages: readonly Message[]): Engine {
  async function* generate(): AsyncGenerator<EngineEvent> {
    for (const m of messages)
      for (const text of m.content)
        yield { kind: 'text', channel: m.channel ?? 'unknown', recipient: m.recipient ?? null, text };
    yield {
      kind: 'done',
      finish: 'stop',
      messages,
      tokens: Int32Array.of(1),
      logprobs: Float32Array.of(0),
      usage: { promptTokens: 1, completionTokens: 1, prefillMs: 0, decodeMs: 0 },
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

async function turnOf(messages: readonly Message[], judge: Judge | null) {
  const shown: [string, string, boolean][] = [];
  const turn = await runTurn(
    engineOf(messages),
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
