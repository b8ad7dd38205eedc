// A server in use: mixed company, clients that go away, adapters that come and go, keys with limits, TLS, new settings.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { EngineState } from '../../src/infer/protocol.js';
import { type ServeOptions, serve } from '../../src/serve/server.js';
import { NANO, oddAdapter } from './odd-adapter.js';

const root = mkdtempSync(join(tmpdir(), 'serve-operations-'));
const [odd, even, third] = await Promise.all(
  [1, 2, 3].map((salt) => oddAdapter(join(root, `adapter-${salt}`), salt, salt + 1)),
);
const KEYS = {
  app: 'key-of-the-app-000',
  dev: 'key-of-a-developer',
  few: 'key-with-few-words',
  admin: 'key-of-the-admin-0',
};
const log: string[] = [];
const options: ServeOptions = {
  engine: {
    model: NANO,
    threads: 1,
    device: 'cpu',
    contextTokens: 512,
    slots: 16,
    prefixes: 4,
    cacheTokens: 4096,
    adapters: { odd: odd as string, even: even as string },
  },
  port: 0,
  queue: 200,
  keys: [
    { name: 'app', key: KEYS.app },
    { name: 'dev', key: KEYS.dev, candidates: true, models: ['nano', 'guest'], maxTokens: 9 },
    { name: 'few', key: KEYS.few, requestsPerMinute: 2 },
  ],
  adminKeys: [{ name: 'owner', key: KEYS.admin }],
  log: (line) => log.push(line),
};
const server = await serve(options);
afterAll(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});

