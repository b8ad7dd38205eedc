// Decode steps that are recorded once and launched give the bits of steps run op by op, whatever else happens between
// them: the same on every place.
import { afterAll, describe, expect, it } from 'vitest';
import { type Completion, generateAll } from '../../src/infer/generate-all.js';
import { GREEDY, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { DecodeSteps } from '../../src/model/decode-step.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { type Batch, type ModelWeights, placeOf } from '../../src/model/types.js';
import { deviceMemory } from '../../src/native/device.js';
import { Graph } from '../../src/native/graph.js';
import { ops } from '../../src/native/ops.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { prompt } from './tiny.js';

const requests: SequenceOptions[] = [9, 3, 21, 5].map((n, i) => ({
  tokens: prompt(n),
  maxTokens: 4 + 2 * i,
  stop: new Set<number>(),
  sampling: i % 2 ? { ...GREEDY, temperature: 0.8, topK: 20, topP: 0.95, seed: 7 + i } : GREEDY,
}));
const generate = (model: ModelWeights, graphs: boolean): readonly Completion[] => {
  using session = new Session(model, { precision: 'bf16', slots: 3, capacity: 200, graphs });
  return generateAll(session, requests);
};
export const step = (at: number, B = 2): Batch => ({
  tokens: Int32Array.from({ length: B }, (_, b) => 5 + at + 4 * b),
  positions: new Int32Array(B).fill(at),
  starts: Int32Array.from({ length: B + 1 }, (_, b) => b),
});

export function recordedSteps(models: Readonly<Record<string, ModelWeights>>): void {
  const model = Object.values(models)[0] as ModelWeights,
    place = placeOf(model);
  const live = (): number => (place === 'cpu' ? memoryStats() : deviceMemory()).totalLive;

  describe('recorded decode steps', () => {
    it.each(Object.keys(models))('give the bits of steps run op by op: %s', (name) => {
      const plain = generate(models[name] as ModelWeights, false);
      expect(plain.map((c) => c.tokens.length)).toEqual([4, 6, 8, 10]);
      expect(generate(models[name] as ModelWeights, true)).toEqual(plain);
    });

    it('keep their memory for themselves and give it back', () => {
      const before = live();
      using cache = new KvCache(model.config, 2, 64, place);
      cache.commitAll();
      const after = live();
      const params = new Float32Array(8),
        u = new Float32Array(2);
      const run = (steps: DecodeSteps, disturb: boolean): number[] => {
        const out: number[] = [];
        for (const slot of [0, 1]) cache.reset(slot);
        for (let at = 0; at < 8; at++) {
          const { tokens, logprobs } = steps.run(null, step(at), { params, u });
          out.push(...tokens, ...logprobs);
          if (!disturb) continue;
          using s = new Scope('workspace', place); // whatever is free is overwritten
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
      expect(live()).toBe(after);
      expect(after).toBeGreaterThan(before);
    });

    const outer = new Scope('workspace', place);
    afterAll(() => outer.close());
    it('refuse what a recording cannot hold, and leave the place usable', () => {
      using s = new Scope('workspace', place);
      const x = s.from(Float32Array.of(1, 2, 3)),
        y = outer.from(Float32Array.of(10, 20, 30));
      expect(() =>
        Graph.record(() => {
          x.read();
        }, place),
      ).toThrow(/recorded/);
      expect(() =>
        Graph.record(() => {
          x.write(Float32Array.of(4, 5, 6));
        }, place),
      ).toThrow(/recorded/);
      expect(() =>
        Graph.record(() => {
          Graph.record(() => {}, place);
        }, place),
      ).toThrow(/under way/);
      using doubled = Graph.record(() => ops.add(x, y), place);
      expect([...x.toFloat32()]).toEqual([1, 2, 3]);
      doubled.launch();
      doubled.launch();
      expect([...x.toFloat32()]).toEqual([21, 42, 63]);
    });
  });
}
