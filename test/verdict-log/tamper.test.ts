// Whatever is done to the files of a log, verify finds it: every byte changed, every line dropped, doubled, swapped or
// moved, every end cut off.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { makeKey, publicFile } from '../../src/verdict-log/keys.js';
import { checkpointsOf } from '../../src/verdict-log/prove.js';
import { type LogReport, verifyLog } from '../../src/verdict-log/verify.js';
import { filesOf, fill, linesOf, open, scratch } from './logs.js';

const at = scratch('tamper');
const dir = at('log');
const key = at('keys', 'k.pem');
let since: string;
beforeAll(async () => {
  makeKey(key);
  const log = await open(dir, { key, segmentBytes: 2000 });
  await fill(log, 1);
  await fill(log, 3, true);
  await fill(log, 1);
  await log.close();
  since = at('checkpoint');
  writeFileSync(since, checkpointsOf(dir));
});
const check = (where: string, more: object = {}): LogReport | Error => {
  try {
    return verifyLog({ dir: where, key: publicFile(key), ...more });
  } catch (e) {
    return e as Error;
  }
};
const found = (report: LogReport | Error): boolean => report instanceof Error || !report.ok;
/** The log with one file changed. */
function changed(file: string, change: (path: string) => void): string {
  const copy = at('copy');
  rmSync(copy, { recursive: true, force: true });
  cpSync(dir, copy, { recursive: true });
  change(join(copy, file));
  return copy;
}

it('as it was written it is whole', () => {
  const report = check(dir, { since: [since], closed: true, everySignature: true });
  expect(report).toMatchObject({ ok: true, trust: 'given', records: 7, faults: [], notes: [] });
  expect(filesOf(dir).length).toBeGreaterThanOrEqual(3); // log.json, and more than one file of the stream
});

it('every byte', () => {
  let bytes = 0;
  const copy = changed('log.json', () => {});
  for (const file of filesOf(dir)) {
    const good = readFileSync(join(dir, file));
    const own = Buffer.from(good);
    for (let i = 0; i < good.length; i++) {
      const flip = 1 << (i % 8);
      own[i] = (good[i] as number) ^ flip;
      writeFileSync(join(copy, file), own);
      expect(found(check(copy)), `${file} byte ${i} ^ ${flip}`).toBe(true);
      own[i] = good[i] as number;
      bytes++;
    }
    writeFileSync(join(copy, file), good);
  }
  expect(found(check(copy))).toBe(false);
  process.stderr.write(`tamper: ${bytes} changed bytes found\n`);
  expect(bytes).toBeGreaterThan(3000);
}, 300_000);

it('every line dropped, doubled, swapped with the next, moved to the end', () => {
  let cases = 0;
  for (const file of filesOf(dir).filter((f) => f.endsWith('.jsonl'))) {
    const lines = linesOf(join(dir, file));
    for (let i = 0; i < lines.length; i++) {
      const [line = '', next] = [lines[i], lines[i + 1]];
      const others = lines.toSpliced(i, 1);
      const tries = [
        others,
        lines.toSpliced(i, 0, line),
        ...(next === undefined ? [] : [lines.toSpliced(i, 2, next, line), [...others, line]]),
      ];
      for (const [n, tried] of tries.entries()) {
        const copy = changed(file, (path) => writeFileSync(path, tried.map((l) => `${l}\n`).join('')));
        // The last checkpoint of all, gone with nothing after it, leaves records that nobody signed.
        expect(found(check(copy)), `${file} line ${i + 1}, try ${n}`).toBe(true);
        cases++;
      }
    }
  }
  process.stderr.write(`tamper: ${cases} lines dropped, doubled, swapped, moved\n`);
  expect(cases).toBeGreaterThan(40);
}, 200_000);

