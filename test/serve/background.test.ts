// Responses that are made while nobody waits, and what else a request may name: items, turns that are left out.
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { createMemoryStore, type ResponseStore } from '../../src/serve/response-store.js';
import { ResponseEventShape, ResponseShape } from '../../src/serve/wire-responses.js';
import { type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

type Json = Record<string, unknown>;
const SAYS =
  '<|channel|>analysis<|message|>It asks for 4.<|end|>' +
  '<|start|>assistant<|channel|>final<|message|>Four, then.<|return|>';
const PATH = '/v1/responses';
const body = { model: 'm', input: 'hi', background: true };

/** As servers share one. */
function sharedStore(): ResponseStore {
  const store = createMemoryStore();
  return {
    ...store,
    shared: {
      async exchange(before, after) {
        if (!isDeepStrictEqual(await store.get(before.id, before.owner), JSON.parse(JSON.stringify(before))))
          return false;
        await store.put(after);
        return true;
      },
    },
  };
}
/** Writes its first half, and the rest when it is let. */
function held(responses = createMemoryStore()): { readonly app: ScriptedApp; readonly go: () => void } {
  let go = (): void => {};
  const gate = new Promise<void>((open) => {
    go = open;
  });
  const { engine } = scriptedEngine(() => tokensOf(SAYS));
  const { generate } = engine;
  const slow: typeof engine = {
    ...engine,
    async *generate(request, signal) {
      let n = 0;
      for await (const event of generate(request, signal)) {
        yield event;
        if (++n === 2)
          await new Promise<void>((done, stop) => {
            void gate.then(done);
            const over = (): void => stop(signal?.reason as Error);
            signal?.addEventListener('abort', over, { once: true });
            if (signal?.aborted) over();
          });
      }
    },
  };
  return { app: scriptedApp(slow, { responses }), go };
}
const get = async (app: ScriptedApp, path: string): Promise<Json> =>
  (await (await app.app.request(path)).json()) as Json;
async function ended(app: ScriptedApp, id: unknown): Promise<Json> {
  for (let i = 0; i < 1000; i++) {
    const response = await get(app, `${PATH}/${String(id)}`);
    if (response.status !== 'queued' && response.status !== 'in_progress') return response;
    await new Promise((done) => setTimeout(done, 5));
  }
  throw new Error('it does not end');
}
const eventsOf = (text: string): readonly Json[] =>
  text
    .split('\n\n')
    .flatMap((e) => /^data: (.*)$/m.exec(e)?.[1] ?? [])
    .map((data) => ResponseEventShape.parse(JSON.parse(data)) as Json);

describe('a response in the background', () => {
  it('is there at once, shows nothing half, and is kept when it is whole', async () => {
    const { app, go } = held();
    const first = ResponseShape.parse(await app.json(PATH, body));
    expect(first).toMatchObject({ status: 'queued', background: true, output: [] });
    const during = ResponseShape.parse(await get(app, `${PATH}/${first.id}`));
    expect(during.output).toEqual([]);
    expect((await get(app, `${PATH}/${first.id}/input_items`)).data).toMatchObject([{ role: 'user' }]);
    go();
    const last = ResponseShape.parse(await ended(app, first.id));
    expect(last).toMatchObject({ status: 'completed', id: first.id });
    expect(JSON.stringify(last.output)).toContain('Four, then.');
    const next = await app.json(PATH, { model: 'm', input: 'go on', previous_response_id: first.id });
    expect(next.status).toBe('completed');
    expect(app.admission.running).toBe(0);
  });
  it('is watched from any event on, by as many as like, and goes on when they leave', async () => {
    const { app, go } = held();
    const posted = await app.post(PATH, { ...body, stream: true });
    const reader = posted.body!.getReader();
    const { value } = await reader.read();
    const [created] = eventsOf(new TextDecoder().decode(value));
    const { id } = created!.response as Json;
    await reader.cancel();
    go();
    await ended(app, id);
    const all = eventsOf(await (await app.app.request(`${PATH}/${String(id)}?stream=true`)).text());
    expect(all.map((e) => e.sequence_number)).toEqual(all.map((_, i) => i));
    expect(all.slice(0, 3).map((e) => e.type)).toEqual(['response.created', 'response.queued', 'response.in_progress']);
    expect(all.at(-1)?.type).toBe('response.completed');
    const rest = eventsOf(await (await app.app.request(`${PATH}/${String(id)}?stream=true&starting_after=4`)).text());
    expect(rest).toEqual(all.slice(5));
  });
  it('is cancelled: its place comes back, it says so, and is forgotten when it is deleted', async () => {
    const { app } = held();
    const { id } = await app.json(PATH, body);
    const cancelled = ResponseShape.parse(await (await app.post(`${PATH}/${String(id)}/cancel`, {})).json());
    expect(cancelled).toMatchObject({ id, status: 'cancelled' });
    expect(app.admission.running).toBe(0);
    expect(await get(app, `${PATH}/${String(id)}`)).toMatchObject({ status: 'cancelled' });
    const again = await app.post(`${PATH}/${String(id)}/cancel`, {});
    expect(await again.json()).toMatchObject({ status: 'cancelled' });
    const other = await app.json(PATH, body);
    for (const one of [id, other.id]) {
      const gone = await app.app.request(`${PATH}/${String(one)}`, { method: 'DELETE' });
      expect(await gone.json()).toEqual({ id: one, object: 'response', deleted: true });
      expect((await app.app.request(`${PATH}/${String(one)}`)).status).toBe(404);
    }
    expect(app.admission.running).toBe(0);
    expect(app.log).toEqual([]);
  });
  it('is refused where it would find no place, before it is promised', async () => {
    const { app, go } = held();
    const all = await Promise.all(Array.from({ length: 10 }, () => app.post(PATH, body)));
    expect(all.map((r) => r.status).toSorted()).toEqual([...Array(8).fill(200), 429, 429]);
    const refused = all.filter((r) => r.status === 429);
    expect(refused.every((r) => Number(r.headers.get('retry-after')) >= 1)).toBe(true);
    expect(await refused[0]!.json()).toMatchObject({ error: { code: 'queue_full', type: 'rate_limit_error' } });
    const ids = await Promise.all(all.filter((r) => r.status === 200).map(async (r) => ((await r.json()) as Json).id));
    go();
    for (const id of ids) expect((await ended(app, id)).status).toBe('completed');
    expect([app.admission.running, app.admission.waiting, app.log]).toEqual([0, 0, []]);
  });
  it('gives its place back when it is cancelled while it waits for one', async () => {
    const { app } = held();
    const ids = [];
    for (let i = 0; i < 8; i++) ids.push((await app.json(PATH, body)).id);
    expect([app.admission.running, app.admission.waiting]).toEqual([4, 4]);
    for (const id of ids.toReversed())
      expect(await (await app.post(`${PATH}/${String(id)}/cancel`, {})).json()).toMatchObject({ status: 'cancelled' });
    expect([app.admission.running, app.admission.waiting, app.log]).toEqual([0, 0, []]);
  });
  it('that a server did not end is failed for the next one', async () => {
    const responses = createMemoryStore();
    const first = held(responses);
    const { id } = await first.app.json(PATH, body);
    expect(await get(first.app, `${PATH}/${String(id)}`)).toMatchObject({ background: true, output: [] });
    // Its server is gone; what it kept is there.
    const { app } = held(responses);
    const failed = ResponseShape.parse(await get(app, `${PATH}/${String(id)}`));
    expect(failed).toMatchObject({ id, status: 'failed', background: true, output: [] });
    expect(failed.error).toMatchObject({ code: 'server_error' });
    expect((await get(app, `${PATH}/${String(id)}/input_items`)).data).toMatchObject([{ role: 'user' }]);
    const after = await app.post(PATH, { model: 'm', input: 'go on', previous_response_id: id });
    expect(await after.json()).toMatchObject({ error: { code: 'previous_response_not_finished' } });
    expect(await (await app.post(`${PATH}/${String(id)}/cancel`, {})).json()).toMatchObject({ status: 'failed' });
    await app.app.request(`${PATH}/${String(id)}`, { method: 'DELETE' });
    expect((await app.app.request(`${PATH}/${String(id)}`)).status).toBe(404);
  });
  it("of a store that servers share, is another one's for as long as any takes", async () => {
    const responses = sharedStore();
    const { id } = await held(responses).app.json(PATH, body);
    const { app } = held(responses);
    expect(await get(app, `${PATH}/${String(id)}`)).toMatchObject({ status: 'queued' });
    const kept = await responses.get(String(id), null);
    await responses.put({ ...kept!, response: { ...kept!.response, created_at: 1 } });
    expect(await get(app, `${PATH}/${String(id)}`)).toMatchObject({ status: 'failed' });
  });
  it('of a store that servers share, can be cancelled and deleted by another one', async () => {
    const responses = sharedStore();
    const maker = held(responses),
      { app } = held(responses);
    const [{ id: stopped }, { id: gone }, { id: whole }] = [
      await maker.app.json(PATH, body),
      await maker.app.json(PATH, body),
      await maker.app.json(PATH, body),
    ];
    const cancelled = await app.post(`${PATH}/${String(stopped)}/cancel`, {});
    expect(ResponseShape.parse(await cancelled.json())).toMatchObject({ status: 'cancelled', output: [] });
    expect((await app.app.request(`${PATH}/${String(gone)}`, { method: 'DELETE' })).status).toBe(200);
    maker.go();
    await ended(maker.app, whole);
    // What its maker made of it since is kept nowhere.
    for (const server of [maker.app, app]) {
      expect(await ended(server, stopped)).toMatchObject({ status: 'cancelled', output: [] });
      await expect.poll(async () => (await server.app.request(`${PATH}/${String(gone)}`)).status).toBe(404);
      expect(await get(server, `${PATH}/${String(whole)}`)).toMatchObject({ status: 'completed' });
    }
  });
  it.each([
    ['get', '?stream=maybe', 'stream'],
    ['get', '?starting_after=1', 'starting_after'],
    ['get', '?colour=red', 'colour'],
    ['get', '/input_items?limit=0', 'limit'],
    ['get', '/input_items?order=up', 'order'],
    ['get', '/input_items?after=no', 'after'],
    ['get', '/input_items?before=no', 'before'],
    ['post', '/cancel', 'id'],
    ['get', '?stream=true', 'stream'],
  ])('%s %s of one that was not: 400 names %s', async (method, rest, param) => {
    const app = scriptedApp(scriptedEngine(() => tokensOf(SAYS)).engine);
    const { id } = await app.json(PATH, { model: 'm', input: 'hi' });
    const response = await app.app.request(`${PATH}/${String(id)}${rest}`, { method: method.toUpperCase() });
    expect([response.status, ((await response.json()) as { error: Json }).error.param]).toEqual([400, param]);
  });
});

describe('what a request names', () => {
  it('an item of a response that is kept is read in its place', async () => {
    const { engine, requests } = scriptedEngine(() => tokensOf(SAYS));
    const app = scriptedApp(engine);
    const first = ResponseShape.parse(await app.json(PATH, { model: 'm', input: 'What is 2 + 2?' }));
    const { id } = first.output.find((i) => i.type === 'message')!;
    const asked = ((await get(app, `${PATH}/${first.id}/input_items`)).data as Json[])[0]!;
    const input = [{ type: 'item_reference', id: asked.id }, { id }, { role: 'user', content: 'Sure?' }];
    const next = await app.json(PATH, { model: 'm', input });
    expect(next.status).toBe('completed');
    const said = requests.at(-1)?.messages.map((m) => m.content) ?? [];
    expect(said.slice(-3)).toEqual(['What is 2 + 2?', 'Four, then.', 'Sure?']);
  });
  it('truncation leaves out the oldest turns until the rest can be read, and keeps them', async () => {
    const { engine, requests } = scriptedEngine(() => tokensOf(SAYS));
    const app = scriptedApp(engine);
    const long = Array.from({ length: 40 }, (_, i) => [
      { role: 'user', content: `question ${i}` },
      { role: 'assistant', content: `answer ${i}` },
    ]).flat();
    const input = [...long, { role: 'user', content: 'last' }];
    const cut = await app.json(PATH, { model: 'm', input, truncation: 'auto', max_output_tokens: 1000 });
    expect(cut).toMatchObject({ status: 'completed', truncation: 'auto' });
    const read = requests.at(-1)?.messages ?? [];
    expect(read.length).toBeLessThan(20);
    expect(read.at(-1)?.content).toBe('last');
    expect(read.find((m) => m.role === 'user')?.content).toMatch(/^question 3\d$/);
    await app.json(PATH, { model: 'm', input, max_output_tokens: 1000 });
    expect(requests.at(-1)?.messages.length).toBeGreaterThan(80);
  });
  it('efforts that harmony has no word for are the nearest ones, and the response says which', async () => {
    const { engine, requests } = scriptedEngine(() => tokensOf(SAYS));
    const app = scriptedApp(engine);
    const said: [string, unknown][] = [];
    for (const effort of ['none', 'minimal', 'low', 'medium', 'high', 'xhigh']) {
      const response = await app.json(PATH, { model: 'm', input: 'hi', reasoning: { effort } });
      said.push([effort, (response.reasoning as Json).effort]);
      await app.json('/v1/chat/completions', {
        model: 'm',
        reasoning_effort: effort,
        messages: [
          { role: 'developer', content: 'Be short.' },
          { role: 'user', content: 'hi' },
        ],
      });
      const [responses, chat] = requests.slice(-2).map((r) => /Reasoning: (\w+)/.exec(r.messages[0]!.content)?.[1]);
      expect(chat).toBe(responses);
      expect(chat).toBe((response.reasoning as Json).effort);
    }
    expect(said).toEqual([
      ['none', 'low'],
      ['minimal', 'low'],
      ['low', 'low'],
      ['medium', 'medium'],
      ['high', 'high'],
      ['xhigh', 'high'],
    ]);
  });
});
