// How llama.cpp's server is started, asked and ended: with a stand-in that can do each of it wrong.
import { chmodSync, copyFileSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { type LlamaServer, llamaProgram, startLlamaServer } from '../../src/export/gguf/llama-server.js';

const program = join(dirname(fileURLToPath(import.meta.url)), 'llama-stand-in.mjs');
const V = 12;
const start = (mode: string, signal?: AbortSignal): Promise<LlamaServer> => {
  process.env.LLAMA_STAND_IN = mode;
  return startLlamaServer({ program, model: 'x.gguf', lora: 'y.gguf', maxTokens: 8, vocabSize: V, signal });
};
afterEach(() => {
  delete process.env.LLAMA_STAND_IN;
});

describe("llama.cpp's server", () => {
  it('gives the log-probability of every token, in order of ids', async () => {
    const server = await start('good');
    try {
      expect(server.version).toBe('b1-standin');
      const got = await server.logProbabilities([1, 2, 5]);
      expect(got.length).toBe(V);
      expect([...got].reduce((a, x) => a + Math.exp(x), 0)).toBeCloseTo(1, 12);
      const logits = Array.from({ length: V }, (_, i) => ((i * 7 + 9 + 5) % 13) / 4);
      expect([...got].map((x) => x - (got[0] ?? 0))).toEqual(
        logits.map((x) => expect.closeTo(x - (logits[0] ?? 0), 9) as number),
      );
    } finally {
      await server.close();
    }
  });
  it('that answers something else is a typed error, and goes on', async () => {
    const faults: readonly RegExp[] = [
      /no JSON/,
      /status 400: .*context too small/,
      /no completion_probabilities/,
      /answers for 6 tokens of 12; none for 6/,
      /answers for token 12, the model has 0…11/,
      /answers for token 0 twice/,
      /log-probability of token 1 is null/,
      /log-probability of token 1 is 5/,
    ];
    const server = await start('good');
    for (const [i, message] of faults.entries())
      await expect(server.logProbabilities([100 + i, 2])).rejects.toMatchObject({
        code: 'consumer_failed',
        message: expect.stringMatching(message) as string,
      });
    // A probability of 0 is no fault.
    expect((await server.logProbabilities([100 + faults.length]))[1]).toBe(-Infinity);
    await server.close();
  });
  it('that ends when it is asked: how it ended', async () => {
    const server = await start('crash');
    await expect(server.logProbabilities([1, 2])).rejects.toMatchObject({
      code: 'consumer_failed',
      message: expect.stringContaining('ended with code 3') as string,
    });
    await server.close();
  });
  it('that cannot load the model: its own words', async () => {
    await expect(start('no model')).rejects.toMatchObject({
      code: 'consumer_failed',
      message: expect.stringContaining("ended with code 1, its last words: error: failed to load model 'x'") as string,
    });
  });
  it('that knows no token for a character is an error', async () => {
    await expect(start('no token')).rejects.toMatchObject({
      code: 'consumer_failed',
      message: expect.stringContaining('answered /tokenize') as string,
    });
  });
  it('is ended where the caller no longer waits, while it loads and while it is asked', async () => {
    const stop = new AbortController();
    const loading = start('loading', stop.signal);
    setTimeout(() => stop.abort(new Error('enough')), 300);
    await expect(loading).rejects.toThrow('enough');
    const late = new AbortController(),
      server = await start('silent', late.signal);
    setTimeout(() => late.abort(new Error('enough')), 100);
    await expect(server.logProbabilities([1])).rejects.toThrow('enough');
    await server.close();
  });
  it('that does not end when it is told to is killed', async () => {
    const server = await start('stays');
    await server.close();
    await expect(server.logProbabilities([1])).rejects.toMatchObject({ code: 'consumer_failed' });
  });
  it('that is not there, or is no program, is refused before anything is made', async () => {
    expect(() => llamaProgram(join(tmpdir(), 'nowhere'))).toThrow(/not there/);
    const folder = mkdtempSync(join(tmpdir(), 'temper-llama-'));
    expect(() => llamaProgram(folder)).toThrow(/llama-server/);
    copyFileSync(program, join(folder, 'llama-server'));
    expect(llamaProgram(folder)).toBe(join(folder, 'llama-server'));
    chmodSync(join(folder, 'llama-server'), 0o644);
    await expect(startLlamaServer({ program: folder, model: 'x', maxTokens: 8, vocabSize: V })).rejects.toMatchObject({
      code: 'consumer_failed',
      message: expect.stringContaining('cannot be run') as string,
    });
  });
});
