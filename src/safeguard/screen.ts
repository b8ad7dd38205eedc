// The screen: every policy over every channel of a response, one call each. Start reading at `createScreen`.
import { setMaxListeners } from 'node:events';
import pLimit from 'p-limit';
import { sha256 } from '../base/digest.js';
import { TemperError } from '../base/errors.js';
import { held, thresholdFor } from './calibration.js';
import { makeNonce } from './contract.js';
import { contractOf, judgeDigest } from './contracts/index.js';
import type { Detection, DetectorSet } from './detectors/index.js';
import { oneLine, repeats } from './sentence.js';
import {
  doubtOf,
  type Judge,
  type JudgeAnswer,
  JudgeFailure,
  mayPass,
  type Policy,
  type UnjudgedCause,
  type Verdict,
} from './types.js';

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
   */
  screen(channels: Channels, signal?: AbortSignal, known?: KnownVerdict): Promise<ScreenResult>;
  /**
   * Why it is of no use to go on asking: the judge cannot be reached or run at all, as the last HOPELESS_CALLS calls
   * showed and none before. Null while it may be.
   */
  hopeless?(): string | null;
}

export const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_CONCURRENCY = 8;
const MAX_RATIONALE_CHARS = 4000;
export const HOPELESS_CALLS = 8;
/** A check has deadlines of its own, one for each call. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export function createScreen(options: ScreenOptions): Screen {
  const { policies, judge, detectors, onVerdict } = options;
  const { timeoutMs = DEFAULT_TIMEOUT_MS, concurrency = DEFAULT_CONCURRENCY } = options;
  const slots = pLimit(Math.max(1, concurrency));
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
  let [answers, hopelessCalls, hopelessDetail] = [0, 0, ''];

  async function verdictOf(
    policy: Policy,
    channel: string,
    content: string,
    signal: AbortSignal | undefined,
    known: KnownVerdict | undefined,
  ): Promise<Verdict> {
    const start = performance.now();
    const contract = contractOf(policy.contract);
    const asked = judge ? judgeDigest(judge.digest, contract.name) : '';
    const threshold = thresholdFor(policy, asked);
    const base = {
      policy: policy.name,
      channel,
      digests: {
        policy: policy.digest,
        content: sha256(content),
        // Who judges with another threshold is another judge.
        judge: threshold === undefined ? asked : sha256(JSON.stringify([asked, 'threshold', threshold])),
      },
      ...(contract.name === 'temper' ? {} : { contract: contract.name }),
    };
    const unjudged = (cause: UnjudgedCause, detail: string, rationale = ''): Verdict => ({
      ...base,
      outcome: 'unjudged',
      rule: null,
      rationale,
      cause,
      // What did not pass must not leave by the words about it.
      detail: repeats(detail, content) ? 'what there is to say of it repeats the judged text' : detail,
      latencyMs: Math.round(performance.now() - start),
    });
    const before = known?.(policy.name, channel, base.digests);
    if (before?.outcome === 'block') return before;
    const unproven = async (): Promise<string | null> => withDeadline(MAX_TIMER_MS, signal, () => doubt(policy));
    if (before?.outcome === 'allow' && (await unproven().catch(() => '')) === null) return before;
    if (!judge) return unjudged('judge_error', 'no judge is configured');
    const nonce = makeNonce(content + policy.text);
    let answer: JudgeAnswer;
    try {
      answer = await withDeadline(timeoutMs, signal, (s) =>
        judge.judge({
          policy: policy.text,
          content,
          channel,
          nonce,
          ...(contract.name === 'temper' ? {} : { contract: contract.name }),
          signal: s,
        }),
      );
    } catch (error) {
      if (!(error instanceof JudgeFailure)) return unjudged('judge_error', `the judge failed: ${errorName(error)}`);
      if (error.hopeless) hopelessCalls++;
      if (error.hopeless) hopelessDetail = error.message;
      return unjudged(error.reason, error.message);
    }
    answers++;
    if (typeof answer?.text !== 'string') return unjudged('bad_response', 'the judge gave no text');
    const thoughts = answer.rationale ?? '';
    let rationale = thoughts.slice(0, MAX_RATIONALE_CHARS);
    if (answer.finish !== 'stop')
      return unjudged(
        'truncated',
        answer.finish === 'length'
          ? "the judge's answer ended by length, wanted stop; give it more tokens"
          : `the judge's answer ended by ${answer.ended ?? String(answer.finish)}, wanted stop`,
        rationale,
      );
    const parsed = contract.parse(answer.text, { nonce, rules: policy.rules, policy: policy.text });
    if (parsed.rationale !== undefined)
      rationale = [parsed.rationale, thoughts]
        .filter((t) => t !== '')
        .join('\n')
        .slice(0, MAX_RATIONALE_CHARS);
    if (parsed.outcome === 'unjudged') return unjudged(parsed.cause, parsed.detail, rationale);
    const { score } = answer;
    const decided = threshold === undefined ? parsed : held(parsed, score, threshold);
    if (decided === null)
      return unjudged('judge_error', 'the judge gave no score to hold to its calibrated threshold', rationale);
    if (decided.outcome === 'allow' && answer.allowVoid)
      return unjudged(answer.allowVoid.cause, answer.allowVoid.detail, rationale);
    if (decided.outcome === 'allow') {
      const why = await unproven().catch((error: unknown) => error);
      if (why instanceof JudgeFailure) return unjudged(why.reason, why.message, rationale);
      if (why !== null) return unjudged('unproven', String(why), rationale);
    }
    return {
      ...base,
      outcome: decided.outcome,
      rule: decided.rule,
      rationale,
      cause: null,
      detail: '',
      latencyMs: Math.round(performance.now() - start),
      ...(score === undefined ? {} : { score }),
      ...(threshold === undefined ? {} : { threshold }),
    };
  }

  /** Every verdict says what the detectors said, and the blocks of these follow. */
  async function withDetectors(
    channel: string,
    content: string,
    verdicts: readonly Verdict[],
    signal: AbortSignal | undefined,
  ): Promise<readonly Verdict[]> {
    if (!detectors) return verdicts;
    const start = performance.now();
    const found = await detectors.look(content, signal).catch((error: unknown) => errorName(error));
    // Nothing may pass that was not looked at.
    if (typeof found === 'string')
      return verdicts.map((v) => (mayPass(v) ? { ...v, ...notLookedAt(found, signal) } : v));
    const states = Object.fromEntries(found.map((d) => [d.detector, d.state]));
    const blocks = found
      .filter((d) => d.state === 'block')
      .map((d) => ({
        ...blockOf(detectors.policyOf(d.detector), channel, content, d),
        latencyMs: Math.round(performance.now() - start),
      }));
    for (const block of blocks) onVerdict?.(block);
    return [...verdicts, ...blocks].map((v) => ({
      ...v,
      digests: { ...v.digests, detectors: detectors.digest },
      detectors: states,
    }));
  }

  return {
    policies,
    detectors,
    hopeless: () => (answers === 0 && hopelessCalls >= HOPELESS_CALLS ? hopelessDetail : null),
    async screen(channels, signal, known) {
      const texts = Object.entries(channels).filter(([, text]) => text !== '');
      if (texts.length === 0) return combine([missing('', '', 'no_content', 'no channel holds any text', judge)]);
      const calls = texts.map(async ([channel, text]) => {
        const verdicts =
          policies.length === 0
            ? [missing(channel, text, 'no_policy', 'no policy is given; nothing passes unjudged', judge)]
            : await Promise.all(
                policies.map((policy) =>
                  slots(async () => {
                    const verdict = await verdictOf(policy, channel, text, signal, known);
                    onVerdict?.(verdict);
                    return verdict;
                  }),
                ),
              );
        return withDetectors(channel, text, verdicts, signal);
      });
      return combine((await Promise.all(calls)).flat());
    },
  };
}

