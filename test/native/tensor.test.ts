// Tensors: what is alive, what is counted, and that a handle which is stale, foreign or invented is an error and never
// a crash.
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { NativeError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { addon } from '../../src/native/addon.js';
import { ops } from '../../src/native/ops.js';
import {
  getThreads,
  memoryStats,
  resetPeaks,
  Scope,
  setThreads,
  type Tensor,
  useAtMost,
} from '../../src/native/tensor.js';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (e) {
    expect(e).toBeInstanceOf(NativeError);
    return (e as NativeError).code;
  }
  return 'no error';
};

describe('lifecycle', () => {
  it('holds what is written, in every dtype, from no to four dimensions', () => {
    using s = new Scope();
    expect([...s.from(Float32Array.of(1.5, -2)).read()]).toEqual([1.5, -2]);
    expect([...s.from(Int32Array.of(-7, 2 ** 31 - 1), [2, 1]).read()]).toEqual([-7, 2 ** 31 - 1]);
    expect([...s.from(Uint8Array.of(0, 255), [1, 1, 1, 2]).read()]).toEqual([0, 255]);
    expect([...s.empty('bf16', [2]).write(Uint16Array.of(0x3f80, 0x7fc0)).read()]).toEqual([0x3f80, 0x7fc0]);
    expect([...s.from(Float32Array.of(3), []).read()]).toEqual([3]);
    expect([...s.zeros('f32', [3]).read()]).toEqual([0, 0, 0]);
    expect(s.empty('f32', [0, 7]).read().length).toBe(0);
  });
  it('a closed scope frees its tensors; closing twice does nothing; using one afterwards is stale_tensor', () => {
    const s = new Scope();
    const t = s.from(Float32Array.of(1, 2));
    const before = addon.tensorCount();
    s.close();
    s.close();
    expect(addon.tensorCount()).toBe(before - 1);
    expect(codeOf(() => t.read())).toBe('stale_tensor');
    expect(codeOf(() => s.empty('f32', [1]))).toBe('scope_closed');
    expect(addon.tensorCount()).toBe(before - 1);
  });
  it('a slot used again does not revive an old handle', () => {
    const old = new Scope();
    const t = old.from(Float32Array.of(1));
    old.close();
    using s = new Scope();
    for (let i = 0; i < 100; i++) s.from(Float32Array.of(2));
    expect(codeOf(() => t.read())).toBe('stale_tensor');
    expect(codeOf(() => addon.free(t.handle))).toBe('stale_tensor');
  });
  it('views share memory and die with their base; freeing them afterwards is fine', () => {
    const base = new Scope();
    const views = new Scope();
    const t = base.from(Float32Array.of(0, 1, 2, 3, 4, 5), [3, 2]);
    const v = t.slice(views, 1, 3);
    const w = v.view(views, [2], 1);
    expect([...v.read()]).toEqual([2, 3, 4, 5]);
    w.write(Float32Array.of(-1, -2));
    expect([...t.read()]).toEqual([0, 1, 2, -1, -2, 5]);
    expect(codeOf(() => t.view(views, [4], 3))).toBe('shape_mismatch');
    expect(codeOf(() => t.view(views, [2, 2, 2]))).toBe('shape_mismatch');
    base.close();
    expect(codeOf(() => v.read())).toBe('stale_tensor');
    expect(codeOf(() => v.slice(views, 0, 1))).toBe('stale_tensor');
    views.close();
  });
  it('refuses data of another size or element, shapes that are none, and memory no machine has', () => {
    using s = new Scope();
    const t = s.empty('f32', [2]);
    expect(codeOf(() => t.write(Float32Array.of(1)))).toBe('shape_mismatch');
    expect(codeOf(() => t.write(Uint16Array.of(1, 2, 3, 4)))).toBe('shape_mismatch');
    expect(codeOf(() => addon.read(t.handle, new Float64Array(1)))).toBe('shape_mismatch');
    expect(codeOf(() => addon.read(t.handle, 'x' as unknown as Float32Array))).toBe('bad_argument');
    for (const shape of [[-1], [1.5], [NaN], [1, 1, 1, 1, 1], ['2'], 7] as unknown as number[][])
      expect(
        codeOf(() => addon.alloc(0, shape, 0, 0)),
        String(shape),
      ).toBe('bad_argument');
    expect(codeOf(() => addon.alloc(4, [1], 0, 0))).toBe('bad_dtype');
    expect(codeOf(() => addon.alloc(0, [1], 6, 0))).toBe('bad_argument');
    for (const shape of [[2 ** 52], [2 ** 30, 2 ** 30], [2 ** 26, 2 ** 26, 2 ** 26, 2 ** 26], [0, 2 ** 53]])
      expect(
        codeOf(() => addon.alloc(0, shape, 0, 0)),
        String(shape),
      ).toBe('out_of_memory');
  });
});

