// Attention and head in 8 bits: close to bf16, refused in training, counted, cached only for the weights it was made
// from.
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel } from '../../src/infer/load.js';
import { DENSE_CACHE, digestCheckpoint, openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients, scoreTokens } from '../../src/model/gpt-oss.js';
import { initCheckpoint } from '../../src/model/init.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { cacheDigests, cachedDense, quantizeDense } from '../../src/model/q8.js';
import type { ModelWeights } from '../../src/model/types.js';
import { HOST } from '../../src/native/backends.js';
import { memoryStats, Scope, type Tensor } from '../../src/native/tensor.js';
import { pack, relativeError } from './golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-q8-'));
const dir = join(root, 'model');
beforeAll(async () => {
  await initCheckpoint(dir, 'nano', { seed: 3 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const text = Int32Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 1000);
function lastLogits(model: ModelWeights): Float32Array {
  using s = new Scope();
  return logits(s, model, forwardHidden(s, model, null, pack([[...text]]), { precision: 'f32' }), 'f32').toFloat32();
}
const bits = (half: number): number => new Float32Array(Uint32Array.of(half << 16).buffer)[0] as number;
function decoded(q: Tensor, scales: Tensor): Float32Array {
  const bytes = new Int8Array((q.read() as Uint8Array).buffer),
    scale = scales.read() as Uint16Array;
  return Float32Array.from(bytes, (x, i) => x * bits(scale[i >> 5] as number));
}

/** The same model with its 8-bit weights written out in f32. */
function widened(s: Scope, model: ModelWeights): ModelWeights {
  const wide = (q: Tensor, scales: Tensor | undefined): Tensor => s.from(decoded(q, scales as Tensor), q.shape);
  return {
    config: model.config,
    embed: model.embed,
    norm: model.norm,
    head: wide(model.head, model.headScales),
    close() {},
    layers: model.layers.map((l) => ({
      ...l,
      ...Object.fromEntries(
        (['q', 'k', 'v', 'o'] as const).map((n) => [n, { w: wide(l[n].w, l[n].scales), bias: l[n].bias }]),
      ),
    })),
  };
}

describe('quantizeDense', () => {
  it('puts q, k, v, o and head in 8 bits, each weight within half a step, and leaves the rest', () => {
    const base = openCheckpoint(dir),
      model = quantizeDense(base);
    try {
      expect(model.embed).toBe(base.embed);
      expect(model.layers[0]?.router).toBe(base.layers[0]?.router);
      for (const name of ['q', 'k', 'v', 'o'] as const) {
        const of = model.layers[1]?.[name],
          exact = base.layers[1]?.[name].w.read() as Uint16Array;
        if (!of?.scales) throw new Error(`${name} has no scales`);
        const scale = of.scales.read() as Uint16Array;
        decoded(of.w, of.scales).forEach((x, i) => {
          if (Math.abs(x - bits(exact[i] as number)) > 0.5001 * bits(scale[i >> 5] as number))
            throw new Error(`${name}[${i}]: ${x}, wanted ${bits(exact[i] as number)}`);
        });
      }
      expect(model.head.dtype).toBe('u8');
    } finally {
      model.close();
    }
  });

  it('computes what the same weights, decoded to f32, compute', () => {
    const model = quantizeDense(openCheckpoint(dir));
    using s = new Scope();
    const exact = widened(s, model);
    const got = lastLogits(model),
      want = lastLogits(exact);
    expect(relativeError(got, want)).toBeLessThan(1e-5);
    const base = openCheckpoint(dir);
    const off = relativeError(got, lastLogits(base));
    expect(off).toBeGreaterThan(1e-4);
    expect(off).toBeLessThan(0.05);
    base.close();
    model.close();
  });

  it('counts its bytes as weights and gives them back', () => {
    const before = memoryStats().live.weights;
    const model = quantizeDense(openCheckpoint(dir), { offload: null });
    const of = [
      model.head,
      model.headScales,
      ...model.layers.flatMap((l) => [l.q, l.k, l.v, l.o].flatMap((w) => [w.w, w.scales])),
    ];
    const bytes = of.reduce((sum, t) => sum + (t?.bytes ?? 0), 0);
    expect(memoryStats().live.weights - before).toBeGreaterThanOrEqual(bytes);
    model.close();
    model.close();
    expect(memoryStats().live.weights).toBe(before);
  });

  it('lies in a file without a name where it is told to, to the same bits, and counts apart', () => {
    const memory = quantizeDense(openCheckpoint(dir), { offload: null }),
      want = lastLogits(memory);
    memory.close();
    const before = memoryStats();
    const model = quantizeDense(openCheckpoint(dir), { offload: tmpdir() });
    expect(lastLogits(model)).toEqual(want);
    expect(memoryStats().live.weights).toBe(before.live.weights);
    expect(memoryStats().offloaded - before.offloaded).toBeGreaterThanOrEqual(
      model.head.bytes + (model.headScales?.bytes ?? 0),
    );
    model.close();
    expect(memoryStats().offloaded).toBe(before.offloaded);
    using base = openCheckpoint(dir);
    expect(() => quantizeDense(base, { offload: join(root, 'there-is-no-such-folder') })).toThrow(
      expect.objectContaining({ code: 'offload_unwritable' }),
    );
  });

  it('scores with and without a cache alike, and refuses to train', () => {
    const model = quantizeDense(openCheckpoint(dir));
    using cache = new KvCache(model.config, 1, text.length);
    const a = scoreTokens(model, null, text, { precision: 'f32' }),
      b = scoreTokens(model, null, text, { precision: 'f32', cache });
    expect(a.length).toBe(text.length - 1);
    expect(relativeError(a, b)).toBeLessThan(1e-5);
    const all = lastLogits(model),
      V = model.config.vocab_size;
    const row = all.subarray(20 * V, 21 * V),
      peak = Math.max(...row);
    expect(a[20]).toBeCloseTo(
      (row[text[21] as number] as number) - peak - Math.log(row.reduce((sum, x) => sum + Math.exp(x - peak), 0)),
      4,
    );
    const targets = { rows: Int32Array.of(0), targets: Int32Array.of(1), weights: Float32Array.of(1) };
    for (const gradients of [true, false]) {
      expect(() =>
        lossAndGradients(model, null, pack([[1, 2]]), targets, { precision: 'f32', seed: 0, grads: null, gradients }),
      ).toThrow(expect.objectContaining({ code: 'q8_training' }));
    }
    model.close();
  });

  it('adds LoRA pairs', () => {
    const model = quantizeDense(openCheckpoint(dir));
    using s = new Scope();
    const D = model.config.hidden_size,
      N = model.layers[0]?.q.w.rows ?? 0;
    const some = (shape: number[]): Tensor =>
      s.from(
        Float32Array.from({ length: (shape[0] ?? 0) * (shape[1] ?? 0) }, (_, i) => Math.sin(i)),
        shape,
      );
    const adapter = {
      layers: model.layers.map(() => ({
        q: { A: some([4, D]), B: some([N, 4]), scale: 0.5, dropout: 0, dA: null, dB: null },
      })),
    };
    const run = (m: ModelWeights, a: typeof adapter | null): Float32Array => {
      using t = new Scope();
      return forwardHidden(t, m, a, pack([[...text]]), { precision: 'f32' }).toFloat32();
    };
    const got = run(model, adapter);
    expect(relativeError(got, run(model, null))).toBeGreaterThan(0.02);
    expect(relativeError(got, run(widened(s, model), adapter))).toBeLessThan(1e-5);
    model.close();
  });

  it('refuses inputs that are no multiple of 32', () => {
    const base = openCheckpoint(dir);
    using s = new Scope();
    expect(() => quantizeDense({ ...base, head: s.zeros('bf16', [10, 40]) })).toThrow(
      expect.objectContaining({ code: 'q8_shape' }),
    );
    base.close();
  });
});

describe('cachedDense', () => {
  const copy = (name: string): string => {
    const to = join(root, name);
    cpSync(dir, to, { recursive: true });
    return to;
  };
  const close = (m: ModelWeights): void => m.close();
  const inode = (at: string): number => statSync(join(at, DENSE_CACHE)).ino;

  it(
    'gives the bits of quantizeDense, mapped: nothing counted; is written once; leaves the ' + 'digest as it was',
    async () => {
      const at = copy('cached'),
        digest = await digestCheckpoint(at);
      const made = quantizeDense(openCheckpoint(at)),
        want = lastLogits(made);
      made.close();
      const before = memoryStats().live.weights;
      const first = cachedDense(openCheckpoint(at), await cacheDigests(at));
      expect(memoryStats().live.weights).toBe(before);
      expect(lastLogits(first)).toEqual(want);
      first.close();
      const file = inode(at);
      const second = loadModel({ model: at, denseDtype: 'q8' }, HOST, await cacheDigests(at));
      expect(inode(at)).toBe(file);
      expect(lastLogits(second.model)).toEqual(want);
      second.close();
      expect(await digestCheckpoint(at)).toBe(digest);
    },
  );

  it('makes it anew when the weights changed, when it is damaged, when it is of something else', async () => {
    const at = copy('stale'),
      path = join(at, DENSE_CACHE);
    close(cachedDense(openCheckpoint(at), await cacheDigests(at)));
    const weights = join(at, 'model.safetensors'),
      bytes = readFileSync(weights),
      old = inode(at);
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1;
    writeFileSync(weights, bytes);
    utimesSync(weights, new Date(1e12), new Date(1e12));
    close(cachedDense(openCheckpoint(at), await cacheDigests(at)));
    expect(inode(at)).not.toBe(old);
    for (const damage of [Buffer.alloc(0), readFileSync(path).subarray(0, 5000), readFileSync(weights)]) {
      writeFileSync(path, damage);
      const model = cachedDense(openCheckpoint(at), await cacheDigests(at));
      expect(readFileSync(path).equals(damage)).toBe(false);
      expect(model.head.dtype).toBe('u8');
      model.close();
    }
    expect(existsSync(path)).toBe(true);
  });

  it(
    'is never used with bytes or weights that are not those it was made of and from, whatever ' + 'sizes and times say',
    async () => {
      const at = copy('foreign'),
        path = join(at, DENSE_CACHE),
        weights = join(at, 'model.safetensors');
      close(cachedDense(openCheckpoint(at), await cacheDigests(at)));
      const want = lastLogits(quantizeDense(openCheckpoint(at)));
      const good = readFileSync(path),
        { atime, mtime } = statSync(path);
      for (const place of [good.length - 1, good.length >> 1, good.length - (good.length >> 2)]) {
        const bad = Buffer.from(good);
        bad[place] = (bad[place] ?? 0) ^ 64;
        writeFileSync(path, bad);
        utimesSync(path, atime, mtime);
        const model = cachedDense(openCheckpoint(at), await cacheDigests(at));
        expect(lastLogits(model)).toEqual(want);
        model.close();
        expect(readFileSync(path).equals(good)).toBe(true);
      }
      // Other weights under the same name, of the same size and time.
      const before = statSync(weights),
        bytes = readFileSync(weights);
      bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 64;
      writeFileSync(weights, bytes);
      utimesSync(weights, before.atime, before.mtime);
      const model = cachedDense(openCheckpoint(at), await cacheDigests(at));
      expect(lastLogits(model)).not.toEqual(want);
      expect(readFileSync(path).equals(good)).toBe(false);
      model.close();
      // A cache of elsewhere without its sum, and one whose sum is another's.
      writeFileSync(path, good);
      expect((await cacheDigests(at)).cache).toBeNull();
      rmSync(join(at, 'dense-q8.sha256'));
      expect((await cacheDigests(at)).cache).toBeNull();
    },
  );
});
