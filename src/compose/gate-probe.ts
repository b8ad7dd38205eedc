// `temper gate probe`: what a little more tuning on rows that do harm makes of an adapter, and of its base. The suite's
// metrics of harm are asked before the attack and after so many steps of it. Start reading at `runProbe`.
import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInputText } from '../base/inputs.js';
import { parseJson } from '../base/json.js';
import { readJsonFile } from '../base/json-file.js';
import { lockFolder } from '../base/lock.js';
import { versions } from '../base/machine.js';
import type { Subject } from '../gate/decision.js';
import { type Lock, lockDigest, lockText } from '../gate/lock.js';
import { concludeProbe, LOCK_FILE, type Place, POINTS_FOLDER, placeName } from '../gate/probe/conclude.js';
import { probedTests } from '../gate/probe/metrics.js';
import { PROBE_FILE, type Probe, type ProbeArm, probeText } from '../gate/probe/probe.js';
import { writeProbeReports } from '../gate/probe/report.js';
import { type Case, casesOf, type ReadTest, readTests } from '../gate/run/cases.js';
import { OUTCOMES_FILE, readRunRecord } from '../gate/run/record.js';
import { runCases } from '../gate/run/run.js';
import { type ArmTools, Scoring } from '../gate/run/score.js';
import { type LoadedSuite, loadSuite } from '../gate/suite.js';
import type { Tokenizer } from '../harmony/types.js';
import { type Engine, openEngine } from '../infer/engine.js';
import { readMergeAware } from '../lora/peft.js';
import { copySuite, type GateOptions, type OpenedJudge, openCache, openJudges, readPace, subjectFor } from './gate.js';
import { createArm, lazily } from './gate-arms.js';
import type { JudgeOptions } from './gate-judge.js';
import { fittingLock } from './gate-lock.js';
import { Attack, type AttackProgress, type AttackSet, readAttackSet } from './gate-probe-attack.js';
import { type GateTarget, gateTarget } from './gate-target.js';

/** Below the folder of a gate. */
export const PROBE_FOLDER = 'probe';
/** What is tuned lies there while the probe runs; nothing of it is evidence, and no export takes it along. */
export const ATTACKED_FOLDER = 'attacked';
const STATE_FILE = 'run.json';

export interface ProbeOptions extends JudgeOptions, Pick<GateOptions, 'model' | 'suite' | 'lock' | 'slots' | 'engine'> {
  /** Folder of a run, or of an adapter made here or elsewhere. */
  readonly target: string;
  /** Rows of chat that the attack is made of. */
  readonly attack: string;
  readonly out?: string | undefined;
  /** Metrics that are followed; absent: rates of violations of the suite's tests of harm. */
  readonly metrics?: readonly string[] | undefined;
  /** Steps after which both arms are asked; 0, before the attack, is always among them. */
  readonly steps?: readonly number[] | undefined;
  readonly learningRates?: readonly number[] | undefined;
  readonly rowsPerStep?: number | undefined;
  readonly addedRank?: number | undefined;
  readonly seed?: number | undefined;
  /** Above it no bound of the adapter's rates may be. */
  readonly maxRate?: number | undefined;
  readonly resume?: boolean | undefined;
  /** Leave what was tuned where it is, marked. */
  readonly keep?: boolean | undefined;
  /** Say what it would cost, and do nothing. */
  readonly dryRun?: boolean | undefined;
  readonly signal: AbortSignal;
  readonly hooks?: ProbeHooks | undefined;
}
export interface ProbeHooks {
  readonly onPlan?: (plan: ProbePlan) => void;
  readonly onAttack?: (progress: AttackProgress & { readonly learningRate: number }) => void;
  /** Cases of all points. */
  readonly onProgress?: (progress: { readonly done: number; readonly cases: number }) => void;
}
/** What a probe costs, before it begins. */
export interface ProbePlan {
  /** Times that both arms are asked. */
  readonly points: number;
  /** Of all points. */
  readonly cases: number;
  readonly answers: number;
  readonly mostTokens: number;
  /** Steps of training of both arms at all rates, and their tokens. */
  readonly trainSteps: number;
  readonly trainTokens: number;
  /** Asking alone, as fast as the last gate over this base; null: there was none. */
  readonly seconds: number | null;
}
export interface ProbeResult {
  readonly folder: string;
  readonly plan: ProbePlan;
  /** null: nothing was asked but what it costs. */
  readonly probe: Probe | null;
  readonly reports: { readonly json: string; readonly html: string; readonly markdown: string } | null;
  readonly seconds: number;
}

const DEFAULTS = {
  steps: [0, 5, 10, 20, 40],
  learningRates: [1e-3],
  rowsPerStep: 8,
  addedRank: 0,
  seed: 7,
  slots: 16,
} as const;

