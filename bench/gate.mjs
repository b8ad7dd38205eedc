// node bench/gate.mjs [--what speed,release,power,coverage,rates] [--only TEXT] [--adapters N]
//                     [--resamples N] [--seed N]
// The gate's decision: how long 100,000 outcomes take; how often an adapter exactly at the margin is released; how
// often one like its base passes where the planned number of prompts was taken; how often intervals hold the truth,
// and those of one rate on the average over rates, by adding up all counts.
// Adapters are simulated and decided by the function that `temper gate decide` calls. One JSON row a measurement on
// stdout, with Wilson's 95 % interval of the simulation itself. Needs the build.
import { parseArgs } from 'node:util';
import { decide } from '../dist/gate/decide.js';
import { OutcomesBuilder, parseOutcomes } from '../dist/gate/outcomes.js';
import { binomialPmf } from '../dist/gate/statistics/beta.js';
import { bca, bootstrap } from '../dist/gate/statistics/bootstrap.js';
import { normalQuantile } from '../dist/gate/statistics/normal.js';
import { tango } from '../dist/gate/statistics/paired.js';
import { promptsFor } from '../dist/gate/statistics/power.js';
import { clopperPearson, midP, wilson } from '../dist/gate/statistics/proportion.js';
import { generator, stateOf } from '../dist/gate/statistics/random.js';
import { correctDifference, correctRate } from '../dist/gate/statistics/rogan-gladen.js';
import { parseSuite } from '../dist/gate/suite.js';

const { values: o } = parseArgs({
  options: {
    what: { type: 'string', default: 'speed,release,power,coverage,rates' },
    only: { type: 'string', default: '' },
    adapters: { type: 'string', default: '2000' },
    resamples: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
  },
});
const adapters = Number(o.adapters),
  resamples = Number(o.resamples),
  seed = Number(o.seed);
const print = (row) => process.stdout.write(`${JSON.stringify(row)}\n`);
const round = (x) => Number(x.toPrecision(4));
/** Of what a simulation found, with how far that may be off. */
function share(hits, n) {
  const { low, high } = wilson(hits, n, 0.95);
  return { share: round(hits / n), low: round(low), high: round(high), of: n };
}
const uniform = (...of) => {
  const draw = generator(stateOf(seed, ...of));
  return () => (draw() + 0.5) / 2 ** 32;
};

const suiteOf = (metric, samples = 1, decision = `{ resamples: ${resamples} }`) =>
  parseSuite(
    `name: simulated\nversion: "1"\nsamples: ${samples}\ndecision: ${decision}\n` +
      `tests: [{ name: t, kind: chat, scorer: none, metrics: [${metric}] }]\n`,
    'suite.yaml',
  );
const DIGEST = `sha256:${'0'.repeat(64)}`;
/** @param pairs of each prompt, sample after sample [base, adapter] */
function decided(suite, pairs) {
  const builder = new OutcomesBuilder();
  let line = 0;
  pairs.forEach((samples, p) => {
    samples.forEach(([base, adapter], sample) => {
      const row = { metric: 'm', prompt: `p${p}`, sample };
      builder.add({ ...row, arm: 'base', value: base }, ++line);
      builder.add({ ...row, arm: 'adapter', value: adapter }, ++line);
    });
  });
  return decide({ outcomes: builder.finish(DIGEST), suite, lock: null, files: null, version: 'bench' });
}

/** One sample: the adapter is worse on a share `up` of the prompts and better on `down`. */
const single = (draw, n, up, down, both = 0.03) =>
  Array.from({ length: n }, () => {
    const u = draw();
    return [u < up ? [0, 1] : u < up + down ? [1, 0] : u < up + down + both ? [1, 1] : [0, 0]];
  });
/** A Beta(a, b) of two gammas; a, b ≤ 1 or so (Johnk). */
function beta(draw, a, b) {
  for (;;) {
    const [x, y] = [draw() ** (1 / a), draw() ** (1 / b)];
    if (x + y <= 1 && x + y > 0) return x / (x + y);
  }
}
/** Several samples: each prompt has odds of its own, to which the adapter adds `shift` on the whole. */
const several = (draw, n, k, rate, shift) =>
  Array.from({ length: n }, () => {
    const p = beta(draw, 0.5, (0.5 * (1 - rate)) / rate);
    // Of what is not violated already a share is, so that the mean rises by `shift`.
    const q = p + (1 - p) * (shift / (1 - rate));
    return Array.from({ length: k }, () => [Number(draw() < p), Number(draw() < q)]);
  });
