// Each answer, each event and each error of each API is of the published shape: whole and streamed, whatever was asked
// for beside, withheld or not.
import { afterEach, describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { TemperError } from '../../src/base/errors.js';
import type { Engine } from '../../src/infer/engine.js';
import type { TokenInfo } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createScreen } from '../../src/safeguard/screen.js';
import { type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';
import {
  AnthropicError,
  AnthropicEvent,
  AnthropicMessage,
  ChatCompletion,
  ChatCompletionChunk,
  Completion,
  CompletionChunk,
  MessageTokensCount,
  Model,
  ModelList,
  OpenAiError,
  ResponseDeleted,
  ResponseItemList,
  ResponseObject,
  ResponseStreamEvent,
} from './shapes.js';

type Json = Record<string, unknown>;
const THINKS = '<|channel|>analysis<|message|>I look it up in Rome.<|end|><|start|>assistant';
const WRITES: Readonly<Record<string, string>> = {
  answer: `${THINKS}<|channel|>final<|message|>Four 🦊, then.<|return|>`,
  'answer alone': '<|channel|>final<|message|>Four<|return|>',
  'thoughts alone': '<|channel|>analysis<|message|>Hm.<|return|>',
  nothing: '<|return|>',
  words: 'so that all of them lead there<|endoftext|>',
  call: `${THINKS} to=functions.look<|channel|>commentary <|constrain|>json<|message|>{"at": "Rome"}<|call|>`,
  'words and a call':
    '<|channel|>commentary<|message|>A moment.<|end|>' +
    '<|start|>assistant to=functions.look<|channel|>commentary <|constrain|>json<|message|>{"at": "Rome"}<|call|>',
  'no arguments': '<|channel|>commentary to=functions.look<|message|><|call|>',
  'cut thoughts': '<|channel|>analysis<|message|>I look',
  'cut answer': `${THINKS}<|channel|>final<|message|>Fo`,
  'cut call': `${THINKS} to=functions.look<|channel|>commentary<|message|>{"at"`,
};
const schema = { type: 'object', properties: { at: { type: 'string' } } };
const chat = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };
const tool = { type: 'function', function: { name: 'look', parameters: schema } };
const messages = { ...chat, max_tokens: 100 };
const anthropicTool = { name: 'look', input_schema: schema };
const format = { type: 'json_schema', json_schema: { name: 'a', schema } };

interface Form {
  readonly path: string;
  readonly whole: z.ZodType;
  readonly event: z.ZodType;
  /** What may be asked for. */
  readonly bodies: readonly Json[];
  readonly error: z.ZodType;
}
const FORMS: readonly Form[] = [
  {
    path: '/v1/chat/completions',
    whole: ChatCompletion,
    event: ChatCompletionChunk,
    error: OpenAiError,
    bodies: [
      chat,
      { ...chat, tools: [tool], stream_options: { include_usage: true }, reasoning_effort: 'low' },
      { ...chat, tools: [tool], n: 3, logprobs: true, top_logprobs: 2, seed: 1, stop: ['never'] },
      { ...chat, tools: [tool], tool_choice: 'none', response_format: { type: 'json_object' } },
      { ...chat, response_format: format },
    ],
  },
  {
    path: '/v1/responses',
    whole: ResponseObject,
    event: ResponseStreamEvent,
    error: OpenAiError,
    bodies: [
      { model: 'm', input: 'hi' },
      {
        ...{ model: 'm', input: [{ role: 'user', content: 'hi' }], instructions: 'Be kind.', store: false },
        ...{ include: ['reasoning.encrypted_content'], metadata: { a: 'b' }, max_output_tokens: 50, top_p: 0.9 },
        tools: [{ type: 'function', name: 'look', parameters: schema, strict: false }],
      },
      {
        ...{ model: 'm', input: 'hi', reasoning: { effort: 'high' }, parallel_tool_calls: false, temperature: 0 },
        tools: [{ type: 'function', name: 'look', description: 'Looks.', parameters: schema, strict: true }],
        tool_choice: { type: 'function', name: 'look' },
      },
      { model: 'm', input: 'hi', text: { format: { type: 'json_schema', name: 'a', schema } } },
      { model: 'm', input: 'hi', text: { format: { type: 'json_object' } } },
    ],
  },
  {
    path: '/v1/messages',
    whole: AnthropicMessage,
    event: AnthropicEvent,
    error: AnthropicError,
    bodies: [
      messages,
      { ...messages, thinking: { type: 'enabled', budget_tokens: 1024 }, tools: [anthropicTool], system: 'Be kind.' },
      {
        ...messages,
        tools: [anthropicTool],
        tool_choice: { type: 'any' },
        temperature: 0.5,
        metadata: { user_id: 'u' },
      },
      { ...messages, output_config: { format: { type: 'json_schema', schema } }, stop_sequences: [] },
    ],
  },
  {
    path: '/v1/completions',
    whole: Completion,
    event: CompletionChunk,
    error: OpenAiError,
    bodies: [
      { model: 'm', prompt: 'a' },
      { model: 'm', prompt: [1, 2], logprobs: 2, max_tokens: 9, stream_options: { include_usage: true } },
      { model: 'm', prompt: ['a', 'b'], n: 2, stop: ['never'], seed: 1 },
    ],
  },
];

