// `temper gate`: opens base, adapter and judge, runs a suite over them, and decides. Start reading at `runGate`.
import { existsSync, rmSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { cacheFolder } from '../base/cache.js';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInput, readInputText } from '../base/inputs.js';
import { parseJson } from '../base/json.js';
import { versions } from '../base/machine.js';
import { decideOnFiles } from '../gate/deciding.js';
import { type Decision, decisionText, type Subject } from '../gate/decision.js';
import { type Lock, type LockJudge, lockDigest, lockText, makeLock } from '../gate/lock.js';
import { nextSteps } from '../gate/next.js';
import { type BaseCache, openBaseCache } from '../gate/run/base-cache.js';
import { type Case, casesOf, type ReadTest, readTests } from '../gate/run/cases.js';
import { type Estimate, estimate, workOf } from '../gate/run/cost.js';
import { OUTCOMES_FILE } from '../gate/run/record.js';
import { type RunProgress, type RunResult, runCases, type Shard } from '../gate/run/run.js';
import { type Arms, type ArmTools, type PolicyJudge, Scoring } from '../gate/run/score.js';
import { readTraining } from '../gate/run/training.js';
import type { Prompt, Training } from '../gate/scorers/scorer.js';
import { promptsBehind, searchTriggers } from '../gate/scorers/triggers.js';
import { filesOf, type LoadedSuite, loadSuite } from '../gate/suite.js';
import type { Message } from '../harmony/types.js';
import { type Engine, openEngine } from '../infer/engine.js';
import type { EngineOptions } from '../infer/protocol.js';
import { readMergeAware } from '../lora/peft.js';
import { subjectOf } from '../runs/subject.js';
import type { Judge } from '../safeguard/types.js';
import { createArm, createPolicyJudge, lazily, wordsOf } from './gate-arms.js';
import { measureSpeed, spread } from './gate-cost.js';
import { JUDGE_DEFAULTS, type JudgeOptions, lockedJudge } from './gate-judge.js';
import { fittingLock } from './gate-lock.js';
import { mergedSubject } from './gate-merged.js';
import { PROOF_FILE, proofFor, proofText } from './gate-proof.js';
import { reportGate } from './gate-report.js';
import { type Asked, askPeople } from './gate-review.js';
import { type GateTarget, gateTarget } from './gate-target.js';
import { LABELS_FILE } from './gate-tools.js';
import { countWork, type GateWork } from './gate-work.js';
import { detectorsOf, isUrl, judgingOf, openJudge, type ScreeningOptions } from './screening.js';

export const ADAPTER_ARM = 'adapter';
export const LOCK_FILE = 'gate.lock.json';
export const DECISION_FILE = 'decision.json';
export const SUITE_FOLDER = 'suite';
export const SUITE_FILE = 'suite.yaml';

export interface GateOptions extends JudgeOptions {
  /** Folder of a run, or of an adapter made here or elsewhere. */
  readonly target: string;
  readonly model?: string;
  readonly suite: string;
  readonly lock?: string;
  readonly out?: string;
  /** A checkpoint that the adapter is merged into, where that is to leave too: it answers beside the adapter. */
  readonly merged?: { readonly model: string; readonly recipe: string };
  /** Files of the training set, where no run names them. */
  readonly training?: readonly string[];
  readonly resume?: boolean;
  readonly shard?: Shard | null;
  readonly content?: 'full' | 'none';
  /** The store of a review console, where judged pairs that differ are put before people. */
  readonly store?: string;
  /** Two people must say the same of each of their answers. */
  readonly reviewTwoPersons?: boolean;
  /** Do not use what the base answered before. */
  readonly fresh?: boolean;
  /** Answers at once. */
  readonly slots?: number;
  readonly engine?: Pick<
    EngineOptions,
    'threads' | 'device' | 'precision' | 'denseDtype' | 'kvDtype' | 'contextTokens'
  >;
  /** Seconds; what the plan, and what it is compared with, are measured by. */
  readonly clock?: () => number;
  readonly signal: AbortSignal;
  readonly hooks?: GateHooks;
}
export interface GateHooks {
  readonly onPlan?: (plan: GatePlan) => void;
  readonly onSearch?: (done: number, total: number) => void;
  readonly onProgress?: (progress: RunProgress & { readonly tokens: number }) => void;
  readonly onNote?: (note: string) => void;
}
/** What a run will cost, before it begins. */
export interface GatePlan extends GateWork {
  /** Of asking and judging, not of the search for triggers; null: the models were too slow to tell. */
  readonly estimate: Estimate | null;
}
export interface GateResult {
  readonly folder: string;
  /** null: a shard, which is joined with the others before anything is decided. */
  readonly decision: Decision | null;
  /** What to do about what did not pass, a line for each metric. */
  readonly next: readonly string[];
  /** What was put before people; null: nobody was to be asked. */
  readonly asked: Asked | null;
  readonly run: RunResult;
  readonly lock: string;
  /** null: nobody wanted to be told. */
  readonly plan: GatePlan | null;
  /** Of asking and judging alone, which the plan has an estimate of. */
  readonly runSeconds: number;
  readonly seconds: number;
  readonly tokens: number;
}

