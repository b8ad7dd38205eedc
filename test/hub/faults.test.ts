// A hub, or what it sends on to, that fails, lies or is hostile: nothing wrong is ever used, the token goes nowhere
// else, and a pull ends, in a typed error, with what came kept.
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PullRequest, type PullResult, runPull } from '../../src/hub/run-pull.js';
import {
  COMMIT,
  type HubServer,
  noise,
  type Request,
  sendBytes,
  sendJson,
  sha256,
  startHubServer,
} from './hub-server.js';

const SEGMENT = 2 ** 16;
const large = noise(2 * SEGMENT + 20_000);
const small = Buffer.from('{"a": 1}\n');
const TOKEN = 'hf_SecretSecretSecret';
let dir: string;
let server: HubServer;
const servers: HubServer[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'faults-'));
  for (const name of ['HF_TOKEN', 'HF_TOKEN_PATH', 'HF_ENDPOINT', 'HF_HUB_OFFLINE']) delete process.env[name];
  process.env.HF_HOME = join(dir, 'hf-home');
});
afterEach(async () => {
  delete process.env.HF_TOKEN;
  for (const s of servers.splice(0)) await s.close();
  rmSync(dir, { recursive: true, force: true });
});
const at = (...parts: string[]): string => join(dir, ...parts);
const files = { 'config.json': small, 'model.bin': large };
async function open(
  fault?: (request: Request) => boolean | Promise<boolean>,
  more: Record<string, unknown> = {},
): Promise<HubServer> {
  server = await startHubServer({
    repos: { 'model o/n': { files, commit: COMMIT } },
    ...(fault ? { fault } : {}),
    ...more,
  });
  servers.push(server);
  return server;
}
const notices: string[] = [];
beforeEach(() => {
  notices.length = 0;
});
const from = (more: Partial<PullRequest> = {}): Promise<PullResult> =>
  runPull(
    {
      repo: 'o/n',
      dir: at('m'),
      endpoint: server.url,
      retries: 2,
      stallSeconds: 1,
      connections: 4,
      segmentBytes: SEGMENT,
      ...more,
    },
    { onNotice: (n) => notices.push(n) },
  );
const expectWhole = (): void => {
  expect(readFileSync(at('m', 'config.json')).equals(small)).toBe(true);
  expect(readFileSync(at('m', 'model.bin')).equals(large)).toBe(true);
  expect(readdirSync(at('m')).sort()).toEqual(['.temper-pull.json', 'config.json', 'model.bin']);
};
/** Nothing that anybody could take for the file is in the folder. */
const expectNothing = (): void => {
  const found = existsSync(at('m')) ? readdirSync(at('m')) : [];
  expect(found.filter((n) => n !== '.temper-pull')).toEqual([]);
};
const failed = async (
  more: Partial<PullRequest> = {},
): Promise<{ code: string; exitCode: number; message: string; details: Record<string, unknown> }> => {
  const e: unknown = await from(more).then(
    () => 'done',
    (error: unknown) => error,
  );
  expect(e).toBeInstanceOf(Error);
  expectNothing();
  const found = e as never as { code: string; exitCode: number; message: string; details: Record<string, unknown> };
  expect(JSON.stringify([found.message, found.details])).not.toContain(TOKEN);
  expect(JSON.stringify([found.message, found.details])).not.toContain('secret-of-the-cdn');
  expect(found.message).not.toContain('\n');
  return found;
};
const isCdn = (r: Request): boolean => r.seen.port === 'cdn';
const isConfig = (r: Request): boolean => r.seen.path.endsWith('/config.json');
const did = (_: unknown): true => true;
const status = (r: Request, code: number, headers: Record<string, string> = {}): true => {
  r.response.writeHead(code, headers);
  r.response.end();
  return true;
};

