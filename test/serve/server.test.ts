// The server over its real port and engine, asked by the official client.
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { packageRoot } from '../../src/base/machine.js';
import { toConversation } from '../../src/harmony/chat.js';
import { openEngine } from '../../src/infer/engine.js';
import type { DoneEvent } from '../../src/infer/protocol.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { serve, type TemperServer } from '../../src/serve/server.js';
import { pageOf } from '../../src/store/review-pages.js';
import { openStore } from '../../src/store/store.js';
import { completion, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';
import { WITHOUT_SQLITE } from '../store/places.js';

const MODEL = join(packageRoot, 'models', 'nano');
const ASK = 'Please book a table for 4 people on friday at 19:30 for Rossi';
const root = mkdtempSync(join(tmpdir(), 'serve-'));
const KEY = 'a-key-of-the-tests-1';
const keyFile = join(root, 'keys');
writeFileSync(keyFile, `# who may ask\ntests ${KEY}\n`);

const adapterDir = join(root, 'adapter');
{
  const model = openCheckpoint(MODEL);
  const adapter = createAdapter(
    model.config,
    adapterSpec(model.config, { rank: 2, alpha: 64, targets: ['attention', 'experts'], rsLora: false, dropout: 0 }),
    { seed: 3 },
  );
  adapter.params.write(adapter.params.toFloat32().map((x, i) => x || Math.sin(i) * 0.2));
  await writePeft(adapter, adapterDir, { baseModel: 'nano' });
  adapter.close();
  model.close();
}
const engineOptions = { model: MODEL, threads: 1, device: 'cpu', contextTokens: 512 } as const;
const log: string[] = [];
const server = await serve({
  engine: { ...engineOptions, slots: 4, adapters: { odd: adapterDir } },
  port: 0,
  queue: 2,
  queueMs: 60_000,
  maxBodyBytes: 1 << 16,
  log: (line) => log.push(line),
});
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
const engine = await openEngine({ ...engineOptions, adapters: { odd: adapterDir } });
afterAll(async () => {
  await server.close();
  await engine.close();
});

const greedy = { model: 'nano', temperature: 0, max_completion_tokens: 120 } as const;
const user = (content: string): { role: 'user'; content: string }[] => [{ role: 'user', content }];
async function direct(content: string, adapter?: string): Promise<DoneEvent> {
  const { messages } = toConversation({ messages: user(content) });
  const request = { messages, maxTokens: 120, sampling: { temperature: 0 }, ...(adapter ? { adapter } : {}) };
  for await (const event of engine.generate(request)) if (event.kind === 'done') return event;
  throw new Error('no end');
}
const textOn = (done: DoneEvent, channel: string): string =>
  done.messages
    .filter((m) => m.channel === channel && m.recipient === undefined)
    .map((m) => m.content)
    .join('\n');
type Message = OpenAI.ChatCompletionMessage & { reasoning?: string; reasoning_content?: string };
const post = (body: string | Buffer, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: body as string,
  });
const codeOf = async (r: Response): Promise<string> =>
  `${r.status} ${((await r.json()) as { error: { code: string } }).error.code}`;

