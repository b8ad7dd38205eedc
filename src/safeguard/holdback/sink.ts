// Where verdicts go before anything is released by them, and where goes what is not released. Both are passed in: the
// log and the queue of reviews know of the safeguard, and it knows of neither.
import type { ContractName } from '../contracts/contract.js';
import type { DetectorState, UnjudgedCause, Verdict } from '../types.js';

/** `shadow`: what was judged is released whatever the verdict. */
export type ScreeningMode = 'enforce' | 'shadow';

/** A verdict as it is logged: digests and not content, and no word of a judge, which may quote the content. */
export interface VerdictRecord {
  /** Id of the answer, as its client knows it; empty where it has none. */
  readonly subject: string;
  /** Of several answers to one request which, from 0. */
  readonly choice: number;
  readonly mode: ScreeningMode;
  /** The channel's whole text was judged; else a beginning of it. */
  readonly whole: boolean;
  readonly policy: string;
  /** analysis, commentary, final, other. */
  readonly channel: string;
  readonly outcome: Verdict['outcome'];
  readonly rule: string | null;
  readonly cause: UnjudgedCause | null;
  readonly digests: Verdict['digests'];
  readonly latencyMs: number;
  readonly contract?: ContractName;
  readonly detectors?: Readonly<Record<string, DetectorState>>;
}
/** Takes each verdict of a turn that is held back, before it counts; ../verdict-sink.ts has that of whole texts. */
export interface HeldSink {
  /** Resolves when the record cannot be lost any more. @throws then nothing is released by it */
  append(record: VerdictRecord): Promise<{ readonly receipt: string }>;
}

/** A text that did not pass, with all that a reviewer needs. Never sent to a client. */
export interface HeldItem {
  readonly request: string;
  /** Name of the key that asked; null: none is needed. */
  readonly owner: string | null;
  readonly model: string;
  readonly channel: string;
  readonly choice: number;
  /** The channel's whole text. */
  readonly content: string;
  /** The conversation before it. */
  readonly context: readonly { readonly role: string; readonly channel?: string; readonly content: string }[];
  readonly verdicts: readonly {
    readonly policy: string;
    readonly digest: string;
    readonly outcome: Verdict['outcome'];
    readonly rule: string | null;
    readonly cause: string | null;
    readonly rationale: string;
    readonly score?: number;
  }[];
  /** Digest of the judge. */
  readonly judge: string;
  /** Of its verdict in the log; null: there is none. */
  readonly receipt: string | null;
  /** Until when the request waits for a decision, ms since 1970; absent: it does not. */
  readonly waitUntil?: number;
}
/** Only `approved` releases. */
export type ReviewDecision = 'approved' | 'rejected' | 'expired';
export interface HeldTicket {
  readonly id: string;
  /** What was decided while the request waits. Absent: nobody decides while it does. */
  wait?(signal?: AbortSignal): Promise<ReviewDecision>;
  /** It leaves, with all that was held of its answer. @throws then nothing is released */
  released?(): Promise<void>;
}
/** @throws then nothing is released */
export type OnHeld = (item: HeldItem) => Promise<HeldTicket>;
