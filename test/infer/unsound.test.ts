// An adapter whose sums are no numbers any more: who asks it gets an error, and nobody beside it notices.
import { afterAll, expect, it } from 'vitest';
import { GREEDY, type Sequence, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import { createSteer } from '../../src/infer/steer.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { LoraPool, type Resident } from '../../src/lora/pool.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { HOST } from '../../src/native/backends.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const model = openCheckpoint(dir),
  pool = new LoraPool(config, HOST, () => {}, true);
afterAll(() => {
  pool.close();
  model.close();
});
function resident(value: (i: number) => number): Resident {
  return pool.add((storage) => {
    const choice = { rank: 2, alpha: 32, targets: ['attention' as const], rsLora: false, dropout: 0 };
    const adapter = createAdapter(config, adapterSpec(config, choice), { storage });
    adapter.params.write(Float32Array.from({ length: adapter.params.numel }, (_, i) => value(i)));
    return adapter;
  });
}
const sound = resident((i) => Math.sin(i) * 0.15),
  turned = resident((i) => Math.cos(i) * 0.15);
function poison({ adapter: { params } }: Resident): void {
  params.write(new Float32Array(params.numel).fill(Number.MAX_VALUE));
}

const steered = (tokens: number): SequenceOptions['steer'] =>
  createSteer({ special: {}, isSpecial: () => false } as never, { bias: new Map([[tokens, 2]]), top: 2, plain: true });
const asked = (i: number): SequenceOptions => ({
  tokens: prompt(12 + 17 * i, i),
  maxTokens: 14,
  stop: new Set(),
  sampling: i % 2 === 0 ? GREEDY : { ...GREEDY, temperature: 1, topP: 0.95, seed: i },
  adapter: [null, sound, turned][i % 3] ?? null,
  steer: i % 4 === 1 ? (steered(i) ?? null) : null,
});
/** @param at step before which the third adapter's numbers grow beyond all bounds */
function run(asks: readonly SequenceOptions[], options: Partial<SessionOptions>, at = Number.POSITIVE_INFINITY) {
  using session = new Session(model, { precision: 'f32', capacity: 160, slots: asks.length, ...options });
  const failed = new Map<Sequence, unknown>(),
    out = new Map<Sequence, string[]>();
  session.failed = (sequence, error) => failed.set(sequence, error);
  const all = asks.map((ask) => session.start(ask));
  for (let step = 0; !session.idle; step++) {
    if (step === at) poison(turned);
    for (const { sequence, token, logprob } of session.step())
      out.set(sequence, [...(out.get(sequence) ?? []), `${token} ${logprob}`]);
  }
  expect(session.usage).toMatchObject({ running: 0, usedPages: 0, freeSlots: asks.length });
  return all.map((s) => ({ bits: (out.get(s) ?? []).join(), error: failed.get(s) }));
}

it.each<[string, Partial<SessionOptions>]>([
  ['recorded steps', {}],
  ['steps op by op', { graphs: false }],
  ['guesses beside them', { speculation: { when: 'always' }, draft: model }],
])('others have the bits that they have without it: %s', (_, options) => {
  const asks = Array.from({ length: 9 }, (_v, i) => asked(i));
  const healthy = turned.adapter.params.toFloat32();
  const want = asks.map((_a, i) => run([asked(i)], {})[0]);
  expect(want.map((w) => w?.error)).toEqual(asks.map(() => undefined));
  // While prompts are read together, when streams have just begun, and after steps were recorded.
  for (const at of [0, 2, 7]) {
    turned.adapter.params.write(healthy);
    const got = run(
      asks.map((_a, i) => asked(i)),
      options,
      at,
    );
    for (const [i, { bits, error }] of got.entries()) {
      const whole = want[i]?.bits ?? '';
      if (i % 3 !== 2) expect({ bits, error }).toEqual({ bits: whole, error: undefined });
      else {
        expect(error).toMatchObject({ code: 'bad_logits' });
        expect(whole.startsWith(bits) && bits.length < whole.length).toBe(true);
      }
    }
  }
  turned.adapter.params.write(healthy);
  expect(run([asked(2)], options)[0]?.bits).toBe(want[2]?.bits);
});
it('without anybody to tell, the step throws', () => {
  const healthy = turned.adapter.params.toFloat32();
  poison(turned);
  using session = new Session(model, { precision: 'f32', capacity: 160, slots: 2 });
  session.start(asked(2));
  expect(() => session.step()).toThrow(expect.objectContaining({ code: 'bad_logits' }));
  turned.adapter.params.write(healthy);
});
