// A pull from a hub that does all as it should: what is fetched, what is asked for, and what is there already.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pull } from '../../src/hub/pull.js';
import { type PullRequest, type PullResult, runPull } from '../../src/hub/run-pull.js';
import { COMMIT, gitSha1, type HubServer, type HubServerOptions, noise, sha256, startHubServer } from './hub-server.js';

const OTHER = 'd00d0123456789d00d0123456789d00d01234567';
const large = noise(2 * 2 ** 16 + 12345);
const files = {
  'config.json': Buffer.from('{"a": 1}\n'),
  'empty.txt': Buffer.alloc(0),
  'sub/dir/rows.jsonl': noise(50_000, 2),
  'model.safetensors': large,
  'ünï cödé #?.txt': Buffer.from('odd'),
  'original/model.bin': noise(1000, 3),
  'metal/model.bin': noise(1000, 4),
};
const repos = { 'model openai/tiny': { files, commit: COMMIT } };

let dir: string;
let server: HubServer;
const open = async (options: HubServerOptions = {}): Promise<void> => {
  server = await startHubServer({ repos, ...options });
};
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pull-'));
  for (const name of ['HF_TOKEN', 'HF_TOKEN_PATH', 'HF_ENDPOINT', 'HF_HUB_OFFLINE']) delete process.env[name];
  process.env.HF_HOME = join(dir, 'hf-home');
});
afterEach(async () => {
  await server.close();
  rmSync(dir, { recursive: true, force: true });
});
const at = (...parts: string[]): string => join(dir, ...parts);
const from = (more: Partial<PullRequest> = {}, notices: string[] = []): Promise<PullResult> =>
  runPull(
    {
      repo: 'openai/tiny',
      dir: at('m'),
      endpoint: server.url,
      retries: 2,
      stallSeconds: 2,
      segmentBytes: 2 ** 16,
      ...more,
    },
    { onNotice: (n) => notices.push(n) },
  );
