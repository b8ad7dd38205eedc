// node bench/hold.mjs [--model DIR] [--judge DIR] [--streams N] [--rounds N] [--sentences N] [--threads N,…]
// [--ahead default|off|N,…]: what hold-back costs. The streams are of a real engine; the embedded one knows short
// answers only, so each token that it samples is told as a piece of an answer of several sentences, which the judge
// allows. Judged by the embedded judge, an engine beside it; and by a scripted one that answers at once, which leaves
// the cost of the mechanism. Told of each: how long a sentence waited, from its last character until it left, and the
// share of the answer that had left when its last token was there. One JSON row per figure on stdout. Needs the build
// (npm run build).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { longer } from './serving.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: join(root, 'models', 'nano') },
    judge: { type: 'string', default: join(root, 'models', 'nano-judge') },
    streams: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '5' },
    sentences: { type: 'string', default: '4' },
    // Engines of one process share its threads: with one each runs on a core of its own, with more they take turns.
    threads: { type: 'string', default: '1,2' },
    // Characters that a stream may be written ahead of those that are judged, off: any number; one setting after the
    // other. default: as where nothing is said.
    ahead: { type: 'string', default: 'default' },
    // The build of another checkout, to compare with.
    dist: { type: 'string', default: join(root, 'dist') },
  },
});
const streams = Number(values.streams),
  rounds = Number(values.rounds),
  sentences = Number(values.sentences);
/** What the judge is likely to answer, and what a step takes, is known after so many. */
const WARM_ROUNDS = 6;
/** Where nothing is said: of a judge behind a URL, for which the scripted one stands, and of a local one. */
const DEFAULT_AHEAD = { scripted: 'off', 'nano-judge': '0' };
const load = (file) => import(join(values.dist, `${file}.js`));
const [{ openEngine }, { heldTurn }, { createEngineJudge }, { createScreen }, { loadPolicy }, { renderVerdict }] =
  await Promise.all(
    [
      'infer/engine',
      'compose/held-turn',
      'compose/engine-judge',
      'safeguard/screen',
      'safeguard/policy',
      'safeguard/contract',
    ].map(load),
  );

const quantile = (xs, q) => xs.toSorted((a, b) => a - b)[Math.min(xs.length - 1, Math.floor(xs.length * q))] ?? null;
const round = (x) => (x === null ? null : Math.round(x * 10) / 10);
const row = (figures) =>
  process.stdout.write(`${JSON.stringify({ bench: 'hold', streams, sentences, ...figures, cpu: cpus()[0]?.model })}\n`);

/** Answers that policy `contact` allows, of several sentences each. */
const lines = readFileSync(join(root, 'policies', 'contact', 'golden.jsonl'), 'utf8')
  .trim()
  .split('\n');
const allowed = lines
  .map((l) => JSON.parse(l))
  .filter((r) => r.expect === null && r.channel === 'final' && !r.text.startsWith('{'));
const answerOf = (salt) =>
  Array.from({ length: sentences }, (_, i) => `${allowed[(salt * 5 + i * 3) % allowed.length].text}.`).join(' ');

/** Tells `text` at the pace of an engine: a token, a piece. */
const tellingOf = (engine, text, told) => ({
  ...engine,
  async *generate(request, signal) {
    const pieces = text.match(/\s*\S{1,6}/g) ?? [];
    let at = 0;
    for await (const event of engine.generate({ ...request, maxTokens: pieces.length + 16 }, signal)) {
      const n = event.kind === 'done' ? pieces.length - at : (event.pieces ?? 1);
      const piece = pieces.slice(at, at + n).join('');
      at += n;
      if (piece !== '')
        yield { kind: 'text', message: 0, role: 'assistant', channel: 'final', recipient: null, text: piece };
      if (at >= pieces.length) break;
    }
    told();
    const usage = {
      promptTokens: 1,
      cachedTokens: 0,
      completionTokens: at,
      reasoningTokens: 0,
      prefillMs: 0,
      decodeMs: 0,
    };
    const messages = [{ role: 'assistant', channel: 'final', content: text }];
    const none = { tokens: new Int32Array(0), logprobs: new Float32Array(0) };
    yield { kind: 'done', finish: 'stop', cut: null, messages, ...none, usage };
  },
});