/** Tells log-probabilities where they are asked for, as the engine does. */
const likely = (engine: Engine): Engine => ({
  ...engine,
  async *generate(request, signal) {
    const all: TokenInfo[] = [];
    for await (const event of engine.generate(request, signal)) {
      if (request.topLogprobs === undefined) yield event;
      else if (event.kind === 'done') yield { ...event, answer: all };
      else {
        const one = { token: 1, bytes: Buffer.from(event.text), logprob: -0.5 };
        const half = { token: 2, bytes: Uint8Array.of(0xf0, 0x9f), logprob: -9 };
        const told = event.channel === 'analysis' ? [] : [{ ...one, top: [one, half] }];
        all.push(...told);
        yield { ...event, tokens: told };
      }
    }
  },
});
const screen = (blocks: RegExp) =>
  createScreen({
    policies: [{ name: 'p', text: 'P1: none', rules: ['P1'], digest: 'x' }],
    judge: {
      name: 'j',
      digest: 'j',
      judge: async ({ content, nonce }) => ({
        text: renderVerdict({ rule: blocks.test(content) ? 'P1' : null, nonce }),
        finish: 'stop',
      }),
    },
  });
const SETTINGS = {
  'no policy': {},
  'thoughts kept here': { reasoning: 'never' as const },
  'all allowed': { screen: screen(/nothing/), reasoning: 'allowed' as const },
  withheld: { screen: screen(/./) },
  'thoughts withheld': { screen: screen(/Rome\./), reasoning: 'allowed' as const },
};

const apps: ScriptedApp[] = [];
afterEach(() => {
  for (const { log, admission } of apps.splice(0)) expect([log, admission.running]).toEqual([[], 0]);
});
const appOf = (text: string, options: Parameters<typeof scriptedApp>[1] = {}): ScriptedApp => {
  const app = scriptedApp(likely(scriptedEngine(() => tokensOf(text)).engine), options);
  apps.push(app);
  return app;
};

/** What the model writes, in the apps that stay. */
let written = '';
const stay = new Map<string, ScriptedApp>();
/** One for each setting: schemas are compiled once. */
function judged(setting: keyof typeof SETTINGS): ScriptedApp {
  const known =
    stay.get(setting) ?? scriptedApp(likely(scriptedEngine(() => tokensOf(written)).engine), SETTINGS[setting]);
  stay.set(setting, known);
  apps.push(known);
  return known;
}

/** With policies others beside a token are refused. */
const alone = ({ top_logprobs, logprobs, ...rest }: Json): Json => ({
  ...rest,
  ...(logprobs === undefined ? {} : { logprobs: logprobs === true ? true : 0 }),
  ...(top_logprobs === undefined ? {} : { top_logprobs: 0 }),
});