describe('the official client', () => {
  it('lists base and adapters with their digests', async () => {
    const models = (await client.models.list()).data as (OpenAI.Model & {
      temper: { digest: string; pairs: number };
    })[];
    expect(models.map((m) => m.id)).toEqual(['nano', 'odd']);
    expect(models[0]?.temper).toMatchObject({ digest: await engine.digest(), pairs: 0 });
    expect(models[1]?.temper.pairs).toBe((await engine.adapters())[0]?.pairs);
    expect((await client.models.retrieve('odd')).id).toBe('odd');
  });
  it('is answered what the engine answers, analysis apart', async () => {
    const done = await direct(ASK);
    const answer = await client.chat.completions.create({ ...greedy, messages: user(ASK) });
    const [choice] = answer.choices;
    const message = choice?.message as Message;
    expect(message.content).toBe(textOn(done, 'final'));
    expect(message.reasoning_content ?? '').toBe(textOn(done, 'analysis'));
    expect(message.reasoning).toBe(message.reasoning_content);
    expect(choice?.finish_reason).toBe('stop');
    expect(answer.usage).toMatchObject({
      prompt_tokens: done.usage.promptTokens,
      completion_tokens: done.tokens.length,
      total_tokens: done.usage.promptTokens + done.tokens.length,
      completion_tokens_details: { reasoning_tokens: done.usage.reasoningTokens },
    });
    expect(done.usage.reasoningTokens).toBeGreaterThan(0);
    expect(done.usage.reasoningTokens).toBeLessThan(done.tokens.length);
  });
  it('gets in a stream what it gets whole, whatever the model, and the tokens when it asks', async () => {
    for (const model of ['nano', 'odd']) {
      const body = { ...greedy, model, messages: user(ASK) };
      const whole = (await client.chat.completions.create(body)).choices[0];
      const stream = await client.chat.completions.create({
        ...body,
        stream: true,
        stream_options: { include_usage: true },
      });
      let content = '',
        reasoning = '',
        finish: string | null = null,
        usage: unknown,
        chunks = 0;
      for await (const part of stream) {
        chunks++;
        const [choice] = part.choices;
        content += choice?.delta.content ?? '';
        reasoning += (choice?.delta as { reasoning_content?: string } | undefined)?.reasoning_content ?? '';
        finish = choice?.finish_reason ?? finish;
        usage = part.usage ?? usage;
      }
      expect(content).toBe(whole?.message.content ?? '');
      expect(reasoning).toBe((whole?.message as Message | undefined)?.reasoning_content ?? '');
      expect(finish).toBe(whole?.finish_reason);
      expect(usage).toMatchObject({ completion_tokens: expect.any(Number) as number });
      expect(chunks).toBeGreaterThan(5);
    }
  });
  it('is answered the same among others as alone', async () => {
    const asks = [ASK, 'Please book a table for 2 people on monday at 12:00 for Kim', 'Hello', 'What do you offer?'];
    const bodies = asks.flatMap((content) =>
      ['nano', 'odd'].map((model, i) => ({ ...greedy, temperature: i, seed: 7, model, messages: user(content) })),
    );
    const of = async (body: (typeof bodies)[number]): Promise<string> =>
      JSON.stringify((await client.chat.completions.create(body)).choices);
    const alone: string[] = [];
    for (const body of bodies) alone.push(await of(body));
    const together: string[] = [];
    for (const half of [bodies.slice(0, 4), bodies.slice(4)]) together.push(...(await Promise.all(half.map(of))));
    const named = (text: string): string => text.replaceAll(/call_\w+/g, 'call');
    expect(together.map(named)).toEqual(alone.map(named));
  });
  it('ends a stream: its place comes back, and the engine goes on', async () => {
    for (let i = 0; i < 8; i++) {
      const stream = await client.chat.completions.create({ ...greedy, messages: user(ASK), stream: true });
      for await (const _ of stream) break;
    }
    // Whole answers too: under way, and waiting for a place. The log stays empty, as a test below asks.
    const long = { ...greedy, model: 'odd', temperature: 1, seed: 1, max_completion_tokens: 400, messages: user(ASK) };
    const given = Array.from({ length: 6 }, () =>
      client.chat.completions.create(long, { signal: AbortSignal.timeout(60) }),
    );
    for (const answer of await Promise.allSettled(given)) expect(answer.status).toBe('rejected');
    const running = async (): Promise<string | undefined> =>
      /^temper_requests_running (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1];
    await expect.poll(running, { timeout: 2000, interval: 20 }).toBe('0');
    expect((await client.chat.completions.create({ ...greedy, messages: user(ASK) })).choices[0]?.finish_reason).toBe(
      'stop',
    );
  });
});

