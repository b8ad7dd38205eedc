// The screen: every policy over every channel of a response, one call each. Start reading at `createScreen`.
import { sha256 } from '../base/digest.js';
import { createSlots } from '../base/slots.js';
import { Acquaintance, type Batch, type Doubt, Unasked } from './acquaintance.js';
import { createAsker, errorName, withDeadline } from './asking.js';
import { thresholdFor } from './calibration.js';
import type { ContractName } from './contracts/contract.js';
import { contractOf } from './contracts/index.js';
import type { Detection, DetectorSet } from './detectors/index.js';
import { createHope } from './hope.js';
import { Judging, type JudgingOptions } from './judging.js';
import { repeats } from './sentence.js';
import type { Series } from './series.js';
import { doubtOf, type Judge, JudgeFailure, mayPass, type Policy, type UnjudgedCause, type Verdict } from './types.js';

export { HOPELESS_CALLS } from './hope.js';

/** Text by channel; empty channels hold nothing to release and are not judged. */
export type Channels = Readonly<Record<string, string>>;

export interface ScreenOptions {
  readonly policies: readonly Policy[];
  readonly judge: Judge | null;
  /** What looks at every text beside the judge; it can block, and never allow. */
  readonly detectors?: DetectorSet;
  /** Deadline of one judge call, all its retries included. */
  readonly timeoutMs?: number;
  /** Judge calls in flight at once. */
  readonly concurrency?: number;
  /** Count an allow although the judge's own check of the policy failed. Its blocks stand in any case. */
  readonly unchecked?: boolean;
  /** Votes, views, windows, thresholds. */
  readonly judging?: JudgingOptions;
  /**
   * Before its first allow under a policy counts, a text is looked for that the judge blocks; it must not fall for it
   * with a forged verdict or forged control tokens behind it. Absent: no.
   */
  readonly probe?: boolean;
  /** So many verdicts of a policy are a batch, with one text among them that the judge blocked before; 0: no such. */
  readonly canaries?: number;
  /** Called once for each verdict as it falls. */
  readonly onVerdict?: (verdict: Verdict) => void;
}
/** A verdict that this judge gave before over the same text and policy; `digests` say which. */
export type KnownVerdict = (policy: string, channel: string, digests: Verdict['digests']) => Verdict | undefined;
export interface ScreenResult {
  readonly outcome: Verdict['outcome'];
  /** Outcome of each channel that holds text: the worst of its verdicts. */
  readonly channels: Readonly<Record<string, Verdict['outcome']>>;
  readonly verdicts: readonly Verdict[];
}
export interface Screen {
  readonly policies: readonly Policy[];
  readonly detectors?: DetectorSet | undefined;
  /**
   * Never rejects: what goes wrong is in the verdicts. Verdicts come in the order channel, then policy; after those of
   * a channel come the blocks of its detectors.
   * @param series of the answer that these are beginnings of
   */
  screen(channels: Channels, signal?: AbortSignal, known?: KnownVerdict, series?: Series): Promise<ScreenResult>;
  /** What it will ask `known` for, without what detectors say. */
  asks?(channels: Channels): readonly Pick<Verdict, 'policy' | 'channel' | 'digests'>[];
  /** Canaries that the judge missed since the start; absent: none are mixed in. */
  canaryMisses?(): number;
  /**
   * Why it is of no use to go on asking: the judge cannot be reached or run at all, as the last calls showed (see
   * hope.ts), or it fell for a forged verdict. Null while it may be.
   */
  hopeless?(): string | null;
  /**
   * Tries the judge with forged verdicts now, where that is asked for, instead of before its first allow. @returns what
   * it fell for, null: nothing
   */
  ready?(signal?: AbortSignal): Promise<string | null>;
  /** The same judge under those of the policies that have these names; without any, nothing passes. */
  under?(names: readonly string[]): Screen;
}

export const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_CONCURRENCY = 8;
/** A check has deadlines of its own, one for each call. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Found = Omit<Verdict, 'policy' | 'channel' | 'digests' | 'latencyMs' | 'contract'>;

/** What verdicts of a policy have in common. */
interface Standing {
  readonly policy: Policy;
  readonly threshold: number | undefined;
  /** Digest of who judges. */
  readonly who: string;
  /** null: ours. */
  readonly contract: ContractName | null;
}
/** What one verdict is on. */
interface Matter {
  readonly of: Standing;
  readonly channel: string;
  readonly content: string;
  readonly digests: Verdict['digests'];
  readonly series: Series | undefined;
  /** By performance.now. */
  readonly start: number;
}

