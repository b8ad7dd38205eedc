// The clients that people have, unchanged, over a port: OpenAI's for responses, Anthropic's, the AI SDK, the Agents
// SDK.
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { createAdaptorServer } from '@hono/node-server';
import { Agent, tool as agentTool, OpenAIProvider, Runner } from '@openai/agents';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { packageRoot } from '../../src/base/machine.js';
import { toConversation } from '../../src/harmony/chat.js';
import { renderPrompt } from '../../src/harmony/render.js';
import { serve } from '../../src/serve/server.js';
import { scriptedApp, scriptedEngine, tokenizer, tokensOf } from './scripted.js';

const CALLS =
  '<|channel|>analysis<|message|>I look it up.<|end|><|start|>assistant to=functions.look<|channel|>commentary ' +
  '<|constrain|>json<|message|>{"at": "Rome"}<|call|>';
const SAYS =
  '<|channel|>analysis<|message|>It is 12.<|end|><|start|>assistant<|channel|>final<|message|>12 degrees.<|return|>';
/** It calls where nothing was answered yet, and then it answers. */
const scripted = scriptedEngine(({ messages }) => tokensOf(messages.at(-1)?.role === 'tool' ? SAYS : CALLS));
const { app, log, admission } = scriptedApp(scripted.engine);
const http = createAdaptorServer({ fetch: app.fetch });
await new Promise<void>((done) => http.listen(0, '127.0.0.1', done));
const baseURL = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;

const nano = await serve({
  engine: { model: join(packageRoot, 'models', 'nano'), threads: 1, device: 'cpu', contextTokens: 512, slots: 2 },
  port: 0,
});
afterAll(async () => {
  http.close();
  await nano.close();
});
const openai = (url: string): OpenAI => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
const anthropic = (url: string): Anthropic => new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 });
const ASK = 'Please book a table for 4 people on friday at 19:30 for Rossi';
const running = async (): Promise<string | undefined> =>
  /^temper_requests_running (\d+)$/m.exec(await (await fetch(`${nano.url}/metrics`)).text())?.[1];