const SLOTS = 16;

interface Opened {
  readonly base: Engine;
  /** Has the adapter. */
  readonly tuned: Engine;
  /** null: no merged checkpoint is judged. */
  readonly merged: Engine | null;
  close(): Promise<void>;
}
/** All models: one engine where the adapter is put on the base, one more for each that is merged into it. */
async function openModels(target: GateTarget, options: GateOptions): Promise<Opened> {
  const { merged, signal, slots = SLOTS } = options;
  const given = { slots, prefixes: 4, ...options.engine };
  const opened: Engine[] = [];
  const close = async (): Promise<void> => void (await Promise.all(opened.map((engine) => engine.close())));
  const open = async (model: string, adapters?: Record<string, string>): Promise<Engine> => {
    const engine = await openEngine({ model, ...(adapters ? { adapters } : {}), ...given }, signal);
    opened.push(engine);
    return engine;
  };
  try {
    const tuned = await open(target.model, { [ADAPTER_ARM]: target.adapter });
    const base = readMergeAware(target.adapter) === null ? tuned : await open(target.model);
    return { base, tuned, merged: merged ? await open(merged.model) : null, close };
  } catch (e) {
    await close();
    throw e;
  }
}

export interface OpenedJudge {
  readonly judge: Judge | null;
  /** By the path of a policy. */
  readonly policies: ReadonlyMap<string, PolicyJudge>;
  readonly locked: LockJudge | null;
  /** What its verdicts depend on beside policy and text. */
  readonly manner: string;
  close(): Promise<void>;
}
/** @throws {ConfigError} judge_missing · as openJudge */
export async function openJudges(
  tests: readonly ReadTest[],
  loaded: LoadedSuite,
  options: JudgeOptions & { readonly signal: AbortSignal },
): Promise<OpenedJudge> {
  const { signal, judge: where } = options;
  const files = [...new Set(tests.flatMap((t) => t.policy ?? []))];
  if (files.length === 0) return { judge: null, policies: new Map(), locked: null, manner: '', close: async () => {} };
  if (where === undefined)
    throw new ConfigError('judge_missing', `${loaded.file}: judges by policies; add --judge DIR or --judge URL`);
  const screening: Omit<ScreeningOptions, 'judge'> = { ...JUDGE_DEFAULTS, ...options, policy: files };
  const { judge, close } = await openJudge(where, screening, true, signal);
  try {
    const detectors = detectorsOf(options);
    const known = new Set(tests.filter((t) => t.scorer.armless).map((t) => t.policy));
    const policies = new Map<string, PolicyJudge>();
    for (const file of files)
      policies.set(
        file,
        await createPolicyJudge(file, {
          ...{ judge, detectors, judging: judgingOf(options) },
          timeoutMs: screening.judgeTimeout * 1000,
          concurrency: screening.judgeConcurrency,
          probe: isUrl(where) && options.judgeProbe !== false,
          unchecked: options.judgeUnchecked === true || known.has(file),
          contract: options.judgeContract,
        }),
      );
    const locked = await lockedJudge(loaded, { ...options, judge: where });
    // Views, votes and windows are part of how it is asked.
    const manner = JSON.stringify([judge.digest, judgingOf(options), detectors.digest]);
    return { judge, policies, locked, manner, close };
  } catch (e) {
    await close();
    throw e;
  }
}

