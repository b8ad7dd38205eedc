// The command in a process of its own: killed at any moment it leaves nothing that looks whole, and the next one goes
// on where it was; Ctrl-C ends it; what it prints, its exit codes, and the variables it reads.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import '../child-coverage.js';
import { COMMIT, type HubServer, noise, type Request, startHubServer } from './hub-server.js';

const main = join(packageRoot, 'dist', 'cli', 'main.js');
const files = { 'config.json': Buffer.from('{}'), 'a.bin': noise(20 * 2 ** 20, 5), 'b.bin': noise(40 * 2 ** 20, 6) };
let dir: string;
let server: HubServer;
const at = (...parts: string[]): string => join(dir, ...parts);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kill-'));
});
afterEach(async () => {
  await server.close();
  rmSync(dir, { recursive: true, force: true });
});
/** A server that sends about so many bytes a second on each connection, and after the first `most` no more. */
const slow = (bytesPerSecond: number, most: number) => (r: Request) => {
  const { body, seen, response } = r;
  if (seen.port !== 'cdn' || !body) return false;
  const [from = 0, to = body.length - 1] = (/(\d+)-(\d+)/.exec(seen.range ?? '') ?? []).slice(1).map(Number);
  response.writeHead(seen.range ? 206 : 200, {
    'content-length': String(to - from + 1),
    ...(seen.range ? { 'content-range': `bytes ${from}-${to}/${body.length}` } : {}),
  });
  let sent = from;
  const timer = setInterval(() => {
    const next = Math.min(to + 1, from + most, sent + bytesPerSecond / 50);
    response.write(body.subarray(sent, next));
    sent = next;
    if (sent <= to) return;
    clearInterval(timer);
    response.end();
  }, 20);
  response.on('close', () => clearInterval(timer));
  return true;
};
interface Ran {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}
function start(args: readonly string[], env: Record<string, string> = {}): { child: ChildProcess; end: Promise<Ran> } {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: dir,
    env: { ...process.env, HF_HOME: at('hf'), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (d: Buffer) => {
    stdout += d;
  });
  child.stderr?.on('data', (d: Buffer) => {
    stderr += d;
  });
  const end = new Promise<Ran>((done) => {
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }));
  });
  return { child, end };
}
/** Bytes that a pull which goes on would not ask for again. */
const kept = (): number => {
  const folder = at('m', '.temper-pull');
  if (!existsSync(folder)) return 0;
  const maps = readdirSync(folder).filter((name) => name.endsWith('.map'));
  return maps
    .flatMap((name) => {
      const map = readFileSync(join(folder, name));
      return Array.from({ length: Math.floor(map.length / 8) - 2 }, (_, i) => map.readDoubleLE(16 + 8 * i));
    })
    .reduce((a, b) => a + b, 0);
};
const expectWhole = (): void => {
  for (const [name, bytes] of Object.entries(files)) expect(readFileSync(at('m', name)).equals(bytes)).toBe(true);
  expect(readdirSync(at('m')).sort()).toEqual(['.temper-pull.json', ...Object.keys(files)].sort());
};

it('kill -9 again and again: it goes on, and never gives a file that is not whole', async () => {
  // Four of them do not come to the end, however late they are killed.
  const fault = slow(12 * 2 ** 20, 3 * 2 ** 20);
  server = await startHubServer({ repos: { 'model o/n': { files, commit: COMMIT } }, fault });
  const args = ['pull', 'o/n', 'm', '--endpoint', server.url, '--connections', '3'];
  for (let i = 0; i < 4; i++) {
    const before = kept();
    const { child, end } = start(args);
    await expect.poll(kept, { interval: 10, timeout: 30_000 }).toBeGreaterThan(before);
    child.kill('SIGKILL');
    expect((await end).signal).toBe('SIGKILL');
    expect(readdirSync(at('m'))).toEqual(['.temper-pull']);
  }
  const went = server.seen.filter((s) => s.port === 'cdn' && s.range && !/=(0|16777216|33554432)-/.test(s.range));
  expect(went.length).toBeGreaterThan(0);
  server.options = { repos: server.options.repos ?? {} };
  const { code, stdout } = await start(args).end;
  expect(code).toBe(0);
  expect(stdout).toContain(`m: complete, 3 files`);
  expect(stdout).toContain(COMMIT);
  expectWhole();
});

