// What people see of the queue: pages of it, one item whole, counts, what was relabelled, and whether reviewers and
// judge agree. Whatever the size of the queue, an answer is one page.
import { type ExpressionBuilder, sql } from 'kysely';
import { ConfigError } from '../base/errors.js';
import { parseJson } from '../base/json.js';
import type { ContextMessage, HeldVerdict, Label, Queue, ReviewState } from './review-types.js';
import type { Store } from './store.js';
import type { ActionsTable, ReviewsTable, Tables } from './tables.js';
import { storable } from './text.js';

export interface PageOptions {
  /** Default open: held and escalated. */
  readonly queue?: Queue | undefined;
  readonly policy?: string | undefined;
  readonly channel?: string | undefined;
  /** `next` of the page before. */
  readonly after?: string | undefined;
  /** Default and most 200. */
  readonly limit?: number | undefined;
}
/** An item as a line: nothing of its text. */
export interface Summary {
  readonly id: string;
  readonly at: number;
  readonly state: ReviewState;
  readonly model: string;
  readonly channel: string;
  readonly policy: string;
  readonly verdict: 'allow' | 'block' | 'unjudged';
  readonly rule: string | null;
  readonly cause: string | null;
  readonly bytes: number;
  /** Until when its request waits; null: it does not. */
  readonly waitUntil: number | null;
  readonly wantsSecond: boolean;
  readonly decidedAt: number | null;
  readonly decidedBy: string | null;
  readonly label: Label | null;
}
export interface Page {
  readonly items: readonly Summary[];
  /** Of the next page; null: this is the last. */
  readonly next: string | null;
}
export interface WholeItem extends Summary {
  readonly request: string;
  readonly owner: string | null;
  readonly choice: number;
  readonly content: string;
  readonly contentSha256: string;
  readonly context: readonly ContextMessage[];
  /** Earlier messages are not kept. */
  readonly contextCut: boolean;
  readonly verdicts: readonly HeldVerdict[];
  readonly rationale: string;
  readonly policyDigest: string;
  readonly judge: string;
  readonly score: number | null;
  readonly receipt: string | null;
  readonly twoPersons: boolean;
  readonly firstBy: string | null;
  readonly releasedAt: number | null;
  readonly labelRule: string | null;
  readonly labelledBy: string | null;
  readonly actions: readonly Readonly<
    Pick<ActionsTable, 'at' | 'who' | 'action' | 'note' | 'label' | 'rule' | 'receipt'>
  >[];
}
const MOST = 200;
const LINE = [
  ...(['id', 'at', 'state', 'model', 'channel', 'policy', 'verdict', 'rule', 'cause', 'bytes', 'waits'] as const),
  ...(['wait_until', 'two_persons', 'first_by', 'decided_at', 'decided_by', 'label'] as const),
] as const;
type Line = Pick<ReviewsTable, (typeof LINE)[number]>;

function summary(row: Line, now: number): Summary {
  const open = row.state === 'held' || row.state === 'escalated';
  return {
    id: row.id,
    at: row.at,
    state: row.state,
    model: row.model,
    channel: row.channel,
    policy: row.policy,
    verdict: row.verdict,
    rule: row.rule,
    cause: row.cause,
    bytes: row.bytes,
    waitUntil: open && row.waits === 1 && (row.wait_until ?? 0) > now ? row.wait_until : null,
    wantsSecond: open && row.two_persons === 1 && row.first_by !== null,
    decidedAt: row.decided_at,
    decidedBy: row.decided_by,
    label: row.label,
  };
}

/** A time and an id, from which a page goes on. @throws {ConfigError} review_page */
function cursor(text: string): { readonly at: number; readonly id: string } {
  const m = /^(\d{1,16})\.(rev_[0-9a-f]{32})$/.exec(text);
  if (!m) throw new ConfigError('review_page', 'after: wanted `next` of the page before');
  return { at: Number(m[1]), id: m[2] as string };
}
const stateOf: Readonly<Record<Queue, readonly ReviewState[] | null>> = {
  open: ['held', 'escalated'],
  waiting: ['held', 'escalated'],
  held: ['held'],
  escalated: ['escalated'],
  approved: ['approved'],
  rejected: ['rejected'],
  decided: ['approved', 'rejected'],
  relabelled: null,
};

/**
 * The oldest first, as they wait longest; of decided ones the last decision first. @throws {ConfigError} review_page
 */