/** Before the attack, then each rate with its steps in turn. */
function placesOf(steps: readonly number[], rates: readonly number[]): readonly Place[] {
  const after = [...new Set(steps)].filter((s) => s > 0).sort((a, b) => a - b);
  return [
    { learningRate: null, step: 0 },
    ...[...new Set(rates)].flatMap((learningRate) => after.map((step) => ({ learningRate, step }))),
  ];
}

/** Which probe a folder holds. */
const State = z.strictObject({ version: z.literal(1), identity: z.string() });
/** @throws {ConfigError} bad_run: of another probe, or one that is not over and not to be gone on with */
function begin(folder: string, identity: string, resume: boolean): void {
  const file = join(folder, STATE_FILE);
  const bad = (what: string): ConfigError => new ConfigError('bad_run', `${folder}: ${what}`, { folder });
  const value = existsSync(file)
    ? readJsonFile(file, 'record', { next: 'probe again', missing: bad, bad: (what) => bad(`${STATE_FILE}: ${what}`) })
    : null;
  const before = State.safeParse(value).data;
  if (value !== null && !before) throw bad(`${STATE_FILE}: not what a probe writes; give another --out`);
  if (before && resume) {
    if (before.identity === identity) return;
    throw bad('holds a probe of another adapter, attack, suite, judge or setting; without --resume it begins again');
  }
  if (before && !existsSync(join(folder, PROBE_FILE)))
    throw bad('holds a probe that is not over; go on with --resume, or remove the folder to begin again');
  for (const name of [PROBE_FILE, POINTS_FOLDER, ATTACKED_FOLDER, LOCK_FILE])
    rmSync(join(folder, name), { recursive: true, force: true });
  writeFileAtomic(file, `${JSON.stringify({ version: 1, identity }, null, 2)}\n`);
}

/** Whether all outcomes of a point are there, none of which the judge owes. */
function isComplete(folder: string, identity: string): boolean {
  const file = join(folder, OUTCOMES_FILE);
  const record = readRunRecord(folder);
  if (!existsSync(file) || record?.identity !== identity) return false;
  const text = readInputText(file, 'outcomes');
  // What was changed since is refused where it is gone on with.
  if (record.outcomes !== sha256(text)) return false;
  const lines = text.split('\n').filter(Boolean);
  return lines.every((line) => {
    const { value, judge } = parseJson(line) as { readonly value?: unknown; readonly judge?: unknown };
    return value !== null || judge === undefined;
  });
}

interface Arms {
  readonly arms: Readonly<Record<ProbeArm, ArmTools>>;
  /** Of the base's engine: what its answers depend on. */
  readonly engine: Engine;
  close(): Promise<void>;
}
/** Both models at a point: in one engine where adapters are added to the base, in one each where they are merged. */
async function openArms(
  folders: Readonly<Record<ProbeArm, string | null>>,
  { model, merged, toolsOf }: { model: string; merged: boolean; toolsOf: (e: Engine, name: string | null) => ArmTools },
  { engine: how, slots = DEFAULTS.slots, signal }: ProbeOptions,
): Promise<Arms> {
  const given = { model, slots, prefixes: 4, attackTuned: true, ...how };
  const named = (arms: readonly ProbeArm[]): Record<string, string> =>
    Object.fromEntries(arms.flatMap((arm) => (folders[arm] === null ? [] : [[arm, folders[arm]]])));
  const nameIn = (arm: ProbeArm): string | null => (folders[arm] === null ? null : arm);
  if (!merged) {
    const engine = await openEngine({ ...given, adapters: named(['base', 'adapter']) }, signal);
    const arms = { base: toolsOf(engine, nameIn('base')), adapter: toolsOf(engine, nameIn('adapter')) };
    return { arms, engine, close: () => engine.close() };
  }
  const base = await openEngine({ ...given, adapters: named(['base']) }, signal);
  try {
    const adapter = await openEngine({ ...given, adapters: named(['adapter']) }, signal);
    const arms = { base: toolsOf(base, nameIn('base')), adapter: toolsOf(adapter, nameIn('adapter')) };
    const close = async (): Promise<void> => void (await Promise.all([base.close(), adapter.close()]));
    return { arms, engine: base, close };
  } catch (e) {
    await base.close();
    throw e;
  }
}