const wanted = Object.keys(files).filter((f) => !/^(original|metal)\//.test(f));
function expectWhole(folder: string, names: readonly string[] = wanted): void {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((f) => f.isFile())
    .map((f) => join(f.parentPath, f.name).slice(folder.length + 1));
  expect(found.sort()).toEqual([...names, '.temper-pull.json'].sort());
  for (const name of names)
    expect(readFileSync(join(folder, name)).equals(files[name as keyof typeof files])).toBe(true);
}

it('fetches every file of one commit, large ones in ranges from where the hub sends, and says so', async () => {
  await open({ pageSize: 2 });
  const r = await pull({ repo: 'openai/tiny', dir: at('m'), endpoint: server.url, segmentBytes: 2 ** 16 });
  expectWhole(at('m'));
  expect(r).toMatchObject({ commit: COMMIT, revision: 'main', kind: 'model', name: 'openai/tiny', removed: [] });
  expect(r.files.map((f) => f.path).sort()).toEqual([...wanted].sort());
  expect(r.files.every((f) => f.fetched)).toBe(true);
  expect(r.bytes).toBe(wanted.reduce((n, f) => n + files[f as keyof typeof files].length, 0));
  const of = (name: string) => r.files.find((f) => f.path === name);
  expect(of('model.safetensors')).toMatchObject({ algorithm: 'sha256', digest: sha256(large) });
  expect(of('config.json')).toMatchObject({ algorithm: 'git-sha1', digest: gitSha1(files['config.json']) });
  // The commit comes first; everything after it is asked for by commit.
  expect(server.seen[0]?.path).toBe('/api/models/openai/tiny/revision/main');
  for (const s of server.seen.slice(1)) expect(s.path).toContain(COMMIT);
  expect(server.seen.filter((s) => s.path.includes('/tree/'))).toHaveLength(4);
  const ranges = server.seen
    .filter((s) => s.port === 'cdn' && s.path.includes('model.safetensors'))
    .map((s) => s.range);
  expect(ranges.sort()).toEqual(['bytes=0-65535', `bytes=131072-${large.length - 1}`, 'bytes=65536-131071']);
  // Nobody was told a token, as there is none.
  expect(server.seen.some((s) => s.authorization !== undefined)).toBe(false);
});

it('asks for the list of files alone when all is there, and reads no byte', async () => {
  await open();
  await from();
  server.seen.length = 0;
  const r = await from();
  expect(server.fileRequests()).toEqual([]);
  expect(server.seen).toHaveLength(2);
  expect(r.files.some((f) => f.fetched)).toBe(false);
  server.seen.length = 0;
  await from({ repo: `openai/tiny@${COMMIT}` });
  expect(server.seen.map((s) => s.path)).toEqual([
    `/api/models/openai/tiny/tree/${COMMIT}?recursive=true&expand=false`,
  ]);
});

it.each([true, false])('datasets have places of their own; Xet headers: %s', async (xet) => {
  await open({ xet, repos: { 'dataset owner/rows': { files: { 'data/a.jsonl': noise(5000) }, commit: COMMIT } } });
  const r = await from({ repo: 'datasets/owner/rows@main', dir: at('d') });
  expect(readFileSync(at('d', 'data', 'a.jsonl')).equals(noise(5000))).toBe(true);
  expect(r.kind).toBe('dataset');
  expect(server.fileRequests()[0]?.path).toBe(`/datasets/owner/rows/resolve/${COMMIT}/data/a.jsonl`);
  // What the answers say besides never becomes a request.
  expect(server.seen.some((s) => s.path.includes('xet'))).toBe(false);
});

it('files of equal bytes are fetched once', async () => {
  const same = noise(4000);
  await open({ repos: { 'model openai/tiny': { files: { a: same, 'b/c': same, d: same }, commit: COMMIT } } });
  await from();
  for (const name of ['a', 'b/c', 'd']) expect(readFileSync(at('m', name)).equals(same)).toBe(true);
  expect(server.seen.filter((s) => s.port === 'cdn')).toHaveLength(1);
});

it('a branch of another name, and one that is not there', async () => {
  await open({ revisions: { main: OTHER, 'refs/pr/1': COMMIT } });
  expect(await from({ repo: 'openai/tiny@refs/pr/1' })).toMatchObject({ commit: COMMIT, revision: 'refs/pr/1' });
  expect(server.seen[0]?.path).toBe('/api/models/openai/tiny/revision/refs%2Fpr%2F1');
  await expect(from({ repo: 'openai/tiny@v9', dir: at('n') })).rejects.toMatchObject({
    code: 'hub_not_found',
    exitCode: 2,
    message: expect.stringContaining('openai/tiny@v9: has no such revision'),
  });
  await expect(from({ repo: 'openai/none', dir: at('n') })).rejects.toMatchObject({ code: 'hub_not_found' });
  expect(existsSync(at('n'))).toBe(false);
});

describe('what is in the folder already', () => {
  it('is taken where its bytes are right, whoever put it there', async () => {
    await open();
    mkdirSync(at('m'));
    writeFileSync(at('m', 'model.safetensors'), large);
    writeFileSync(at('linked'), files['config.json']);
    symlinkSync('../linked', at('m', 'config.json'));
    writeFileSync(at('m', 'mine.txt'), 'mine');
    const r = await from();
    expect(
      r.files
        .filter((f) => !f.fetched)
        .map((f) => f.path)
        .sort(),
    ).toEqual(['config.json', 'model.safetensors']);
    expect(readFileSync(at('m', 'mine.txt'), 'utf8')).toBe('mine');
    rmSync(at('m', 'mine.txt'));
    expect(readdirSync(at('m'))).not.toContain('.temper-pull');
  });
  it('is refused where no pull put it there and its bytes are others, and replaced with --replace', async () => {
    await open();
    mkdirSync(at('m'));
    writeFileSync(at('m', 'config.json'), '{"b": 2}\n');
    await expect(from()).rejects.toMatchObject({
      code: 'hub_folder',
      exitCode: 2,
      message: /"config\.json".*--replace/,
    });
    expect(readdirSync(at('m'))).toEqual(['config.json']);
    expect(server.fileRequests()).toEqual([]);
    const notices: string[] = [];
    await from({ replace: true }, notices);
    expect(notices.join()).toContain('replaced: "config.json"');
    expectWhole(at('m'));
  });
  it('is fetched again where it was pulled and has been changed since, even to the same size and time', async () => {
    await open();
    await from();
    const { atime, mtime } = statSync(at('m', 'config.json'));
    writeFileSync(at('m', 'config.json'), '{"a": 2}\n');
    utimesSync(at('m', 'config.json'), atime, mtime);
    rmSync(at('m', 'empty.txt'));
    server.seen.length = 0;
    const notices: string[] = [];
    const r = await from({}, notices);
    expect(r.files.filter((f) => f.fetched).map((f) => f.path)).toEqual(['config.json', 'empty.txt']);
    expect(notices.join()).toContain('"config.json"');
    expectWhole(at('m'));
  });
  it('of another commit is brought up to this one file by file, and said', async () => {
    await open();
    await from();
    writeFileSync(at('m', 'mine.txt'), 'mine');
    const { 'config.json': _, ...rest } = files;
    const next = { ...rest, 'sub/dir/rows.jsonl': noise(50_000, 9), 'new.txt': Buffer.from('new') };
    server.options = { repos: { 'model openai/tiny': { files: next, commit: OTHER } } };
    server.seen.length = 0;
    const notices: string[] = [];
    const r = await from({}, notices);
    expect(r.commit).toBe(OTHER);
    expect(r.removed).toEqual(['config.json']);
    expect(
      r.files
        .filter((f) => f.fetched)
        .map((f) => f.path)
        .sort(),
    ).toEqual(['new.txt', 'sub/dir/rows.jsonl']);
    expect(server.seen.some((s) => s.path.includes('model.safetensors'))).toBe(false);
    expect(notices.join()).toMatch(/replaced: "sub\/dir\/rows\.jsonl".*removed: "config\.json"/);
    expect(existsSync(at('m', 'config.json'))).toBe(false);
    expect(readFileSync(at('m', 'mine.txt'), 'utf8')).toBe('mine');
    expect(JSON.parse(readFileSync(at('m', '.temper-pull.json'), 'utf8'))).toMatchObject({ commit: OTHER });
  });
  it('of another repo is refused', async () => {
    await open({ repos: { ...repos, 'model openai/other': { files, commit: OTHER } } });
    await from();
    await expect(from({ repo: 'openai/other' })).rejects.toMatchObject({
      code: 'hub_folder',
      exitCode: 2,
      message: expect.stringContaining('holds openai/tiny@c0ffee012345, wanted openai/other'),
    });
    expectWhole(at('m'));
  });
  it('a record that is none is an error, not a guess', async () => {
    await open();
    mkdirSync(at('m'));
    writeFileSync(at('m', '.temper-pull.json'), '{"version": 1');
    await expect(from()).rejects.toMatchObject({ code: 'hub_folder', message: /remove it/ });
  });
  it('parts of it come beside others of the same commit', async () => {
    await open();
    await from({ include: ['*.json'] });
    await from({ include: ['*.safetensors'], exclude: ['sub/**'] });
    expectWhole(at('m'), ['config.json', 'model.safetensors']);
    server.seen.length = 0;
    await from({ include: ['*.json'] });
    expect(server.fileRequests()).toEqual([]);
  });
});

describe('links and other nodes in the folder', () => {
  const outside = (): string => {
    mkdirSync(at('outside'), { recursive: true });
    return at('outside');
  };
  it('a folder that is a link is not gone through', async () => {
    await open();
    mkdirSync(at('m'));
    symlinkSync(outside(), at('m', 'sub'));
    await expect(from()).rejects.toMatchObject({
      code: 'hub_folder',
      exitCode: 2,
      message: /m\/sub: is a symbolic link/,
    });
    expect(readdirSync(outside())).toEqual([]);
    expect(server.fileRequests()).toEqual([]);
  });
  it.each(['config.json', '.temper-pull', '.temper-pull.json'])(
    '%s that is a link to another file is not written through',
    async (name) => {
      await open();
      mkdirSync(at('m'));
      writeFileSync(join(outside(), 'x'), 'precious');
      symlinkSync(join(outside(), 'x'), at('m', name));
      await expect(from({ replace: true })).rejects.toMatchObject({ code: 'hub_folder' });
      expect(readFileSync(join(outside(), 'x'), 'utf8')).toBe('precious');
    },
  );
  it('a link in the place of a part is not written through', async () => {
    await open();
    mkdirSync(at('m', '.temper-pull'), { recursive: true });
    writeFileSync(join(outside(), 'x'), 'precious');
    symlinkSync(join(outside(), 'x'), at('m', '.temper-pull', `${sha256(large)}.part`));
    await expect(from()).rejects.toThrow();
    expect(readFileSync(join(outside(), 'x'), 'utf8')).toBe('precious');
  });
  it('a folder in the place of a file is refused, and a file in the place of a folder', async () => {
    await open();
    mkdirSync(at('m', 'config.json'), { recursive: true });
    await expect(from()).rejects.toMatchObject({ code: 'hub_folder' });
    rmSync(at('m'), { recursive: true });
    mkdirSync(at('m'));
    writeFileSync(at('m', 'sub'), '');
    await expect(from()).rejects.toMatchObject({ code: 'hub_folder', message: /is no folder/ });
    writeFileSync(at('file'), '');
    await expect(from({ dir: at('file') })).rejects.toMatchObject({ code: 'hub_folder' });
  });
  it('the folder itself may be a link', async () => {
    await open();
    symlinkSync(outside(), at('m'));
    await from({ include: ['config.json'] });
    expect(readFileSync(join(outside(), 'config.json')).equals(files['config.json'])).toBe(true);
  });
});

it('says before anything is fetched that the disk cannot hold it', async () => {
  await open({
    repos: {
      'model openai/tiny': { files: { a: noise(500) }, listed: { a: { size: 2 ** 50 } }, commit: COMMIT },
    },
  });
  await expect(from()).rejects.toMatchObject({
    code: 'disk_full',
    exitCode: 2,
    message: /1048576\.00 GiB are to come/,
  });
  expect(server.fileRequests()).toEqual([]);
  expect(existsSync(at('m'))).toBe(false);
});

it('two pulls into one folder do not meet', async () => {
  let release = (): void => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  await open({
    async fault({ seen }) {
      if (seen.path.includes('/tree/')) await held;
      return false;
    },
  });
  const first = from();
  await expect.poll(() => server.seen.some((s) => s.path.includes('/tree/')), { timeout: 20_000 }).toBe(true);
  await expect(from()).rejects.toMatchObject({ code: 'hub_locked', exitCode: 2, message: /pulls into it/ });
  release();
  await first;
  expectWhole(at('m'));
});

describe('HF_HUB_OFFLINE', () => {
  it('takes what is there as a whole, and asks nobody', async () => {
    await open();
    await from({ include: ['*.json'] });
    process.env.HF_HUB_OFFLINE = '1';
    server.seen.length = 0;
    const r = await from({ include: ['*.json'] });
    expect(r).toMatchObject({ commit: COMMIT, fetchedBytes: 0 });
    await expect(from()).rejects.toMatchObject({ code: 'hub_offline', exitCode: 2 });
    rmSync(at('m', 'config.json'));
    await expect(from({ include: ['*.json'] })).rejects.toMatchObject({ code: 'hub_offline' });
    expect(server.seen).toEqual([]);
    delete process.env.HF_HUB_OFFLINE;
  });
});
