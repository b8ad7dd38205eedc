// node scripts/interop.mjs [--python PYTHON] [--llama PATH] [--only WORD]: writes docs/interop.md, where every row is
// measured: an export of an adapter on a checkpoint, loaded by its real consumer, every logit compared. PYTHON has
// torch, transformers and peft, PATH is llama.cpp's llama-server; sections of the one that is not given stay as they
// are. With --only the sections are printed, and the page stays as it is. Needs the build.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createAdapter } from '../dist/lora/adapter.js';
import { writePeft } from '../dist/lora/peft.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { readConfig } from '../dist/model/config.js';
import { ops } from '../dist/native/ops.js';
import { llamaSections } from './interop-llama.mjs';
import { peftSections } from './interop-peft.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: o } = parseArgs({
  options: { python: { type: 'string' }, llama: { type: 'string' }, only: { type: 'string' } },
});
if (!o.python && !o.llama)
  throw new Error("give --python, a Python with torch, transformers and peft, and --llama, llama.cpp's llama-server");

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

/** Prose within 120 columns. */
const folded = (markdown) =>
  markdown
    .split('\n\n')
    .map((p) => (/^[|#]/.test(p) ? p : p.replace(/\s+/g, ' ').replace(/(.{1,118})(?: |$)/g, '$1\n')).trim())
    .join('\n\n')
    .concat('\n');

const page = join(root, 'docs', 'interop.md');
const was = readFileSync(page, 'utf8');
const at = was.indexOf('## llama.cpp');
const kept = { peft: was.slice(was.indexOf('## peft and'), at), llama: was.slice(at) };
const models = join(root, 'models');
const job = { python: o.python, program: o.llama, models, adapters: ADAPTERS, adapterOn, fresh, only: o.only };
const peft = o.python ? await peftSections(job) : { text: kept.peft, wrong: [] };
const llama = o.llama ? await llamaSections(job) : { text: kept.llama, wrong: [] };
const text = `# Exports in their consumers' hands

Made by \`node scripts/interop.mjs --python PYTHON --llama PATH\`; every row is measured.

${peft.text.trim()}

${llama.text.trim()}
`;
if (o.only) console.log(text);
else {
  writeFileSync(page, folded(text));
  const biome = join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome');
  spawnSync(process.execPath, [biome, 'format', '--write', page]);
}
const wrong = [...peft.wrong, ...llama.wrong];
console.log(`docs/interop.md: ${text.split('\n').filter((l) => l.startsWith('| ')).length} lines of tables`);
if (wrong.length > 0) {
  console.error(`${wrong.length} rows too far off:\n${wrong.join('\n')}`);
  process.exitCode = 1;
}