interface Costs {
  readonly places: readonly Place[];
  readonly cases: readonly Case[];
  readonly mostTokens: number;
  readonly base: string;
  readonly tokensPerStep: number;
}
function planOf({ places, cases, mostTokens, base, tokensPerStep }: Costs): ProbePlan {
  const turns = cases.reduce((sum, c) => sum + Math.max(1, c.prompt.turns.length), 0);
  const answers = 2 * turns * places.length;
  const rates = new Set(places.flatMap((p) => p.learningRate ?? []));
  const most = Math.max(...places.map((p) => p.step));
  const trainSteps = 2 * rates.size * most;
  const pace = readPace(base);
  return {
    points: places.length,
    cases: cases.length * places.length,
    ...{ answers, mostTokens: answers * mostTokens, trainSteps, trainTokens: Math.round(trainSteps * tokensPerStep) },
    seconds: pace === null ? null : (cases.length * places.length) / pace.casesPerSecond,
  };
}

/** What a probe is, all of it checked, before anything is asked. */
interface Prepared {
  readonly folder: string;
  readonly target: GateTarget;
  readonly subject: Subject;
  readonly loaded: LoadedSuite;
  readonly tests: readonly ReadTest[];
  readonly cases: readonly Case[];
  readonly set: AttackSet;
  readonly settings: Settings;
  readonly places: readonly Place[];
  readonly rates: readonly number[];
  readonly attack: Attack;
}
async function prepare(options: ProbeOptions): Promise<Prepared> {
  const { signal, engine } = options;
  const named = gateTarget(options.target, options.model);
  const target = { ...named, model: resolve(named.model), adapter: resolve(named.adapter) };
  const folder = resolve(options.out ?? join(target.folder, PROBE_FOLDER));
  const loaded = loadSuite(options.suite);
  const tests = probedTests(await readTests(loaded), options.metrics);
  const set = await readAttackSet(options.attack, signal);
  const places = placesOf(options.steps ?? DEFAULTS.steps, options.learningRates ?? DEFAULTS.learningRates);
  const settings = {
    rowsPerStep: options.rowsPerStep ?? DEFAULTS.rowsPerStep,
    addedRank: options.addedRank ?? DEFAULTS.addedRank,
    seed: options.seed ?? DEFAULTS.seed,
    precision: engine?.precision ?? 'bf16',
  };
  const attack = new Attack({
    ...{ ...settings, ...target, set, signal, file: resolve(options.attack), folder: join(folder, ATTACKED_FOLDER) },
    ...{ device: engine?.device ?? 'auto', threads: engine?.threads },
  });
  return {
    ...{ folder, target, loaded, tests, set, settings, places, attack },
    subject: await subjectFor(target, { signal }),
    cases: casesOf(loaded, tests),
    rates: [...new Set(places.flatMap((p) => p.learningRate ?? []))],
  };
}

/** What it costs; the rows of the attack are read for it as training reads them. */
async function planFor(p: Prepared, tokenizer: Tokenizer): Promise<ProbePlan> {
  const { loaded, subject, places, rates, cases, attack } = p;
  const [rate] = rates;
  const training = rate === undefined ? null : await attack.plan(rate, Math.max(...places.map((p) => p.step)));
  return planOf({
    ...{ places, cases, mostTokens: loaded.suite.sampling.maxTokens },
    // As an engine names it, by which a gate keeps its pace.
    base: sha256(`${subject.base.replace('sha256:', '')}\n${tokenizer.digest}`),
    tokensPerStep: training?.tokensPerStep ?? 0,
  });
}

/** All that an outcome depends on but the point. */
function identityOf(p: Prepared, { engine }: ProbeOptions, manner: string, lock: Lock | null): string {
  const { sampling, seeds } = p.loaded.suite;
  const asked = p.cases.map((c) => [c.of.test.name, c.prompt.id, c.prompt.turns, c.sample]);
  const metrics = p.tests.map((t) => t.counted.map((c) => c.metric.name));
  const how = [{ ...engine, threads: undefined }, sampling, seeds, manner, lock && lockDigest(lock)];
  return sha256(JSON.stringify([p.subject, p.set, p.settings, p.loaded.digest, how, metrics, asked]));
}

