// The safeguard's values. A verdict is a value, never an exception: only `allow` passes, and everything that went wrong
// is `unjudged`.

import type { Calibration } from './calibration.js';
import type { ContractName } from './contracts/contract.js';
import type { Finding } from './detectors/detector.js';
import type { PolicyChannel, Thresholds } from './front-matter.js';
import type { PolicyRelease } from './holdback/rules.js';
import type { ViewName } from './views/index.js';
import type { VoteCount } from './votes.js';

/** Why there is no verdict. */
export type UnjudgedCause =
  | 'no_policy' // nothing to judge by
  | 'no_content' // nothing to judge
  | 'bad_row' // a row of a batch that could not be read
  | 'timeout'
  | 'aborted'
  | 'unreachable' // connection refused, reset, TLS, DNS
  | 'http_status' // 4xx, or 429 and 5xx after the last attempt
  | 'bad_response' // a 200 that is not a chat completion
  | 'truncated' // finish reason other than stop
  | 'empty'
  | 'off_contract'
  | 'two_verdicts'
  | 'wrong_nonce'
  | 'unknown_rule'
  | 'contradiction'
  | 'wrong_model' // an allow, but of another model than the one asked
  | 'unproven' // an allow of a judge that did not show that it can follow the policy
  | 'fooled' // an allow of a judge that fell for a forged verdict
  | 'judge_changed' // another model or build answers than the one that was tried
  | 'canary' // an allow beside a text whose verdict is known and which the judge got wrong
  | 'disagreement' // votes that do not agree
  | 'circuit_open' // not asked: the judge failed too often of late
  | 'judge_error'; // the judge threw something else

/** A row of a policy's golden set: one text, and the rule that it breaks, or null. */
export interface GoldenRow {
  readonly id: string;
  readonly channel: string;
  readonly text: string;
  readonly expect: string | null;
}
export interface JudgeCheck {
  readonly policy: string;
  /** Golden rows of the policy; or, where it has none, its rules in their own words. */
  readonly by: 'golden' | 'rules';
  readonly passed: boolean;
  /** Texts that were judged. */
  readonly asked: number;
  /** What was wrong, one line; empty if it passed. */
  readonly detail: string;
}
export interface CheckLimits {
  readonly timeoutMs?: number;
  readonly concurrency?: number;
  readonly signal?: AbortSignal;
}

/** What a detector says of a text: `clear` is no verdict, as only a judge allows. */
export type DetectorState = 'clear' | 'block' | 'off';

export interface Policy extends PolicyRelease {
  readonly name: string;
  /** What a judge reads: without front matter. */
  readonly text: string;
  /** Rule ids the policy defines, e.g. R1, R2: a verdict may cite only these. */
  readonly rules: readonly string[];
  /** sha256 of the file's text, front matter included, hex. */
  readonly digest: string;
  /** How a judge is asked and how its answer is read; absent: ours, with a nonce. */
  readonly contract?: ContractName;
  /** Texts whose verdict is known, to try a judge with; absent: none are there. */
  readonly golden?: readonly GoldenRow[];
  /** A rule speaks of the whole answer: nothing of a stream may leave before all of it was judged. */
  readonly buffer?: 'whole';
  /** Channels that it was written for and its golden set covers; screening asks it about every channel all the same. */
  readonly channels?: readonly PolicyChannel[];
  /** What its golden run must reach. */
  readonly thresholds?: Thresholds;
  /** Thresholds of judges, found on its golden set; only those of this very text. */
  readonly calibrations?: readonly Calibration[];
}

/** What of a text was judged. */
export interface Coverage {
  /** UTF-16 units of the text, and those in a window that has a verdict: all of them, or nothing is allowed. */
  readonly characters: number;
  readonly judged: number;
  /** Overlapping windows that the text was cut into. */
  readonly windows: number;
  /** The text as it is (raw), and its other views that differ: see views/index.ts. */
  readonly views: readonly ViewName[];
}

