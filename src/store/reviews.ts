// The queue of texts that did not pass: servers put them in, people decide, and what still waits is released once two
// conditions hold in the same row: it is approved, and its request still waits. Several servers share one queue.
import { randomBytes } from 'node:crypto';
import { sha256 } from '../base/digest.js';
import { ConfigError, StoreError } from '../base/errors.js';
import { type Act, outcomeOf } from './review-rules.js';
import type {
  ContextMessage,
  HeldItem,
  HeldVerdict,
  ReviewDesk,
  ReviewLog,
  ReviewRecord,
  ReviewState,
  Ticket,
} from './review-types.js';
import { ReviewWaiters } from './review-waiters.js';
import type { Store } from './store.js';
import type { ReviewsTable } from './tables.js';
import { storable } from './text.js';

export interface ReviewsOptions {
  /** Two people must approve each item. Default: one. */
  readonly twoPersons?: boolean | undefined;
  /** Takes each action before it counts. */
  readonly log?: ReviewLog | null | undefined;
  /** How often decisions of other servers are looked for while a request waits, ms. Default 500. */
  readonly pollMs?: number | undefined;
  /** How long the texts of decided items are kept, ms; relabelled ones stay. Default 90 days. */
  readonly keepMs?: number | undefined;
  /** Items that nobody has decided; beyond that none is taken. Default 100,000. */
  readonly most?: number | undefined;
  /** Told of faults of the store that nobody else is told of. */
  readonly fault?: ((e: unknown) => void) | undefined;
  /** For tests. */
  readonly now?: (() => number) | undefined;
}
/** What became of an item. */
export interface Acted {
  readonly state: ReviewState;
  /** Approved, and its request still waits: it goes on. */
  readonly releases: boolean;
  /** One has approved it, and another one must. */
  readonly wantsSecond: boolean;
  readonly receipt: string | null;
}

const DAY_MS = 24 * 3600 * 1000;
const MOST_CONTENT = 4 << 20;
/** Of the context so many bytes are kept, the last ones: people read what led to the text. */
const MOST_CONTEXT = 256 << 10;
const PURGE_EVERY_MS = 3600 * 1000;
const SEVERITY = { allow: 0, unjudged: 1, block: 2 } as const;

const worst = (verdicts: readonly HeldVerdict[]): HeldVerdict => {
  const [head] = [...verdicts].sort((a, b) => SEVERITY[b.outcome] - SEVERITY[a.outcome]);
  if (!head) throw new ConfigError('review_item', 'a held text wants the verdict that holds it');
  return head;
};
/** The last messages that fit. */
function lastOf(context: readonly ContextMessage[]): {
  readonly kept: readonly ContextMessage[];
  readonly cut: boolean;
} {
  let bytes = 0;
  let from = context.length;
  while (from > 0) {
    bytes += Buffer.byteLength((context[from - 1] as ContextMessage).content) + 64;
    if (bytes > MOST_CONTEXT) break;
    from--;
  }
  return { kept: context.slice(from), cut: from > 0 };
}

export class Reviews implements ReviewDesk {
  readonly #waiters: ReviewWaiters;
  readonly #now: () => number;
  #purged = Number.NEGATIVE_INFINITY;
  constructor(
    readonly store: Store,
    readonly options: ReviewsOptions = {},
  ) {
    this.#now = options.now ?? Date.now;
    this.#waiters = new ReviewWaiters(store, options.pollMs ?? 500, this.#now, options.fault ?? (() => {}));
  }
  get twoPersons(): boolean {
    return this.options.twoPersons === true;
  }

  async hold(item: HeldItem): Promise<Ticket> {
    const bytes = Buffer.byteLength(item.content);
    if (bytes > MOST_CONTENT)
      throw new StoreError('review_item', `a held text has ${bytes} bytes; people are shown at most ${MOST_CONTENT}`);
    const row = this.#rowOf(item, bytes);
    const { most = 100_000 } = this.options;
    await this.#purge();
    await this.store.change(async (db) => {
      const { n } = await db
        .selectFrom('reviews')
        .select((e) => e.fn.countAll<number>().as('n'))
        .where('state', 'in', ['held', 'escalated'])
        .executeTakeFirstOrThrow();
      if (n >= most)
        throw new StoreError('review_full', `${n} items wait for review: no more are taken before people decide some`);
      await db.insertInto('reviews').values(row).execute();
    });
    return {
      id: row.id,
      wait: (signal) => this.#waiters.wait(row.id, row.wait_until, signal),
      released: () => this.#released(row.id),
    };
  }
  async #released(id: string): Promise<void> {
    await this.store.change((db) =>
      db
        .updateTable('reviews')
        .set({ released_at: this.#now() })
        .where('id', '=', id)
        .where('state', '=', 'approved')
        .execute(),
    );
  }
  #rowOf(item: HeldItem, bytes: number): ReviewsTable {
    const head = worst(item.verdicts);
    const { kept, cut } = lastOf(item.context);
    return {
      id: `rev_${randomBytes(16).toString('hex')}`,
      at: this.#now(),
      state: 'held',
      request: item.request,
      owner: item.owner,
      model: storable(item.model),
      channel: storable(item.channel),
      choice: item.choice ?? 0,
      content: storable(item.content),
      bytes,
      content_sha256: sha256(item.content),
      context: JSON.stringify(kept),
      context_cut: cut ? 1 : 0,
      verdict: head.outcome,
      policy: head.policy,
      policy_digest: head.digest,
      rule: head.rule,
      cause: head.cause,
      rationale: storable(head.rationale),
      verdicts: JSON.stringify(item.verdicts),
      judge: item.judge,
      score: head.score ?? null,
      receipt: item.receipt ?? null,
      two_persons: this.twoPersons || item.twoPersons ? 1 : 0,
      waits: item.waitUntil === undefined ? 0 : 1,
      wait_until: item.waitUntil ?? null,
      ...{ first_by: null, decided_at: null, decided_by: null, released_at: null },
      ...{ label: null, label_rule: null, labelled_by: null },
    };
  }

