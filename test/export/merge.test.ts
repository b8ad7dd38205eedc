// Merged checkpoints: every weight against plain arithmetic, on bases of every layout, and what is said of the
// rounding.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { exportRun, verify } from '../../src/export/export.js';
import { openSource } from '../../src/export/source.js';
import { logitsOf } from '../../src/export/verify-logits.js';
import { checkWeights } from '../../src/export/verify-weights.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import type { Tensor } from '../../src/native/tensor.js';
import { train } from '../../src/train/train.js';
import { goldenRoot, relativeError } from '../model/golden.js';
import { tinyConfig, tinyRun } from '../train/tiny.js';

const root = mkdtempSync(join(tmpdir(), 'temper-merge-'));
let dir = '';
afterAll(() => {
  rmSync(root, { recursive: true, force: true });
  rmSync(dir, { recursive: true, force: true });
});
beforeAll(async () => {
  dir = await tinyRun();
  await train(join(dir, 'recipe.yaml'), { out: join(dir, 'runs', 'a'), set: ['train.steps=30'] });
});
let count = 0;
const fresh = (): string => join(root, `o${count++}`);

async function adapterOn(base: string, over: Partial<AdapterChoice> = {}, size = 0.3): Promise<string> {
  const config = readConfig(base);
  const choice = { rank: 3, alpha: 6, targets: ['attention', 'experts', 'router'], rsLora: true, dropout: 0, ...over };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 7 + i, -size, size);
  });
  const folder = fresh();
  await writePeft(a, folder, { baseModel: 'odd' });
  a.close();
  return folder;
}
/** A changed byte of one tensor. */
function damage(folder: string, tensor: string): void {
  const names = readdirSync(folder).filter((n) => n.endsWith('.safetensors'));
  for (const name of names) {
    const path = join(folder, name);
    using file = openSafetensors(path);
    const at = file.tensors.get(tensor);
    if (!at) continue;
    const bytes = readFileSync(path);
    bytes[at.begin + 1] = (bytes[at.begin + 1] ?? 0) ^ 0x41;
    writeFileSync(path, bytes);
    return;
  }
  throw new Error(`no ${tensor}`);
}

const BASES = ['odd', 'plain', 'clamp', 'dense'] as const;
describe.each(BASES)('merged-bf16 of %s', (name) => {
  const base = join(goldenRoot, name);
  it('is what base and adapter compute, to the rounding of bf16, in the dequantised layout', async () => {
    const adapter = await adapterOn(base),
      out = fresh();
    await exportRun({ adapter, model: base, out, format: ['merged-bf16'] });
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config.quantization_config).toBeUndefined();
    using merged = openCheckpoint(out);
    expect(merged.experts).toBe('dense');
    for (const t of merged.tensors.values()) expect(t.dtype).toBe('bf16');
    using source = await openSource({ adapter, model: base });
    const found = await checkWeights(source, out);
    expect(found).toMatchObject({ wrong: [] });
    expect(found.checked).toBeGreaterThan(10_000);
    const verified = await verify(out);
    expect(verified).toMatchObject({ ok: true, format: 'merged-bf16' });
    expect(verified.rmsEffect).toBeGreaterThan(4 * verified.rmsDifference);
    // The check can fail: each kind of tensor, changed.
    for (const tensor of [
      'model.layers.1.mlp.experts.gate_up_proj',
      'model.layers.0.mlp.experts.down_proj',
      'model.layers.0.self_attn.q_proj.weight',
      'model.layers.1.mlp.router.weight',
      'model.norm.weight',
    ]) {
      const copy = fresh();
      cpSync(out, copy, { recursive: true });
      damage(copy, tensor);
      expect((await checkWeights(source, copy)).wrong[0], tensor).toContain(tensor);
    }
  });
  it('a base alone is dequantised to the bit', async () => {
    const out = fresh();
    await exportRun({ model: base, out, format: ['merged-bf16'] });
    using one = openCheckpoint(base);
    using two = openCheckpoint(out);
    const tokens = Int32Array.of(5, 17, 30, 1, 99, 64);
    expect(relativeError(logitsOf(two, null, tokens), logitsOf(one, null, tokens))).toBeLessThan(1e-6);
    expect(await verify(out)).toMatchObject({ ok: true });
  });
});

