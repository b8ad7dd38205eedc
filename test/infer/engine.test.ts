// The engine over its real worker thread (compiled code in dist/).

import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CheckpointError, ConfigError } from '../../src/base/errors.js';
import { toConversation } from '../../src/harmony/chat.js';
import { renderPrompt, stopTokens } from '../../src/harmony/render.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { openEngine } from '../../src/infer/engine.js';
import { generateAll } from '../../src/infer/generate-all.js';
import type { EngineEvent, GenerateRequest } from '../../src/infer/protocol.js';
import { DEFAULT_SAMPLING } from '../../src/infer/request.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { scoreTokens } from '../../src/model/gpt-oss.js';
import { PRESETS } from '../../src/model/init.js';
import { held } from '../held.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const { dir, root, config } = await tinyCheckpoint();
const { messages } = toConversation({ messages: [{ role: 'user', content: 'Book a table for 4, please' }] });
const model = openCheckpoint(dir);
const tokenizer = loadTokenizer(dir, { vocabSize: config.vocab_size });

// A B that is not zero, so that the adapter changes the answer.
const adapterDir = join(root, 'adapter');
const adapter = createAdapter(
  config,
  adapterSpec(config, { rank: 2, alpha: 64, targets: ['attention', 'experts'], rsLora: false, dropout: 0 }),
  { seed: 3 },
);
adapter.params.write(adapter.params.toFloat32().map((x, i) => x || Math.sin(i) * 0.2));
await writePeft(adapter, adapterDir, { baseModel: 'nano' });

const engine = await openEngine({ model: dir, adapters: { desk: adapterDir }, precision: 'f32', contextTokens: 512 });
afterAll(async () => {
  await engine.close();
  adapter.close();
  tokenizer.close();
  model.close();
});

type Done = Extract<EngineEvent, { kind: 'done' }>;
async function finish(
  request: GenerateRequest,
  signal?: AbortSignal,
): Promise<{ done: Done; text: Map<string, string>; events: number }> {
  const text = new Map<string, string>();
  let events = 0;
  for await (const event of engine.generate(request, signal)) {
    events++;
    if (event.kind === 'done') return { done: event, text, events };
    text.set(event.channel, (text.get(event.channel) ?? '') + event.text);
  }
  throw new Error('no done event');
}
function here(request: GenerateRequest, withAdapter = false): number[] {
  using session = new Session(model, { precision: 'f32', slots: 1, capacity: 512 });
  const [out] = generateAll(session, [
    {
      tokens: renderPrompt({ messages: request.messages }, tokenizer),
      maxTokens: request.maxTokens ?? 0,
      stop: new Set(stopTokens(tokenizer)),
      sampling: { ...GREEDY, ...request.sampling },
      adapter: withAdapter ? adapter.model : null,
    },
  ]);
  return [...(out?.tokens ?? [])];
}

