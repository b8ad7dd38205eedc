// The review console: who gets in, what other sites cannot do, and what it does in headless Chromium, where there is
// one.
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { openLog } from '../../src/compose/verdict-log.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createScreen, type Screen } from '../../src/safeguard/screen.js';
import { Attempts } from '../../src/serve/review/attempts.js';
import { type OpenReview, openReview } from '../../src/serve/review/open.js';
import { itemOf, pageOf } from '../../src/store/review-pages.js';
import type { HeldItem, ReviewLog } from '../../src/store/review-types.js';
import { showRecords } from '../../src/verdict-log/show.js';
import { verifyLog } from '../../src/verdict-log/verify.js';
import { WITHOUT_SQLITE } from '../store/places.js';
import { CHROMIUM } from '../watch/browser.js';
import { SAYS, type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

const ANN = 'ann-has-this-key-1';
const BEN = 'ben-has-this-key-1';
const entries = [
  { name: 'ann', key: ANN },
  { name: 'ben', key: BEN },
];
const item = (content: string, more: Partial<HeldItem> = {}): HeldItem => ({
  request: 'resp_1',
  owner: 'app',
  model: 'm',
  channel: 'final',
  content,
  context: [{ role: 'user', content: 'Who lives there?' }],
  verdicts: [
    {
      policy: 'contact',
      digest: 'c'.repeat(64),
      outcome: 'block',
      rule: 'C1',
      cause: null,
      rationale: 'It names one.',
    },
  ],
  judge: 'j',
  ...more,
});

interface Console {
  readonly app: ScriptedApp['app'];
  readonly review: OpenReview;
  readonly notes: string[];
  readonly logged: Record<string, unknown>[];
  readonly faults: unknown[];
  /** From now on. */
  setKeys(keys: typeof entries | null): void;
  /** The log refuses. */
  full: boolean;
}
async function consoleOf(twoPersons = false, waitMs = 0, log?: ReviewLog): Promise<Console> {
  let keys: typeof entries | null = entries;
  const made = { full: false, notes: [] as string[], logged: [] as Record<string, unknown>[], faults: [] as unknown[] };
  const review = await openReview({
    where: join(mkdtempSync(join(tmpdir(), 'temper-review-')), 'store.db'),
    ...{ twoPersons, waitMs, tls: false },
    keys: () => keys,
    readBody: async (c) => (await c.req.json()) as unknown,
    log: log ?? {
      async append(record) {
        if (made.full) throw new Error('the disk is full');
        made.logged.push({ ...record });
        return { receipt: `r${made.logged.length}` };
      },
    },
    note: (line) => made.notes.push(line),
    fault: (e) => made.faults.push(e),
  });
  const { app } = scriptedApp(scriptedEngine(() => []).engine, {
    review: review.console,
    hosts: new Set(['127.0.0.1']),
    keys: { find: () => null },
  });
  const setKeys = (next: typeof entries | null): void => {
    keys = next;
  };
  return Object.assign(made, { app, review, setKeys });
}
const HOST = { host: '127.0.0.1', 'content-type': 'application/json' };
const OWN = { ...HOST, origin: 'http://127.0.0.1' };
const send = async (
  { app }: Console,
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: unknown,
): Promise<Response> =>
  app.request(`/review${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
/** Signed in. */
async function signIn(c: Console, key = ANN): Promise<{ cookie: string; 'x-csrf-token': string }> {
  const response = await send(c, 'POST', '/session', OWN, { key });
  expect(response.status).toBe(200);
  const cookie = response.headers.get('set-cookie')?.split(';')[0] ?? '';
  return { cookie, 'x-csrf-token': ((await response.json()) as { csrf: string }).csrf };
}

describe.skipIf(WITHOUT_SQLITE !== null)(`doors${WITHOUT_SQLITE ? `: ${WITHOUT_SQLITE}` : ''}`, () => {
  it('shows a page that holds nothing and can reach, run or be shown nowhere else; nothing without keys', async () => {
    const c = await consoleOf();
    const page = await send(c, 'GET', '', HOST);
    expect(page.status).toBe(200);
    expect(page.headers.get('set-cookie')).toBeNull();
    for (const part of ["default-src 'none'", "frame-ancestors 'none'", "trusted-types 'none'", "form-action 'none'"])
      expect(page.headers.get('content-security-policy')).toContain(part);
    for (const name of ['app.js', 'list.js', 'item.js', 'api.js', 'agreement.js', 'dom.js', 'style.css', 'icon.svg']) {
      const file = await send(c, 'GET', `/${name}`, HOST);
      expect(file.status).toBe(200);
      expect(await file.text()).not.toMatch(/innerHTML|insertAdjacent|document\.write|Storage\b|document\.cookie/);
    }
    expect((await send(c, 'GET', '', { host: 'rebound.example' })).status).toBe(421);
    for (const path of ['/session', '/items', '/counts', '/agreement', '/golden.jsonl', '/items/rev_1'])
      expect((await send(c, 'GET', path, HOST)).status).toBe(401);
    expect((await send(c, 'GET', '/../package.json', HOST)).status).toBe(401);
    c.setKeys(null);
    for (const path of ['', '/app.js', '/session']) expect((await send(c, 'GET', path, HOST)).status).toBe(401);
    await c.review.close();
  });

  it('signs in by a reviewer’s key into a cookie that no script and no other site has, and out again', async () => {
    const c = await consoleOf();
    const wrong = await send(c, 'POST', '/session', OWN, { key: 'not-anybodys-key-1' });
    expect([wrong.status, wrong.headers.get('set-cookie')]).toEqual([401, null]);
    const right = await send(c, 'POST', '/session', OWN, { key: ANN });
    const cookie = right.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/^temper-review=[\w-]{43}; Path=\/review; Max-Age=43200; HttpOnly; SameSite=Strict$/);
    expect(JSON.stringify(await right.json())).not.toContain(cookie.slice(14, 57));
    const secure = await send(c, 'POST', '/session', { ...OWN, origin: 'https://127.0.0.1' }, { key: ANN });
    expect(secure.headers.get('set-cookie')).toMatch(/; Secure$/);
    const mine = await signIn(c);
    expect((await send(c, 'GET', '/session', { ...HOST, ...mine })).status).toBe(200);
    // Somebody put another cookie of the name beside it.
    expect((await send(c, 'GET', '/session', { ...HOST, cookie: `${mine.cookie}; temper-review=x` })).status).toBe(401);
    const out = await send(c, 'DELETE', '/session', { ...OWN, ...mine });
    expect(out.headers.get('set-cookie')).toContain('Max-Age=0');
    expect((await send(c, 'GET', '/session', { ...HOST, ...mine })).status).toBe(401);
    const other = await signIn(c);
    c.setKeys([{ name: 'ann', key: 'another-key-of-ann' }]);
    expect((await send(c, 'GET', '/session', { ...HOST, ...other })).status).toBe(401);
    expect(c.notes.join('\n')).not.toMatch(/has-this-key|anybodys-key/);
    await c.review.close();
  });

  it('does nothing for a page of another site, nor without the session’s token', async () => {
    const c = await consoleOf();
    const mine = await signIn(c);
    const { id } = await c.review.onHeld(item('text'));
    const act = (headers: Record<string, string>): Promise<Response> =>
      send(c, 'POST', `/items/${id}/approve`, headers, {});
    const { cookie } = mine;
    for (const [headers, code] of [
      [{ ...HOST, ...mine }, 'cross_site'],
      [{ ...HOST, ...mine, origin: 'http://evil.example' }, 'cross_site'],
      [{ ...HOST, ...mine, origin: 'null' }, 'cross_site'],
      [{ ...HOST, ...mine, origin: 'http://127.0.0.1:9999' }, 'cross_site'],
      [{ ...OWN, ...mine, 'sec-fetch-site': 'cross-site' }, 'cross_site'],
      [{ ...OWN, ...mine, 'sec-fetch-site': 'same-site' }, 'cross_site'],
      [{ ...OWN, ...mine, 'sec-fetch-site': 'none' }, 'cross_site'],
      [{ ...OWN, cookie }, 'bad_token'],
      [{ ...OWN, cookie, 'x-csrf-token': 'x'.repeat(43) }, 'bad_token'],
      [{ ...OWN, cookie, 'x-csrf-token': (await signIn(c, BEN))['x-csrf-token'] }, 'bad_token'],
      [{ ...OWN, 'x-csrf-token': mine['x-csrf-token'] }, 'signed_out'],
    ] as const) {
      const response = await act(headers as Record<string, string>);
      const { error } = (await response.json()) as { error: { code: string } };
      expect([response.status, error.code]).toEqual([code === 'signed_out' ? 401 : 403, code]);
    }
    // A proxy may give another host name: then the browser's word counts.
    const proxied = { ...OWN, ...mine, origin: 'https://review.example', 'sec-fetch-site': 'same-origin' };
    expect((await send(c, 'POST', `/items/${id}/relabel`, proxied, { label: 'allow' })).status).toBe(200);
    c.logged.splice(0);
    const read = await send(c, 'GET', `/items/${id}`, { ...HOST, ...mine, 'sec-fetch-site': 'cross-site' });
    expect(read.status).toBe(403);
    expect((await send(c, 'POST', '/session', { ...HOST, origin: 'http://evil.example' }, { key: ANN })).status).toBe(
      403,
    );
    expect(c.logged).toEqual([]);
    expect((await act({ ...OWN, ...mine })).status).toBe(200);
    await c.review.close();
  });

  it('lets nobody guess for long, and counts no sign-in that was right', async () => {
    const c = await consoleOf();
    for (let i = 0; i < 12; i++) await signIn(c);
    const statuses: number[] = [];
    for (let i = 0; i < 10; i++)
      statuses.push((await send(c, 'POST', '/session', OWN, { key: `guess-number-${i}-xx` })).status);
    expect(statuses.slice(0, 8)).toEqual(Array(8).fill(401));
    const late = await send(c, 'POST', '/session', OWN, { key: ANN });
    expect(late.status).toBe(429);
    expect(Number(late.headers.get('retry-after'))).toBeGreaterThan(0);
    let now = 0;
    const attempts = new Attempts(() => now);
    for (let i = 0; i < 8; i++) expect(attempts.take('a')).toBe(0);
    expect([attempts.take('a'), attempts.take('b')]).toEqual([10, 0]);
    now = 10_000;
    expect(attempts.take('a')).toBe(0);
    // Many addresses together are bounded, too.
    let refused = 0;
    for (let i = 0; i < 300; i++) if (attempts.take(`c${i}`) > 0) refused++;
    expect(refused).toBeGreaterThan(150);
    await c.review.close();
  });

  it('does what the queue allows, says what it refuses, and changes nothing where log or store is gone', async () => {
    const c = await consoleOf(true, 60_000);
    const [ann, ben] = [await signIn(c), await signIn(c, BEN)];
    const ticket = await c.review.onHeld(item('x'));
    const decided = ticket.wait();
    const act = async (who: Record<string, string>, action: string, body: object = {}): Promise<[number, unknown]> => {
      const response = await send(c, 'POST', `/items/${ticket.id}/${action}`, { ...OWN, ...who }, body);
      return [response.status, await response.json()];
    };
    expect(await act(ann, 'approve')).toMatchObject([200, { state: 'held', wantsSecond: true, receipt: 'r1' }]);
    expect(await act(ann, 'approve')).toMatchObject([400, { error: { code: 'review_second' } }]);
    expect((await act(ann, 'relabel', { label: 'maybe' }))[0]).toBe(400);
    expect((await act(ann, 'destroy'))[0]).toBe(404);
    expect((await act(ann, 'approve', { who: 'ben' }))[0]).toBe(400);
    c.full = true;
    expect((await act(ben, 'approve'))[0]).toBe(503);
    c.full = false;
    expect(await act(ben, 'approve', { note: 'seen' })).toMatchObject([200, { state: 'approved', releases: true }]);
    expect(await decided).toBe('approved');
    expect((await send(c, 'POST', '/items/rev_none/approve', { ...OWN, ...ben }, {})).status).toBe(404);
    expect((await act(ben, 'relabel', { label: 'block', rule: 'C2' }))[0]).toBe(200);
    const golden = await send(c, 'GET', '/golden.jsonl?policy=contact', { ...HOST, ...ben });
    expect(golden.headers.get('content-disposition')).toContain('attachment');
    expect(JSON.parse(await golden.text())).toMatchObject({ policy: 'contact', text: 'x', expect: 'C2' });
    expect(c.logged.map((r) => [r.who, r.action])).toEqual([
      ['ann', 'approve'],
      ['ben', 'approve'],
      ['ben', 'relabel'],
    ]);
    for (const bad of ['?queue=all', '?limit=0', '?limit=9999', '?after=x', '?none=1'])
      expect((await send(c, 'GET', `/items${bad}`, { ...HOST, ...ann })).status).toBe(400);
    await c.review.close();
    expect((await send(c, 'GET', '/items', { ...HOST, ...ann })).status).toBeGreaterThanOrEqual(500);
  });
});

describe.skipIf(WITHOUT_SQLITE !== null)('a request that is held', () => {
  const ruled = (onBlock: 'review' | 'refuse'): Screen =>
    createScreen({
      policies: [{ name: 'no-four', text: 'P1: no four', rules: ['P1'], digest: 'x', onBlock }],
      judge: {
        name: 'j',
        digest: 'j',
        judge: async ({ content, nonce }) => ({
          text: renderVerdict({ rule: content.includes('Four') ? 'P1' : null, nonce }),
          finish: 'stop',
        }),
      },
    });
  const ask = { model: 'm', messages: [{ role: 'user', content: 'How many?' }] };
  const answerOf = (json: Record<string, unknown>): string => JSON.stringify(json.choices);
  it('goes on when people approve it while it waits, and not when they reject, or nobody decides', async () => {
    for (const [action, waitMs] of [
      ['approve', 60_000],
      ['reject', 60_000],
      ['approve', 0],
    ] as const) {
      const c = await consoleOf(false, waitMs);
      const { json } = scriptedApp(scriptedEngine(() => tokensOf(SAYS)).engine, {
        screen: ruled('review'),
        holding: { onHeld: c.review.onHeld },
      });
      const answer = json('/v1/chat/completions', ask);
      const { store } = c.review.reviews;
      await expect.poll(async () => (await pageOf(store, {})).items.length, { timeout: 20_000 }).toBe(1);
      const [held] = (await pageOf(store, {})).items;
      const whole = await itemOf(store, held?.id ?? '');
      expect(whole).toMatchObject({
        channel: 'final',
        content: 'Four, then.',
        policy: 'no-four',
        rule: 'P1',
        owner: null,
      });
      expect(whole?.context.at(-1)).toMatchObject({ role: 'user', content: 'How many?' });
      if (waitMs === 0) expect(answerOf(await answer)).not.toContain('Four');
      await c.review.reviews.act(held?.id ?? '', { who: 'ann', action });
      const isReleased = action === 'approve' && waitMs > 0;
      if (isReleased) expect(answerOf(await answer)).toContain('Four, then.');
      else expect(answerOf(await answer)).not.toContain('Four');
      expect((await itemOf(store, held?.id ?? ''))?.releasedAt !== null).toBe(isReleased);
      await c.review.close();
    }
  });
  it('of two channels one that is approved is not released where the other is rejected', async () => {
    const c = await consoleOf(false, 60_000);
    const thought = tokensOf(SAYS.replace('It asks for 4.', 'Four, I think.'));
    const { json } = scriptedApp(scriptedEngine(() => thought).engine, {
      screen: ruled('review'),
      holding: { onHeld: c.review.onHeld },
    });
    const answer = json('/v1/chat/completions', ask);
    const { store } = c.review.reviews;
    await expect.poll(async () => (await pageOf(store, {})).items.length, { timeout: 20_000 }).toBe(2);
    const { items } = await pageOf(store, {});
    for (const { id, channel } of items)
      await c.review.reviews.act(id, { who: 'ann', action: channel === 'final' ? 'approve' : 'reject' });
    expect(answerOf(await answer)).not.toContain('Four');
    for (const { id } of items) expect(await itemOf(store, id)).toMatchObject({ releasedAt: null });
    await c.review.close();
  });
  it('is refused, not held, where its policy does not ask for people, and where the store is gone', async () => {
    const c = await consoleOf(false, 60_000);
    const app = (onBlock: 'review' | 'refuse'): ScriptedApp =>
      scriptedApp(scriptedEngine(() => tokensOf(SAYS)).engine, {
        screen: ruled(onBlock),
        holding: { onHeld: c.review.onHeld },
      });
    expect(answerOf(await app('refuse').json('/v1/chat/completions', ask))).not.toContain('Four');
    expect((await pageOf(c.review.reviews.store, {})).items).toEqual([]);
    await c.review.close();
    const failed = await app('review').post('/v1/chat/completions', ask);
    expect(failed.status).toBeGreaterThanOrEqual(500);
    expect(await failed.text()).not.toContain('Four');
  });
});

describe.skipIf(WITHOUT_SQLITE !== null)('the verdict log', () => {
  it('has every action with who did it, in order, and no word of what was held', async () => {
    const dir = join(mkdtempSync(join(tmpdir(), 'temper-review-')), 'log');
    const log = await openLog({ log: dir }, 'serve');
    if (!log) throw new Error('opened');
    const c = await consoleOf(true, 0, log.reviews);
    const [ann, ben] = [await signIn(c), await signIn(c, BEN)];
    const text = 'a text that nobody is to see';
    const { id } = await c.review.onHeld(item(text, { channel: 'to=functions.secret', receipt: 'v-1' }));
    const receipts: unknown[] = [];
    for (const [who, action, body] of [
      [ann, 'escalate', { note: 'a private note' }],
      [ann, 'approve', {}],
      [ben, 'approve', {}],
      [ben, 'relabel', { label: 'block', rule: 'C2' }],
    ] as const) {
      const response = await send(c, 'POST', `/items/${id}/${action}`, { ...OWN, ...who }, body);
      receipts.push(((await response.json()) as { receipt: string }).receipt);
    }
    await c.review.close();
    await log.close();
    expect(verifyLog({ dir, closed: true })).toMatchObject({ ok: true, faults: [] });
    const shown = showRecords({ dir, last: 100, kind: 'review' });
    expect(shown.map(({ record }) => [record.who, record.action, record.after, record.rule])).toEqual([
      ['ann', 'escalate', 'escalated', null],
      ['ann', 'approve', 'escalated', null],
      ['ben', 'approve', 'approved', null],
      ['ben', 'relabel', 'approved', 'C2'],
    ]);
    expect(shown.map((s) => s.receipt)).toEqual(receipts);
    expect(shown[0]?.record).toMatchObject({ item: id, verdict: 'v-1', channel: 'other', policy: 'contact' });
    const bytes = readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((f) => f.isFile())
      .map((f) => readFileSync(join(f.parentPath, f.name), 'utf8'))
      .join('');
    for (const word of [text, 'private note', 'functions.secret', sha256(text), sha256('a private note')])
      expect(bytes).not.toContain(word);
  });
});

const folders = (process.env.PATH ?? '').split(':');
const program = folders.map((folder) => join(folder, CHROMIUM ?? '-')).find(existsSync) ?? null;
const why =
  program === null
    ? ': skipped, chromium is not here (Debian: apt-get install chromium)'
    : WITHOUT_SQLITE
      ? `: ${WITHOUT_SQLITE}`
      : '';
const HOSTILE = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>\u202eback`;

describe.skipIf(program === null || WITHOUT_SQLITE !== null)(`in a browser${why}`, () => {
  let browser: Browser;
  let c: Console;
  let url = '';
  let server: ReturnType<typeof createAdaptorServer>;
  const complaints: string[] = [];
  const elsewhere: string[] = [];
  beforeAll(async () => {
    c = await consoleOf();
    server = createAdaptorServer({ fetch: c.app.fetch });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/review`;
    browser = await chromium.launch({ executablePath: program as string, args: ['--no-sandbox'] });
  });
  afterAll(async () => {
    await browser?.close();
    server?.close();
    await c?.review.close();
  });
  async function visit(key = ANN, context?: BrowserContext): Promise<Page> {
    const page = await (context ?? (await browser.newContext({ viewport: { width: 1200, height: 800 } }))).newPage();
    page.setDefaultTimeout(20_000);
    page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(m.text()));
    page.on('pageerror', (e) => complaints.push(String(e)));
    page.on('request', (r) => !r.url().startsWith(new URL(url).origin) && elsewhere.push(r.url()));
    await page.goto(url);
    await page.getByLabel('Key', { exact: true }).fill(key);
    await page.keyboard.press('Enter');
    await page.locator('#who', { hasText: key === ANN ? 'ann' : 'ben' }).waitFor();
    complaints.splice(0); // the browser says that the first question got a 401
    return page;
  }
  const rows = (page: Page) => page.locator('.row');
  const veil = (page: Page): Promise<unknown> =>
    page.evaluate('[document.getElementById("veil").inert, document.getElementById("veil").ariaHidden]');
  const blur = (page: Page): Promise<unknown> =>
    page.evaluate('getComputedStyle(document.querySelector(".content")).filter');
  const heard = (page: Page, text: string): Promise<void> => page.locator('#heard', { hasText: text }).waitFor();

  it('shows a line of each, its text behind a veil, and takes every action by the keyboard', async () => {
    const first = await c.review.onHeld(item('The text that was held.', { channel: 'analysis' }));
    const second = await c.review.onHeld(item(HOSTILE, { waitUntil: Date.now() + 600_000 }));
    await c.review.onHeld(item('the third'));
    const page = await visit();
    await page.locator('#item h2', { hasText: 'breaks C1' }).waitFor();
    expect(await rows(page).count()).toBe(3);
    expect(await page.locator('#rows').textContent()).not.toContain('The text that was held');
    const content = page.locator('.content');
    expect(await veil(page)).toEqual([true, 'true']);
    expect(await blur(page)).toContain('blur');
    await page.keyboard.press('a');
    await heard(page, 'Show the text first');
    // Nobody labels what nobody has read.
    await page.keyboard.press('l');
    expect(await page.locator('dialog[open]').count()).toBe(0);
    expect(await page.getByRole('button', { name: 'Relabel' }).isDisabled()).toBe(true);
    await page.keyboard.press('Space');
    expect(await blur(page)).toBe('none');
    expect(await content.textContent()).toBe('The text that was held.');
    await page.keyboard.press('n');
    await page.keyboard.type('all fine');
    await page.keyboard.press('Escape');
    await page.keyboard.press('a');
    await heard(page, 'approved');
    await page.locator('#item h2', { hasText: 'final' }).waitFor();
    expect(await rows(page).count()).toBe(2);
    // The next one is veiled again; what it says is text.
    expect(await veil(page)).toEqual([true, 'true']);
    const decided = second.wait();
    await page.keyboard.press('Space');
    expect(await content.textContent()).toBe(HOSTILE);
    expect([await page.locator('#item img, #item script').count(), await page.title()]).toEqual([0, 'Temper review']);
    await page.keyboard.press('a');
    await heard(page, 'approved, and released');
    expect(await decided).toBe('approved');
    await page.keyboard.press('Space');
    await page.keyboard.press('l');
    await page.locator('#rule').fill('C9');
    await page.keyboard.press('Enter');
    await heard(page, 'relabelled');
    await page.keyboard.press('e');
    await heard(page, 'escalated');
    expect(await page.locator('#item .standing').textContent()).toContain('escalated');
    await page.keyboard.press('r');
    await page.getByText('Nothing waits for review.').waitFor();
    expect(c.logged.map((r) => r.action)).toEqual(['approve', 'approve', 'relabel', 'escalate', 'reject']);
    expect(c.logged.every((r) => r.who === 'ann')).toBe(true);
    await page.locator('#which').selectOption('decided');
    await page.locator(`#row-${first.id}`).click();
    await page.locator('.history', { hasText: 'all fine' }).waitFor();
    await page.context().close();
  });

  it('a key that is held down decides one item, and none of those after it', async () => {
    for (const text of ['one', 'two', 'three']) await c.review.onHeld(item(text));
    const page = await visit();
    await page.locator('#item h2').waitFor();
    const shown = (): Promise<string | null> => page.locator('#item').getAttribute('data-id');
    const [first, decided] = [await shown(), c.logged.length];
    await page.keyboard.down('r');
    await heard(page, 'rejected');
    await expect.poll(shown).not.toBe(first);
    for (let i = 0; i < 5; i++) await page.keyboard.down('r');
    await page.keyboard.up('r');
    // By another key all that was asked for before is done.
    await page.keyboard.press('e');
    await heard(page, 'escalated');
    expect(c.logged.slice(decided).map((r) => r.action)).toEqual(['reject', 'escalate']);
    for (const { id } of (await pageOf(c.review.reviews.store, {})).items)
      await c.review.reviews.act(id, { who: 'ann', action: 'reject' });
    await page.context().close();
  });

  it('lets two people agree, shows how reviewers and judge do, and gives golden rows', async () => {
    const ticket = await c.review.onHeld(item('needs two', { twoPersons: true }));
    const ann = await visit();
    await ann.locator(`#row-${ticket.id}`).click();
    await ann.locator('#item .standing', { hasText: 'two must approve' }).waitFor();
    await ann.keyboard.press('Space');
    await ann.keyboard.press('a');
    await heard(ann, 'somebody else must, too');
    expect(await ann.getByRole('button', { name: 'Approve' }).isDisabled()).toBe(true);
    const ben = await visit(BEN);
    await ben.locator(`#row-${ticket.id}`).click();
    await ben.locator('#item .standing', { hasText: 'approved by ann; wants a second' }).waitFor();
    await ben.keyboard.press('Space');
    await ben.keyboard.press('a');
    await heard(ben, 'approved');
    await ben.keyboard.press('g');
    await ben.getByText('reviewers agreed with the judge in').waitFor();
    expect(await ben.locator('.shares').count()).toBe(3);
    const download = ben.waitForEvent('download');
    await ben.getByRole('link', { name: 'contact' }).click();
    expect((await download).suggestedFilename()).toBe('contact.golden.jsonl');
    await ben.getByRole('button', { name: 'Sign out' }).click();
    await ben.getByText('Sign in to review').waitFor();
    expect(await ben.locator('body').textContent()).not.toContain('needs two');
    // Somebody else's page in the same browser is signed out, too, at its next question.
    await ann.context().close();
    await ben.context().close();
  });

  it('goes through 10,000 by pages, fits a small screen, and keeps nothing in the browser', async () => {
    const { reviews } = c.review;
    const seed = await c.review.onHeld(item('one of many'));
    const [row] = await reviews.store.read((db) =>
      db.selectFrom('reviews').selectAll().where('id', '=', seed.id).execute(),
    );
    for (let at = 0; at < 9999; at += 303)
      await reviews.store.change((db) =>
        db
          .insertInto('reviews')
          .values(
            Array.from({ length: 303 }, (_, i) => ({
              ...(row as NonNullable<typeof row>),
              id: `rev_${(at + i).toString(16).padStart(32, '0')}`,
              content: `text ${at + i}`,
            })),
          )
          .execute(),
      );
    const page = await visit();
    await page.getByText('1 to 100 of 10,000').waitFor();
    expect(await rows(page).count()).toBe(100);
    await rows(page).last().click();
    await page.keyboard.press('j');
    await page.getByText('101 to 200 of 10,000').waitFor();
    expect(await rows(page).count()).toBe(100);
    expect(await page.locator('[aria-selected=true]').getAttribute('id')).toBe(
      `row-rev_${(100).toString(16).padStart(32, '0')}`,
    );
    await page.keyboard.press('k');
    await page.getByText('1 to 100 of 10,000').waitFor();
    await page.setViewportSize({ width: 390, height: 800 });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
    const kept = await page.evaluate('[sessionStorage.length, localStorage.length, document.cookie]');
    expect(kept).toEqual([0, 0, '']);
    await page.context().close();
  });

  it('asked for nothing but the server, and complained of nothing', () => {
    expect(elsewhere).toEqual([]);
    expect(complaints).toEqual([]);
    expect(c.faults).toEqual([]);
  });
});