describe('reserved tensors', () => {
  it('are zeros, count what is committed, and nothing once they are gone', () => {
    const before = memoryStats();
    const s = new Scope('kv');
    const t = s.reserved('f32', [2 ** 28, 16]); // 16 GiB of addresses
    expect(memoryStats().totalLive).toBe(before.totalLive);
    expect([...t.slice(s, 2 ** 28 - 1, 2 ** 28).toFloat32()]).toEqual(Array<number>(16).fill(0));
    t.commit(1000);
    t.commit(10); // never less
    expect(memoryStats().live.kv - before.live.kv).toBe(64000);
    t.slice(s, 999, 1000).write(new Float32Array(16).fill(3));
    expect(t.slice(s, 999, 1000).toFloat32()[15]).toBe(3);
    expect(codeOf(() => t.commit(2 ** 28 + 1))).toBe('bad_argument');
    expect(codeOf(() => s.empty('f32', [4]).commit(4))).toBe('bad_argument');
    expect(codeOf(() => s.reserved('f32', [2 ** 26, 2 ** 26]))).toBe('out_of_memory');
    s.close();
    expect(memoryStats().live).toEqual(before.live);
    expect(codeOf(() => t.commit(1))).toBe('stale_tensor');
  });
});

describe('invented handles', () => {
  it('every number that is no open handle is an error', () => {
    using s = new Scope();
    const t = s.from(Float32Array.of(1));
    const forged = [
      -1,
      0.5,
      1,
      2 ** 24,
      t.handle + 1,
      t.handle + 2 ** 24,
      t.handle - 2 ** 24,
      2 ** 53,
      1e300,
      -0.1,
      NaN,
      Infinity,
      -Infinity,
    ];
    for (const h of forged) {
      for (const run of [
        () => addon.read(h, new Float32Array(1)),
        () => addon.free(h),
        () => addon.view(h, 0, [1]),
        () => addon.zero(h),
        () => ops.add(t, { handle: h } as Tensor),
      ])
        expect(codeOf(run), `${h}`).toBe('stale_tensor');
    }
    expect(codeOf(() => addon.read(0, new Float32Array(1)))).toBe('stale_tensor');
    expect(codeOf(() => ops.add(t, { handle: 0 } as Tensor))).toBe('missing_tensor');
    expect([...t.read()]).toEqual([1]);
  });
  it('100,000 random numbers as handles and op ids', () => {
    using s = new Scope();
    const t = s.from(Float32Array.of(1));
    let seed = 1;
    const random = (): number => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    };
    for (let i = 0; i < 100_000; i++) {
      const h = t.handle + Math.floor((random() - 0.5) * 2 ** Math.floor(random() * 50));
      if (h !== t.handle) expect(codeOf(() => addon.read(h, new Float32Array(1)))).toMatch(/^stale_tensor$/);
    }
    for (const id of [-1, addon.opNames.length, 1e9, 0.5, NaN]) expect(() => addon.call(id)).toThrow();
  });
});

describe('memory is counted', () => {
  it('by category, live and peak, and returns to where it was', () => {
    const before = memoryStats();
    const s = new Scope('kv');
    s.empty('f32', [1000]);
    s.empty('bf16', [500], 'adapter');
    const during = memoryStats();
    expect(during.live.kv - before.live.kv).toBe(4000);
    expect(during.live.adapter - before.live.adapter).toBe(1000);
    expect(during.totalLive - before.totalLive).toBe(5000);
    s.close();
    expect(memoryStats().totalLive).toBe(before.totalLive);
    expect(memoryStats().peak.kv).toBeGreaterThanOrEqual(before.live.kv + 4000);
    resetPeaks();
    expect(memoryStats().peak.kv).toBe(before.live.kv);
  });
  it('kept blocks never make the process larger than its peak, and are given back on request', () => {
    for (let round = 0; round < 20; round++) {
      using s = new Scope();
      for (let i = 1; i < 20; i++) s.empty('f32', [i * 5000 * (round + 1)]);
    }
    const m = memoryStats();
    expect(m.cached).toBeGreaterThan(0);
    expect(m.cached + m.totalLive).toBeLessThan(1.2 * 190 * 5000 * 20 * 4);
    addon.releaseCached();
    expect(memoryStats().cached).toBe(0);
  });
  it('a little is kept at the peak too', () => {
    addon.releaseCached();
    const large = new Scope();
    large.empty('f32', [2 ** 19]);
    large.close();
    const { cached } = memoryStats();
    expect(cached).toBeGreaterThanOrEqual(2 ** 21);
    // No page of a large block makes a small one, so that live and kept together are more than was ever live.
    using small = new Scope();
    for (let i = 0; i < 4; i++) small.empty('f32', [2 ** 17]);
    expect(memoryStats().cached).toBe(cached);
  });
});

describe('threads of the pool', () => {
  it('can be set from 1 to 1024', () => {
    const was = getThreads();
    setThreads(3);
    expect(getThreads()).toBe(3);
    setThreads(was);
    for (const n of [0, -1, 1025, 1.5, NaN]) expect(codeOf(() => setThreads(n))).toBe('bad_argument');
  });
});