describe('faults that pass', () => {
  it.each([408, 429, 500, 502, 503, 504])('%i is tried again, at the hub and at where it sends', async (code) => {
    await open((r) => r.call === 1 && status(r, code));
    await from();
    expectWhole();
  });
  it('Retry-After is waited for, in seconds and as a date', async () => {
    await open(
      (r) =>
        r.call === 1 &&
        (isCdn(r) || isConfig(r)) &&
        status(r, 429, { 'retry-after': isCdn(r) ? '1' : new Date(Date.now() + 2000).toUTCString() }),
    );
    const began = performance.now();
    await from();
    expect(performance.now() - began).toBeGreaterThan(900);
    expectWhole();
  });
  it('a hub that asks for an hour is told to the user at once', async () => {
    await open((r) => isConfig(r) && status(r, 429, { 'retry-after': '3600' }));
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
    expect(e.message).toMatch(/answers 429 and asks to wait for 1h00m/);
  });
  it('a connection that breaks half-way goes on where it was, by range', async () => {
    const cuts = new Map<string, number>();
    await open((r) => {
      const n = cuts.get(r.seen.range ?? '') ?? 0;
      if (!isCdn(r) || !r.body || !r.seen.range?.endsWith('-65535') || n > 0) return false;
      cuts.set(r.seen.range, n + 1);
      r.response.writeHead(206, {
        'content-length': String(SEGMENT),
        'content-range': `bytes 0-65535/${large.length}`,
      });
      r.response.write(large.subarray(0, 30_000), () => r.response.destroy());
      return true;
    });
    await from();
    expectWhole();
    const ranges = server.seen.filter((s) => s.port === 'cdn').map((s) => s.range ?? '');
    const second = ranges.find((x) => /^bytes=[1-9]\d*-65535$/.test(x));
    expect(second).toBeDefined();
    expect(ranges.filter((x) => x.startsWith('bytes=0-'))).toHaveLength(1);
  });
  it('a silent connection is left after the timeout', async () => {
    await open((r) => {
      if (!isCdn(r) || r.call > 1 || !r.body) return false;
      sendBytes(
        r.request,
        {
          writeHead: (...a: [number]) => r.response.writeHead(...a),
          end: (b: Buffer) => r.response.write(b.subarray(0, 1000)),
        } as never,
        r.body,
      );
      return true;
    });
    await from();
    expectWhole();
  });
  it('a connection that drips is left as well', async () => {
    const timers: NodeJS.Timeout[] = [];
    await open((r) => {
      if (!isConfig(r)) return false;
      r.response.writeHead(200, { 'content-length': String(small.length) });
      timers.push(setInterval(() => r.response.write('x'), 400));
      return true;
    });
    const big = Buffer.alloc(small.length);
    server.options = {
      ...server.options,
      repos: { 'model o/n': { files: { 'config.json': noise(90) }, commit: COMMIT } },
    };
    expect(await failed({ retries: 0 })).toMatchObject({ exitCode: 30 });
    expect(big.length).toBeGreaterThan(0);
    for (const t of timers) clearInterval(t);
  });
  it('a signed address that ran out is asked for again', async () => {
    let given = 0;
    await open((r) => isCdn(r) && given++ === 1 && status(r, 403));
    await from({ connections: 1 });
    expectWhole();
    expect(server.seen.filter((s) => s.port === 'hub' && s.path.endsWith('model.bin'))).toHaveLength(2);
  });
  it('bytes that were corrupted once are fetched again, and it is said', async () => {
    let done = false;
    await open((r) => {
      if (!isCdn(r) || done || !r.body) return false;
      done = true;
      const bad = Buffer.from(r.body);
      bad[5] = (bad[5] ?? 0) ^ 1;
      sendBytes(r.request, r.response, bad);
      return true;
    });
    await from();
    expectWhole();
    expect(notices.join()).toContain('"model.bin": came with other bytes than promised');
  });
});