it('Ctrl-C ends it with 130, and what came is kept', async () => {
  const fault = slow(4 * 2 ** 20, 3 * 2 ** 20);
  server = await startHubServer({ repos: { 'model o/n': { files, commit: COMMIT } }, fault });
  const args = ['pull', 'o/n', 'm', '--endpoint', server.url];
  const { child, end } = start(args);
  await expect.poll(kept, { timeout: 30_000 }).toBeGreaterThan(0);
  child.kill('SIGINT');
  const { code, stderr } = await end;
  expect(code).toBe(130);
  expect(stderr).toContain('what came is kept, run it again to go on');
  expect(readdirSync(at('m'))).toEqual(['.temper-pull']);
  expect(existsSync(at('.m.lock'))).toBe(false);
});

it('--json: one result, or one error, and exit codes of their own', async () => {
  const secret = 'hf_VerySecretToken';
  server = await startHubServer({
    repos: { 'model o/n': { files: { a: noise(300) }, commit: COMMIT } },
    token: secret,
  });
  const pull = (env: Record<string, string>, ...more: string[]): Promise<Ran> =>
    start(['pull', 'o/n', 'm', '--retries', '1', '--json', ...more], env).end;
  const good = await pull({ HF_ENDPOINT: server.url, HF_TOKEN: secret });
  expect(good.code).toBe(0);
  expect(JSON.parse(good.stdout)).toMatchObject({ commit: COMMIT, bytes: 300, fetchedBytes: 300, dir: 'm' });
  expect(good.stderr).toBe('');
  const denied = await pull({ HF_ENDPOINT: server.url });
  expect([denied.code, JSON.parse(denied.stdout).error.code]).toEqual([2, 'hub_access']);
  server.options = { ...server.options, fault: (r) => Boolean(r.response.writeHead(500).end()) };
  const down = await pull({ HF_ENDPOINT: server.url, HF_TOKEN: secret });
  expect([down.code, JSON.parse(down.stdout).error.code]).toEqual([30, 'hub_unreachable']);
  const { fault: _, ...rest } = server.options;
  server.options = { ...rest, fault: (r) => r.seen.port === 'cdn' && Boolean(r.response.end(noise(300, 2))) };
  const corrupt = await pull(
    { HF_TOKEN: secret, HF_ENDPOINT: 'http://127.0.0.1:1' },
    '--endpoint',
    server.url,
    '--replace',
  );
  expect(corrupt.code).toBe(0); // it is there already, nothing is fetched
  rmSync(at('m', 'a'));
  const wrong = await pull({ HF_TOKEN: secret }, '--endpoint', server.url);
  expect([wrong.code, JSON.parse(wrong.stdout).error.code]).toEqual([40, 'hub_digest']);
  const bad = await start(['pull', '../x', 'm']).end;
  expect(bad.code).toBe(2);
  for (const { stdout, stderr } of [good, denied, down, wrong, bad]) expect(stdout + stderr).not.toContain(secret);
});

it('goes through the proxy that HTTP_PROXY names, but not to what NO_PROXY names', async () => {
  server = await startHubServer({ repos: { 'model o/n': { files: { a: noise(300) }, commit: COMMIT } } });
  const through: string[] = [];
  const proxy = createServer();
  proxy.on('connect', (request, socket) => {
    through.push(request.url ?? '');
    const [host, port] = (request.url ?? '').split(':');
    const to = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      to.pipe(socket);
      socket.pipe(to);
    });
    for (const s of [to, socket]) s.on('error', () => {});
  });
  await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
  const to = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const env = { HTTP_PROXY: to, http_proxy: to, no_proxy: '' };
  const args = ['pull', 'o/n', 'm', '--endpoint', server.url];
  expect((await start(args, env).end).code).toBe(0);
  expect(through.length).toBeGreaterThan(0);
  through.length = 0;
  rmSync(at('m'), { recursive: true });
  expect((await start(args, { ...env, no_proxy: '127.0.0.1' }).end).code).toBe(0);
  expect(through).toEqual([]);
  proxy.closeAllConnections();
  proxy.close();
});