const notLookedAt = (error: string, signal: AbortSignal | undefined): Partial<Verdict> =>
  signal?.aborted
    ? { outcome: 'unjudged', cause: 'aborted', detail: 'screening was stopped before the detectors had looked' }
    : { outcome: 'unjudged', cause: 'judge_error', detail: `the detectors failed: ${error}` };

/** A detector's verdict. It says what was found and where, never the text. */
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
    digests: { policy: d.digest, content: sha256(content), judge: '' },
    latencyMs: 0,
    findings: d.findings.map(({ rule, view, from, to }) => ({ rule, view, from, to })),
  };
}

/** What a judge threw, without what a library put into its message: that may quote a key or the text. */
function errorName(error: unknown): string {
  if (error instanceof TemperError) return oneLine(error.message);
  const name = error instanceof Error ? error.name : typeof error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return [name, code].filter((word) => /^[A-Za-z][A-Za-z0-9_]{0,60}$/.test(word)).join(' ') || 'an error';
}

function missing(channel: string, content: string, cause: UnjudgedCause, detail: string, judge: Judge | null): Verdict {
  return {
    outcome: 'unjudged',
    policy: '',
    channel,
    rule: null,
    rationale: '',
    cause,
    detail,
    digests: { policy: '', content: sha256(content), judge: judge?.digest ?? '' },
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
  for (const { channel } of verdicts)
    if (channel !== '') channels[channel] = worst(verdicts.filter((v) => v.channel === channel));
  return { outcome: worst(verdicts), channels, verdicts };
}

/** Ends at the deadline even if the judge ignores its signal. */
async function withDeadline<T>(
  timeoutMs: number,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  return new Promise<T>((resolve, reject) => {
    const end = (failure: JudgeFailure): void => {
      settle();
      reject(failure);
      controller.abort(failure);
    };
    const onAbort = (): void => end(new JudgeFailure('aborted', 'screening was stopped before the judge answered'));
    const timer = setTimeout(
      () => end(new JudgeFailure('timeout', `the judge gave no answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    const settle = (): void => {
      clearTimeout(timer);
      outer?.removeEventListener('abort', onAbort);
    };
    if (outer?.aborted) {
      onAbort();
      return;
    }
    if (outer) {
      setMaxListeners(0, outer); // one for each call in flight is no leak
      outer.addEventListener('abort', onAbort, { once: true });
    }
    // `async` turns a judge that throws at once into a rejection.
    (async () => work(controller.signal))().then(resolve, reject).finally(settle);
  });
}
