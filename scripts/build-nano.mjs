// npm run build:nano: makes models/nano and models/nano-judge again, from nothing but this repository.
// generators → own BPE → pretrain base → pretrain judge, widen it → copy into models/ → measure.
//   node scripts/build-nano.mjs [--only data|base|judge|measure] [--out DIR]
// Kernels of other instruction sets sum in another order: the shipped bytes are those of AVX2, which is asked for where
// TEMPER_ISA does not say otherwise.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { generate as generateDesk } from '../datasets/desk/generate.mjs';
import { writeJsonl } from '../datasets/desk/write.mjs';
import { generate as generateScreening } from '../datasets/screening/generate.mjs';
import { generate as generateTickets } from '../datasets/tickets/generate.mjs';
import { sizes } from './nano/sizes.mjs';
import { makeTokenizer } from './nano/tokenizer.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({ options: { only: { type: 'string' }, out: { type: 'string' } } });
const wanted = (part) => values.only === undefined || values.only === part;
const out = values.out ?? mkdtempSync(join(tmpdir(), 'temper-nano-'));
const say = (text) => process.stdout.write(`· ${text}\n`);
const temper = join(root, 'dist', 'cli', 'main.js');
if (!existsSync(temper)) {
  say('dist/ is missing; run `npm run build` first');
  process.exit(1);
}

const env = process.arch === 'x64' ? { TEMPER_ISA: 'avx2', ...process.env } : process.env;
/** Runs the CLI; its last line of JSON. */
function run(args) {
  const child = spawnSync(process.execPath, [temper, ...args, '--json'], {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const result = JSON.parse(child.stdout.trim().split('\n').at(-1) || '{}');
  if (result.error) {
    say(`temper ${args[0]}: ${result.error.message}`);
    process.exit(child.status || 1);
  }
  return result;
}

if (wanted('data')) {
  const contract = await import('../dist/safeguard/contract.js');
  const made = {
    desk: generateDesk(sizes.desk),
    tickets: generateTickets(sizes.tickets),
    screening: generateScreening(sizes.screening, contract),
  };
  for (const [name, files] of Object.entries(made)) {
    for (const [file, rows] of Object.entries(files)) {
      const w = writeJsonl(join(root, 'datasets', name, `${file}.jsonl`), rows);
      say(`${name}/${file}.jsonl  ${w.rows} rows  sha256 ${w.sha256.slice(0, 16)}`);
    }
  }
  const tokenizer = makeTokenizer(contract);
  for (const model of ['nano', 'nano-judge']) {
    mkdirSync(join(root, 'models', model), { recursive: true });
    writeFileSync(join(root, 'models', model, 'tokenizer.json'), tokenizer);
  }
}

/** Puts files of a folder into that of a model, in place of the weights that were there. */
function put(model, files, from) {
  const folder = join(root, 'models', model);
  for (const file of readdirSync(folder))
    if (file.endsWith('.safetensors') || file.endsWith('.index.json')) rmSync(join(folder, file));
  for (const file of files) copyFileSync(join(from, file), join(folder, file));
  const bytes = readdirSync(folder).reduce((sum, f) => sum + statSync(join(folder, f)).size, 0);
  say(`models/${model}: ${(bytes / 1e6).toFixed(2)} MB`);
}

for (const [part, recipe, model] of [
  ['base', 'nano-base', 'nano'],
  ['judge', 'nano-judge', 'nano-judge'],
]) {
  if (!wanted(part)) continue;
  say(`pretraining models/${model} by recipes/${recipe}.yaml into ${join(out, recipe)}`);
  const result = run(['train', join('recipes', `${recipe}.yaml`), '--out', join(out, recipe)]);
  say(
    `${result.steps} steps, ${result.tokens} tokens in ${(result.seconds / 60).toFixed(1)} ` +
      `min, loss ${result.firstLoss.toFixed(3)} → ${result.lastLoss.toFixed(4)}`,
  );
  put(model, readdirSync(result.output), result.output);
  if (part !== 'judge') continue;
  say(`widening models/${model} by recipes/nano-judge-added.yaml into ${join(out, 'nano-judge-added')}`);
  run(['train', join('recipes', 'nano-judge-added.yaml'), '--out', join(out, 'nano-judge-added')]);
  const merged = join(out, 'merged');
  run(['export', join(out, 'nano-judge-added'), '--format', 'merged-mxfp4', '--out', merged]);
  put(model, ['model.safetensors'], merged);
}

if (wanted('measure')) {
  const result = run(['demo', '--out', join(out, 'demo')]);
  for (const c of result.checks) say(`${c.ok ? 'holds' : 'FAILS'}: ${c.name} ${c.value} (wanted ${c.wanted})`);
  say(`figures: ${result.report}`);
  process.exit(result.ok ? 0 : 1);
}