describe('what is refused', () => {
  const messages = user('Hi');
  const bad: readonly [string, unknown, string][] = [
    ['another model', { model: 'gpt-4o', messages }, '404 model_not_found'],
    ['no messages', { model: 'nano', messages: [] }, '400 invalid_value'],
    ['a field nobody knows', { model: 'nano', messages, temprature: 1 }, '400 unknown_parameter'],
    ['temperature out of range', { model: 'nano', messages, temperature: 3 }, '400 invalid_value'],
    ['what is not built', { model: 'nano', messages, modalities: ['audio'] }, '400 unsupported_parameter'],
    ['too many answers', { model: 'nano', messages, n: 17 }, '400 invalid_value'],
    ['a forced call of nothing', { model: 'nano', messages, tool_choice: 'required' }, '400 invalid_value'],
    [
      'a prompt longer than the context',
      { model: 'nano', messages: user('word '.repeat(2000)) },
      '400 context_length_exceeded',
    ],
    ['a role that is none', { model: 'nano', messages: [{ role: 'robot', content: 'x' }] }, '400 unknown_role'],
    [
      'a picture',
      { model: 'nano', messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
      '400 bad_content',
    ],
    ['a list', [], '400 invalid_json'],
  ];
  it.each(bad)('%s', async (_, body, code) => {
    expect(await codeOf(await post(JSON.stringify(body)))).toBe(code);
    // Asked as a stream it has the same status.
    if (!Array.isArray(body))
      expect(await codeOf(await post(JSON.stringify({ ...(body as object), stream: true })))).toBe(code);
  });
  it('what is no JSON, no UTF-8, too deep, too large, of another type', async () => {
    expect(await codeOf(await post('{"model":'))).toBe('400 invalid_json');
    expect(await codeOf(await post(Buffer.from([0x7b, 0xff, 0x7d])))).toBe('400 invalid_json');
    expect(await codeOf(await post(`{"model":"nano","messages":${'['.repeat(100)}${']'.repeat(100)}}`))).toBe(
      '400 invalid_json',
    );
    expect(await codeOf(await post(`"${'x'.repeat(1 << 16)}"`))).toBe('413 body_too_large');
    expect(await codeOf(await post('{}', { 'content-type': 'text/plain' }))).toBe('415 content_type');
    expect(await codeOf(await fetch(`${server.url}/v1/none`))).toBe('404 not_found');
  });
  it('another host name: a page of somebody else cannot ask a server on loopback', async () => {
    const { port } = new URL(server.url);
    const status = await new Promise((done) => {
      const r = httpRequest({ host: '127.0.0.1', port, path: '/v1/models', headers: { host: 'evil.example' } }, (a) => {
        a.resume();
        done(a.statusCode);
      });
      r.end();
    });
    expect(status).toBe(421);
    const plain = await fetch(`${server.url}/v1/models`, { headers: { origin: 'https://evil.example' } });
    expect(plain.headers.get('access-control-allow-origin')).toBeNull();
  });
  it('more than run and wait: told so at once, and when to come again', async () => {
    const long = { ...greedy, max_completion_tokens: 400, temperature: 1, seed: 1, model: 'odd', messages: user(ASK) };
    const answers = await Promise.all(Array.from({ length: 12 }, () => post(JSON.stringify(long))));
    const statuses = answers.map((r) => r.status);
    expect(statuses.filter((s) => s === 200).length).toBeGreaterThanOrEqual(6);
    const full = answers.filter((r) => r.status === 429);
    expect(full.length).toBeGreaterThan(0);
    expect(Number(full[0]?.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    for (const r of answers) await r.arrayBuffer();
  });
  it('said nothing of the server itself', () => {
    expect(log).toEqual([]);
  });
});

describe('keys', () => {
  it('without one nobody is answered, but probes', async () => {
    await expect(serve({ engine: engineOptions, host: '0.0.0.0', port: 0 })).rejects.toThrow(/--api-key-file/);
    const closed = await serve({ engine: engineOptions, port: 0, apiKeyFile: keyFile });
    try {
      for (const authorization of ['', 'Bearer', 'Bearer wrong', `Basic ${KEY}`, `Bearer ${KEY}x`])
        expect(await codeOf(await fetch(`${closed.url}/v1/models`, { headers: { authorization } }))).toBe(
          '401 invalid_api_key',
        );
      expect((await fetch(`${closed.url}/health`)).status).toBe(200);
      const known = new OpenAI({ baseURL: `${closed.url}/v1`, apiKey: KEY, maxRetries: 0 });
      expect((await known.models.list()).data).toHaveLength(1);
    } finally {
      await closed.close();
    }
  });
  it.each([
    ['name only', 'alone\n', /keys:1: not two words/],
    ['short', 'tests abc\n', /keys:1: a key of fewer/],
    ['twice', `a ${KEY}\na ${KEY}x\n`, /keys:2: the name/],
    ['no digest', 'a sha256:12\n', /keys:1: not 64/],
    ['one that no header carries', `a ${KEY}é\n`, /keys:1: a key with blanks or letters beyond ASCII/],
    ['one key of two', `a ${KEY}\nb sha256:${sha256(KEY).toUpperCase()}\n`, /"a" and "b" have one key/],
    ['empty', '# nobody\n', /holds no key/],
  ])('a file that is none: %s', async (_, text, message) => {
    const file = join(mkdtempSync(join(tmpdir(), 'keys-')), 'keys');
    writeFileSync(file, text);
    await expect(serve({ engine: engineOptions, port: 0, apiKeyFile: file })).rejects.toThrow(message);
  });
});

it.each(['', 'a b', 'a/../b'])('a name that no request and no URL can give is refused: %j', async (name) => {
  await expect(serve({ engine: engineOptions, port: 0, name })).rejects.toMatchObject({ code: 'bad_option' });
});

describe('screening in the path', () => {
  it('nothing leaves before its verdict; what is not allowed takes the answer with it', async () => {
    let block = false,
      asked = 0;
    const judge = await startJudgeServer((request, response) => {
      asked++;
      completion(response, { content: renderVerdict({ rule: block ? 'C1' : null, nonce: nonceOf(request) }) });
    });
    let screened: TemperServer | undefined;
    try {
      screened = await serve({
        engine: engineOptions,
        port: 0,
        screening: {
          policy: [join(packageRoot, 'policies', 'contact', 'policy.md')],
          judge: judge.url,
          judgeModel: 'scripted',
          judgeTimeout: 10,
          judgeMaxTokens: 512,
          judgeConcurrency: 4,
        },
      });
      const guarded = new OpenAI({ baseURL: `${screened.url}/v1`, apiKey: 'none', maxRetries: 0 });
      const done = await direct(ASK);
      asked = 0; // it was tried when the server began
      const allowed = (await guarded.chat.completions.create({ ...greedy, messages: user(ASK) })).choices[0];
      expect(allowed?.message.content).toBe(textOn(done, 'final'));
      expect((allowed?.message as Message | undefined)?.reasoning_content).toBeUndefined();
      expect(asked).toBe(2); // analysis and final
      block = true;
      const whole = await guarded.chat.completions.create({ ...greedy, messages: user(ASK) });
      expect(whole.choices[0]).toMatchObject({ finish_reason: 'content_filter', message: { content: null } });
      expect(JSON.stringify(whole)).not.toContain(textOn(done, 'final').slice(0, 20));
      let text = '';
      for await (const part of await guarded.chat.completions.create({ ...greedy, messages: user(ASK), stream: true }))
        text += JSON.stringify(part);
      expect(text).toContain('content_filter');
      for (const channel of ['final', 'analysis']) expect(text).not.toContain(textOn(done, channel).slice(0, 12));
    } finally {
      await screened?.close();
      await judge.close();
    }
  });
});

describe('its end', () => {
  it.skipIf(WITHOUT_SQLITE !== null)('is waited for by nobody who waits for people', async () => {
    const judge = await startJudgeServer((request, response) =>
      completion(response, { content: renderVerdict({ rule: 'C1', nonce: nonceOf(request) }) }),
    );
    const folder = mkdtempSync(join(tmpdir(), 'serve-review-')),
      policy = join(folder, 'policy.md'),
      where = join(folder, 'store.db');
    const text = readFileSync(join(packageRoot, 'policies', 'contact', 'policy.md'), 'utf8');
    writeFileSync(policy, `---\nonBlock: review\n---\n\n${text}`);
    try {
      const closing = await serve({
        engine: engineOptions,
        port: 0,
        store: where,
        reviewWaitMs: 3_600_000,
        screening: {
          policy: [policy],
          ...{ judge: judge.url, judgeModel: 'scripted', judgeProbe: false },
          ...{ judgeTimeout: 10, judgeMaxTokens: 512, judgeConcurrency: 4 },
        },
      });
      const asked = fetch(`${closing.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...greedy, messages: user(ASK) }),
      });
      const store = await openStore(where);
      await expect.poll(async () => (await pageOf(store, { queue: 'waiting' })).items.length).toBeGreaterThan(0);
      await store.close();
      await Promise.all([closing.close(), asked]);
      expect(await (await asked).text()).toContain('held for review');
    } finally {
      await judge.close();
    }
  });
  it('takes nobody in, and ends who is under way', async () => {
    const closing = await serve({ engine: engineOptions, port: 0 });
    const body = JSON.stringify({ ...greedy, messages: user(ASK), stream: true });
    const under = await fetch(`${closing.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    const closed = closing.close();
    expect((await under.text()).trimEnd().endsWith('data: [DONE]')).toBe(true);
    await closed;
    await expect(fetch(`${closing.url}/health`)).rejects.toThrow();
  });
  it('waits for no connection on which nothing was asked, or half of something', async () => {
    const closing = await serve({ engine: engineOptions, port: 0 });
    const { hostname, port } = new URL(closing.url);
    const head = 'POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n';
    const sockets = ['', 'GET /hea', `${head}content-length: 100\r\n\r\n{"model`].map((text) => {
      const socket = connect(Number(port), hostname);
      socket.write(text);
      return socket.on('error', () => {});
    });
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    expect((await fetch(`${closing.url}/health`)).status).toBe(200); // they were taken before it
    const ends = sockets.map((socket) => once(socket.resume(), 'close'));
    await closing.close();
    await Promise.all(ends);
  });
});