type Json = Record<string, unknown>;
const call = async (
  method: string,
  path: string,
  body?: unknown,
  { key = KEYS.app, signal }: { readonly key?: string; readonly signal?: AbortSignal } = {},
): Promise<{ readonly status: number; readonly json: Json; readonly retryAfter: string | null }> => {
  const response = await fetch(`${server.url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal ? { signal } : {}),
  });
  return {
    status: response.status,
    json: (await response.json()) as Json,
    retryAfter: response.headers.get('retry-after'),
  };
};
const admin = (method: string, path: string, body?: unknown): ReturnType<typeof call> =>
  call(method, path, body, { key: KEYS.admin });
const codeOf = ({ status, json }: { readonly status: number; readonly json: Json }): string =>
  `${status} ${(json.error as { code?: string } | undefined)?.code ?? ''}`;
interface State {
  readonly running: number;
  readonly waiting: number;
  readonly keys: Json;
  readonly engine: EngineState;
}
const state = async (): Promise<State> => (await admin('GET', '/admin/state')).json as unknown as State;
/** Nothing runs, and what is in use is what is kept. */
const rests = async (): Promise<unknown> => {
  const { running, waiting, keys, engine } = await state();
  return { running, waiting, keys, slots: engine.freeSlots, leaked: engine.usedPages - engine.keptPages };
};
const AT_REST = { running: 0, waiting: 0, keys: {}, slots: 16, leaked: 0 };

/** Asks of every kind; the same at each call. */
const bodyOf = (i: number): Json => ({
  model: ['nano', 'odd', 'even'][i % 3],
  messages: [
    ...(i % 4 === 0 ? [{ role: 'system', content: `Be brief. ${'Tables are by the window. '.repeat(8)}` }] : []),
    { role: 'user', content: `Book a table for ${i} ${'or more '.repeat((i * 7) % 40)}` },
  ],
  temperature: i % 2 === 0 ? 0 : 1.5,
  seed: i,
  max_completion_tokens: 5 + ((i * 11) % 50),
});
/** What is said and how much of it, without what is new each time. */
const said = (json: Json): string =>
  JSON.stringify([json.choices, json.usage]).replaceAll(/call_\w+|"cached_tokens":\d+/g, '');
const ask = async (i: number): Promise<string> => {
  const { status, json } = await call('POST', '/v1/chat/completions', bodyOf(i));
  expect(status).toBe(200);
  return said(json);
};
const ASKS = Array.from({ length: 16 }, (_, i) => i);
const alone: string[] = [];
for (const i of ASKS) alone.push(await ask(i));

describe('company', () => {
  it('sixteen at once of three models, greedy and not, arriving anyhow: each is answered as alone', async () => {
    expect(new Set(alone).size).toBe(16);
    for (const spread of [0, 3]) {
      const answers = await Promise.all(
        ASKS.map(async (i) => {
          await new Promise((later) => setTimeout(later, ((i * 5) % 16) * spread));
          return ask(i);
        }),
      );
      expect(answers).toEqual(alone);
    }
  });
  it('with room for two at a time they wait for each other, and nothing changes', async () => {
    const narrow = await serve({ ...options, engine: { ...options.engine, cacheTokens: 512, prefixes: 1 } });
    try {
      const answers = await Promise.all(
        ASKS.map(async (i) => {
          const response = await fetch(`${narrow.url}/v1/chat/completions`, {
            method: 'POST',
            headers: { 'content-type': 'application/json', authorization: `Bearer ${KEYS.app}` },
            body: JSON.stringify(bodyOf(i)),
          });
          return said((await response.json()) as Json);
        }),
      );
      expect(answers).toEqual(alone);
    } finally {
      await narrow.close();
    }
  });
  it('others that go away at any point change nothing, and leave nothing', async () => {
    let ended = 0;
    for (let round = 0; round < 3; round++) {
      const going = Array.from({ length: 24 }, async (_, i) => {
        const stop = new AbortController();
        const body = { ...bodyOf(i + 20), stream: i % 2 === 0, max_completion_tokens: 300, temperature: 2 };
        const after = (i * 37 + round * 11) % 120;
        const timer = setTimeout(() => stop.abort(), after);
        try {
          const response = await fetch(`${server.url}/v1/chat/completions`, {
            method: 'POST',
            headers: { 'content-type': 'application/json', authorization: `Bearer ${KEYS.app}` },
            body: JSON.stringify(body),
            signal: stop.signal,
          });
          // Between two tokens.
          if (i % 4 === 0) for await (const _piece of response.body ?? []) if (i % 8 === 0) break;
          await response.body?.cancel();
        } catch (e) {
          expect((e as Error).name).toBe('AbortError');
          ended++;
        } finally {
          clearTimeout(timer);
        }
      });
      const asked = ASKS.slice(0, 6).map(ask);
      expect(await Promise.all(asked)).toEqual(alone.slice(0, 6));
      await Promise.all(going);
      await expect.poll(rests, { timeout: 5000, interval: 5 }).toEqual(AT_REST);
    }
    expect(ended).toBeGreaterThan(10);
  });
});

describe('adapters while it runs', () => {
  it('come, are replaced and go; only who may use them does', async () => {
    expect(codeOf(await call('GET', '/admin/adapters'))).toBe('401 invalid_api_key');
    expect(codeOf(await call('POST', '/v1/chat/completions', { ...bodyOf(1), model: 'guest' }))).toBe(
      '404 model_not_found',
    );
    const loaded = await admin('POST', '/admin/adapters', { name: 'guest', path: third });
    expect(loaded).toMatchObject({ status: 201, json: { name: 'guest', status: 'candidate', replaced: false } });
    const guest = { ...bodyOf(1), model: 'guest' };
    expect(codeOf(await call('POST', '/v1/chat/completions', guest))).toBe('403 adapter_not_approved');
    const tried = await call('POST', '/v1/chat/completions', guest, { key: KEYS.dev });
    expect(tried.json.usage).toMatchObject({ completion_tokens: 9 }); // all that this key may have
    expect(codeOf(await call('POST', '/v1/chat/completions', bodyOf(1), { key: KEYS.dev }))).toBe(
      '403 model_not_allowed',
    );
    await admin('PATCH', '/admin/adapters/guest', { status: 'approved' });
    const first = said((await call('POST', '/v1/chat/completions', guest)).json);
    expect(first).not.toBe(alone[1]);

    const running = call('POST', '/v1/chat/completions', guest);
    const replaced = await admin('POST', '/admin/adapters', { name: 'guest', path: odd, status: 'approved' });
    expect(replaced).toMatchObject({ status: 200, json: { replaced: true, pairs: loaded.json.pairs } });
    expect(replaced.json.digest).not.toBe(loaded.json.digest);
    expect([first, alone[1]]).toContain(said((await running).json));
    expect(said((await call('POST', '/v1/chat/completions', guest)).json)).toBe(alone[1]); // odd, by another name

    await admin('PATCH', '/admin/adapters/guest', { status: 'quarantined' });
    for (const key of [KEYS.app, KEYS.dev])
      expect(codeOf(await call('POST', '/v1/chat/completions', guest, { key }))).toBe('403 adapter_quarantined');
    const models = (await call('GET', '/v1/models')).json.data as { id: string; temper: Json }[];
    expect(models.map((m) => [m.id, m.temper.status, m.temper.tensors === 2 * (m.temper.pairs as number)])).toEqual([
      ['nano', 'approved', true],
      ['odd', 'approved', true],
      ['even', 'approved', true],
      ['guest', 'quarantined', true],
    ]);
    const seen = (await call('GET', '/v1/models', undefined, { key: KEYS.dev })).json.data as { id: string }[];
    expect(seen.map((m) => m.id)).toEqual(['nano', 'guest']);
    expect(await admin('DELETE', '/admin/adapters/guest')).toMatchObject({ status: 200, json: { deleted: true } });
    expect(codeOf(await admin('DELETE', '/admin/adapters/guest'))).toBe('404 model_not_found');
    expect(codeOf(await admin('DELETE', '/admin/adapters/nano'))).toBe('404 model_not_found');
  });
  it('a load that is given up leaves nothing, or an adapter that is listed', async () => {
    const left = async (): Promise<number> => {
      const listed = (await admin('GET', '/admin/adapters')).json.data as unknown[];
      return (await state()).engine.adapters - listed.length;
    };
    let gone = 0;
    for (let i = 0; i < 24; i++) {
      const stop = new AbortController();
      setTimeout(() => stop.abort(), i / 2);
      await call(
        'POST',
        '/admin/adapters',
        { name: 'late', path: third },
        { key: KEYS.admin, signal: stop.signal },
      ).catch(() => gone++);
    }
    expect(gone).toBeGreaterThan(3);
    await expect.poll(left, { timeout: 5000, interval: 20 }).toBe(0);
    await admin('DELETE', '/admin/adapters/late');
    expect(await left()).toBe(0);
  });
  it('one whose numbers grow beyond all bounds fails those who ask it, and nobody beside them', async () => {
    const wild = await oddAdapter(join(root, 'wild'), 5, 2, 3e38);
    await admin('POST', '/admin/adapters', { name: 'wild', path: wild, status: 'approved' });
    for (const spread of [0, 2]) {
      const answers = await Promise.all(
        ASKS.map(async (i) => {
          await new Promise((later) => setTimeout(later, i * spread));
          if (i % 4 !== 3) return ask(i);
          return codeOf(await call('POST', '/v1/chat/completions', { ...bodyOf(i), model: 'wild' }));
        }),
      );
      expect(answers).toEqual(alone.map((a, i) => (i % 4 === 3 ? '500 internal_error' : a)));
    }
    await admin('DELETE', '/admin/adapters/wild');
    const told = log.filter((line) => line.includes('no finite allowed logit'));
    expect(told.length).toBe(8);
    for (const line of told) log.splice(log.indexOf(line), 1);
    await expect.poll(rests, { timeout: 5000, interval: 5 }).toEqual(AT_REST);
  });
  it('what does not load is refused and changes nothing', async () => {
    const before = (await admin('GET', '/admin/adapters')).json;
    for (const [body, param] of [
      [{ name: 'x', path: join(root, 'none') }, 'path'],
      [{ name: 'odd', path: NANO }, 'path'],
      [{ name: 'nano', path: odd }, 'name'],
      [{ name: '../x', path: odd }, 'name'],
      [{ name: 'x' }, 'path'],
      [{ name: 'x', path: odd, status: 'fine' }, 'status'],
    ] as const) {
      const { status, json } = await admin('POST', '/admin/adapters', body);
      expect([status, (json.error as Json).param]).toEqual([400, param]);
    }
    expect((await admin('GET', '/admin/adapters')).json).toEqual(before);
    expect(await ask(1)).toBe(alone[1]);
  });
});

describe('keys', () => {
  it('a key that has asked enough is told so before anything is computed', async () => {
    const few = (): ReturnType<typeof call> =>
      call('POST', '/v1/chat/completions', { ...bodyOf(0), max_completion_tokens: 1 }, { key: KEYS.few });
    expect([(await few()).status, (await few()).status]).toEqual([200, 200]);
    const third = await few();
    expect(codeOf(third)).toBe('429 request_limit');
    expect(Number(third.retryAfter)).toBeGreaterThan(10);
    expect((await state()).keys).toEqual({});
  });
  it('Anthropic’s header does too', async () => {
    expect((await fetch(`${server.url}/v1/models`, { headers: { 'x-api-key': KEYS.app } })).status).toBe(200);
    expect((await fetch(`${server.url}/v1/models`, { headers: { 'x-api-key': 'no' } })).status).toBe(401);
  });
  it('new settings count at once: keys, adapters, statuses; a stream that runs goes on', async () => {
    const stream = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${KEYS.app}` },
      body: JSON.stringify({ ...bodyOf(2), stream: true, max_completion_tokens: 200, temperature: 2 }),
    });
    const next = {
      ...options,
      engine: { ...options.engine, adapters: { odd: odd as string, new: third as string }, contextTokens: 256 },
      adapterStatus: { odd: 'quarantined' as const },
      keys: [{ name: 'app', key: 'another-key-of-the-app' }],
      port: 1,
    };
    const told = await server.reload(next);
    expect(told).toEqual([
      'adapter even: unloaded',
      'adapter odd: quarantined',
      'adapter new: loaded, approved',
      'port: changed, which needs a restart',
      'context: changed, which needs a restart',
    ]);
    expect(codeOf(await call('GET', '/v1/models'))).toBe('401 invalid_api_key');
    const key = 'another-key-of-the-app';
    const models = (await call('GET', '/v1/models', undefined, { key })).json.data as { id: string }[];
    expect(models.map((m) => m.id)).toEqual(['nano', 'odd', 'new']);
    expect((await stream.text()).trimEnd().endsWith('data: [DONE]')).toBe(true);
    await expect(server.reload({ ...next, apiKeyFile: join(root, 'none') })).rejects.toThrow();
    expect((await call('GET', '/v1/models', undefined, { key })).status).toBe(200);
    await server.reload(options);
    expect(await ask(1)).toBe(alone[1]);
  });
  it('settings without keys open no server that had some', async () => {
    const { keys: _, ...open } = options;
    await expect(server.reload(open)).rejects.toMatchObject({ code: 'bad_option' });
    expect((await fetch(`${server.url}/v1/models`)).status).toBe(401);
  });
  it('a field that the engine refuses is named as the request names it', async () => {
    const { status, json } = await call('POST', '/v1/chat/completions', { ...bodyOf(0), logit_bias: { 999999: 1 } });
    expect([status, (json.error as Json).param]).toEqual([400, 'logit_bias']);
    expect((json.error as Json).message).toMatch(/^logit_bias: /);
  });
  it('settings that are read again lift no quarantine that they do not speak of', async () => {
    const statusOf = async (): Promise<unknown> =>
      ((await admin('GET', '/admin/adapters')).json.data as Json[]).find((m) => m.name === 'odd')?.status;
    await admin('PATCH', '/admin/adapters/odd', { status: 'quarantined' });
    expect(await server.reload({ ...options, queue: 100 })).toEqual([
      'adapter odd: stays quarantined, as an admin said',
    ]);
    expect([await statusOf(), codeOf(await call('POST', '/v1/chat/completions', bodyOf(1)))]).toEqual([
      'quarantined',
      '403 adapter_quarantined',
    ]);
    const candidate = { ...options, adapterStatus: { odd: 'candidate' as const } };
    expect(await server.reload(candidate)).toEqual(['adapter odd: candidate']);
    expect(await server.reload(options)).toEqual(['adapter odd: approved']);
    expect(await ask(1)).toBe(alone[1]);
  });
  it('a request of several answers is one: they wait for each other where the key may not have so many', async () => {
    const one = { name: 'app', key: KEYS.app, concurrent: 1, requestsPerMinute: 2 };
    await server.reload({ ...options, keys: [one] });
    const asked = { ...bodyOf(2), n: 3 };
    const { status, json } = await call('POST', '/v1/chat/completions', asked);
    expect([status, (json.choices as unknown[]).length]).toEqual([200, 3]);
    const prompts = { model: 'nano', prompt: ['a', 'b', 'c'], max_tokens: 2, echo: true, logprobs: 0 };
    const texts = await call('POST', '/v1/completions', prompts);
    expect([texts.status, (texts.json.choices as unknown[]).length]).toEqual([200, 3]);
    expect(codeOf(await call('POST', '/v1/completions', prompts))).toBe('429 request_limit');
    await server.reload(options);
  });
});