describe.each(['odd', 'plain', 'clamp'] as const)('merged-mxfp4 of %s', (name) => {
  const base = join(goldenRoot, name);
  it('each block is the better of two, or as it was', async () => {
    const adapter = await adapterOn(base, { layers: [1] }),
      out = fresh();
    const { exports } = await exportRun({ adapter, model: base, out, format: ['merged-mxfp4'] });
    using was = openCheckpoint(base);
    using is = openCheckpoint(out);
    expect(is.experts).toBe('mxfp4');
    // What is not adapted has its bytes.
    for (const [tensor, t] of was.tensors)
      if (
        !/layers\.1\.(?:self_attn\.\w_proj\.weight|mlp\.router\.weight|mlp\.experts.*_(?:blocks|scales))/.test(tensor)
      )
        expect(Buffer.compare(bytes(is.tensors.get(tensor)), bytes(t)), tensor).toBe(0);
    using source = await openSource({ adapter, model: base });
    expect(await checkWeights(source, out)).toMatchObject({ wrong: [] });
    const report = exports[0]?.report as {
      survived: { layer: number; experts: number | null; dense: number | null }[];
    };
    expect(report.survived[0]).toEqual({ layer: 0, experts: null, dense: null });
    const one = report.survived[1];
    expect(one?.experts).toBeGreaterThan(0.2);
    expect(one?.experts).toBeLessThan(1.2);
    expect(one?.dense).toBeGreaterThan(0.98);
    for (const tensor of ['gate_up_proj_blocks', 'down_proj_scales', 'down_proj_blocks']) {
      const copy = fresh();
      cpSync(out, copy, { recursive: true });
      damage(copy, `model.layers.1.mlp.experts.${tensor}`);
      expect((await checkWeights(source, copy)).wrong[0], tensor).toContain(tensor.replace(/_(?:blocks|scales)/, ''));
    }
  });
  it('an adapter that changes nothing leaves every byte', async () => {
    const adapter = await adapterOn(base, {}, 0),
      out = fresh();
    await exportRun({ adapter, model: base, out, format: ['merged-mxfp4'] });
    using was = openCheckpoint(base);
    using is = openCheckpoint(out);
    for (const [tensor, t] of was.tensors)
      expect(Buffer.compare(bytes(is.tensors.get(tensor)), bytes(t)), tensor).toBe(0);
  });
});
const bytes = (t: Tensor | undefined): Buffer => {
  const raw = t?.read() ?? new Uint8Array();
  return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
};

