// The worker channel: results, streams, cancelling also while the thread does not read its messages, typed errors,
// close, and what a crash is.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { beginThread, type Channel, openChannel, runInThread } from '../../src/base/channel.js';
import { packageRoot } from '../../src/base/machine.js';

type Calls = {
  readonly double: { readonly request: number; readonly event: never; readonly result: number };
  readonly count: { readonly request: number; readonly event: number; readonly result: string };
  readonly fail: { readonly request: null; readonly event: never; readonly result: never };
  readonly spin: { readonly request: number; readonly event: string; readonly result: string };
  readonly wait: { readonly request: null; readonly event: string; readonly result: string };
  readonly deaf: { readonly request: Int32Array; readonly event: string; readonly result: string };
  readonly crash: { readonly request: null; readonly event: never; readonly result: never };
  readonly heard: { readonly request: null; readonly event: string; readonly result: readonly [boolean, number] };
  readonly odd: { readonly request: null; readonly event: never; readonly result: unknown };
};

const dir = mkdtempSync(join(tmpdir(), 'temper-channel-'));
const entry = join(dir, 'worker.mjs');
const from = (file: string): string => JSON.stringify(join(packageRoot, 'dist', 'base', file));
writeFileSync(
  entry,
  `import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from ${from('channel-worker.js')};
import { DataError } from ${from('errors.js')};
await serve((data, caller) => {
  if (data?.refuse) throw new DataError('bad_row', 'a:1: refused', { line: 1 });
  const busyUntil = (free) => { while (Atomics.load(free, 0) === 0); };
  if (data?.slow) busyUntil(data.slow);
  return {
    info: { pid: process.pid, tag: data?.tag },
    handlers: {
      double: (x) => 2 * x,
      async count(n, { emit }) { for (let i = 0; i < n; i++) { emit(i); await sleep(1); } return 'counted'; },
      fail() { throw new DataError('bad_row', 'a:2: bad', { line: 2 }); },
      spin(ms, { signal, emit }) {
        emit('on');
        for (const end = performance.now() + ms; performance.now() < end; ) signal.throwIfAborted();
        return 'spun';
      },
      wait(_, { signal, emit }) {
        emit('on');
        return new Promise((end) => signal.addEventListener('abort', () => end('stopped as asked')));
      },
      deaf(free, { emit }) { emit('on'); busyUntil(free); return 'done'; },
      async heard(_, { emit }) {
        const since = performance.now();
        emit('on');
        const told = caller.busy();
        while (caller.busy()) await sleep(1);
        return [told, performance.now() - since];
      },
      crash() { process.exit(7); },
      odd: () => () => {},
    },
  };
});
`,
);
afterAll(() => rmSync(dir, { recursive: true, force: true }));
type Info = { readonly pid: number; readonly tag?: string };
const open = (data: unknown = null, signal?: AbortSignal): Promise<Channel<Calls, Info>> =>
  openChannel(entry, data, { name: 'test', signal });
const since = (from: number): number => performance.now() - from;
/** What a deaf thread looks at: it is busy until there is a 1. */
const flag = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

describe('a thread that was begun before it is opened', () => {
  it('is opened once, with what is said then', async () => {
    beginThread(entry, { name: 'test' });
    const [first, second] = await Promise.all([open({ tag: 'a' }), open({ tag: 'b' })]);
    expect([first.info.tag, second.info.tag, await first.call('double', 21)]).toEqual(['a', 'b', 42]);
    await Promise.all([first.close(), second.close()]);
    beginThread(entry, { name: 'test' });
    await expect(open({ refuse: true })).rejects.toMatchObject({ code: 'bad_row' });
    beginThread(entry, { name: 'test' });
    await expect(open({ refuse: () => {} })).rejects.toThrow(/could not be cloned/);
  });
  it('does not keep the process, and one that cannot begin is told of where it is opened', async () => {
    const script = `import { beginThread } from ${from('channel.js')};
      beginThread(${JSON.stringify(entry)}, { name: 'test' });`;
    writeFileSync(join(dir, 'begin.mjs'), script);
    const code = await new Promise((done) => {
      execFile(process.execPath, [join(dir, 'begin.mjs')], (e) => done(e?.code ?? 0));
    });
    expect(code).toBe(0);
    const broken = join(dir, 'broken.mjs');
    writeFileSync(broken, "throw new Error('does not load');");
    beginThread(broken, { name: 'broken' });
    await expect(openChannel(broken, null, { name: 'broken' })).rejects.toThrow('does not load');
  });
});

