// What a writer promises: all that it acknowledged is there, whatever ends it; what it could not write, it refuses.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { type FileHandle, open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { LaneFiles } from '../../src/verdict-log/lane.js';
import { verifyLog } from '../../src/verdict-log/verify.js';
import { filesOf, fill, linesOf, open, scratch } from './logs.js';

const at = scratch('writer');
const dist = join(packageRoot, 'dist', 'verdict-log', 'log.js');
const recordsOf = (dir: string): readonly { readonly n?: number }[] =>
  filesOf(dir)
    .slice(1)
    .flatMap((f) => linesOf(join(dir, f)))
    .flatMap((line) => {
      const { kind, record } = JSON.parse(line) as { kind?: string; record?: { n?: number } };
      return kind === 'verdict' && record ? [record] : [];
    });

it('goes on where the last writer ended, over many files', async () => {
  const dir = at('goes-on');
  for (let turn = 0; turn < 4; turn++) {
    const log = await open(dir, { segmentBytes: 3000 });
    await fill(log, 5);
    await log.close();
    expect(verifyLog({ dir, closed: true })).toMatchObject({ ok: true, records: 7 * (turn + 1) });
  }
  expect(filesOf(dir).length).toBeGreaterThan(3);
  expect(recordsOf(dir)).toHaveLength(20);
});

it('a hundred at once are one group, in the order in which they came', async () => {
  const dir = at('group');
  const groups: number[] = [];
  const log = await open(dir, { onCommit: ({ records }) => groups.push(records) });
  const receipts = await fill(log, 100, true);
  await log.close();
  expect(groups).toEqual([100, 1]); // and the end
  expect(new Set(receipts).size).toBe(100);
  expect(receipts.map((r) => Number(r.split('.')[2]))).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  expect(recordsOf(dir).map((r) => r.n)).toEqual(Array.from({ length: 100 }, (_, i) => i));
});

it('refuses what no record may be, and goes on', async () => {
  const dir = at('refuses');
  const log = await open(dir);
  for (const [kind, record] of [
    ['open', {}],
    ['Verdict', {}],
    ['verdict', { text: '\ud800' }],
    ['verdict', { text: 'x'.repeat(300_000) }],
    ['verdict', { n: Number.NaN }],
  ] as const)
    await expect(log.append(kind, record)).rejects.toMatchObject({ code: 'log_failed', exitCode: 30 });
  await fill(log, 2);
  await log.close();
  await expect(log.append('verdict', {})).rejects.toMatchObject({ code: 'log_failed' });
  expect(verifyLog({ dir, closed: true })).toMatchObject({ ok: true, records: 4 });
});

/** Files whose writes fail as a test says. */
function faulty(fails: (call: 'write' | 'datasync' | 'truncate') => NodeJS.ErrnoException | 'short' | null): LaneFiles {
  const wrap = (file: FileHandle): FileHandle =>
    new Proxy(file, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        if (name !== 'write' && name !== 'datasync' && name !== 'truncate') return value.bind(target);
        return async (...args: unknown[]) => {
          const fault = fails(name);
          if (fault === 'short') {
            // A full disk takes some of it first.
            const [data, from, length, position] = args as [Buffer, number, number, number];
            return target.write(data, from, Math.min(10, length), position);
          }
          if (fault) throw fault;
          return (value as (...a: unknown[]) => unknown).apply(target, args);
        };
      },
    });
  return {
    create: async (path) => wrap(await openFile(path, 'wx')),
    open: async (path) => wrap(await openFile(path, 'r+')),
  };
}
const errno = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code, syscall: 'write' });

