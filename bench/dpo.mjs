// A step of methods dpo and orpo beside a step of method sft over the same tokens: node bench/dpo.mjs [--preset
// nano|slice] [--pairs N] [--tokens N] [--rounds N] [--merge-aware] [--json]. Steps are those of the loop, taken in
// turns so that what else the machine does falls on all; peaks are what a step takes beyond what is there before it,
// bytes. `first`: dpo, the reference is computed in the step, as in the first epoch; `later`: it is known, as in later
// epochs or with train.precomputeReference.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAdapter } from '../dist/lora/adapter.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { initCheckpoint } from '../dist/model/init.js';
import { memoryStats, resetPeaks, Scope } from '../dist/native/tensor.js';
import { dpo } from '../dist/objectives/dpo.js';
import { sft } from '../dist/objectives/objective.js';
import { orpo } from '../dist/objectives/orpo.js';
import { referenceSums } from '../dist/objectives/references.js';
import { learnAdapter } from '../dist/train/adapter-learner.js';
import { OptimizerStep } from '../dist/train/step.js';

const { values } = parseArgs({
  options: {
    preset: { type: 'string', default: 'nano' },
    pairs: { type: 'string', default: '4' },
    tokens: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '5' },
    precision: { type: 'string', default: 'bf16' },
    'merge-aware': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const [pairs, tokens, rounds] = [values.pairs, values.tokens, values.rounds].map(Number);
const folder = mkdtempSync(join(tmpdir(), 'temper-bench-dpo-'));
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

await initCheckpoint(join(folder, 'base'), /** @type {'nano' | 'slice'} */ (values.preset), { seed: 1 });
const base = openCheckpoint(join(folder, 'base'));
const spec = adapterSpec(base.config, {
  rank: 16,
  alpha: 32,
  targets: ['attention', 'experts'],
  rsLora: false,
  dropout: 0,
  ...(values['merge-aware'] ? { mergeAware: /** @type {const} */ ('mxfp4') } : {}),
});
const adapter = createAdapter(base.config, spec, { seed: 1, trainable: true });
const precision = values.precision === 'f32' ? 'f32' : 'bf16';
const learner = learnAdapter(base, adapter, { precision, folder });
// Half of each example is its prompt.
const examples = Array.from({ length: 2 * pairs }, (_, i) => ({
  tokens: Int32Array.from({ length: tokens + 1 }, (_, j) => (i * 131 + j * 17) % 1000),
  weights: Float32Array.from({ length: tokens + 1 }, (_, j) => (j > tokens / 2 ? 1 : 0)),
  source: { file: 'bench', line: 1 + i },
  index: i,
}));
const scope = new Scope('optimizer');
const moments = { m: scope.zeros('f32', learner.params.shape), v: scope.zeros('f32', learner.params.shape) };
/** @type {import('../dist/train/step.js').StepSettings} */
const settings = { clipGradNorm: 1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 };
const limits = { tokensPerBatch: 2 * pairs * tokens, packing: true };

function steps(objective, sumsOf) {
  const optimizer = new OptimizerStep(learner, moments, objective, settings);
  const batches = objective.batches(examples, limits);
  return () => {
    resetPeaks();
    const live = memoryStats().totalLive,
      from = performance.now();
    optimizer.begin();
    for (const batch of batches) optimizer.add(batch, 1, sumsOf);
    optimizer.update(1, 1e-5, optimizer.gradNorm());
    return { ms: performance.now() - from, bytes: memoryStats().totalPeak - live };
  };
}
const objective = dpo({ beta: 0.1 });
const known = new Map(objective.batches(examples, limits).map((b) => [b.examples[0].index, referenceSums(learner, b)]));
const kinds = {
  sft: steps(sft),
  first: steps(objective),
  later: steps(objective, (b) => known.get(b.examples[0].index)),
  orpo: steps(orpo({ beta: 0.1 })),
};
const times = Object.fromEntries(Object.keys(kinds).map((k) => [k, []])),
  peakBytes = Object.fromEntries(Object.keys(kinds).map((k) => [k, 0]));
for (const run of Object.values(kinds)) run();
for (let r = 0; r < rounds; r++)
  for (const [k, run] of Object.entries(kinds)) {
    const { ms, bytes } = run();
    times[k].push(ms);
    peakBytes[k] = Math.max(peakBytes[k], bytes);
  }
const ratio = (k) => median(times[k].map((t, i) => t / times.sft[i]));
const result = {
  preset: values.preset,
  tokens: 2 * pairs * tokens,
  sftMs: median(times.sft),
  first: ratio('first'),
  later: ratio('later'),
  orpo: ratio('orpo'),
  peakBytes,
};
scope.close();
adapter.close();
base.close();
rmSync(folder, { recursive: true });
process.stdout.write(
  values.json
    ? `${JSON.stringify(result)}\n`
    : `${result.preset}, ${result.tokens} tokens a step: sft ${result.sftMs.toFixed(1)} ms; dpo ` +
        `${result.first.toFixed(2)} times that with the reference in the step, ${result.later.toFixed(2)} times with ` +
        `it known; orpo ${result.orpo.toFixed(2)} times; peaks ${Object.entries(peakBytes)
          .map(([k, n]) => `${k} ${(n / 2 ** 20).toFixed(1)}`)
          .join(', ')} MiB\n`,
);
