// A checkpoint larger than memory and swap: its file is all holes, so it takes no disk, but header and shapes are real.
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { type ModelConfig, parseConfig } from '../../src/model/config.js';
import { forwardHidden } from '../../src/model/gpt-oss.js';
import { PRESETS } from '../../src/model/init.js';
import { checkpointTensors, specBytes } from '../../src/model/layout.js';
import { ops } from '../../src/native/ops.js';
import { layoutFile } from '../../src/native/safetensors.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { planTraining } from '../../src/train/train.js';
import { pack } from './golden.js';

/** A row of n tokens; all but the first are trained. */
const rowOf = (n: number): string =>
  `${JSON.stringify({
    tokens: Array.from({ length: n }, (_, i) => i),
    weights: Array.from({ length: n }, (_, i) => (i ? 1 : 0)),
  })}\n`;

const root = mkdtempSync(join(tmpdir(), 'temper-large-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function holes(dir: string, config: ModelConfig): void {
  mkdirSync(dir);
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
  const path = join(dir, 'model.safetensors');
  const { header, total } = layoutFile(
    path,
    checkpointTensors(config).map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, data: new Uint8Array(0) })),
    {},
  );
  const fd = openSync(path, 'w');
  writeSync(fd, header);
  ftruncateSync(fd, total);
  closeSync(fd);
}
const kilobytes = (field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? Number.NaN) *
  1024;
const largest = (layers: number): ModelConfig => {
  const { layer_types: _, ...rest } = PRESETS['120b'];
  return parseConfig({ ...rest, num_hidden_layers: layers });
};
const layerBytes = checkpointTensors(largest(1))
  .filter((t) => t.name.startsWith('model.layers.'))
  .reduce((sum, t) => sum + specBytes(t), 0);

test.skipIf(process.platform !== 'linux')(
  'larger than memory and swap: opens at once, plan says what it costs, and it computes',
  async () => {
    const machine = kilobytes('MemTotal') + kilobytes('SwapTotal');
    const config = largest(Math.max(36, Math.ceil((1.1 * machine) / layerBytes)));
    const dir = join(root, 'large'),
      recipe = join(root, 'recipe.yaml');
    holes(dir, config);
    const { size, blocks } = statSync(join(dir, 'model.safetensors'));
    expect(size).toBeGreaterThan(Math.max(machine, 60e9));
    expect(blocks * 512).toBeLessThan(size / 1000);

    const from = performance.now();
    {
      using model = openCheckpoint(dir);
      using s = new Scope();
      ops.embedding_fwd(s.empty('f32', [1, config.hidden_size]), model.embed, s.from(Int32Array.of(200_000)));
      expect(performance.now() - from).toBeLessThan(10_000); // to read it takes longer than that
      expect(memoryStats().live.weights).toBe(0);
      // Zeros everywhere: four experts of the first two layers are read, and nothing comes out.
      const two = { ...model, config: { ...config, num_hidden_layers: 2 }, layers: model.layers.slice(0, 2) };
      expect(Math.max(...forwardHidden(s, two, null, pack([[1, 2, 3]]), { precision: 'bf16' }).toFloat32())).toBe(0);
    }

    writeFileSync(join(root, 'rows.jsonl'), rowOf(2049));
    writeFileSync(
      recipe,
      'model: { base: large }\nadapter: { rank: 1, targets: [attention] }\ndata: { train: [{ ' +
        'path: rows.jsonl, format: tokens }], maxTokens: 2049 }\ntrain: { steps: 1 }\n',
    );
    const plan = await planTraining(recipe, { measure: false, availableBytes: 20 * 2 ** 30 });
    expect(plan.mappedBytes).toBeGreaterThan(machine);
    expect(plan.fits).toBe(true); // what must be private fits; the files are read again and again
    expect(plan.rereadBytes).toBe(plan.mappedBytes);
    expect((await planTraining(recipe, { measure: false, availableBytes: 2 ** 50 })).rereadBytes).toBe(0);
    expect(plan.totalPeakBytes).toBeLessThan(8 * 2 ** 30);
  },
  180_000,
);

test('32,768 tokens on the released 20b shapes: planned at less than 4 GiB of private memory, ' +
  'layer inputs on disk', async () => {
  const dir = join(root, '20b'),
    recipe = join(root, '20b.yaml');
  holes(dir, PRESETS['20b']);
  writeFileSync(join(root, 'long.jsonl'), rowOf(32769));
  writeFileSync(
    recipe,
    'model: { base: 20b }\nadapter: { rank: 16, targets: [attention, experts] }\ndata: { ' +
      'train: [{ path: long.jsonl, format: tokens }], maxTokens: 32769 }\ntrain: { steps: 1 }\n',
  );
  const plan = await planTraining(recipe, { measure: false, availableBytes: 2 ** 32 });
  expect(plan.tokensPerStep).toBe(32768);
  expect(plan.totalPeakBytes + plan.runtimeBytes).toBeLessThanOrEqual(2 ** 32);
  expect(plan.offloadedBytes).toBeGreaterThan(9e9);
  const kept = await planTraining(recipe, {
    measure: false,
    availableBytes: 2 ** 32,
    set: ['train.offloadActivations=never'],
  });
  expect(kept.fits).toBe(false);
  expect(kept.advice).toContain('offloadActivations');
}, 180_000);