describe('what rounding cost', () => {
  it('a merge that loses the gain says so, with the losses, and names what is better', async () => {
    const out = fresh();
    const { exports } = await exportRun({ run: join(dir, 'runs', 'a'), out, format: ['merged-mxfp4'] });
    const { report, warnings } = exports[0] as (typeof exports)[number];
    const held = report.heldOut as { base: number; adapter: number; merged: number; kept: number };
    expect(held.base).toBeGreaterThan(held.adapter);
    expect(held.kept).toBeCloseTo((held.base - held.merged) / (held.base - held.adapter), 10);
    const card = readFileSync(join(out, 'README.md'), 'utf8');
    expect(card).toContain(held.merged.toFixed(4));
    if (held.kept < 0.9) {
      expect(warnings[0]).toMatch(/keeps [\d.]+ % of what training gained .* export merged-bf16/);
      expect(card).toContain(warnings[0]);
    } else expect(warnings).toEqual([]);
    const told = JSON.parse(readFileSync(join(out, 'temper.json'), 'utf8')) as { report: unknown };
    expect(told.report).toEqual(report);
    expect(await verify(out)).toMatchObject({ ok: true, tolerance: null });
  });
  it('its losses are those of temper eval', async () => {
    const { evaluate } = await import('../../src/evaluate/evaluate.js');
    const out = fresh();
    const { exports } = await exportRun({ run: join(dir, 'runs', 'a'), out, format: ['merged-mxfp4'] });
    const held = exports[0]?.report.heldOut as { base: number; adapter: number };
    expect(held.adapter).toBeCloseTo((await evaluate(join(dir, 'runs', 'a'))).loss, 5);
    expect(held.base).toBeCloseTo((await evaluate(join(dir, 'recipe.yaml'))).loss, 5);
  });
  it('rows by a format that is told, those that data.split holds out, and rows that are not there', async () => {
    const run = join(dir, 'runs', 'a');
    const held = async (rows: string): Promise<unknown> => {
      const { exports } = await exportRun({ run, out: fresh(), format: ['merged-mxfp4'], rows });
      return exports[0]?.report.heldOut;
    };
    const packed = join(dir, 'some.json.gz');
    writeFileSync(packed, gzipSync(JSON.stringify([{ tokens: [1, 2, 3, 4], weights: [0, 1, 1, 1] }])));
    expect(await held(packed)).toMatchObject({ rows: packed, tokens: 3 });
    await expect(held(join(dir, 'gone.jsonl'))).rejects.toMatchObject({ exitCode: 2 });
    const split = join(dir, 'split.yaml');
    const text = readFileSync(join(dir, 'recipe.yaml'), 'utf8');
    writeFileSync(split, text.replace(/^( *)eval: .*$/m, '$1split: { eval: 0.3 }'));
    expect(readFileSync(split, 'utf8')).toContain('split:');
    const other = await train(split, { out: join(dir, 'runs', 'split'), set: ['train.steps=2'] });
    const { exports } = await exportRun({ run: other.run, out: fresh(), format: ['merged-mxfp4'] });
    expect(exports[0]?.report.heldOut).toMatchObject({ rows: join(dir, 'train.jsonl') });
  });
  it('rows of one choice, none, or a base that is not MXFP4', async () => {
    const run = join(dir, 'runs', 'a');
    const some = await exportRun({ run, out: fresh(), format: ['merged-mxfp4'], rows: join(dir, 'train.jsonl') });
    expect(some.exports[0]?.report.heldOut).toMatchObject({ rows: join(dir, 'train.jsonl') });
    const none = await exportRun({ run, out: fresh(), format: ['merged-mxfp4'], evalTokens: 0 });
    expect(none.exports[0]?.report.heldOut).toBeUndefined();
    const error = await exportRun({ model: join(goldenRoot, 'dense'), out: fresh(), format: ['merged-mxfp4'] }).catch(
      (e: unknown) => e as TemperError,
    );
    expect(error).toMatchObject({ code: 'export_refused' });
  });
});

it('a run that trained a whole model is exported merged, and refused as an adapter', async () => {
  const { model_type: _, ...init } = tinyConfig;
  const recipe = join(dir, 'scratch.yaml');
  writeFileSync(
    recipe,
    `model: { init: ${JSON.stringify(init)} }
data: { train: [{ path: train.jsonl, format: tokens }], maxTokens: 64 }
train: { method: pretrain, steps: 3, rowsPerStep: 4, lr: 1.0e-3, precision: f32 }
`,
  );
  const { run } = await train(recipe, { out: join(dir, 'runs', 'scratch') });
  expect(await exportRun({ run, out: fresh() }).catch((e: unknown) => e)).toMatchObject({ code: 'export_refused' });
  for (const format of ['merged-bf16', 'merged-mxfp4']) {
    const out = fresh();
    await exportRun({ run, out, format: [format] });
    expect(await verify(out), format).toMatchObject({ ok: true, step: 3 });
    using one = openCheckpoint(join(run, 'model'));
    using two = openCheckpoint(out);
    const tokens = Int32Array.of(5, 17, 30, 1, 9);
    expect(relativeError(logitsOf(two, null, tokens), logitsOf(one, null, tokens)), format).toBeLessThan(1e-6);
  }
});

it('a run that was trained through the rounding is what its merged exports compute', async () => {
  const set = ['adapter.mergeAware=mxfp4', 'train.steps=8'];
  const { run } = await train(join(dir, 'recipe.yaml'), { out: join(dir, 'runs', 'aware'), set });
  for (const format of ['merged-mxfp4', 'merged-bf16']) {
    const out = fresh();
    const { exports } = await exportRun({ run, out, format: [format] });
    const verified = await verify(out);
    expect(verified, format).toMatchObject({ ok: true });
    expect(verified.maxDifference).toBeLessThan(1e-4 * verified.maxLogit);
    expect(verified.maxEffect).toBeGreaterThan(100 * verified.maxDifference);
    expect(exports[0]?.warnings).toEqual([]);
    if (format === 'merged-mxfp4') expect(exports[0]?.report.heldOut).toMatchObject({ kept: 1 });
  }
  const adapter = await exportRun({ run, out: fresh() });
  expect(adapter.exports[0]?.warnings[0]).toMatch(/mergeAware.*export merged-mxfp4/);
});
