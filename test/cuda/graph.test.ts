// Decode steps that are recorded once and launched give the bits of steps run op by op, whatever else the device does between them.
import { afterAll, describe, expect, it } from 'vitest';
import './emulated.js';
import { DecodeSteps } from '../../src/model/decode-step.js';
import { type Completion, generateAll, GREEDY, type SequenceOptions, Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { KvCache } from '../../src/model/kv-cache.js';
import type { Batch } from '../../src/model/types.js';
import { deviceMemory, openDevice } from '../../src/native/device.js';
import { Graph } from '../../src/native/graph.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from '../infer/tiny.js';

const { dir } = await tinyCheckpoint();
openDevice('cuda');
const model = openCheckpoint(dir, { place: 'cuda' }), hostEmbedding = openCheckpoint(dir, { place: 'cuda', embed: 'cpu' });
afterAll(() => { model.close(); hostEmbedding.close(); });

const requests: SequenceOptions[] = [9, 3, 21, 5].map((n, i) => ({
  tokens: prompt(n), maxTokens: 4 + 2 * i, stop: new Set<number>(), sampling: i % 2 ? { ...GREEDY, temperature: 0.8, topK: 20, topP: 0.95, seed: 7 + i } : GREEDY,
}));
const generate = (graphs: boolean, of = model): readonly Completion[] => {
  using session = new Session(of, { precision: 'bf16', slots: 3, capacity: 200, graphs });
  return generateAll(session, requests);
};

describe('recorded decode steps', () => {
  it('give the bits of steps run op by op', () => {
    const plain = generate(false);
    expect(plain.map((c) => c.tokens.length)).toEqual([4, 6, 8, 10]);
    expect(generate(true)).toEqual(plain);
  });
  it('with the embedding table on the host too', () => { expect(generate(true, hostEmbedding)).toEqual(generate(false)); });

  it('keep their memory for themselves and give it back', () => {
    const before = deviceMemory().totalLive;
    using cache = new KvCache(model.config, 2, 64, 'cuda');
    const after = deviceMemory().totalLive;
    const step = (at: number): Batch => ({ tokens: Int32Array.of(5 + at, 9), positions: Int32Array.of(at, at), starts: Int32Array.of(0, 1, 2) });
    const params = new Float32Array(8), u = new Float32Array(2);
    const run = (steps: DecodeSteps, disturb: boolean): number[] => {
      const out: number[] = [];
      for (const slot of [0, 1]) cache.reset(slot);
      for (let at = 0; at < 8; at++) {
        const { tokens, logprobs } = steps.run(null, step(at), params, u);
        out.push(...tokens, ...logprobs);
        if (!disturb) continue;
        using s = new Scope('workspace', 'cuda'); // whatever is free is overwritten
        for (let i = 1; i <= 64; i++) ops.fill(s.empty('f32', [i * 97]), NaN);
      }
      return out;
    };
    using plain = new DecodeSteps(model, cache, 'bf16', false);
    const want = run(plain, false);
    using recorded = new DecodeSteps(model, cache, 'bf16', true);
    expect(run(recorded, true)).toEqual(want);
    recorded.close();
    plain.close();
    expect(deviceMemory().totalLive).toBe(after);
    expect(after).toBeGreaterThan(before);
  });

  it('refuse what a recording cannot hold, and leave the device usable', () => {
    using s = new Scope('workspace', 'cuda');
    const x = s.from(Float32Array.of(1, 2, 3));
    expect(() => Graph.record(() => { x.read(); })).toThrow(/recorded/);
    expect(() => Graph.record(() => { x.write(Float32Array.of(4, 5, 6)); })).toThrow(/recorded/);
    expect(() => Graph.record(() => { Graph.record(() => {}); })).toThrow(/under way/);
    using doubled = Graph.record(() => ops.add(x, s2));
    expect([...x.toFloat32()]).toEqual([1, 2, 3]);
    doubled.launch();
    doubled.launch();
    expect([...x.toFloat32()]).toEqual([21, 42, 63]);
  });
  const outer = new Scope('workspace', 'cuda');
  const s2 = outer.from(Float32Array.of(10, 20, 30));
  afterAll(() => outer.close());
});
