// A digest is remembered only where a change could not hide. Each way of being fooled that we know of is tried.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type DigestOptions,
  digestFolder,
  type FolderDigest,
  type Surroundings,
} from '../../src/base/folder-digest.js';

const root = mkdtempSync(join(tmpdir(), 'temper-digest-'));
afterAll(() => rmSync(root, { recursive: true }));

const NAMES = ['a.bin', 'b.bin'];
const HOUR = 3_600_000;
let dir = '';
let cache = '';
let count = 0;
beforeEach(() => {
  dir = join(root, `folder-${count}`);
  cache = join(root, `cache-${count++}`);
  mkdirSync(dir);
  for (const name of NAMES) writeFileSync(join(dir, name), `${name} of ${dir}`);
});

/** As if it were an hour later than it is: what was just written has long settled. */
const around = (over: Partial<Surroundings> = {}): Partial<Surroundings> => ({
  cache,
  host: 'here',
  now: () => Date.now() + HOUR,
  faithful: () => Promise.resolve(true),
  ...over,
});
const digest = (over: Partial<Surroundings> = {}, options: DigestOptions = {}): Promise<FolderDigest> =>
  digestFolder(dir, NAMES, { ...options, surroundings: around(over) });
/** By the plain definition. */
const truth = (): string => {
  const hash = createHash('sha256');
  for (const name of NAMES)
    hash
      .update(`${name}\0`)
      .update(readFileSync(join(dir, name)))
      .update('\0');
  return hash.digest('hex');
};
const remember = async (over: Partial<Surroundings> = {}): Promise<FolderDigest> => {
  await digest(over);
  return digest(over);
};
/** Same size, other bytes. */
const changed = (name = 'a.bin'): string => readFileSync(join(dir, name), 'utf8').replace(/./, 'X');
const recordPath = (): string => join(cache, readdirSync(cache)[0] ?? '');

describe('a digest that is remembered', () => {
  it('is the one of the bytes, and reads none of them', async () => {
    const first = await digest();
    expect(first).toMatchObject({ digest: truth(), remembered: false });
    const seen: number[] = [];
    const again = await digest({}, { onProgress: (n) => seen.push(n) });
    expect(again).toEqual({ ...first, remembered: true });
    expect(seen).toEqual([NAMES.reduce((n, f) => n + statSync(join(dir, f)).size, 0)]);
    for (const f of again.files)
      expect(f.sha256).toBe(
        createHash('sha256')
          .update(readFileSync(join(dir, f.name)))
          .digest('hex'),
      );
  });
  it('serves through another path to the same folder', async () => {
    await digest();
    symlinkSync(dir, join(root, `link-${count}`));
    const other = await digestFolder(join(root, `link-${count}`), NAMES, { surroundings: around() });
    expect(other.remembered).toBe(true);
  });
  it('is not asked for what must be proven: fresh reads every byte and remembers what it found', async () => {
    await remember();
    const fresh = await digest({}, { fresh: true });
    expect(fresh.remembered).toBe(false);
    expect((await digest()).remembered).toBe(true);
  });
});

