// A probe out of the files that it left: its suite, its lock, and the outcomes of each point. Whoever has them comes to
// the same again.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { IntegrityError } from '../../base/errors.js';
import { lockDigest, readLock, readSuiteFiles, requireLock } from '../lock.js';
import { type Outcomes, readOutcomes } from '../outcomes.js';
import { OUTCOMES_FILE } from '../run/record.js';
import { drawsOf, type LoadedSuite, loadSuite } from '../suite.js';
import { estimatePoint, type Followed, verdictOf, worstOf } from './estimate.js';
import { type Point, PROBE_FILE, PROBE_SCHEMA, type Probe, readProbe } from './probe.js';

/** Below the folder of a probe. */
export const POINTS_FOLDER = 'points';
export const SUITE_FILE = join('suite', 'suite.yaml');
export const LOCK_FILE = 'gate.lock.json';
const NOT_CORRECTED = 'not corrected for errors of the judge, of which no lock has a calibration';

/** A time at which both arms are asked. */
export interface Place {
  /** null: before the attack. */
  readonly learningRate: number | null;
  readonly step: number;
}
/** Name of the folder with its outcomes. */
export const placeName = ({ learningRate, step }: Place): string =>
  learningRate === null ? 'step-0' : `lr-${learningRate}-step-${step}`;

/** What does not follow from outcomes. */
export interface Given extends Pick<Probe, 'subject' | 'judge' | 'attack' | 'maxRate'> {
  /** In the order of the attack. */
  readonly places: readonly Place[];
  /** Names of the metrics that are followed. */
  readonly metrics: readonly string[];
  /** Of Temper. */
  readonly version: string;
}

function followedOf(loaded: LoadedSuite, names: readonly string[]): readonly Followed[] {
  const { prompts } = readSuiteFiles(loaded);
  return loaded.suite.tests.flatMap((test) =>
    test.metrics
      .filter((metric) => names.includes(metric.name))
      .map((metric) => ({
        metric,
        draws: drawsOf(loaded.suite, test),
        prompts: prompts[metric.name] ?? null,
      })),
  );
}

/**
 * @param folder of the probe, with suite, points and the lock if there is one
 * @throws {DataError} outcomes that are none · as loadSuite, readLock and readSuiteFiles · {IntegrityError}
 * lock_mismatch · the signal's reason
 */
export function concludeProbe(folder: string, given: Given, signal?: AbortSignal): Probe {
  const { subject, judge, attack, maxRate, metrics, places, version } = given;
  const loaded = loadSuite(join(folder, SUITE_FILE));
  const lock = existsSync(join(folder, LOCK_FILE)) ? readLock(join(folder, LOCK_FILE)) : null;
  if (lock) requireLock(lock, loaded, readSuiteFiles(loaded));
  const followed = followedOf(loaded, metrics);
  const { decision, name, version: suiteVersion } = loaded.suite;
  const rates = lock?.judge?.calibration?.rates ?? null;
  const doubts = new Set<string>();
  let before: Outcomes | null = null;
  const points = places.map((place): Point => {
    const outcomes = readOutcomes(join(folder, POINTS_FOLDER, placeName(place), OUTCOMES_FILE));
    const found = estimatePoint(before, outcomes, { followed, parameters: decision, rates, signal });
    before ??= outcomes;
    for (const doubt of found.doubts) doubts.add(doubt);
    return { ...place, outcomes: outcomes.digest, rows: outcomes.count, metrics: [...found.metrics] };
  });
  const worst = (metric?: string): Probe['worst'] => ({
    adapter: worstOf(points, 'adapter', metric),
    base: worstOf(points, 'base', metric),
  });
  return {
    schema: PROBE_SCHEMA,
    ...verdictOf(points, decision, maxRate, [...doubts]),
    notes: rates === null && followed.some((f) => f.metric.judged) ? [NOT_CORRECTED] : [],
    ...{ subject, judge, attack, maxRate, points },
    suite: { name, version: suiteVersion, digest: loaded.digest },
    lock: lock && lockDigest(lock),
    alpha: decision.alpha,
    worst: worst(),
    byMetric: followed.map(({ metric }) => ({ metric: metric.name, ...worst(metric.name) })),
    tool: { name: 'temper', version },
  };
}

/**
 * A probe's conclusions again, as far as they follow from its files.
 * @throws {IntegrityError} bad_probe: its metrics or points are not those of its files · as readProbe, concludeProbe
 */
export function concludeAgain(folder: string, signal?: AbortSignal): Probe {
  const file = join(folder, PROBE_FILE);
  const probe = readProbe(file);
  const bad = (what: string): IntegrityError =>
    new IntegrityError('bad_probe', `${file}: ${what}; probe again with temper gate probe`, { file });
  const { points, byMetric } = probe;
  if (points[0]?.learningRate !== null || points.slice(1).some((p) => p.learningRate === null))
    throw bad('its points are not those of an attack: one before it, and those after');
  const metrics = byMetric.map((m) => m.metric);
  try {
    return concludeProbe(folder, { ...probe, places: points, metrics, version: probe.tool.version }, signal);
  } catch (e) {
    if (e instanceof TypeError || e instanceof RangeError) throw bad(e.message);
    throw e;
  }
}
