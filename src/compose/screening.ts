// Policies and a judge, as files, folders and URLs, become a screen.
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { ConfigError, ScreeningError } from '../base/errors.js';
import { asReadError } from '../base/system-error.js';
import type { Effort } from '../harmony/types.js';
import { localOf } from '../hub/pull.js';
import { isReference } from '../hub/reference.js';
import { openEngine } from '../infer/engine.js';
import { openSideBySide } from '../infer/side-by-side.js';
import { withCheck } from '../safeguard/check-judge.js';
import type { ContractName } from '../safeguard/contracts/contract.js';
import { contractOf } from '../safeguard/contracts/index.js';
import { createDetectors, type DetectorOptions, type DetectorSet } from '../safeguard/detectors/index.js';
import { detectorFlags, readDetectors } from '../safeguard/detectors/options.js';
import type { ScreeningMode } from '../safeguard/holdback/sink.js';
import { createEndpointJudge } from '../safeguard/judges/endpoint.js';
import type { JudgingOptions } from '../safeguard/judging.js';
import { loadPolicy } from '../safeguard/policy.js';
import { createScreen, type Screen } from '../safeguard/screen.js';
import { doubtOf, type Judge, type JudgeCheck, type Policy, type Verdict } from '../safeguard/types.js';
import type { CommitInfo } from '../verdict-log/log.js';
import { createEngineJudge } from './engine-judge.js';
import { type LogOptions, type OpenLog, openLog } from './verdict-log.js';

/** Read for judges behind a URL; other services' keys are never sent there. */
export const JUDGE_KEY_VARIABLE = 'TEMPER_JUDGE_API_KEY';

export interface ScreeningOptions extends LogOptions {
  /** Policy files. */
  readonly policy: readonly string[];
  /** Who judges: a checkpoint folder, or an OpenAI-compatible base URL. */
  readonly judge?: string;
  /** Model name behind the URL. */
  readonly judgeModel?: string;
  readonly judgeEffort?: Effort;
  /** Seconds; a verdict later than this does not count. */
  readonly judgeTimeout: number;
  /** Room for reasoning and verdict. */
  readonly judgeMaxTokens: number;
  /** Most tokens of a local judge, prompt and verdict together. */
  readonly judgeContext?: number;
  /** Verdicts asked for at once. */
  readonly judgeConcurrency: number;
  /** Judge and log, and release whatever the verdict. */
  readonly shadow?: boolean;
  /**
   * Of a held stream: characters that are written beyond those that are being judged before it waits for the verdict;
   * off: any number. Absent: none with a local judge, which else shares its machine with what may be written for
   * nothing, and off with one behind a URL.
   */
  readonly holdAhead?: number | 'off';
  /**
   * Count a local judge's allow although neither golden rows nor a probe showed that it can follow the policy; the
   * notices say so.
   */
  readonly judgeUnchecked?: boolean;
  /** Try a judge behind a URL as a local one is tried; else the notices say that nobody checked it. */
  readonly judgeCheck?: boolean;
  /** Votes on each text, every second one with its labels changed over; absent: 1. */
  readonly votes?: number;
  /** What is judged of a text: as it is alone, or all its views that differ. Absent: all. */
  readonly judgeViews?: 'raw' | 'all';
  /** Most characters that are judged at once; longer texts in overlapping windows. */
  readonly judgeWindow?: number;
  /** Share of the calls to a URL that may be sent twice, as they take long; 0: none. */
  readonly judgeHedge?: number;
  /** Verdicts of a batch with one canary, a text that the judge blocked before; 0: none. */
  readonly judgeCanaries?: number;
  /** Whether a judge behind a URL is tried with forged verdicts; absent: yes. */
  readonly judgeProbe?: boolean;
  /** Try it with them now, not before its first allow: a server that begins. */
  readonly probeNow?: boolean;
  /** As an engine takes it, for a local judge: its policies are computed once for all. */
  readonly prefixCache?: { readonly folder: string; readonly bytes: number };
  /** How the judge is asked and read, whatever the policies say; absent: as each says, else ours. */
  readonly judgeContract?: ContractName;
  /** What looks beside the judge, as `--detector` has it: NAME, NAME=RULES, NAME=off, off. Absent: the usual ones. */
  readonly detector?: readonly string[];
  /** The same as a file of YAML, or as it was read from one; `detector` is said after it. */
  readonly detectors?: string | DetectorOptions;
  /** CPU threads of a local judge. */
  readonly threads?: number;
}
export const DEFAULT_CANARIES = 64;
/** A policy's prompt is kept by itself for each channel. Beside it are the answers that are being written. */
const PREFIXES_A_POLICY = 4;
/**
 * Texts asked for at once of a local judge by slots of its engine, where they are many: those that wait are there when
 * slots become free, and are read together.
 */