const normal = (draw) => normalQuantile(draw());
/** Differences of which a few are large: lognormal, with a mean of `shift` and a scale of 0.1. */
const lognormal = (draw, n, shift) =>
  Array.from({ length: n }, () => [[1.5, 1.5 + shift + 0.1 * (Math.exp(normal(draw)) - Math.exp(0.5))]]);
const losses = (draw, n, shift) =>
  Array.from({ length: n }, () => {
    const base = 1.5 + 0.5 * normal(draw);
    // Some rows are hit hard: differences are skewed.
    const own = 0.08 * normal(draw) + (draw() < 0.1 ? 0.3 - 0.03 / 0.1 : 0) + shift;
    return [[base, base + own + 0.06 * (-Math.log(draw()) - 1)]];
  });

function release() {
  const cases = [];
  for (const [n, margin, down] of [
    [300, 0.03, 0.02],
    [300, 0.02, 0],
    [500, 0.02, 0.01],
    [600, 0.02, 0.02],
    [200, 0.05, 0.05],
  ])
    cases.push([
      `rate, k 1, n ${n}, margin ${margin}, better ${down}`,
      suiteOf(`{ name: m, direction: lower, margin: ${margin} }`),
      (draw) => single(draw, n, down + margin, down),
    ]);
  for (const [n, k, margin, rate] of [
    [200, 3, 0.03, 0.05],
    [100, 5, 0.05, 0.1],
    [300, 3, 0.02, 0.01],
    [400, 2, 0.03, 0.2],
  ])
    cases.push([
      `rate, k ${k}, n ${n}, margin ${margin}, base ${rate}`,
      suiteOf(`{ name: m, direction: lower, margin: ${margin} }`, k),
      (draw) => several(draw, n, k, rate, margin),
    ]);
  for (const n of [60, 150])
    cases.push([
      `loss, n ${n}, margin 0.02`,
      suiteOf('{ name: m, direction: lower, values: number, margin: 0.02 }'),
      (draw) => losses(draw, n, 0.02),
    ]);
  for (const n of [20, 30, 60, 150])
    cases.push([
      `loss, lognormal, n ${n}, margin 0.02`,
      suiteOf(
        '{ name: m, direction: lower, values: number, margin: 0.02 }',
        1,
        `{ resamples: ${resamples}, minPrompts: 20 }`,
      ),
      (draw) => lognormal(draw, n, 0.02),
    ]);
  for (const n of [30, 150]) {
    const held = (limits) =>
      suiteOf(`{ name: m, direction: lower, values: number, ${limits} }`, 1, `{ resamples: ${resamples} }`);
    cases.push(
      [
        `loss, lognormal, range 100, n ${n}, margin 0.02`,
        held('margin: 0.02, range: [0, 100]'),
        (draw) => lognormal(draw, n, 0.02),
      ],
      [`loss, lognormal, n ${n}, cap 1.52`, held('cap: 1.52'), (draw) => lognormal(draw, n, 0.02)],
    );
  }
  for (const [name, suite, make] of cases) {
    if (!name.includes(o.only)) continue;
    let passed = 0;
    const draw = uniform('release', name);
    for (let i = 0; i < adapters; i++) if (decided(suite, make(draw)).decision === 'PASS') passed++;
    print({ what: 'false releases at the margin', case: name, ...share(passed, adapters), must: '<= 0.05' });
  }
}

