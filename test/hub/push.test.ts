// A push: one commit of the very bytes that were verified, seen by nobody unless it is asked for, or nothing at all.
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { filesToPush, type PushRequest, type PushResult, push } from '../../src/export/push.js';
import { CheckedBlob, hashFile } from '../../src/hub/checked-blob.js';
import { type PushFiles, runPush } from '../../src/hub/run-push.js';
import { COMMIT, type HubServer, noise, type Request, sendJson, sha256, startHubServer } from './hub-server.js';
import { type PushStore, type PushStoreOptions, pushStore } from './push-server.js';

const TOKEN = 'hf_VerySecretWriteToken';
const files = {
  'README.md': Buffer.from('# An adapter\n'),
  'adapter_config.json': Buffer.from('{"r": 4}\n'),
  'adapter_model.safetensors': noise(2_500_000, 3),
};
let dir: string;
let out: string;
let server: HubServer;
let store: PushStore;
const notices: string[] = [];
const digests = (): Record<string, string> => Object.fromEntries(Object.entries(files).map(([n, b]) => [n, sha256(b)]));
function writeExport(): void {
  mkdirSync(out, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(out, name), bytes);
  const provenance = { version: 1, run: '../run', digests: { base: 'x' }, files: digests() };
  writeFileSync(join(out, 'temper.json'), JSON.stringify(provenance));
}
async function open(more: Partial<PushStoreOptions> = {}, repos: HubServer['options']['repos'] = {}): Promise<void> {
  store = pushStore({ server: () => server, lfsBytes: 1000, ...more });
  server = await startHubServer({ token: TOKEN, lfsBytes: 1000, repos, fault: (r) => store.handle(r) });
}
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'push-'));
  out = join(dir, 'out');
  writeExport();
  notices.length = 0;
  process.env.HF_HOME = join(dir, 'hf');
  process.env.HF_TOKEN = TOKEN;
  for (const name of ['HF_TOKEN_PATH', 'HF_ENDPOINT', 'HF_HUB_OFFLINE']) delete process.env[name];
});
afterEach(async () => {
  delete process.env.HF_TOKEN;
  await server?.close();
  rmSync(dir, { recursive: true, force: true });
});
const requestOf = (more: Partial<PushRequest>): PushRequest => ({
  dir: out,
  repo: 'me/adapter',
  endpoint: server.url,
  retries: 1,
  stallSeconds: 2,
  ...more,
});
/** In this thread: one of its own for each test takes long. */
const send = async (more: Partial<PushRequest> = {}): Promise<PushResult> =>
  runPush(filesToPush(requestOf(more)), { onNotice: (n) => notices.push(n) });
/** With other digests than those of temper.json. */
const sendFiles = (more: Partial<PushFiles> = {}) =>
  runPush({
    dir: out,
    repo: 'me/adapter',
    endpoint: server.url,
    retries: 0,
    stallSeconds: 2,
    files: { ...digests(), 'temper.json': '' },
    ...more,
  });
interface Failure {
  readonly code: string;
  readonly exitCode: number;
  readonly message: string;
  readonly details: Record<string, unknown>;
}
async function failed(run: () => Promise<unknown> = send): Promise<Failure> {
  const e: unknown = await run().then(
    () => 'pushed',
    (error: unknown) => error,
  );
  expect(e).toBeInstanceOf(Error);
  const text = JSON.stringify([String(e), (e as Failure).details, notices]);
  expect(text).not.toContain(TOKEN);
  expect(text).not.toContain('secret-of-the-cdn');
  expect((e as Failure).message).not.toContain('\n');
  return e as Failure;
}
const holds = (): Readonly<Record<string, Buffer>> => server.options.repos?.['model me/adapter']?.files ?? {};
const expectPushed = (): void => {
  for (const [name, bytes] of Object.entries(files)) expect(holds()[name]?.equals(bytes)).toBe(true);
  expect(Object.keys(holds()).sort()).toEqual([...Object.keys(files), 'temper.json'].sort());
};
const answers =
  (status: number, when: (r: Request) => boolean, value: unknown = { error: `no ${TOKEN}` }) =>
  (r: Request): boolean => {
    if (!when(r)) return false;
    sendJson(r.response, value, status);
    return true;
  };