describe('TLS', () => {
  const pem = (name: string): { cert: string; key: string } => {
    const cert = join(root, `${name}.pem`),
      key = join(root, `${name}.key`);
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
        '-subj',
        `/CN=${name}`,
        '-keyout',
        key,
        '-out',
        cert,
      ],
      { stdio: 'ignore' },
    );
    return { cert, key };
  };
  const certificateOf = (url: string): Promise<unknown> =>
    new Promise((done, fail) => {
      const r = httpsRequest(`${url}/health`, { rejectUnauthorized: false, agent: false }, (response) => {
        const { subject } = (response.socket as import('node:tls').TLSSocket).getPeerCertificate();
        response.resume();
        response.on('end', () => done([response.statusCode, subject.CN]));
      });
      r.on('error', fail);
      r.end();
    });
  it('is refused in one line where the files are no pair, and a reload keeps the pair before', async () => {
    const { adapters: _, ...engine } = options.engine;
    const plain: ServeOptions = { engine, port: 0, log: (line) => log.push(line) };
    const [a, b] = [pem('a'), pem('b')];
    const broken = join(root, 'broken.pem'),
      empty = join(root, 'empty.pem');
    writeFileSync(broken, 'no certificate');
    writeFileSync(empty, ''); // as it is while somebody writes it
    for (const tls of [
      { cert: empty, key: a.key },
      { cert: a.cert, key: empty },
      { cert: a.cert, key: b.key },
      { cert: broken, key: a.key },
      { cert: a.cert, key: broken },
      { cert: a.key, key: a.cert },
    ])
      await expect(serve({ ...plain, tls })).rejects.toMatchObject({ code: 'bad_option' });
    const secure = await serve({ ...plain, tls: a });
    try {
      await expect(secure.reload({ ...plain, tls: { cert: a.cert, key: b.key } })).rejects.toMatchObject({
        code: 'bad_option',
      });
      expect(await certificateOf(secure.url)).toEqual([200, 'a']);
    } finally {
      await secure.close();
    }
  });
  it('serves with the certificate of its files, and with another when it is told', async () => {
    const { adapters: _, ...engine } = options.engine;
    const plain: ServeOptions = { engine, port: 0, log: (line) => log.push(line) };
    const secure = await serve({ ...plain, tls: pem('first') });
    try {
      expect(secure.url).toMatch(/^https:/);
      expect(await certificateOf(secure.url)).toEqual([200, 'first']);
      await secure.reload({ ...plain, tls: pem('second') });
      expect(await certificateOf(secure.url)).toEqual([200, 'second']);
    } finally {
      await secure.close();
    }
  });
});

it('said only what admins did', () => {
  expect(log.filter((line) => !line.startsWith('admin owner: '))).toEqual([]);
  expect(log.length).toBeGreaterThan(3);
});