function power() {
  for (const [margin, discordance, wanted] of [
    [0.03, 0.04, 0.8],
    [0.03, 0.04, 0.9],
    [0.05, 0.1, 0.8],
    [0.02, 0.02, 0.9],
  ]) {
    const n = promptsFor(wanted, { margin, discordance, alpha: 0.05, score: true });
    const name = `rate, margin ${margin}, discordance ${discordance}, n ${n}`;
    if (!name.includes(o.only)) continue;
    const suite = suiteOf(`{ name: m, direction: lower, margin: ${margin} }`);
    const draw = uniform('power', name);
    let passed = 0;
    for (let i = 0; i < adapters; i++)
      if (decided(suite, single(draw, n, discordance / 2, discordance / 2)).decision === 'PASS') passed++;
    print({ what: 'power', case: name, planned: wanted, ...share(passed, adapters) });
  }
}

/** Adapter − base of each prompt's mean, as the bootstrap takes it. */
function clustered(pairs, level, purpose) {
  const sums = Float64Array.from(pairs, (samples) => samples.reduce((s, [b, a]) => s + a - b, 0));
  const scale = sums.length * pairs[0].length;
  const figure = (s) => s[0] / scale;
  return bca(bootstrap([{ clusters: sums.length, columns: [sums] }], figure, { resamples, seed, purpose }), level);
}
function coverage() {
  const level = 0.95;
  const holds = (name, truth, interval, must = '0.94 to 0.96') => {
    if (!name.includes(o.only)) return;
    const draw = uniform('coverage', name);
    let [above, below] = [0, 0];
    for (let i = 0; i < adapters; i++) {
      const { low, high } = interval(draw, `${name}${i}`);
      if (truth < low) below++;
      else if (truth > high) above++;
    }
    const sides = { truthBelow: round(below / adapters), truthAbove: round(above / adapters) };
    print({ what: 'coverage of 95 %', case: name, ...share(adapters - below - above, adapters), ...sides, must });
  };
  /** @returns {[number, number]} pairs that went up and down */
  const count = (pairs) => {
    let [up, down] = [0, 0];
    for (const [[b, a]] of pairs) {
      if (a > b) up++;
      else if (b > a) down++;
    }
    return [up, down];
  };
  for (const [n, up, down] of [
    [400, 0.06, 0.04],
    [600, 0.02, 0.02],
    [200, 0.1, 0.02],
  ])
    holds(`tango, n ${n}, worse ${up}, better ${down}`, up - down, (draw) =>
      tango(...count(single(draw, n, up, down)), n, level),
    );
  for (const [n, k, rate, shift] of [
    [300, 3, 0.1, 0.03],
    [200, 5, 0.2, 0],
  ])
    holds(`bca, k ${k}, n ${n}, base ${rate}, shift ${shift}`, shift, (draw, purpose) =>
      clustered(several(draw, n, k, rate, shift), level, purpose),
    );
  holds('bca, loss, n 150', 0.02, (draw, purpose) => clustered(losses(draw, 150, 0.02), level, purpose));
  const rateOf = (draw, n, p) => {
    let x = 0;
    for (let i = 0; i < n; i++) if (draw() < p) x++;
    return x;
  };
  holds('clopper-pearson, n 3000, rate 0.2', 0.2, (draw) => clopperPearson(rateOf(draw, 3000, 0.2), 3000, level));
  holds(
    'clopper-pearson, n 300, rate 0.02',
    0.02,
    (draw) => clopperPearson(rateOf(draw, 300, 0.02), 300, level),
    '>= 0.95: exact, so wide',
  );
  holds('wilson, n 500, rate 0.1', 0.1, (draw) => wilson(rateOf(draw, 500, 0.1), 500, level));
  /** @type {[number, number, number, number, boolean][]} */
  const judges = [
    [600, 0.85, 0.95, 150, false],
    [600, 0.85, 0.95, 150, true],
    [600, 0.85, 0.98, 400, false],
    [600, 0.85, 0.98, 400, true],
    [300, 0.9, 0.9, 100, true],
  ];
  for (const [n, se, sp, m, apart] of judges)
    holds(`rogan-gladen, ${apart ? 'each arm' : 'both arms'}, n ${n}, judge ${se}/${sp} of ${m}`, 0.04, (draw) => {
      const judge = (truth) => Number(draw() < (truth ? se : 1 - sp));
      let [up, down, base, adapter] = [0, 0, 0, 0];
      for (const [[b, a]] of single(draw, n, 0.1, 0.06, 0.1)) {
        // What is alike is judged alike.
        const jb = judge(b);
        const ja = a === b ? jb : judge(a);
        base += jb;
        adapter += ja;
        if (ja > jb) up++;
        else if (jb > ja) down++;
      }
      const counts = () => ({ positives: m, caught: rateOf(draw, m, se), negatives: m, passed: rateOf(draw, m, sp) });
      const observed = { base: base / n, adapter: adapter / n, n, ...tango(up, down, n, level) };
      return correctDifference(observed, apart ? { base: counts(), adapter: counts() } : { both: counts() }, level);
    });
  for (const [p, se, sp, m] of [
    [0.1, 0.85, 0.95, 150],
    [0.05, 0.9, 0.98, 400],
  ])
    holds(`rogan-gladen, own rate ${p}, n 300, judge ${se}/${sp} of ${m}`, p, (draw) => {
      const x = rateOf(draw, 300, p * se + (1 - p) * (1 - sp));
      const counts = { positives: m, caught: rateOf(draw, m, se), negatives: m, passed: rateOf(draw, m, sp) };
      return correctRate({ value: x / 300, ...clopperPearson(x, 300, level) }, counts, level);
    });
}

