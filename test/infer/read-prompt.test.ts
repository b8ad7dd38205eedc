// What a model made of a prompt's own tokens: the numbers of `score`, token by token, while others' streams go on.
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { openEngine } from '../../src/infer/engine.js';

const model = join(packageRoot, 'models', 'nano');
const engine = await openEngine({ model, contextTokens: 512 });
const tokenizer = loadTokenizer(model, { vocabSize: engine.info.vocabSize });
afterAll(async () => {
  tokenizer.close();
  await engine.close();
});
const text = 'Ticket 12: the printer on floor 3 says "paper jam", and there is no paper in it. '.repeat(4);

it('has the log-probabilities that scoring has, over more than one piece, and the most probable tokens', async () => {
  const tokens = Int32Array.from(tokenizer.encode(text));
  expect(tokens.length).toBeGreaterThan(130);
  const [scored, read] = [await engine.score({ tokens }), await engine.read({ prompt: tokens, top: 2 })];
  expect([read.text, read.count, read.tokens.length]).toEqual([text, tokens.length, tokens.length]);
  expect(read.tokens[0]).toMatchObject({ logprob: Number.NaN, top: [] });
  for (const [i, t] of read.tokens.entries()) {
    expect([i, t.token, Buffer.from(t.bytes)]).toEqual([i, tokens[i], Buffer.from(tokenizer.bytes(tokens[i]!))]);
    if (i === 0) continue;
    // Pieces cut the sums of a pass elsewhere, and rounding to bf16 may fall to the other side: one part in 2^7.
    expect(Math.abs(t.logprob - scored[i - 1]!)).toBeLessThan(2 ** -6 * (1 + Math.abs(scored[i - 1]!)));
    expect(t.top.length).toBe(2);
    expect(t.top[0]!.logprob).toBeGreaterThanOrEqual(t.top[1]!.logprob);
    expect(t.top[0]!.logprob).toBeGreaterThanOrEqual(tokenizer.isSpecial(t.token) ? -Infinity : t.logprob);
  }
});
it('several at once, beside a stream, stopped, and of tokens that there are not', async () => {
  const events = engine.generate({ messages: [{ role: 'user', content: 'hi' }], maxTokens: 40 });
  const written = (async () => {
    let n = 0;
    for await (const _ of events) n++;
    return n;
  })();
  const stop = new AbortController();
  const stopped = engine.read({ prompt: text, top: 0 }, stop.signal);
  const refused = expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
  stop.abort();
  const [one, two] = await Promise.all([
    engine.read({ prompt: 'a b c', top: 0 }),
    engine.read({ prompt: 'a b c', top: 0 }),
  ]);
  expect(one.tokens.slice(1)).toEqual(two.tokens.slice(1));
  await refused;
  expect(await written).toBeGreaterThan(1);
  await expect(engine.read({ prompt: Int32Array.of(999_999), top: null })).rejects.toMatchObject({
    code: 'token_range',
  });
  const long = new Int32Array(513).fill(65);
  await expect(engine.read({ prompt: long, top: 1 })).rejects.toMatchObject({ code: 'prompt_too_long' });
  expect(await engine.read({ prompt: '', top: 1 })).toEqual({ text: '', count: 0, tokens: [] });
});
