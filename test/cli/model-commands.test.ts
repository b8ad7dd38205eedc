// init → inspect → logits as a user types them, and what they say when something is wrong.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { openSafetensors } from '../../src/native/safetensors.js';
import { goldenRoot } from '../model/golden.js';
import { temper } from './run.js';

const root = mkdtempSync(join(tmpdir(), 'temper-model-'));
afterAll(() => rmSync(root, { recursive: true }));
const dir = join(root, 'nano');

it('model init, model inspect, logits', async () => {
  const made = await temper(['model', 'init', dir, '--preset', 'nano', '--seed', '3', '--json']);
  expect(JSON.parse(made.stdout)).toMatchObject({ dir, preset: 'nano', seed: 3 });
  const seen = await temper(['model', 'inspect', dir, '--full', '--json']);
  expect(JSON.parse(seen.stdout)).toMatchObject({
    layout: 'mxfp4',
    digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    config: { num_hidden_layers: 4 },
  });
  const text = (await temper(['model', 'inspect', dir, '--tensors'])).stdout;
  expect(text).toContain('model.layers.3.mlp.experts.down_proj_scales  U8 [8, 128, 4]');
  const tokens = join(root, 'tokens.json'),
    out = join(root, 'logits.safetensors');
  writeFileSync(tokens, '{"tokens": [[1, 2, 3], [4]], "positions": [0]}');
  const ran = await temper(['logits', '--model', dir, '--tokens', tokens, '--out', out, '--json']);
  expect([ran.code, JSON.parse(ran.stdout)]).toMatchObject([0, { sequences: 2, rows: 2, precision: 'f32' }]);
  using file = openSafetensors(out);
  expect([...file.tensors.keys()]).toEqual(['logits.0', 'logits.1']);
  expect(file.entry('logits.1').shape).toEqual([1, 1024]);
});

it.each([
  [['model', 'init', dir, '--preset', 'nano'], /exists and is no empty folder/],
  [['model', 'init', join(root, 'x'), '--preset', '7b'], /--preset/],
  [['model', 'inspect', join(root, 'none')], /config\.json: cannot be read/],
  [
    ['logits', '--model', dir, '--tokens', join(root, 'none.json'), '--out', join(root, 'never.safetensors')],
    /none\.json: cannot be read/,
  ],
  [
    [
      'logits',
      '--model',
      dir,
      '--adapter',
      join(root, 'none'),
      '--tokens',
      join(root, 'tokens.json'),
      '--out',
      join(root, 'never.safetensors'),
    ],
    /none/,
  ],
  [['model', 'inspect', join(goldenRoot, '..')], /config\.json/],
])('%j: one line, exit code 2, nothing written', async (args, line) => {
  const before = readdirSync(root);
  const { code, stdout, stderr } = await temper(args);
  expect(stderr).toMatch(line);
  expect(stderr.trimEnd()).not.toContain('\n');
  expect([code, stdout]).toEqual([2, '']);
  expect(readdirSync(root)).toEqual(before);
  expect(existsSync(join(root, 'never.safetensors'))).toBe(false);
});
