// Tables of the store as rows have them. Times are ms since 1970, truths 0 or 1: both databases know integers.
import type { ReviewState } from './review-types.js';

export interface ReviewsTable {
  id: string;
  at: number;
  state: ReviewState;
  request: string;
  owner: string | null;
  model: string;
  channel: string;
  choice: number;
  content: string;
  bytes: number;
  content_sha256: string;
  /** JSON: messages before it. */
  context: string;
  context_cut: number;
  verdict: 'allow' | 'block' | 'unjudged';
  policy: string;
  policy_digest: string;
  rule: string | null;
  cause: string | null;
  rationale: string;
  /** JSON: what every policy said. */
  verdicts: string;
  judge: string;
  score: number | null;
  receipt: string | null;
  two_persons: number;
  /** A request is held until somebody decides. */
  waits: number;
  wait_until: number | null;
  first_by: string | null;
  decided_at: number | null;
  decided_by: string | null;
  released_at: number | null;
  label: 'allow' | 'block' | null;
  label_rule: string | null;
  labelled_by: string | null;
}
export interface ActionsTable {
  id: string;
  review: string;
  /** Of the item's actions, from 1. */
  number: number;
  at: number;
  who: string;
  action: string;
  note: string;
  /** What its author says of the text; null: nothing. */
  label: 'allow' | 'block' | null;
  rule: string | null;
  /** The last label of this author. */
  counts: number;
  receipt: string | null;
}
export interface SessionsTable {
  token_sha256: string;
  name: string;
  key_sha256: string;
  csrf: string;
  began_at: number;
  seen_at: number;
}
export interface DocumentsTable {
  id: string;
  owner: string | null;
  body: string;
  bytes: number;
  /** In the order of their coming. */
  at: number;
  expires_at: number;
}
export interface VerdictsTable {
  key: string;
  body: string;
  mac: string;
  outcome: string;
  at: number;
  expires_at: number;
}
export interface Tables {
  reviews: ReviewsTable;
  review_actions: ActionsTable;
  review_sessions: SessionsTable;
  documents: DocumentsTable;
  verdicts: VerdictsTable;
}
