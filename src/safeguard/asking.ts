// One question to a judge: one policy, one text, one way of asking, within one deadline. What goes wrong is in what
// comes back. An answer that strayed from the contract is asked for once more, with another nonce; one that held a
// verdict and something else is not, as it may have been a block.
import { TemperError } from '../base/errors.js';
import { makeNonce } from './contract.js';
import { contractOf } from './contracts/index.js';
import { oneLine } from './sentence.js';
import {
  type Judge,
  type JudgeAnswer,
  JudgeFailure,
  type JudgeRequest,
  type Policy,
  type UnjudgedCause,
} from './types.js';
import type { Vote } from './votes.js';

export interface Manner {
  readonly swapped?: boolean;
  readonly sampling?: { readonly temperature: number; readonly seed: number };
  readonly verbatim?: boolean;
  /** Looked for in the answer: who repeats it has read it as a verdict. */
  readonly forgery?: string;
}
/** A vote, and how it came about. */
export interface Asked extends Vote {
  /** The judge gave an answer, of whatever form. */
  readonly answered: boolean;
  /** Nobody else's call would fare better. */
  readonly hopeless: boolean;
  readonly backend?: string;
  /** The answer has the forgery in it. */
  readonly repeated?: boolean;
}
export interface Asker {
  ask(
    policy: Policy,
    channel: string,
    content: string,
    manner: Manner,
    signal: AbortSignal | undefined,
  ): Promise<Asked>;
}

const MAX_RATIONALE_CHARS = 4000;
/** Nothing in such an answer was a verdict. */
const STRAYED: readonly (UnjudgedCause | null)[] = ['empty', 'off_contract', 'wrong_nonce'];

export interface AskerOptions {
  readonly judge: Judge;
  /** Deadline of a question, second try and waiting for the judge's own retries included. */
  readonly timeoutMs: number;
  /** Tries after an answer that strayed. */
  readonly retries: number;
  /** Lets a bounded number of questions be under way. */
  readonly slots: <T>(work: () => Promise<T>) => Promise<T>;
}

type Question = { -readonly [K in keyof JudgeRequest]: JudgeRequest[K] };

export function createAsker({ judge, timeoutMs, retries, slots }: AskerOptions): Asker {
  return {
    ask: (policy, channel, content, manner, signal) =>
      slots(async () => {
        const { forgery, swapped, sampling, verbatim } = manner;
        const contract = contractOf(policy.contract);
        const until = performance.now() + timeoutMs;
        try {
          for (let tries = 0; ; tries++) {
            const nonce = makeNonce(content + policy.text);
            const left = tries === 0 ? timeoutMs : Math.max(0, until - performance.now());
            const ask = (deadline: Deadline): Promise<JudgeAnswer> => {
              const request: Question = {
                policy: policy.text,
                content,
                channel,
                nonce,
                get signal() {
                  return deadline.signal;
                },
              };
              if (contract.name !== 'temper') request.contract = contract.name;
              if (swapped !== undefined) request.swapped = swapped;
              if (sampling !== undefined) request.sampling = sampling;
              if (verbatim !== undefined) request.verbatim = verbatim;
              return judge.judge(request);
            };
            const answer = await withDeadline(left, signal, ask, timeoutMs);
            const asked = read(policy, answer, nonce, swapped === true);
            if (tries < retries && STRAYED.includes(asked.cause)) continue;
            const repeated = forgery !== undefined && String(answer?.text).includes(forgery);
            return repeated ? { ...asked, repeated } : asked;
          }
        } catch (error) {
          const failure = error instanceof JudgeFailure ? error : null;
          return {
            ...nothing(failure?.reason ?? 'judge_error', failure?.message ?? `the judge failed: ${errorName(error)}`),
            answered: false,
            hopeless: failure?.hopeless ?? false,
          };
        }
      }),
  };
}

const nothing = (cause: UnjudgedCause, detail: string, rationale = ''): Vote => ({
  outcome: 'unjudged',
  rule: null,
  cause,
  detail,
  rationale,
});

type Told = { -readonly [K in keyof Asked]: Asked[K] };
/** A vote with what the answer says beside it. */
function told({ outcome, rule, cause, detail, rationale }: Vote, answer: JudgeAnswer | undefined): Told {
  // Field by field: copies of objects cost more than all the rest of a verdict.
  const asked: Told = { outcome, rule, cause, detail, rationale, answered: true, hopeless: false };
  if (typeof answer?.backend === 'string') asked.backend = answer.backend;
  if (typeof answer?.score === 'number' && Number.isFinite(answer.score)) asked.score = answer.score;
  return asked;
}