it('a thread that computes alone takes nothing of the pool', async () => {
  const was = getThreads();
  setThreads(3);
  const threads = await inWorker<number[]>(
    '(a, _, tell) => { const all = a.useAtMost(1); tell([a.getThreads(), a.useAtMost(all), a.getThreads()]); }',
    null,
  );
  expect([...threads, getThreads()]).toEqual([1, 1, 3, 3]);
  setThreads(was);
});
it('a thread takes as many as it says at most, until it says otherwise', () => {
  const was = getThreads();
  setThreads(3);
  const before = useAtMost(2);
  expect(getThreads()).toBe(2);
  expect(useAtMost(8)).toBe(2);
  expect(getThreads()).toBe(3);
  for (const n of [0, -1, 1025, 1.5, NaN]) expect(codeOf(() => useAtMost(n))).toBe('bad_argument');
  useAtMost(before);
  setThreads(was);
});

/** Runs `body` in a worker thread, with `addon` (its own instance) and `data`; what it posts comes back. */
function inWorker<T>(body: string, data: unknown): Promise<T> {
  const code = `const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(${JSON.stringify(join(packageRoot, 'build', 'temper.node'))});
    (${body})(addon, workerData, (x) => parentPort.postMessage(x));`;
  return new Promise((done, fail) => {
    let result: T;
    new Worker(code, { eval: true, workerData: data })
      .on('message', (m: T) => {
        result = m;
      })
      .on('error', fail)
      .on('exit', (c) => (c === 0 ? done(result) : fail(new Error(`worker ended with ${c}`))));
  });
}

describe('worker threads', () => {
  it('share tensors by handle', async () => {
    using s = new Scope();
    const t = s.from(Float32Array.of(1, 2));
    await inWorker('(a, h) => a.write(h, Float32Array.of(5, 6))', t.handle);
    expect([...t.read()]).toEqual([5, 6]);
  });
  it('what a worker leaves open is freed with it, also when it is terminated', async () => {
    const before = { tensors: addon.tensorCount(), bytes: memoryStats().totalLive };
    await inWorker('(a) => { for (let i = 0; i < 50; i++) a.alloc(0, [1000], 3, 0); }', null);
    expect(addon.tensorCount()).toBe(before.tensors);
    const worker = new Worker(
      `const a = require(${JSON.stringify(join(packageRoot, 'build', 'temper.node'))});
      for (let i = 0; i < 50; i++) a.alloc(0, [1000], 3, 0);
      require('node:worker_threads').parentPort.postMessage(1);
      setInterval(() => {}, 1000);`,
      { eval: true },
    );
    await new Promise((r) => worker.once('message', r));
    expect(addon.tensorCount()).toBe(before.tensors + 50);
    await worker.terminate();
    expect(addon.tensorCount()).toBe(before.tensors);
    expect(memoryStats().totalLive).toBe(before.bytes);
  });
  it('its recordings too, ended and under way', async () => {
    const before = memoryStats().totalLive;
    const held = await inWorker<boolean>(
      `(a, _, post) => {
      const from = a.memoryStats()[12]; // all that is live
      for (const ends of [true, false]) { a.beginGraph(0, 0); a.alloc(0, [1000], 3, 0); if (ends) a.endGraph(0); }
      post(a.memoryStats()[12] === from + 8000);
    }`,
      null,
    );
    expect(held).toBe(true);
    expect(memoryStats().totalLive).toBe(before);
  });
  it('each has its own arguments: four threads call ops at once and get their own sums', async () => {
    const body = `(a, k, post) => {
      const add = a.opNames.indexOf('add');
      const x = a.alloc(0, [64], 3, 0), y = a.alloc(0, [64], 3, 0), out = new Float32Array(64);
      a.write(y, out); a.write(x, out.map(() => k));
      for (let i = 0; i < 20000; i++) { a.args[0] = y; a.args[1] = x; a.call(add); }
      a.read(y, out); post(out.every((v) => v === 20000 * k));
    }`;
    expect(await Promise.all([1, 2, 3, 4].map((k) => inWorker<boolean>(body, k)))).toEqual([true, true, true, true]);
  });
  it('a tensor freed by one thread while another computes with it is an error there, not a crash', async () => {
    const s = new Scope();
    const t = s.zeros('f32', [1 << 18]),
      calls = new Int32Array(new SharedArrayBuffer(4));
    const running = inWorker<string>(
      `(a, [h, calls], post) => {
      const op = a.opNames.indexOf('sum_squares'), out = a.alloc(0, [1], 3, 0);
      try { for (;;) { a.args[0] = out; a.args[1] = h; a.call(op); calls[0]++; } } catch (e) { post(e.code); }
    }`,
      [t.handle, calls],
    );
    await expect.poll(() => Atomics.load(calls, 0), { interval: 1, timeout: 20_000 }).toBeGreaterThan(3);
    s.close();
    expect(await running).toBe('stale_tensor');
  });
});
