// Two servers behind real nginx with deploy/nginx/temper.conf, but for addresses and files of keys: the same beginning
// comes to the same replica, streams leave piece by piece, and who goes away or is gone is noticed.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { serve, type TemperServer } from '../../src/serve/server.js';
import { NANO } from '../serve/odd-adapter.js';
import { program, read } from './files.js';

const nginx = program('nginx');
const root = mkdtempSync(join(tmpdir(), 'nginx-'));
chmodSync(root, 0o755);
const KEYS = ['the-key-of-one-caller', 'the-key-of-the-other1'] as const;
const children: ChildProcess[] = [];
const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  for (const close of closers) await close();
  rmSync(root, { recursive: true });
});

/** Starts nginx before replicas. @returns the socket that it listens on */
async function front(name: string, replicas: readonly string[]): Promise<string> {
  const at = (file: string): string => join(root, `${name}.${file}`);
  const [cert, key, socket] = [at('pem'), at('key'), at('sock')];
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...['-subj', `/CN=${name}`, '-keyout', key, '-out', cert],
    ],
    { stdio: 'ignore' },
  );
  let conf = read('nginx/temper.conf')
    .replace('listen 443 ssl', `listen unix:${socket} ssl`)
    .replace('/etc/temper/tls/cert.pem', cert)
    .replace('/etc/temper/tls/key.pem', key);
  for (const [i, url] of replicas.entries()) conf = conf.replaceAll(`10.0.0.1${i + 1}:8080`, new URL(url).host);
  expect(conf).not.toContain('10.0.0.');
  writeFileSync(at('temper.conf'), conf);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((t) => `${t}_temp_path ${root}/${name}-${t};`)
    .join(' ');
  writeFileSync(
    at('nginx.conf'),
    `daemon off; master_process off; pid ${at('pid')}; error_log stderr error; events {}
     http { access_log off; ${temporary} include ${at('temper.conf')}; }\n`,
  );
  const args = ['-p', root, '-e', 'stderr', '-c', at('nginx.conf')];
  execFileSync(nginx ?? '', [...args, '-t'], { stdio: 'pipe' });
  const child = spawn(nginx ?? '', args, { stdio: 'ignore' });
  children.push(child);
  for (let i = 0; !existsSync(socket); i++) {
    if (i === 400 || child.exitCode !== null) throw new Error('nginx does not listen');
    await new Promise((later) => setTimeout(later, 50));
  }
  return socket;
}
interface Ask {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
}
/** The answer when its head is there. */
function ask(socketPath: string, path: string, { method, headers = {}, body }: Ask = {}): Promise<IncomingMessage> {
  return new Promise((done, fail) => {
    const asked = request(
      {
        socketPath,
        path,
        method: method ?? (body === undefined ? 'GET' : 'POST'),
        agent: false,
        rejectUnauthorized: false,
        headers: {
          host: 'api.example',
          authorization: `Bearer ${KEYS[0]}`,
          'content-type': 'application/json',
          ...headers,
        },
      },
      done,
    );
    asked.on('error', fail);
    asked.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
  });
}
const json = async (answer: IncomingMessage): Promise<Record<string, unknown>> =>
  JSON.parse(await text(answer)) as Record<string, unknown>;

