// node bench/merge-aware.mjs [--steps 40] [--recipe recipes/nano-merge-aware.yaml] [--train]: what training through a
// merge costs and gains. Speed: a plain and a merge-aware trainer take turns on the same batches in one process; the
// ratio is the median over the pairs; --steps 0 leaves it out. With --train both are trained as the recipe says, and
// base, adapter and merged models are evaluated on its held-out rows: share of the gain = (base loss − merged loss) /
// (base loss − adapter's loss), the adapter being that of the plain run; share of ΔW = Σ ΔW'·ΔW / Σ ΔW² over all
// experts, ΔW' what the merge changes. Needs the build.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { samplesAt } from '../dist/data/example.js';
import { loadDataset, rowSettings } from '../dist/data/load.js';
import { planSteps } from '../dist/data/order.js';
import { packBatch, packLengths } from '../dist/data/pack.js';
import { createAdapter } from '../dist/lora/adapter.js';
import { applyAdapter } from '../dist/lora/apply.js';
import { readPeft } from '../dist/lora/peft.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { lossAndGradients } from '../dist/model/gpt-oss.js';
import { mergeExperts } from '../dist/model/merged.js';
import { getThreads, memoryStats, resetPeaks, Scope } from '../dist/native/tensor.js';
import { objectiveOf } from '../dist/objectives/objective.js';
import { loadRecipe } from '../dist/recipe/load.js';
import { lazyTokenizer } from '../dist/recipe/tokenizer.js';
import { learnAdapter } from '../dist/train/adapter-learner.js';
import { runTraining } from '../dist/train/session.js';
import { OptimizerStep } from '../dist/train/step.js';

const { values: o } = parseArgs({
  options: {
    steps: { type: 'string', default: '40' },
    recipe: { type: 'string', default: 'recipes/nano-merge-aware.yaml' },
    train: { type: 'boolean', default: false },
    set: { type: 'string', multiple: true, default: [] },
  },
});
const { recipe } = loadRecipe(o.recipe, { set: o.set });
const median = (xs) => [...xs].sort((a, b) => a - b)[xs.length >> 1];
const short = (_, v) => (typeof v === 'number' ? Number(v.toPrecision(4)) : v);
const print = (row) =>
  process.stdout.write(`${JSON.stringify({ bench: 'merge-aware', threads: getThreads(), ...row }, short)}\n`);

const base = openCheckpoint(recipe.model.base);
const tokenizer = lazyTokenizer(recipe, base.config.vocab_size);
const context = { tokenizer: tokenizer.get, vocabSize: base.config.vocab_size, ...rowSettings(recipe.data) };
const t = recipe.train,
  limits = { tokensPerBatch: t.tokensPerBatch ?? recipe.data.maxTokens, packing: recipe.data.packing };

/** Milliseconds of steps, and peak bytes of one, by whether it is merge-aware; they take turns. */
async function speed() {
  const { examples } = await loadDataset(recipe.data.train, context);
  const plan = planSteps(examples.inputLengths(), t),
    objective = objectiveOf(recipe);
  const trainers = [false, true].map((aware) => {
    const { mergeAware, ...plain } = recipe.adapter;
    const spec = adapterSpec(base.config, aware ? { ...plain, mergeAware } : plain);
    const adapter = createAdapter(base.config, spec, { seed: t.seed, trainable: true });
    const learner = learnAdapter(base, adapter, { precision: t.precision, folder: tmpdir() });
    const scope = new Scope('optimizer');
    const moments = { m: scope.zeros('f32', learner.params.shape), v: scope.zeros('f32', learner.params.shape) };
    return {
      step: new OptimizerStep(learner, moments, objective, /** @type {any} */ ({ ...t, ...t.optimizer })),
      ms: [],
      peak: 0,
    };
  });
  const steps = Math.min(Number(o.steps), plan.steps);
  let tokens = 0;
  for (let s = 0; s < steps; s++) {
    const batches = objective.batches(samplesAt(examples, plan.rows(s).indices, objective.examplesPerSample), limits);
    tokens += batches.reduce((n, b) => n + b.batch.tokens.length, 0);
    for (const i of s % 2 ? [1, 0] : [0, 1]) {
      const { step, ms } = trainers[i];
      resetPeaks();
      const live = memoryStats().totalLive,
        from = performance.now();
      step.begin();
      for (const b of batches) step.add(b, s);
      step.update(s + 1, t.lr, step.gradNorm());
      ms.push(performance.now() - from);
      trainers[i].peak = Math.max(trainers[i].peak, memoryStats().totalPeak - live);
    }
  }
  const [plain, aware] = trainers.map((x) => x.ms.slice(steps >> 3));
  print({
    work: 'step',
    pairs: plain.length,
    tokensPerStep: tokens / steps,
    plainMs: median(plain),
    awareMs: median(aware),
    ratio: median(aware.map((x, i) => x / plain[i])),
    plainPeakBytes: trainers[0].peak,
    awarePeakBytes: trainers[1].peak,
  });
}

