// A random nano checkpoint in a temporary folder, made once per test file.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { ModelConfig } from '../../src/model/config.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';

/** Two layers of the nano shape: a window layer and a full one. */
export async function tinyCheckpoint(): Promise<{
  readonly dir: string;
  readonly root: string;
  readonly config: ModelConfig;
}> {
  const root = await mkdtemp(join(tmpdir(), 'temper-infer-'));
  afterAll(() => {
    rmSync(root, { recursive: true, force: true });
  });
  const dir = join(root, 'model');
  await initCheckpoint(dir, 'nano', { seed: 11 });
  return { dir, root, config: PRESETS.nano };
}
export const prompt = (length: number, salt = 0): Int32Array =>
  Int32Array.from({ length }, (_, i) => 7 + ((i * 37 + salt * 101) % (PRESETS.nano.vocab_size - 24)));