it.each([Infinity, 1_000_000])(
  'makes a private repo and one commit of all files; LFS in parts of %d bytes',
  async (partBytes) => {
    await open({ partBytes });
    const r = await send();
    expect(r).toMatchObject({ repo: 'me/adapter', created: true, private: true, revision: 'main', pullRequest: null });
    expect(r.url).toBe(`${server.url}/me/adapter`);
    expectPushed();
    expect(store.created).toMatchObject([{ name: 'adapter', organization: 'me', visibility: 'private' }]);
    expect(store.commits).toHaveLength(1);
    expect(store.commits[0]).toMatchObject({ branch: 'main', header: { summary: 'Upload with temper push' } });
    expect(store.settings).toEqual([]);
    expect(r.files.map((f) => [f.path, f.sha256])).toContainEqual([
      'adapter_config.json',
      sha256(files['adapter_config.json']),
    ]);
    // The token is the hub's alone.
    for (const s of server.seen) expect(s.authorization).toBe(s.port === 'hub' ? `Bearer ${TOKEN}` : undefined);
  },
);

it('--public makes a new repo public when all of it is there, and not before', async () => {
  await open();
  const done = await push(requestOf({ public: true, message: 'Second' }), { onNotice: (n) => notices.push(n) });
  expect(done).toMatchObject({ private: false });
  expect(notices).toEqual(['me/adapter was made, private']);
  expect(store.created).toMatchObject([{ visibility: 'private' }]);
  expect(store.settings).toEqual([{ private: false }]);
  const order = server.seen.filter((s) => s.method !== 'GET').map((s) => s.path.split('/').slice(-2)[0]);
  expect(order.indexOf('commit')).toBeLessThan(order.length - 1);
  expect(store.commits[0]?.header.summary).toBe('Second');
});

it('a repo that everybody sees is not pushed to without --public', async () => {
  await open({}, { 'model me/adapter': { files: {}, commit: COMMIT, private: false } });
  const e = await failed();
  expect(e).toMatchObject({ code: 'hub_public', exitCode: 2 });
  expect(e.message).toContain('nothing was changed there');
  expect(store.commits).toEqual([]);
  expect(await send({ public: true })).toMatchObject({ created: false, private: false });
  expectPushed();
});

it('what lies there of a push before, and is not of this export, is told of', async () => {
  const before = { 'old.safetensors': Buffer.from('x'), '.gitattributes': Buffer.from('') };
  await open({}, { 'model me/adapter': { files: before, commit: COMMIT, private: true } });
  await send();
  expect(notices).toEqual([expect.stringContaining('holds "old.safetensors" beside what was pushed')]);
});

it('a branch, a pull request, a dataset', async () => {
  await open({}, { 'model me/adapter': { files: {}, commit: COMMIT, private: true } });
  await send({ revision: 'second' });
  expect(store.branches).toEqual(['second']);
  expect(store.commits[0]).toMatchObject({ branch: 'second', pullRequest: false });
  expect(await send({ pullRequest: true })).toMatchObject({ pullRequest: `${server.url}/me/adapter/discussions/1` });
  expect(store.commits[1]).toMatchObject({ branch: 'main', pullRequest: true });
  await expect(send({ revision: COMMIT })).rejects.toMatchObject({ code: 'hub_repo' });
});

