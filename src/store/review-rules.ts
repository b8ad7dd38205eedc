// What an action makes of an item: pure, so that both databases and every server decide alike.
import { ConfigError } from '../base/errors.js';
import type { Label, ReviewAction } from './review-types.js';
import type { ReviewsTable } from './tables.js';

export interface Act {
  /** Name of the reviewer's key. */
  readonly who: string;
  readonly action: ReviewAction;
  readonly note?: string | undefined;
  /** Of `relabel`: what the text is. */
  readonly label?: Label | undefined;
  /** Of `relabel` to block: the rule that it breaks; absent: the one that the judge named. */
  readonly rule?: string | undefined;
}
export interface Outcome {
  readonly patch: Partial<ReviewsTable>;
  /** What its author says of the text by it. */
  readonly label: Label | null;
  readonly rule: string | null;
}
const MOST_NOTE = 4000;
const MOST_RULE = 128;

const isOpen = ({ state }: ReviewsTable): boolean => state === 'held' || state === 'escalated';
function requireOpen(row: ReviewsTable): void {
  if (isOpen(row)) return;
  const by = row.decided_by === null ? '' : ` by ${row.decided_by}`;
  throw new ConfigError('review_decided', `${row.id} is ${row.state}${by} already; it can be relabelled`);
}

function relabelled(row: ReviewsTable, { who, label, rule }: Act): Outcome {
  if (label === undefined) throw new ConfigError('review_label', 'relabel: wanted a label, allow or block');
  // A golden row without its text would say nothing.
  if (row.content === '')
    throw new ConfigError('review_label', `relabel: the text of ${row.id} is kept no longer; it was decided long ago`);
  const broken = label === 'allow' ? null : (rule ?? row.rule);
  if (label === 'block' && broken === null)
    throw new ConfigError('review_label', `relabel: wanted the rule of ${row.policy} that the text breaks`);
  // Who approved it first and takes that back approves it no longer.
  const back = label === 'block' && isOpen(row) && row.first_by === who ? { first_by: null } : {};
  return { patch: { label, label_rule: broken, labelled_by: who, ...back }, label, rule: broken };
}

/** @throws {ConfigError} review_decided, review_second, review_label, review_note */
export function outcomeOf(row: ReviewsTable, act: Act, now: number): Outcome {
  const { who, action, note = '', rule } = act;
  if (note.length > MOST_NOTE || (rule !== undefined && !/^[^\p{Cc}\p{Zl}\p{Zp}]{1,128}$/u.test(rule)))
    throw new ConfigError(
      'review_note',
      `wanted a note of at most ${MOST_NOTE} characters, and a rule of one line of at most ${MOST_RULE}`,
    );
  if (action === 'relabel') return relabelled(row, act);
  requireOpen(row);
  if (action === 'escalate') {
    if (row.state === 'escalated') throw new ConfigError('review_decided', `${row.id} is escalated already`);
    return { patch: { state: 'escalated', two_persons: 1 }, label: null, rule: null };
  }
  const decided = { decided_at: now, decided_by: who };
  // One is enough to keep a text back.
  if (action === 'reject') return { patch: { ...decided, state: 'rejected' }, label: 'block', rule: row.rule };
  if (row.two_persons === 1 && row.first_by === null) return { patch: { first_by: who }, label: 'allow', rule: null };
  if (row.two_persons === 1 && row.first_by === who)
    throw new ConfigError('review_second', `${row.id}: ${who} has approved it; somebody else must, too`);
  return { patch: { ...decided, state: 'approved' }, label: 'allow', rule: null };
}