describe.each(FORMS)('$path', ({ path, whole, event, bodies, error }) => {
  it.each(Object.keys(SETTINGS) as (keyof typeof SETTINGS)[])('answers and events: %s', async (setting) => {
    let read = 0;
    const app = judged(setting);
    for (const [name, text] of Object.entries(WRITES)) {
      written = text;
      for (const given of bodies) {
        const body = 'screen' in SETTINGS[setting] ? alone(given) : given;
        const where = `${name}, ${JSON.stringify(body)}`;
        // Usage in a stream is for streams alone.
        const { stream_options: _, ...plain } = body;
        expect(whole.safeParse(await app.json(path, plain)).error?.message, where).toBeUndefined();
        const events = (await app.events(path, body)).filter((e) => e.type !== '[DONE]');
        for (const e of events)
          expect(event.safeParse(e).error?.message, `${where}: ${JSON.stringify(e)}`).toBeUndefined();
        read += events.length;
      }
    }
    expect(read).toBeGreaterThanOrEqual(2 * bodies.length * Object.keys(WRITES).length);
  });

  const [body = {}] = bodies;
  const fails = (e: Error, after: number): Engine => {
    const { engine } = scriptedEngine((r) => tokensOf(WRITES[r.prompt === undefined ? 'answer' : 'words'] ?? ''));
    return {
      ...engine,
      async *generate(request, signal) {
        let n = 0;
        for await (const event of engine.generate(request, signal)) {
          if (n++ === after) throw e;
          yield event;
        }
      },
    };
  };
  const keys = {
    find: (key: string) =>
      ({ free: { name: 'free' }, other: { name: 'other', models: ['x'] }, few: { name: 'few', requestsPerMinute: 1 } })[
        key
      ] ?? null,
  };
  const key = (name: string) => ({ authorization: `Bearer ${name}` });
  it.each<[number, Json, Record<string, string>]>([
    [400, { ...body, colour: 1 }, key('free')],
    [401, body, key('wrong')],
    [403, body, key('other')],
    [404, { ...body, model: 'none' }, key('free')],
    [413, { ...body, user: 'x'.repeat(1 << 20) }, key('free')],
    [415, body, { ...key('free'), 'content-type': 'text/plain' }],
    [421, body, { ...key('free'), host: 'elsewhere' }],
  ])('an error of status %s', async (status, given, headers) => {
    const app = appOf(WRITES.answer ?? '', { keys, hosts: new Set(['here']) });
    for (const stream of [false, true]) {
      const response = await app.post(path, { ...given, stream }, { host: 'here', ...headers });
      expect(response.status).toBe(status);
      error.parse(await response.json());
    }
  });
  it('an error of status 429, with when to come again', async () => {
    const app = appOf(WRITES.answer ?? '', { keys });
    expect((await app.post(path, body, key('few'))).status).toBe(200);
    const response = await app.post(path, body, key('few'));
    expect([response.status, Number(response.headers.get('retry-after'))]).toEqual([429, expect.any(Number)]);
    error.parse(await response.json());
  });
  it.each([
    [500, new Error('of /home/of/this/machine')],
    [503, new TemperError('engine_closed', 'closed')],
  ])('an error of status %s, and in the middle of a stream', async (status, e) => {
    for (const stream of [false, true]) {
      const response = await scriptedApp(fails(e, 0)).post(path, { ...body, stream });
      expect(response.status).toBe(status);
      error.parse(await response.json());
    }
    const events = await scriptedApp(fails(e, 4)).events(path, body);
    for (const sent of events.slice(0, -1)) event.parse(sent);
    const last = events.at(-1) as Json;
    if (path === '/v1/responses') expect(ResponseStreamEvent.parse(last).type).toBe('response.failed');
    else error.parse(last);
    expect(JSON.stringify(events)).not.toContain('machine');
  });
});

it('models, tokens that are counted, and what is kept of responses', async () => {
  const app = appOf(WRITES.call ?? '');
  const get = async (path: string, method = 'GET'): Promise<unknown> =>
    (await app.app.request(path, { method })).json();
  expect(ModelList.parse(await get('/v1/models')).data).toEqual([Model.parse(await get('/v1/models/m'))]);
  OpenAiError.parse(await get('/v1/models/none'));
  MessageTokensCount.parse(await app.json('/v1/messages/count_tokens', chat));
  const { output } = ResponseObject.parse(
    await app.json('/v1/responses', { model: 'm', input: 'hi', tools: [{ type: 'function', ...tool.function }] }),
  );
  const called = output.find((item) => item.type === 'function_call');
  const { id } = await app.json('/v1/responses', {
    model: 'm',
    input: [
      { role: 'developer', content: 'Be kind.' },
      { role: 'user', content: [{ type: 'input_text', text: 'hi' }] },
      ...output,
      { type: 'function_call_output', call_id: called?.call_id, output: 'rain' },
      { role: 'assistant', content: 'Rain.' },
      { role: 'user', content: 'and?' },
    ],
  });
  ResponseObject.parse(await get(`/v1/responses/${String(id)}`));
  const items = ResponseItemList.parse(await get(`/v1/responses/${String(id)}/input_items?order=asc`));
  expect(items.data).toHaveLength(7);
  ResponseDeleted.parse(await get(`/v1/responses/${String(id)}`, 'DELETE'));
  OpenAiError.parse(await get(`/v1/responses/${String(id)}`));
});

it('a stream that tells its usage says in each chunk before that it does not yet', async () => {
  const told = async (more: Json): Promise<readonly unknown[]> =>
    (await appOf(WRITES.answer ?? '').events('/v1/chat/completions', { ...chat, n: 2, ...more })).map((e) => e.usage);
  const usages = (await told({ stream_options: { include_usage: true } })).slice(0, -1);
  expect(usages.length).toBeGreaterThan(4);
  expect(usages.slice(0, -1).every((u) => u === null)).toBe(true);
  expect(usages.at(-1)).toMatchObject({ completion_tokens: expect.any(Number) as number });
  expect((await told({})).every((u) => u === undefined)).toBe(true);
});