it('a full disk: what did not fit is refused, what was acknowledged is there; with more room it goes on', async () => {
  for (const segmentBytes of [1 << 20, 1]) {
    const dir = at(`full-${segmentBytes}`);
    let writes = 0,
      full = false;
    const log = await open(dir, {
      segmentBytes, // 1: every group begins a file
      files: faulty((call) => {
        if (!full || call !== 'write') return null;
        return writes++ % 2 === 0 ? 'short' : errno('ENOSPC');
      }),
    });
    await fill(log, 3);
    full = true;
    for (let i = 0; i < 3; i++) await expect(fill(log, 4, true)).rejects.toMatchObject({ code: 'log_failed' });
    expect(log.broken).toBeNull();
    expect(verifyLog({ dir })).toMatchObject({ ok: true, records: 4 });
    full = false;
    await fill(log, 2);
    await log.close();
    expect(verifyLog({ dir, closed: true })).toMatchObject({ ok: true, records: 7 });
    expect(recordsOf(dir)).toHaveLength(5);
  }
});

it('a flush that fails, a write that cannot be taken back: nothing more is taken; a new writer goes on', async () => {
  for (const bad of ['datasync', 'truncate'] as const) {
    const dir = at(`broken-${bad}`);
    let broken = false;
    const log = await open(dir, {
      files: faulty((call) =>
        broken && (call === bad || (bad === 'truncate' && call === 'write')) ? errno('EIO') : null,
      ),
    });
    await fill(log, 2);
    broken = true;
    await expect(fill(log, 1)).rejects.toMatchObject({ code: 'log_failed' });
    broken = false;
    await expect(fill(log, 1)).rejects.toMatchObject({ code: 'log_failed' });
    expect(log.broken).toContain('EIO');
    await log.close();
    const next = await open(dir);
    await fill(next, 1);
    await next.close();
    expect(verifyLog({ dir, closed: true }).ok).toBe(true);
    expect(recordsOf(dir).length).toBeGreaterThanOrEqual(3);
  }
});

it('a write that was cut off at any byte is cut away at the next start; all before it is there', async () => {
  const dir = at('torn');
  const log = await open(dir);
  await fill(log, 2);
  await log.close();
  const file = join(dir, filesOf(dir)[1] as string);
  const good = readFileSync(file);
  // What one more group would have added: its records, its checkpoint.
  const more = await open(dir);
  await fill(more, 2, true);
  await more.close();
  const whole = readFileSync(file);
  const lines = whole.subarray(good.length).toString().split('\n');
  const group = Buffer.byteLength(`${lines.slice(0, 2).join('\n')}\n`); // its first group: open and checkpoint
  for (let bytes = 1; bytes < group; bytes += bytes < 20 || group - bytes < 20 ? 1 : 37) {
    writeFileSync(file, whole.subarray(0, good.length + bytes));
    // The end of its line alone is missing: it was signed, and stays.
    const kept = bytes === group - 1;
    expect(verifyLog({ dir }).ok).toBe(false);
    const again = await open(dir);
    expect(again.notices.join()).toContain(kept ? 'did not close it' : `${bytes} bytes`);
    await again.close();
    expect(verifyLog({ dir, closed: true }), `cut at ${bytes}`).toMatchObject({ ok: true, records: kept ? 7 : 6 });
  }
  expect(readdirSync(join(dir, '0000')).filter((f) => f.includes('.cut-')).length).toBeGreaterThan(10);
  // What a power cut may leave: the right length, and nothing in it. Also a file that was begun and never filled.
  appendFileSync(file, Buffer.alloc(5000));
  writeFileSync(join(dir, '0000', '000000000099.jsonl'), '{"chain":"');
  const last = await open(dir);
  await fill(last, 1);
  await last.close();
  expect(verifyLog({ dir, closed: true }).ok).toBe(true);
});

it('an end that was acknowledged and altered is not cut away', async () => {
  const dir = at('altered');
  const log = await open(dir);
  await fill(log, 4);
  await log.close();
  const file = join(dir, filesOf(dir)[1] as string);
  const text = readFileSync(file, 'utf8');
  for (const bad of [text.replace('"n":1', '"n":7'), text.replace(/\n[^\n]*"n":2[^\n]*\n/, '\n')]) {
    writeFileSync(file, bad);
    await expect(open(dir)).rejects.toMatchObject({ code: 'log_altered', exitCode: 40 });
    expect(readFileSync(file, 'utf8')).toBe(bad);
  }
  truncateSync(join(dir, 'log.json'), 10);
  await expect(open(dir)).rejects.toMatchObject({ code: 'log_altered' });
});