describe('what was verified, and nothing else', () => {
  it.each([
    ['changed', () => appendFileSync(join(out, 'README.md'), 'x'), 'export_changed', 40],
    ['gone', () => rmSync(join(out, 'adapter_config.json')), 'export_changed', 40],
    ['new', () => writeFileSync(join(out, '.env'), 'SECRET=1'), 'hub_push', 2],
    ['a link', () => symlinkSync('/etc/passwd', join(out, 'x')), 'hub_push', 2],
    [
      'a link in place of a file',
      () => {
        rmSync(join(out, 'README.md'));
        writeFileSync(join(dir, 'readme'), files['README.md']);
        symlinkSync('../readme', join(out, 'README.md'));
      },
      'hub_push',
      2,
    ],
    ['no export', () => rmSync(join(out, 'temper.json')), 'hub_push', 2],
    ['no record', () => writeFileSync(join(out, 'temper.json'), '{}'), 'bad_provenance', 40],
  ])('%s', async (_, change, code, exitCode) => {
    await open();
    change();
    expect(await failed()).toMatchObject({ code, exitCode });
    expect(server.seen).toEqual([]);
  });

  it('a file that changes after it was hashed is not committed', async () => {
    let changed = false;
    await open({
      fault: (r) => {
        if (!r.seen.path.includes('/preupload/') || changed) return false;
        changed = true;
        const bytes = Buffer.from(files['adapter_model.safetensors']);
        bytes[2_000_000] = (bytes[2_000_000] ?? 0) ^ 1;
        writeFileSync(join(out, 'adapter_model.safetensors'), bytes);
        return false;
      },
    });
    const e = await failed();
    expect(e).toMatchObject({ code: 'export_changed', exitCode: 40 });
    expect(e.message).toContain('me/adapter was made and is empty');
    expect(store.commits).toEqual([]);
  });

  it('blobs give the bytes that were hashed, in slices too, or throw', async () => {
    const path = join(out, 'adapter_model.safetensors');
    const hashed = await hashFile(path, 'm');
    const bytes = files['adapter_model.safetensors'];
    const blob = new CheckedBlob(hashed);
    expect([blob.size, hashed.sha256]).toEqual([bytes.length, sha256(bytes)]);
    expect(Buffer.from(await blob.arrayBuffer()).equals(bytes)).toBe(true);
    for (const [a, b] of [
      [0, 512],
      [1_048_570, 1_048_590],
      [-100, undefined],
      [5, 5],
      [9e9, undefined],
    ] as const)
      expect(
        Buffer.from(await blob.slice(a, b).arrayBuffer()).equals(bytes.subarray(Math.min(a, bytes.length), b)),
      ).toBe(true);
    expect(
      Buffer.from(await blob.slice(10, 2_000_000).slice(-20).arrayBuffer()).equals(
        bytes.subarray(1_999_980, 2_000_000),
      ),
    ).toBe(true);
    expect((await new Response(blob.slice(0, 10).stream()).arrayBuffer()).byteLength).toBe(10);
    appendFileSync(path, 'x');
    expect((await blob.slice(0, 100).arrayBuffer()).byteLength).toBe(100);
    writeFileSync(path, noise(bytes.length, 9));
    await expect(blob.slice(0, 100).arrayBuffer()).rejects.toMatchObject({ code: 'export_changed' });
  });
});

