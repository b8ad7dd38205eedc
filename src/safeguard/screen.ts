// The screen: every policy over every channel of a response, one call each. Start reading at `createScreen`.
import { setMaxListeners } from 'node:events';
import pLimit from 'p-limit';
import { sha256 } from '../base/digest.js';
import { makeNonce, parseVerdict } from './contract.js';
import {
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
  /** Deadline of one judge call, all its retries included. */
  readonly timeoutMs?: number;
  /** Judge calls in flight at once. */
  readonly concurrency?: number;
  /** Called once for each verdict as it falls. */
  readonly onVerdict?: (verdict: Verdict) => void;
}
export interface ScreenResult {
  readonly outcome: Verdict['outcome'];
  /** Outcome of each channel that holds text: the worst of its verdicts. */
  readonly channels: Readonly<Record<string, Verdict['outcome']>>;
  readonly verdicts: readonly Verdict[];
}
export interface Screen {
  readonly policies: readonly Policy[];
  /** Never rejects: what goes wrong is in the verdicts. Verdicts come in the order channel, then policy. */
  screen(channels: Channels, signal?: AbortSignal): Promise<ScreenResult>;
}

export const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_CONCURRENCY = 8;
const MAX_RATIONALE_CHARS = 4000;

export function createScreen(options: ScreenOptions): Screen {
  const { policies, judge, timeoutMs = DEFAULT_TIMEOUT_MS, concurrency = DEFAULT_CONCURRENCY, onVerdict } = options;
  const slots = pLimit(Math.max(1, concurrency));

  async function verdictOf(
    policy: Policy,
    channel: string,
    content: string,
    signal: AbortSignal | undefined,
  ): Promise<Verdict> {
    const start = performance.now();
    const base = {
      policy: policy.name,
      channel,
      digests: { policy: policy.digest, content: sha256(content), judge: judge?.digest ?? '' },
    };
    const unjudged = (cause: UnjudgedCause, detail: string, rationale = ''): Verdict => ({
      ...base,
      outcome: 'unjudged',
      rule: null,
      rationale,
      cause,
      detail,
      latencyMs: Math.round(performance.now() - start),
    });
    if (!judge) return unjudged('judge_error', 'no judge is configured');
    const nonce = makeNonce(content + policy.text);
    let answer: JudgeAnswer;
    try {
      answer = await withDeadline(timeoutMs, signal, (s) =>
        judge.judge({ policy: policy.text, content, channel, nonce, signal: s }),
      );
    } catch (error) {
      if (error instanceof JudgeFailure) return unjudged(error.reason, error.message);
      return unjudged(
        'judge_error',
        `the judge failed: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`,
      );
    }
    if (typeof answer?.text !== 'string') return unjudged('bad_response', 'the judge gave no text');
    const rationale = (answer.rationale ?? '').slice(0, MAX_RATIONALE_CHARS);
    if (answer.finish !== 'stop')
      return unjudged(
        'truncated',
        `the judge's answer ended by ${String(answer.finish)}, wanted stop; give it more tokens`,
        rationale,
      );
    const parsed = parseVerdict(answer.text, { nonce, rules: policy.rules });
    if (parsed.outcome === 'unjudged') return unjudged(parsed.cause, parsed.detail, rationale);
    return {
      ...base,
      outcome: parsed.outcome,
      rule: parsed.rule,
      rationale,
      cause: null,
      detail: '',
      latencyMs: Math.round(performance.now() - start),
    };
  }

  return {
    policies,
    async screen(channels, signal) {
      const texts = Object.entries(channels).filter(([, text]) => text !== '');
      if (policies.length === 0)
        return combine(
          texts.map(([channel, text]) =>
            missing(channel, text, 'no_policy', 'no policy is given; nothing passes unjudged', judge),
          ),
        );
      if (texts.length === 0) return combine([missing('', '', 'no_content', 'no channel holds any text', judge)]);
      const calls = texts.flatMap(([channel, text]) =>
        policies.map((policy) =>
          slots(async () => {
            const verdict = await verdictOf(policy, channel, text, signal);
            onVerdict?.(verdict);
            return verdict;
          }),
        ),
      );
      return combine(await Promise.all(calls));
    },
  };
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
