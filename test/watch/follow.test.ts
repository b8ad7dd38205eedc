// What a run's folder tells, in every state that it may be in and through every change of its files.
import { appendFileSync, mkdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { lockRun } from '../../src/runs/lock.js';
import { replaceMetrics, truncateMetrics } from '../../src/runs/metrics.js';
import { writeRun } from '../../src/runs/run-folder.js';
import { RunFollower } from '../../src/watch/follow.js';
import { LineReader, stepOf } from '../../src/watch/lines.js';
import { viewOf } from '../../src/watch/view.js';
import { begin, checkpoint, metricsOf, newRun, record, steps } from './runs.js';

const open: RunFollower[] = [];
function follow(run: string): RunFollower {
  const follower = new RunFollower(run);
  open.push(follower);
  return follower;
}
afterEach(() => Promise.all(open.splice(0).map((f) => f.close())));
const lossesOf = (f: RunFollower): readonly number[] => f.curves.points.map((m) => m.step);
const upTo = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i + 1);

describe('the state of a run', () => {
  it('from nothing to its end', async () => {
    const run = newRun();
    const f = follow(run);
    const state = async () => {
      await f.poll();
      return f.state;
    };
    expect(await state()).toBe('waiting');
    expect(viewOf(f, 0)).toMatchObject({ name: 'run', steps: null, figures: [], facts: [], rows: [] });
    const lock = lockRun(run);
    expect(await state()).toBe('preparing');
    begin(run);
    expect(await state()).toBe('running');
    steps(run, 1, 3);
    expect(await state()).toBe('running');
    expect(lossesOf(f)).toEqual(upTo(3));
    writeRun(run, { ...record, status: 'done' });
    // Whoever was seen at work may take its time to leave.
    expect(await state()).toBe('done');
    lock[Symbol.dispose]();
    expect(await state()).toBe('done');
    // Another one begins: it goes on.
    await new Promise((tick) => setTimeout(tick, 30));
    using _again = lockRun(run);
    expect(await state()).toBe('preparing');
    begin(run);
    expect(await state()).toBe('running');
  });
  it('that was killed', async () => {
    const run = newRun();
    begin(run);
    steps(run, 1, 3);
    const f = follow(run);
    await f.poll();
    expect(f.state).toBe('gone');
    expect(viewOf(f, 0).detail).toContain('There is no checkpoint');
    // Whoever goes on has read nothing yet: the record is still that of the dead one.
    await new Promise((tick) => setTimeout(tick, 30));
    const lock = lockRun(run);
    await f.poll();
    expect(f.state).toBe('preparing');
    lock[Symbol.dispose]();
    checkpoint(run, 2);
    await f.poll();
    expect(viewOf(f, 0).detail).toContain('The checkpoint of step 2 is whole; temper train RECIPE --resume');
  });
  it.each([
    ['stopped', {}, 'Stopped on request'],
    ['failed', { failure: 'no space left' }, 'no space left'],
    ['done', { endedEarly: 3 }, 'Ended after step 3, by train.patience'],
  ] as const)('that ended as %s', async (status, more, said) => {
    const run = newRun();
    begin(run, { status, ...more });
    const f = follow(run);
    await f.poll();
    expect(f.state).toBe(status);
    expect(viewOf(f, 0).detail).toContain(said);
  });
  it.each(['', '{', 'null', '[]', '{"status":"running"}', JSON.stringify({ ...record, data: [null] })])(
    'whose record is %j',
    async (text) => {
      const run = newRun();
      begin(run);
      writeFileSync(join(run, 'run.json'), text);
      steps(run, 1, 3);
      const f = follow(run);
      await f.poll();
      expect(f.state).toBe('damaged');
      expect(viewOf(f, 0).rows).toHaveLength(3);
      begin(run, { status: 'done' });
      await f.poll();
      expect(f.state).toBe('done');
    },
  );
  it('that is taken away, and comes again', async () => {
    const run = newRun();
    begin(run, { status: 'done' });
    steps(run, 1, 5);
    const f = follow(run);
    await f.poll();
    rmSync(run, { recursive: true });
    await f.poll();
    expect([f.state, lossesOf(f)]).toEqual(['waiting', []]);
    begin(run, { status: 'stopped' });
    steps(run, 1, 2);
    await f.poll();
    expect([f.state, lossesOf(f)]).toEqual(['stopped', [1, 2]]);
  });
});

