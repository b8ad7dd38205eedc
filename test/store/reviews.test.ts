// The queue: who may do what, what is released and what is only recorded, whichever database and server it comes by.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseRow } from '../../src/safeguard/batch/row.js';
import { exportGolden } from '../../src/store/golden.js';
import {
  agreementOf,
  countsOf,
  goldenRows,
  itemOf,
  type PageOptions,
  pageOf,
  share,
} from '../../src/store/review-pages.js';
import type { HeldItem, Label, ReviewAction, ReviewLog } from '../../src/store/review-types.js';
import { Reviews, type ReviewsOptions } from '../../src/store/reviews.js';
import { openStore, type Store } from '../../src/store/store.js';
import { onEachStore } from './places.js';

const item = (content: string, more: Partial<HeldItem> = {}): HeldItem => ({
  request: 'resp_1',
  owner: 'app',
  model: 'm',
  channel: 'final',
  content,
  context: [{ role: 'user', content: 'Who lives there?' }],
  verdicts: [
    { policy: 'other', digest: 'o', outcome: 'allow', rule: null, cause: null, rationale: '' },
    {
      policy: 'contact',
      digest: 'c',
      outcome: 'block',
      rule: 'C1',
      cause: null,
      rationale: 'a phone number',
      score: 2.5,
    },
  ],
  judge: 'j',
  ...more,
});
const soon = (): number => Date.now() + 60_000;
/** A log that keeps what it is told. */
const logOf = (records: Record<string, unknown>[], refuses: () => boolean = () => false): ReviewLog => ({
  async append(record) {
    if (refuses()) throw new Error('the disk is full');
    records.push({ ...record });
    return { receipt: `r${records.length}` };
  },
  digest: () => 'of it',
});