/** Of one rate: exactly, all counts added up, least and mean over 200 rates from 0.25 to 50 %. */
function rates() {
  for (const n of [100, 300, 1000])
    for (const [name, interval] of Object.entries({ 'clopper-pearson': clopperPearson, 'mid-p': midP })) {
      const bounds = Array.from({ length: n + 1 }, (_, x) => interval(x, n, 0.95));
      const chances = Array.from({ length: 200 }, (_, i) => {
        const p = 0.0025 * (i + 1);
        return bounds.reduce((sum, { low, high }, x) => (low <= p && p <= high ? sum + binomialPmf(x, n, p) : sum), 0);
      });
      const mean = chances.reduce((a, b) => a + b) / chances.length;
      const most = { least: round(Math.min(...chances)), most: round(Math.max(...chances)) };
      print({ what: 'coverage of 95 %, exactly', case: `${name}, n ${n}`, mean: round(mean), ...most });
    }
}

function speed() {
  /** @type {[string, string, number, (draw: any) => any[][][]][]} */
  const cases = [
    ['rate, k 5', '{ name: m, direction: lower, margin: 0.03 }', 5, (draw) => several(draw, 10_000, 5, 0.1, 0.01)],
    ['loss, k 1', '{ name: m, direction: lower, values: number, margin: 0.02 }', 1, (draw) => losses(draw, 50_000, 0)],
  ];
  for (const [name, metric, k, make] of cases) {
    const pairs = make(uniform('speed', name));
    const lines = pairs.flatMap((samples, p) =>
      samples.flatMap(([base, adapter], sample) => {
        const row = { metric: 'm', slice: null, prompt: `prompt-${p}`, sample };
        return [
          JSON.stringify({ ...row, arm: 'base', value: base }),
          JSON.stringify({ ...row, arm: 'adapter', value: adapter }),
        ];
      }),
    );
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    const suite = suiteOf(metric, k, '{ resamples: 10000 }');
    for (let i = 0; i < 3; i++) {
      const from = performance.now();
      const cpu = process.cpuUsage();
      const outcomes = parseOutcomes(bytes);
      const read = performance.now();
      const { metrics } = decide({ outcomes, suite, lock: null, files: null, version: 'bench' });
      const end = performance.now();
      const { user, system } = process.cpuUsage(cpu);
      print({
        what: 'decision of 100,000 outcomes, 10,000 resamples',
        case: name,
        outcomes: outcomes.count,
        method: metrics[0].interval.method,
        readS: round((read - from) / 1000),
        decideS: round((end - read) / 1000),
        totalS: round((end - from) / 1000),
        // What the machine's other work does not lengthen, or less.
        cpuS: round((user + system) / 1e6),
        must: '<= 10, aim 2',
      });
    }
  }
}

const WHAT = { speed, release, power, coverage, rates };
for (const what of o.what.split(',')) {
  if (!(what in WHAT)) throw new Error(`--what ${what}: wanted some of ${Object.keys(WHAT).join(', ')}`);
  WHAT[what]();
}
