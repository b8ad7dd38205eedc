// node bench/engine.mjs [--model DIR] [--threads N] [--only NAME,…] [--rounds N] [--tokens N]: what serving many costs
// the engine, without a server. Things that are compared run in turns in one process; `cpu` is of the CPU time of all
// threads, which other work on the machine changes least, `wall` of the time that passed. One JSON row per figure on
// stdout. Needs the build (npm run build). It runs in a thread that collects its garbage as the engine's does.
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { isMainThread, Worker } from 'node:worker_threads';
import { longer, makeAdapters } from './serving.mjs';

if (isMainThread) {
  const { LEAST_YOUNG_MIB } = await import('../dist/base/channel.js');
  setFlagsFromString('--no-parallel-scavenge');
  const thread = new Worker(new URL(import.meta.url), {
    argv: process.argv.slice(2),
    resourceLimits: { maxYoungGenerationSizeMb: LEAST_YOUNG_MIB },
  });
  process.exit(await new Promise((done) => thread.once('exit', done)));
}
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: join(root, 'models', 'nano') },
    threads: { type: 'string', default: '2' },
    only: { type: 'string', default: '' },
    rounds: { type: 'string', default: '9' },
    tokens: { type: 'string', default: '120' },
  },
});
const only = values.only === '' ? null : values.only.split(',');
const wants = (name) => only === null || only.includes(name);
const rounds = Number(values.rounds);
const median = (xs) => xs.toSorted((a, b) => a - b)[Math.floor(xs.length / 2)] ?? Number.NaN;
const round = (x) => Number(x.toPrecision(4));
const row = (name, figures) =>
  process.stdout.write(
    `${JSON.stringify({ bench: 'engine', name, ...figures, node: process.versions.node, cpu: cpus()[0]?.model })}\n`,
  );

const [{ Session }, { GREEDY }, { openCheckpoint }, { DecodeStep }, { KvCache }, { LoraPool }, { readPeft }, tensor] =
  await Promise.all([
    import('../dist/infer/session.js'),
    import('../dist/infer/sequence.js'),
    import('../dist/model/checkpoint.js'),
    import('../dist/model/decode-step.js'),
    import('../dist/model/kv-cache.js'),
    import('../dist/lora/pool.js'),
    import('../dist/lora/peft.js'),
    import('../dist/native/tensor.js'),
  ]);
tensor.setThreads(Number(values.threads));
const folder = mkdtempSync(join(tmpdir(), 'engine-bench-'));
const model = openCheckpoint(longer(values.model, folder));
const V = model.config.vocab_size;
const prompt = (length, salt) => Int32Array.from({ length }, (_, i) => 7 + ((i * 37 + salt * 101) % (V - 24)));

/** Milliseconds of `work`, of CPU and of the clock. */
function timed(work) {
  const cpu = process.cpuUsage(),
    began = performance.now();
  work();
  const { user, system } = process.cpuUsage(cpu);
  return { cpu: (user + system) / 1000, wall: performance.now() - began };
}
/** Medians of b/a of pairs that ran in turns, and CPU milliseconds of each. */
function compare(a, b) {
  a();
  b();
  const ratios = [];
  for (let i = 0; i < rounds; i++) {
    const [x, y] = i % 2 === 0 ? [timed(a), timed(b)] : [timed(b), timed(a)].reverse();
    ratios.push({ cpu: y.cpu / x.cpu, wall: y.wall / x.wall, a: x.cpu, b: y.cpu });
  }
  const of = (name) => median(ratios.map((r) => r[name]));
  return { cpu: round(of('cpu')), wall: round(of('wall')), aMs: round(of('a')), bMs: round(of('b')) };
}

if (wants('invariance'))
  for (const B of [1, 4, 8, 16]) {
    const STEPS = 60;
    const cache = new KvCache(model.config, B, 2048);
    const batchAt = (at) => ({
      tokens: Int32Array.from({ length: B }, (_, b) => 7 + ((at * 31 + b * 17) % (V - 24))),
      positions: new Int32Array(B).fill(at),
      starts: Int32Array.from({ length: B + 1 }, (_, b) => b),
      slots: Int32Array.from({ length: B }, (_, b) => b),
    });
    const params = new Float32Array(4 * B),
      u = new Float32Array(B);
    const steps = [false, true].map(
      (byRow) => new DecodeStep(model, null, cache, 'bf16', batchAt(0), true, [], false, byRow),
    );
    const run = (step) => () => {
      for (let b = 0; b < B; b++) cache.reset(b);
      for (let at = 0; at < STEPS; at++) step.run(batchAt(at), { params, u });
    };
    const { cpu, wall } = compare(run(steps[0]), run(steps[1]));
    row('invariance', { streams: B, timeOfFree: { cpu, wall } });
    for (const step of steps) step.close();
    cache.close();
  }

const SLOTS = 16;
const open = (prefixes = 0) =>
  new Session(model, { precision: 'bf16', slots: SLOTS, capacity: 4096, prefixes, yields: true });
const request = (salt, more = {}) => ({
  tokens: prompt(12, salt),
  maxTokens: Number(values.tokens),
  stop: new Set(),
  sampling: { ...GREEDY, temperature: 2, seed: salt },
  ...more,
});

