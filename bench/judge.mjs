// node bench/judge.mjs [--judge DIR] [--policy FILE] [--texts N] [--slots N,…] [--rounds N] [--threads N]
//                      [--times N] [--shapes 20b --layers N --work DIR --answer N]
// Verdicts a second of a local judge: the policy computed once and several texts at once, beside one text after another
// with the policy computed anew for each. In turns in one process. With --shapes the weights are made up, with so many
// layers of those shapes and o200k's vocabulary; what they answer is no verdict, so that each answer is as long as
// --answer says. --times N has the policy's text N times over: policies for full-size judges have 400 to 600 tokens,
// the embedded judge's a hundred. One JSON row for each number of slots on stdout. Needs the build.
import { existsSync, readFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createEngineJudge } from '../dist/compose/engine-judge.js';
import { toConversation } from '../dist/harmony/chat.js';
import { openEngine } from '../dist/infer/engine.js';
import { initCheckpoint, PRESETS } from '../dist/model/init.js';
import { renderJudgePrompt } from '../dist/safeguard/contract.js';
import { loadPolicy } from '../dist/safeguard/policy.js';
import { createScreen } from '../dist/safeguard/screen.js';
import { writeO200k } from './o200k.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values: o } = parseArgs({
  options: {
    judge: { type: 'string', default: join(root, 'models', 'nano-judge') },
    policy: { type: 'string', default: join(root, 'policies', 'contact', 'policy.md') },
    texts: { type: 'string' },
    slots: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(cpus().length) },
    times: { type: 'string' },
    shapes: { type: 'string' },
    layers: { type: 'string', default: '2' },
    answer: { type: 'string', default: '24' },
    work: { type: 'string', default: join(tmpdir(), 'temper-judge') },
  },
});
const shapes = o.shapes;
if (shapes !== undefined && shapes !== '20b' && shapes !== '120b')
  throw new Error(`--shapes ${shapes}: wanted 20b or 120b`);
const rounds = Number(o.rounds),
  threads = Number(o.threads),
  texts = Number(o.texts ?? (shapes ? 16 : 96)),
  slotCounts = (o.slots ?? (shapes ? '8' : '8,16,32')).split(',').map(Number);
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;
const round = (x) => Number(x.toPrecision(4));
const signal = new AbortController().signal;

let model = o.judge;
if (shapes) {
  model = join(o.work, `${shapes}-${o.layers}`);
  if (!existsSync(join(model, 'tokenizer.json'))) {
    process.stderr.write(`making ${model}\n`);
    await initCheckpoint(model, { ...PRESETS[shapes], num_hidden_layers: Number(o.layers) }, { seed: 1 });
    writeO200k(model);
  }
}
const one = await loadPolicy(o.policy, { golden: false });
const long = Array.from({ length: Number(o.times ?? (shapes ? 6 : 1)) }, () => one.text).join('\n');
const policy = { ...one, text: long };
const rows = readFileSync(join(root, 'datasets', 'screening', 'heldout.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));
const contents = Array.from({ length: texts }, (_, i) => rows[i % rows.length].text);

/** @returns verdicts, one for each text */
async function judge(engine, slots) {
  if (shapes) {
    const queue = [...contents.keys()];
    const worker = async () => {
      for (let i = queue.shift(); i !== undefined; i = queue.shift()) {
        const prompt = renderJudgePrompt({ policy: long, content: contents[i], channel: 'final', nonce: '7k3f9q' });
        const { messages } = toConversation({
          messages: [
            { role: 'developer', content: prompt.developer },
            { role: 'user', content: prompt.user },
          ],
          reasoning_effort: 'low',
        });
        const request = { messages, maxTokens: Number(o.answer), sampling: { temperature: 0 }, topLogprobs: 20 };
        for await (const _ of engine.generate(request, signal));
      }
    };
    await Promise.all(Array.from({ length: slots }, worker));
    return [];
  }
  const asked = await createEngineJudge(engine, { name: 'judge', maxTokens: 96 });
  const { check: _, ...plain } = asked;
  const screen = createScreen({ policies: [policy], judge: plain, concurrency: slots, judging: { views: 'raw' } });
  return (await Promise.all(contents.map((final) => screen.screen({ final })))).map((r) => r.outcome);
}

const open = (slots, prefixes) =>
  openEngine({ model, slots, prefixes, threads, contextTokens: 1024, speculation: 'auto' });
for (const slots of slotCounts) {
  const [alone, batched] = [await open(1, 0), await open(slots, 4)];
  const seconds = { alone: [], batched: [] };
  let outcomes = [];
  for (let r = -1; r < rounds; r++) {
    for (const [name, engine, n] of [
      ['alone', alone, 1],
      ['batched', batched, slots],
    ]) {
      const since = performance.now();
      const got = await judge(engine, n);
      // The first round warms up.
      if (r >= 0) seconds[name].push((performance.now() - since) / 1000);
      if (name === 'alone') outcomes = got;
      else if (got.join() !== outcomes.join()) throw new Error('batched verdicts are others');
    }
  }
  await alone.close();
  await batched.close();
  const [before, now] = [texts / median(seconds.alone), texts / median(seconds.batched)];
  console.log(
    JSON.stringify({
      judge: shapes ? `${shapes}, ${o.layers} layers` : 'nano-judge',
      slots,
      threads,
      texts,
      policyCharacters: long.length,
      oneByOne: round(before),
      cachedBatched: round(now),
      times: round(now / before),
    }),
  );
}
