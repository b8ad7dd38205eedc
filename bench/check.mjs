// npm run bench:check [-- --update]: the headline numbers of this machine against those stored for its kind (CPU model
// and cores) in bench/baseline.json. Each stored number has its noise, the spread of repeated runs; what is worse by
// more than that is named and fails. --update measures and stores. Run it on a quiet machine; a minute or two.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const path = join(root, 'bench', 'baseline.json');
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
export const machine = () => `${cpus()[0]?.model ?? 'unknown'} · ${availableParallelism()} cores`;

/** One JSON value, or one per line, from a program of this package. */
function run(args) {
  const child = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 });
  if (child.status !== 0) throw new Error(`${args.join(' ')} failed: ${child.stderr}`);
  return child.stdout.trim().split('\n');
}

/** Megabytes of English and code a CPU second, on one core. */
async function tokenizerSpeed() {
  const { tokenizerFromRanks } = await import('../dist/harmony/tokenizer.js');
  const { languageText, packageText } = await import('../test/harmony/corpus.mjs');
  const file = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json');
  const ranks = [];
  for (const line of file.bpe_ranks.split('\n')) {
    const [, first, ...tokens] = line.split(' ');
    for (const [i, token] of tokens.entries()) ranks[Number(first) + i] = Buffer.from(token, 'base64');
  }
  const tokenizer = tokenizerFromRanks(ranks);
  const texts = [languageText('en', 1e6), ...packageText(root, /\.(?:js|ts|mjs)$/, 1e6)];
  const bytes = texts.reduce((n, t) => n + Buffer.byteLength(t), 0);
  const rounds = Array.from({ length: 7 }, () => {
    const before = process.cpuUsage();
    for (const t of texts) tokenizer.encode(t);
    const used = process.cpuUsage(before);
    return bytes / (used.user + used.system);
  });
  tokenizer.close();
  return median(rounds.slice(1));
}

/** Name → figure; `better` says which way is good. */
async function measure() {
  const figures = {};
  const bench = ['bench', '--preset', 'nano', '--device', 'cpu', '--seconds', '2', '--json'];
  const shapes = ['--prefill', '512', '--depths', '0', '--batches', '1', '--lora', '512'];
  const { rows } = JSON.parse(run([join('dist', 'cli', 'main.js'), ...bench, ...shapes]).at(-1) ?? '{}');
  for (const r of rows)
    if (Number.isFinite(r.tokensPerSecond) && r.tokensPerSecond > 0)
      figures[`nano ${r.name}`] = { value: r.tokensPerSecond, unit: 'tokens/s', better: 'higher' };
  for (const line of run([join('bench', 'op-overhead.mjs')])) {
    const { case: name, microseconds } = JSON.parse(line);
    figures[`op call: ${name}`] = { value: microseconds, unit: 'µs', better: 'lower' };
  }
  figures['tokenizer, one core'] = { value: await tokenizerSpeed(), unit: 'MB/s', better: 'higher' };
  return figures;
}

/** Median and noise (spread over median) of each figure over runs. */
export function summarise(runs) {
  return Object.fromEntries(
    Object.entries(runs[0]).map(([name, { unit, better }]) => {
      const values = runs.map((r) => r[name].value);
      const value = median(values);
      const noise = (Math.max(...values) - Math.min(...values)) / value;
      return [name, { value: Number(value.toPrecision(5)), unit, better, noise: Number(noise.toPrecision(2)) }];
    }),
  );
}

/** Stored against measured figures: one row each; `fell` where it is worse by more than the stored noise. */
export function compare(stored, now) {
  return Object.entries(stored).map(([name, was]) => {
    const value = now[name]?.value;
    if (value === undefined) return { name, was, value: Number.NaN, change: Number.NaN, fell: true };
    const change = was.better === 'higher' ? value / was.value - 1 : was.value / value - 1;
    return { name, was, value, change, fell: !(change >= -was.noise) };
  });
}

async function main() {
  const all = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
  const kind = machine();
  const update = process.argv.includes('--update');
  const stored = all[kind];
  if (!update && !stored) {
    process.stdout.write(`no numbers are stored for ${kind}; store them with npm run bench:check -- --update\n`);
    return 0;
  }
  const runs = [];
  for (let i = 0; i < (update ? 5 : 3); i++) runs.push(await measure());
  const now = summarise(runs);
  if (update) {
    all[kind] = { node: process.versions.node, day: new Date().toISOString().slice(0, 10), figures: now };
    writeFileSync(path, `${JSON.stringify(all, null, 2)}\n`);
    process.stdout.write(`stored ${Object.keys(now).length} numbers of ${kind}, medians of ${runs.length} runs\n`);
    return 0;
  }
  const rows = compare(stored.figures, now);
  const percent = (x) => `${(100 * x).toFixed(1)} %`;
  for (const { name, was, value, change, fell } of rows)
    process.stdout.write(
      `${fell ? '✗' : '✓'} ${name}: ${value.toPrecision(4)} ${was.unit}, was ${was.value}: ` +
        `${change < 0 ? 'worse by' : 'better by'} ${percent(Math.abs(change))} (noise ${percent(was.noise)})\n`,
    );
  const failed = rows.filter((r) => r.fell).length;
  process.stdout.write(`${rows.length - failed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = await main();