describe('bytes that changed are read again', () => {
  it.each<[string, () => void]>([
    ['size', () => writeFileSync(join(dir, 'a.bin'), `${changed()}!`)],
    ['same size, new mtime', () => writeFileSync(join(dir, 'a.bin'), changed())],
    [
      'same size, mtime set back by utimes: ctime tells',
      () => {
        const { atime, mtime } = statSync(join(dir, 'a.bin'));
        writeFileSync(join(dir, 'a.bin'), changed());
        utimesSync(join(dir, 'a.bin'), atime, mtime);
      },
    ],
    [
      'one byte in place',
      () => {
        const file = openSync(join(dir, 'b.bin'), 'r+');
        writeSync(file, 'X', 3);
        closeSync(file);
      },
    ],
    [
      'replaced by another file of its size and times: the inode tells',
      () => {
        const { atime, mtime } = statSync(join(dir, 'a.bin'));
        writeFileSync(join(dir, 'new'), changed());
        utimesSync(join(dir, 'new'), atime, mtime);
        renameSync(join(dir, 'new'), join(dir, 'a.bin'));
      },
    ],
    [
      'the two files change places',
      () => {
        renameSync(join(dir, 'a.bin'), join(dir, 'c'));
        renameSync(join(dir, 'b.bin'), join(dir, 'a.bin'));
        renameSync(join(dir, 'c'), join(dir, 'b.bin'));
      },
    ],
    [
      'replaced by a link',
      () => {
        writeFileSync(join(dir, 'elsewhere'), changed());
        rmSync(join(dir, 'a.bin'));
        symlinkSync('elsewhere', join(dir, 'a.bin'));
      },
    ],
    [
      'the folder is another one under the old name',
      () => {
        const old = Object.fromEntries(NAMES.map((n) => [n, changed(n)]));
        renameSync(dir, `${dir}-old`);
        mkdirSync(dir);
        for (const [name, text] of Object.entries(old)) writeFileSync(join(dir, name), text);
      },
    ],
  ])('%s', async (_, change) => {
    const before = await remember();
    expect(before.remembered).toBe(true);
    // Timestamps have to differ from those before: kernels count in steps of up to 10 ms.
    await new Promise((next) => setTimeout(next, 20));
    change();
    const after = await digest();
    expect(after).toMatchObject({ digest: truth(), remembered: false });
    expect(after.digest).not.toBe(before.digest);
  });

  it('a link that points to another target', async () => {
    for (const v of ['1', '2']) writeFileSync(join(dir, `target${v}`), `content ${v}`);
    rmSync(join(dir, 'a.bin'));
    symlinkSync('target1', join(dir, 'a.bin'));
    expect((await remember()).remembered).toBe(true);
    rmSync(join(dir, 'a.bin'));
    symlinkSync('target2', join(dir, 'a.bin'));
    expect(await digest()).toMatchObject({ digest: truth(), remembered: false });
  });
  it('the target of a link', async () => {
    writeFileSync(join(root, 'blob'), 'content 1');
    rmSync(join(dir, 'a.bin'));
    symlinkSync(join(root, 'blob'), join(dir, 'a.bin'));
    expect((await remember()).remembered).toBe(true);
    await new Promise((next) => setTimeout(next, 20));
    writeFileSync(join(root, 'blob'), 'content 2');
    expect(await digest()).toMatchObject({ digest: truth(), remembered: false });
  });
  it('another list of files', async () => {
    await remember();
    const one = await digestFolder(dir, ['a.bin'], { surroundings: around() });
    expect(one.remembered).toBe(false);
    expect(one.files).toHaveLength(1);
  });
});

describe('nothing is remembered where a change could hide', () => {
  it('files touched within 2 s of being read', async () => {
    for (const after of [0, 1000, 1900]) {
      const now = Math.max(...NAMES.map((n) => statSync(join(dir, n)).ctimeMs)) + after;
      expect((await remember({ now: () => now })).remembered, `${after} ms`).toBe(false);
    }
    expect((await remember()).remembered).toBe(true);
  });
  it('files from the future', async () => {
    utimesSync(join(dir, 'a.bin'), new Date(), new Date(Date.now() + 5 * HOUR));
    expect((await remember()).remembered).toBe(false);
  });
  it('a clock that stands before the time of hashing', async () => {
    await remember();
    expect((await digest({ now: () => Date.now() + HOUR / 2 })).remembered).toBe(false);
    expect((await digest({ now: () => Date.now() + 2 * HOUR })).remembered).toBe(true);
  });
  it('another host that sees the same home folder', async () => {
    await remember();
    expect((await digest({ host: 'there' })).remembered).toBe(false);
  });
  it('a file system that does not keep ctime, even for one of the files', async () => {
    await remember();
    expect((await digest({ faithful: () => Promise.resolve(false) })).remembered).toBe(false);
    expect((await digest({ faithful: (file) => Promise.resolve(!file.endsWith('b.bin')) })).remembered).toBe(false);
    expect((await digest()).remembered).toBe(true);
  });
  it('a file that is written to while it is read', async () => {
    writeFileSync(join(dir, 'b.bin'), Buffer.alloc(4 << 20));
    let written = false;
    const during = {
      onProgress: () => {
        if (written) return;
        written = true;
        writeFileSync(join(dir, 'a.bin'), changed());
      },
    };
    await digest({}, during);
    expect(written).toBe(true);
    expect(existsSync(cache)).toBe(false);
    expect(await digest()).toMatchObject({ digest: truth(), remembered: false });
  });
});

