// The lines between here and a hub, in a process of its own: https, what leaves it, and proxies.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { runPull } from '../../src/hub/run-pull.js';
import '../child-coverage.js';
import { COMMIT, type HubServer, noise, startHubServer } from './hub-server.js';
import { selfSigned } from './self-signed.js';

const main = join(packageRoot, 'dist', 'cli', 'main.js');
const TOKEN = 'hf_TokenOfTheLines';
const files = { 'config.json': Buffer.from('{}'), 'a.bin': noise(300) };
const pem = selfSigned();
let dir: string;
let hub: HubServer;
const open: Server[] = [];
const at = (...parts: string[]): string => join(dir, ...parts);

const listening = (server: Server): Promise<number> => {
  open.push(server);
  return new Promise((done) => server.listen(0, '127.0.0.1', () => done((server.address() as AddressInfo).port)));
};
/** https before a server of http. @param rewrite headers that it answers */
async function tlsBefore(
  url: string,
  rewrite: (headers: IncomingMessage['headers']) => IncomingMessage['headers'] = (h) => h,
): Promise<string> {
  const server = createTlsServer(pem, (q, r) => {
    const { method, headers, url: path } = q;
    const to = httpRequest(`${url}${path}`, { method, headers }, (answer) => {
      r.writeHead(answer.statusCode ?? 500, rewrite(answer.headers));
      answer.pipe(r);
    });
    q.pipe(to);
  });
  return `https://localhost:${await listening(server)}`;
}
interface Ran {
  readonly code: number | null;
  readonly text: string;
}
async function ran(endpoint: string, env: Record<string, string> = {}, name = 'm'): Promise<Ran> {
  const child = spawn(process.execPath, [main, 'pull', 'o/n', name, '--endpoint', endpoint, '--retries', '1'], {
    cwd: dir,
    env: { ...process.env, HF_HOME: at('hf'), NODE_EXTRA_CA_CERTS: at('cert.pem'), HF_TOKEN: TOKEN, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (d: Buffer) => {
      text += d;
    });
  const code = await new Promise<number | null>((done) => child.on('close', (c) => done(c)));
  return { code, text };
}
const isWhole = (name = 'm'): boolean =>
  Object.entries(files).every(([f, bytes]) => existsSync(at(name, f)) && readFileSync(at(name, f)).equals(bytes));

beforeAll(() => {
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']) {
    delete process.env[name];
    delete process.env[name.toLowerCase()];
  }
});
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'lines-'));
  writeFileSync(at('cert.pem'), pem.cert);
  hub = await startHubServer({ repos: { 'model o/n': { files, commit: COMMIT } }, token: TOKEN });
});
afterEach(async () => {
  for (const server of open.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
  await hub.close();
  rmSync(dir, { recursive: true, force: true });
});

describe('https', () => {
  it('takes the token; the store that it sends to does not get it', async () => {
    const store = await tlsBefore(hub.cdn);
    const endpoint = await tlsBefore(hub.url, (h) =>
      h.location ? { ...h, location: h.location.replace(hub.cdn, store) } : h,
    );
    expect(await ran(endpoint)).toMatchObject({ code: 0 });
    expect(isWhole()).toBe(true);
    for (const s of hub.seen) expect(s.authorization).toBe(s.port === 'hub' ? `Bearer ${TOKEN}` : undefined);
    expect(hub.seen.some((s) => s.port === 'cdn')).toBe(true);
  });
  it('is not left for http: nothing is asked of where it would send, and nothing is used', async () => {
    const endpoint = await tlsBefore(hub.url); // its large files lie at http://
    const { code, text } = await ran(endpoint);
    expect(text).toContain('redirects from https to http');
    expect(code).toBe(30);
    expect(hub.seen.filter((s) => s.port === 'cdn')).toEqual([]);
    expect(existsSync(at('m', 'a.bin'))).toBe(false);
    expect(text).not.toContain(TOKEN);
  });
  it('nor by another https server on the way', async () => {
    const loose = createTlsServer(pem, (_, r) => r.writeHead(302, { location: `${hub.cdn}/x` }).end());
    const over = `https://localhost:${await listening(loose)}`;
    const endpoint = await tlsBefore(hub.url, (h) => (h.location ? { ...h, location: `${over}/a` } : h));
    const { code, text } = await ran(endpoint);
    expect([code, /redirects from https to http/.test(text)]).toEqual([30, true]);
    expect(hub.seen.filter((s) => s.port === 'cdn')).toEqual([]);
  });
  it('of a certificate that nobody vouches for is no hub', async () => {
    const { code, text } = await ran(await tlsBefore(hub.url), { NODE_EXTRA_CA_CERTS: '' });
    expect(code).toBe(30);
    expect(text).toMatch(/cannot be reached \((DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN)\)/);
    expect(hub.seen).toEqual([]);
  });
});

/** A proxy that connects, or answers otherwise. */
async function proxy(answer = '200 OK'): Promise<{ url: string; port: number; through: string[]; as: string[] }> {
  const [through, as]: [string[], string[]] = [[], []];
  const server = createServer((_, r) => r.writeHead(501).end());
  server.on('connect', (request: IncomingMessage, socket: Socket) => {
    through.push(request.url ?? '');
    as.push(request.headers['proxy-authorization'] ?? '');
    socket.on('error', () => {});
    if (!answer.startsWith('200')) {
      socket.end(`HTTP/1.1 ${answer}\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    const [host, port] = (request.url ?? '').split(':');
    const to = connect(Number(port), host === 'localhost' ? '127.0.0.1' : host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      to.pipe(socket);
      socket.pipe(to);
    });
    to.on('error', () => socket.destroy());
  });
  const port = await listening(server);
  return { url: `http://127.0.0.1:${port}`, port, through, as };
}

describe('proxies', () => {
  it('https goes through that of HTTPS_PROXY, with its user, and the token inside alone', async () => {
    const { port, through, as } = await proxy();
    const store = await tlsBefore(hub.cdn);
    const endpoint = await tlsBefore(hub.url, (h) =>
      h.location ? { ...h, location: h.location.replace(hub.cdn, store) } : h,
    );
    const { code, text } = await ran(endpoint, { HTTPS_PROXY: `http://me:s3cret@127.0.0.1:${port}` });
    expect([code, isWhole()]).toEqual([0, true]);
    expect(new Set(through)).toEqual(new Set([endpoint, store].map((u) => u.replace('https://', ''))));
    expect(new Set(as)).toEqual(new Set([`Basic ${Buffer.from('me:s3cret').toString('base64')}`]));
    expect(text).not.toContain('s3cret');
  });
  /** In this process. @returns the error; null: all came */
  async function pulled(endpoint: string, env: Record<string, string>): Promise<TemperError | null> {
    Object.assign(process.env, env, { HF_TOKEN: TOKEN, HF_HOME: at('hf') });
    try {
      await runPull({ repo: 'o/n', dir: at('m'), endpoint, retries: 1 });
      return null;
    } catch (e) {
      return e as TemperError;
    } finally {
      for (const name of [...Object.keys(env), 'HF_TOKEN', 'HF_HOME']) delete process.env[name];
    }
  }
  it.each(['example.org .localhost', '*'])('but not to NO_PROXY=%s', async (no) => {
    const { url, through } = await proxy('403 Forbidden');
    const NO_PROXY = no === '*' ? no : `${no},127.0.0.1`;
    expect(await pulled(hub.url.replace('127.0.0.1', 'localhost'), { HTTP_PROXY: url, NO_PROXY })).toBeNull();
    expect([through, isWhole()]).toEqual([[], true]);
  });
  it('an address without http:// is one, as for curl, and the lower case comes first', async () => {
    const { port, through } = await proxy();
    const env = { HTTP_PROXY: 'http://127.0.0.1:1', http_proxy: `127.0.0.1:${port}` };
    expect(await pulled(hub.url, env)).toBeNull();
    expect(through.length).toBeGreaterThan(0);
  });
  it.each([
    ['socks5://127.0.0.1:1', 2, /HTTP_PROXY: is a proxy of kind socks5:\/\//],
    ['http://', 2, /HTTP_PROXY: is no address/],
    ['http://me:s3cret@127.0.0.1:1', 30, /cannot be reached \(ECONNREFUSED; HTTP_PROXY names a proxy\)/],
  ])('HTTP_PROXY=%s', async (value, exitCode, message) => {
    const e = await pulled(hub.url, { HTTP_PROXY: value });
    expect(e?.message).toMatch(message);
    expect(e).toMatchObject({ exitCode });
    expect(JSON.stringify([e?.message, e?.details, e?.stack])).not.toContain('s3cret');
    expect(hub.seen).toEqual([]);
  });
  it.each([
    ['407 Proxy Authentication Required', 2, /the proxy that HTTP_PROXY names wants a user and a password/],
    ['502 Bad Gateway', 30, /the proxy that HTTP_PROXY names refuses 127\.0\.0\.1:\d+ with 502/],
  ])('a proxy that answers %s', async (answer, exitCode, message) => {
    const { url } = await proxy(answer);
    const e = await pulled(hub.url, { HTTP_PROXY: url });
    expect(e?.message).toMatch(message);
    expect(e).toMatchObject({ exitCode });
    expect(hub.seen).toEqual([]);
  });
});