  /**
   * Decided, and in the log, or as it was.
   * @throws {ConfigError} review_unknown, review_decided, review_second, review_label, review_note · {StoreError} ·
   * what the log refuses
   */
  async act(id: string, act: Act): Promise<Acted> {
    const now = this.#now();
    const { log } = this.options;
    let logged: ReviewRecord | null = null;
    try {
      const acted = await this.store.change(async (db): Promise<Acted> => {
        const query = db.selectFrom('reviews').selectAll().where('id', '=', storable(id));
        const row = await (this.store.kind === 'postgres' ? query.forUpdate() : query).executeTakeFirst();
        if (!row) throw new ConfigError('review_unknown', `there is no item ${JSON.stringify(id.slice(0, 64))}`);
        const { patch, label, rule } = outcomeOf(row, act, now);
        const after = { ...row, ...patch };
        const record = recordOf(row, act, { state: after.state, label, rule, at: now }, log ?? null);
        const receipt = log ? (await log.append(record)).receipt : null;
        if (log) logged = record;
        await db.updateTable('reviews').set(patch).where('id', '=', id).execute();
        await this.#note(db, row, act, { now, label, rule, receipt });
        return {
          state: after.state,
          releases: after.state === 'approved' && row.waits === 1 && (row.wait_until ?? 0) > now,
          wantsSecond: act.action === 'approve' && after.state !== 'approved',
          receipt,
        };
      });
      if (acted.state === 'approved' || acted.state === 'rejected') this.#waiters.look();
      return acted;
    } catch (e) {
      // What the log says must not stand where nothing happened.
      if (logged && log) await log.append({ ...(logged as ReviewRecord), applied: false }).catch(this.options.fault);
      throw e;
    }
  }
  async #note(
    db: Parameters<Parameters<Store['change']>[0]>[0],
    row: ReviewsTable,
    { who, action, note = '' }: Act,
    {
      now,
      label,
      rule,
      receipt,
    }: { now: number; label: 'allow' | 'block' | null; rule: string | null; receipt: string | null },
  ): Promise<void> {
    const { n } = await db
      .selectFrom('review_actions')
      .select((e) => e.fn.countAll<number>().as('n'))
      .where('review', '=', row.id)
      .executeTakeFirstOrThrow();
    // Of what one person says of a text the last word counts.
    if (label !== null)
      await db
        .updateTable('review_actions')
        .set({ counts: 0 })
        .where('review', '=', row.id)
        .where('who', '=', who)
        .execute();
    await db
      .insertInto('review_actions')
      .values({
        id: `act_${randomBytes(16).toString('hex')}`,
        review: row.id,
        number: n + 1,
        at: now,
        ...{ who, action, note: storable(note), label, rule, receipt },
        counts: label === null ? 0 : 1,
      })
      .execute();
  }
  /** Texts that nobody needs any more go; that they were judged, and how, stays. */
  async #purge(): Promise<void> {
    const now = this.#now();
    if (now - this.#purged < PURGE_EVERY_MS) return;
    this.#purged = now;
    await this.store.change((db) =>
      db
        .updateTable('reviews')
        .set({ content: '', context: '[]', rationale: '', verdicts: '[]' })
        .where('decided_at', '<', now - (this.options.keepMs ?? 90 * DAY_MS))
        .where('label', 'is', null)
        .where('content', '<>', '')
        .execute(),
    );
  }
  /** Requests that wait are told `expired`. */
  async close(): Promise<void> {
    await this.#waiters.close();
  }
}

/** A model may name a channel as it likes: what is none of harmony's is `other`. */
const channelName = (channel: string): string => (/^(?:analysis|commentary|final)$/.test(channel) ? channel : 'other');

function recordOf(
  row: ReviewsTable,
  { who, action }: Act,
  after: {
    readonly state: ReviewState;
    readonly label: string | null;
    readonly rule: string | null;
    readonly at: number;
  },
  log: ReviewLog | null,
): ReviewRecord {
  const nonce = randomBytes(12).toString('base64url');
  return {
    at: new Date(after.at).toISOString(),
    action,
    who,
    item: row.id,
    request: row.request,
    channel: channelName(row.channel),
    policy: row.policy,
    policyDigest: row.policy_digest,
    ...(log?.digest ? { nonce, content: log.digest(nonce, row.content_sha256) } : {}),
    verdict: row.receipt,
    before: row.state,
    after: after.state,
    label: after.label,
    rule: after.rule,
  };
}