describe('a record that cannot be believed is passed over', () => {
  it.each<[string, (text: string) => string]>([
    ['empty', () => ''],
    ['cut off', (t) => t.slice(0, t.length / 2)],
    ['not a record', () => '{"digest": "00"}'],
    ['another digest', (t) => t.replace(/"digest":"..../, '"digest":"0000')],
    ['another file digest', (t) => t.replace(/"sha256":"..../, '"sha256":"0000')],
  ])('%s', async (_, damage) => {
    await remember();
    const path = recordPath();
    const text = readFileSync(path, 'utf8');
    expect(damage(text)).not.toBe(text);
    writeFileSync(path, damage(text));
    expect(await digest()).toMatchObject({ digest: truth(), remembered: false });
    expect((await digest()).remembered).toBe(true);
  });
  it('one that others may write to', async () => {
    await remember();
    chmodSync(recordPath(), 0o666);
    expect((await digest()).remembered).toBe(false);
    expect(statSync(recordPath()).mode & 0o777).toBe(0o600);
  });
  it('and a cache that cannot be written costs time, nothing else', async () => {
    writeFileSync(join(root, 'a-file'), '');
    expect(await remember({ cache: join(root, 'a-file', 'cache') })).toMatchObject({ digest: truth() });
    expect((await remember({ cache: null })).remembered).toBe(false);
  });
});

describe('around it', () => {
  it('the signal ends it between two pieces', async () => {
    const stop = new AbortController();
    const work = digest({}, { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(work).rejects.toMatchObject({ name: 'AbortError' });
    expect(existsSync(cache)).toBe(false);
  });
  it('old records go when there are many', async () => {
    mkdirSync(cache);
    for (let i = 0; i < 300; i++) {
      writeFileSync(join(cache, `${i}.json`), '');
      utimesSync(join(cache, `${i}.json`), 1000 + i, 1000 + i);
    }
    await digest();
    expect(readdirSync(cache)).toHaveLength(256);
    expect(existsSync(join(cache, '299.json'))).toBe(true);
    expect((await digest()).remembered).toBe(true);
  });
  it('processes at the same time leave one good record; TEMPER_CACHE says where', async () => {
    const module = join(import.meta.dirname, '../../dist/base/folder-digest.js');
    const code = `
      const { digestFolder } = await import(${JSON.stringify(module)});
      const surroundings = { now: () => Date.now() + ${HOUR} };
      const r = await digestFolder(${JSON.stringify(dir)}, ${JSON.stringify(NAMES)}, { surroundings });
      console.log(r.digest);`;
    const run = promisify(execFile);
    const outputs = await Promise.all(
      Array.from({ length: 4 }, () =>
        run(process.execPath, ['--input-type=module', '-e', code], { env: { ...process.env, TEMPER_CACHE: cache } }),
      ),
    );
    expect(outputs.map((o) => o.stdout.trim())).toEqual(Array(4).fill(truth()));
    // Where the temporary folder lies on a file system that keeps ctime, one record is left, and no temporary file.
    const left = existsSync(join(cache, 'digests')) ? readdirSync(join(cache, 'digests')) : [];
    expect(left.length).toBeLessThanOrEqual(1);
    expect(left.every((f) => f.endsWith('.json'))).toBe(true);
  });
});