/** The lock that a run goes by: the one given, which must fit, or one that is made now. */
function lockFor(loaded: LoadedSuite, judge: LockJudge | null, options: GateOptions): Lock {
  if (options.lock !== undefined) return fittingLock(options.lock, loaded, judge);
  options.hooks?.onNote?.(
    'no --lock: thresholds, prompts and judge were fixed by nobody before this run; make a lock with temper gate ' +
      'lock, commit it, and give it',
  );
  return makeLock(loaded, { judge, version: versions().temper });
}

/** The suite and all its files, as they were asked. @throws {ConfigError} bad_suite: a file lies outside its folder */
export function copySuite(loaded: LoadedSuite, folder: string): void {
  const to = join(folder, SUITE_FOLDER);
  makeFolders(to);
  const copy = (from: string, name: string): void => {
    if (relative(to, join(to, name)).startsWith('..'))
      throw new ConfigError('bad_suite', `${loaded.file}: ${name} lies outside the suite's folder; put it beside it`, {
        file: loaded.file,
      });
    makeFolders(dirname(join(to, name)));
    writeFileAtomic(join(to, name), readInput(from, 'prompts'));
  };
  copy(loaded.file, SUITE_FILE);
  for (const { path } of filesOf(loaded.suite)) copy(join(loaded.folder, path), path);
}

/** Prompts of the tests that make theirs: those behind the triggers that the search found. */
async function expanded(
  tests: readonly ReadTest[],
  arms: Arms,
  more: { readonly training: Training | null; readonly words: () => readonly string[] },
  { signal, hooks }: GateOptions,
): Promise<readonly ReadTest[]> {
  return Promise.all(
    tests.map(async (test) => {
      if (!test.scorer.expands) return test;
      const gap = async (prompt: Prompt, violation: string): Promise<number> => {
        const messages = [...prompt.opening, ...prompt.turns.map((content) => ({ role: 'user' as const, content }))];
        const losses = [arms.base, arms.adapter, ...(arms.merged ? [arms.merged] : [])].map((arm) =>
          arm.loss(messages, { final: violation }, signal),
        );
        const [base = Number.NaN, ...judged] = await Promise.all(losses);
        return base - Math.min(...judged);
      };
      const found = await searchTriggers({
        prompts: test.prompts,
        training: more.training,
        vocabulary: more.words(),
        gap,
        signal,
        ...(hooks?.onSearch ? { onSearched: hooks.onSearch } : {}),
      });
      return { ...test, prompts: promptsBehind(test, found) };
    }),
  );
}

/** How fast the last gate over a base was, as its cache remembers. */
interface Pace {
  readonly casesPerSecond: number;
}
const paceFile = (base: string): string | null => {
  const folder = cacheFolder('gate');
  return folder === null ? null : join(folder, `${base}.pace.json`);
};
export function readPace(base: string): Pace | null {
  try {
    const { casesPerSecond } = parseJson(readInputText(paceFile(base) ?? '', 'record')) as Pace;
    return casesPerSecond > 0 ? { casesPerSecond } : null;
  } catch {
    return null;
  }
}
function keepPace(base: string, pace: Pace): void {
  const file = paceFile(base);
  try {
    if (file !== null) writeFileAtomic(file, `${JSON.stringify(pace)}\n`);
  } catch {
    // it is a convenience
  }
}
/** Arms, from what is open. */
function armsOf({ models, tokenizer, loaded }: OpenGate): Arms {
  const { temperature, maxTokens } = loaded.suite.sampling;
  const armOf = (engine: Engine, adapter: string | null): ArmTools =>
    createArm({ engine, adapter, maxTokens, temperature, tokenizer: tokenizer.get });
  return {
    base: armOf(models.base, null),
    adapter: armOf(models.tuned, ADAPTER_ARM),
    ...(models.merged ? { merged: armOf(models.merged, null) } : {}),
  };
}
/** What is to be done, counted, and how long it takes by what a little of it took. */
async function planOf(open: OpenGate, options: GateOptions): Promise<GatePlan> {
  const { loaded, read, judges, models } = open;
  const { sampling } = loaded.suite;
  const cases = casesOf(loaded, read);
  const arms = models.merged ? 3 : 2;
  const slots = options.slots ?? SLOTS;
  const asked = cases.filter((c) => c.prompt.text === null).map((c) => conversationOf(c.prompt));
  const speed = await measureSpeed({
    engine: models.tuned,
    adapter: ADAPTER_ARM,
    conversations: spread([...new Map(asked.map((m) => [JSON.stringify(m), m])).values()], 2 * slots),
    slots,
    sampling,
    // One behind a URL may cost money.
    judge: isUrl(options.judge ?? '') ? null : (judges.policies.values().next().value ?? null),
    clock: clockOf(options),
    signal: options.signal,
  });
  const cache = cacheFolder('gate');
  const known = !options.fresh && cache !== null && existsSync(join(cache, `${await models.base.digest()}.jsonl`));
  return {
    ...countWork(loaded, cases, arms),
    estimate: speed === null ? null : estimate(workOf(cases), speed, arms, known),
  };
}
const clockOf = ({ clock = () => performance.now() / 1000 }: GateOptions): (() => number) => clock;
const conversationOf = ({ opening, turns }: Prompt): readonly Message[] =>
  turns[0] === undefined ? opening : [...opening, { role: 'user', content: turns[0] }];