export async function pageOf(store: Store, options: PageOptions, now = Date.now()): Promise<Page> {
  const { queue = 'open', policy, channel, after, limit = MOST } = options;
  const states = stateOf[queue];
  const from = after === undefined ? null : cursor(after);
  const most = Math.max(1, Math.min(MOST, Math.trunc(limit)));
  const late = queue === 'approved' || queue === 'rejected' || queue === 'decided';
  const [by, way, past] = late ? (['decided_at', 'desc', '<'] as const) : (['at', 'asc', '>'] as const);
  const rows = await store.read((db) => {
    let q = db.selectFrom('reviews').select(LINE);
    if (states) q = q.where('state', 'in', states);
    if (queue === 'waiting') q = q.where('waits', '=', 1).where('wait_until', '>', now);
    if (queue === 'relabelled') q = q.where('label', 'is not', null);
    if (policy !== undefined) q = q.where('policy', '=', storable(policy));
    if (channel !== undefined) q = q.where('channel', '=', storable(channel));
    if (from) q = q.where((e) => e.or([e(by, past, from.at), e.and([e(by, '=', from.at), e('id', past, from.id)])]));
    return q
      .orderBy(by, way)
      .orderBy('id', way)
      .limit(most + 1)
      .execute();
  });
  const items = rows.slice(0, most);
  const last = items.at(-1);
  return {
    items: items.map((row) => summary(row, now)),
    next: rows.length > most && last ? `${last[by]}.${last.id}` : null,
  };
}

/** null: there is none */
export async function itemOf(store: Store, id: string, now = Date.now()): Promise<WholeItem | null> {
  return store.read(async (db) => {
    const row = await db.selectFrom('reviews').selectAll().where('id', '=', storable(id)).executeTakeFirst();
    if (!row) return null;
    const actions = await db
      .selectFrom('review_actions')
      .select(['at', 'who', 'action', 'note', 'label', 'rule', 'receipt'])
      .where('review', '=', id)
      .orderBy('number')
      .execute();
    return {
      ...summary(row, now),
      request: row.request,
      owner: row.owner,
      choice: row.choice,
      content: row.content,
      contentSha256: row.content_sha256,
      context: parseJson(row.context) as readonly ContextMessage[],
      contextCut: row.context_cut === 1,
      verdicts: parseJson(row.verdicts) as readonly HeldVerdict[],
      rationale: row.rationale,
      policyDigest: row.policy_digest,
      judge: row.judge,
      score: row.score,
      receipt: row.receipt,
      twoPersons: row.two_persons === 1,
      firstBy: row.first_by,
      releasedAt: row.released_at,
      labelRule: row.label_rule,
      labelledBy: row.labelled_by,
      actions,
    };
  });
}

export interface Counts {
  readonly states: Readonly<Record<ReviewState, number>>;
  readonly waiting: number;
  readonly relabelled: number;
  readonly policies: readonly string[];
  readonly channels: readonly string[];
}
export async function countsOf(store: Store, now = Date.now()): Promise<Counts> {
  return store.read(async (db) => {
    const count = (e: ExpressionBuilder<Tables, 'reviews'>) => e.fn.countAll<number>().as('n');
    const states = { held: 0, escalated: 0, approved: 0, rejected: 0 };
    for (const { state, n } of await db.selectFrom('reviews').select(['state', count]).groupBy('state').execute())
      states[state] = n;
    const open = db.selectFrom('reviews').select(count).where('state', 'in', ['held', 'escalated']);
    const waiting = await open.where('waits', '=', 1).where('wait_until', '>', now).executeTakeFirstOrThrow();
    const relabelled = await db
      .selectFrom('reviews')
      .select(count)
      .where('label', 'is not', null)
      .executeTakeFirstOrThrow();
    const policies = await db.selectFrom('reviews').select('policy').distinct().orderBy('policy').limit(100).execute();
    const channels = await db
      .selectFrom('reviews')
      .select('channel')
      .distinct()
      .orderBy('channel')
      .limit(100)
      .execute();
    return {
      states,
      waiting: waiting.n,
      relabelled: relabelled.n,
      policies: policies.map((r) => r.policy),
      channels: channels.map((r) => r.channel),
    };
  });
}