describe('metrics.jsonl', () => {
  it('is read on as it grows, and a line that is cut off waits for its end', async () => {
    const run = newRun();
    begin(run);
    const f = follow(run);
    const text = JSON.stringify(metricsOf(3));
    steps(run, 1, 2);
    appendFileSync(join(run, 'metrics.jsonl'), text.slice(0, 20));
    await f.poll();
    const { version } = f;
    expect(lossesOf(f)).toEqual([1, 2]);
    await f.poll();
    expect(f.version).toBe(version);
    appendFileSync(join(run, 'metrics.jsonl'), `${text.slice(20)}\n`);
    await f.poll();
    expect(lossesOf(f)).toEqual([1, 2, 3]);
    expect(f.version).toBe(version + 1);
    expect(f.restarts).toBe(0);
  });
  it('is read again where steps were taken back, a line was replaced, or it was cut in place', async () => {
    const run = newRun();
    begin(run);
    const f = follow(run);
    steps(run, 1, 9);
    await f.poll();
    truncateMetrics(run, 4);
    await f.poll();
    expect(lossesOf(f)).toEqual(upTo(4));
    // Taken back and written on between two looks, to more bytes than before.
    truncateMetrics(run, 2);
    steps(run, 3, 12, () => ({ loss: 7 }));
    await f.poll();
    expect(lossesOf(f)).toEqual(upTo(12));
    expect(f.curves.points[2]?.loss).toBe(7);
    replaceMetrics(run, metricsOf(12, { evalLoss: 0.5 }));
    await f.poll();
    expect(f.tally.best?.evalLoss).toBe(0.5);
    truncateSync(join(run, 'metrics.jsonl'), 200);
    await f.poll();
    expect(lossesOf(f)).toEqual([1]);
  });
  it('may hold anything: what is no step is passed over, and steps go up', async () => {
    const run = newRun();
    begin(run);
    const odd = [
      '',
      '[]',
      'null',
      '{"step":-1}',
      '{"step":"1"}',
      '\u0000',
      `{"x":"${'y'.repeat(200_000)}"}`,
      '{"step":2}',
    ];
    writeFileSync(join(run, 'metrics.jsonl'), `${odd.join('\n')}\n${JSON.stringify(metricsOf(1))}\n`);
    steps(run, 3, 4);
    const f = follow(run);
    await f.poll();
    expect(lossesOf(f)).toEqual([2, 3, 4]);
    expect(viewOf(f, 0).rows[0]?.[1]).toBeNaN();
    expect(JSON.parse(JSON.stringify(viewOf(f, 0))).rows[0][1]).toBeNull();
  });
  it('a folder or a missing file in its place is no metrics', async () => {
    const run = newRun();
    begin(run);
    mkdirSync(join(run, 'metrics.jsonl'));
    const f = follow(run);
    await f.poll();
    expect(lossesOf(f)).toEqual([]);
  });
  it('lines come out the same however the file is cut into pieces', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.array(fc.nat(30)), (texts, cuts) => {
        const lines = texts.map((t) => t.replaceAll('\n', ' '));
        const bytes = Buffer.from(lines.map((l) => `${l}\n`).join(''));
        const reader = new LineReader();
        const got: string[] = [];
        let at = 0;
        for (const cut of [...cuts, bytes.length]) {
          got.push(...reader.take(bytes.subarray(at, at + cut)));
          at = Math.min(bytes.length, at + cut);
        }
        expect(got).toEqual(lines.map((l) => Buffer.from(l).toString('utf8')));
      }),
    );
    expect(stepOf(JSON.stringify(metricsOf(2, { evalMatch: 0.5 })))).toEqual(metricsOf(2, { evalMatch: 0.5 }));
  });
});

it('says what is left from what was seen, and nothing from nothing', async () => {
  const run = newRun();
  using _lock = lockRun(run);
  begin(run, { steps: 200 });
  const f = follow(run);
  const at = async (seconds: number) => {
    utimesSync(join(run, 'metrics.jsonl'), seconds, seconds);
    await f.poll();
  };
  await f.poll();
  expect(f.secondsLeft).toBeNull();
  steps(run, 1, 1);
  await at(1000);
  expect(f.secondsLeft).toBeNull(); // a tenth of a second was measured
  steps(run, 2, 5);
  await at(1010); // four steps in ten seconds, whatever the steps themselves took
  expect(f.secondsLeft).toBeCloseTo(195 * 2.5);
  // Of a minute ago, not of the beginning.
  steps(run, 6, 55);
  await at(1100);
  steps(run, 56, 75);
  await at(1110);
  steps(run, 76, 95);
  await at(1120);
  expect(f.secondsLeft).toBeCloseTo(105 * 0.5);
  writeRun(run, { ...record, steps: 200, status: 'done' });
  await f.poll();
  expect(f.secondsLeft).toBeNull();
});