describe('an open channel', () => {
  let channel: Channel<Calls, Info>;
  beforeAll(async () => {
    channel = await open();
  });
  afterAll(() => channel.close());

  it('answers, side by side, each call its own', async () => {
    expect(channel.info).toEqual({ pid: process.pid });
    const events: number[] = [];
    const results = await Promise.all([
      channel.call('count', 20, { onEvent: (i) => events.push(i) }),
      ...Array.from({ length: 50 }, (_, i) => channel.call('double', i)),
    ]);
    expect(results).toEqual(['counted', ...Array.from({ length: 50 }, (_, i) => 2 * i)]);
    expect(events).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('streams events in order, then the result; leaving the loop stops the work', async () => {
    const stream = channel.stream('count', 5);
    const seen: number[] = [];
    let next = await stream.next();
    for (; !next.done; next = await stream.next()) seen.push(next.value);
    expect([seen, next.value]).toEqual([[0, 1, 2, 3, 4], 'counted']);
    const from = performance.now();
    for await (const event of channel.stream('spin', 60_000)) {
      expect(event).toBe('on');
      break;
    }
    // The thread is free again: it saw the stop although it read no message.
    expect(await channel.call('double', 4)).toBe(8);
    expect(since(from)).toBeLessThan(5000);
  });

  it('the thread sees whether its caller has done what follows from what it told', async () => {
    const ms = 100;
    const [told, busy] = await channel.call('heard', null, {
      onEvent: () => {
        for (const end = performance.now() + ms; performance.now() < end; ) performance.now();
      },
    });
    expect(told).toBe(true);
    expect(busy).toBeGreaterThan(ms - 5);
    // What cannot be sent was not told.
    await expect(channel.call('odd', null)).rejects.toThrow('could not be cloned');
    expect((await channel.call('heard', null))[1]).toBeLessThan(2000);
  });

  it('memory that is handed over is gone here', async () => {
    const bytes = new Uint8Array(8);
    await channel.call('double', bytes as never, { transfer: [bytes.buffer] });
    expect(bytes.byteLength).toBe(0);
  });
  it('errors come as the class they were, and what cannot be sent is an error too', async () => {
    await expect(channel.call('fail', null)).rejects.toMatchObject({
      name: 'DataError',
      code: 'bad_row',
      details: { line: 2 },
    });
    await expect(channel.call('odd', null)).rejects.toThrow(/could not be cloned/);
    const stream = channel.stream('fail', null);
    await expect(stream.next()).rejects.toMatchObject({ code: 'bad_row' });
  });

  it('an abort rejects at once with its reason, and stops the work behind it', async () => {
    for (const name of ['spin', 'deaf'] as const) {
      const stop = new AbortController(),
        free = flag();
      let after = false;
      const call = channel.call(name, (name === 'deaf' ? free : 60_000) as never, {
        signal: stop.signal,
        onEvent: () => stop.abort(new DOMException('enough', 'AbortError')),
      });
      // The thread answers this when it has done with that.
      const next = channel.call('double', 1).then((two) => {
        after = true;
        return two;
      });
      await expect(call).rejects.toThrow('enough');
      if (name === 'deaf') expect(after).toBe(false);
      Atomics.store(free, 0, 1);
      expect(await next).toBe(2);
    }
    const aborted = AbortSignal.abort();
    await expect(channel.call('double', 1, { signal: aborted })).rejects.toHaveProperty('name', 'AbortError');
    await expect(channel.stream('count', 1, aborted).next()).rejects.toHaveProperty('name', 'AbortError');
  });

  it('a call that waits settles with what the work makes of the stop', async () => {
    const stop = new AbortController();
    const result = await channel.call('wait', null, { signal: stop.signal, waits: true, onEvent: () => stop.abort() });
    expect(result).toBe('stopped as asked');
  });
});

it('what the other end refuses is thrown where it is opened', async () => {
  await expect(open({ refuse: true })).rejects.toMatchObject({ name: 'DataError', code: 'bad_row' });
  await expect(openChannel('nowhere/worker.js', null, { name: 'test' })).rejects.toMatchObject({
    code: 'worker_missing',
  });
  const stop = new AbortController(),
    slow = flag();
  const opening = open({ slow }, stop.signal);
  setTimeout(() => stop.abort(), 100);
  await expect(opening).rejects.toHaveProperty('name', 'AbortError'); // while the thread is busy
  Atomics.store(slow, 0, 1);
});

it('a thread that dies fails what was under way with a typed error, and refuses what comes after', async () => {
  const channel = await open();
  const waiting = channel.call('wait', null);
  const crash = channel.call('crash', null);
  await expect(crash).rejects.toMatchObject({ name: 'NativeError', code: 'worker_exit', details: { code: 7 } });
  await expect(waiting).rejects.toMatchObject({ code: 'worker_exit' });
  await expect(channel.call('double', 1)).rejects.toMatchObject({ code: 'worker_exit' });
  await channel.close();
});

it('closing ends calls under way, twice is once', async () => {
  const channel = await open();
  const waiting = channel.call('wait', null);
  const closed = channel.close();
  expect(channel.close()).toBe(closed);
  await expect(waiting).rejects.toHaveProperty('name', 'AbortError');
  await closed;
  await expect(channel.call('double', 1)).rejects.toMatchObject({ code: 'engine_closed' });
});

describe('one call in a thread of its own', () => {
  it('gives result and events', async () => {
    const events: number[] = [];
    expect(await runInThread<Calls, 'count'>(entry, 'count', 3, { onEvent: (e) => events.push(e) })).toBe('counted');
    expect(events).toEqual([0, 1, 2]);
    await expect(runInThread<Calls, 'fail'>(entry, 'fail', null)).rejects.toMatchObject({ code: 'bad_row' });
  });

  it('has ended when an abort rejects; a thread that does not listen is ended by force', async () => {
    for (const [name, graceMs] of [
      ['spin', 20_000],
      ['deaf', 300],
    ] as const) {
      const stop = new AbortController();
      let from = 0;
      const call = runInThread<Calls, 'spin' | 'deaf'>(entry, name, (name === 'deaf' ? flag() : 60_000) as never, {
        signal: stop.signal,
        graceMs,
        onEvent() {
          from = performance.now();
          stop.abort(new DOMException('enough', 'AbortError'));
        },
      });
      await expect(call).rejects.toThrow('enough');
      expect(since(from)).toBeLessThan(10_000); // by itself it would take 20 s, or for ever
    }
  });

  it('does not hold up its caller', async () => {
    const free = flag();
    const call = runInThread<Calls, 'deaf'>(entry, 'deaf', free, {
      onEvent: () => setTimeout(() => Atomics.store(free, 0, 1), 50), // never, if it did
    });
    expect(await call).toBe('done');
  });

  it.each([
    [
      'throws',
      (): void => {
        throw new Error('mine');
      },
    ],
    [
      'returns a promise that rejects',
      async (): Promise<void> => {
        throw new Error('mine');
      },
    ],
  ] as const)(
    'a callback that %s rejects the call, in time also where the thread does not listen',
    async (_, onEvent) => {
      const from = performance.now();
      for (const waits of [false, true])
        await expect(runInThread<Calls, 'wait'>(entry, 'wait', null, { onEvent, waits })).rejects.toThrow('mine');
      const deaf = { onEvent, graceMs: 200 };
      await expect(runInThread<Calls, 'count'>(entry, 'count', 100_000, deaf)).rejects.toThrow('mine');
      expect(since(from)).toBeLessThan(8000);
    },
  );
});
