// node bench/hold.mjs [--model DIR] [--judge DIR] [--streams N] [--rounds N] [--threads N]: what hold-back costs. Streams
// of a model are judged by the embedded judge, and by a scripted one that answers at once, which leaves the cost of the
// mechanism. Told of each: how long a sentence waited for its verdict, and the share of the text that had left when
// the last token was there. One JSON row per figure on stdout. Needs the build (npm run build).
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: join(root, 'models', 'nano') },
    judge: { type: 'string', default: join(root, 'models', 'nano-judge') },
    streams: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string' },
  },
});
const streams = Number(values.streams),
  rounds = Number(values.rounds),
  threads = values.threads === undefined ? {} : { threads: Number(values.threads) };
const load = (file) => import(`../dist/${file}.js`);
const [{ openEngine }, { heldTurn }, { createEngineJudge }, { createScreen }, { loadPolicy }, { toConversation }] =
  await Promise.all(
    [
      'infer/engine',
      'compose/held-turn',
      'compose/engine-judge',
      'safeguard/screen',
      'safeguard/policy',
      'harmony/chat',
    ].map(load),
  );
const { renderVerdict } = await load('safeguard/contract');
const policies = [await loadPolicy(join(root, 'policies', 'contact', 'policy.md'))];

const quantile = (xs, q) =>
  xs.toSorted((a, b) => a - b)[Math.min(xs.length - 1, Math.floor(xs.length * q))] ?? Number.NaN;
const round = (x, places = 1) => Math.round(x * 10 ** places) / 10 ** places;
const row = (name, figures) =>
  console.log(JSON.stringify({ bench: 'hold', name, streams, cores: cpus().length, ...figures }));

const engine = await openEngine({ model: values.model, slots: streams, contextTokens: 2048, ...threads });
const judging = await openEngine({ model: values.judge, slots: streams, prefixes: 4, ...threads });
const judges = {
  'nano-judge': await createEngineJudge(judging, { name: 'nano-judge', maxTokens: 512 }),
  scripted: {
    name: 'scripted',
    digest: 's',
    judge: async ({ nonce }) => ({ text: renderVerdict({ rule: null, nonce }), finish: 'stop' }),
  },
};