describe('faults that stay', () => {
  it.each([500, 503, 429])(
    '%i ends after the budget, says what is missing, and the next pull goes on',
    async (code) => {
      await open((r) => isCdn(r) && !(r.seen.range ?? '').startsWith('bytes=0-') && status(r, code));
      const e = await failed();
      expect(e).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
      expect(e.message).toContain('1 of 2 files is missing: "model.bin"');
      expect(e.message).toMatch(new RegExp(`answers ${code}, 3 times`));
      expect(e.details.missing).toEqual(['model.bin']);
      server.options = { repos: server.options.repos ?? {} };
      server.seen.length = 0;
      await from();
      expectWhole();
      // Neither what was whole nor the first segment comes again.
      expect(server.seen.some((s) => s.path.endsWith('config.json') || s.range?.startsWith('bytes=0-'))).toBe(false);
    },
  );
  it('a hub that is not there', async () => {
    await open();
    const { url } = server;
    await servers.pop()?.close();
    const e = await failed({ endpoint: url, retries: 1 });
    expect(e).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
    expect(e.message).toMatch(/cannot be reached \(ECONNREFUSED\), 2 times/);
  });
  it.each([
    ['no JSON', (r: Request) => void r.response.end('<html>')],
    ['no list', (r: Request) => sendJson(r.response, { error: 'x' })],
    ['no sizes', (r: Request) => sendJson(r.response, [{ type: 'file', path: 'a', oid: 'f'.repeat(40) }])],
    ['no digests', (r: Request) => sendJson(r.response, [{ type: 'file', path: 'a', size: 3, oid: 'x' }])],
    [
      'negative sizes',
      (r: Request) => sendJson(r.response, [{ type: 'file', path: 'a', size: -3, oid: 'f'.repeat(40) }]),
    ],
    [
      'two sizes',
      (r: Request) =>
        sendJson(r.response, [
          { type: 'file', path: 'a', size: 3, oid: 'f'.repeat(40), lfs: { oid: 'f'.repeat(64), size: 4 } },
        ]),
    ],
    [
      'a next page on another host',
      (r: Request) => sendJson(r.response, [], 200, { link: '<http://127.0.0.1:1/x>; rel="next"' }),
    ],
    [
      'pages in a circle',
      (r: Request) => sendJson(r.response, [], 200, { link: `<${server.url}${r.seen.path}>; rel="next"` }),
    ],
  ])('a listing that is %s', async (_, answer) => {
    await open((r) => {
      if (!r.seen.path.includes('/tree/')) return false;
      answer(r);
      return true;
    });
    expect(await failed()).toMatchObject({ code: 'hub_answer', exitCode: 30 });
  });
  it('a revision that names no commit', async () => {
    await open((r) => r.seen.path.includes('/revision/') && did(sendJson(r.response, { sha: '../../x' })));
    expect(await failed()).toMatchObject({ code: 'hub_answer', exitCode: 30 });
  });
  it('an endless answer of the API', async () => {
    await open((r) => {
      if (!r.seen.path.includes('/tree/')) return false;
      r.response.writeHead(200);
      const more = (): void => {
        while (!r.response.destroyed && r.response.write(Buffer.alloc(1 << 20, 32)));
      };
      r.response.on('drain', more);
      more();
      return true;
    });
    expect(await failed()).toMatchObject({ code: 'hub_answer', exitCode: 30 });
  });
});

describe('bytes that are not what was promised', () => {
  const corrupt = (r: Request): boolean => {
    if (!isCdn(r) || !r.body) return false;
    const bad = Buffer.from(r.body);
    bad[large.length - 7] = (bad[large.length - 7] ?? 0) ^ 128;
    sendBytes(r.request, r.response, bad);
    return true;
  };
  it('are never used: exit 40, and what came is gone', async () => {
    await open(corrupt);
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_digest', exitCode: 40 });
    expect(e.message).toContain('1 of 2 files is missing: "model.bin"');
    expect(readdirSync(at('m', '.temper-pull')).filter((n) => n.startsWith(sha256(large)))).toEqual([]);
  });
  it('of a small file too', async () => {
    await open((r) => isConfig(r) && did(sendBytes(r.request, r.response, Buffer.from('{"a": 2}\n'))));
    expect(await failed()).toMatchObject({ code: 'hub_digest', exitCode: 40 });
  });
  it('in a part of an earlier pull are found, and that file is fetched anew', async () => {
    await open((r) => isCdn(r) && !(r.seen.range ?? '').startsWith('bytes=0-') && status(r, 500));
    await failed({ retries: 0 });
    const part = at('m', '.temper-pull', `${sha256(large)}.part`);
    const bytes = readFileSync(part);
    bytes[1000] = (bytes[1000] ?? 0) ^ 255;
    writeFileSync(part, bytes);
    server.options = { repos: server.options.repos ?? {} };
    await from();
    expectWhole();
  });
  it.each(['cut', 'longer', 'map gone', 'map of nonsense'])('a part that is damaged (%s) begins anew', async (how) => {
    await open((r) => isCdn(r) && !(r.seen.range ?? '').startsWith('bytes=0-') && status(r, 500));
    await failed({ retries: 0 });
    const part = at('m', '.temper-pull', `${sha256(large)}.part`);
    const map = part.replace(/part$/, 'map');
    if (how === 'cut') truncateSync(part, 100);
    if (how === 'longer') truncateSync(part, large.length + 1);
    if (how === 'map gone') rmSync(map);
    if (how === 'map of nonsense') writeFileSync(map, noise(statSync(map).size));
    server.options = { repos: server.options.repos ?? {} };
    await from();
    expectWhole();
  });
});

