// node bench/judge.mjs [--only nano,20b] [--rounds N] [--threads N] [--texts N] [--slots N,…] [--policy FILE,…]
//                      [--shapes slice|20b|120b --layers N --experts N --model DIR --work DIR --answer N --long NAME]
// Verdicts a second of a local judge: its policy computed once, several texts at once, what it mostly answers foreseen,
// a small one as several engines, beside one text after another with the policy computed anew for each and nothing
// foreseen. In turns in one process; the verdicts of both must be the same. `wall` is of the clock, `cpu` of the CPU
// time of all threads, which other work on the machine changes least. `forms` tells what each part brings.
//   nano  the embedded judge, with the policy that it knows (a hundred tokens), and with that policy five times over:
//         those for full-size judges have 400 to 600
//   20b   made-up weights of those shapes: --shapes slice, two layers with six experts and a small head, which weighs
//         beside them as in a whole checkpoint; or 20b, with so many layers and experts, and all of its head; or a
//         checkpoint that is there, --model DIR. What they answer is no verdict: each answer is as long as --answer
//         says, and foreseen as a judge's form is, but for a token of every tenth answer, where the guess is wrong.
//         Policies are --long's.
// One JSON row for each number of slots on stdout. Needs the build.
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createEngineJudge } from '../dist/compose/engine-judge.js';
import { ASKED_A_SLOT } from '../dist/compose/screening.js';
import { toConversation } from '../dist/harmony/chat.js';
import { renderPrompt } from '../dist/harmony/render.js';
import { loadTokenizer } from '../dist/harmony/tokenizer.js';
import { openEngine } from '../dist/infer/engine.js';
import { GREEDY } from '../dist/infer/sequence.js';
import { Session } from '../dist/infer/session.js';
import { openSideBySide } from '../dist/infer/side-by-side.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { initCheckpoint, PRESETS } from '../dist/model/init.js';
import { setThreads } from '../dist/native/tensor.js';
import { renderJudgePrompt } from '../dist/safeguard/contract.js';
import { loadPolicy } from '../dist/safeguard/policy.js';
import { createScreen } from '../dist/safeguard/screen.js';
import { writeO200k } from './o200k.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values: o } = parseArgs({
  options: {
    only: { type: 'string', default: 'nano,20b' },
    judge: { type: 'string', default: join(root, 'models', 'nano-judge') },
    policy: { type: 'string', default: 'contact,contact*5' },
    texts: { type: 'string' },
    slots: { type: 'string' },
    rounds: { type: 'string' },
    threads: { type: 'string', default: String(cpus().length) },
    shapes: { type: 'string', default: 'slice' },
    layers: { type: 'string', default: '2' },
    experts: { type: 'string', default: '6' },
    model: { type: 'string' },
    long: { type: 'string', default: 'personal-data' },
    answer: { type: 'string', default: '28' },
    work: { type: 'string', default: join(tmpdir(), 'temper-judge') },
  },
});
const threads = Number(o.threads);
const only = o.only.split(',');
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;
const round = (x) => Number(x.toPrecision(4));
const policyFile = (name) => (existsSync(name) ? name : join(root, 'policies', name, 'policy.md'));
const rows = readFileSync(join(root, 'datasets', 'screening', 'heldout.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));

/** Seconds of the clock and of CPU. */
async function timed(work) {
  const cpu = process.cpuUsage(),
    since = performance.now();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  return { result, wall: (performance.now() - since) / 1000, cpu: (user + system) / 1e6 };
}
/**
 * Runs forms in turns. @param forms by name, each gives its answers; the first is the measure · @param warm rounds that
 * are not counted
 */
async function compare(figures, texts, rounds, forms, warm = 1) {
  const took = new Map(Object.keys(forms).map((name) => [name, { wall: [], cpu: [] }]));
  let wanted,
    differing = 0;
  for (let r = -warm; r < rounds; r++)
    for (const [name, work] of Object.entries(forms)) {
      const { result, wall, cpu } = await timed(work);
      wanted ??= result;
      // Nonces are new ones each time: a small judge miscopies one now and then, and says something else of a text
      // where it was not sure. Of more than one in a hundred it would be another form that answers otherwise.
      const others = result.filter((told, i) => told !== wanted[i] && told !== '' && wanted[i] !== '').length;
      if (others > Math.max(1, texts / 100)) throw new Error(`${name}: other verdicts of ${others} texts`);
      differing = Math.max(differing, others);
      if (r < 0) continue;
      took.get(name).wall.push(wall);
      took.get(name).cpu.push(cpu);
    }
  const [first] = took.values();
  const of = (form, what) => median(form[what]) / texts;
  const told = Object.fromEntries(
    [...took].map(([name, form]) => [
      name,
      {
        verdictsPerSecond: round(1 / of(form, 'wall')),
        cpuMs: round(1000 * of(form, 'cpu')),
        times: round(of(first, 'wall') / of(form, 'wall')),
        timesCpu: round(of(first, 'cpu') / of(form, 'cpu')),
      },
    ]),
  );
  const { times, timesCpu } = Object.values(told).at(-1);
  console.log(JSON.stringify({ bench: 'judge', ...figures, threads, texts, times, timesCpu, differing, forms: told }));
}

async function nano(name, slots) {
  const [file, times = '1'] = name.split('*');
  const one = await loadPolicy(policyFile(file), { golden: false });
  const policy = { ...one, text: Array.from({ length: Number(times) }, () => one.text).join('\n') };
  // Code is compiled after some hundred texts, in each thread.
  const texts = Number(o.texts ?? 512);
  const contents = Array.from({ length: texts }, (_, i) => rows[i % rows.length].text);
  const judge = (engine, n, foresees) => async () => {
    const {
      check: _,
      judge: ask,
      ...asked
    } = await createEngineJudge(foresees ? engine : blind(engine), { name: 'j', maxTokens: 96 });
    const screen = createScreen({
      policies: [policy],
      judge: { ...asked, judge: ask },
      concurrency: n,
      judging: { views: 'raw', retries: 0 },
    });
    const outcomes = await Promise.all(contents.map((final) => screen.screen({ final })));
    return outcomes.map((r) => (r.verdicts[0].cause === null ? r.outcome : ''));
  };
  const open = (count, prefixes, speculation) =>
    openEngine({ model: o.judge, slots: count, prefixes, threads, contextTokens: 1024, speculation });
  const side = { model: o.judge, slots, prefixes: 4, threads, contextTokens: 1024 };
  const engines = [await open(1, 0, 'off'), await open(1, 4, 'off'), await open(slots, 4, 'auto')];
  const [alone, cached, batched] = engines,
    several = await openSideBySide(side);
  const forms = {
    alone: judge(alone, 1, false),
    cached: judge(cached, 1, false),
    // As many at once as temper screen asks for.
    batched: judge(batched, ASKED_A_SLOT * slots, false),
    foreseen: judge(batched, ASKED_A_SLOT * slots, true),
    // As temper screen has it.
    sideBySide: judge(several, ASKED_A_SLOT * several.slots, true),
  };
  await compare({ judge: 'nano-judge', policy: name, slots }, texts, Number(o.rounds ?? 3), forms, 3);
  await Promise.all([...engines, several].map((e) => e.close()));
}
/** The same without what it is told of the answer. */
const blind = (engine) => ({
  ...engine,
  generate: ({ prediction: _, ...request }, stop) => engine.generate(request, stop),
});

async function shapes(slots) {
  const model = o.model ?? join(o.work, `${o.shapes}-${o.layers}-${o.experts}`);
  if (!existsSync(join(model, 'config.json'))) {
    process.stderr.write(`making ${model}\n`);
    const config = {
      ...PRESETS[o.shapes],
      num_hidden_layers: Number(o.layers),
      num_local_experts: Number(o.experts),
    };
    await initCheckpoint(model, config, { seed: 1 });
  }
  const words = join(o.work, 'o200k');
  if (!existsSync(join(words, 'tokenizer.json'))) {
    mkdirSync(words, { recursive: true });
    writeO200k(words);
  }
  setThreads(threads);
  const checkpoint = openCheckpoint(model);
  const tokenizer = loadTokenizer(words);
  const { config } = checkpoint;
  const policy = await loadPolicy(policyFile(o.long), { golden: false });
  const texts = Number(o.texts ?? 2 * slots),
    answer = Number(o.answer);
  const promptOf = (content, nonce) => {
    const { developer, user } = renderJudgePrompt({ policy: policy.text, content, channel: 'final', nonce });
    const messages = [
      { role: 'developer', content: developer },
      { role: 'user', content: user },
    ];
    const tokens = renderPrompt(toConversation({ messages, reasoning_effort: 'low' }), tokenizer);
    // A small head knows fewer.
    return tokens.map((token) => token % config.vocab_size);
  };
  const prompts = rows.slice(0, texts).map((row, i) => promptOf(row.text, `${i % 10}a0b${i % 7}c`));
  // All have in common what stands before the nonce.
  const shared = prompts[0].findIndex((t, i) => prompts.some((p) => p[i] !== t));
  const session = (count, prefixes, guesses) =>
    new Session(checkpoint, {
      precision: 'bf16',
      slots: count,
      capacity: 1024,
      prefixes,
      yields: true,
      speculation: guesses ? { when: 'auto' } : null,
    });
  let answers = null;
  const run = (of, foresees) => () => {
    const said = prompts.map(() => []);
    const sequences = prompts.map((tokens, i) =>
      of.start({
        tokens,
        sharedTokens: shared,
        maxTokens: answer,
        stop: new Set(),
        sampling: GREEDY,
        patient: true,
        ...(foresees ? { foreseen: formOf(tokens, answers[i], i) } : {}),
      }),
    );
    while (!of.idle) for (const { sequence, token } of of.step()) said[sequences.indexOf(sequence)].push(token);
    answers ??= said;
    return said.map((tokens) => tokens.join(' '));
  };
  const formOf = (prompt, said, i) =>
    Int32Array.from([...prompt.slice(-2), ...said.map((t, at) => (i % 10 === 9 && at === 9 ? t ^ 1 : t))]);
  const sessions = [session(1, 0, false), session(1, 2, false), session(slots, 2, true)];
  const [alone, cached, batched] = sessions;
  const { num_hidden_layers: layers, num_local_experts: experts, vocab_size: vocabulary } = config;
  const about = { judge: o.model ?? o.shapes, layers, experts, vocabulary, slots };
  const lengths = {
    policyTokens: shared,
    textTokens: Math.round(median(prompts.map((p) => p.length)) - shared),
    answer,
  };
  await compare({ ...about, ...lengths }, texts, Number(o.rounds ?? 1), {
    alone: run(alone, false),
    cached: run(cached, false),
    batched: run(batched, false),
    foreseen: run(batched, true),
  });
  for (const s of sessions) s.close();
  tokenizer.close();
  checkpoint.close();
}

if (only.includes('nano'))
  for (const name of o.policy.split(','))
    for (const slots of (o.slots ?? '8,16').split(',').map(Number)) await nano(name, slots);
if (only.includes('20b')) for (const slots of (o.slots ?? '8').split(',').map(Number)) await shapes(slots);
