// node scripts/interop.mjs --python PYTHON --llama PATH [--only WORD]: writes docs/interop.md, where every row is
// measured: an export of an adapter on a checkpoint, loaded by its real consumer, every logit compared. PYTHON has
// torch, transformers and peft, PATH is llama.cpp's llama-server. With --only the rows are printed, and the page stays as
// it is. Needs the build.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { FORMATS } from '../dist/export/formats/index.js';
import { runExport } from '../dist/export/run-export.js';
import { openSource } from '../dist/export/source.js';
import { Comparer, compareLogits, logitsOf, probes } from '../dist/export/verify-logits.js';
import { createAdapter } from '../dist/lora/adapter.js';
import { adapterOf, readPeft, writePeft } from '../dist/lora/peft.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { readFloatFile } from '../dist/lora/tensor-reader.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { readConfig } from '../dist/model/config.js';
import { ops } from '../dist/native/ops.js';
import { isolationRows, isolationTable, llamaRows, llamaTable } from './interop-llama.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: o } = parseArgs({
  options: { python: { type: 'string' }, llama: { type: 'string' }, only: { type: 'string' } },
});
if (!o.python) throw new Error('--python is missing: a Python with torch, transformers and peft');
if (!o.llama) throw new Error("--llama is missing: llama.cpp's llama-server, or the folder it is in");

const CHECKPOINTS = {
  nano: join(root, 'models', 'nano'),
  odd: join(root, 'test', 'golden', 'model', 'odd'),
  plain: join(root, 'test', 'golden', 'model', 'plain'),
};
const ADAPTERS = {
  attention: { targets: ['attention'] },
  experts: { targets: ['experts'] },
  'attention, experts': { targets: ['attention', 'experts'] },
  'everything, rsLoRA, ranks and alphas of their own': {
    rsLora: true,
    targets: {
      attention: { rank: 2 },
      o_proj: { rank: 5, alpha: 2 },
      gate_up_proj: { alpha: 7 },
      down_proj: { rank: 1 },
      router: { rank: 1, alpha: 9 },
    },
  },
  'down_proj alone, one layer': { targets: ['down_proj'], layers: [1] },
};
const CONSUMERS = { peft: ['peft'], 'merged-bf16': ['transformers'], 'merged-mxfp4': ['transformers'] };

const work = mkdtempSync(join(tmpdir(), 'temper-interop-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
let count = 0;
const fresh = () => join(work, `f${count++}`);

async function adapterOn(base, choice) {
  const config = readConfig(base);
  const spec = adapterSpec(config, { rank: 3, alpha: 6, rsLora: false, dropout: 0, ...choice });
  const a = createAdapter(config, spec, { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i], 7 + i, -0.1, 0.1);
  });
  const folder = fresh();
  await writePeft(a, folder, { baseModel: 'base' });
  a.close();
  return folder;
}

const power = (x) => (x === 0 ? '0' : x.toExponential(1));
const rows = [];
const jobs = [];
/** Every cell's export, its own reload, and what its consumer is to compute. */
for (const [checkpoint, base] of Object.entries(CHECKPOINTS))
  for (const [name, choice] of Object.entries(ADAPTERS)) {
    const label = `${checkpoint} ${name}`;
    if (o.only && !label.includes(o.only)) continue;
    const adapter = await adapterOn(base, choice);
    for (const [format, consumers] of Object.entries(CONSUMERS)) {
      if (!FORMATS.some((f) => f.name === format)) continue;
      const dir = fresh();
      await runExport({ adapter, model: base, format: [format], out: dir, evalTokens: 0 });
      const source = await openSource({ adapter, model: base });
      const trained = adapterOf(source.adapter);
      const exported = FORMATS.find((f) => f.name === format).reload(dir, source.base);
      const sequences = (await probes(source)).slice(0, 2);
      const own = await compareLogits(source.base, exported, { model: source.base, adapter: trained.model }, sequences);
      rows.push({ checkpoint, name, format, consumer: 'temper (own reload, against base and adapter)', ...own });
      const want = sequences.map((s) => logitsOf(exported.model, exported.adapter, s));
      for (const consumer of consumers) {
        const out = `${dir}.safetensors`;
        const tokens = sequences.map((s) => [...s]);
        const row = { checkpoint, name, format, consumer };
        rows.push(row);
        jobs.push({ job: { dir, base: consumer === 'peft' ? base : null, tokens, out }, want, row });
      }
      exported[Symbol.dispose]();
      trained.close();
      source[Symbol.dispose]();
    }
  }

const list = join(work, 'jobs.json');
writeFileSync(list, JSON.stringify(jobs.map((j) => j.job)));
const ran = spawnSync(o.python, [join(root, 'scripts', 'consumer_logits.py'), list], {
  encoding: 'utf8',
  maxBuffer: 2 ** 26,
});
if (ran.status !== 0) throw new Error(ran.stderr.slice(-2000));
const { versions } = JSON.parse(ran.stdout.trim().split('\n').at(-1));
for (const { job, want, row } of jobs) {
  const comparer = new Comparer();
  const file = readFloatFile(job.out);
  for (const [i, w] of want.entries()) comparer.add(file.entries.get(`logits.${i}`).read(), w);
  file[Symbol.dispose]();
  Object.assign(row, comparer.result());
}

