// Training through a merge: the merged checkpoint is the trained model, in the run's own evaluation, after a resume, on
// disk and in an engine.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { evaluateLoss } from '../../src/evaluate/held-out-loss.js';
import { Runner } from '../../src/infer/runner.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { applyAdapter } from '../../src/lora/apply.js';
import { readMergeAware, readPeft, writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { writeCheckpoint } from '../../src/model/checkpoint-writer.js';
import { forwardHidden, logits, scoreTokens } from '../../src/model/gpt-oss.js';
import { layerPrefix } from '../../src/model/layout.js';
import type { ModelAdapter, ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { memoryStats, Scope, type Tensor } from '../../src/native/tensor.js';
import { loadRecipe } from '../../src/recipe/load.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { planRecipe } from '../../src/train/plan.js';
import { runTraining } from '../../src/train/session.js';
import { tinyPairs, tinyRun } from './tiny.js';

const tokens = Int32Array.from({ length: 40 }, (_, i) => (i * i * 7 + 3) % 96);
function logitsOf(model: ModelWeights, adapter: ModelAdapter | null): Float32Array {
  using s = new Scope('activations');
  const batch = { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, tokens.length) };
  return logits(s, model, forwardHidden(s, model, adapter, batch, { precision: 'f32' }), 'f32').toFloat32();
}
/** Writes a merged model as a checkpoint in the released layout, from the weights that its passes run on. */
async function writeMerged(dir: string, base: ModelWeights, model: ModelWeights): Promise<void> {
  const of = (name: string): Tensor => {
    const layer = model.layers.findIndex((_, i) => name.startsWith(layerPrefix(i))),
      w = model.layers[layer];
    if (!w) return name.includes('embed') ? base.embed : name.includes('norm') ? base.norm : base.head;
    const at = name.slice(layerPrefix(layer).length);
    const matrices = {
      'self_attn.q_proj': w.q,
      'self_attn.k_proj': w.k,
      'self_attn.v_proj': w.v,
      'self_attn.o_proj': w.o,
      'mlp.router': w.router,
      'mlp.experts.gate_up_proj': w.gateUp,
      'mlp.experts.down_proj': w.down,
      'self_attn.sinks': { w: w.sinks },
      input_layernorm: { w: w.inputNorm },
      post_attention_layernorm: { w: w.postNorm },
    };
    const [, matrix] = Object.entries(matrices).find(([n]) => at.startsWith(n)) ?? expect.fail(name);
    const part = at.endsWith('_scales') ? 'scales' : /[._]bias$/.test(at) ? 'bias' : 'w';
    return (matrix as Record<string, Tensor>)[part] ?? expect.fail(name);
  };
  await writeCheckpoint(dir, base.config, function* (spec) {
    const data = of(spec.name).read();
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  });
}

let dir = '';
beforeAll(async () => {
  dir = await tinyRun({
    train: 'steps: 12, rowsPerStep: 6, lr: 1.0e-2, checkpointEvery: 4, evalEvery: 4',
    adapter: ', mergeAware: mxfp4, targets: [attention, experts, router]',
  });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (...path: string[]): string => join(dir, ...path);

describe('a merge-aware run', () => {
  it('is evaluated as it trains, and as the checkpoint that the merge makes, to the bit', async () => {
    const { run, output } = await runTraining({ recipe: at('recipe.yaml'), out: at('runs', 'whole') });
    expect(readRun(run)?.mergeAware).toBe('mxfp4');
    expect(readMergeAware(output ?? '')).toBe('mxfp4');
    expect(readFileSync(join(output ?? '', 'README.md'), 'utf8')).toMatch(/Trained merge-aware/);
    const last = readMetrics(run).at(-1);
    expect((await evaluateLoss({ path: run })).loss).toBe(last?.evalLoss);
    const first = readMetrics(run)[0];
    expect(last?.loss).toBeLessThan((first?.loss ?? 0) - 0.1);

    using base = openCheckpoint(at('base'));
    const adapter = readPeft(output ?? '', base.config);
    using applied = applyAdapter(base, adapter);
    expect(applied.adapter).toBeNull();
    await writeMerged(at('merged'), base, applied.model);
    using merged = openCheckpoint(at('merged'));
    const trained = logitsOf(applied.model, null);
    expect(logitsOf(merged, null)).toEqual(trained);
    // Added without rounding, or not at all, it is another model.
    for (const other of [adapter.model, null]) expect(logitsOf(base, other)).not.toEqual(trained);
    // The checkpoint has the run's held-out loss too.
    const recipe = readFileSync(at('recipe.yaml'), 'utf8').replace('base: base', 'base: merged');
    writeFileSync(at('merged.yaml'), recipe);
    expect((await evaluateLoss({ path: at('merged.yaml') })).loss).toBe(last?.evalLoss);
    adapter.close();
  });

  it('goes on after a stop with the bits of the run that was not stopped', async () => {
    const stop = new AbortController();
    await runTraining(
      { recipe: at('recipe.yaml'), out: at('runs', 'stopped') },
      { signal: stop.signal, onProgress: (p) => p.step === 5 && stop.abort() },
    );
    expect(readRun(at('runs', 'stopped'))?.status).toBe('stopped');
    const { run } = await runTraining({ recipe: at('recipe.yaml'), out: at('runs', 'stopped'), resume: true });
    const adapterOf = (name: string): Buffer => readFileSync(at('runs', name, 'adapter', 'adapter_model.safetensors'));
    expect(adapterOf('stopped').equals(adapterOf('whole'))).toBe(true);
    expect(readMetrics(run).map((m) => [m.step, m.loss, m.evalLoss])).toEqual(
      readMetrics(at('runs', 'whole')).map((m) => [m.step, m.loss, m.evalLoss]),
    );
  });

  it('goes on from an adapter as the recipe says', async () => {
    const from = at('runs', 'whole', 'adapter');
    const set = [`adapter.from=${from}`, 'adapter.targets=null', 'train.steps=1', 'train.lr=1e-9'];
    const first = async (name: string, more: readonly string[]): Promise<number> =>
      readMetrics(
        (await runTraining({ recipe: at('recipe.yaml'), set: [...set, ...more], out: at('runs', name) })).run,
      )[0]?.loss ?? Number.NaN;
    const aware = await first('aware', []),
      plain = await first('plain', ['adapter.mergeAware=null']);
    expect(aware).not.toBe(plain);
    expect(readRun(at('runs', 'plain'))?.mergeAware).toBeUndefined();
    expect(readMergeAware(at('runs', 'plain', 'adapter'))).toBeNull();
  });

  it.each(['dpo', 'orpo'])(
    'tunes on pairs (%s): the reference is the base, not what the merge makes',
    async (method) => {
      writeFileSync(at('pairs.jsonl'), tinyPairs(12));
      const rows = '[{ path: pairs.jsonl, format: preference }]';
      const request = {
        recipe: at('recipe.yaml'),
        set: [`train.method=${method}`, 'train.beta=0.3', `data.train=${rows}`, `data.eval=${rows}`],
        out: at('runs', method),
      };
      const { run, peakBytes } = await runTraining(request);
      const [metrics, last] = [readMetrics(run), readMetrics(run).at(-1)];
      // B begins at zero: nothing is rounded, and no answer has gained anything.
      if (method === 'dpo') expect(Math.abs((metrics[0]?.loss ?? Number.NaN) - Math.log(2))).toBeLessThan(1e-6);
      expect(last?.loss).toBeLessThan((metrics[0]?.loss ?? 0) - 0.05);
      expect((await evaluateLoss({ path: run })).preference?.loss).toBe(last?.evalLoss);
      const plan = await planRecipe({ path: request.recipe, set: request.set, measure: false });
      expect(plan.totalPeakBytes).toBeGreaterThanOrEqual(peakBytes); // as if every thread had work; see recipes.test.ts

      const stop = new AbortController();
      const cut = { ...request, out: at('runs', `${method}-cut`) };
      await runTraining(cut, { signal: stop.signal, onProgress: (p) => p.step === 5 && stop.abort() });
      await runTraining({ ...cut, resume: true });
      const adapterOf = (out: string): Buffer => readFileSync(join(out, 'adapter', 'adapter_model.safetensors'));
      expect(adapterOf(cut.out).equals(adapterOf(request.out))).toBe(true);
    },
  );

  it('refuses dropout and pretraining by name', () => {
    expect(() => loadRecipe(at('recipe.yaml'), { set: ['adapter.dropout=0.1'] })).toThrow(/adapter\.dropout must be 0/);
    expect(() => loadRecipe(at('recipe.yaml'), { set: ['train.method=pretrain'] })).toThrow(
      /adapter\.mergeAware is for/,
    );
  });

  it('leaves no memory behind', () => {
    expect(memoryStats().totalLive).toBe(0);
  });
});

describe('an engine', () => {
  it('merges the adapter when it opens, and takes no other beside it', async () => {
    const model = join(packageRoot, 'models', 'nano'),
      folder = at('engine');
    using base = openCheckpoint(model);
    const choice = { rank: 4, alpha: 32, targets: ['attention', 'experts'], rsLora: false, dropout: 0 };
    const adapter = createAdapter(base.config, adapterSpec(base.config, { ...choice, mergeAware: 'mxfp4' }), {
      seed: 1,
    });
    for (const [i, e] of adapter.entries.entries())
      if (e.part === 'B') ops.random_normal(adapter.tensors[i] as Tensor, i, 0.02);
    await writePeft(adapter, folder, { baseModel: 'nano' });
    {
      using applied = applyAdapter(base, adapter);
      const text = tokens.map((t) => t + 200);
      const want = scoreTokens(applied.model, null, text, { precision: 'f32' });
      using runner = await Runner.open({ model, adapters: { mine: folder }, precision: 'f32', contextTokens: 128 });
      const call = { signal: new AbortController().signal, emit: () => undefined };
      const { score, load, adapters } = runner.handlers;
      expect(await score({ tokens: text, adapter: 'mine' }, call)).toEqual(want);
      expect(scoreTokens(base, adapter.model, text, { precision: 'f32' })).not.toEqual(want);
      const refused = expect.objectContaining({ code: 'adapter_unsupported' });
      expect(() => score({ tokens: text }, call)).toThrow(refused);
      expect(() => load({ name: 'other', folder }, call)).toThrow(refused);
      expect(await adapters(undefined as never, call)).toMatchObject([{ name: 'mine', folder, pairs: 24 }]);
      await expect(Runner.open({ model, adapters: { mine: folder, other: folder } })).rejects.toEqual(refused);
      const plain = await Runner.open({ model, precision: 'f32', contextTokens: 128 });
      await expect(plain.handlers.load({ name: 'mine', folder }, call)).rejects.toEqual(refused);
      plain.close();
    }
    adapter.close();
  });
});