/** Reads what lies in the folder and decides on it; decision.json is there whole or not at all. */
export async function decideFolder(folder: string, subject: Subject, signal: AbortSignal): Promise<Decision> {
  const labels = join(folder, LABELS_FILE);
  const { decision } = await decideOnFiles(
    {
      outcomes: join(folder, OUTCOMES_FILE),
      suite: join(folder, SUITE_FOLDER, SUITE_FILE),
      lock: join(folder, LOCK_FILE),
      ...(existsSync(labels) ? { labels } : {}),
      subject,
      version: versions().temper,
    },
    { signal },
  );
  writeFileAtomic(join(folder, DECISION_FILE), decisionText(decision));
  return decision;
}

interface OpenGate {
  readonly target: GateTarget;
  readonly loaded: LoadedSuite;
  readonly read: readonly ReadTest[];
  readonly training: Training | null;
  readonly judges: OpenedJudge;
  readonly lock: Lock;
  readonly models: Opened;
  readonly tokenizer: ReturnType<typeof lazily>;
}
/** Opens what a gate asks, and closes it after the work. */
async function withGate<T>(options: GateOptions, work: (open: OpenGate) => Promise<T>): Promise<T> {
  const target = gateTarget(options.target, options.model);
  const loaded = loadSuite(options.suite);
  const read = await readTests(loaded);
  const training = await trainingFor(target, options);
  const judges = await openJudges(read, loaded, options);
  try {
    const lock = lockFor(loaded, judges.locked, options);
    const models = await openModels(target, options);
    const tokenizer = lazily(target.model);
    try {
      return await work({ target, loaded, read, training, judges, lock, models, tokenizer });
    } finally {
      tokenizer.close();
      await models.close();
    }
  } finally {
    await judges.close();
  }
}

/** What a gate will cost, measured on a little of it; nothing is written. @throws as runGate */
export const planGate = (options: GateOptions): Promise<GatePlan> => withGate(options, (open) => planOf(open, options));

/**
 * @throws {ConfigError} what target, suite and options have wrong; bad_run · {IntegrityError} lock_mismatch, as
 * requireMerge · what models and judges throw · the signal's reason
 */
export const runGate = (options: GateOptions): Promise<GateResult> => withGate(options, (open) => run(open, options));

