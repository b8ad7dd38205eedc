// Tools and structure: calls out and in, answers and arguments that keep to schemas, by the official client over a real
// engine, and over an engine that writes what a test says.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { packageRoot } from '../../src/base/machine.js';
import { createChecker } from '../../src/infer/grammar/check.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { serve } from '../../src/serve/server.js';
import { scriptedApp, scriptedEngine, tokenizer, tokensOf } from './scripted.js';

const MODEL = join(packageRoot, 'models', 'nano');
// A model whose weights say nothing: whatever its grammar allows it writes.
const adapterDir = join(mkdtempSync(join(tmpdir(), 'tools-')), 'adapter');
{
  const model = openCheckpoint(MODEL);
  const spec = { rank: 2, alpha: 64, targets: ['attention', 'experts'], rsLora: false, dropout: 0 } as const;
  const adapter = createAdapter(model.config, adapterSpec(model.config, { ...spec, targets: [...spec.targets] }), {
    seed: 3,
  });
  adapter.params.write(adapter.params.toFloat32().map((x, i) => x || Math.sin(i) * 0.2));
  await writePeft(adapter, adapterDir, { baseModel: 'nano' });
  adapter.close();
  model.close();
}
const log: string[] = [];
const server = await serve({
  engine: { model: MODEL, threads: 1, device: 'cpu', contextTokens: 1024, slots: 8, adapters: { odd: adapterDir } },
  port: 0,
  log: (line) => log.push(line),
});
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
afterAll(() => server.close());

const user = (content: string): { role: 'user'; content: string }[] => [{ role: 'user', content }];
const ASK = 'Please book a table for 4 people on friday at 19:30 for Rossi';
const weather = {
  type: 'object',
  properties: {
    city: { type: 'string', maxLength: 12 },
    days: { type: 'integer', minimum: 1, maximum: 14 },
    unit: { enum: ['c', 'f'] },
  },
  required: ['city', 'days'],
  additionalProperties: false,
};
const tool = (name: string, strict = false): OpenAI.ChatCompletionFunctionTool => ({
  type: 'function',
  function: { name, description: 'Tells it', parameters: weather, strict },
});

describe('calls that must come', () => {
  it('go to a declared tool, with arguments of its schema, whole as in pieces', async () => {
    const check = createChecker(weather);
    for (const [model, choice] of [
      ['nano', 'required'],
      ['odd', 'required'],
      ['odd', { type: 'function', function: { name: 'get_rain' } }],
    ] as const) {
      const body = {
        model,
        messages: user(ASK),
        tools: [tool('get_weather'), tool('get_rain', true)],
        tool_choice: choice,
        temperature: 1,
        seed: 4,
        max_completion_tokens: 500,
      };
      const [whole] = (await client.chat.completions.create(body)).choices;
      if (whole?.finish_reason === 'length') continue; // it thought too long
      const [call] = whole?.message.tool_calls ?? [];
      if (call?.type !== 'function') throw new Error(`no call: ${JSON.stringify(whole)}`);
      expect(whole?.finish_reason).toBe('tool_calls');
      expect(check.check(call.function.arguments)).toBeNull();
      expect(['get_weather', 'get_rain']).toContain(call.function.name);
      if (typeof choice === 'object') expect(call.function.name).toBe('get_rain');
      let args = '',
        names = '',
        pieces = 0;
      for await (const part of await client.chat.completions.create({ ...body, stream: true }))
        for (const piece of part.choices[0]?.delta.tool_calls ?? []) {
          args += piece.function?.arguments ?? '';
          names += piece.function?.name ?? '';
          pieces++;
        }
      expect([names, args]).toEqual([call.function.name, call.function.arguments]);
      expect(pieces).toBeGreaterThan(1); // of its arguments as many as it had time for
    }
  });
});

