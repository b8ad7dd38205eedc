// /v1/completions: several prompts, several answers, the prompt given back, the best of some.
import { describe, expect, it } from 'vitest';
import type { GenerateRequest } from '../../src/infer/protocol.js';
import { merged } from '../../src/serve/choices.js';
import { CompletionShape } from '../../src/serve/wire-completions.js';
import { scriptedApp, scriptedEngine, tokenizer } from './scripted.js';

type Json = Record<string, unknown>;
const PATH = '/v1/completions';
/** Says its prompt again, and which of the answers it is by how far its seed is from the first. */
const echoing = () => {
  const seeds: number[] = [];
  const { engine, requests } = scriptedEngine(({ prompt, sampling }: GenerateRequest) => {
    const seed = sampling?.seed ?? 0;
    if (!seeds.includes(seed)) seeds.push(seed);
    const said = typeof prompt === 'string' ? prompt : tokenizer.decode(prompt ?? []);
    return [...tokenizer.encode(`${said}${seeds.indexOf(seed)}`), tokenizer.special['<|return|>']!];
  });
  return { app: scriptedApp(engine), requests };
};
const texts = (body: Json): readonly unknown[] => CompletionShape.parse(body).choices.map((c) => c.text);

describe('prompts', () => {
  it('are answered in their order, each so many times, texts and lists of tokens alike', async () => {
    const { app } = echoing();
    expect(texts(await app.json(PATH, { model: 'm', prompt: ['a', 'b'], n: 2, seed: 5 }))).toEqual([
      'a0',
      'a1',
      'b0',
      'b1',
    ]);
    const tokens = ['c', 'de'].map((t) => [...tokenizer.encode(t)]);
    const body = CompletionShape.parse(await app.json(PATH, { model: 'm', prompt: tokens, seed: 5 }));
    expect(body.choices.map((c) => [c.index, c.text, c.finish_reason])).toEqual([
      [0, 'c0', 'stop'],
      [1, 'de0', 'stop'],
    ]);
    // A prompt is counted once, whatever its answers.
    expect(body.usage?.prompt_tokens).toBe(14);
    expect((await app.json(PATH, { model: 'm', prompt: 'a', n: 3 })).usage).toMatchObject({ prompt_tokens: 7 });
  });
  it('more than may run at once wait for each other, and none is turned away', async () => {
    const { app } = echoing();
    const prompt = Array.from({ length: 40 }, (_, i) => `p${i}-`);
    expect(texts(await app.json(PATH, { model: 'm', prompt, seed: 1 }))).toEqual(prompt.map((p) => `${p}0`));
    expect(app.admission.running).toBe(0);
  });
  it('a stream is what is given whole, by index', async () => {
    const { app } = echoing();
    const body = { model: 'm', prompt: ['a', 'b', 'c'], n: 2, seed: 5, echo: true, logprobs: 0 };
    const whole = CompletionShape.parse(await app.json(PATH, body));
    const events = await app.events(PATH, { ...body, stream_options: { include_usage: true } });
    expect(events.at(-1)).toEqual({ type: '[DONE]' });
    const pieces = events.slice(0, -1).map((e) => CompletionShape.parse(e));
    for (const choice of whole.choices) {
      const own = pieces.flatMap((p) => p.choices).filter((c) => c.index === choice.index);
      expect(own.map((c) => c.text).join('')).toBe(choice.text);
      expect(own.flatMap((c) => c.logprobs?.tokens ?? []).join('')).toContain(choice.text.slice(0, 1));
      expect(own.at(-1)?.finish_reason).toBe('stop');
    }
    expect(pieces.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
  });
});

it('of several answers that are there none waits for the end of another', async () => {
  async function* three(): AsyncGenerator<number, void, void> {
    yield* [1, 2, 3];
  }
  const order: number[] = [];
  for await (const { from } of merged([three(), three(), three()])) order.push(from);
  expect(order).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2]);
});

describe('the prompt', () => {
  it('comes before what is written, with its log-probabilities, or by itself', async () => {
    const { app, requests } = echoing();
    const tokens = [...tokenizer.encode('All roads')];
    const body = { model: 'm', prompt: tokens, echo: true, max_tokens: 0, logprobs: 1 };
    const { choices, usage } = CompletionShape.parse(await app.json(PATH, body));
    expect(choices[0]).toMatchObject({ text: 'All roads', finish_reason: 'length' });
    const { logprobs } = choices[0]!;
    expect(logprobs?.tokens.join('')).toBe('All roads');
    expect(logprobs?.token_logprobs).toEqual(tokens.map((t, i) => (i === 0 ? null : -(t % 7) - 1)));
    expect(logprobs?.top_logprobs[0]).toBe(null);
    expect(logprobs?.text_offset[0]).toBe(0);
    expect(usage).toMatchObject({ prompt_tokens: tokens.length, completion_tokens: 0 });
    expect(requests).toEqual([]);
    expect(texts(await app.json(PATH, { model: 'm', prompt: 'x', echo: true, seed: 1 }))).toEqual(['xx0']);
  });
  it('by itself is counted, and is of a model that is there', async () => {
    const { app } = echoing();
    const body = { model: 'm', prompt: 'All roads', echo: true, max_tokens: 0 };
    const { choices, usage } = CompletionShape.parse(await app.json(PATH, body));
    expect(choices[0]).toMatchObject({ text: 'All roads', logprobs: null });
    expect(usage).toMatchObject({ prompt_tokens: tokenizer.encode('All roads').length, completion_tokens: 0 });
    expect((await app.post(PATH, { ...body, model: 'none' })).status).toBe(404);
  });
});

describe('the best of some', () => {
  it('are those of the highest mean log-probability', async () => {
    const seeds: number[] = [];
    const words = ['a', 'bb', 'c d', 'eee'];
    const mean = (text: string): number => {
      const tokens = [...tokenizer.encode(text), tokenizer.special['<|return|>']!];
      return tokens.reduce((n, t) => n - (t % 7) - 1, 0) / tokens.length;
    };
    const { engine, requests } = scriptedEngine(({ sampling }) => {
      seeds.push(sampling?.seed ?? 0);
      return [...tokenizer.encode(words[seeds.length - 1]!), tokenizer.special['<|return|>']!];
    });
    const app = scriptedApp(engine);
    const body = await app.json(PATH, { model: 'm', prompt: 'p', n: 2, best_of: 4 });
    expect(texts(body)).toEqual(words.toSorted((a, b) => mean(b) - mean(a)).slice(0, 2));
    expect(new Set(seeds).size).toBe(4);
    expect(requests.every((r) => r.topLogprobs === 0)).toBe(true);
    // Nobody asked for them.
    expect(CompletionShape.parse(body).choices.map((c) => c.logprobs)).toEqual([null, null]);
  });
});
