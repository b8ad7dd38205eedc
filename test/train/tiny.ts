// A small base, rows and a recipe in a temporary folder: what the tests of the trainer start from.
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '../../src/model/config.js';
import { createTrainable } from '../../src/model/trainable.js';

export const tinyConfig = parseConfig({
  vocab_size: 96,
  hidden_size: 32,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  num_local_experts: 3,
  num_experts_per_tok: 2,
  sliding_window: 8,
  max_position_embeddings: 1024,
});

/** Rows of arithmetic progressions: something there is to learn. */
export function rows(count: number, from = 0): string {
  let out = '';
  for (let i = from; i < from + count; i++) {
    const step = 1 + (i % 5),
      tokens = Array.from({ length: 8 + ((i * 7) % 20) }, (_, j) => (i * 3 + j * step) % 96);
    out += `${JSON.stringify({ tokens, weights: tokens.map((_, j) => (j < 3 ? 0 : 1 + (j % 2))) })}\n`;
  }
  return out;
}

/** Pairs of token rows: an arithmetic progression over one that breaks off. */
export const tinyPairs = (count: number, from = 0): string =>
  Array.from({ length: count }, (_, n) => {
    const i = n + from;
    const side = (step: number) => {
      const tokens = Array.from({ length: 8 + ((i * 7) % 20) }, (_, j) => (i * 3 + (j < 4 ? j : j * step)) % 96);
      return { tokens, weights: tokens.map((_, j) => (j < 4 ? 0 : 1 + (j % 2))) };
    };
    return `${JSON.stringify({ chosen: side(1), rejected: side(2 + (i % 3)) })}\n`;
  }).join('');

/** @returns the folder, with base/, train.jsonl, eval.jsonl and recipe.yaml */
export async function tinyRun(
  recipe: { readonly train?: string; readonly adapter?: string; readonly data?: string } = {},
): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'temper-train-'));
  const model = createTrainable(tinyConfig, { seed: 3 });
  await model.save(join(dir, 'base'));
  model.close();
  writeFileSync(join(dir, 'train.jsonl'), rows(40));
  writeFileSync(join(dir, 'eval.jsonl'), rows(10, 100));
  mkdirSync(join(dir, 'runs'));
  writeFileSync(
    join(dir, 'recipe.yaml'),
    `about: arithmetic progressions
model: { base: base }
adapter: { rank: 2, alpha: 4${recipe.adapter ?? ''} }
gate: off
device: cpu
data:
  train: [{ path: train.jsonl, format: tokens }]
  eval: [{ path: eval.jsonl, format: tokens }]
  maxTokens: 64
${recipe.data ?? ''}
train: { ${recipe.train ?? 'steps: 12, rowsPerStep: 6, lr: 1.0e-2, checkpointEvery: 4'} }
`,
  );
  return dir;
}