/** What one judge said of one channel under one policy. */
export interface Verdict {
  readonly outcome: 'allow' | 'block' | 'unjudged';
  readonly policy: string;
  readonly channel: string;
  /** The rule that is broken; null unless blocked. */
  readonly rule: string | null;
  /** The judge's reasoning, for reviewers; never a source of the verdict. */
  readonly rationale: string;
  /** Set when and only when unjudged. */
  readonly cause: UnjudgedCause | null;
  /** One line on the cause; empty otherwise. */
  readonly detail: string;
  /** sha256, hex: what was judged, by which text, by whom. */
  readonly digests: {
    readonly policy: string;
    readonly content: string;
    /** The contract is part of it. */
    readonly judge: string;
    /** Of the detectors beside the judge, those that are off included. */
    readonly detectors?: string;
    /** How the judge was asked: views, windows, votes, thresholds. Absent where no judge was. */
    readonly judging?: string;
  };
  readonly latencyMs: number;
  /**
   * Log-odds of a violation, nats: at the verdict token where the judge tells it, with several votes their mean, or
   * those of the votes themselves where it does not; of several windows and views the highest. Absent: there is none.
   */
  readonly score?: number;
  /** The calibrated threshold that the score was held to, nats; absent: none, so that the judge's own word counted. */
  readonly threshold?: number;
  /** Absent where no judge was asked. */
  readonly coverage?: Coverage;
  /** The view that decided, if it was not the raw text. */
  readonly view?: ViewName;
  /** With several votes: those on the text that decided. */
  readonly votes?: VoteCount;
  /** Model and build that answered, as an endpoint names them. */
  readonly backend?: string;
  /** Absent: ours. */
  readonly contract?: ContractName;
  /** What the detectors said of the channel, by name. */
  readonly detectors?: Readonly<Record<string, DetectorState>>;
  /** Of a detector's verdict: where it found what, never the text itself. */
  readonly findings?: readonly Omit<Finding, 'detector'>[];
}

/** The only test of a verdict. Anything but a literal `allow` does not pass, whatever its type says. */
export const mayPass = (verdict: Pick<Verdict, 'outcome'> | null | undefined): boolean => verdict?.outcome === 'allow';

export interface JudgeRequest {
  readonly policy: string;
  readonly content: string;
  /** Harmony channel the content was written on. */
  readonly channel: string;
  readonly nonce: string;
  /** How to ask: `judgeMessages` renders it. Absent: ours. */
  readonly contract?: ContractName;
  /** Asked the other way round, where the contract can be: `compliant` for `violation`, or 1 and 0 changed over. */
  readonly swapped?: boolean;
  /** How the answer is sampled; absent: the most probable one. */
  readonly sampling?: { readonly temperature: number; readonly seed: number };
  /** Control-token spellings are sent as they are: to find out what the backend makes of them. */
  readonly verbatim?: boolean;
  /** Texts that go on from this one are likely to be asked about next, with the same nonce. */
  readonly growing?: boolean;
  readonly signal: AbortSignal;
}
/** The final channel of a judge's answer, and how it ended. Only `stop` counts as completed. */
export interface JudgeAnswer {
  readonly text: string;
  readonly finish: 'stop' | 'length' | 'other';
  /** The server's own word for it, where `finish` is `other`. */
  readonly ended?: string;
  /** The judge's analysis channel. */
  readonly rationale?: string;
  /** Log-odds of a violation at the verdict token, nats: ln p(1) − ln p(0); absent: not known. */
  readonly score?: number;
  /** Why an allow does not count; a block stands all the same, as nothing passes by it. */
  readonly allowVoid?: { readonly cause: UnjudgedCause; readonly detail: string };
  /** Model and build that answered, as the backend names them. */
  readonly backend?: string;
}
export interface Judge {
  readonly name: string;
  /** sha256 over what decides its answers: model digest or endpoint and model name, and the sampling settings. */
  readonly digest: string;
  judge(request: JudgeRequest): Promise<JudgeAnswer>;
  /** Most tokens of prompt and answer, of a local one. */
  readonly contextTokens?: number;
  /** Whether a request leaves room for an answer; absent: nobody knows, it is tried. */
  fits?(request: Omit<JudgeRequest, 'nonce' | 'signal'>, signal: AbortSignal): Promise<boolean>;
  /**
   * Whether it can follow the policy, found by trying; asked before an allow of it counts, once for each policy.
   * Absent: it is taken at its word.
   */
  check?(policy: Policy, limits?: CheckLimits): Promise<JudgeCheck>;
}

/** What a check that failed means for verdicts, as one sentence. */
export const doubtOf = (check: JudgeCheck): string =>
  (check.by === 'golden'
    ? `the judge did not pass the golden set of policy ${check.policy}`
    : `policy ${check.policy} has no golden set, and the judge did not find its rules in their own words`) +
  ` (${check.detail})`;

/** Thrown by a judge to name the cause; becomes an `unjudged` verdict. */
export class JudgeFailure extends Error {
  /** No other call of this judge can fare better: a wrong key, a wrong address. */
  readonly hopeless: boolean;
  /** The judge is busy or broken for the moment. */
  readonly passing: boolean;
  constructor(
    readonly reason: UnjudgedCause,
    message: string,
    options: { readonly cause?: unknown; readonly hopeless?: boolean; readonly passing?: boolean } = {},
  ) {
    super(message.replaceAll(/\s*\n\s*/g, ' '), options);
    this.name = 'JudgeFailure';
    this.hopeless = options.hopeless ?? false;
    this.passing = options.passing ?? false;
  }
}