describe('openai, responses', () => {
  const client = openai(nano.url);
  const body = { model: 'nano', input: ASK, temperature: 0, max_output_tokens: 120 } as const;
  it('gets in a stream what it gets whole, and what chat says', async () => {
    const whole = await client.responses.create(body);
    const chat = await client.chat.completions.create({
      model: 'nano',
      temperature: 0,
      max_completion_tokens: 120,
      messages: [{ role: 'user', content: ASK }],
    });
    expect(whole.status).toBe('completed');
    expect(whole.output_text).toBe(chat.choices[0]?.message.content);
    expect(whole.usage).toMatchObject({
      input_tokens: chat.usage?.prompt_tokens,
      output_tokens: chat.usage?.completion_tokens,
    });
    const { temperature: _, max_output_tokens: __, ...asked } = body;
    expect((await client.responses.inputTokens.count(asked)).input_tokens).toBe(whole.usage?.input_tokens);
    const stream = client.responses.stream(body);
    let text = '';
    stream.on('response.output_text.delta', (e) => {
      text += e.delta;
    });
    const final = await stream.finalResponse();
    expect([text, final.output_text]).toEqual([whole.output_text, whole.output_text]);
    expect((await client.responses.retrieve(final.id)).output).toEqual(
      final.output.map((item) => expect.objectContaining({ id: item.id }) as unknown),
    );
    const items = await client.responses.inputItems.list(final.id);
    expect(items.data).toMatchObject([{ role: 'user', content: [{ text: ASK }] }]);
    const next = await client.responses.create({ ...body, input: 'Thanks', previous_response_id: final.id });
    expect(next.usage?.input_tokens).toBeGreaterThan(whole.usage?.input_tokens ?? 0);
    const after = { ...asked, input: 'Thanks', previous_response_id: final.id };
    expect((await client.responses.inputTokens.count(after)).input_tokens).toBe(next.usage?.input_tokens);
    await client.responses.delete(final.id);
    await expect(client.responses.retrieve(final.id)).rejects.toMatchObject({ status: 404 });
  });
  it('ends a stream, and its place comes back', async () => {
    for (let i = 0; i < 3; i++) {
      const stream = await client.responses.create({ ...body, stream: true });
      for await (const event of stream) if (event.type === 'response.output_item.added') break;
    }
    await expect.poll(running, { timeout: 2000, interval: 20 }).toBe('0');
  });
  it('goes on with a text', async () => {
    const completion = await client.completions.create({
      model: 'nano',
      prompt: 'Please book',
      max_tokens: 5,
      temperature: 0,
    });
    let text = '';
    for await (const part of await client.completions.create({
      model: 'nano',
      prompt: 'Please book',
      max_tokens: 5,
      temperature: 0,
      stream: true,
    }))
      text += part.choices[0]?.text ?? '';
    expect(text).toBe(completion.choices[0]?.text);
    expect(completion.usage?.completion_tokens).toBeGreaterThan(0);
  });
  it('makes one in the background, watches it from any event on, and cancels it', async () => {
    const begun = await client.responses.create({ ...body, background: true });
    expect(begun).toMatchObject({ status: 'queued', background: true });
    const events = await client.responses.retrieve(begun.id, { stream: true });
    const types: string[] = [];
    let text = '';
    for await (const e of events) {
      types.push(e.type);
      if (e.type === 'response.output_text.delta') text += e.delta;
    }
    expect(types.slice(0, 2)).toEqual(['response.created', 'response.queued']);
    expect(types.at(-1)).toBe('response.completed');
    const kept = await client.responses.retrieve(begun.id);
    expect([kept.status, kept.output_text]).toEqual(['completed', text]);
    const rest = await client.responses.retrieve(begun.id, { stream: true, starting_after: types.length - 2 });
    const last: string[] = [];
    for await (const e of rest) last.push(e.type);
    expect(last).toEqual(['response.completed']);
    const long = await client.responses.create({ ...body, background: true, max_output_tokens: 400 });
    expect(['cancelled', 'completed']).toContain((await client.responses.cancel(long.id)).status);
    const head = await fetch(`${nano.url}/v1/responses/${begun.id}?stream=true`, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-type')]).toEqual([200, 'application/json']);
    const include = ['message.output_text.logprobs' as const];
    expect((await client.responses.retrieve(begun.id, { include })).id).toBe(begun.id);
    const items = await client.responses.inputItems.list(begun.id, { order: 'asc', limit: 1, include });
    expect(items.data).toMatchObject([{ type: 'message', role: 'user' }]);
    await client.responses.delete(begun.id);
    await expect(client.responses.retrieve(begun.id)).rejects.toMatchObject({ status: 404 });
  });
  it('goes on with several texts as with each alone; a prompt has its own log-probabilities', async () => {
    const ask = { model: 'nano', max_tokens: 8, seed: 3, n: 2 } as const;
    const both = await client.completions.create({ ...ask, prompt: ['The table is', 'Rossi'] });
    const alone = await client.completions.create({ ...ask, prompt: 'Rossi' });
    expect(both.choices.map((c) => c.index)).toEqual([0, 1, 2, 3]);
    expect(both.choices.slice(2).map((c) => c.text)).toEqual(alone.choices.map((c) => c.text));
    const prompt = [...tokenizer.encode('for 4 people on friday')];
    const read = await client.completions.create({ model: 'nano', prompt, echo: true, max_tokens: 0, logprobs: 1 });
    const [choice] = read.choices;
    expect(choice?.text).toBe('for 4 people on friday');
    expect(choice?.logprobs?.token_logprobs?.length).toBe(prompt.length);
    expect(choice?.logprobs?.token_logprobs?.slice(1).every((p) => p < 0)).toBe(true);
    const best = await client.completions.create({ ...ask, n: 1, best_of: 3, prompt: 'Rossi', logprobs: 0 });
    expect(best.choices).toHaveLength(1);
    expect(best.usage?.completion_tokens).toBeGreaterThan(8);
  });
  it('goes on with a conversation in tokens, and says none of its thoughts', async () => {
    const { messages } = toConversation({ messages: [{ role: 'user', content: ASK }] });
    const prompt = [...renderPrompt({ messages }, tokenizer)];
    const asked = { model: 'nano', prompt, max_tokens: 120, temperature: 0 };
    const completion = await client.completions.create(asked);
    const { output_text } = await client.responses.create(body);
    expect(completion.choices).toMatchObject([{ text: output_text, finish_reason: 'stop' }]);
    expect(completion.usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(0);
  });
});

const weather = {
  type: 'object',
  properties: { city: { type: 'string', maxLength: 8 }, days: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const Weather = z.strictObject({ city: z.string().max(8), days: z.int().min(1).max(9) });
// Their newest types have no temperature; the API has one.
const greedy = { temperature: 0, max_tokens: 300, model: 'nano', messages: [{ role: 'user' as const, content: ASK }] };
describe('what a turn is held to, in each form', () => {
  it('an answer of a schema', async () => {
    const responses = await openai(nano.url).responses.create({
      model: 'nano',
      input: ASK,
      temperature: 0,
      max_output_tokens: 300,
      text: { format: { type: 'json_schema', name: 'weather', schema: weather, strict: true } },
    });
    expect(responses.status).toBe('completed');
    expect(Weather.parse(JSON.parse(responses.output_text))).toBeDefined();
    expect(responses.text?.format).toMatchObject({ type: 'json_schema', name: 'weather' });
    const message = await anthropic(nano.url).messages.create({
      ...greedy,
      output_config: { format: { type: 'json_schema', schema: weather } },
    });
    const [text] = message.content;
    expect(Weather.parse(JSON.parse(text?.type === 'text' ? text.text : ''))).toBeDefined();
  });
  it('a text that ends it, and what the tokens were worth', async () => {
    const whole = await openai(nano.url).responses.create({ model: 'nano', input: ASK, temperature: 0 });
    const word = whole.output_text.split(' ')[2] ?? '';
    const message = await anthropic(nano.url).messages.create({
      ...greedy,
      stop_sequences: ['that nobody says', word],
    });
    expect([message.stop_reason, message.stop_sequence]).toEqual(['stop_sequence', word]);
    const [said] = message.content;
    expect(said).toMatchObject({ type: 'text', text: whole.output_text.slice(0, whole.output_text.indexOf(word)) });
    const completion = await openai(nano.url).completions.create({
      model: 'nano',
      prompt: 'Please book a',
      max_tokens: 4,
      temperature: 0,
      logprobs: 2,
    });
    const [choice] = completion.choices;
    expect(choice?.logprobs?.tokens?.join('')).toBe(choice?.text);
    expect(choice?.logprobs?.text_offset?.[0]).toBe(0);
    expect(choice?.logprobs?.token_logprobs?.every((l) => l <= 0)).toBe(true);
    expect(Object.keys(choice?.logprobs?.top_logprobs?.[0] ?? {}).length).toBeLessThanOrEqual(2);
  });
});

describe('anthropic', () => {
  it('answers, streams, counts and stops', async () => {
    const client = anthropic(nano.url);
    const body = {
      model: 'nano',
      max_tokens: 120,
      messages: [{ role: 'user' as const, content: ASK }],
      temperature: 0,
      thinking: { type: 'enabled' as const, budget_tokens: 5000 },
    };
    const whole = await client.messages.create(body);
    expect(whole.stop_reason).toBe('end_turn');
    expect(whole.content.map((b) => b.type)).toEqual(['thinking', 'text']);
    const streamed = await client.messages.stream(body).finalMessage();
    expect(streamed.content).toEqual(whole.content.map((b) => expect.objectContaining(b) as unknown));
    expect(streamed.usage.output_tokens).toBe(whole.usage.output_tokens);
    const { input_tokens } = await client.messages.countTokens({ model: 'nano', messages: body.messages });
    expect(input_tokens).toBe(whole.usage.input_tokens + (whole.usage.cache_read_input_tokens ?? 0));
    const stream = client.messages.stream(body);
    for await (const event of stream) if (event.type === 'content_block_delta') break;
    await expect.poll(running, { timeout: 2000, interval: 20 }).toBe('0');
    await expect(client.messages.create({ ...body, model: 'claude' })).rejects.toBeInstanceOf(Anthropic.NotFoundError);
  });
  it('runs tools by itself: it asks for a thread first, and is told to send all of it', async () => {
    const asked: string[] = [];
    const look = betaZodTool({
      name: 'look',
      description: 'Looks.',
      inputSchema: z.object({ at: z.string() }),
      run: ({ at }) => {
        asked.push(at);
        return '12 C';
      },
    });
    const last = await anthropic(baseURL).beta.messages.toolRunner({
      model: 'm',
      max_tokens: 100,
      tools: [look],
      messages: [{ role: 'user', content: 'How warm is it?' }],
    });
    expect(asked).toEqual(['Rome']);
    expect(last.content).toMatchObject([{ type: 'text', text: '12 degrees.' }]);
  });
  it('calls a tool, and hands thoughts and result back', async () => {
    const client = anthropic(baseURL);
    const ask = { role: 'user' as const, content: 'How warm is it?' };
    const base = {
      model: 'm',
      max_tokens: 100,
      thinking: { type: 'enabled' as const, budget_tokens: 5000 },
      tools: [{ name: 'look', input_schema: { type: 'object' as const, properties: { at: { type: 'string' } } } }],
    };
    const first = await client.messages.create({ ...base, messages: [ask] });
    const use = first.content.find((b) => b.type === 'tool_use');
    if (use?.type !== 'tool_use') throw new Error('no call');
    expect(use).toMatchObject({ name: 'look', input: { at: 'Rome' } });
    const second = await client.messages.create({
      ...base,
      messages: [
        ask,
        { role: 'assistant', content: first.content },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: '12 C' }] },
      ],
    });
    expect(second.content).toMatchObject([{ type: 'thinking' }, { type: 'text', text: '12 degrees.' }]);
    const asked = scripted.requests.at(-1)?.messages ?? [];
    expect(asked.map((m) => m.channel ?? m.role)).toEqual([
      'system',
      'developer',
      'user',
      'analysis',
      'commentary',
      'commentary',
    ]);
  });
});

describe('the AI SDK', () => {
  const model = createOpenAICompatible({ name: 'temper', baseURL: `${baseURL}/v1`, includeUsage: true })('m');
  const tools = {
    look: tool({
      description: 'Looks.',
      inputSchema: z.object({ at: z.string() }),
      execute: async ({ at }) => `12 C at ${at}`,
    }),
  };
  const asked = { model, tools, prompt: 'How warm is it?', stopWhen: stepCountIs(3) };
  it('runs a loop of calls, whole and streamed', async () => {
    const { text, steps, reasoningText } = await generateText(asked);
    expect([text, steps.length, reasoningText]).toEqual(['12 degrees.', 2, 'It is 12.']);
    expect(scripted.requests.at(-1)?.messages.at(-1)).toMatchObject({
      name: 'functions.look',
      content: '12 C at Rome',
    });
    const stream = streamText(asked);
    let streamed = '';
    for await (const piece of stream.textStream) streamed += piece;
    expect(streamed).toBe('12 degrees.');
    expect((await stream.totalUsage).outputTokens).toBeGreaterThan(0);
  });
});

describe('the Agents SDK', () => {
  const look = agentTool({
    name: 'look',
    description: 'Looks.',
    parameters: z.object({ at: z.string() }),
    execute: async ({ at }) => `12 C at ${at}`,
  });
  const agent = new Agent({ name: 'a', instructions: 'Be brief.', model: 'm', tools: [look] });
  it.each([true, false])('runs an agent with a tool; over responses: %s', async (useResponses) => {
    const modelProvider = new OpenAIProvider({ baseURL: `${baseURL}/v1`, apiKey: 'none', useResponses });
    const runner = new Runner({ modelProvider, tracingDisabled: true });
    const result = await runner.run(agent, 'How warm is it?');
    expect(result.finalOutput).toBe('12 degrees.');
    const streamed = await runner.run(agent, 'How warm is it?', { stream: true });
    let events = 0;
    for await (const _ of streamed) events++;
    await streamed.completed;
    expect(streamed.finalOutput).toBe('12 degrees.');
    expect(events).toBeGreaterThan(3);
  });
  it('left nothing behind', () => {
    expect([log, admission.running]).toEqual([[], 0]);
  });
});