export const ASKED_A_SLOT = 2;
export interface ScreeningHooks {
  readonly by?: string;
  /** Texts are many and nobody waits for one of them. */
  readonly many?: boolean;
  readonly onVerdict?: (verdict: Verdict) => void;
  readonly onCommit?: (commit: CommitInfo) => void;
}
/** Said wherever it holds. */
const SHADOW_NOTICE =
  'SHADOW: answers are judged, and released WHATEVER THE VERDICT; start without --shadow to withhold what is not ' +
  'allowed';
export interface OpenScreen {
  readonly screen: Screen;
  readonly mode: ScreeningMode;
  readonly judge: Judge;
  /** Texts that it is asked for at once. */
  readonly atOnce: number;
  /** What the judge showed for each policy; none for one behind a URL that was not tried. */
  readonly checks: readonly JudgeCheck[];
  /** To be told: under which policies nobody checked that the judge can follow them, and what that means here. */
  readonly notices: readonly string[];
  /** Where verdicts go on record before anything leaves by them; null: nowhere. */
  readonly log: OpenLog | null;
  /** Characters that a held stream may be ahead; undefined: any number. */
  readonly ahead: number | undefined;
  close(): Promise<void>;
}
/**
 * Opens the judge and the policies; null if there is no policy.
 * @param hooks who asks, as its log calls it, and who is told of verdicts and of what the log wrote
 * @throws {ConfigError} --policy without --judge or the reverse, a judge that is neither folder nor URL · as openLog
 */
