// Judged pairs that differ before people: put into the store, decided over the console's own HTTP API by signed-in
// reviewers, and counted by the gate, for the outcomes that they are about and for no others.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { decideAgain } from '../../src/compose/gate-decide.js';
import { askPeople } from '../../src/compose/gate-review.js';
import { redecide } from '../../src/compose/gate-tools.js';
import { readDecision } from '../../src/gate/decision.js';
import { type OpenReview, openReview } from '../../src/serve/review/open.js';
import { goldenRows } from '../../src/store/review-pages.js';
import { wordsOn } from '../../src/store/review-words.js';
import { makeEvidence } from '../gate/evidence.js';
import { scriptedApp, scriptedEngine } from '../serve/scripted.js';
import { onEachStore } from '../store/places.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-review-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const hex = `sha256:${'1'.repeat(64)}`;
const subject = { adapter: hex, base: hex, tokenizer: hex, chatFormat: hex, mergeRecipe: null };
let made = 0;
const fresh = (): string => join(root, String(made++));

type Item = Readonly<Record<string, unknown>> & { readonly id: string };
interface Desk {
  readonly review: OpenReview;
  items(queue?: string): Promise<readonly Item[]>;
  whole(id: string): Promise<Item & { readonly content: string; readonly context: readonly { role: string }[] }>;
  act(who: 'ann' | 'ben', id: string, action: string, body?: object): Promise<number>;
}
/** The console over a store, with two reviewers signed in. */
async function deskOf(where: string): Promise<Desk> {
  const keys = ['ann', 'ben'].map((name) => ({ name, key: `${name}-has-this-key-1` }));
  const review = await openReview({
    ...{ where, twoPersons: false, waitMs: 0, tls: false, log: null },
    keys: () => keys,
    readBody: async (c) => (await c.req.json()) as unknown,
    note: () => {},
    fault: () => {},
  });
  const { app } = scriptedApp(scriptedEngine(() => []).engine, {
    review: review.console,
    hosts: new Set(['127.0.0.1']),
    keys: { find: () => null },
  });
  const own = { host: '127.0.0.1', 'content-type': 'application/json', origin: 'http://127.0.0.1' };
  const send = async (method: string, path: string, headers: object, body?: object): Promise<Response> =>
    app.request(`/review${path}`, {
      method,
      headers: { ...own, ...headers },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
  const signedIn = new Map<string, Record<string, string>>();
  for (const { name, key } of keys) {
    const response = await send('POST', '/session', {}, { key });
    const { csrf } = (await response.json()) as { csrf: string };
    const cookie = response.headers.get('set-cookie')?.split(';')[0] ?? '';
    signedIn.set(name, { cookie, 'x-csrf-token': csrf });
  }
  const get = async <T>(path: string): Promise<T> =>
    (await (await send('GET', path, signedIn.get('ann') ?? {})).json()) as T;
  return {
    review,
    items: async (queue = 'open') => (await get<{ items: Item[] }>(`/items?queue=${queue}`)).items,
    whole: (id) => get(`/items/${id}`),
    act: async (who, id, action, body = {}) =>
      (await send('POST', `/items/${id}/${action}`, signedIn.get(who) ?? {}, body)).status,
  };
}
const HARM = 20;

onEachStore((place) => {
  it('people at the gate see pairs that differ; what they say of both arms counts, is named and is told', async () => {
    const [folder, store] = [fresh(), await place.fresh()];
    expect(makeEvidence(folder, { subject, judged: true, harm: HARM }).decision).toBe('FAIL');
    const desk = await deskOf(store);
    const request = { outcomes: join(folder, 'outcomes.jsonl'), suite: join(folder, 'suite', 'suite.yaml'), store };
    expect(await askPeople(request)).toEqual({ pairs: HARM, asked: 2 * HARM, there: 0, mute: 0 });
    expect(await askPeople(request)).toEqual({ pairs: HARM, asked: 0, there: 2 * HARM, mute: 0 });
    const items = await desk.items();
    expect(items).toHaveLength(2 * HARM);
    const shown = await desk.whole(items[0]?.id ?? '');
    // Both answers with their traces, and what was asked; not which arm it is.
    expect(shown.content).toMatch(/^\[analysis\]\nhm\n\n\[final\]\ntold [01]$/u);
    expect(shown.context.map((m) => m.role)).toEqual(['asked', 'another answer', 'another answer']);
    expect(shown).toMatchObject({ policy: 'gate:harm.final', model: 'release gate' });
    expect(shown.rationale).toMatch(
      /^Release gate, metric harm.final, slice \w+, prompt p\d+, sample 0; outcome sha256:/u,
    );
    expect(JSON.stringify(shown)).not.toContain('adapter');

    // Nobody has said anything yet: the judge's word stands.
    const before = await decideAgain({ outcomes: folder, store });
    expect([before.decision.decision, before.waiting, before.decision.labelled]).toEqual(['FAIL', HARM, undefined]);
    const [first, ...rest] = items;
    for (const { id } of rest) expect(await desk.act('ann', id, 'approve')).toBe(200);
    // One answer is said to be as bad as the judge says, and one is said twice: the last word counts.
    const told = (await desk.whole(first?.id ?? '')).content.endsWith('1') ? 'relabel' : 'approve';
    expect(await desk.act('ben', first?.id ?? '', told, told === 'relabel' ? { label: 'block', rule: 'C1' } : {})).toBe(
      200,
    );
    const { decision, waiting } = await decideAgain({ outcomes: folder, store });
    expect([decision.decision, waiting]).toEqual(['PASS', 0]);
    expect(decision.labelled).toMatchObject({ pairs: HARM, unbound: 0, without: 'FAIL' });
    expect(decision.labelled?.by.join()).toMatch(/ann/u);
    const changed = decision.labelled?.changed ?? [];
    expect(changed).toHaveLength(told === 'relabel' ? HARM - 1 : HARM);
    expect(changed[0]).toMatchObject({ metric: 'harm.final', arm: 'adapter', from: 1, to: 0 });
    // The folder stands with them, for everybody who decides again.
    expect(readDecision(join(folder, 'decision.json'))).toEqual(decision);
    expect(decision).toMatchObject(await redecide(folder));
    expect(decision.subject).toEqual(subject);
    for (const form of ['md', 'html', 'json'])
      expect(readFileSync(join(folder, `report.${form}`), 'utf8')).toMatch(/without( them it is |": ")FAIL/u);
    for await (const row of goldenRows(desk.review.reviews.store)) expect(row, 'no row of a golden set').toBeNull();
    await desk.review.close();

    // Of another run with the same prompts and values: refused, and its folder is as it was.
    const other = fresh();
    makeEvidence(other, { subject, judged: true, harm: HARM, text: '' });
    const file = join(other, 'outcomes.jsonl');
    const decided = join(other, 'decision.json');
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll('told 1', 'told one'));
    // What was changed since is not decided on again.
    const labels = join(folder, 'labels.jsonl');
    await expect(decideAgain({ outcomes: other, labels })).rejects.toMatchObject({
      code: 'gate_damaged',
      message: expect.stringMatching(/outcomes\.jsonl: is not what decision\.json was decided on/),
    });
    const held = readFileSync(decided, 'utf8').replace(
      readDecision(decided).outcomes,
      `sha256:${sha256(readFileSync(file))}`,
    );
    writeFileSync(decided, held);
    const refused = await decideAgain({ outcomes: other, labels });
    expect([refused.decision.exit, refused.decision.reasons[0]]).toEqual([
      40,
      expect.stringContaining("a label of another run's outcome"),
    ]);
    expect(readFileSync(join(other, 'decision.json'), 'utf8')).toBe(held);
    const ofStore = await decideAgain({ outcomes: other, store });
    expect([ofStore.decision.decision, ofStore.waiting]).toEqual(['FAIL', HARM]);
  });

  it('people at the gate must be two who say the same where that is the rule, whatever they say', async () => {
    const [folder, store] = [fresh(), await place.fresh()];
    makeEvidence(folder, { subject, judged: true, harm: 1, prompts: 120 });
    const desk = await deskOf(store);
    const asking = { outcomes: join(folder, 'outcomes.jsonl'), suite: join(folder, 'suite', 'suite.yaml'), store };
    expect(await askPeople({ ...asking, twoPersons: true })).toMatchObject({ pairs: 1, asked: 2 });
    const [a, b] = (await desk.items()).map((i) => i.id) as [string, string];
    const names = await Promise.all([a, b].map(async (id) => String((await desk.whole(id)).request)));
    const said = async (): Promise<unknown[]> => {
      const words = await wordsOn(desk.review.reviews.store, names);
      return names.map((name) => words.get(name)?.label ?? null);
    };
    // One approves both: he is not enough, and is none the more by saying it again.
    for (const id of [a, b]) expect(await desk.act('ann', id, 'approve')).toBe(200);
    expect(await desk.act('ann', a, 'approve')).toBe(400);
    expect(await said()).toEqual([null, null]);
    expect(await desk.act('ben', a, 'approve')).toBe(200);
    // A rejection by one closes the item; its word counts when the other says so too.
    expect(await desk.act('ben', b, 'reject')).toBe(200);
    expect(await said()).toEqual(['allow', null]);
    expect(await desk.act('ann', b, 'relabel', { label: 'block', rule: 'C1' })).toBe(200);
    const { decision } = await decideAgain({ outcomes: folder, store });
    expect(decision.labelled).toMatchObject({ pairs: 1, by: ['ann and ben'] });
    await desk.review.close();
  });

  it('people cannot be asked about outcomes without texts, and are not believed without a store', async () => {
    const folder = fresh();
    makeEvidence(folder, { subject, judged: true, harm: 3, content: false });
    const asking = { outcomes: join(folder, 'outcomes.jsonl'), suite: join(folder, 'suite', 'suite.yaml') };
    const store = await place.fresh();
    await expect(askPeople({ ...asking, store })).rejects.toMatchObject({ code: 'gate_what' });
    const nowhere = place.kind === 'sqlite' ? join(root, 'nowhere.db') : `${store}`.replace(/t[0-9]+[?]/u, 'nowhere?');
    await expect(decideAgain({ outcomes: folder, store: nowhere })).rejects.toMatchObject({
      exitCode: expect.any(Number),
    });
    const copy = fresh();
    cpSync(folder, copy, { recursive: true });
    await expect(decideAgain({ outcomes: copy, suite: asking.suite })).rejects.toMatchObject({ code: 'bad_option' });
  });
});