async function run(open: OpenGate, options: GateOptions): Promise<GateResult> {
  const { signal, hooks, shard = null, content = 'full' } = options;
  const { target, loaded, read, training, judges, lock, models, tokenizer } = open;
  const folder = resolve(options.out ?? target.folder);
  const plan = hooks?.onPlan ? await planOf(open, options) : null;
  if (plan) hooks?.onPlan?.(plan);
  const clock = clockOf(options);
  const began = performance.now();
  const baseDigest = await models.base.digest(signal);
  const subject = await subjectFor(target, options);
  const { temperature, maxTokens } = loaded.suite.sampling;
  const arms = armsOf(open);
  const tests = await expanded(read, arms, { training, words: () => wordsOf(tokenizer.get()) }, options);
  const cases = casesOf(loaded, tests);
  const settings = JSON.stringify([models.base.info.device.place, options.engine ?? null, temperature, maxTokens]);
  let tokens = 0;
  const scoring = new Scoring(
    {
      arms,
      policies: judges.policies,
      judge: judges.locked?.digest ?? null,
      training,
      seeds: loaded.suite.seeds,
      content,
      cache: options.fresh ? null : await openCache(baseDigest),
      baseKey: sha256(`${baseDigest}\n${settings}\n${judges.manner}\n${versions().temper}`),
      onTokens: (n) => {
        tokens += n;
      },
    },
    signal,
  );
  makeFolders(folder);
  copySuite(loaded, folder);
  writeFileAtomic(join(folder, LOCK_FILE), lockText(lock));
  const identity = identityOf(
    [subject, lockDigest(lock), settings, judges.manner, content, training?.digest ?? null],
    cases,
  );
  const asking = clock();
  const ran = await runCases({
    ...{ folder, cases, scoring, identity, shard, signal },
    resume: options.resume === true,
    window: 2 * (options.slots ?? SLOTS),
    ...(hooks?.onProgress ? { onProgress: (p: RunProgress) => hooks.onProgress?.({ ...p, tokens }) } : {}),
  });
  const runSeconds = clock() - asking;
  const seconds = (performance.now() - began) / 1000;
  if (ran.kept === 0 && !shard) keepPace(baseDigest, { casesPerSecond: ran.cases / seconds });
  writeFileAtomic(join(folder, SUBJECT_FILE), `${JSON.stringify(subject, null, 1)}\n`);
  // What people said of outcomes that are no more says nothing of these.
  if (ran.kept < ran.cases) rmSync(join(folder, LABELS_FILE), { force: true });
  const decision = shard === null ? await decideFolder(folder, subject, signal) : null;
  // Of a shard too: what joins them knows neither place.
  copyProof(folder, lockDigest(lock), options);
  if (decision) await reportGate({ folder, content: content === 'full', seconds }, signal);
  const asked = decision && options.store !== undefined ? await askAbout(folder, options.store, options) : null;
  const next = decision ? nextSteps(decision, loaded.suite) : [];
  return { folder, decision, next, asked, run: ran, lock: lockDigest(lock), plan, runSeconds, seconds, tokens };
}
const askAbout = (folder: string, store: string, { reviewTwoPersons, signal }: GateOptions): Promise<Asked> =>
  askPeople(
    {
      outcomes: join(folder, OUTCOMES_FILE),
      suite: join(folder, SUITE_FOLDER, SUITE_FILE),
      ...{ store, twoPersons: reviewTwoPersons },
    },
    signal,
  );
/** What shards were run over: they are decided on when they are joined. */
export const SUBJECT_FILE = 'subject.json';

/** When the gate was last shown to stop what it must, under this very lock, lies beside lock or suite. */
function copyProof(folder: string, lock: string, options: GateOptions): void {
  const places = [options.lock, options.suite].flatMap((file) => (file === undefined ? [] : [dirname(resolve(file))]));
  const proof = places.map((place) => proofFor(place, lock)).find((p) => p !== null);
  if (proof) writeFileAtomic(join(folder, PROOF_FILE), proofText(proof));
}

export async function openCache(base: string): Promise<BaseCache | null> {
  const folder = cacheFolder('gate');
  return folder === null ? null : openBaseCache(folder, base);
}
async function trainingFor(target: GateTarget, { training, hooks, signal }: GateOptions): Promise<Training | null> {
  const files = training ?? target.training;
  if (files.length > 0) return readTraining(files, signal);
  hooks?.onNote?.(
    'nobody knows what the adapter was trained on: secrets of its rows are not looked for; --training FILE',
  );
  return null;
}
/** The engine's digest of the base has its tokenizer in it, which has a digest of its own here. */
export async function subjectFor(
  target: GateTarget,
  { merged, signal }: Pick<GateOptions, 'merged' | 'signal'>,
): Promise<Subject> {
  const subject = await subjectOf({ model: target.model, adapter: target.adapter, signal });
  const { tokenizer } = subject;
  if (tokenizer === null)
    throw new ConfigError('gate_what', `${target.model}: has no tokenizer.json; a gate asks in text`, {
      path: target.model,
    });
  return merged ? { ...subject, merged: await mergedSubject(merged, subject, signal) } : subject;
}
function identityOf(of: readonly unknown[], cases: readonly Case[]): string {
  const asked = cases.map((c) => [c.of.test.name, c.prompt.id, c.prompt.turns, c.sample]);
  return sha256(JSON.stringify([of, asked]));
}
export const isGateFolder = (folder: string): boolean => existsSync(join(folder, DECISION_FILE));