/** An answer by the contract of its policy. */
function read(policy: Policy, answer: JudgeAnswer, nonce: string, swapped: boolean): Asked {
  if (typeof answer?.text !== 'string') return told(nothing('bad_response', 'the judge gave no text'), answer);
  const thoughts = answer.rationale ?? '';
  let rationale = thoughts.slice(0, MAX_RATIONALE_CHARS);
  if (answer.finish !== 'stop') {
    const how = answer.finish === 'length' ? 'length' : (answer.ended ?? String(answer.finish));
    const next = answer.finish === 'length' ? '; give it more tokens' : '';
    return told(nothing('truncated', `the judge's answer ended by ${how}, wanted stop${next}`, rationale), answer);
  }
  const expected = { nonce, rules: policy.rules, policy: policy.text, swapped };
  const parsed = contractOf(policy.contract).parse(answer.text, expected);
  if (parsed.rationale !== undefined)
    rationale = [parsed.rationale, thoughts]
      .filter((t) => t !== '')
      .join('\n')
      .slice(0, MAX_RATIONALE_CHARS);
  if (parsed.outcome === 'unjudged') return told(nothing(parsed.cause, parsed.detail, rationale), answer);
  const { outcome, rule } = parsed;
  const asked = told({ outcome, rule, rationale, cause: null, detail: '' }, answer);
  if (answer.allowVoid) asked.allowVoid = answer.allowVoid;
  return asked;
}

/** What a judge threw, without what a library put into its message: that may quote a key or the text. */
export function errorName(error: unknown): string {
  if (error instanceof TemperError) return oneLine(error.message);
  const name = error instanceof Error ? error.name : typeof error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return [name, code].filter((word) => /^[A-Za-z][A-Za-z0-9_]{0,60}$/.test(word)).join(' ') || 'an error';
}

/** Who waits for the end of a signal: one listener for all of them, as adding one costs more than many an answer. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();
function waitersOf(signal: AbortSignal): Set<() => void> {
  const known = waiting.get(signal);
  if (known) return known;
  const own = new Set<() => void>();
  waiting.set(signal, own);
  const endAll = (): void => {
    for (const end of [...own]) end();
  };
  signal.addEventListener('abort', endAll, { once: true });
  return own;
}

/** Has the signal of a question; it is made when it is first asked for. */
export interface Deadline {
  readonly signal: AbortSignal;
}
const stopped = (): JudgeFailure => new JudgeFailure('aborted', 'screening was stopped before the judge answered');

/**
 * Ends at the deadline even if the judge ignores its signal. Timers are monotonic: no clock is asked.
 * @param whole the deadline as it is told, where this is what is left of it
 */
export function withDeadline<T>(
  timeoutMs: number,
  outer: AbortSignal | undefined,
  work: (deadline: Deadline) => Promise<T>,
  whole = timeoutMs,
): Promise<T> {
  if (outer?.aborted) return Promise.reject(stopped());
  let controller: AbortController | undefined;
  let failed: JudgeFailure | undefined;
  const deadline: Deadline = {
    get signal() {
      controller ??= new AbortController();
      if (failed) controller.abort(failed);
      return controller.signal;
    },
  };
  return new Promise<T>((resolve, reject) => {
    const waiters = outer && waitersOf(outer);
    const settle = (): void => {
      clearTimeout(timer);
      waiters?.delete(onAbort);
    };
    const end = (failure: JudgeFailure): void => {
      failed = failure;
      settle();
      reject(failure);
      controller?.abort(failure);
    };
    const onAbort = (): void => end(stopped());
    const timer = setTimeout(
      () => end(new JudgeFailure('timeout', `the judge gave no answer within ${whole} ms`)),
      timeoutMs,
    );
    waiters?.add(onAbort);
    const fail = (error: unknown): void => {
      settle();
      reject(error);
    };
    let answer: Promise<T>;
    try {
      answer = work(deadline);
    } catch (error) {
      fail(error); // a judge that throws at once
      return;
    }
    // One that answers at once, whatever its type says.
    Promise.resolve(answer).then((value) => {
      settle();
      resolve(value);
    }, fail);
  });
}
