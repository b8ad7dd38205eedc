// Exports in the hands of peft and transformers, and adapters that peft wrote: sections of docs/interop.md.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FORMATS } from '../dist/export/formats/index.js';
import { runExport } from '../dist/export/run-export.js';
import { openSource } from '../dist/export/source.js';
import { Comparer, compareLogits, logitsOf, probes } from '../dist/export/verify-logits.js';
import { adapterOf, readPeft } from '../dist/lora/peft.js';
import { readFloatFile } from '../dist/lora/tensor-reader.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const CHECKPOINTS = {
  nano: join(root, 'models', 'nano'),
  odd: join(root, 'test', 'golden', 'model', 'odd'),
  plain: join(root, 'test', 'golden', 'model', 'plain'),
};
const CONSUMERS = { peft: ['peft'], 'merged-bf16': ['transformers'], 'merged-mxfp4': ['transformers'] };

const power = (x) => (x === 0 ? '0' : x.toExponential(1));
const line = (r) =>
  `| ${r.checkpoint} | ${r.name} | ${r.format} | ${r.consumer} | ${r.compared} | ${power(r.maxDifference)} | ` +
  `${power(r.maxDifference / r.maxLogit)} |`;
const readLine = (w) =>
  `| ${w.versions.peft} | ${w.versions.transformers} | ${w.variant} | ${w.base} | ` +
  (w.ambiguous
    ? 'refused: adapter_ambiguous | |'
    : `${power(w.maxDifference)} | ${power(w.maxDifference / w.maxLogit)} |`);

/** Every cell's export, its own reload, and what its consumer computes. */
async function exportRows({ python, adapters, adapterOn, fresh, only }) {
  const rows = [];
  const jobs = [];
  for (const [checkpoint, base] of Object.entries(CHECKPOINTS))
    for (const [name, choice] of Object.entries(adapters)) {
      const label = `${checkpoint} ${name}`;
      if (only && !label.includes(only)) continue;
      const adapter = await adapterOn(base, choice);
      for (const [format, consumers] of Object.entries(CONSUMERS)) {
        if (!FORMATS.some((f) => f.name === format)) continue;
        const dir = fresh();
        await runExport({ adapter, model: base, format: [format], out: dir, evalTokens: 0 });
        const source = await openSource({ adapter, model: base });
        const trained = adapterOf(source.adapter);
        const exported = FORMATS.find((f) => f.name === format).reload(dir, source.base);
        const sequences = (await probes(source)).slice(0, 2);
        const own = await compareLogits(
          source.base,
          exported,
          { model: source.base, adapter: trained.model },
          sequences,
        );
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

  const list = fresh();
  writeFileSync(list, JSON.stringify(jobs.map((j) => j.job)));
  const ran = spawnSync(python, [join(root, 'scripts', 'consumer_logits.py'), list], {
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

  return { rows, versions };
}

/** Adapters that peft wrote, and the logits that it gave. */
function writtenRows() {
  const golden = join(root, 'test', 'golden', 'peft');
  const written = [];
  // What is in refused/ has no logits to compare: test/lora says how each is refused.
  const releases = readdirSync(golden, { withFileTypes: true }).filter((d) => d.isDirectory() && d.name !== 'refused');
  for (const release of releases)
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
  return written;
}

/** @param o python, adapters by name, adapterOn and fresh of interop.mjs */
export async function peftSections(o) {
  const written = writtenRows(),
    { rows, versions } = await exportRows(o);
  const bad = rows.filter((r) => !r.consumer.startsWith('temper') && !(r.maxDifference <= 1e-4 * r.maxLogit));
  const text = `## peft and transformers

With ${versions}. Checkpoints: models/nano and two of test/golden/model, of other widths, windows and
limits. Adapters are random. All logits of two sequences are compared, in f32: the largest difference, and the same as a
share of the largest logit. A consumer is compared with what Temper computes from the same files; Temper's own reload is
compared with base and adapter as they were before the export, so its rows say what rounding to bf16 or MXFP4 costs on
random adapters, and 0 where nothing is rounded.

| checkpoint | adapter | export | consumer | logits | largest difference | relative |
|---|---|---|---|---|---|---|
${rows.map(line).join('\n')}

## Adapters written by peft

Read by Temper and compared with the logits that peft gave when it wrote them (test/golden/peft). A down_proj alone on a
square model can lie in two ways from peft 0.19 on; it is refused until \`--expert-layout\` says which.

| peft | transformers | variant | checkpoint | largest difference | relative |
|---|---|---|---|---|---|
${written.map(readLine).join('\n')}
`;
  return { text, wrong: bad.map(line) };
}
