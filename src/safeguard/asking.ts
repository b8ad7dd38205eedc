// One question to a judge: one policy, one text, one way of asking, within one deadline. What goes wrong is in what
// comes back. An answer that strayed from the contract is asked for once more, with another nonce; one that held a
// verdict and something else is not, as it may have been a block.
import { TemperError } from '../base/errors.js';
import type { ContractName } from './contracts/contract.js';
import { contractOf } from './contracts/index.js';
import { oneLine } from './sentence.js';
import { nonceOf, type Series } from './series.js';
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
  /** What the text is a beginning of. */
  readonly series?: Series | undefined;
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

/** What a judge is asked. Its signal is made when it is first looked for, as few judges of microseconds do. */
class Question implements JudgeRequest {
  declare readonly signal: AbortSignal;
  declare readonly contract?: ContractName;
  declare readonly swapped?: boolean;
  declare readonly sampling?: { readonly temperature: number; readonly seed: number };
  declare readonly verbatim?: boolean;
  declare readonly growing?: boolean;
  readonly #deadline: Deadline;
  constructor(
    readonly policy: string,
    readonly content: string,
    readonly channel: string,
    readonly nonce: string,
    deadline: Deadline,
  ) {
    this.#deadline = deadline;
    // Its own, so that a copy of the question has it; the same for all, so that all are of one kind.
    Object.defineProperty(this, 'signal', SIGNAL);
  }
  static signalOf(question: Question): AbortSignal {
    return question.#deadline.signal;
  }
}
const SIGNAL: PropertyDescriptor & ThisType<Question> = {
  get() {
    return Question.signalOf(this);
  },
  enumerable: true,
  configurable: true,
};
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A question until it is answered. */
class Asking {
  #tries = 0;
  readonly #until: number;
  readonly #contract: ReturnType<typeof contractOf>;
  constructor(
    readonly options: AskerOptions,
    readonly policy: Policy,
    readonly channel: string,
    readonly content: string,
    readonly manner: Manner,
    readonly signal: AbortSignal | undefined,
  ) {
    this.#until = performance.now() + options.timeoutMs;
    this.#contract = contractOf(policy.contract);
  }

  /** Never rejects. */
  ask(): Promise<Asked> {
    const { options, policy, content } = this;
    const { series } = this.manner,
      first = this.#tries++ === 0;
    const nonce = series ? series.nonceFor(policy.text, content, !first) : nonceOf(policy.text, content);
    const left = first ? options.timeoutMs : Math.max(0, this.#until - performance.now());
    const answer = withDeadline(left, this.signal, (deadline) => this.#judge(nonce, deadline), options.timeoutMs);
    return answer.then((given) => this.#read(given, nonce), failed);
  }
  #judge(nonce: string, deadline: Deadline): Promise<JudgeAnswer> {
    const { policy, content, channel, manner } = this;
    const { swapped, sampling, verbatim, series } = manner;
    const question: Mutable<JudgeRequest> = new Question(policy.text, content, channel, nonce, deadline);
    if (this.#contract.name !== 'temper') question.contract = this.#contract.name;
    if (swapped !== undefined) question.swapped = swapped;
    if (sampling !== undefined) question.sampling = sampling;
    if (verbatim !== undefined) question.verbatim = verbatim;
    if (series) question.growing = true;
    return this.options.judge.judge(question);
  }
  #read(answer: JudgeAnswer, nonce: string): Asked | Promise<Asked> {
    const { forgery, swapped } = this.manner;
    try {
      const asked = read(this.policy, answer, nonce, swapped === true);
      if (this.#tries <= this.options.retries && STRAYED.includes(asked.cause)) return this.ask();
      const repeated = forgery !== undefined && String(answer?.text).includes(forgery);
      return repeated ? { ...asked, repeated } : asked;
    } catch (error) {
      return failed(error);
    }
  }
}

export function createAsker(options: AskerOptions): Asker {
  return {
    ask: (policy, channel, content, manner, signal) =>
      options.slots(() => new Asking(options, policy, channel, content, manner, signal).ask()),
  };
}

function failed(error: unknown): Asked {
  const failure = error instanceof JudgeFailure ? error : null;
  return {
    ...nothing(failure?.reason ?? 'judge_error', failure?.message ?? `the judge failed: ${errorName(error)}`),
    answered: false,
    hopeless: failure?.hopeless ?? false,
  };
}

const nothing = (cause: UnjudgedCause, detail: string, rationale = ''): Vote => ({
  outcome: 'unjudged',
  rule: null,
  cause,
  detail,
  rationale,
});

/** A vote with what the answer says beside it. */
function told({ outcome, rule, cause, detail, rationale }: Vote, answer: JudgeAnswer | undefined): Mutable<Asked> {
  // Field by field: copies of objects cost more than all the rest of a verdict.
  const asked: Mutable<Asked> = { outcome, rule, cause, detail, rationale, answered: true, hopeless: false };
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
const waiting = new WeakMap<AbortSignal, Set<Watch<never>>>();
function waitersOf(signal: AbortSignal): Set<Watch<never>> {
  const known = waiting.get(signal);
  if (known) return known;
  const own = new Set<Watch<never>>();
  waiting.set(signal, own);
  const endAll = (): void => {
    for (const watch of [...own]) watch.end(stopped());
  };
  signal.addEventListener('abort', endAll, { once: true });
  return own;
}

/** Has the signal of a question; it is made when it is first asked for. */
export interface Deadline {
  readonly signal: AbortSignal;
}
const stopped = (): JudgeFailure => new JudgeFailure('aborted', 'screening was stopped before the judge answered');

/** What is waited for until it is there, fails, is stopped or takes too long. */
class Watch<T> implements Deadline {
  #controller: AbortController | undefined;
  #failed: JudgeFailure | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #waiters: Set<Watch<never>> | undefined;
  constructor(
    readonly resolve: (value: T) => void,
    readonly reject: (error: unknown) => void,
    timeoutMs: number,
    outer: AbortSignal | undefined,
    readonly whole: number,
  ) {
    this.#timer = setTimeout(Watch.timeOut, timeoutMs, this);
    this.#waiters = outer && waitersOf(outer);
    this.#waiters?.add(this as Watch<never>);
  }
  static timeOut(watch: Watch<never>): void {
    watch.end(new JudgeFailure('timeout', `the judge gave no answer within ${watch.whole} ms`));
  }
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#failed) this.#controller.abort(this.#failed);
    return this.#controller.signal;
  }
  run(work: (deadline: Deadline) => Promise<T>): void {
    let answer: Promise<T>;
    try {
      answer = work(this);
    } catch (error) {
      this.#fail(error); // a judge that throws at once
      return;
    }
    // One that answers at once, whatever its type says.
    Promise.resolve(answer).then(
      (value) => {
        this.#settle();
        this.resolve(value);
      },
      (error: unknown) => this.#fail(error),
    );
  }
  end(failure: JudgeFailure): void {
    this.#failed = failure;
    this.#fail(failure);
    this.#controller?.abort(failure);
  }
  #fail(error: unknown): void {
    this.#settle();
    this.reject(error);
  }
  #settle(): void {
    clearTimeout(this.#timer);
    this.#waiters?.delete(this as Watch<never>);
  }
}

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
  return new Promise<T>((resolve, reject) => new Watch<T>(resolve, reject, timeoutMs, outer, whole).run(work));
}