interface Asking {
  readonly judges: OpenedJudge;
  readonly tokenizer: () => Tokenizer;
  readonly options: ProbeOptions;
  /** Told of cases of this point that are done. */
  readonly onDone: (cases: number) => void;
}
/** Tunes both arms as far as a point is, and asks them. */
async function askPoint(p: Prepared, place: Place, at: string, identity: string, asking: Asking): Promise<void> {
  const { judges, tokenizer, options, onDone } = asking;
  const { target, loaded, attack } = p;
  const { signal, hooks, engine } = options;
  const { learningRate, step } = place;
  const { temperature, maxTokens } = loaded.suite.sampling;
  const tuned = async (arm: ProbeArm, rate: number): Promise<string> =>
    attack.after(arm, rate, step, (done) => hooks?.onAttack?.({ ...done, learningRate: rate }));
  const folders =
    learningRate === null
      ? { adapter: target.adapter, base: null }
      : { adapter: await tuned('adapter', learningRate), base: await tuned('base', learningRate) };
  const toolsOf = (e: Engine, adapter: string | null): ArmTools =>
    createArm({ engine: e, adapter, maxTokens, temperature, tokenizer });
  const merged = readMergeAware(target.adapter) !== null;
  const { arms, engine: opened, close } = await openArms(folders, { model: target.model, merged, toolsOf }, options);
  try {
    const depends = JSON.stringify([opened.info.device.place, engine ?? null, temperature, maxTokens]);
    const baseDigest = await opened.digest(signal);
    const scoring = new Scoring(
      {
        ...{ arms, policies: judges.policies, judge: judges.locked?.digest ?? null, training: null },
        ...{ seeds: loaded.suite.seeds, content: 'none' },
        // What the base answers before the attack a gate may have asked already.
        cache: learningRate === null ? await openCache(baseDigest) : null,
        baseKey: sha256(`${baseDigest}\n${depends}\n${judges.manner}\n${versions().temper}`),
      },
      signal,
    );
    makeFolders(at);
    await runCases({
      ...{ folder: at, cases: p.cases, scoring, identity, shard: null, resume: true, signal },
      window: 2 * (options.slots ?? DEFAULTS.slots),
      onProgress: ({ done }) => onDone(done),
    });
  } finally {
    await close();
  }
}

/**
 * @throws {ConfigError} what target, suite and options have wrong; probe_metric, bad_run · {DataError} rows of the
 * attack that cannot be trained on · {CheckpointError} attack_tuned · {IntegrityError} lock_mismatch · what models and
 * judges throw · the signal's reason
 */
export async function runProbe(options: ProbeOptions): Promise<ProbeResult> {
  const { hooks } = options;
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  const p = await prepare(options);
  const { folder } = p;
  makeFolders(folder);
  using _lock = lockFolder(
    folder,
    ({ who }) =>
      new ConfigError('bad_run', `${folder}: ${who} probes in it; wait for it, or give another --out`, { folder }),
  );
  const tokenizer = lazily(p.target.model);
  try {
    const plan = await planFor(p, tokenizer.get());
    hooks?.onPlan?.(plan);
    if (options.dryRun) return { folder, plan, probe: null, reports: null, seconds: seconds() };
    return await attackAndAsk(p, plan, tokenizer.get, options, seconds);
  } finally {
    tokenizer.close();
  }
}

async function attackAndAsk(
  p: Prepared,
  plan: ProbePlan,
  tokenizer: () => Tokenizer,
  options: ProbeOptions,
  seconds: () => number,
): Promise<ProbeResult> {
  const { signal, hooks, maxRate = null } = options;
  const { folder } = p;
  const judges = await openJudges(p.tests, p.loaded, { ...options, signal });
  try {
    const lock = options.lock === undefined ? null : fittingLock(options.lock, p.loaded, judges.locked);
    const identity = identityOf(p, options, judges.manner, lock);
    begin(folder, identity, options.resume === true);
    copySuite(p.loaded, folder);
    if (lock) writeFileAtomic(join(folder, LOCK_FILE), lockText(lock));
    for (const [i, place] of p.places.entries()) {
      const at = join(folder, POINTS_FOLDER, placeName(place));
      const own = sha256(JSON.stringify([identity, place]));
      const onDone = (cases: number): void =>
        hooks?.onProgress?.({ done: i * p.cases.length + cases, cases: plan.cases });
      if (!isComplete(at, own)) await askPoint(p, place, at, own, { judges, tokenizer, options, onDone });
      onDone(p.cases.length);
    }
    const probe = concludeProbe(
      folder,
      {
        ...{ places: p.places, subject: p.subject, attack: attackOf(p), maxRate, version: versions().temper },
        judge: judges.locked?.digest ?? null,
        metrics: p.tests.flatMap((test) => test.counted.map((c) => c.metric.name)),
      },
      signal,
    );
    writeFileAtomic(join(folder, PROBE_FILE), probeText(probe));
    const reports = writeProbeReports(folder, probe);
    if (!options.keep) p.attack.remove();
    return { folder, plan, probe, reports, seconds: seconds() };
  } finally {
    await judges.close();
  }
}
type Settings = Pick<Probe['attack'], 'rowsPerStep' | 'addedRank' | 'seed' | 'precision'>;
const attackOf = ({ set, places, rates, settings }: Prepared): Probe['attack'] => ({
  ...{ data: `sha256:${set.digest}`, rows: set.rows, learningRates: [...rates], ...settings },
  steps: [...new Set(places.map((p) => p.step))],
});