/** Adapters that peft wrote, and the logits that it gave. */
const golden = join(root, 'test', 'golden', 'peft');
const written = [];
for (const release of readdirSync(golden, { withFileTypes: true }).filter((d) => d.isDirectory()))
  for (const variant of readdirSync(join(golden, release.name))) {
    const folder = join(golden, release.name, variant);
    const made = JSON.parse(readFileSync(join(folder, 'made.json'), 'utf8'));
    const base = openCheckpoint(CHECKPOINTS[made.base]);
    let result;
    try {
      const adapter = readPeft(folder, base.config);
      const comparer = new Comparer();
      const file = readFloatFile(join(folder, 'logits.safetensors'));
      comparer.add(logitsOf(base, adapter.model, Int32Array.from(made.tokens)), file.entries.get('logits').read());
      file[Symbol.dispose]();
      adapter.close();
      result = comparer.result();
    } catch (e) {
      if (e.code !== 'adapter_ambiguous') throw e;
      result = { ambiguous: true };
    }
    base.close();
    written.push({ release: release.name, variant, base: made.base, versions: made.versions, ...result });
  }

const llamaJob = {
  program: o.llama,
  models: join(root, 'models'),
  adapters: ADAPTERS,
  adapterOn,
  fresh,
  only: o.only,
};
const llama = await llamaRows(llamaJob);
const isolated = o.only ? [] : await isolationRows(llamaJob);

const line = (r) =>
  `| ${r.checkpoint} | ${r.name} | ${r.format} | ${r.consumer} | ${r.compared} | ${power(r.maxDifference)} | ` +
  `${power(r.maxDifference / r.maxLogit)} |`;
const readLine = (w) =>
  `| ${w.versions.peft} | ${w.versions.transformers} | ${w.variant} | ${w.base} | ` +
  (w.ambiguous
    ? 'refused: adapter_ambiguous | |'
    : `${power(w.maxDifference)} | ${power(w.maxDifference / w.maxLogit)} |`);
const bad = rows.filter((r) => !r.consumer.startsWith('temper') && !(r.maxDifference <= 1e-4 * r.maxLogit));
const page = `# Exports in their consumers' hands

Made by \`node scripts/interop.mjs --python PYTHON --llama PATH\` with ${versions},
${llama[0]?.versions}; every row is measured.

## peft and transformers

Checkpoints: models/nano and two of test/golden/model, of other widths, windows and limits. Adapters are
random. All logits of two sequences are compared, in f32: the largest difference, and the same as a share of the largest
logit. A consumer is compared with what Temper computes from the same files; Temper's own reload is compared with base
and adapter as they were before the export, so its rows say what rounding to bf16 or MXFP4 costs on random adapters, and
0 where nothing is rounded.

| checkpoint | adapter | export | consumer | logits | largest difference | relative |
|---|---|---|---|---|---|---|
${rows.map(line).join('\n')}

## Adapters written by peft

Read by Temper and compared with the logits that peft gave when it wrote them (test/golden/peft). A down_proj alone on a
square model can lie in two ways from peft 0.19 on; it is refused until \`--expert-layout\` says which.

| peft | transformers | variant | checkpoint | largest difference | relative |
|---|---|---|---|---|---|
${written.map(readLine).join('\n')}

## llama.cpp

llama-server on a CPU, keys and values in f32: the log-probability of every token after every prefix, beside our model
read back from the same file. Checkpoints: models/nano and models/nano-judge; a random one with plain rotary positions
and odd numbers of heads, experts and layers; a random one of the released widths (2,880; 64 heads; two layers, three
experts). All but the one with plain positions have YaRN, whose bounds llama.cpp rounds to whole numbers, whatever the
model says: ours are rounded in the same way for this comparison. In gguf it rounds the inputs of products, to bf16
beside bf16 and to 8 bits beside MXFP4, and ours do so too. With no adapter 140 tokens, beyond every window; else 36 and
4. Relative is the root mean square of the differences beside the spread of our log-probabilities. Allowed is what
\`temper verify --llama\` lets pass (docs/guides/gguf.md says why). gguf-lora lies on a base in f32.

${llamaTable(llama)}

## Where the distance of gguf comes from

The same values in other types, so that llama.cpp rounds other inputs: none beside f32, to bf16 beside bf16, to 8 bits
in groups of 32 beside MXFP4. Bases alone, 36 and 4 tokens, relative as above.

${isolationTable(isolated)}
`;
console.log(
  `${rows.length} rows of exports, ${written.length} of adapters that peft wrote, ${llama.length} of llama.cpp`,
);
if (o.only) console.log(page);
else writeFileSync(join(root, 'docs', 'interop.md'), page);
const wrong = llama.filter((r) => !r.ok);
if (bad.length + wrong.length > 0) {
  console.error(`${bad.length} rows above 1e-4:\n${bad.map(line).join('\n')}\n${llamaTable(wrong)}`);
  process.exitCode = 1;
}