describe.skipIf(nginx === null)('nginx before two servers (needs nginx)', () => {
  const servers: TemperServer[] = [];
  let socket = '';
  beforeAll(async () => {
    for (let i = 0; i < 2; i++) {
      const server = await serve({
        engine: { model: NANO, threads: 1, device: 'cpu', contextTokens: 256, slots: 4, prefixes: 16 },
        port: 0,
        keys: KEYS.map((key, k) => ({ name: `k${k}`, key })),
      });
      servers.push(server);
      closers.push(() => server.close());
    }
    socket = await front(
      'two',
      servers.map((s) => s.url),
    );
  });
  const chat = (prefix: string, more: object = {}): Ask => ({
    headers: { 'x-temper-prefix': prefix },
    body: {
      model: 'nano',
      messages: [
        { role: 'system', content: `You are ${prefix}. ${'Book tables by the window. '.repeat(6)}` },
        { role: 'user', content: 'Hello' },
      ],
      max_completion_tokens: 2,
      ...more,
    },
  });
  /** Requests of a route that each replica has answered. */
  const counts = (route: string): Promise<readonly number[]> =>
    Promise.all(
      servers.map(async (s) => {
        const metrics = await fetch(`${s.url}/metrics`, { headers: { authorization: `Bearer ${KEYS[0]}` } });
        const lines = [...(await metrics.text()).matchAll(/^temper_requests_total\{route="([^"]*)".*\} (\d+)$/gm)];
        return lines.filter((l) => l[1] === route).reduce((sum, l) => sum + Number(l[2]), 0);
      }),
    );

  it('the same beginning comes to the same replica, which has it computed', async () => {
    for (let i = 0; i < 8; i++) {
      const cached: number[] = [];
      for (let turn = 0; turn < 3; turn++) {
        const answer = await ask(socket, '/v1/chat/completions', chat(`assistant-${i}`));
        expect(answer.statusCode).toBe(200);
        const { usage } = (await json(answer)) as { usage: { prompt_tokens_details: { cached_tokens: number } } };
        cached.push(usage.prompt_tokens_details.cached_tokens);
      }
      expect(cached.map((n) => n > 30)).toEqual([false, true, true]);
    }
    for (const n of await counts('/v1/chat/completions')) expect(n % 3 === 0 && n > 0).toBe(true);
  });
  it('kept answers are found again, whatever beginning is named', async () => {
    for (const [k, key] of KEYS.entries()) {
      const headers = { authorization: `Bearer ${key}` };
      const body = { model: 'nano', input: 'Hello', max_output_tokens: 2 };
      const first = await json(await ask(socket, '/v1/responses', { headers, body }));
      for (let i = 0; i < 6; i++) {
        const other = { ...headers, 'x-temper-prefix': `other-${i}` };
        expect((await ask(socket, `/v1/responses/${String(first.id)}`, { headers: other })).statusCode, `${k}`).toBe(
          200,
        );
      }
    }
  });
  it('a client that goes away ends its answer there', async () => {
    const stream = await ask(
      socket,
      '/v1/chat/completions',
      chat('gone', { stream: true, max_completion_tokens: 200, temperature: 2, seed: 3 }),
    );
    await new Promise((first) => stream.once('data', first));
    stream.destroy();
    const running = async (): Promise<string[]> =>
      Promise.all(
        servers.map(async (s) => {
          const metrics = await fetch(`${s.url}/metrics`, { headers: { authorization: `Bearer ${KEYS[0]}` } });
          return /^temper_requests_running (\d+)$/m.exec(await metrics.text())?.[1] ?? '';
        }),
      );
    await expect.poll(running, { timeout: 20_000 }).toEqual(['0', '0']);
  });
  it('what it says itself has the form of the API', async () => {
    const codes: unknown[] = [];
    const large = await ask(socket, '/v1/chat/completions', { body: `"${'x'.repeat(3 << 20)}"` });
    for (const answer of [large, await ask(socket, '/metrics'), await ask(socket, '/admin/state')])
      codes.push(answer.statusCode, ((await json(answer)).error as { code: string }).code);
    expect(codes).toEqual([413, 'body_too_large', 404, 'not_found', 404, 'not_found']);
    const wrong = await ask(socket, '/v1/models', { headers: { authorization: 'Bearer none-of-the-keys' } });
    expect([wrong.statusCode, ((await json(wrong)).error as { code: string }).code]).toEqual([401, 'invalid_api_key']);
  });
  it('when one ends, the other answers for it; when both have, that is said', async () => {
    await servers[0]?.close();
    for (let i = 0; i < 8; i++)
      expect((await ask(socket, '/v1/chat/completions', chat(`assistant-${i}`))).statusCode).toBe(200);
    await servers[1]?.close();
    const nobody = await ask(socket, '/v1/chat/completions', chat('assistant-0'));
    expect([nobody.statusCode, nobody.headers['retry-after']]).toEqual([503, '2']);
    expect((await json(nobody)).error).toMatchObject({ code: 'no_replica', type: 'server_error' });
  });
});

describe.skipIf(nginx === null)('a stream through nginx (needs nginx)', () => {
  it('leaves piece by piece; one that is full has it asked of the other', async () => {
    let go = (): void => {},
      full = 0;
    const replicas = [false, true].map((isFull) =>
      createServer((asked, answer) => {
        asked.resume();
        if (isFull) {
          full++;
          answer.writeHead(429, { 'retry-after': '7', 'content-type': 'application/json' }).end('{}');
          return;
        }
        answer.writeHead(200, { 'content-type': 'text/event-stream' });
        answer.write('data: first\n\n');
        go = () => answer.end('data: [DONE]\n\n');
      }),
    );
    const urls = await Promise.all(
      replicas.map(async (server) => {
        await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
        closers.push(() => server.close());
        return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      }),
    );
    const socket = await front('stream', urls);
    for (let i = 0; full === 0 || i < 3; i++) {
      expect(i).toBeLessThan(100);
      const stream = await ask(socket, '/v1/chat/completions', { headers: { 'x-temper-prefix': `p${i}` }, body: {} });
      expect(stream.statusCode).toBe(200);
      let got = '';
      stream.on('data', (d: Buffer) => {
        got += d.toString();
      });
      // The rest is written when the first piece has been read: with a buffer in between it would not come.
      await expect.poll(() => got, { timeout: 20_000 }).toBe('data: first\n\n');
      go();
      await new Promise((end) => stream.once('end', end));
      expect(got).toBe('data: first\n\ndata: [DONE]\n\n');
    }
  });
});