describe('a hub that fails or lies', () => {
  const isCommit = (r: Request): boolean => /\/commit\/main/.test(r.seen.path);
  it.each([
    [401, 'hub_access', 2],
    [403, 'hub_access', 2],
    [409, 'hub_conflict', 2],
    [412, 'hub_conflict', 2],
    [400, 'hub_answer', 30],
    [500, 'hub_answer', 30],
    [503, 'hub_unreachable', 30],
  ])('a commit that is answered %i leaves an empty, private repo, and says so', async (status, code, exitCode) => {
    await open({ fault: answers(status, isCommit) });
    const e = await failed();
    expect(e).toMatchObject({ code, exitCode });
    expect(e.message).toContain('was made and is empty');
    expect(holds()).toEqual({});
    expect(server.seen.filter((s) => s.path.includes('/commit/')).length).toBe(status === 503 ? 2 : 1);
  });
  it('one whose answer is lost is not made twice', async () => {
    await open({ fault: (r) => isCommit(r) && Boolean(r.response.destroy()) });
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_unreachable', exitCode: 30 });
    expect(e.message).toContain('look whether it was done');
    expect(server.seen.filter((s) => s.path.includes('/commit/'))).toHaveLength(1);
  });
  it('an upload that fails once is tried again', async () => {
    let put = 0;
    await open({ fault: answers(502, (r) => r.seen.method === 'PUT' && put++ === 0) });
    await send();
    expectPushed();
  });
  it.each([
    ['an upload that goes on failing', 500, (r: Request) => r.seen.method === 'PUT', 30],
    ['no right to make a repo', 403, (r: Request) => r.seen.path === '/api/repos/create', 2],
    ['a store that refuses', 422, (r: Request) => r.seen.path.endsWith('/objects/batch'), 30],
  ] as const)('%s', async (_, status, when, exitCode) => {
    await open({ fault: answers(status, when) });
    expect(await failed()).toMatchObject({ exitCode });
    expect(store.commits).toEqual([]);
  });
  it('a hub that puts other bytes into the commit is found out', async () => {
    await open();
    const { handle } = store;
    server.options = {
      ...server.options,
      fault: async (r) => {
        const done = await handle(r);
        if (isCommit(r)) {
          const key = 'model me/adapter';
          const repo = server.options.repos?.[key];
          if (repo)
            server.options = {
              ...server.options,
              repos: { [key]: { ...repo, files: { ...repo.files, 'README.md': Buffer.from('other') } } },
            };
        }
        return done;
      },
    };
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_digest', exitCode: 40 });
    expect(e.message).toMatch(/"README\.md" is there with other bytes in commit [0-9a-f]{12}/);
  });
  it.each([
    ['to another scheme', 'file:///tmp/x'],
    ['to nonsense', 'x://['],
  ])('uploads are not sent %s', async (_, href) => {
    await open({
      fault: (r, body) => {
        if (!r.seen.path.endsWith('/objects/batch')) return false;
        const { objects } = JSON.parse(body.toString()) as { objects: { oid: string; size: number }[] };
        sendJson(r.response, {
          transfer: 'basic',
          objects: objects.map((o) => ({ ...o, actions: { upload: { href } } })),
        });
        return true;
      },
    });
    expect(await failed()).toMatchObject({ exitCode: 30 });
    expect(store.commits).toEqual([]);
  });
  it('a hub that makes a public repo in place of a private one gets nothing', async () => {
    await open({ ignoresPrivate: true });
    const e = await failed();
    expect(e).toMatchObject({ code: 'hub_answer', exitCode: 30 });
    expect(e.message).toContain('can be seen by everybody');
    expect(store.commits).toEqual([]);
    expect(server.seen.some((s) => s.path.includes('/preupload/'))).toBe(false);
  });
  it('a hub that sends a large upload elsewhere does not get the token there', async () => {
    await open();
    await send();
    const puts = server.seen.filter((s) => s.method === 'PUT' && s.port === 'cdn');
    expect(puts.length).toBeGreaterThan(0);
    expect(puts.every((s) => s.authorization === undefined)).toBe(true);
  });
  it('no token, offline, a name that is none', async () => {
    await open();
    process.env.HF_HUB_OFFLINE = '1';
    expect(await failed()).toMatchObject({ code: 'hub_offline' });
    delete process.env.HF_HUB_OFFLINE;
    expect(await failed(() => send({ repo: '../x' }))).toMatchObject({ code: 'hub_repo' });
    delete process.env.HF_TOKEN;
    expect(await failed()).toMatchObject({ code: 'hub_access', exitCode: 2 });
    expect(server.seen).toEqual([]);
    expect(existsSync(join(dir, 'hf'))).toBe(false);
  });
  it('digests that are of something else are told before anything is asked', async () => {
    await open();
    expect(await failed(sendFiles)).toMatchObject({ code: 'export_changed' });
    expect(server.seen).toEqual([]);
  });
});

