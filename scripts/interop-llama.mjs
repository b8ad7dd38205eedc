// node scripts/interop-llama.mjs --llama PATH: exports of adapters on two checkpoints, loaded by llama.cpp's
// llama-server, log-probabilities of all tokens compared; a Markdown row for each on stdout. Needs the build.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { FORMATS } from '../dist/export/formats/index.js';
import { askLlama } from '../dist/export/gguf/llama-consumer.js';
import { runExport } from '../dist/export/run-export.js';
import { openSource } from '../dist/export/source.js';
import { createAdapter } from '../dist/lora/adapter.js';
import { writePeft } from '../dist/lora/peft.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { readConfig } from '../dist/model/config.js';
import { ops } from '../dist/native/ops.js';

const models = join(dirname(dirname(fileURLToPath(import.meta.url))), 'models');
const { values: o } = parseArgs({ options: { llama: { type: 'string' } } });
if (!o.llama) throw new Error('--llama is missing: llama-server, or the folder it is in');
const work = mkdtempSync(join(tmpdir(), 'temper-interop-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
let count = 0;
const fresh = () => join(work, `f${count++}`);

const ALL = { targets: ['attention', 'experts', 'router'] };
const OWN = { rsLora: true, targets: { attention: { rank: 2, alpha: 7 }, gate_up_proj: {}, down_proj: { rank: 3 } } };
/** @type {[string, any, string[]][]} what, choice of targets, formats */
const CASES = [
  ['none', null, ['gguf', 'gguf-f32']],
  ['attention, experts, router', ALL, ['gguf', 'gguf-f32', 'gguf-lora']],
  ['rsLoRA, ranks and alphas of their own', OWN, ['gguf-f32', 'gguf-lora']],
];
async function adapterOn(model, choice) {
  const config = readConfig(model);
  const spec = adapterSpec(config, { rank: 4, alpha: 8, rsLora: false, dropout: 0, ...choice });
  const a = createAdapter(config, spec, { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i], 100 + i, -0.1, 0.1);
  });
  const folder = fresh();
  await writePeft(a, folder, { baseModel: 'base' });
  a.close();
  return folder;
}
let bad = 0;
for (const name of ['nano', 'nano-judge'])
  for (const [what, choice, formats] of CASES) {
    const model = join(models, name),
      adapter = choice && (await adapterOn(model, choice)),
      from = { model, ...(adapter ? { adapter } : {}) };
    for (const format of formats) {
      const out = fresh();
      await runExport({ ...from, format: [format], out, evalTokens: 0 });
      const source = await openSource(from),
        f = FORMATS.find((x) => x.name === format),
        exported = f.reload(out, source.base),
        rows = [5, 2].map((length, r) => Int32Array.from({ length }, (_, i) => (i * 37 + 11 + 80 * r) % 1024));
      const r = await askLlama(o.llama, f.llama(out), source, exported, rows);
      if (!r.ok) bad++;
      process.stdout.write(
        `| ${name} | ${what} | ${format} | ${r.compared} | ${r.maxDifference.toExponential(1)} | ` +
          `${r.relative.toExponential(1)} |\n`,
      );
      exported[Symbol.dispose]();
      source[Symbol.dispose]();
    }
  }
process.exitCode = bad > 0 ? 1 : 0;
