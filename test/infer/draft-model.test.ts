// A model that guesses for another: the other's answers stay, to the bit; one that sees all alike is always right.
import { cpSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { dryServing } from '../../src/infer/plan.js';
import { Runner } from '../../src/infer/runner.js';
import { GREEDY, type Sampled, type Sampling, type SequenceOptions } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import type { SessionOptions } from '../../src/infer/session-options.js';
import { MOST_DRAFTS } from '../../src/infer/speculation.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';
import type { ModelWeights } from '../../src/model/types.js';
import { memoryStats, resetPeaks } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, root } = await tinyCheckpoint();
const model = openCheckpoint(dir);
const other = join(root, 'other');
await initCheckpoint(other, { ...PRESETS.nano, num_hidden_layers: 2 }, { seed: 4 });
const small = openCheckpoint(other);
afterAll(() => {
  small.close();
  model.close();
});

const requests = (): SequenceOptions[] =>
  ([{}, { temperature: 1, seed: 5 }, { temperature: 0.6, topP: 0.8, seed: 6 }, {}] as Partial<Sampling>[]).map(
    (sampling, i) => ({
      tokens: prompt(12 + 40 * i, i),
      maxTokens: 20 + i,
      stop: new Set<number>(),
      sampling: { ...GREEDY, ...sampling },
    }),
  );
function run(draft: ModelWeights | null, options: Partial<SessionOptions> = {}) {
  using session = new Session(model, {
    precision: 'bf16',
    slots: 3,
    capacity: 256,
    draft,
    speculation: draft ? { when: 'always' } : null,
    ...options,
  });
  const asked = requests(),
    sequences = asked.map((r) => session.start(r)),
    answers = asked.map((): Omit<Sampled, 'sequence'>[] => []);
  let steps = 0;
  for (; !session.idle; steps++)
    for (const { sequence, ...told } of session.step()) answers[sequences.indexOf(sequence)]!.push(told);
  return { answers, steps, usage: session.usage };
}

describe('a draft model', () => {
  const plain = run(null);
  it('that is the model itself is right at all tokens, sampled ones too', () => {
    const { answers, usage } = run(model);
    expect(answers).toEqual(plain.answers);
    expect(usage.acceptedTokens).toBe(usage.draftedTokens);
    expect(usage.acceptedTokens).toBeGreaterThan(40);
    const alone = run(model, { slots: 1 });
    expect(alone.answers).toEqual(plain.answers);
    expect(alone.steps).toBeLessThan(run(null, { slots: 1 }).steps / 2);
  });
  it('that knows nothing changes nothing, with little room in its cache and without', () => {
    for (const options of [{}, { cacheTokens: 256 }, { slots: 1, graphs: false }, { kvDtype: 'bf16' as const }]) {
      const { answers, usage } = run(small, options);
      expect(answers).toEqual(options.kvDtype ? run(null, options).answers : plain.answers);
      expect(usage.draftedTokens).toBeGreaterThan(20);
      expect(usage).toMatchObject({ usedPages: 0, running: 0 });
    }
  });
  it('reads long texts in pieces, and what others ended in the middle of', () => {
    using session = new Session(model, {
      precision: 'bf16',
      slots: 2,
      capacity: 700,
      draft: model,
      speculation: { when: 'always' },
    });
    const ask = (length: number, maxTokens: number): SequenceOptions => ({
      tokens: prompt(length),
      maxTokens,
      stop: new Set(),
      sampling: GREEDY,
    });
    const first = session.start(ask(600, 60)),
      second = session.start(ask(500, 40));
    const told: number[] = [];
    for (let step = 0; !session.idle; step++) {
      if (step === 6) session.cancel(first);
      if (step === 7) session.start(ask(300, 30));
      for (const { sequence, token } of session.step()) if (sequence === second) told.push(token);
    }
    using alone = new Session(model, { precision: 'bf16', slots: 1, capacity: 700 });
    alone.start(ask(500, 40));
    const wanted: number[] = [];
    while (!alone.idle) for (const { token } of alone.step()) wanted.push(token);
    expect(told).toEqual(wanted);
    expect(session.usage.acceptedTokens).toBeGreaterThan(MOST_DRAFTS);
    expect(session.usage.acceptedTokens).toBe(session.usage.draftedTokens);
  });
});

describe('opening one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'temper-draft-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const nano = join(packageRoot, 'models', 'nano');

  it('refuses another vocabulary, and a draft without guesses', async () => {
    const foreign = join(folder, 'foreign');
    await initCheckpoint(foreign, { ...PRESETS.nano, vocab_size: 1088 }, { seed: 1 });
    cpSync(join(nano, 'tokenizer.json'), join(foreign, 'tokenizer.json'));
    const live = memoryStats().totalLive;
    for (const [options, code] of [
      [{ draft: foreign }, 'draft_vocabulary'],
      [{ draft: join(folder, 'none') }, expect.any(String) as string],
      [{ draft: nano, speculation: 'off' as const }, 'bad_option'],
    ] as const)
      await expect(Runner.open({ model: nano, contextTokens: 256, ...options })).rejects.toMatchObject({ code });
    expect(memoryStats().totalLive).toBe(live);
  });
  it('a shipped model guesses for another', async () => {
    const ask = async (draft: boolean): Promise<unknown> => {
      using runner = await Runner.open({
        model: nano,
        contextTokens: 256,
        speculation: 'always',
        ...(draft ? { draft: join(packageRoot, 'models', 'nano-judge') } : {}),
      });
      const done = await runner.handlers.generate(
        { messages: [{ role: 'user', content: 'Book a table' }], maxTokens: 40, sampling: { seed: 2 } },
        { signal: new AbortController().signal, emit: () => {} } as never,
      );
      const { usage: _, ...rest } = done;
      return rest;
    };
    expect(await ask(true)).toEqual(await ask(false));
  });

  it('is counted by the plan', () => {
    const options = { context: 600, sequences: 3, speculation: true } as const;
    const without = dryServing(dir, options),
      plan = dryServing(dir, { ...options, draft: other });
    expect(plan.mappedBytes).toBeGreaterThan(without.mappedBytes);
    expect(plan.peakBytes.kv).toBeGreaterThan(without.peakBytes.kv);
    for (const [planned, draft] of [
      [without, null],
      [plan, small],
    ] as const) {
      resetPeaks();
      const before = memoryStats();
      {
        using session = new Session(model, {
          precision: 'bf16',
          slots: 3,
          capacity: 600,
          draft,
          speculation: { when: 'always' },
        });
        session.commitCache();
        const tokens = Int32Array.from({ length: 560 }, (_, i) => 20 + (i % 5));
        for (let i = 0; i < 3; i++) session.start({ tokens, maxTokens: 32, stop: new Set(), sampling: GREEDY });
        while (!session.idle) session.step();
      }
      const { peak, totalPeak } = memoryStats();
      expect(planned.peakBytes.kv).toBe(peak.kv - before.live.kv);
      expect(Math.abs(planned.totalPeakBytes / (totalPeak - before.totalLive) - 1)).toBeLessThan(0.1);
    }
  });
});