describe('sizes and ranges', () => {
  it('a server that knows no ranges gives all of it in one piece', async () => {
    await open((r) => {
      if (!isCdn(r) || !r.body) return false;
      r.response.writeHead(200, { 'content-length': String(r.body.length) });
      r.response.end(r.body);
      return true;
    });
    await from();
    expectWhole();
  });
  it('one that knows them no longer begins again, with no byte of before', async () => {
    await open((r) => isCdn(r) && !(r.seen.range ?? '').startsWith('bytes=0-') && status(r, 500));
    await failed({ retries: 0 });
    server.options = {
      repos: server.options.repos ?? {},
      fault: (r) => {
        if (!isCdn(r) || !r.body) return false;
        r.response.writeHead(200, {});
        r.response.end(r.body);
        return true;
      },
    };
    await from();
    expectWhole();
  });
  it('one without ranges that breaks off each time ends after the budget', async () => {
    await open((r) => {
      if (!isCdn(r) || !r.body) return false;
      r.response.writeHead(200, { 'content-length': String(r.body.length) });
      r.response.write(r.body.subarray(0, 100_000), () => r.response.destroy());
      return true;
    });
    expect(await failed()).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
    expect(server.seen.filter((s) => s.port === 'cdn' && s.range === undefined)).toHaveLength(3);
  });
  it('416 for what the listing has', async () => {
    await open((r) => isCdn(r) && r.seen.range !== undefined && status(r, 416));
    await from();
    expectWhole();
  });
  it('a file that became shorter than the listing says', async () => {
    await open((r) => isCdn(r) && did(sendBytes(r.request, r.response, large.subarray(0, 100_000))));
    expect(await failed()).toMatchObject({ exitCode: 30 });
  });
  it.each([
    ['another range', 'bytes 1-65536/151072'],
    ['a shorter one', 'bytes 0-99/151072'],
    ['another size', 'bytes 0-65535/99999999'],
    ['none', ''],
    ['nonsense', 'bytes x'],
  ])('a range that is %s', async (_, range) => {
    await open((r) => {
      if (!isCdn(r) || !r.body) return false;
      r.response.writeHead(206, { 'content-range': range });
      r.response.end(r.body.subarray(0, SEGMENT));
      return true;
    });
    expect(await failed({ retries: 1 })).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
  });
  it.each([-1, 1, 1000])('a Content-Length that is wrong by %i', async (by) => {
    await open((r) => {
      if (!isConfig(r)) return false;
      r.response.writeHead(200, { 'content-length': String(small.length + by) });
      r.response.write(small);
      r.response.destroy();
      return true;
    });
    expect(await failed({ retries: 1 })).toMatchObject({ exitCode: 30 });
  });
  it('a body that is longer than promised is not read on', async () => {
    let sent = 0;
    await open((r) => {
      if (!isConfig(r)) return false;
      r.response.writeHead(200);
      r.response.write(small);
      const more = (): void => {
        while (!r.response.destroyed && sent < 2 ** 30 && r.response.write(Buffer.alloc(1 << 16))) sent += 1 << 16;
      };
      r.response.on('drain', more);
      more();
      return true;
    });
    await from();
    expectWhole();
    expect(sent).toBeLessThan(2 ** 26);
  });
  it('a listing that lies about a size', async () => {
    await open();
    server.options = {
      repos: { 'model o/n': { files, commit: COMMIT, listed: { 'model.bin': { size: large.length - 5 } } } },
    };
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_answer', exitCode: 30 });
    expect(e.message).toContain('the listing says 151067 bytes, its header 151072');
  });
  it('an encoding that nobody asked for', async () => {
    await open((r) => {
      if (!isConfig(r)) return false;
      r.response.writeHead(200, { 'content-encoding': 'gzip' });
      r.response.end(small);
      return true;
    });
    expect(await failed({ retries: 0 })).toMatchObject({ exitCode: 30 });
  });
});