if (wants('adapters')) {
  const pool = new LoraPool(model.config, 'cpu', () => {}, true); // as the engine has it
  const names = await makeAdapters(values.model, folder, 8);
  const adapters = Object.values(names).map((dir) => pool.add((storage) => readPeft(dir, model.config, { storage })));
  const session = open();
  const run = (adapterOf) => () => {
    for (let i = 0; i < SLOTS; i++) session.start(request(i, { adapter: adapterOf(i) }));
    while (!session.idle) session.step();
  };
  const { cpu, wall, aMs, bMs } = compare(
    run(() => null),
    run((i) => adapters[i % 8]),
  );
  row('adapters', {
    streams: SLOTS,
    adapters: 8,
    rateOfBase: { cpu: round(1 / cpu), wall: round(1 / wall) },
    aMs,
    bMs,
  });
  session.close();
  pool.close();
}

/** Streams last longer than the prompt that they are measured beside. */
const OUTLASTS = { maxTokens: 3900 };
if (wants('gap'))
  for (const streams of [1, 4, 15]) {
    const session = open();
    /**
     * By CPU time too, as a busy machine's clock says little; it counts all threads, so that it tells of gaps only with
     * --threads 1.
     */
    const clocks = {
      cpu: () => {
        const { user, system } = process.cpuUsage();
        return (user + system) / 1000;
      },
      wall: () => performance.now(),
    };
    const now = () => ({ cpu: clocks.cpu(), wall: clocks.wall() });
    const run = (beside, tokens) => {
      const times = new Map();
      for (let i = 0; i < beside; i++) times.set(session.start(request(i, OUTLASTS)), []);
      const told = () => {
        const sampled = session.step(),
          at = now();
        for (const { sequence } of sampled) times.get(sequence)?.push(at);
      };
      const longPrompt = prompt(tokens, 5);
      for (let i = 0; i < 100; i++) told();
      const asked = now();
      const long = session.start({ ...request(99), tokens: longPrompt, maxTokens: 1 });
      times.set(long, []);
      let steps = 0;
      for (; times.get(long).length === 0; steps++) told();
      const [answered] = times.get(long);
      for (let i = 0; i < 100 && beside > 0; i++) told();
      times.delete(long);
      const outlasted = [...times.values()].every((at) => (at.at(-1)?.wall ?? 0) > answered.wall);
      for (const sequence of times.keys()) session.cancel(sequence);
      const by = (clock) => {
        const figures = [...times.values()].map((at) => {
          const gaps = at.slice(1).map((t, i) => ({
            ms: t[clock] - at[i][clock],
            reading: t.wall > asked.wall && at[i].wall <= answered.wall,
          }));
          const all = median(gaps.filter((g) => !g.reading).map((g) => g.ms)),
            reading = gaps.filter((g) => g.reading).map((g) => g.ms);
          const p99 = reading.toSorted((a, b) => a - b)[Math.floor(0.99 * reading.length)];
          return { worst: Math.max(...reading) / all, p99: p99 / all, typical: median(reading) / all, own: all };
        });
        const worst = (of) => Math.max(...figures.map((f) => f[of]));
        return {
          firstMs: answered[clock] - asked[clock],
          worst: worst('worst'),
          p99: worst('p99'),
          typical: worst('typical'),
          stepMs: worst('own'),
        };
      };
      return { cpu: by('cpu'), wall: by('wall'), steps, outlasted };
    };
    /** Of as many steps as another run had while its prompt was read, with no prompt: the worst, of their median. */
    const without = (steps) => {
      const sequences = Array.from({ length: streams }, (_, i) => session.start(request(i, OUTLASTS)));
      for (let i = 0; i < 100; i++) session.step();
      const at = [now()];
      for (let i = 0; i < steps; i++) {
        session.step();
        at.push(now());
      }
      for (const sequence of sequences) session.cancel(sequence);
      const by = (clock) => {
        const gaps = at.slice(1).map((t, i) => t[clock] - at[i][clock]);
        return Math.max(...gaps) / median(gaps);
      };
      return { cpu: by('cpu'), wall: by('wall') };
    };
    run(streams, 2048);
    const alone = [],
      beside = [],
      control = [];
    for (let i = 0; i < rounds; i++) {
      alone.push(run(0, 2048));
      const ran = run(streams, 2048);
      beside.push(ran);
      control.push(without(Math.min(ran.steps, OUTLASTS.maxTokens - 200)));
    }
    for (const clock of ['wall', 'cpu']) {
      const of = (name) => round(median(beside.map((b) => b[clock][name])));
      row('gap', {
        streams,
        by: clock,
        // Of the stream's own median without the prompt: medians of the rounds, and the best round's worst gap.
        worst: of('worst'),
        // What the machine and the language do to as many steps without a prompt.
        worstWithout: round(median(control.map((c) => c[clock]))),
        leastWorst: round(Math.min(...beside.map((b) => b[clock].worst))),
        p99: of('p99'),
        median: of('typical'),
        stepMs: of('stepMs'),
        promptMs: of('firstMs'),
        outlastedIt: `${beside.filter((b) => b.outlasted).length} of ${rounds}`,
        promptAloneMs: round(median(alone.map((a) => a[clock].firstMs))),
      });
    }
    session.close();
  }
model.close();
rmSync(folder, { recursive: true });
