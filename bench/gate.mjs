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
/**
 * @param pairs of each prompt, sample after sample [base, adapter]
 * @param more  of a prompt's rows: family, slice, truth
 */
function decided(suite, pairs, more = (/** @type {number} */ _) => ({})) {
  const builder = new OutcomesBuilder();
  let line = 0;
  pairs.forEach((samples, p) => {
    samples.forEach(([base, adapter], sample) => {
      const row = { metric: 'm', prompt: `p${p}`, sample, ...more(p) };
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
/**
 * Several samples: each prompt has odds of its own, to which the adapter adds `shift` on the whole.
 * @param spread the less, the more alike are samples of a prompt: they correlate by rate / (rate + spread)
 */
const several = (draw, n, k, rate, shift, spread = 0.5) =>
  Array.from({ length: n }, () => {
    const p = beta(draw, spread, (spread * (1 - rate)) / rate);
    // Of what is not violated already a share is, so that the mean rises by `shift`.
    const q = p + (1 - p) * (shift / (1 - rate));
    return Array.from({ length: k }, () => [Number(draw() < p), Number(draw() < q)]);
  });
/** Every sample of either arm is turned over with a chance of `noise`; some prompts are lost whole. */
const lost = (draw, n, k, noise, share) =>
  Array.from({ length: n }, () => {
    const whole = draw() < share;
    return Array.from({ length: k }, () => [Number(draw() < noise), Number(whole || draw() < noise)]);
  });
/** Families of some sizes, each lost whole with a chance of its own. */
const families = (draw, sizes, chance) =>
  sizes.flatMap((size) => {
    const whole = draw() < chance(size);
    return Array.from({ length: size }, () => [[0, Number(whole)]]);
  });
const normal = (draw) => normalQuantile(draw());
/** 4,096 differences alike likely, with a mean of 0, the worst of 1 and quantiles of one shape. */
function differences(quantile) {
  const of = Float64Array.from({ length: 4096 }, (_, i) => quantile((i + 0.5) / 4096));
  const mean = of.reduce((sum, x) => sum + x) / of.length;
  return of.map((x) => (x - mean) / (of[of.length - 1] - mean));
}
const SHAPES = {
  normal: differences(normalQuantile),
  lognormal: differences((p) => Math.exp(normalQuantile(p))),
  'very skewed': differences((p) => Math.exp(1.5 * normalQuantile(p))),
  'heavy tails': differences((p) => (2 * p - 1) / Math.sqrt(2 * p * (1 - p))),
  'one in 20': differences((p) => Number(p > 0.95)),
  'one in 50': differences((p) => Number(p > 0.98)),
};
const losses = (draw, n, shift) =>
  Array.from({ length: n }, () => {
    const base = 1.5 + 0.5 * normal(draw);
    // Some rows are hit hard: differences are skewed.
    const own = 0.08 * normal(draw) + (draw() < 0.1 ? 0.3 - 0.03 / 0.1 : 0) + shift;
    return [[base, base + own + 0.06 * (-Math.log(draw()) - 1)]];
  });

/** A case of release(): its name, the metric without its name, samples, what is drawn, what else its rows say. */
const rateCases = () => {
  const cases = [];
  for (const [n, margin, down] of [
    [300, 0.03, 0.02],
    [300, 0.02, 0],
    [500, 0.02, 0.01],
    [600, 0.02, 0.02],
    [200, 0.05, 0.05],
    [30, 0.2, 0.1],
    [50, 0.2, 0.4],
  ])
    cases.push([
      `rate, k 1, n ${n}, margin ${margin}, better ${down}`,
      `direction: lower, margin: ${margin}`,
      1,
      (draw) => single(draw, n, down + margin, down),
    ]);
  for (const [n, k, margin, rate, spread] of [
    [200, 3, 0.03, 0.05, 0.5],
    [100, 5, 0.05, 0.1, 0.5],
    [300, 3, 0.02, 0.01, 0.5],
    [400, 2, 0.03, 0.2, 0.5],
    [100, 4, 0.05, 0.1, 0.02],
    [100, 16, 0.05, 0.1, 0.02],
    [100, 16, 0.05, 0.1, 1],
    [400, 4, 0.03, 0.1, 0.1],
  ])
    cases.push([
      `rate, k ${k}, n ${n}, margin ${margin}, base ${rate}, alike ${round(rate / (rate + spread))}`,
      `direction: lower, margin: ${margin}`,
      k,
      (draw) => several(draw, n, k, rate, margin, spread),
    ]);
  for (const [n, k, share] of [
    [30, 16, 0.1],
    [50, 16, 0.05],
    [50, 16, 0.1],
    [50, 4, 0.05],
    [100, 16, 0.05],
    [150, 4, 0.03],
    [400, 4, 0.02],
  ])
    cases.push([
      `rate, k ${k}, n ${n}, noise 0.03, lost whole ${share}`,
      `direction: lower, margin: ${share * 0.97}`,
      k,
      (draw) => lost(draw, n, k, 0.03, share),
    ]);
  // 90 single prompts and ten families of ten, of which the large ones alone are lost, or all alike.
  const sizes = Array.from({ length: 100 }, (_, i) => (i < 90 ? 1 : 10));
  const prompts = sizes.flatMap((size, f) => Array.from({ length: size }, () => ({ cluster: `f${f}` })));
  for (const [name, limit, small, large] of /** @type {[string, string, number, number][]} */ ([
    ['large ones lost', 'margin', 0, 0.2],
    ['large ones lost', 'cap', 0, 0.2],
    ['all alike', 'margin', 0.15, 0.15],
    ['all alike', 'cap', 0.15, 0.15],
  ])) {
    const chance = (size) => (size > 1 ? large : small);
    const mean = sizes.reduce((sum, s) => sum + s * chance(s), 0) / prompts.length;
    cases.push([
      `rate, families of 1 and 10, ${name}, at a ${limit}`,
      `direction: lower, ${limit}: ${mean}`,
      1,
      (draw) => families(draw, sizes, chance),
      (p) => prompts[p],
    ]);
  }
  for (const [n, p] of [
    [100, 0.05],
    [300, 0.02],
  ])
    cases.push([
      `rate, n ${n}, at a cap of ${p}`,
      `direction: lower, cap: ${p}`,
      1,
      (draw) => single(draw, n, p, 0, 0),
    ]);
  for (const [n, fall] of [
    [100, 0.05],
    [400, 0.05],
  ])
    cases.push([
      `g-mean², n ${n}, margin ${fall}`,
      `direction: higher, statistic: gmean2, margin: ${0.9 * 0.95 - (0.9 - fall) * 0.95}`,
      1,
      (draw) =>
        Array.from({ length: n }, (_, i) => {
          const [base, down, up] = i % 2 === 0 ? [0.9, 0.02 + fall, 0.02] : [0.95, 0.02, 0.02];
          const u = draw();
          return [u < down ? [1, 0] : u < down + up ? [0, 1] : u < down + up + base - down ? [1, 1] : [0, 0]];
        }),
      (p) => ({ truth: 1 - (p % 2) }),
    ]);
  return cases;
};
/** Differences of which a few are large: lognormal, with a mean of `shift` and a scale of 0.1. */
const lognormal = (draw, n, shift) =>
  Array.from({ length: n }, () => [[1.5, 1.5 + shift + 0.1 * (Math.exp(normal(draw)) - Math.exp(0.5))]]);
/** Numbers that may be anything. */
const freeCases = () =>
  [
    ...[60, 150].map((n) => [`loss, n ${n}, at a margin`, 'margin: 0.02', (draw) => losses(draw, n, 0.02)]),
    ...[20, 30, 60, 150].flatMap((n) => [
      [`loss, lognormal, n ${n}, at a margin`, 'margin: 0.02', (draw) => lognormal(draw, n, 0.02)],
      [`loss, lognormal, n ${n}, at a cap`, 'cap: 1.52', (draw) => lognormal(draw, n, 0.02)],
    ]),
  ].map(([name, limit, make]) => [name, `direction: lower, values: number, ${limit}`, 1, make]);
const numberCases = () =>
  [
    [20, 0.3],
    [50, 0.15],
    [150, 0.06],
    [400, 0.04],
  ].flatMap(([n, shift]) =>
    Object.entries(SHAPES).flatMap(([shape, of]) => {
      // The base stands as low as the best row of the adapter lets it, so that the worst one is at the range's end.
      const base = Math.max(0, -of[0] - shift);
      const range = [0, base + shift + 1];
      const make = (draw) =>
        Array.from({ length: n }, () => [[base, base + shift + of[Math.floor(draw() * of.length)]]]);
      return [
        ['margin', shift],
        ['cap', base + shift],
      ].map(([limit, at]) => [
        `number, ${shape}, n ${n}, at a ${limit}`,
        `direction: lower, values: number, ${limit}: ${at}, range: [${range}]`,
        1,
        make,
      ]);
    }),
  );
function release() {
  for (const [name, metric, samples, make, more] of [...rateCases(), ...numberCases(), ...freeCases()]) {
    if (!name.includes(o.only)) continue;
    const suite = suiteOf(`{ name: m, ${metric} }`, samples, `{ resamples: ${resamples}, minPrompts: 20 }`);
    let passed = 0;
    const draw = uniform('release', name);
    for (let i = 0; i < adapters; i++) if (decided(suite, make(draw), more).decision === 'PASS') passed++;
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
    [
      'loss, k 1',
      '{ name: m, direction: lower, values: number, range: [0, 20], margin: 0.02 }',
      1,
      (draw) => losses(draw, 50_000, 0),
    ],
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