export async function openScreen(
  options: ScreeningOptions,
  signal?: AbortSignal,
  { by = 'temper', many = false, onVerdict, onCommit }: ScreeningHooks = {},
): Promise<OpenScreen | null> {
  if (options.policy.length === 0) {
    if (options.judge !== undefined)
      throw new ConfigError(
        'policy_missing',
        '--judge without --policy: a judge needs a policy to judge by; add --policy FILE',
      );
    if ((options.detector?.length ?? 0) > 0 || options.detectors !== undefined)
      throw new ConfigError(
        'policy_missing',
        '--detector without --policy: a detector blocks and never allows, so nothing would pass; add --policy FILE',
      );
    if (options.log !== undefined)
      throw new ConfigError(
        'policy_missing',
        '--log without --policy: there is no verdict to record; add --policy FILE',
      );
    if (options.shadow === true)
      throw new ConfigError(
        'policy_missing',
        '--shadow without --policy: there is nothing to judge by; add --policy FILE',
      );
    return null;
  }
  if (options.judge === undefined)
    throw new ConfigError(
      'judge_missing',
      '--policy without --judge: nothing would pass unjudged; add --judge DIR or --judge URL',
    );
  // A judge that is not tried needs no golden rows.
  const golden = !isUrl(options.judge) || options.judgeCheck === true;
  const contract = options.judgeContract;
  const policies = await Promise.all(
    options.policy.map(async (path) => {
      const load = (rows: boolean): Promise<Policy> =>
        loadPolicy(path, { golden: rows, ...(contract ? { contract } : {}) });
      // They find a canary, too; but nothing hangs on them.
      return golden ? load(true) : load(true).catch(() => load(false));
    }),
  );
  const names = policies.map((p) => p.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new ConfigError(
      'policy_twice',
      `--policy: two policies are called ${twice}; rename one, as verdicts go by the name`,
    );
  refuseForeign(options.judge, policies);
  const detectors = detectorsOf(options);
  const { judge, atOnce, close } = await openJudge(options.judge, options, many, signal);
  try {
    const limits = { timeoutMs: options.judgeTimeout * 1000, concurrency: atOnce };
    const checks: JudgeCheck[] = [];
    if (judge.check)
      for (const policy of policies)
        checks.push(await judge.check(policy, { ...limits, ...(signal ? { signal } : {}) }));
    const unchecked = options.judgeUnchecked === true;
    const so = unchecked ? 'NOBODY CHECKED the judge, and its allow counts all the same' : 'its allow does not count';
    const notices = judge.check
      ? checks
          .filter((check) => !check.passed)
          .map((check) => `judge ${judge.name}: ${doubtOf(check)}: ${so}; wanted ${wanted(check)}`)
      : [
          `judge ${judge.name}: NOBODY CHECKED that it can follow ${names.join(', ')}, and its allow counts all the ` +
            'same; --judge-check tries it first',
        ];
    const { judgeCanaries: canaries = DEFAULT_CANARIES } = options;
    const judging = judgingOf(options);
    // An engine of ours keeps text apart from control tokens by itself.
    const probe = isUrl(options.judge) && options.judgeProbe !== false;
    const screen = createScreen({
      ...{ policies, judge, detectors, unchecked, judging, probe, canaries },
      ...limits,
      ...(onVerdict ? { onVerdict } : {}),
    });
    const fooled = options.probeNow ? await screen.ready?.(signal) : null;
    if (fooled) throw new ScreeningError('judge_fooled', `judge ${judge.name}: ${fooled}`);
    const mode = options.shadow === true ? 'shadow' : 'enforce';
    const log = await openLog(options, by, onCommit);
    return {
      screen,
      ahead: aheadOf(options.judge, options.holdAhead),
      mode,
      judge,
      atOnce,
      checks,
      notices: [...(mode === 'shadow' ? [SHADOW_NOTICE] : []), ...notices, ...(log?.notices ?? [])],
      log,
      async close() {
        await log?.close();
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const aheadOf = (judge: string, given: number | 'off' = isUrl(judge) ? 'off' : 0): number | undefined =>
  given === 'off' ? undefined : given;

/** How each text is judged. */
export const judgingOf = ({
  votes,
  judgeViews: views,
  judgeWindow: window,
}: Pick<ScreeningOptions, 'votes' | 'judgeViews' | 'judgeWindow'>): JudgingOptions => ({
  ...(votes === undefined ? {} : { votes }),
  ...(views === undefined ? {} : { views }),
  ...(window === undefined ? {} : { window }),
});

/** @throws {ConfigError} policy_contract: the judge is local, and a policy is for judges that only a server plays */
export function refuseForeign(judge: string, policies: readonly Policy[]): void {
  const foreign = isUrl(judge) ? undefined : policies.find((p) => contractOf(p.contract).ownPolicy);
  if (foreign)
    throw new ConfigError(
      'policy_contract',
      `--judge ${judge}: policy ${foreign.name} goes by contract ${foreign.contract}, of judges with a ` +
        'template of their own; serve that judge and give its URL',
    );
}

export function detectorsOf({
  detector = [],
  detectors,
}: Pick<ScreeningOptions, 'detector' | 'detectors'>): DetectorSet {
  const base = typeof detectors === 'string' ? readDetectors(detectors) : detectors;
  return createDetectors(detectorFlags(detector, base));
}

/** Of a judge: a server, and neither a folder nor a checkpoint of a hub. */
export const isUrl = (where: string): boolean => /^[a-z]+:\/\//i.test(where) && !isReference(where);
/** @throws {ConfigError} judge_unreadable: no folder of a judge, nor a URL */
async function requireFolder(where: string): Promise<void> {
  // A URL as people say it, without its protocol.
  const hint = /^(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|\[[0-9a-f:]+\])(?::[0-9]+)?(?:\/|$)/i.test(where)
    ? `if it is a URL, begin it with http:// or https://`
    : 'wanted a checkpoint folder or e.g. http://127.0.0.1:8000/v1';
  const fail = (message: string): ConfigError => new ConfigError('judge_unreadable', message);
  let found: Stats;
  try {
    found = await stat(where);
  } catch (e) {
    throw asReadError(e, `--judge ${where}`, hint, fail);
  }
  if (!found.isDirectory()) throw fail(`--judge ${where}: neither a folder nor a URL; ${hint}`);
}

const wanted = (check: JudgeCheck): string =>
  check.by === 'golden' ? 'another judge' : 'golden rows beside the policy that show it can, or another judge';

/**
 * @param many texts are many and nobody waits for one of them
 * @throws {ConfigError} judge_unreadable, judge_model_missing, judge_url · what opening a checkpoint throws
 */
export async function openJudge(
  given: string,
  options: Omit<ScreeningOptions, 'judge'>,
  many: boolean,
  signal?: AbortSignal,
): Promise<{ readonly judge: Judge; readonly atOnce: number; close(): Promise<void> }> {
  const where = await localOf(given, { signal });
  if (isUrl(where)) {
    if (!options.judgeModel)
      throw new ConfigError('judge_model_missing', `--judge ${where}: a URL needs --judge-model NAME`);
    const apiKey = process.env[JUDGE_KEY_VARIABLE];
    const judge = createEndpointJudge({
      url: where,
      model: options.judgeModel,
      maxTokens: options.judgeMaxTokens,
      ...(apiKey ? { apiKey } : {}),
      ...(options.judgeEffort ? { effort: options.judgeEffort } : {}),
      ...(options.judgeHedge === undefined ? {} : { hedge: options.judgeHedge }),
    });
    return {
      judge: options.judgeCheck ? withCheck(judge) : judge,
      atOnce: options.judgeConcurrency,
      close: async () => {},
    };
  }
  await requireFolder(where);
  const opening = {
    model: where,
    slots: options.judgeConcurrency,
    // Each policy heads its own kind of conversation.
    prefixes: PREFIXES_A_POLICY * options.policy.length + options.judgeConcurrency,
    ...(options.judgeContext === undefined ? {} : { contextTokens: options.judgeContext }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.prefixCache === undefined ? {} : { prefixCache: options.prefixCache }),
  };
  const several = many ? await openSideBySide(opening, signal) : null,
    engine = several ?? (await openEngine(opening, signal));
  try {
    const judge = await createEngineJudge(engine, {
      name: where,
      maxTokens: options.judgeMaxTokens,
      signal,
      ...(options.judgeEffort ? { effort: options.judgeEffort } : {}),
    });
    const atOnce = several ? ASKED_A_SLOT * several.slots : options.judgeConcurrency;
    return { judge, atOnce, close: () => engine.close() };
  } catch (error) {
    await engine.close();
    throw error;
  }
}