it('another key is refused', async () => {
  const dir = at('keyed');
  await (await open(dir)).close();
  await (await open(at('other-log'))).close();
  await expect(open(dir, { key: at('other-log', 'key.pem') })).rejects.toMatchObject({ code: 'log_key' });
});

/** A process that appends records and says the number of each when it is acknowledged. */
const WRITER = `
const { openVerdictLog } = await import(process.argv[1]);
const log = await openVerdictLog({ dir: process.argv[2], by: 'test', segmentBytes: 20000 });
const count = Number(process.argv[3]);
let n = 0;
await Promise.all(Array.from({ length: 4 }, async () => {
  while (n < count) {
    const mine = n++;
    try { await log.append('verdict', { n: mine }); process.stdout.write(mine + '\\n'); }
    catch (e) { process.stdout.write('failed ' + e.code + '\\n'); if (process.argv[4] === 'stop') process.exit(3); }
  }
}));
await log.close();
`;
const writer = (dir: string, count: number): ChildProcess =>
  spawn(process.execPath, ['--input-type=module', '-e', WRITER, dist, dir, String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
const numbers = (text: string): number[] =>
  text
    .split('\n')
    .slice(0, -1)
    .map(Number)
    .sort((a, b) => a - b);

it('two writers at once: a stream each, nothing lost, none can vanish', async () => {
  const dir = at('two');
  const said = await Promise.all(
    [0, 1, 2].map(async () => {
      const child = writer(dir, 60);
      let text = '';
      child.stdout?.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      await new Promise((done) => child.on('close', done));
      return numbers(text);
    }),
  );
  for (const s of said) expect(s).toEqual(Array.from({ length: 60 }, (_, i) => i));
  const report = verifyLog({ dir, closed: true });
  expect(report).toMatchObject({ ok: true, faults: [] });
  expect(recordsOf(dir)).toHaveLength(180);
  // The streams are taken up by the next writers, two at once here.
  const [a, b] = [await open(dir), await open(dir)];
  expect([a.lane, b.lane]).toEqual([0, 1]);
  await fill(a, 1);
  await fill(b, 1);
  await b.close();
  await a.close();
  expect(verifyLog({ dir, closed: true })).toMatchObject({ ok: true });
}, 200_000);

it('killed while it writes, again and again: all that it said it had is there', async () => {
  const dir = at('killed');
  const acknowledged: number[] = [];
  for (let turn = 0; turn < 5; turn++) {
    const child = writer(dir, 1_000_000);
    let text = '';
    await new Promise<void>((done) => {
      child.stdout?.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (text.split('\n').length > 30 + 17 * turn) child.kill('SIGKILL');
      });
      child.on('close', () => done());
    });
    acknowledged.push(numbers(text).length);
    const log = await open(dir);
    await log.close();
    const report = verifyLog({ dir });
    expect(report.faults).toEqual([]);
    const there = recordsOf(dir).length;
    expect(there).toBeGreaterThanOrEqual(acknowledged.reduce((a, b) => a + b, 0));
  }
}, 300_000);

it('a process whose files may not grow: it refuses what does not fit, and what it said it had is there', () => {
  const dir = at('limited');
  const run = spawnSync(
    'bash',
    [
      '-c',
      'ulimit -f 16; exec "$0" "$@"',
      process.execPath,
      '--input-type=module',
      '-e',
      WRITER,
      dist,
      dir,
      '100',
      'stop',
    ],
    { encoding: 'utf8' },
  );
  expect(run.status).toBe(3);
  const lines = run.stdout.split('\n').slice(0, -1);
  expect(lines.at(-1)).toBe('failed log_failed');
  const said = lines.filter((l) => !l.startsWith('failed')).map(Number);
  expect(said.length).toBeGreaterThan(3);
  const there = recordsOf(dir).map((r) => r.n);
  for (const n of said) expect(there).toContain(n);
});
