// What answers a file of prompts when the engine fails; the command itself: test/cli/generate-file.test.ts.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { NativeError } from '../../src/base/errors.js';
import { generateFile } from '../../src/compose/generate-file.js';
import type { Engine } from '../../src/infer/engine.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-generate-file-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('an engine that dies ends the run and answers nothing: the next run asks again', async () => {
  const input = join(folder, 'prompts.jsonl');
  writeFileSync(input, '{"prompt": "a"}\n{"prompt": "b"}\n');
  const dead: Pick<Engine, 'digest' | 'adapters' | 'generate'> = {
    digest: async () => 'd',
    adapters: async () => [],
    // biome-ignore lint/correctness/useYield: it fails before it has anything
    async *generate() {
      throw new NativeError('worker_exit', 'the thread ended');
    },
  };
  const run = generateFile({
    input,
    output: join(folder, 'out.jsonl'),
    engine: dead as Engine,
    screen: null,
    slots: 2,
    settings: {},
    request: () => ({ messages: [], maxTokens: 1 }),
    signal: new AbortController().signal,
  });
  await expect(run).rejects.toMatchObject({ code: 'worker_exit' });
  expect(readdirSync(folder).sort()).toEqual(['out.jsonl.part', 'prompts.jsonl']);
  expect(readFileSync(join(folder, 'out.jsonl.part'), 'utf8')).toBe('');
});
