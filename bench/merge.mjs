// node bench/merge.mjs --work DIR [--preset 20b] [--layers N] [--rank 8] [--formats merged-bf16,merged-mxfp4]
// [--dense]: speed and memory of merged exports, beside dd writing as many bytes to the same disk in the same run. The
// checkpoint and the adapter are made up. RssAnon is the private memory: the mapped base is not in it. Needs the build.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createAdapter } from '../dist/lora/adapter.js';
import { writePeft } from '../dist/lora/peft.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { initCheckpoint, PRESETS } from '../dist/model/init.js';
import { ops } from '../dist/native/ops.js';

const { values: o } = parseArgs({
  options: {
    work: { type: 'string' },
    preset: { type: 'string', default: '20b' },
    layers: { type: 'string' },
    rank: { type: 'string', default: '8' },
    formats: { type: 'string', default: 'merged-bf16,merged-mxfp4' },
  },
});
if (!o.work) throw new Error('--work DIR is missing: a folder on the disk that is measured');
const cli = join(dirname(dirname(fileURLToPath(import.meta.url))), 'dist', 'cli', 'main.js');
const preset = PRESETS[o.preset];
const layers = Number(o.layers ?? preset.num_hidden_layers);
const { layer_types: _, ...rest } = preset;
const config = { ...rest, num_hidden_layers: layers };
mkdirSync(o.work, { recursive: true });
const model = join(o.work, `model-${o.preset}-${layers}`),
  adapter = join(o.work, `adapter-${o.preset}-${layers}-${o.rank}`);
if (!existsSync(model)) await initCheckpoint(model, config, { seed: 1 });
if (!existsSync(adapter)) {
  const targets = ['attention', 'experts'];
  const spec = adapterSpec(config, { rank: Number(o.rank), alpha: 16, targets, rsLora: false, dropout: 0 });
  const a = createAdapter(config, spec, { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i], 7 + i, -0.01, 0.01);
  });
  await writePeft(a, adapter, { baseModel: o.preset });
  a.close();
}

/** Peak of a process's private memory, looked at every 50 ms. */
function run(args) {
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  let peak = 0;
  const timer = setInterval(() => {
    try {
      const kb = /RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1];
      peak = Math.max(peak, Number(kb ?? 0) * 1024);
    } catch {
      // it has just ended
    }
  }, 50);
  const began = performance.now();
  return new Promise((done, fail) => {
    child.on('close', (code) => {
      clearInterval(timer);
      if (code !== 0) fail(new Error(`${args.join(' ')}: exit ${code}`));
      else done({ seconds: (performance.now() - began) / 1000, peak });
    });
  });
}
const bytesIn = (folder) => readdirSync(folder).reduce((n, f) => n + statSync(join(folder, f)).size, 0);
function dd(bytes) {
  const file = join(o.work, 'dd.bin');
  const began = performance.now();
  spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=16M', `count=${Math.ceil(bytes / 2 ** 24)}`, 'conv=fsync']);
  const seconds = (performance.now() - began) / 1000;
  rmSync(file);
  return bytes / 1e6 / seconds;
}

for (const format of o.formats.split(',')) {
  const out = join(o.work, `out-${format}`);
  rmSync(out, { recursive: true, force: true });
  const args = ['export', '--adapter', adapter, '--model', model, '--format', format, '--out', out, '--json'];
  const { seconds, peak } = await run([...args, '--eval-tokens', '0']);
  const bytes = bytesIn(out);
  rmSync(out, { recursive: true });
  const disk = dd(bytes),
    speed = bytes / 1e6 / seconds;
  console.log(
    `${format}: ${layers} layers of ${o.preset}, ${(bytes / 1e9).toFixed(1)} GB in ${seconds.toFixed(1)} s, ` +
      `${speed.toFixed(0)} MB/s, dd ${disk.toFixed(0)} MB/s (${((100 * speed) / disk).toFixed(0)} %), ` +
      `private memory ${(peak / 2 ** 20).toFixed(0)} MiB`,
  );
}