describe('answers that keep to a schema', () => {
  const Booking = z.object({
    name: z.string().max(10),
    people: z.number().int().min(1).max(20),
    when: z.enum(['noon', 'evening']),
    notes: z.array(z.string().max(6)).max(2),
    confirmed: z.boolean().nullable(),
  });
  it("are parsed by the official client's zod helper, analysis free before them", async () => {
    let parsed = 0;
    for (const [model, seed] of [
      ['nano', 1],
      ['odd', 1],
      ['odd', 2],
    ] as const) {
      const answer = await client.chat.completions.parse({
        model,
        messages: user(ASK),
        temperature: 1,
        seed,
        max_completion_tokens: 700,
        response_format: zodResponseFormat(Booking, 'booking'),
      });
      const message = answer.choices[0]?.message;
      expect(message?.refusal).toBeNull();
      expect(Booking.parse(message?.parsed)).toEqual(JSON.parse(message?.content ?? ''));
      parsed++;
    }
    expect(parsed).toBe(3);
  });
  it('are any object where JSON is asked for, and arguments of strict tools are theirs', async () => {
    const [choice] = (
      await client.chat.completions.create({
        model: 'nano',
        messages: user(ASK),
        temperature: 0,
        max_completion_tokens: 400,
        response_format: { type: 'json_object' },
      })
    ).choices;
    if (choice?.finish_reason === 'stop') expect(JSON.parse(choice.message.content ?? '')).toBeTypeOf('object');
    const strict = zodFunction({ name: 'book', parameters: Booking });
    const called = await client.chat.completions.parse({
      model: 'odd',
      messages: user(ASK),
      temperature: 1,
      seed: 3,
      max_completion_tokens: 700,
      tools: [strict],
      tool_choice: { type: 'function', function: { name: 'book' } },
    });
    const [call] = called.choices[0]?.message.tool_calls ?? [];
    expect(Booking.parse(call?.function.parsed_arguments)).toBeTruthy();
  });
  it('what the grammar does not keep to is checked before anything leaves', async () => {
    // Half of what it may write is not: some are withheld, and no other leaves.
    const schema = {
      type: 'object',
      properties: { pick: { enum: ['a', 'b'], not: { const: 'a' } } },
      required: ['pick'],
      additionalProperties: false,
    };
    const format = { type: 'json_schema' as const, json_schema: { name: 's', schema } };
    const body = { model: 'odd', messages: user('Hi'), temperature: 1, max_completion_tokens: 400 };
    for (let seed = 0; seed < 4; seed++) {
      const [choice] = (await client.chat.completions.create({ ...body, seed, response_format: format })).choices;
      if (choice?.finish_reason === 'stop') expect(JSON.parse(choice.message.content ?? '')).toEqual({ pick: 'b' });
      else if (choice?.finish_reason === 'content_filter')
        expect(choice.message).toMatchObject({ content: null, refusal: expect.stringMatching(/schema/) as string });
      let text = '';
      const stream = await client.chat.completions.create({ ...body, seed, response_format: format, stream: true });
      for await (const part of stream) text += part.choices[0]?.delta.content ?? '';
      expect(text).toBe(choice?.message.content ?? '');
    }
  });
  it.each([
    [{ $dynamicRef: '#x' }, /\$dynamicRef/],
    [{ properties: { a: { pattern: '(?=x)' } } }, /#\/properties\/a: pattern/],
    [{ $ref: 'https://elsewhere.example/s' }, /another document/],
    [{ type: 'number', minimum: 3, maximum: 2 }, /no value/],
    [{ type: 'text' }, /type/],
  ])('%j is refused by name', async (schema, named) => {
    const format = { type: 'json_schema' as const, json_schema: { name: 's', schema, strict: true } };
    const given = client.chat.completions.create({ model: 'nano', messages: user('Hi'), response_format: format });
    await expect(given).rejects.toThrow(named);
    await expect(given).rejects.toMatchObject({ status: 400, param: 'response_format' });
    const tools = [{ type: 'function' as const, function: { name: 'f', parameters: schema, strict: true } }];
    await expect(client.chat.completions.create({ model: 'nano', messages: user('Hi'), tools })).rejects.toMatchObject({
      status: 400,
      param: 'tools',
    });
  });
});

describe('sampling', () => {
  const body = { model: 'odd', messages: user('Hi'), temperature: 1, seed: 9, max_completion_tokens: 60 };
  it('several answers: the first is the one that is given alone, the others differ', async () => {
    const one = await client.chat.completions.create(body);
    const many = await client.chat.completions.create({ ...body, n: 3 });
    const bare = (c: OpenAI.ChatCompletion.Choice | undefined): string => JSON.stringify(c).replaceAll(/call_\w+/g, '');
    expect(many.choices.map((c) => c.index)).toEqual([0, 1, 2]);
    expect(bare(many.choices[0])).toBe(bare(one.choices[0]));
    expect(new Set(many.choices.map((c) => bare({ ...c, index: 0 }))).size).toBe(3);
    expect(many.usage?.prompt_tokens).toBe(one.usage?.prompt_tokens);
    const texts = ['', '', ''];
    for await (const part of await client.chat.completions.create({ ...body, n: 3, stream: true }))
      for (const c of part.choices) texts[c.index] += c.delta.content ?? '';
    expect(texts).toEqual(many.choices.map((c) => c.message.content ?? ''));
  });
  const greedy = { model: 'nano', temperature: 0, messages: user(ASK), max_completion_tokens: 300 };
  const written = async (more: object): Promise<string> =>
    JSON.stringify(
      (await client.chat.completions.create({ ...greedy, temperature: 2, seed: 5, ...more })).choices[0]?.message,
    );
  it('log-probabilities of the tokens of the answer, which are its text', async () => {
    const answer = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 3 });
    const [choice] = answer.choices;
    const tokens = choice?.logprobs?.content ?? [];
    expect(Buffer.from(tokens.flatMap((t) => t.bytes ?? [])).toString()).toBe(choice?.message.content);
    for (const t of tokens) {
      expect(t.logprob).toBeLessThanOrEqual(0);
      expect(t.top_logprobs[0]?.logprob).toBeGreaterThanOrEqual(t.logprob - 1e-6);
    }
    // Greedy: the token is the most probable one, unless that is a control token.
    expect(tokens.filter((t) => t.top_logprobs[0]?.token === t.token).length).toBeGreaterThan(tokens.length * 0.9);
    let streamed: unknown[] = [];
    const stream = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 3, stream: true });
    for await (const part of stream) streamed = [...streamed, ...(part.choices[0]?.logprobs?.content ?? [])];
    expect(streamed).toEqual(tokens);
  });
  it('ends before a text, wherever its tokens are cut, in the answer alone', async () => {
    const whole = (await client.chat.completions.create(greedy)).choices[0]?.message.content ?? '';
    for (const [from, to] of [
      [3, 5],
      [5, 12],
      [8, 9],
    ] as const) {
      const stop = whole.slice(from, to);
      const [cut] = (await client.chat.completions.create({ ...greedy, stop })).choices;
      expect(cut?.message.content ?? '').toBe(whole.slice(0, whole.indexOf(stop)));
      expect(cut?.finish_reason).toBe('stop');
      let text = '';
      for await (const part of await client.chat.completions.create({ ...greedy, stop: ['☃', stop], stream: true }))
        text += part.choices[0]?.delta.content ?? '';
      expect(text).toBe(cut?.message.content ?? '');
    }
  });
  it('bias keeps a token out; a block that comes again and again ends the answer', async () => {
    const answer = await client.chat.completions.create({ ...greedy, logprobs: true });
    const [first] = answer.choices[0]?.logprobs?.content ?? [];
    const token = [...tokenizer.encode(answer.choices[0]?.message.content ?? '')][0] as number;
    expect(tokenizer.decode([token])).toBe(first?.token);
    const other = await client.chat.completions.create({ ...greedy, logprobs: true, logit_bias: { [token]: -100 } });
    expect(other.choices[0]?.logprobs?.content?.map((t) => t.token)).not.toContain(first?.token);
    // Nothing but one token.
    const dull = await client.chat.completions.create({
      ...greedy,
      logit_bias: { [token]: 100 },
      ...({ repetition_stop: 4 } as object),
    });
    expect(dull.usage?.completion_tokens).toBe(16);
    expect(dull.choices[0]?.finish_reason).toBe('length');
    expect(await written({ frequency_penalty: 2 })).not.toBe(await written({}));
  });
  it('said nothing of the server itself', () => {
    expect(log).toEqual([]);
  });
});

