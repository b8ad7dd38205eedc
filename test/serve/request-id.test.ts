// What a request is called: the same in its head, its errors and the log, of every answer; and models in Anthropic's
// form.
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import Anthropic from '@anthropic-ai/sdk';
import { getRequestListener } from '@hono/node-server';
import { describe, expect, it } from 'vitest';
import type { Engine } from '../../src/infer/engine.js';
import { takeOldProbes, unreadable } from '../../src/serve/http-faults.js';
import type { ServedModel } from '../../src/serve/served.js';
import { SAYS, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';
import { AnthropicError, AnthropicModel, AnthropicModelList, ModelList, OpenAiError } from './shapes.js';

const { engine } = scriptedEngine(() => tokensOf(SAYS));
const messages = [{ role: 'user', content: 'hi' }];
const chat = { model: 'm', messages };
const MADE = /^req_[0-9a-f]{32}$/;
const VERSION = { 'anthropic-version': '2023-06-01' };

describe('the name of a request', () => {
  it('is made, another for each, whatever becomes of it', async () => {
    const app = scriptedApp(engine, {
      hosts: new Set(['here']),
      keys: { find: (k) => (k === 'k' ? { name: 'k' } : null) },
    });
    const key = { host: 'here', authorization: 'Bearer k' };
    const answers = [
      await app.post('/v1/chat/completions', chat, key),
      await app.post('/v1/chat/completions', { ...chat, stream: true }, key),
      await app.post('/v1/chat/completions', { ...chat, store: true }, key),
      await app.post('/v1/responses', { model: 'm', input: 'hi' }, key),
      await app.post('/v1/chat/completions', { ...chat, colour: 1 }, key),
      await app.post('/v1/chat/completions', chat, { host: 'here' }),
      await app.post('/v1/chat/completions', chat),
      await app.post('/v1/none', {}, key),
      await app.post('/v1/models', {}, key),
      await app.app.request('/health', { headers: key }),
      await app.app.request('/', { headers: key }),
      await app.app.request('/metrics', { headers: key }),
    ];
    const ids = answers.map((a) => a.headers.get('x-request-id'));
    expect(answers.map((a) => a.status)).toEqual([200, 200, 200, 200, 400, 401, 421, 404, 405, 200, 200, 200]);
    for (const id of ids) expect(id).toMatch(MADE);
    expect(new Set(ids).size).toBe(answers.length);
  });
  it("is the client's where that is a name", async () => {
    const app = scriptedApp(engine);
    const named = async (headers: Record<string, string>): Promise<string | null> =>
      (await app.post('/v1/chat/completions', chat, headers)).headers.get('x-request-id');
    for (const id of ['7', 'a-b_C.9:/@+=', 'x'.repeat(128)]) expect(await named({ 'x-request-id': id })).toBe(id);
    expect(await named({ 'x-client-request-id': 'mine' })).toBe('mine');
    for (const odd of ['', 'a b', 'a,b', 'a\tb', 'é', '<b>', 'x'.repeat(129)])
      expect(await named({ 'x-request-id': odd })).toMatch(MADE);
  });
  it('stands in the log of what the server failed at', async () => {
    const failing: Engine = {
      ...engine,
      // biome-ignore lint/correctness/useYield: it fails before its first event
      async *generate() {
        throw new Error('no');
      },
    };
    const app = scriptedApp(failing);
    for (const stream of [false, true])
      await app.post('/v1/chat/completions', { ...chat, stream }, { 'x-request-id': 'a' });
    expect(app.failed).toEqual(['a', 'a']);
  });
  it("is in Anthropic's header and errors where that is spoken", async () => {
    const app = scriptedApp(engine);
    const asked = [
      await app.post('/v1/messages', { ...chat, max_tokens: 9, colour: 1 }),
      await app.post('/v1/messages/count_tokens', { ...chat, model: 'none' }, VERSION),
      await app.app.request('/v1/models/none', { headers: VERSION }),
      await app.app.request('/v1/files', { headers: VERSION }),
      await app.app.request('/v1/models', { method: 'DELETE', headers: VERSION }),
    ];
    expect(asked.map((a) => a.status)).toEqual([400, 404, 404, 404, 405]);
    for (const answer of asked) {
      const id = answer.headers.get('x-request-id');
      expect(id).toMatch(MADE);
      expect(answer.headers.get('request-id')).toBe(id);
      expect(AnthropicError.parse(await answer.json()).request_id).toBe(id);
    }
    const whole = await app.post('/v1/messages', { ...chat, max_tokens: 9 });
    expect(whole.headers.get('request-id')).toBe(whole.headers.get('x-request-id'));
    const other = await app.app.request('/v1/files');
    expect(other.headers.has('request-id')).toBe(false);
    OpenAiError.parse(await other.json());
  });
  it('is there behind a port: of streams, of what is no request, of old probes', async () => {
    const { app } = scriptedApp(engine, { hosts: new Set(['127.0.0.1', 'localhost']) });
    const server = createServer(getRequestListener(app.fetch, { errorHandler: unreadable(() => {}) }));
    takeOldProbes(server);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as AddressInfo;
    const raw = async (text: string): Promise<string> => {
      const socket = connect(port, '127.0.0.1');
      socket.write(text);
      let got = '';
      for await (const d of socket) got += String(d);
      return got;
    };
    try {
      for (const stream of [false, true]) {
        const answer = await fetch(`http://127.0.0.1:${port}/v1/messages`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-request-id': 'mine' },
          body: JSON.stringify({ ...chat, max_tokens: 9, stream }),
        });
        await answer.text();
        expect([answer.headers.get('x-request-id'), answer.headers.get('request-id')]).toEqual(['mine', 'mine']);
      }
      const odd = await raw('GET http:// HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
      expect(odd).toMatch(/^HTTP\/1\.1 400 .*^x-request-id: req_[0-9a-f]{32}\r$/ims);
      expect(await raw('GET /health HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 .*"ok"/s);
      expect(await raw('GET /health HTTP/1.0\r\nhost: elsewhere\r\n\r\n')).toMatch(/^HTTP\/1\.1 421 /);
      expect(await raw('GET /health HTTP/1.1\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    } finally {
      server.close();
    }
  });
});

describe("models in Anthropic's form", () => {
  const adapter = (id: string): ServedModel => ({
    id,
    adapter: id,
    digest: id,
    pairs: 2,
    status: 'approved',
    folder: '/',
  });
  const { app } = scriptedApp(engine, { models: ['a', 'b', 'c/d', 'e'].map(adapter) });
  const client = new Anthropic({
    baseURL: 'http://here',
    apiKey: 'none',
    maxRetries: 0,
    fetch: async (url, init) => app.request(String(url), init as RequestInit),
  });
  it('are listed by pages, told one by one, and missed by name', async () => {
    const ids: string[] = [];
    for await (const model of client.models.list({ limit: 2 })) ids.push(AnthropicModel.parse(model).id);
    expect(ids).toEqual(['m', 'a', 'b', 'c/d', 'e']);
    const page = async (params: Anthropic.ModelListParams): Promise<readonly unknown[]> => {
      const { data, has_more, first_id, last_id } = await client.models.list(params);
      AnthropicModelList.parse({ data, has_more, first_id, last_id });
      return [data.map((m) => m.id).join(' '), has_more, first_id, last_id];
    };
    expect(await page({})).toEqual(['m a b c/d e', false, 'm', 'e']);
    expect(await page({ after_id: 'a', limit: 2 })).toEqual(['b c/d', true, 'b', 'c/d']);
    expect(await page({ after_id: 'e' })).toEqual(['', false, null, null]);
    expect(await page({ before_id: 'c/d', limit: 2 })).toEqual(['a b', true, 'a', 'b']);
    expect(await page({ before_id: 'a', limit: 2 })).toEqual(['m', false, 'm', 'm']);
    expect((await client.beta.models.list()).data).toHaveLength(5);
    expect(await client.models.retrieve('c/d')).toMatchObject({ type: 'model', id: 'c/d', display_name: 'c/d' });
    const missed = client.models.retrieve('none');
    await expect(missed).rejects.toBeInstanceOf(Anthropic.NotFoundError);
    await expect(missed).rejects.toMatchObject({
      type: 'not_found_error',
      requestID: expect.stringMatching(MADE) as string,
    });
  });
  it.each(['limit=0', 'limit=1001', 'after_id=none', 'before_id=none', 'after_id=a&before_id=b', 'colour=1'])(
    '?%s is refused',
    async (query) => {
      const answer = await app.request(`/v1/models?${query}`, { headers: VERSION });
      expect(answer.status).toBe(400);
      expect(AnthropicError.parse(await answer.json()).error.type).toBe('invalid_request_error');
    },
  );
  it("leave OpenAI's as it was", async () => {
    const list = ModelList.parse(await (await app.request('/v1/models?limit=2')).json());
    expect(list.data).toHaveLength(5);
  });
});
