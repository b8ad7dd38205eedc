// Servers that come one after the other, or stand side by side, over one folder of openings.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { serve, type TemperServer } from '../../src/serve/server.js';
import { NANO, oddAdapter } from './odd-adapter.js';

const root = mkdtempSync(join(tmpdir(), 'serve-prefixes-'));
afterAll(() => rmSync(root, { recursive: true }));
const folder = join(root, 'openings'),
  odd = await oddAdapter(join(root, 'adapter'), 1, 2);

const open = (on: string | null): Promise<TemperServer> =>
  serve({
    engine: {
      model: NANO,
      threads: 1,
      device: 'cpu',
      contextTokens: 512,
      slots: 4,
      prefixes: 4,
      adapters: { odd },
      ...(on === null ? {} : { prefixCache: { folder: on, bytes: 1e8 } }),
    },
    port: 0,
    log: () => {},
  });
interface Answer {
  readonly text: unknown;
  readonly cached: number;
}
async function ask({ url }: TemperServer, model: string, content: string): Promise<Answer> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model,
      messages: [
        {
          role: 'system',
          content: 'You keep the tables of a small restaurant by the sea, and you like short answers.',
        },
        { role: 'user', content },
      ],
      max_completion_tokens: 12,
      temperature: 1,
      seed: 3,
    }),
  });
  const json = (await response.json()) as {
    readonly choices: readonly { readonly message: unknown }[];
    readonly usage: { readonly prompt_tokens_details?: { readonly cached_tokens?: number } };
  };
  return { text: json.choices[0]?.message, cached: json.usage.prompt_tokens_details?.cached_tokens ?? 0 };
}

it('go on from what the other computed, with the bits of computing it', async () => {
  const plain = await open(null);
  const expected = [await ask(plain, 'nano', 'For two?'), await ask(plain, 'odd', 'For two?')];
  await plain.close();
  const first = await open(folder),
    beside = await open(folder);
  for (const model of ['nano', 'odd']) expect((await ask(first, model, 'Hello')).cached).toBe(0);
  await first.close(); // what was computed is on disk then
  expect(readdirSync(folder)).toHaveLength(2);
  const second = await open(folder);
  for (const server of [second, beside])
    for (const [i, model] of ['nano', 'odd'].entries()) {
      const { text, cached } = await ask(server, model, 'For two?');
      expect(text).toEqual(expected[i]?.text);
      expect(cached).toBeGreaterThan(32);
    }
  await second.close();
  await beside.close();
  expect(readdirSync(folder)).toHaveLength(2);
});