function said(matter: Matter, found: Found): Verdict {
  const { outcome, rule, rationale, cause, detail, score, coverage, view, votes, backend } = found;
  const { of, channel, content, digests, start } = matter;
  const { policy, threshold, contract } = of;
  // What did not pass must not leave by the words about it.
  const isSaid = detail !== '' && repeats(detail, content);
  const words = isSaid ? 'what there is to say of it repeats the judged text' : detail;
  const latencyMs = Math.round(performance.now() - start);
  // Field by field, in the order in which they are written: copies of objects cost more than all the rest.
  const verdict: Mutable<Verdict> = contract
    ? { policy: policy.name, channel, digests, contract, outcome, rule, rationale, cause, detail: words, latencyMs }
    : { policy: policy.name, channel, digests, outcome, rule, rationale, cause, detail: words, latencyMs };
  if (score !== undefined) verdict.score = score;
  if (threshold !== undefined && cause === null) verdict.threshold = threshold;
  if (coverage) verdict.coverage = coverage;
  if (view) verdict.view = view;
  if (votes) verdict.votes = votes;
  if (backend !== undefined) verdict.backend = backend;
  return verdict;
}

export function createScreen(options: ScreenOptions): Screen {
  const { policies, judge, detectors, onVerdict } = options;
  const { timeoutMs = DEFAULT_TIMEOUT_MS, concurrency = DEFAULT_CONCURRENCY } = options;
  const slots = createSlots(concurrency);
  const checks = new Map<string, Promise<string | null>>();
  /** Why an allow under the policy does not count; null: it does. */
  const doubt = (policy: Policy): Promise<string | null> => {
    if (!judge?.check || options.unchecked) return Promise.resolve(null);
    const key = `${policy.name} ${policy.digest}`;
    const found =
      checks.get(key) ??
      judge.check(policy, { timeoutMs, concurrency }).then(
        (check) => (check.passed ? null : `${doubtOf(check)}; its allow does not count`),
        (error: unknown) => `the judge could not be tried (${errorName(error)}); its allow does not count`,
      );
    checks.set(key, found);
    return found;
  };
  const asker = judge && createAsker({ judge, timeoutMs, retries: options.judging?.retries ?? 1, slots });
  const judging = judge && asker && new Judging(judge, asker, options.judging ?? {});
  const acquaintance =
    asker && new Acquaintance({ asker, probe: options.probe ?? false, canaries: options.canaries ?? 0 });
  const hope = createHope();

  /** Of each policy, what its verdicts have in common. */
  const all = policies.map((policy): Standing => {
    const asked = judging?.judgeDigest(policy) ?? '';
    const threshold = thresholdFor(policy, asked);
    // Who judges with another threshold is another judge.
    const who = threshold === undefined ? asked : sha256(JSON.stringify([asked, 'threshold', threshold]));
    const contract = contractOf(policy.contract).name;
    return { policy, threshold, who, contract: contract === 'temper' ? null : contract };
  });
  const digestsFor = ({ policy, who }: Standing, content: string): Verdict['digests'] =>
    judging
      ? { policy: policy.digest, content, judge: who, judging: judging.digest() }
      : { policy: policy.digest, content, judge: who };

  /** Whether the judge's own check of a policy decides on its allows. */
  const isTried = judge?.check !== undefined && !options.unchecked;
  const unproven = (policy: Policy, signal: AbortSignal | undefined): Promise<string | null> =>
    withDeadline(MAX_TIMER_MS, signal, () => doubt(policy));

  function verdictOf(
    of: Standing,
    channel: string,
    content: string,
    digest: string,
    signal: AbortSignal | undefined,
    known: KnownVerdict | undefined,
    series: Series | undefined,
  ): Verdict | Promise<Verdict> {
    const matter = { of, channel, content, digests: digestsFor(of, digest), series, start: performance.now() };
    const before = known?.(of.policy.name, channel, matter.digests);
    if (before?.outcome === 'block' || (before?.outcome === 'allow' && !isTried)) return before;
    if (before?.outcome !== 'allow') return judged(matter, signal);
    return unproven(of.policy, signal).then(
      (why) => (why === null ? before : judged(matter, signal)),
      () => judged(matter, signal),
    );
  }
  function judged(matter: Matter, signal: AbortSignal | undefined): Verdict | Promise<Verdict> {
    const { policy, threshold } = matter.of;
    if (!judging || !acquaintance)
      return said(matter, {
        outcome: 'unjudged',
        rule: null,
        cause: 'judge_error',
        detail: 'no judge is configured',
        rationale: '',
      });
    // Where nothing is held against the judge there is no batch that the verdict could be of.
    const batch = acquaintance.isIdle ? null : acquaintance.join(policy);
    return judging.run(policy, matter.channel, matter.content, threshold, signal, matter.series).then((found) => {
      hope.note(found.answered, found.hopeless ? found.detail : null);
      const changed = found.answered ? acquaintance.saw(found.backend) : null;
      if (found.outcome !== 'allow') return said(matter, found);
      if (changed) return said(matter, { ...found, ...changed, outcome: 'unjudged' });
      if (!isTried && acquaintance.isIdle) return said(matter, found);
      return allowed(matter, found, batch ?? acquaintance.join(policy), acquaintance, signal);
    });
  }
  /** An allow, if the judge may give one. */
  async function allowed(
    matter: Matter,
    found: Found,
    batch: Batch,
    acquaintance: Acquaintance,
    signal: AbortSignal | undefined,
  ): Promise<Verdict> {
    const voided = ({ cause, detail }: Doubt): Verdict =>
      said(matter, { ...found, outcome: 'unjudged', cause, detail });
    try {
      // Nothing is waited for where nobody asks: what was judged before a stop is not lost.
      const why = isTried ? await unproven(matter.of.policy, signal) : null;
      if (why !== null) return voided({ cause: 'unproven', detail: why });
      if (acquaintance.isIdle) return said(matter, found);
      const doubted = await withDeadline(MAX_TIMER_MS, signal, () => batch.doubt());
      return doubted ? voided(doubted) : said(matter, found);
    } catch (error) {
      if (error instanceof JudgeFailure) return voided({ cause: error.reason, detail: error.message });
      if (error instanceof Unasked) return voided(error.doubt);
      return voided({ cause: 'unproven', detail: `the judge could not be tried (${errorName(error)})` });
    }
  }

  /** Every verdict says what the detectors said, and the blocks of these follow. */
  async function withDetectors(
    detectors: DetectorSet,
    channel: string,
    content: string,
    digest: string,
    verdicts: readonly Verdict[],
    signal: AbortSignal | undefined,
  ): Promise<readonly Verdict[]> {
    const start = performance.now();
    const found = await detectors.look(content, signal).catch((error: unknown) => errorName(error));
    // Nothing may pass that was not looked at.
    if (typeof found === 'string')
      return verdicts.map((v) => (mayPass(v) ? { ...v, ...notLookedAt(found, signal) } : v));
    const states = Object.fromEntries(found.map((d) => [d.detector, d.state]));
    const blocks = found
      .filter((d) => d.state === 'block')
      .map((d) => ({
        ...blockOf(detectors.policyOf(d.detector), channel, digest, d),
        latencyMs: Math.round(performance.now() - start),
      }));
    for (const block of blocks) onVerdict?.(block);
    return [...verdicts, ...blocks].map((v) => ({
      ...v,
      digests: { ...v.digests, detectors: detectors.digest },
      detectors: states,
    }));
  }

  async function screenAll(
    standing: readonly Standing[],
    texts: readonly (readonly [channel: string, text: string])[],
    signal: AbortSignal | undefined,
    known: KnownVerdict | undefined,
    series: Series | undefined,
  ): Promise<ScreenResult> {
    if (texts.length === 0) return combine([missing('', sha256(''), 'no_content', 'no channel holds any text', judge)]);
    const judged = async (of: Standing, channel: string, text: string, digest: string): Promise<Verdict> => {
      const verdict = await verdictOf(of, channel, text, digest, signal, known, series);
      onVerdict?.(verdict);
      return verdict;
    };
    const own = async ([channel, text]: readonly [string, string]): Promise<readonly Verdict[]> => {
      const digest = sha256(text);
      const verdicts =
        standing.length === 0
          ? [missing(channel, digest, 'no_policy', 'no policy is given; nothing passes unjudged', judge)]
          : await Promise.all(standing.map((of) => judged(of, channel, text, digest)));
      return detectors ? withDetectors(detectors, channel, text, digest, verdicts, signal) : verdicts;
    };
    return combine((await Promise.all(texts.map(own))).flat());
  }
  const alone = (verdict: Verdict): ScreenResult => {
    onVerdict?.(verdict);
    return combine([verdict]);
  };

  const under = (standing: readonly Standing[]): Screen => ({
    policies: standing.map((s) => s.policy),
    detectors,
    ...(acquaintance && (options.canaries ?? 0) > 0 ? { canaryMisses: () => acquaintance.misses } : {}),
    hopeless: () => acquaintance?.fooled?.detail ?? hope.lost(),
    async ready(signal) {
      if (!acquaintance) return null;
      for (const { policy } of standing) {
        const found = await withDeadline(MAX_TIMER_MS, signal, () => acquaintance.meet(policy)).catch(
          (error: unknown) => {
            if (error instanceof JudgeFailure) throw signal?.reason ?? error;
            return null; // not to be asked now: found out before its first allow counts
          },
        );
        if (found?.cause === 'fooled') return found.detail;
      }
      return null;
    },
    screen(channels, signal, known, series) {
      const texts = Object.entries(channels).filter(hasText);
      const [of] = standing;
      const [only] = texts;
      if (!of || !only || texts.length > 1 || standing.length > 1 || detectors)
        return screenAll(standing, texts, signal, known, series);
      // As most are: nothing is waited for but the verdict.
      try {
        const verdict = verdictOf(of, only[0], only[1], sha256(only[1]), signal, known, series);
        return verdict instanceof Promise ? verdict.then(alone) : Promise.resolve(alone(verdict));
      } catch (error) {
        return Promise.reject(error);
      }
    },
    asks(channels) {
      return Object.entries(channels).flatMap(([channel, text]) => {
        if (text === '') return [];
        const digest = sha256(text);
        return standing.map((of) => ({ policy: of.policy.name, channel, digests: digestsFor(of, digest) }));
      });
    },
    under: (names) => under(standing.filter((s) => names.includes(s.policy.name))),
  });
  return under(all);
}