onEachStore((place) => {
  const opened = async (options: ReviewsOptions = {}): Promise<{ store: Store; reviews: Reviews; where: string }> => {
    const where = await place.fresh();
    const store = await openStore(where);
    return { store, where, reviews: new Reviews(store, { pollMs: 20, ...options }) };
  };
  const act = (reviews: Reviews, id: string, who: string, action: ReviewAction, label?: Label, rule?: string) =>
    reviews.act(id, { who, action, label, rule });

  it('keeps an item whole, headed by the worst of its verdicts', async () => {
    const { store, reviews } = await opened();
    const hostile = "x'); drop table reviews; -- \u202e <script>\ud83d\ude00 \\ ?1 $1";
    const { id } = await reviews.hold(item(hostile, { context: [{ role: 'user', content: hostile }] }));
    const whole = await itemOf(store, id);
    expect(whole).toMatchObject({
      content: hostile,
      context: [{ role: 'user', content: hostile }],
      ...{ policy: 'contact', rule: 'C1', rationale: 'a phone number', score: 2.5, state: 'held', waitUntil: null },
    });
    expect(whole?.verdicts).toHaveLength(2);
    expect(await itemOf(store, 'rev_none')).toBeNull();
    // What one of the databases cannot hold.
    const odd = await reviews.hold(item('a\0b\ud800', { channel: 'x\0' }));
    await reviews.act(odd.id, { who: 'ann', action: 'escalate', note: 'n\0' });
    expect(await itemOf(store, odd.id)).toMatchObject({ content: 'a\u2400b\ufffd', channel: 'x\u2400' });
    expect(await itemOf(store, 'rev_\0')).toBeNull();
    await expect(act(reviews, 'rev_\0', 'ann', 'approve')).rejects.toMatchObject({ code: 'review_unknown' });
    expect((await pageOf(store, { channel: 'x\0', policy: 'contact' })).items).toHaveLength(1);
    await reviews.close();
    await store.close();
  });

  it('releases what still waits when it is approved, and only then', async () => {
    const { store, reviews } = await opened();
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((t) => reviews.hold(item(t, { waitUntil: soon() }))));
    if (!a || !b || !c) throw new Error('held');
    const waits = [a.wait(), b.wait()] as const;
    const stop = new AbortController();
    const gone = c.wait(stop.signal);
    expect(await act(reviews, a.id, 'ann', 'approve')).toMatchObject({ state: 'approved', releases: true });
    expect(await act(reviews, b.id, 'ann', 'reject')).toMatchObject({ state: 'rejected', releases: false });
    expect(await Promise.all(waits)).toEqual(['approved', 'rejected']);
    for (const ticket of [a, b]) await ticket.released(); // what was rejected is not
    stop.abort();
    expect(await gone).toBe('expired');
    expect(await act(reviews, c.id, 'ann', 'approve')).toMatchObject({ state: 'approved', releases: false });
    const released = await Promise.all([a, b, c].map(async ({ id }) => (await itemOf(store, id))?.releasedAt !== null));
    expect(released).toEqual([true, false, false]);
    // What never waited is recorded.
    const late = await reviews.hold(item('d'));
    expect(await late.wait()).toBe('expired');
    await reviews.close();
    await store.close();
  });

  it('expires with its time, and gives an approval that came in the same moment to one side alone', async () => {
    let now = 1000;
    const { store, reviews } = await opened({ now: () => now });
    const first = await reviews.hold(item('a', { waitUntil: 2000 }));
    const waits = first.wait();
    now = 2000;
    expect(await waits).toBe('expired');
    for (let i = 0; i < 8; i++) {
      const stop = new AbortController();
      const ticket = await reviews.hold(item('race', { waitUntil: 9e12 }));
      const decided = ticket.wait(stop.signal);
      const [acted] = await Promise.all([
        act(reviews, ticket.id, 'ann', 'approve'),
        Promise.resolve().then(() => stop.abort()),
      ]);
      const decision = await decided;
      if (decision === 'approved') await ticket.released();
      expect(acted.state).toBe('approved');
      expect((await itemOf(store, ticket.id))?.releasedAt !== null).toBe(decision === 'approved');
    }
    await reviews.close();
    await store.close();
  });

  it('is waited for by nobody once its server ends, and nobody is told that it was released', async () => {
    const { store, reviews } = await opened();
    const before = await reviews.hold(item('a', { waitUntil: soon() }));
    const waits = before.wait();
    await reviews.close();
    const after = await reviews.hold(item('b', { waitUntil: soon() }));
    expect([await waits, await after.wait()]).toEqual(['expired', 'expired']);
    for (const { id } of [before, after])
      expect(await act(reviews, id, 'ann', 'approve')).toMatchObject({ state: 'approved', releases: false });
    await store.close();
  });

  it('hears what another server decided, and fails closed where the store is gone', async () => {
    const { store, reviews, where } = await opened();
    const other = await openStore(where);
    const elsewhere = new Reviews(other, { pollMs: 20 });
    const ticket = await reviews.hold(item('a', { waitUntil: soon() }));
    const waits = ticket.wait();
    await act(elsewhere, ticket.id, 'ben', 'approve');
    expect(await waits).toBe('approved');
    await elsewhere.close();
    await other.close();
    const faults: unknown[] = [];
    const doomed = new Reviews(store, { pollMs: 20, fault: (e) => faults.push(e) });
    const lost = await doomed.hold(item('b', { waitUntil: soon() }));
    const stop = new AbortController();
    const waiting = lost.wait(stop.signal);
    await store.close();
    stop.abort();
    expect(await waiting).toBe('expired');
    expect(faults.length).toBeGreaterThan(0);
    await expect(doomed.hold(item('c'))).rejects.toThrow();
  });

  it('wants two people where it is asked for, or where one hands on; one is enough to reject', async () => {
    const { store, reviews } = await opened({ twoPersons: true });
    const { id } = await reviews.hold(item('a', { waitUntil: soon() }));
    expect(await act(reviews, id, 'ann', 'approve')).toMatchObject({
      state: 'held',
      wantsSecond: true,
      releases: false,
    });
    await expect(act(reviews, id, 'ann', 'approve')).rejects.toMatchObject({ code: 'review_second' });
    expect(await act(reviews, id, 'ben', 'approve')).toMatchObject({ state: 'approved', wantsSecond: false });
    await expect(act(reviews, id, 'ben', 'reject')).rejects.toMatchObject({ code: 'review_decided' });
    const second = await reviews.hold(item('b'));
    await act(reviews, second.id, 'ann', 'approve');
    expect(await act(reviews, second.id, 'ben', 'reject')).toMatchObject({ state: 'rejected' });
    const alone = new Reviews(store, { pollMs: 20 });
    const third = await alone.hold(item('c'));
    expect(await act(alone, third.id, 'ann', 'escalate')).toMatchObject({ state: 'escalated' });
    await expect(act(alone, third.id, 'ben', 'escalate')).rejects.toMatchObject({ code: 'review_decided' });
    expect(await act(alone, third.id, 'ann', 'approve')).toMatchObject({ state: 'escalated', wantsSecond: true });
    // Two clicks at once are two people's, or one is refused.
    const both = await Promise.allSettled([
      act(alone, third.id, 'ann', 'approve'),
      act(alone, third.id, 'cy', 'approve'),
    ]);
    expect(both.map((r) => r.status)).toEqual(['rejected', 'fulfilled']);
    await reviews.close();
    await alone.close();
    await store.close();
  });

  it('who approved first and takes it back has not approved: another two must', async () => {
    const { store, reviews } = await opened({ twoPersons: true });
    const { id } = await reviews.hold(item('a'));
    expect(await act(reviews, id, 'ann', 'approve')).toMatchObject({ state: 'held', wantsSecond: true });
    await act(reviews, id, 'cat', 'relabel', 'block'); // somebody else's word takes nothing back
    expect(await itemOf(store, id)).toMatchObject({ firstBy: 'ann' });
    await act(reviews, id, 'ann', 'relabel', 'block');
    expect(await itemOf(store, id)).toMatchObject({ firstBy: null });
    expect(await act(reviews, id, 'ben', 'approve')).toMatchObject({ state: 'held', wantsSecond: true });
    expect(await act(reviews, id, 'cat', 'approve')).toMatchObject({ state: 'approved' });
    await reviews.close();
    await store.close();
  });

  it('relabels into golden rows, whatever the state, with the rule that is broken', async () => {
    const { store, reviews } = await opened();
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((t) => reviews.hold(item(t))));
    if (!a || !b || !c) throw new Error('held');
    await act(reviews, a.id, 'ann', 'relabel', 'allow');
    await act(reviews, b.id, 'ann', 'reject');
    await act(reviews, b.id, 'ann', 'relabel', 'block', 'C2');
    await act(reviews, c.id, 'ann', 'relabel', 'allow');
    await act(reviews, c.id, 'ann', 'relabel', 'block');
    await expect(act(reviews, a.id, 'ann', 'relabel')).rejects.toMatchObject({ code: 'review_label' });
    await expect(act(reviews, a.id, 'ann', 'relabel', 'block', 'C\n1')).rejects.toMatchObject({ code: 'review_note' });
    const rows = [];
    for await (const row of goldenRows(store, 'contact')) rows.push(row);
    const says = Object.fromEntries(rows.map((r) => [r.text, r.expect]));
    expect(says).toEqual({ a: null, b: 'C2', c: 'C1' });
    expect(rows.find((r) => r.text === 'a')).toEqual({
      ...{ id: a.id, policy: 'contact', channel: 'final', text: 'a', expect: null },
    });
    for await (const _ of goldenRows(store, 'other')) throw new Error('of another policy');
    await reviews.close();
    await store.close();
  });

  it('adds what was relabelled to a golden set, each row once, and leaves the rest of the file as it is', async () => {
    const { store, reviews, where } = await opened();
    const [a, b] = [await reviews.hold(item('a')), await reviews.hold(item('b \u2028 "q"'))];
    await act(reviews, a.id, 'ann', 'relabel', 'allow');
    const out = join(mkdtempSync(join(tmpdir(), 'temper-golden-')), 'golden.jsonl');
    const before = '{"id": "by-hand",  "policy": "contact", "channel": "final", "text": "x", "expect": null}';
    writeFileSync(out, `${before}\n`);
    expect(await exportGolden({ where, policy: 'contact', out, append: true })).toEqual({ added: 1, kept: 1 });
    await act(reviews, b.id, 'ann', 'relabel', 'block');
    expect(await exportGolden({ where, policy: 'contact', out, append: true })).toEqual({ added: 1, kept: 2 });
    const lines = readFileSync(out, 'utf8').trim().split('\n');
    expect(lines[0]).toBe(before);
    // They are rows that screening reads.
    const rows = lines.map((line, i) => parseRow(out, i + 1, line));
    expect(rows.map((r) => [r.id, r.expect])).toEqual([
      ['by-hand', { final: null }],
      [a.id, { final: null }],
      [b.id, { final: 'C1' }],
    ]);
    writeFileSync(out, 'not a row\n');
    await expect(exportGolden({ where, out, append: true })).rejects.toMatchObject({ code: 'row_json' });
    expect(readFileSync(out, 'utf8')).toBe('not a row\n');
    await reviews.close();
    await store.close();
  });

  it('puts every action in the log before it counts; what the log refuses does not happen', async () => {
    const records: Record<string, unknown>[] = [];
    let full = false;
    const { store, reviews } = await opened({ log: logOf(records, () => full) });
    const { id } = await reviews.hold(item('secret text', { receipt: 'v1' }));
    const acted = await reviews.act(id, { who: 'ann', action: 'escalate', note: 'secret note' });
    expect(acted.receipt).toBe('r1');
    await act(reviews, id, 'ann', 'relabel', 'block');
    full = true;
    await expect(act(reviews, id, 'ben', 'approve')).rejects.toThrow('the disk is full');
    expect(await itemOf(store, id)).toMatchObject({ state: 'escalated', firstBy: null });
    full = false;
    await act(reviews, id, 'ben', 'approve');
    await act(reviews, id, 'cy', 'approve');
    await expect(act(reviews, id, 'cy', 'approve')).rejects.toMatchObject({ code: 'review_decided' });
    expect(records.map((r) => [r.who, r.action, r.after])).toEqual([
      ['ann', 'escalate', 'escalated'],
      ['ann', 'relabel', 'escalated'],
      ['ben', 'approve', 'escalated'],
      ['cy', 'approve', 'approved'],
    ]);
    expect(records[0]).toMatchObject({
      item: id,
      policy: 'contact',
      channel: 'final',
      verdict: 'v1',
      content: 'of it',
    });
    expect(JSON.stringify(records)).not.toContain('secret');
    const whole = await itemOf(store, id);
    expect(whole?.actions.map((a) => a.receipt)).toEqual(['r1', 'r2', 'r3', 'r4']);
    expect(whole?.actions[0]?.note).toBe('secret note');
    await reviews.close();
    await store.close();
  });

  it('pages through 10,000 items in order, each once, while more come', async () => {
    const { store, reviews } = await opened();
    const seed = await reviews.hold(item('seed'));
    const [row] = await store.read((db) => db.selectFrom('reviews').selectAll().where('id', '=', seed.id).execute());
    if (!row) throw new Error('held');
    const n = 10_000;
    for (let at = 0; at < n; at += 200)
      await store.change((db) =>
        db
          .insertInto('reviews')
          .values(
            Array.from({ length: 200 }, (_, i) => ({
              ...row,
              id: `rev_${(at + i).toString(16).padStart(32, '0')}`,
              at: 1000 + Math.floor((at + i) / 7), // several in one moment
              policy: (at + i) % 2 ? 'contact' : 'other',
            })),
          )
          .execute(),
      );
    const all = async (options: PageOptions): Promise<readonly string[]> => {
      const seen: string[] = [];
      for (let after: string | undefined; ; ) {
        const page = await pageOf(store, { ...options, after });
        seen.push(...page.items.map((i) => i.id));
        if (page.next === null) return seen;
        after = page.next;
        if (seen.length === 400) await reviews.hold(item('later'));
      }
    };
    const seen = await all({});
    expect([seen.length, new Set(seen).size]).toEqual([n + 2, n + 2]);
    expect(seen.slice(0, n)).toEqual([...seen.slice(0, n)].sort());
    expect(await all({ policy: 'other' })).toHaveLength(n / 2);
    expect(await countsOf(store)).toMatchObject({ states: { held: n + 2 + 1 }, policies: ['contact', 'other'] });
    await expect(pageOf(store, { after: '1 or 1=1' })).rejects.toMatchObject({ code: 'review_page' });
    await reviews.close();
    await store.close();
  });

  it('tells whether reviewers agree with the judge, and with each other, over time', async () => {
    let now = 10 * 86_400_000;
    const { store, reviews } = await opened({ now: () => now });
    const held = async (outcome: 'allow' | 'block' | 'unjudged') =>
      (await reviews.hold(item('t', { verdicts: [{ ...item('').verdicts[1]!, outcome }] }))).id;
    await act(reviews, await held('block'), 'ann', 'reject');
    await act(reviews, await held('block'), 'ann', 'approve');
    await act(reviews, await held('unjudged'), 'ann', 'approve');
    now += 86_400_000;
    const relabelled = await held('block');
    await act(reviews, relabelled, 'ann', 'approve');
    await act(reviews, relabelled, 'ben', 'relabel', 'block');
    await act(reviews, await held('allow'), 'ben', 'approve');
    const a = await agreementOf(store, 0);
    expect(a.judge).toMatchObject({ agreed: 3, of: 4 });
    expect(a.days).toMatchObject([
      { day: 10, agreed: 1, of: 2 },
      { day: 11, agreed: 2, of: 2 },
    ]);
    expect(a.policies).toMatchObject([{ policy: 'contact', agreed: 3, of: 4 }]);
    expect(a.reviewers).toMatchObject([{ who: ['ann', 'ben'], agreed: 0, of: 1 }]);
    // His last word counts.
    await act(reviews, relabelled, 'ann', 'relabel', 'block');
    expect((await agreementOf(store, 0)).reviewers).toMatchObject([{ agreed: 1, of: 1 }]);
    expect((await agreementOf(store, now + 1)).judge).toEqual({ agreed: 0, of: 0, interval: null });
    await reviews.close();
    await store.close();
  });

  it('is bounded: items that wait, bytes of one, context, and how long texts are kept', async () => {
    let now = 0;
    const { store, reviews } = await opened({ most: 2, keepMs: 1000, now: () => now });
    const long = Array.from({ length: 400 }, (_, i) => ({ role: 'user', content: `${i} ${'x'.repeat(1000)}` }));
    const { id } = await reviews.hold(item('a', { context: long }));
    const whole = await itemOf(store, id);
    expect(whole).toMatchObject({ contextCut: true });
    expect(whole?.context.at(-1)).toEqual(long.at(-1));
    expect(JSON.stringify(whole?.context).length).toBeLessThan(300_000);
    await expect(reviews.hold(item('x'.repeat((4 << 20) + 1)))).rejects.toMatchObject({ code: 'review_item' });
    const kept = await reviews.hold(item('b'));
    await expect(reviews.hold(item('c'))).rejects.toMatchObject({ code: 'review_full' });
    await act(reviews, id, 'ann', 'reject');
    await act(reviews, kept.id, 'ann', 'relabel', 'allow');
    await act(reviews, kept.id, 'ann', 'approve');
    now = 4 * 3600 * 1000;
    await reviews.hold(item('d'));
    expect(await itemOf(store, id)).toMatchObject({ content: '', context: [], rationale: '', state: 'rejected' });
    expect(await itemOf(store, kept.id)).toMatchObject({ content: 'b' });
    await expect(act(reviews, id, 'ann', 'relabel', 'allow')).rejects.toMatchObject({ code: 'review_label' });
    await reviews.close();
    await store.close();
  });
});

describe('a share', () => {
  it('has the interval of Wilson', () => {
    expect(share(0, 0).interval).toBeNull();
    const [low, high] = share(8, 10).interval ?? [0, 0];
    // Computed by hand: p = 0.8, n = 10, z = 1.96.
    expect([low.toFixed(3), high.toFixed(3)]).toEqual(['0.490', '0.943']);
    expect(share(10, 10).interval?.[1]).toBe(1);
  });
});
