// What a probe makes of outcomes: rates and intervals against the statistics themselves, the worst of a curve, and when
// it says nothing. No model is asked.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Outcomes, OutcomesBuilder } from '../../src/gate/outcomes.js';
import { curveOf } from '../../src/gate/probe/curves.js';
import { type EstimateOptions, estimatePoint, verdictOf, worstOf } from '../../src/gate/probe/estimate.js';
import { probedTests } from '../../src/gate/probe/metrics.js';
import { type Point, PROBE_SCHEMA, Probe, probeText, readProbe } from '../../src/gate/probe/probe.js';
import { writeProbeReports } from '../../src/gate/probe/report.js';
import { readTests } from '../../src/gate/run/cases.js';
import { mcnemar, tango } from '../../src/gate/statistics/paired.js';
import { clopperPearson } from '../../src/gate/statistics/proportion.js';
import { correctRate } from '../../src/gate/statistics/rogan-gladen.js';
import { DecisionParameters, loadSuite, Metric } from '../../src/gate/suite.js';

const root = mkdtempSync(join(tmpdir(), 'temper-probe-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const D = `sha256:${'a'.repeat(64)}`;
const N = 50;
const metric = Metric.parse({ name: 'harm.final', direction: 'lower', judged: true, margin: 0.1 });
const parameters = DecisionParameters.parse({ resamples: 1000 });
const followed = [{ metric, draws: 1, prompts: N }];
const options: EstimateOptions = { followed, parameters, rates: null };

type Value = 0 | 1 | null;
/** Answers of both arms to N prompts; a function of the prompt's number. */
function outcomes(base: (p: number) => Value, adapter: (p: number) => Value): Outcomes {
  const builder = new OutcomesBuilder();
  let line = 0;
  for (let p = 0; p < N; p++)
    for (const [arm, value] of [
      ['base', base(p)],
      ['adapter', adapter(p)],
    ] as const)
      builder.add({ metric: metric.name, prompt: `p${p}`, sample: 0, arm, value }, ++line);
  return builder.finish(D);
}
const below =
  (n: number) =>
  (p: number): 0 | 1 =>
    p < n ? 1 : 0;
const before = outcomes(below(1), below(2));
const pointOf = (step: number, after: Outcomes, more: Partial<EstimateOptions> = {}): Point => {
  const found = estimatePoint(step === 0 ? null : before, after, { ...options, ...more });
  const learningRate = step === 0 ? null : 1e-3;
  return { learningRate, step, outcomes: D, rows: after.count, metrics: [...found.metrics] };
};

describe('estimates of a probe', () => {
  const [found] = pointOf(10, outcomes(below(5), below(20))).metrics;
  it('have the exact interval of each rate, and Tango’s of what changed on the same prompts', () => {
    expect(found?.adapter).toMatchObject({ rate: 0.4, violations: 20, missing: 0, corrected: null });
    expect(found?.adapter.interval).toEqual({ method: 'clopper-pearson', level: 0.9, ...clopperPearson(20, N, 0.9) });
    expect(found?.base.interval).toMatchObject(clopperPearson(5, N, 0.9));
    expect(found?.adapter.bound).toBe(clopperPearson(20, N, 0.9).high);
    // Of those 20, two were violations before: 18 got worse, none better.
    expect(found?.adapter.change?.difference).toBeCloseTo(18 / N, 12);
    expect(found?.adapter.change?.interval).toMatchObject({ method: 'tango', ...tango(18, 0, N, 0.9) });
    expect(found?.adapter.change?.pValue).toBe(mcnemar(18, 0).midP);
    expect(found?.base.change?.interval).toMatchObject(tango(4, 0, N, 0.9));
    expect(found?.excess.interval).toMatchObject(tango(15, 0, N, 0.9));
    expect(pointOf(0, before).metrics[0]?.adapter.change).toBeNull();
  });

  it('count what is missing as violations, and say what is so whatever it was', () => {
    const [some] = pointOf(
      10,
      outcomes(below(0), (p) => (p < 3 ? null : below(8)(p))),
    ).metrics;
    expect(some?.adapter).toMatchObject({ rate: 8 / N, violations: 5, missing: 3 });
    expect(some?.adapter.bound).toBe(clopperPearson(8, N, 0.9).high);
    expect(some?.adapter.surely).toBe(clopperPearson(5, N, 0.9).high);
    // A prompt that is not there at all is missing too.
    const all = { ...options, followed: [{ metric, draws: 1, prompts: N + 5 }] };
    const [lacking] = estimatePoint(before, outcomes(below(0), below(0)), all).metrics;
    expect(lacking?.adapter).toMatchObject({ missing: 5, rate: 5 / (N + 5) });
  });

  it('are corrected by the arm’s own calibration, and doubted where the judge may as well guess', () => {
    const good = { positives: 200, caught: 180, negatives: 200, passed: 190 };
    const better = { positives: 200, caught: 196, negatives: 200, passed: 199 };
    const after = outcomes(below(5), below(20));
    const [some] = pointOf(10, after, { rates: { base: better, adapter: good } }).metrics;
    for (const [arm, rates, x] of [
      ['adapter', good, 20],
      ['base', better, 5],
    ] as const) {
      const wanted = correctRate({ value: x / N, ...clopperPearson(x, N, 0.9) }, rates, 0.9);
      expect(some?.[arm].corrected).toMatchObject({ rate: wanted.value, low: wanted.low, high: wanted.high });
      expect(some?.[arm].bound).toBe(wanted.high);
    }
    const guess = { positives: 20, caught: 10, negatives: 20, passed: 10 };
    const found = estimatePoint(before, after, { ...options, rates: { both: guess } });
    expect(found.doubts).toEqual(['harm.final: the judge is not shown to be better than guessing']);
  });
});

describe('what comes of a probe', () => {
  const points = [
    pointOf(0, before),
    pointOf(5, outcomes(below(4), below(6))),
    pointOf(10, outcomes(below(12), below(20))),
    pointOf(20, outcomes(below(10), below(9))),
  ];
  it('is the worst of the curve, wherever it is', () => {
    expect(worstOf(points, 'adapter')).toMatchObject({ step: 10, rate: 0.4, learningRate: 1e-3 });
    expect(worstOf(points, 'base')).toMatchObject({ step: 10, rate: 0.24 });
    const other = { ...pointOf(5, outcomes(below(0), below(30))), learningRate: 1e-2 };
    const curve = curveOf({ points: [...points, other] }, metric.name, 'adapter');
    expect(curve.map((p) => [p.step, p.rate])).toEqual([
      [0, 0.04],
      [5, 0.6],
      [10, 0.4],
      [20, 0.18],
    ]);
  });

  it('is above a limit only where that is so whatever is missing, and within it only where all bounds are', () => {
    const missing = pointOf(
      10,
      outcomes(below(0), (p) => (p < 6 ? null : 0)),
    );
    const of = (some: readonly Point[], limit: number | null): unknown[] => {
      const { status, exit } = verdictOf([...some], parameters, limit, []);
      return [status, exit];
    };
    expect(of(points, null)).toEqual(['measured', 0]);
    expect(of(points, 0.6)).toEqual(['measured', 0]);
    expect(of(points, 0.5)).toEqual(['above', 10]);
    expect(of([missing], null)).toEqual(['inconclusive', 20]);
    expect(of([missing], 0.15)).toEqual(['inconclusive', 20]);
    // Its bound holds although six count as violations; and is broken although they count as none.
    expect(of([missing], 0.3)).toEqual(['measured', 0]);
    expect(of([missing], 0.01)).toEqual(['above', 10]);
    expect(
      of(
        [
          pointOf(
            10,
            outcomes(below(0), (p) => (p < 25 ? null : 0)),
          ),
        ],
        0.01,
      ),
    ).toEqual(['error', 30]);
    expect(verdictOf(points, parameters, 0.5, ['the judge guesses'])).toMatchObject({ exit: 20 });
  });

  it('is told in one page that holds no script and escapes what it is told, and is read as it was written', () => {
    const worst = { adapter: worstOf(points, 'adapter'), base: worstOf(points, 'base') };
    const probe = Probe.parse({
      schema: PROBE_SCHEMA,
      ...verdictOf(points, parameters, 0.5, []),
      notes: ['<b>'],
      subject: { adapter: D, base: D, tokenizer: D, chatFormat: D, mergeRecipe: null },
      suite: { name: 's', version: '1', digest: D },
      ...{ lock: null, judge: null, alpha: 0.05, maxRate: 0.5, worst, points },
      attack: {
        ...{ data: D, rows: 9, steps: [0, 5, 10, 20], learningRates: [1e-3], rowsPerStep: 8, addedRank: 0, seed: 7 },
        precision: 'bf16',
      },
      byMetric: [{ metric: metric.name, ...worst }],
      tool: { name: 'temper', version: '0' },
    });
    const { html, markdown, json } = writeProbeReports(root, probe);
    const page = readFileSync(html, 'utf8');
    expect(page).toContain('40 % of answers break a rule (harm.final, after 10 steps at 0.001)');
    expect(page).toMatch(/<svg class="curve"[^>]*aria-label="harm.final: adapter 4 % after 0, 12 % after 5/);
    expect(page).not.toMatch(/<script|<b>\.|https?:\/\/(?!www\.w3\.org)/);
    expect(page).toContain('&#60;b&#62;');
    expect(readFileSync(markdown, 'utf8')).toContain('| 10 | 0.001 | 40 %');
    writeFileSync(json, probeText(probe));
    expect(readProbe(json)).toEqual(probe);
    writeFileSync(json, probeText(probe).replace('"measured"', '"fine"').replace('"above"', '"fine"'));
    expect(() => readProbe(json)).toThrow(/bad_probe|no probe: "status"/);
  });
});

describe('metrics of a probe', () => {
  it('are rates of violations of tests of harm, or those that are named and can be followed', async () => {
    const tests = await readTests(loadSuite('gates/nano/suite.yaml'));
    const names = (wanted?: readonly string[]): readonly string[] =>
      probedTests(tests, wanted).flatMap((t) => t.counted.map((c) => c.metric.name));
    expect(names()).toEqual(['harm.final', 'harm.detected', 'insults.final', 'wrapped.final', 'escalating.final']);
    expect(names(['hierarchy.found', 'harm.final'])).toEqual(['harm.final', 'hierarchy.found']);
    for (const [name, why] of [
      ['nothing', 'is not in the suite'],
      ['retained.loss', 'is no rate of violations'],
      ['monitored.caught', 'is no rate of violations'],
      ['triggers.found', 'prompts that are made for one adapter'],
      ['memory.leaked', 'what an adapter was trained on'],
      ['known-contact.wrong', 'is of the judge'],
    ] as const)
      expect(() => names([name]), name).toThrow(new RegExp(`--metric ${name}: .*${why}`));
  });
});
