// Prompts that are given as a text or as tokens: what is written goes on from there, and thoughts stay thoughts.
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { toConversation } from '../../src/harmony/chat.js';
import { renderPrompt } from '../../src/harmony/render.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { createTracker, isConversation } from '../../src/infer/channels.js';
import type { DoneEvent, GenerateRequest } from '../../src/infer/protocol.js';
import { Runner } from '../../src/infer/runner.js';

const MODEL = join(packageRoot, 'models', 'nano');
const tokenizer = loadTokenizer(MODEL);
const runner = await Runner.open({ model: MODEL, threads: 1, device: 'cpu', contextTokens: 512 });
afterAll(() => {
  runner.close();
  tokenizer.close();
});
const run = async (request: Omit<GenerateRequest, 'messages'> & Partial<GenerateRequest>): Promise<DoneEvent> => {
  const { generate } = runner.handlers;
  const signal = new AbortController().signal;
  const greedy = { messages: [], maxTokens: 120, sampling: { temperature: 0 }, ...request };
  return (await generate(greedy, { signal, emit: () => {} })) as DoneEvent;
};
const { messages } = toConversation({
  messages: [{ role: 'user', content: 'Please book a table for 4 people on friday at 19:30 for Rossi' }],
});
const said = (done: DoneEvent): readonly unknown[] => done.messages.map((m) => [m.channel, m.content]);

describe('a prompt of tokens', () => {
  it('that are a conversation is answered as the conversation is', async () => {
    const asked = await run({ messages });
    const given = await run({ prompt: renderPrompt({ messages }, tokenizer) });
    expect(said(given)).toEqual(said(asked));
    expect([...given.tokens]).toEqual([...asked.tokens]);
    expect(given.usage).toMatchObject({
      promptTokens: asked.usage.promptTokens,
      reasoningTokens: asked.usage.reasoningTokens,
    });
  });
  it('goes on in the middle of a message, on its channel', async () => {
    const whole = await run({ messages });
    const prompt = renderPrompt({ messages }, tokenizer);
    // Half of the thoughts are given: what is written first is the other half, and no answer.
    const given = whole.tokens.slice(0, 8);
    const rest = await run({ prompt: Int32Array.of(...prompt, ...given) });
    expect([...given, ...rest.tokens]).toEqual([...whole.tokens]);
    const [first] = whole.messages;
    expect(rest.messages[0]?.channel).toBe('analysis');
    expect(first?.content.endsWith(rest.messages[0]?.content ?? 'x')).toBe(true);
    expect(rest.messages[0]?.content.length).toBeLessThan(first?.content.length ?? 0);
    expect(said(rest).slice(1)).toEqual(said(whole).slice(1));
  });
});

describe('a prompt of text', () => {
  it('is gone on with as text, and says nothing of channels', async () => {
    const text = 'Please book a table for';
    const done = await run({ prompt: text, maxTokens: 12 });
    expect(done.messages.length).toBeLessThanOrEqual(1);
    expect(done.messages.every((m) => m.channel === 'final' && m.role === 'assistant')).toBe(true);
    const same = await run({ prompt: tokenizer.encode(text), maxTokens: 12 });
    expect([...same.tokens]).toEqual([...done.tokens]);
    // Ended by the first control token, whichever it is.
    expect([...done.tokens].slice(0, -1).some((t) => tokenizer.isSpecial(t))).toBe(false);
    expect(done.usage.promptTokens).toBe(tokenizer.encode(text).length);
  });
  it('that names control tokens is text', () => {
    expect(isConversation(tokenizer.encode('<|start|>assistant<|channel|>final<|message|>'), tokenizer)).toBe(false);
    expect(isConversation(renderPrompt({ messages }, tokenizer), tokenizer)).toBe(true);
  });
  it('that is empty is how a document begins', async () => {
    expect((await run({ prompt: '', maxTokens: 2 })).usage.promptTokens).toBe(1);
  });
});

it('messages are counted from where the prompt ends', () => {
  const ids = tokenizer.special as Record<string, number>;
  const of = (text: string): number[] =>
    text.split(/(<\|\w+\|>)/).flatMap((s) => (ids[s] === undefined ? [...tokenizer.encode(s)] : [ids[s] as number]));
  const before = of('<|start|>user<|message|>hi<|end|><|start|>assistant<|channel|>final<|message|>One');
  const tracker = createTracker(tokenizer, [], Int32Array.from(before));
  const deltas = of(' two<|end|><|start|>assistant<|channel|>final<|message|>three<|return|>').flatMap((t) => [
    ...tracker.push(t),
  ]);
  const texts = ['', ''];
  for (const d of deltas) texts[d.message] += d.text;
  expect(texts).toEqual([' two', 'three']);
  expect(tracker.end().messages.map((m) => m.content)).toEqual([' two', 'three']);
});
