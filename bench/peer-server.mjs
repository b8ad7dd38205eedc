// node bench/peer-server.mjs --llama-server FILE [--work DIR] [--layers N] [--streams 1,16] [--tokens N] [--rounds N]
// [--threads N]: tokens a second through HTTP of this server and of llama.cpp's, on the same weights: the released
// 20b's shapes with so many layers and o200k's vocabulary, made up, bf16 and MXFP4 in both. Requests go to one and the
// other in turns, the same ones, each a text of its own. Checkpoint and GGUF stay in --work. One JSON row for each
// number of streams. Needs the build.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { exportRun } from '../dist/export/export.js';
import { settle, shapes20b, WORK } from './serving.mjs';

const { values: o } = parseArgs({
  options: {
    'llama-server': { type: 'string' },
    work: { type: 'string', default: WORK },
    layers: { type: 'string', default: '6' },
    streams: { type: 'string', default: '1,16' },
    tokens: { type: 'string', default: '24' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(cpus().length) },
  },
});
if (!o['llama-server']) throw new Error("--llama-server: wanted the path of llama.cpp's server");
const rounds = Number(o.rounds),
  tokens = Number(o.tokens),
  most = Math.max(...o.streams.split(',').map(Number)),
  context = 512;
const say = (text) => process.stderr.write(`${text}\n`);
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;

const model = await shapes20b(Number(o.layers), { work: o.work }),
  exported = `${model}-gguf`;
if (!existsSync(exported)) {
  say(`making ${exported}`);
  await exportRun({ model, format: ['gguf'], out: exported });
}
const gguf = join(exported, readdirSync(exported).find((name) => name.endsWith('.gguf')) ?? '');
const weights = readdirSync(model).filter((name) => name.endsWith('.safetensors'));
settle(...weights.map((name) => join(model, name)), gguf);

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => done(port));
    });
  });
const children = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
async function started(name, tool, args) {
  const port = await freePort();
  const child = spawn(tool, [...args, '--host', '127.0.0.1', '--port', String(port)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  let said = '';
  child.stderr.on('data', (d) => {
    said = (said + d).slice(-4000);
  });
  for (const end = Date.now() + 600_000; Date.now() < end; ) {
    if (child.exitCode !== null) throw new Error(`${name} ended: ${said}`);
    const ready = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null);
    if (ready?.ok) return `http://127.0.0.1:${port}`;
    await new Promise((later) => setTimeout(later, 250));
  }
  throw new Error(`${name}: not ready after ten minutes: ${said}`);
}
const urls = { ours: '', theirs: '' };
urls.ours = await started('temper', process.execPath, [
  join('dist', 'cli', 'main.js'),
  'serve',
  ...['--model', model, '--name', 'base', '--device', 'cpu', '--threads', o.threads],
  ...['--slots', String(most), '--context', String(context)],
]);
urls.theirs = await started('llama-server', o['llama-server'], [
  ...['-m', gguf, '--threads', o.threads, '--threads-batch', o.threads, '--parallel', String(most)],
  ...['-c', String(context * most), '--no-webui', '--skip-chat-parsing'],
]);

/**
 * Ids of words in small letters, spread over the vocabulary. Both servers are held to them: a made-up model says halves
 * of characters and ends when it likes, and the peer answers 500 where a text is no UTF-8. Which of them comes next is
 * still the model's to say.
 */
function words(most = 512) {
  const { vocab } = JSON.parse(readFileSync(join(model, 'tokenizer.json'), 'utf8')).model;
  const all = Object.keys(vocab).filter((token) => /^\u0120[a-z]{2,}$/.test(token));
  return Array.from({ length: most }, (_, i) => vocab[all[Math.floor((i * all.length) / most)]]);
}
const bias = Object.fromEntries(words().map((id) => [id, 100]));
/** Of the peer its own API, whose answers it need not read as a chat. */
const APIS = {
  ours: {
    path: '/v1/completions',
    body: (prompt) => ({ model: 'base', prompt, max_tokens: tokens, temperature: 0, logit_bias: bias }),
    count: (answer) => answer.usage.completion_tokens,
  },
  theirs: {
    path: '/completion',
    body: (prompt) => ({ prompt, n_predict: tokens, temperature: 0, logit_bias: bias }),
    count: (answer) => answer.tokens_predicted,
  },
};
/** Tokens a second of so many requests at once. @param salt makes texts that no cache has */
async function rate(name, streams, salt) {
  const began = performance.now();
  const { path, body, count } = APIS[name];
  const counts = await Promise.all(
    Array.from({ length: streams }, async (_, i) => {
      const response = await fetch(urls[name] + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body(`${salt * 100 + i} tables were laid`)),
      });
      const answer = /** @type {any} */ (await response.json());
      if (!response.ok) throw new Error(JSON.stringify(answer));
      if (count(answer) !== tokens) throw new Error(`${name}: ${count(answer)} tokens of ${tokens}`);
      return tokens;
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  return counts.reduce((a, b) => a + b, 0) / seconds;
}
let salt = 1;
for (const streams of o.streams.split(',').map(Number)) {
  await rate('ours', streams, salt++); // pages, caches, recordings
  await rate('theirs', streams, salt++);
  const pairs = [];
  for (let round = 0; round < rounds; round++) {
    salt++;
    const turns = ['ours', 'theirs'];
    if (round % 2) turns.reverse();
    const of = {};
    for (const name of turns) of[name] = await rate(name, streams, salt);
    pairs.push(of);
    say(`${streams} streams: ${of.ours.toFixed(2)} and ${of.theirs.toFixed(2)} tokens/s`);
  }
  const round = (x) => Number(x.toPrecision(4));
  process.stdout.write(
    `${JSON.stringify({
      bench: 'peer-server',
      shapes: '20b',
      layers: Number(o.layers),
      streams,
      tokens,
      rounds,
      ours: round(median(pairs.map((p) => p.ours))),
      theirs: round(median(pairs.map((p) => p.theirs))),
      ratio: round(median(pairs.map((p) => p.ours / p.theirs))),
      threads: Number(o.threads),
      node: process.versions.node,
      cpu: cpus()[0]?.model,
    })}\n`,
  );
}
process.exit(0);