describe('Engine', () => {
  it('says what it holds', () => {
    expect(engine.info).toMatchObject({
      contextTokens: 512,
      vocabSize: PRESETS.nano.vocab_size,
      layers: 4,
      adapters: ['desk'],
    });
  });

  it(
    'samples what the session samples on this thread, and the text of the messages is the ' + 'text that streamed',
    async () => {
      const request = { messages, maxTokens: 60, sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 4 } };
      const { done, text } = await finish(request);
      expect([...done.tokens]).toEqual(here(request));
      expect(done.logprobs).toHaveLength(done.tokens.length);
      expect(done.usage).toMatchObject({
        promptTokens: renderPrompt({ messages }, tokenizer).length,
        completionTokens: done.tokens.length,
      });
      expect([...text.values()].join('').length).toBe(done.messages.map((m) => m.content).join('').length);
    },
  );

  it('serves several requests and adapters at once, each as if alone', async () => {
    const requests: GenerateRequest[] = Array.from({ length: 6 }, (_, i) => ({
      messages: toConversation({ messages: [{ role: 'user', content: `Book ${'a boat '.repeat(i)}` }] }).messages,
      maxTokens: 12 + i,
      sampling: { temperature: 1, seed: i, topK: 0, topP: 1, minP: 0 },
      ...(i % 2 ? { adapter: 'desk' } : {}),
    }));
    const answers = await Promise.all(requests.map((r) => finish(r)));
    for (const [i, request] of requests.entries())
      expect([...(answers[i]?.done.tokens ?? [])]).toEqual(here(request, i % 2 === 1));
    expect(here({ ...requests[1], messages: requests[1]?.messages ?? [] }, false)).not.toEqual(
      here({ ...requests[1], messages: requests[1]?.messages ?? [] }, true),
    );
  });

  it('loads, replaces and unloads adapters while requests run: each keeps what it began with', async () => {
    const other = createAdapter(config, adapter.spec, { seed: 8 }),
      otherDir = join(root, 'other');
    other.params.write(other.params.toFloat32().map((x, i) => x || Math.cos(i) * 0.2));
    await writePeft(other, otherDir, { baseModel: 'nano' });
    other.close();
    const request: GenerateRequest = {
      messages,
      maxTokens: 150,
      adapter: 'guest',
      sampling: { temperature: 1, seed: 21 },
    };
    const texts = async (): Promise<number[]> => [...(await finish(request)).done.tokens];
    const info = await engine.loadAdapter('guest', adapterDir);
    expect(info).toMatchObject({ name: 'guest', folder: adapterDir, pairs: 4 * 6 });
    expect(info.digest).toMatch(/^[0-9a-f]{64}$/);
    expect((await engine.adapters()).map((a) => a.name)).toEqual(['desk', 'guest']);
    expect((await engine.adapters())[0]).toMatchObject({ digest: info.digest, bytes: info.bytes });
    const first = await texts();
    expect(first).toEqual(here({ ...request, sampling: { ...DEFAULT_SAMPLING, seed: 21 } }, true));

    // Under way when the name is given to another, taken away, and given again.
    const running = [texts(), texts()];
    const replaced = engine.loadAdapter('guest', otherDir);
    await replaced;
    const second = await texts();
    expect(second).not.toEqual(first);
    const last = texts();
    await engine.unloadAdapter('guest');
    await expect(texts()).rejects.toMatchObject({ code: 'adapter_unknown' });
    await expect(engine.unloadAdapter('guest')).rejects.toMatchObject({ code: 'adapter_unknown' });
    expect(await Promise.all(running)).toEqual([first, first]);
    expect(await last).toEqual(second);
    expect((await engine.loadAdapter('guest', otherDir)).digest).not.toBe(info.digest);
    expect(await texts()).toEqual(second);

    // A load that fails changes nothing.
    await expect(engine.loadAdapter('guest', join(root, 'none'))).rejects.toMatchObject({ code: 'adapter_missing' });
    expect(await texts()).toEqual(second);
    // The last of two loads of a name is the one that was asked for last.
    await Promise.all([engine.loadAdapter('guest', otherDir), engine.loadAdapter('guest', adapterDir)]);
    expect(await texts()).toEqual(first);
    await engine.unloadAdapter('guest');
  });

  it('two engines side by side do not disturb each other', async () => {
    const other = await openEngine({ model: dir, precision: 'f32', contextTokens: 512 });
    try {
      const request = { messages, maxTokens: 80, sampling: { temperature: 1, seed: 12, topK: 0, topP: 1, minP: 0 } };
      const there = (async () => {
        for await (const event of other.generate(request)) if (event.kind === 'done') return [...event.tokens];
        return [];
      })();
      const [a, b] = await Promise.all([finish(request), there]);
      expect([...a.done.tokens]).toEqual(b);
      expect(b).toEqual(here(request));
    } finally {
      await other.close();
    }
  });

  it('scores with the bits of this thread', async () => {
    const tokens = prompt(80);
    expect(await engine.score({ tokens })).toEqual(scoreTokens(model, null, tokens, { precision: 'f32' }));
    expect(await engine.score({ tokens, adapter: 'desk' })).toEqual(
      scoreTokens(model, adapter.model, tokens, { precision: 'f32' }),
    );
  });

  it('has a digest that stays', async () => {
    expect(await engine.digest()).toMatch(/^[0-9a-f]{64}$/);
    expect(await engine.digest()).toBe(await engine.digest());
  });

  it('typed errors of a request travel, and the engine goes on', async () => {
    const failing = async (request: Partial<GenerateRequest>): Promise<unknown> =>
      finish({ messages, maxTokens: 2, ...request }).catch((e: unknown) => e);
    const unknown = await failing({ adapter: 'none' });
    expect(unknown).toBeInstanceOf(ConfigError);
    expect(unknown).toMatchObject({ code: 'adapter_unknown', exitCode: 2 });
    expect(await failing({ sampling: { topP: 0 } })).toMatchObject({ code: 'sampling_range' });
    expect(await failing({ sampling: { seed: -1 } })).toMatchObject({ code: 'sampling_range' });
    expect(await failing({ messages: [{ role: 'user', content: 'x '.repeat(2000) }] })).toMatchObject({
      code: 'prompt_too_long',
      details: { context: 512 },
    });
    await expect(engine.score({ tokens: Int32Array.of(1, 99999) })).rejects.toMatchObject({ code: 'token_range' });
    expect((await finish({ messages, maxTokens: 2 })).done.tokens.length).toBeGreaterThan(0);
  });

  it('stops when aborted and when the reader leaves, and the slots are free again', async () => {
    await expect(finish({ messages, maxTokens: 400 }, AbortSignal.abort())).rejects.toMatchObject({
      name: 'AbortError',
    });
    for (let i = 0; i < 12; i++) {
      const stop = new AbortController();
      let seen = 0;
      const run = (async () => {
        for await (const event of engine.generate(
          { messages, maxTokens: 400, sampling: { temperature: 1, seed: i } },
          stop.signal,
        )) {
          if (event.kind === 'done') return;
          if (++seen === 2) {
            if (i % 2) stop.abort();
            else return;
          }
        }
      })();
      if (i % 2) await run.catch((e: unknown) => expect(e).toMatchObject({ name: 'AbortError' }));
      else await run;
    }
    expect((await finish({ messages, maxTokens: 3 })).done.tokens.length).toBeGreaterThan(0);
  });

  it('never holds up the main thread for 20 ms', async () => {
    const long = toConversation({ messages: [{ role: 'user', content: 'please book it '.repeat(60) }] }).messages;
    const measure = async (work: () => Promise<unknown>): Promise<number> => (await held(work)).longest;
    // The measurement sees a main thread that is held up.
    expect(
      await measure(async () => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        const from = process.cpuUsage().user;
        while (process.cpuUsage().user - from < 60_000);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }),
    ).toBeGreaterThan(40);
    // A busy machine makes all of it slower; that is not the engine's doing, hence the best of several rounds.
    let best = Infinity;
    for (let round = 0; round < 30 && best >= 20; round++) {
      best = Math.min(
        best,
        await measure(() =>
          Promise.all(
            Array.from({ length: 4 }, (_, i) =>
              finish({ messages: long, maxTokens: 40, sampling: { temperature: 1, seed: i } }),
            ),
          ),
        ),
      );
    }
    console.log(`longest hold of the main thread: ${best.toFixed(1)} ms`);
    expect(best).toBeLessThan(20);
  });
});

describe('opening and closing', () => {
  it('errors of loading travel', async () => {
    const missing = await openEngine({ model: join(root, 'none') }).catch((e: unknown) => e);
    expect(missing).toBeInstanceOf(CheckpointError);
    await expect(openEngine({ model: dir, adapters: { a: join(root, 'none') } })).rejects.toBeInstanceOf(
      CheckpointError,
    );
    await expect(openEngine({ model: dir, contextTokens: 10 ** 6 })).rejects.toMatchObject({
      code: 'context_too_long',
    });
  });
  it('closing ends what runs, twice is once, later requests are refused', async () => {
    const other = await openEngine({ model: dir });
    const running = (async () => {
      for await (const event of other.generate({ messages, maxTokens: 1000, sampling: { temperature: 1, seed: 1 } }))
        if (event.kind === 'done') return 'done';
      return 'ended';
    })().catch((e: unknown) => e);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await Promise.all([other.close(), other.close()]);
    const result = await running;
    if (result !== 'done') expect(result).toMatchObject({ name: 'AbortError' });
    await expect(other.score({ tokens: prompt(3) })).rejects.toMatchObject({ code: 'engine_closed' });
  });
});