describe('headers beside a file', () => {
  const withHeader = (name: string, value: string) => (r: Request) => {
    if (r.seen.port !== 'hub' || !r.seen.path.endsWith('model.bin')) return false;
    r.response.writeHead(302, { location: `${server.cdn}${r.seen.path}`, [name]: value });
    r.response.end();
    return true;
  };
  it.each([
    ['x-repo-commit', 'd'.repeat(40), 'hub_answer', 30],
    ['x-linked-size', '17', 'hub_answer', 30],
    ['x-linked-etag', `"${'a'.repeat(64)}"`, 'hub_digest', 40],
  ])('%s of something else', async (name, value, code, exitCode) => {
    await open(withHeader(name, value));
    expect(await failed()).toMatchObject({ code, exitCode });
    expect(server.seen.some((s) => s.port === 'cdn')).toBe(false);
  });
  it('none of them is no fault', async () => {
    await open(withHeader('x-nothing', ''));
    await from();
    expectWhole();
  });
});

describe('redirects', () => {
  const redirect = (location: string | (() => string)) => (r: Request) =>
    isConfig(r) && status(r, 302, { location: typeof location === 'string' ? location : location() });
  it('the token goes to the hub alone', async () => {
    process.env.HF_TOKEN = TOKEN;
    const other = await startHubServer({ fault: (r) => did(r.response.end(small)) });
    servers.push(other);
    await open(redirect(`${other.url}/config.json?x=1`), { token: TOKEN });
    await from();
    expectWhole();
    expect(other.seen[0]?.authorization).toBeUndefined();
    for (const s of server.seen) expect(s.authorization).toBe(s.port === 'hub' ? `Bearer ${TOKEN}` : undefined);
    expect(readdirSync(at('m')).every((n) => !readFileSync(at('m', n)).includes(TOKEN))).toBe(true);
  });
  it('nor back through another host with a user in the address', async () => {
    process.env.HF_TOKEN = TOKEN;
    const other = await startHubServer({
      fault: (r) => status(r, 302, { location: `${server.url.replace('//', '//u:p@')}/x/config.json` }),
    });
    servers.push(other);
    await open((r) => {
      if (r.seen.path === '/x/config.json') {
        r.response.end(small);
        return true;
      }
      return redirect(() => `${other.url}/y`)(r);
    });
    await from();
    expect(other.seen[0]?.authorization).toBeUndefined();
    expect(server.seen.find((s) => s.path === '/x/config.json')?.authorization).toBe(`Bearer ${TOKEN}`);
  });
  it.each([
    ['in a circle', () => `${server.url}/o/n/resolve/${COMMIT}/config.json`, /redirects more than 10 times/],
    ['to a file', () => 'file:///etc/passwd', /redirects to file:/],
    ['to data', () => 'data:,x', /redirects to data:/],
    ['to nonsense', () => 'http://[', /redirects to what is no address/],
  ])('%s', async (_, location, message) => {
    await open(redirect(location));
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_answer', exitCode: 30 });
    expect(e.message).toMatch(message);
  });
  it('without an address', async () => {
    await open((r) => isConfig(r) && status(r, 307));
    expect(await failed()).toMatchObject({ code: 'hub_answer' });
  });
});