const hasText = ([, text]: readonly [string, string]): boolean => text !== '';

const notLookedAt = (error: string, signal: AbortSignal | undefined): Partial<Verdict> =>
  signal?.aborted
    ? { outcome: 'unjudged', cause: 'aborted', detail: 'screening was stopped before the detectors had looked' }
    : { outcome: 'unjudged', cause: 'judge_error', detail: `the detectors failed: ${error}` };

/** A detector's verdict. It says what was found and where, never the text. @param content its digest */
function blockOf(policy: string, channel: string, content: string, d: Detection): Verdict {
  const rules = [...new Set(d.findings.map((f) => f.rule))];
  return {
    outcome: 'block',
    policy,
    channel,
    rule: rules[0] ?? null,
    rationale: `${d.count} found: ${rules.join(', ')}`,
    cause: null,
    detail: '',
    digests: { policy: d.digest, content, judge: '' },
    latencyMs: 0,
    findings: d.findings.map(({ rule, view, from, to }) => ({ rule, view, from, to })),
  };
}

/** @param content its digest */
function missing(channel: string, content: string, cause: UnjudgedCause, detail: string, judge: Judge | null): Verdict {
  return {
    outcome: 'unjudged',
    policy: '',
    channel,
    rule: null,
    rationale: '',
    cause,
    detail,
    digests: { policy: '', content, judge: judge?.digest ?? '' },
    latencyMs: 0,
  };
}

/** block outweighs unjudged, which outweighs allow; nothing at all is unjudged. */
export function worst(verdicts: readonly Pick<Verdict, 'outcome'>[]): Verdict['outcome'] {
  if (verdicts.some((v) => v.outcome === 'block')) return 'block';
  return verdicts.length > 0 && verdicts.every(mayPass) ? 'allow' : 'unjudged';
}

function combine(verdicts: readonly Verdict[]): ScreenResult {
  const channels: Record<string, Verdict['outcome']> = Object.create(null) as Record<string, Verdict['outcome']>;
  const [only] = verdicts;
  if (only && verdicts.length === 1) {
    const outcome = worst(verdicts);
    if (only.channel !== '') channels[only.channel] = outcome;
    return { outcome, channels, verdicts };
  }
  for (const { channel } of verdicts)
    if (channel !== '') channels[channel] = worst(verdicts.filter((v) => v.channel === channel));
  return { outcome: worst(verdicts), channels, verdicts };
}