const declared = [tool('get_weather'), tool('get_rain')];
const post = (written: string, more: object = {}): ReturnType<ReturnType<typeof scriptedApp>['json']> =>
  scriptedApp(scriptedEngine(() => tokensOf(written)).engine).json('/v1/chat/completions', {
    model: 'm',
    messages: user('Hi'),
    tools: declared,
    ...more,
  });

describe('calls that a model writes', () => {
  const call = (arguments_: string): object => ({
    function: { name: 'get_weather', arguments: arguments_ },
    type: 'function',
  });
  it.each([
    ['as harmony has it', '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"a":1}<|call|>'],
    ['recipient first', ' to=functions.get_weather<|channel|>commentary json<|message|>{"a":1}<|call|>'],
    ['among thoughts', '<|channel|>analysis to=functions.get_weather<|message|>{"a":1}<|call|>'],
    ['on final', '<|channel|>final to=functions.get_weather<|message|>{"a":1}<|call|>'],
    ['its type glued to it', '<|channel|>commentary to=functions.get_weatherjson<|message|>{"a":1}<|call|>'],
    ['its namespace forgotten', '<|channel|>commentary to=get_weather<|message|>{"a":1}<|call|>'],
    ['ended as a message', '<|channel|>commentary to=functions.get_weather<|message|>{"a":1}<|end|>'],
  ])('%s', async (_, written) => {
    const { choices } = (await post(written)) as { choices: object[] };
    expect(choices[0]).toMatchObject({
      finish_reason: /<\|end\|>/.test(written) ? 'length' : 'tool_calls',
      message: { content: null, tool_calls: [call('{"a":1}')] },
    });
  });
  it('of what nobody declared are none', async () => {
    for (const more of [{}, { tools: [] }, { tool_choice: 'none' }]) {
      const to = Object.keys(more).length === 0 ? 'browser.search' : 'functions.get_weather';
      const written = `<|channel|>commentary to=${to}<|message|>{"a":1}<|call|>`;
      const { choices } = (await post(written, more)) as { choices: { message: object; finish_reason: string }[] };
      expect(choices[0]?.finish_reason).toBe('stop');
      expect(choices[0]?.message).not.toHaveProperty('tool_calls');
      expect(choices[0]?.message).toMatchObject({ content: null });
    }
  });
  it('come back with their results and their thoughts, which go when an answer is given', async () => {
    const scripted = scriptedEngine(() => tokensOf('<|channel|>final<|message|>ok<|return|>'));
    const { json } = scriptedApp(scripted.engine);
    const history = [
      { role: 'user', content: 'Rain?' },
      {
        role: 'assistant',
        content: null,
        reasoning_content: 'I must look.',
        tool_calls: [
          { id: 'c1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Bern"}' } },
          { id: 'c2', type: 'function', function: { name: 'get_rain', arguments: '{}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'c2', content: 'none' },
      { role: 'tool', tool_call_id: 'c1', content: 'sun' },
    ];
    await json('/v1/chat/completions', { model: 'm', messages: history, tools: declared, parallel_tool_calls: true });
    const told = scripted.requests[0]?.messages.slice(2).map((m) => [m.name ?? m.recipient ?? m.channel, m.content]);
    expect(told).toEqual([
      [undefined, 'Rain?'],
      ['analysis', 'I must look.'],
      ['functions.get_weather', '{"city":"Bern"}'],
      ['functions.get_rain', '{}'],
      ['functions.get_rain', 'none'],
      ['functions.get_weather', 'sun'],
    ]);
  });
});

describe('whatever a model writes', () => {
  // More of them, and others: scripts/fuzz.mjs.
  const OUTPUTS = Number(process.env.TEMPER_FUZZ ?? 1000);
  it(`${OUTPUTS} outputs: each is answered, each stream ends, and no control token is text`, {
    timeout: 600_000,
  }, async () => {
    let seed = Number(process.env.TEMPER_FUZZ_SEED ?? 11);
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % n;
    };
    const pieces = [
      ...Object.keys(tokenizer.special).filter((s) => !s.includes('reserved')),
      ...['assistant', 'analysis', 'final', 'commentary', ' to=functions.get_weather', ' to=functions.', 'json', '{'],
      ...['"a"', ':', '}', '\n', 'é', '☃', ' to=', 'tool', 'functions.get_rain', '<|channel|', '|>'],
    ].map((s) => tokensOf(s));
    const output = (): readonly number[] =>
      Array.from({ length: 1 + next(14) }, () =>
        next(3) > 0 ? (pieces[next(pieces.length)] ?? []) : [next(tokenizer.vocabSize)],
      ).flat();
    const { engine } = scriptedEngine(output);
    const { post: ask, log: faults } = scriptedApp(engine);
    const control = Object.keys(tokenizer.special);
    let calls = 0,
      streams = 0;
    for (let i = 0; i < OUTPUTS; i++) {
      const stream = i % 2 === 1;
      const body = { model: 'm', messages: user('Hi'), stream, tools: declared, logprobs: i % 5 === 0, stop: 'zz' };
      const response = await ask('/v1/chat/completions', body);
      const text = await response.text();
      if (response.status !== 200) throw new Error(`status ${response.status}: ${text}`);
      if (stream) {
        if (!text.endsWith('data: [DONE]\n\n')) throw new Error(`no end: ${text}`);
        streams++;
      } else if (text.includes('"tool_calls"')) calls++;
      // What was no control token, but spells like one, is text.
      for (const c of control) if (c !== '<|channel|>' && text.includes(c)) throw new Error(`${c} in ${text}`);
    }
    expect(faults).toEqual([]);
    expect(streams).toBe(OUTPUTS / 2);
    expect(calls).toBeGreaterThan(OUTPUTS / 100);
  });
});