it('an end that is cut off: at once, but at a checkpoint; there by what was kept, and as it was not closed', () => {
  const file = filesOf(dir).at(-1) as string;
  const good = readFileSync(join(dir, file));
  const ends = [...good.entries()].flatMap(([i, b]) => (b === 10 ? [i + 1] : []));
  let atCheckpoint = 0;
  const copy = changed(file, () => {});
  for (let bytes = 0; bytes < good.length; bytes++) {
    if (bytes % 5 !== 0 && !ends.some((end) => Math.abs(end - bytes) < 3)) continue;
    writeFileSync(join(copy, file), good.subarray(0, bytes));
    const line = good.subarray(0, bytes).toString().split('\n').at(-2) ?? '';
    const clean = ends.includes(bytes) && /^\{"chain":"[0-9a-f]{64}","checkpoint"/.test(line);
    expect(found(check(copy)), `${file} cut at ${bytes}`).toBe(!clean);
    if (!clean) continue;
    atCheckpoint++;
    expect(found(check(copy, { closed: true }))).toBe(true);
    expect(found(check(copy, { since: [since] }))).toBe(true);
  }
  expect(atCheckpoint).toBeGreaterThan(0);
}, 200_000);

it('a file of the stream, or the stream, that is gone or from another log', async () => {
  for (const file of filesOf(dir).slice(0, -1)) expect(found(check(changed(file, (path) => rmSync(path))))).toBe(true);
  // The last file: by what is remembered of it.
  const last = filesOf(dir).at(-1) as string;
  expect(
    found(
      check(
        changed(last, (path) => rmSync(path)),
        { since: [since] },
      ),
    ),
  ).toBe(true);
  expect(
    found(
      check(
        changed('0000', (path) => rmSync(path, { recursive: true })),
        { since: [since] },
      ),
    ),
  ).toBe(true);
  const other = at('other');
  const log = await open(other, { key, segmentBytes: 4000 });
  await fill(log, 10);
  await log.close();
  for (const file of filesOf(other).slice(0, 2))
    expect(found(check(changed(file, (path) => cpSync(join(other, file), path))))).toBe(true);
  // All of it: a log, but not the one that was remembered.
  expect(check(other)).toMatchObject({ ok: true });
  expect(check(other, { since: [since] })).toMatchObject({ code: 'log_proof' });
});

it('a log that somebody wrote anew with another key', async () => {
  const forged = at('forged');
  const log = await open(forged);
  await fill(log, 3);
  await log.close();
  expect(check(forged)).toMatchObject({ ok: false });
  expect(verifyLog({ dir: forged })).toMatchObject({ ok: true, trust: 'own' });
});

it('says what and where', () => {
  const file = filesOf(dir)[1] as string;
  const dropped = (n: number): LogReport =>
    check(
      changed(file, (path) =>
        writeFileSync(
          path,
          linesOf(path)
            .toSpliced(n, 1)
            .map((l) => `${l}\n`)
            .join(''),
        ),
      ),
    ) as LogReport;
  // Lines: the head of the file, then open, checkpoint, record 1, …
  expect(dropped(3).faults).toMatchObject([{ kind: 'missing', file: '0000/000000000000.jsonl', line: 4, index: 1 }]);
  const copy = changed(file, (path) => {
    const lines = [...linesOf(path)];
    lines[3] = (lines[3] as string).replace('"n":0', '"n":1');
    writeFileSync(path, lines.map((l) => `${l}\n`).join(''));
  });
  expect((check(copy) as LogReport).faults).toMatchObject([{ kind: 'altered', line: 5, index: 1 }]);
  mkdirSync(at('none'));
  expect(check(at('none'))).toMatchObject({ code: 'log_missing' });
});

it('an end that was altered while a writer holds the log, or seems to', async () => {
  const held = at('held');
  const log = await open(held, { key });
  await fill(log, 2);
  expect(check(held)).toMatchObject({ ok: true, notes: [] });
  const file = join(held, filesOf(held)[1] as string);
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.slice(0, -20));
  expect(found(check(held))).toBe(true);
  writeFileSync(file, text);
  await log.close();
});