/** Held-out loss, nats per weighted token. */
async function lossOf(adapter) {
  const { examples } = await loadDataset(recipe.data.eval, context);
  const applied = applyAdapter(base, adapter);
  let [sum, weights] = [0, 0];
  for (const bin of packLengths(examples.inputLengths(), limits.tokensPerBatch, limits.packing)) {
    const { batch, targets } = packBatch(samplesAt(examples, bin, 1));
    const options = { precision: t.precision, seed: 0, grads: null, gradients: false };
    const { nll } = lossAndGradients(applied.model, applied.adapter, batch, targets, options);
    nll.forEach((x, i) => {
      sum += x * targets.weights[i];
      weights += targets.weights[i];
    });
  }
  applied.close();
  adapter?.close();
  return sum / weights;
}

/** What the rounding of a merge leaves of the experts' ΔW; NaN where the adapter is not on experts. */
function survived(adapter) {
  let [kept, whole] = [0, 0];
  base.layers.forEach((layer, i) => {
    for (const target of /** @type {const} */ (['gateUp', 'down'])) {
      const pair = adapter.model.layers[i]?.[target],
        from = layer[target];
      if (!pair || !from.scales) continue;
      const scope = new Scope('workspace');
      const to = { w: scope.empty('u8', from.w.shape), scales: scope.empty('u8', from.scales.shape) };
      const sums = scope.empty('f32', [pair.A.shape[0] ?? 0, 2]);
      mergeExperts(to, { w: from.w, scales: from.scales }, pair, sums);
      sums.toFloat32().forEach((x, k) => {
        if (k % 2) whole += x;
        else kept += x;
      });
      scope.close();
    }
  });
  adapter.close();
  return kept / whole;
}

async function gain() {
  const folder = mkdtempSync(join(tmpdir(), 'temper-merge-aware-'));
  try {
    const trained = async (name, set) => {
      const { output, seconds } = await runTraining({
        recipe: o.recipe,
        set: [...o.set, ...set],
        out: join(folder, name),
      });
      print({ work: `trained ${name}`, seconds });
      return (mergeAware) => readPeft(output, base.config, { mergeAware });
    };
    const plain = await trained('plain', ['adapter.mergeAware=null']);
    const aware = await trained('aware', []);
    const base_ = await lossOf(null),
      adapter = await lossOf(plain(null));
    const share = (loss) => (base_ - loss) / (base_ - adapter);
    const naive = await lossOf(plain('mxfp4')),
      merged = await lossOf(aware('mxfp4'));
    print({ work: 'held-out loss', base: base_, adapter, naiveMerge: naive, mergeAware: merged });
    print({ work: 'share of the gain', naiveMerge: share(naive), mergeAware: share(merged) });
    const kept = { naiveMerge: survived(plain(null)), mergeAware: survived(aware(null)) };
    print({ work: 'share of the change of experts', ...kept });
    print({ work: 'merge-aware adapter added unrounded', loss: await lossOf(aware(null)) });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (Number(o.steps) > 0) await speed();
if (o.train) await gain();
tokenizer.close();
base.close();