describe('one that fails at any of its requests', () => {
  const KINDS: Readonly<Record<string, (r: Request) => void>> = {
    'answered 500': (r) => sendJson(r.response, { error: `no ${TOKEN}` }, 500),
    'answered 403': (r) => sendJson(r.response, { error: `no ${TOKEN}` }, 403),
    'cut off': (r) => void r.response.destroy(),
  };
  const visible = (): boolean => server.options.repos?.['model me/adapter']?.private === false;
  it.each([
    ['a new repo', {}, ['answered 403', 'cut off']],
    ['a new public repo', { public: true }, ['answered 500']],
    ['a new branch', { revision: 'next' }, ['cut off']],
    ['a pull request', { pullRequest: true }, ['answered 500']],
  ] as const)(
    '%s: all of it is there, or nothing, and the next push goes on',
    async (_, more, kinds) => {
      await open();
      await send(more);
      const requests = server.seen.length;
      expect(requests).toBeGreaterThan(7);
      for (const kind of kinds)
        for (let k = 0; k < requests; k++) {
          await server.close();
          let [asked, failing] = [0, 'none yet'];
          await open({
            fault: (r) => {
              const path = `${r.seen.method} ${r.seen.path.split('?')[0]}`;
              if (asked++ === k) failing = path;
              if (failing !== path) return false;
              KINDS[kind]?.(r);
              return true;
            },
          });
          const e = await failed(() => send({ ...more, retries: 0 }));
          const at = `${kind} at ${failing}: ${e.message}`;
          if (store.commits.length === 0) expect(holds(), at).toEqual({});
          else expectPushed();
          expect(e.message, at).toMatch(
            store.commits.length > 0
              ? /commit [0-9a-f]{12} is there/
              : /nothing was changed there|was made and is empty/,
          );
          expect(store.settings, at).toEqual([]);
          expect(visible(), at).toBe(false);
          asked = Infinity;
          failing = 'none';
          await send({ ...more, ...(visible() ? { public: true } : {}) });
          expectPushed();
        }
    },
    180_000,
  );
  it.each([500, 0])('a commit that was made, and whose answer is %i, is found to be there', async (status) => {
    await open();
    const { handle } = store;
    server.options = {
      ...server.options,
      fault: async (r) => {
        if (!/\/commit\//.test(r.seen.path)) return handle(r);
        const { response } = r;
        const [head, end] = [response.writeHead.bind(response), response.end.bind(response)];
        response.writeHead = (() => response) as never;
        response.end = (() => response) as never;
        await handle(r);
        [response.writeHead, response.end] = [head, end];
        if (status > 0) response.writeHead(status).end();
        else response.destroy();
        return true;
      },
    };
    const result = await send();
    expectPushed();
    expect(result.commit).toBe(server.options.repos?.['model me/adapter']?.commit);
    expect(store.commits).toHaveLength(1);
    expect(notices.join()).toContain('the answer to the commit got lost, but it is there');
  });
});

it('an abort ends it', async () => {
  await open({ fault: (r) => r.seen.method === 'PUT' });
  const stop = new AbortController();
  const pushing = push({ dir: out, repo: 'me/adapter', endpoint: server.url }, { signal: stop.signal });
  pushing.catch(() => {});
  for (let i = 0; i < 300 && !server.seen.some((s) => s.method === 'PUT'); i++)
    await new Promise((n) => setTimeout(n, 20));
  stop.abort(new DOMException('enough', 'AbortError'));
  await expect(pushing).rejects.toHaveProperty('name', 'AbortError');
  expect(store.commits).toEqual([]);
  chmodSync(out, 0o755);
});
