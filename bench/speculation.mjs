// node bench/speculation.mjs [--model DIR] [--threads N] [--tokens N] [--rounds N] [--streams N,…] [--draft DIR]:
// tokens a second with guesses and without, in turns in one process. `repeats`: greedy decoding of a text that goes
// round. `random`: tokens by chance, temperature 2, where there is nothing to guess. One JSON row per figure on stdout.
// Needs the build (npm run build).
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: join(root, 'models', 'nano') },
    threads: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '400' },
    rounds: { type: 'string', default: '6' },
    streams: { type: 'string', default: '1,4,16' },
    draft: { type: 'string' },
  },
});
const [{ openCheckpoint }, { Session }, { setThreads }, { loadTokenizer }] = await Promise.all([
  import('../dist/model/checkpoint.js'),
  import('../dist/infer/session.js'),
  import('../dist/native/tensor.js'),
  import('../dist/harmony/tokenizer.js'),
]);
setThreads(Number(values.threads));
const model = openCheckpoint(values.model),
  draft = values.draft === undefined ? null : openCheckpoint(values.draft);
// The shapes count, and the texts are ids: a model without a tokenizer takes those of another one.
const named = existsSync(join(values.model, 'tokenizer.json')) ? values.model : join(root, 'models', 'nano');
const tokenizer = loadTokenizer(named);
const tokens = Number(values.tokens),
  V = model.config.vocab_size - 24,
  capacity = Math.min(model.config.max_position_embeddings, 2 * tokens + 64);
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;
const round = (x) => Number(x.toPrecision(4));

const WORDS = ['one', 'two', 'three', 'table', 'friday', 'garden', 'quartz', 'daisy', 'falcon', 'we will', 'a', 'to'];
let salt = 1;
const chance = (n) => {
  salt = (Math.imul(salt, 1664525) + 1013904223) >>> 0;
  return 7 + Math.floor((salt / 2 ** 32) * n);
};
const texts = {
  repeats: () => {
    const line = Array.from({ length: 3 }, () => WORDS[chance(WORDS.length) - 7]).join(' ');
    return { tokens: tokenizer.encode(`${line} `.repeat(12)), temperature: 0 };
  },
  random: () => ({ tokens: Int32Array.from({ length: 120 }, () => chance(V)), temperature: 2 }),
};
/** @returns tokens a second of all streams together while they decode, and what was guessed */
function run(session, requests) {
  const before = session.usage;
  for (const { tokens: prompt, temperature } of requests)
    session.start({
      tokens: prompt,
      maxTokens: tokens,
      stop: new Set(),
      sampling: { temperature, topK: 0, topP: 1, minP: 0, seed: 1 },
    });
  let taken = 0,
    steps = 0,
    since = 0;
  while (!session.idle) {
    const got = session.step().length;
    if (since === 0 && session.usage.waiting === 0 && got === requests.length) since = performance.now();
    else if (since > 0) {
      taken += got;
      steps++;
    }
  }
  const { draftedTokens, acceptedTokens } = session.usage;
  return {
    rate: (1000 * taken) / (performance.now() - since),
    steps,
    drafted: draftedTokens - before.draftedTokens,
    accepted: acceptedTokens - before.acceptedTokens,
  };
}

for (const streams of values.streams.split(',').map(Number))
  for (const [name, make] of Object.entries(texts)) {
    const options = { precision: /** @type {'bf16'} */ ('bf16'), slots: streams, capacity };
    const plain = new Session(model, options),
      guessing = new Session(model, { ...options, draft, speculation: { when: 'auto' } });
    const rows = { plain: [], guessing: [] };
    for (let i = 0; i <= Number(values.rounds); i++) {
      const requests = Array.from({ length: streams }, make);
      // The first of two is the slower one on a machine that has just done something else.
      const order = i % 2 ? ['guessing', 'plain'] : ['plain', 'guessing'];
      for (const k of order) {
        const got = run(k === 'plain' ? plain : guessing, requests);
        if (i > 0) rows[k].push(got);
      }
    }
    const rate = (k) => median(rows[k].map((r) => r.rate));
    const sum = (k) => rows.guessing.reduce((a, r) => a + r[k], 0);
    process.stdout.write(
      `${JSON.stringify({
        bench: 'speculation',
        name,
        streams,
        tokens,
        plain: round(rate('plain')),
        guessing: round(rate('guessing')),
        ratio: round(median(rows.guessing.map((r, i) => r.rate / rows.plain[i].rate))),
        steps: median(rows.guessing.map((r) => r.steps)),
        drafted: sum('drafted'),
        accepted: sum('accepted'),
        node: process.versions.node,
        cpu: cpus()[0]?.model,
      })}\n`,
    );
    plain.close();
    guessing.close();
  }
tokenizer.close();
draft?.close();
model.close();