/** A row of a golden set (docs/guides/safeguard.md), as a reviewer says it. */
export interface GoldenRow {
  readonly id: string;
  readonly policy: string;
  readonly channel: string;
  readonly text: string;
  /** The rule that it breaks; null: none. */
  readonly expect: string | null;
}
/** What was relabelled, a page at a time. */
export async function* goldenRows(store: Store, policy?: string): AsyncGenerator<GoldenRow, void, void> {
  for (let after = ''; ; ) {
    const rows = await store.read((db) => {
      const q = db
        .selectFrom('reviews')
        .select(['id', 'policy', 'channel', 'content', 'label', 'label_rule'])
        .where('label', 'is not', null)
        // Answers of a gate are shown whole, which no policy judges.
        .where('policy', 'not like', 'gate:%')
        .where('id', '>', after);
      return (policy === undefined ? q : q.where('policy', '=', storable(policy))).orderBy('id').limit(MOST).execute();
    });
    for (const r of rows)
      yield {
        id: r.id,
        policy: r.policy,
        channel: r.channel,
        text: r.content,
        expect: r.label === 'block' ? r.label_rule : null,
      };
    const last = rows.at(-1);
    if (!last || rows.length < MOST) return;
    after = last.id;
  }
}

/** Of decisions how many agree. */
export interface Share {
  readonly agreed: number;
  readonly of: number;
  /** 95 % interval of Wilson; null: of none. */
  readonly interval: readonly [number, number] | null;
}
export interface Agreement {
  readonly judge: Share;
  /** Days since 1970 in UTC with decisions. */
  readonly days: readonly (Share & { readonly day: number })[];
  readonly policies: readonly (Share & { readonly policy: string })[];
  /** Two people on one text, each by his last word. */
  readonly reviewers: readonly (Share & { readonly who: readonly [string, string] })[];
}
const Z = 1.96;
export function share(agreed: number, of: number): Share {
  if (of === 0) return { agreed, of, interval: null };
  const p = agreed / of,
    z2 = (Z * Z) / of;
  const middle = p + z2 / 2,
    half = Z * Math.sqrt((p * (1 - p)) / of + z2 / (4 * of));
  return { agreed, of, interval: [Math.max(0, (middle - half) / (1 + z2)), Math.min(1, (middle + half) / (1 + z2))] };
}

const DAY_MS = 24 * 3600 * 1000;
/** Where the judge said nothing, there is nothing to agree with. @param since ms since 1970 */
export async function agreementOf(store: Store, since: number): Promise<Agreement> {
  const { groups, pairs } = await store.read(async (db) => {
    const says = sql<string>`coalesce(label, case state when 'approved' then 'allow' else 'block' end)`;
    const groups = await db
      .selectFrom('reviews')
      .select((e) => [
        'policy',
        sql<number>`decided_at / ${sql.lit(DAY_MS)}`.as('day'),
        sql<number>`sum(case when ${says} = verdict then 1 else 0 end)`.as('agreed'),
        e.fn.countAll<number>().as('of'),
      ])
      .where('decided_at', '>=', since)
      .where('verdict', 'in', ['allow', 'block'])
      .groupBy(['policy', 'day'])
      .execute();
    const pairs = await db
      .selectFrom('review_actions as a')
      .innerJoin('review_actions as b', (join) =>
        join
          .onRef('a.review', '=', 'b.review')
          .onRef('a.who', '<', 'b.who')
          .on('a.counts', '=', 1)
          .on('b.counts', '=', 1),
      )
      .select((e) => [
        'a.who as one',
        'b.who as other',
        sql<number>`sum(case when a.label = b.label then 1 else 0 end)`.as('agreed'),
        e.fn.countAll<number>().as('of'),
      ])
      .where('a.at', '>=', since)
      .groupBy(['a.who', 'b.who'])
      .orderBy('a.who')
      .orderBy('b.who')
      .limit(200)
      .execute();
    return { groups, pairs };
  });
  const by = <K extends 'day' | 'policy'>(key: K): readonly (readonly [unknown, Share])[] => {
    const sums = new Map<unknown, { agreed: number; of: number }>();
    for (const g of groups) {
      const sum = sums.get(g[key]) ?? { agreed: 0, of: 0 };
      sums.set(g[key], { agreed: sum.agreed + Number(g.agreed), of: sum.of + Number(g.of) });
    }
    return [...sums].map(([k, { agreed, of }]) => [k, share(agreed, of)] as const);
  };
  const total = (of: 'agreed' | 'of'): number => groups.reduce((sum, g) => sum + Number(g[of]), 0);
  return {
    judge: share(total('agreed'), total('of')),
    days: by('day')
      .map(([day, s]) => ({ day: Number(day), ...s }))
      .sort((a, b) => a.day - b.day),
    policies: by('policy')
      .map(([policy, s]) => ({ policy: String(policy), ...s }))
      .sort((a, b) => (a.policy < b.policy ? -1 : 1)),
    reviewers: pairs.map((p) => ({ who: [p.one, p.other] as const, ...share(Number(p.agreed), Number(p.of)) })),
  };
}