async function measure(threads, folder) {
  const engine = await openEngine({
    model: longer(values.model, folder),
    slots: streams,
    contextTokens: 1024,
    threads,
  });
  const judging = await openEngine({ model: values.judge, slots: streams, prefixes: 4 + streams, threads });
  try {
    await measureJudges(threads, engine, judging);
  } finally {
    await Promise.all([engine.close(), judging.close()]);
  }
}
async function measureJudges(threads, engine, judging) {
  const policies = [await loadPolicy(join(root, 'policies', 'contact', 'policy.md'))];
  const nano = await createEngineJudge(judging, { name: 'nano-judge', maxTokens: 256 });
  const scripted = {
    name: 'scripted',
    digest: 's',
    judge: async ({ nonce }) => ({ text: renderVerdict({ rule: null, nonce }), finish: 'stop' }),
  };
  for (const [judge, said] of [scripted, nano].flatMap((j) => values.ahead.split(',').map((a) => [j, a]))) {
    const ahead = said === 'default' ? DEFAULT_AHEAD[judge.name] : said;
    const screen = createScreen({ policies, judge, unchecked: true, concurrency: streams });
    const holds = [],
      shares = [],
      outcomes = {},
      times = [];
    let calls = 0;
    const counted = {
      ...screen,
      screen(...given) {
        calls++;
        return screen.screen(...given);
      },
    };
    const one = async (salt, kept) => {
      const text = answerOf(salt);
      const waits = [];
      let left = 0,
        before = 0,
        done = null;
      const began = performance.now();
      const telling = tellingOf(engine, text, () => {
        before = left;
      });
      const request = { messages: [{ role: 'user', content: `Please tell of ${salt}` }], sampling: { seed: salt } };
      const options = {
        whole: false,
        onSentence: (ms) => waits.push(ms),
        ...(ahead === 'off' ? {} : { ahead: Number(ahead) }),
      };
      for await (const event of heldTurn(telling, request, counted, options, new AbortController().signal)) {
        if (event.kind === 'text') left += event.piece.text.length;
        else done = event;
      }
      if (!kept) return;
      const { outcome } = done.turn.screened.result;
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      if (outcome !== 'allow') return;
      holds.push(...waits);
      shares.push(before / text.length);
      times.push(performance.now() - began);
    };
    for (let r = 0; r < WARM_ROUNDS; r++)
      await Promise.all(Array.from({ length: streams }, (_, i) => one(i + 7 * r, false)));
    calls = 0;
    const cpu = process.cpuUsage();
    for (let r = 0; r < rounds; r++)
      await Promise.all(Array.from({ length: streams }, (_, i) => one(r * streams + i, true)));
    const { user, system } = process.cpuUsage(cpu);
    row({
      name: judge.name,
      threads,
      ahead,
      isDefault: ahead === DEFAULT_AHEAD[judge.name],
      holdMsP50: round(quantile(holds, 0.5)),
      holdMsP95: round(quantile(holds, 0.95)),
      share: shares.length === 0 ? null : Math.round((1000 * shares.reduce((a, b) => a + b, 0)) / shares.length) / 1000,
      answerMs: round(quantile(times, 0.5)),
      cpuMsPerAnswer: round((user + system) / 1000 / (rounds * streams)),
      sentencesHeld: holds.length,
      outcomes,
      callsPerAnswer: round(calls / (rounds * streams)),
    });
  }
}

for (const threads of values.threads.split(',').map(Number)) {
  const folder = mkdtempSync(join(tmpdir(), 'hold-bench-'));
  try {
    await measure(threads, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
