// What is held for people to look at, and what they may do with it.

/** held: nobody has decided · escalated: handed on, and two must agree · the others are decided. */
export type ReviewState = 'held' | 'escalated' | 'approved' | 'rejected';
export const REVIEW_STATES: readonly ReviewState[] = ['held', 'escalated', 'approved', 'rejected'];
/** What may be looked at: open is held and escalated, decided approved and rejected. */
export const QUEUES = [
  'open',
  'waiting',
  'held',
  'escalated',
  'approved',
  'rejected',
  'decided',
  'relabelled',
] as const;
export type Queue = (typeof QUEUES)[number];
export type Label = 'allow' | 'block';
export const REVIEW_ACTIONS = ['approve', 'reject', 'relabel', 'escalate'] as const;
export type ReviewAction = (typeof REVIEW_ACTIONS)[number];

/** A message before what is held. */
export interface ContextMessage {
  readonly role: string;
  readonly channel?: string | undefined;
  readonly content: string;
}
/** What one policy said of the text. */
export interface HeldVerdict {
  readonly policy: string;
  readonly digest: string;
  readonly outcome: 'allow' | 'block' | 'unjudged';
  readonly rule: string | null;
  readonly cause: string | null;
  readonly rationale: string;
  /** Log-odds of a violation, where a local judge decided. */
  readonly score?: number | undefined;
}
/** A text that did not pass, as the server that holds it tells it. */
export interface HeldItem {
  /** Id of the answer, as its client knows it. */
  readonly request: string;
  /** Name of the key that asked; null: none is needed. */
  readonly owner: string | null;
  readonly model: string;
  /** As verdicts name it: analysis, final, commentary, or that of a call. */
  readonly channel: string;
  /** Of several answers which. */
  readonly choice?: number | undefined;
  readonly content: string;
  readonly context: readonly ContextMessage[];
  /** At least one; the worst of them heads the item. */
  readonly verdicts: readonly HeldVerdict[];
  readonly judge: string;
  /** Of the verdict in the log. */
  readonly receipt?: string | null | undefined;
  /** Until when the request waits for a decision, ms since 1970; absent: it does not. */
  readonly waitUntil?: number | undefined;
  /** Two people must approve it, whatever the desk's rule. */
  readonly twoPersons?: boolean | undefined;
}
/** expired: nobody decided while it waited, or it waits no longer. Only approved releases. */
export type Decision = 'approved' | 'rejected' | 'expired';

/** A text in the queue, as the server sees it that holds it. */
export interface Ticket {
  readonly id: string;
  /**
   * Settles once: with what people decided, or expired when the time is over, the signal aborts, or the store fails.
   * What is approved later is recorded and releases nothing.
   */
  wait(signal?: AbortSignal): Promise<Decision>;
  /** What was approved while it waited leaves: its row says so. @throws {StoreError} then nothing may leave */
  released(): Promise<void>;
}
/** Where what is held goes. */
export interface ReviewDesk {
  /** @throws {StoreError} nothing is recorded then, and nothing may be released */
  hold(item: HeldItem): Promise<Ticket>;
}
/** Takes each action before it counts; what it refuses does not happen. */
export interface ReviewLog {
  append(record: ReviewRecord): Promise<{ readonly receipt: string }>;
  /** A digest by which nobody can guess a content; absent: the record has none. */
  digest?(nonce: string, sha256: string): string;
}
/** An action as it is logged: who did what to which text, and what that made of it. No word of a model or a user. */
export type ReviewRecord = Readonly<Record<string, string | boolean | null>>;
