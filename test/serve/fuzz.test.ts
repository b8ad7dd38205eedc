// Requests that nobody should send: refused or answered, never a fault of the server, and it goes on.
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { serve } from '../../src/serve/server.js';
import { hostileBytes } from './hostile.js';
import { faultOf, hostileRequest } from './hostile-apis.js';
import { NANO, oddAdapter } from './odd-adapter.js';

const root = mkdtempSync(join(tmpdir(), 'serve-fuzz-'));
const log: string[] = [];
const server = await serve({
  engine: {
    model: NANO,
    threads: 1,
    device: 'cpu',
    contextTokens: 256,
    slots: 8,
    adapters: { odd: await oddAdapter(join(root, 'odd'), 1) },
  },
  port: 0,
  queue: 100,
  maxBodyBytes: 1 << 16,
  log: (line) => log.push(line),
});
afterAll(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});
/** More of them, and others: scripts/fuzz.mjs. */
const RUNS = Number(process.env.TEMPER_FUZZ_REQUESTS ?? 200),
  SEED = Number(process.env.TEMPER_FUZZ_SEED ?? 11);

it(`${RUNS} odd bodies: a status below 500, an error in its shape, a stream that ends`, {
  timeout: 3_600_000,
}, async () => {
  const statuses = new Map<number, number>();
  const bodies = fc.sample(hostileBytes, { numRuns: RUNS, seed: SEED });
  const one = async (body: Buffer): Promise<void> => {
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Uint8Array(body),
    });
    const text = await response.text();
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
    if (response.status >= 500 || (response.status === 200 && text === ''))
      expect.unreachable(`${response.status} for ${body.toString().slice(0, 2000)}: ${text}`);
    if (response.status !== 200)
      expect(JSON.parse(text)).toEqual({
        error: {
          message: expect.any(String) as string,
          type: expect.any(String) as string,
          param: expect.toSatisfy((p: unknown) => p === null || typeof p === 'string') as unknown,
          code: expect.any(String) as string,
        },
      });
    else if (text.startsWith('data: ')) expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    else expect(JSON.parse(text)).toMatchObject({ object: 'chat.completion' });
  };
  for (let i = 0; i < bodies.length; i += 8) await Promise.all(bodies.slice(i, i + 8).map(one));
  expect(log).toEqual([]);
  expect(statuses.get(200) ?? 0).toBeGreaterThan(RUNS / 8);
  expect(statuses.get(400) ?? 0).toBeGreaterThan(RUNS / 10);
});

it(`${RUNS} bodies of all APIs that are wrong in a place or three`, { timeout: 3_600_000 }, async () => {
  const statuses = new Map<number, number>();
  const asks = fc.sample(hostileRequest('nano'), { numRuns: RUNS, seed: SEED });
  const one = async ({ path, body }: (typeof asks)[number]): Promise<void> => {
    const response = await fetch(`${server.url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    const fault = faultOf(path, response.status, response.headers.get('content-type'), await response.text());
    if (fault !== null) expect.unreachable(`${path} ${body.slice(0, 2000)}: ${fault}`);
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
  };
  for (let i = 0; i < asks.length; i += 8) await Promise.all(asks.slice(i, i + 8).map(one));
  expect(log).toEqual([]);
  expect(statuses.get(200) ?? 0).toBeGreaterThan(RUNS / 25);
  expect(statuses.get(400) ?? 0).toBeGreaterThan(RUNS / 5);
});

/** Sends bytes on a socket of its own. @returns what came back until it was closed */
const raw = (bytes: Buffer): Promise<string> =>
  new Promise((done) => {
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let text = '';
    socket.on('data', (d) => {
      text += d.toString('latin1');
      if (text.includes('\r\n\r\n')) socket.end();
    });
    socket.on('error', () => {});
    socket.on('close', () => done(text));
  });

it('odd heads, and bodies that are announced larger than they may be, are refused early', async () => {
  const head = (lines: string): Buffer =>
    Buffer.from(`POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n${lines}\r\n`);
  const statusOf = async (bytes: Buffer): Promise<string> => (await raw(bytes)).slice(9, 12);
  expect(await statusOf(Buffer.from('NONSENSE\r\n\r\n'))).toBe('400');
  expect(await statusOf(head(`x: ${'y'.repeat(20_000)}\r\n`))).toBe('431');
  expect(await statusOf(head('content-length: 1000000000\r\ncontent-type: application/json\r\n'))).toBe('413');
  expect(await statusOf(head('content-length: 5\r\ntransfer-encoding: chunked\r\n'))).toBe('400');
  expect(await statusOf(Buffer.from('GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n'))).toBe('421');
  // Node, or what stands before the routes, refuses these; they are told as all errors are.
  for (const [bytes, status, code] of [
    [Buffer.from('NONSENSE\r\n\r\n'), '400', 'bad_request'],
    [Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), '400', 'bad_request'],
    [head(`x: ${'y'.repeat(20_000)}\r\n`), '431', 'head_too_large'],
    [head('expect: miracles\r\ncontent-length: 2\r\n'), '417', 'expectation_failed'],
    [Buffer.from('GET /health HTTP/1.1\r\n\r\n'), '400', 'bad_request'],
    [Buffer.from('GET / HTTP/1.1\r\nhost: 127.0.0.1/x\r\n\r\n'), '400', 'bad_request'],
    [Buffer.from('GET /\\x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n'), '400', 'bad_request'],
    [Buffer.from('GET http://[ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n'), '400', 'bad_request'],
  ] as const) {
    const answer = await raw(bytes);
    expect(answer.slice(9, 12)).toBe(status);
    expect(answer).toContain('content-type: application/json');
    expect(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4))).toEqual({
      error: { message: expect.any(String) as string, type: 'invalid_request_error', param: null, code },
    });
  }
  expect(log).toEqual([]);
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
});
