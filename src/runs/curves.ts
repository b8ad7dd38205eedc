// The curves of a run: its metrics, thinned so that a page of a long run stays small, and the charts that show them.
import type { Chart, Columns } from '../report/plots.js';
import type { StepMetrics } from './metrics.js';

const MEASURED = ['loss', 'lr', 'gradNorm', 'tokens', 'tokensPerSecond', 'peakBytes'] as const;
type Measured = (typeof MEASURED)[number];
/** Of the pairs of a step, where the method has pairs, and of the held-out ones. */
const PAIRS = [
  ['accuracy', 'evalAccuracy', 'Pairs preferred as wanted', 'share'],
  ['margin', 'evalMargin', 'Margin: reward of the chosen answer over the rejected one (nats)', 'nats'],
  ['rewardChosen', 'evalRewardChosen', 'Reward of the chosen answers (nats)', 'nats'],
  ['rewardRejected', 'evalRewardRejected', 'Reward of the rejected answers (nats)', 'nats'],
] as const;
type OfPairs = (typeof PAIRS)[number][0];
/** How well a device was used, and how evenly the experts were. */
const USE = [
  ['percentOfLimit', 'Work of a step by the limits of the device, of the time it took (%)', '%'],
  ['expertImbalance', 'Rows of the busiest expert, of the mean one', 'times'],
  ['copiesHidden', 'Copies from and to host memory that the device did not wait for (%)', '%'],
] as const;
type OfUse = (typeof USE)[number][0];
const HELD_OUT = ['evalLoss', 'evalMatch', ...PAIRS.map(([, held]) => held)] as const;
type HeldOut = (typeof HELD_OUT)[number];
/** What a line of metrics.jsonl may have besides what each has. */
export const SOMETIMES: readonly (HeldOut | OfPairs | OfUse)[] = [...averagedKeys(), ...HELD_OUT];

/** The most points a curve has. */
const LIMIT = 4000;

/** Keys that a point of several steps has the mean of, where each has one. */
function averagedKeys(): readonly (OfPairs | OfUse)[] {
  return [...PAIRS.map(([key]) => key), ...USE.map(([key]) => key)];
}

const heldOutOf = (m: StepMetrics): Partial<Pick<StepMetrics, HeldOut>> =>
  Object.fromEntries(HELD_OUT.flatMap((key) => (m[key] === undefined ? [] : [[key, m[key]]])));

/**
 * Points of a run that grows: every 1, 2, 4, … steps become one, the mean of them, so that there are at most `limit`.
 * What is evaluated in between keeps its last value.
 */
export class Curves {
  /** All but the last one never change within a generation. */
  readonly points: StepMetrics[] = [];
  /** Counts how often all points became other ones. */
  generation = 0;
  /** Steps of a point. */
  #stride = 1;
  /** Steps in the last point. */
  #filled = 0;

  constructor(readonly limit = LIMIT) {}

  add(m: StepMetrics): void {
    const last = this.points.at(-1);
    if (last && this.#filled < this.#stride) {
      this.points[this.points.length - 1] = mean(last, this.#filled, m, 1);
      this.#filled++;
      return;
    }
    if (this.points.length === this.limit) this.#halve();
    if (this.#filled < this.#stride && this.points.length > 0) {
      this.add(m);
      return;
    }
    this.points.push(m);
    this.#filled = 1;
  }

  #halve(): void {
    const old = this.points.splice(0);
    for (let i = 0; i < old.length; i += 2) {
      const [a, b] = [old[i], old[i + 1]];
      if (a) this.points.push(b ? mean(a, 1, b, 1) : a);
    }
    this.#filled = old.length % 2 ? this.#stride : 2 * this.#stride;
    this.#stride *= 2;
    this.generation++;
  }
}