describe('access', () => {
  it.each([
    [401, { 'x-error-code': 'RepoNotFound' }, undefined, /is not there, or is private and needs a token \(HF_TOKEN/],
    [401, { 'x-error-message': `Invalid credentials ${TOKEN}` }, TOKEN, /the token that was given may not read it/],
    [403, { 'x-error-code': 'GatedRepo' }, TOKEN, /is gated: ask for access at/],
    [404, { 'x-error-code': 'RepoNotFound' }, TOKEN, /is not there \(404/],
  ])('%i %j', async (code, headers, token, message) => {
    if (token !== undefined) process.env.HF_TOKEN = token;
    await open((r) => r.seen.path.includes('/revision/') && status(r, code, headers));
    const e = await failed();
    expect(e.exitCode).toBe(2);
    expect(e.message).toMatch(message);
    expect(server.seen).toHaveLength(1);
    expect(existsSync(at('m'))).toBe(false);
  });
  it('a file that is listed and not there', async () => {
    await open((r) => isConfig(r) && status(r, 404, { 'x-error-code': 'EntryNotFound' }));
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_not_found', exitCode: 2 });
    expect(e.details.missing).toEqual(['config.json']);
  });
  it('tokens of a file, and tokens that are none', async () => {
    await open(undefined, { token: TOKEN });
    writeFileSync(at('token'), `${TOKEN}\n`);
    process.env.HF_TOKEN_PATH = at('token');
    await from();
    expectWhole();
    process.env.HF_TOKEN = 'hf_x\r\nhost: evil';
    const e = await from({ dir: at('n') }).catch((error: unknown) => error);
    expect(e).toMatchObject({ code: 'hub_token', exitCode: 2 });
    expect(String(e)).not.toContain('evil');
  });
  it.each(['ftp://x', 'x', 'http://u:p@127.0.0.1', 'http://127.0.0.1/?a=b'])('an endpoint %s', async (endpoint) => {
    await open();
    expect(await from({ endpoint }).catch((e: unknown) => e)).toMatchObject({ code: 'hub_endpoint', exitCode: 2 });
  });
});

describe('hostile names', () => {
  it.each([
    '../x',
    '/etc/x',
    'a/../../b',
    'a\u0000b',
    'a\nb',
    '..\\x',
    'C:/x',
    '.git/hooks/x',
    '.temper-pull.json',
    '.temper-pull/y',
  ])('%j is refused before anything is fetched or written', async (path) => {
    await open();
    server.options = {
      repos: {
        'model o/n': { files: { 'config.json': small, evil: noise(200) }, commit: COMMIT, listed: { evil: { path } } },
      },
    };
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_listing', exitCode: 30 });
    expect(server.fileRequests()).toEqual([]);
    expect(existsSync(at('m'))).toBe(false);
    // What is not wanted is no danger.
    await from({ include: ['config.json'] });
    expect(readdirSync(dir).sort()).toEqual(['m']);
  });
  it('a file that is also a folder', async () => {
    await open();
    server.options = { repos: { 'model o/n': { files: { a: small, 'a/b': small }, commit: COMMIT } } };
    expect(await failed()).toMatchObject({ code: 'hub_listing' });
  });
});

it('an abort ends it soon, and what came is kept', async () => {
  await open((r) => {
    if (!isCdn(r) || !r.body || r.seen.range?.startsWith('bytes=0-')) return false;
    r.response.writeHead(206, { 'content-range': r.seen.range?.replace('=', ' ').concat(`/${large.length}`) ?? '' });
    const from = Number(/\d+/.exec(r.seen.range ?? '')?.[0]);
    r.response.write(large.subarray(from, from + 10));
    return true;
  });
  const stop = new AbortController();
  const pulling = runPull(
    { repo: 'o/n', dir: at('m'), endpoint: server.url, segmentBytes: SEGMENT },
    { signal: stop.signal },
  );
  pulling.catch(() => {});
  for (let i = 0; i < 100 && !server.seen.some((s) => s.port === 'cdn'); i++)
    await new Promise((n) => setTimeout(n, 20));
  await new Promise((n) => setTimeout(n, 500));
  const reason = new DOMException('enough', 'AbortError');
  const began = performance.now();
  stop.abort(reason);
  await expect(pulling).rejects.toBe(reason);
  expect(performance.now() - began).toBeLessThan(20_000);
  server.options = { repos: server.options.repos ?? {} };
  server.seen.length = 0;
  await from();
  expectWhole();
  expect(server.seen.some((s) => s.range?.startsWith('bytes=0-'))).toBe(false);
});
