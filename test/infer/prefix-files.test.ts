// Openings on disk: with the same bits as without, whole or absent after a kill, and never used where anything is off.
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { PrefixDisk } from '../../src/infer/prefix-disk.js';
import { PrefixFiles, type PrefixKey } from '../../src/infer/prefix-files.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const root = mkdtempSync(join(tmpdir(), 'temper-prefixes-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const folder = (): string => join(root, String(count++));

const bytesOf = (n: number, salt: number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i * 31 + salt) % 251);
const keyOf = (salt: number, bytes = 5000): PrefixKey => ({
  binding: 'ab'.repeat(32),
  tokens: prompt(40, salt),
  cuts: [40],
  bytes,
});
function* parts(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 700) yield bytes.subarray(at, at + 700);
}
const write = (files: PrefixFiles, salt: number): Promise<void> => files.write(keyOf(salt), parts(bytesOf(5000, salt)));
const only = (at: string): string => {
  const [name, ...more] = readdirSync(at);
  expect(more).toEqual([]);
  return join(at, name ?? '');
};

describe('files of prefixes', () => {
  it('are not written where fewer bytes come than should', async () => {
    const files = new PrefixFiles(folder(), 1e6);
    for (const bytes of [0, 4300, 5700]) await files.write(keyOf(1), parts(bytesOf(bytes, 1)));
    expect(readdirSync(files.folder)).toEqual([]);
    expect(files.counts.written).toBe(0);
  });
  it('give back what was written, under all that it depends on', async () => {
    const files = new PrefixFiles(folder(), 1e6);
    await write(files, 1);
    expect(await files.read(keyOf(1))).toEqual(bytesOf(5000, 1));
    expect(statSync(only(files.folder)).mode & 0o077).toBe(0);
    const key = keyOf(1);
    for (const other of [
      { ...key, binding: 'cd'.repeat(32) },
      { ...key, tokens: prompt(40, 2) },
      { ...key, cuts: [20, 40] },
      { ...key, bytes: 4999 },
    ])
      expect(await files.read(other)).toBeNull();
    expect(files.counts).toEqual({ read: 1, written: 1, refused: 0 });
  });
  it.each([
    [
      'a bit of it',
      (path: string) => {
        const bytes = readFileSync(path);
        bytes[2000] = (bytes[2000] ?? 0) ^ 4;
        writeFileSync(path, bytes);
      },
    ],
    ['its end', (path: string) => writeFileSync(path, readFileSync(path).subarray(0, 4000))],
    ['more than it', (path: string) => appendFileSync(path, 'x')],
    ['nothing', (path: string) => writeFileSync(path, '')],
    [
      'another one',
      (path: string) => {
        const bytes = readFileSync(path);
        bytes.write('cd', bytes.indexOf('abab'));
        writeFileSync(path, bytes);
      },
    ],
  ])('where a file has %s, it is told, removed and not used', async (_, damage) => {
    const lines: string[] = [];
    const files = new PrefixFiles(folder(), 1e6, (line) => lines.push(line));
    await write(files, 1);
    damage(only(files.folder));
    expect(await files.read(keyOf(1))).toBeNull();
    expect(readdirSync(files.folder)).toEqual([]);
    expect(lines).toHaveLength(1);
    expect(files.counts.refused).toBe(1);
    await write(files, 1);
    expect(await files.read(keyOf(1))).toEqual(bytesOf(5000, 1));
  });
  it('the least recently used go when there are too many bytes', async () => {
    const files = new PrefixFiles(folder(), 17_000);
    for (const salt of [1, 2, 3]) {
      await write(files, salt);
      const names = readdirSync(files.folder);
      for (const name of names) {
        const { mtimeMs } = statSync(join(files.folder, name));
        utimesSync(join(files.folder, name), mtimeMs / 1000 - 100, mtimeMs / 1000 - 100);
      }
    }
    expect(await files.read(keyOf(1))).not.toBeNull(); // used last
    await write(files, 4);
    expect(await files.read(keyOf(2))).toBeNull();
    expect(await files.read(keyOf(1))).not.toBeNull();
    const small = new PrefixFiles(folder(), 1000);
    await write(small, 1);
    expect(readdirSync(small.folder)).toEqual([]);
  });
  it('two writers of one do not hurt each other', async () => {
    const at = folder(),
      a = new PrefixFiles(at, 1e6),
      b = new PrefixFiles(at, 1e6);
    await Promise.all([write(a, 1), write(b, 1), write(a, 1), write(b, 2), write(a, 2)]);
    expect(readdirSync(at)).toHaveLength(2);
    for (const files of [a, b])
      for (const salt of [1, 2]) expect(await files.read(keyOf(salt))).toEqual(bytesOf(5000, salt));
  });
  it('a writer whose bytes go leaves nothing, nor does a folder that is no more', async () => {
    const files = new PrefixFiles(folder(), 1e6);
    await files.write(keyOf(1), [bytesOf(1000, 1), null]);
    expect(readdirSync(files.folder)).toEqual([]);
    const lines: string[] = [];
    const gone = new PrefixFiles(folder(), 1e6, (line) => lines.push(line));
    rmSync(gone.folder, { recursive: true });
    await write(gone, 1);
    expect(await gone.read(keyOf(1))).toBeNull();
    expect(lines).toHaveLength(1);
  });
  it('a kill in the middle of writing leaves nothing that is used, and the next one tidies up', async () => {
    const at = folder(),
      module = pathToFileURL(join(packageRoot, 'dist/infer/prefix-files.js')).href;
    const program = `
      const { PrefixFiles } = await import(${JSON.stringify(module)});
      const files = new PrefixFiles(${JSON.stringify(at)}, 1e9);
      function* parts() {
        yield new Uint8Array(3000);
        process.kill(process.pid, 'SIGKILL');
      }
      const binding = '${'ab'.repeat(32)}';
      await files.write({ binding, tokens: Int32Array.of(1, 2), cuts: [2], bytes: 5000 }, parts());
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore' });
    const signal = await new Promise((done) => child.once('exit', (_code, by) => done(by)));
    expect(signal).toBe('SIGKILL');
    expect(readdirSync(at)).toEqual([expect.stringMatching(/^\..*\.tmp$/)]);
    const files = new PrefixFiles(at, 1e9);
    expect(readdirSync(at)).toEqual([]);
    expect(
      await files.read({ binding: 'ab'.repeat(32), tokens: Int32Array.of(1, 2), cuts: [2], bytes: 5000 }),
    ).toBeNull();
  });
});

const { dir } = await tinyCheckpoint();
const model = openCheckpoint(dir);
afterAll(() => model.close());

describe.each(['f32', 'bf16'] as const)('a session whose openings are on disk, keys and values in %s', (kvDtype) => {
  interface Answer {
    readonly bits: string;
    readonly cached: number;
  }
  const at = folder();
  /** One request of an engine that begins anew. */
  async function ask(
    on: string | null,
    tokens: Int32Array,
    shared: number,
    binding = 'ab'.repeat(32),
  ): Promise<Answer> {
    using session = new Session(model, {
      precision: 'bf16',
      slots: 1,
      capacity: 600,
      prefillTokens: 48,
      prefixes: 4,
      kvDtype,
    });
    const disk = on === null ? null : new PrefixDisk(session.prefixes, new PrefixFiles(on, 1e8), () => binding);
    await disk?.bring(tokens, shared, null, new AbortController().signal);
    const sequence = session.start({
      tokens,
      maxTokens: 6,
      stop: new Set(),
      sampling: { ...GREEDY, temperature: 1, seed: 5 },
      sharedTokens: shared,
    });
    const out: number[] = [];
    while (!session.idle) for (const { token, logprob } of session.step()) out.push(token, logprob);
    await disk?.settle();
    return { bits: out.join(), cached: session.progress(sequence).cached };
  }
  it('gives the bits of one that computes them, beyond the window and in pages that are not full', async () => {
    for (const shared of [40, 128, 300]) {
      const first = prompt(shared + 30, 1),
        then = Int32Array.from([...first.slice(0, shared), ...prompt(50, 9)]);
      expect((await ask(at, first, shared)).cached).toBe(0);
      const plain = await ask(null, then, shared);
      expect(plain.cached).toBe(0);
      expect(await ask(at, then, shared)).toEqual({ bits: plain.bits, cached: shared });
    }
    expect(readdirSync(at)).toHaveLength(3);
  });
  it('those that are kept no more when it is their turn are not written', async () => {
    const on = folder(),
      files = new PrefixFiles(on, 1e8);
    using session = new Session(model, { precision: 'bf16', slots: 1, capacity: 600, prefixes: 2, kvDtype });
    const disk = new PrefixDisk(session.prefixes, files, () => 'ab'.repeat(32));
    const shared = 40;
    // Nothing is written between two steps: each pushes the one before out.
    for (let salt = 0; salt < 4; salt++) {
      session.start({
        tokens: prompt(60, salt),
        maxTokens: 1,
        stop: new Set(),
        sampling: GREEDY,
        sharedTokens: shared,
      });
      while (!session.idle) session.step();
    }
    await disk.settle();
    const { written } = disk.counts;
    expect(written).toBeGreaterThan(0);
    expect(written).toBeLessThan(4);
    const bytes = session.prefixes.cache.bytesFor(shared);
    for (const name of readdirSync(on)) expect(statSync(join(on, name)).size).toBeGreaterThan(bytes);
    expect(readdirSync(on)).toHaveLength(written);
  });
  it('and not of another model, adapter or build', async () => {
    const tokens = prompt(80, 1);
    expect((await ask(at, tokens, 40, 'cd'.repeat(32))).cached).toBe(0);
    expect((await ask(at, tokens, 40)).cached).toBe(40);
  });
});