/** Of two points that stand for so many steps each. */
function mean(a: StepMetrics, weightA: number, b: StepMetrics, weightB: number): StepMetrics {
  const of = (key: Measured): number => (a[key] * weightA + b[key] * weightB) / (weightA + weightB);
  const [loss, lr, gradNorm, tokens, tokensPerSecond, peakBytes] = MEASURED.map(of) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const sometimes = averagedKeys().flatMap((key) => {
    const [x, y] = [a[key], b[key]];
    if (x === undefined || y === undefined) return [];
    return [[key, (x * weightA + y * weightB) / (weightA + weightB)] as const];
  });
  return {
    step: b.step,
    loss,
    lr,
    gradNorm,
    tokens,
    tokensPerSecond,
    peakBytes,
    ...Object.fromEntries(sometimes),
    ...heldOutOf(a),
    ...heldOutOf(b),
  };
}

/** The points of a run that is complete. */
export function thin(metrics: readonly StepMetrics[], limit = LIMIT): readonly StepMetrics[] {
  const curves = new Curves(limit);
  for (const m of metrics) curves.add(m);
  return curves.points;
}

/** What is shown of a point, in the order of the columns. */
const COLUMNS: readonly (readonly [name: string, of: (m: StepMetrics) => number | undefined])[] = [
  ['step', (m) => m.step],
  ['loss', (m) => m.loss],
  ['lr', (m) => m.lr],
  ['gradNorm', (m) => m.gradNorm],
  ['tokensPerSecond', (m) => m.tokensPerSecond],
  ['memory', (m) => m.peakBytes / 2 ** 20],
  ['evalLoss', (m) => m.evalLoss],
  ['evalMatch', (m) => m.evalMatch],
  ...USE.map(([key]): (typeof COLUMNS)[number] => [key, (m) => m[key]]),
  ...PAIRS.flatMap(([key, held]): (typeof COLUMNS)[number][] => [
    [key, (m) => m[key]],
    [held, (m) => m[held]],
  ]),
];
export const COLUMN_NAMES: readonly string[] = COLUMNS.map(([name]) => name);
/** A point as a row of the columns. */
export const rowOf = (m: StepMetrics): (number | null)[] => COLUMNS.map(([, of]) => of(m) ?? null);
export const columnsOf = (points: readonly StepMetrics[]): Columns =>
  Object.fromEntries(COLUMNS.map(([name, of]) => [name, points.map((m) => of(m) ?? null)]));

/** The charts that these points fill. */
export function chartsOf(points: readonly StepMetrics[]): readonly Chart[] {
  const has = (key: HeldOut | OfPairs | OfUse): boolean => points.some((m) => m[key] !== undefined);
  const positive = (key: Measured | HeldOut): boolean => points.every((m) => m[key] === undefined || m[key] > 0);
  const pairs = PAIRS.filter(([key]) => has(key));
  return [
    {
      key: 'loss',
      title: pairs.length > 0 ? 'Loss (of a pair)' : 'Loss (nats per weighted token)',
      unit: 'loss',
      column: 'loss',
      wide: true,
      smooth: true,
      log: positive('loss') && positive('evalLoss'),
      ...(has('evalLoss') ? { heldOut: 'evalLoss' } : {}),
    },
    ...(has('evalMatch')
      ? [
          {
            key: 'evalMatch',
            title: 'Held-out rows answered token for token',
            unit: 'share',
            column: 'evalMatch',
            sparse: true,
          },
        ]
      : []),
    ...pairs.map(([key, held, title, unit]) => ({
      key,
      title,
      unit,
      column: key,
      smooth: true,
      ...(has(held) ? { heldOut: held } : {}),
    })),
    { key: 'lr', title: 'Learning rate', unit: 'lr', column: 'lr' },
    {
      key: 'gradNorm',
      title: 'Gradient norm before clipping',
      unit: 'norm',
      column: 'gradNorm',
      log: positive('gradNorm'),
    },
    { key: 'tokensPerSecond', title: 'Tokens per second', unit: 'tokens/s', column: 'tokensPerSecond' },
    ...USE.filter(([key]) => has(key)).map(([key, title, unit]) => ({ key, title, unit, column: key, smooth: true })),
    { key: 'memory', title: 'Peak memory, mapped weights not counted (MiB)', unit: 'MiB', column: 'memory' },
  ];
}
