// The page at `/`: who gets it, and what it does in headless Chromium, where there is one.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../../src/infer/engine.js';
import type { GenerateRequest } from '../../src/infer/protocol.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { ServedModel } from '../../src/serve/served.js';
import { CHROMIUM } from '../watch/browser.js';
import { type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

const KEY = 'a-key-of-the-tests-1';
const keys = { find: (key: string) => (key === KEY ? { name: 'ann' } : null) };
const hosts = new Set(['127.0.0.1']);
const HOST = { host: '127.0.0.1' };
const silent = (options: Parameters<typeof scriptedApp>[1]): ScriptedApp =>
  scriptedApp(scriptedEngine(() => []).engine, options);

describe('who gets the page', () => {
  const get = async (app: ScriptedApp, path: string, headers: Record<string, string> = HOST): Promise<Response> =>
    app.app.request(path, { headers });

  it('whoever sits at the machine; with nothing in it that could run, reach or be shown elsewhere', async () => {
    const app = silent({ hosts });
    for (const [path, type] of [
      ['/', 'text/html'],
      ['/playground/style.css', 'text/css'],
      ['/playground/app.js', 'text/javascript'],
      ['/playground/icon.svg', 'image/svg+xml'],
    ] as const) {
      const response = await get(app, path);
      expect([response.status, response.headers.get('content-type')]).toEqual([200, expect.stringContaining(type)]);
      const policy = response.headers.get('content-security-policy') ?? '';
      for (const part of ["default-src 'none'", "frame-ancestors 'none'", "trusted-types 'none'", "form-action 'none'"])
        expect(policy).toContain(part);
      expect(policy).not.toMatch(/unsafe|https?:|\*|data:/);
      expect(response.headers.get('set-cookie')).toBeNull();
      expect(response.headers.get('access-control-allow-origin')).toBeNull();
      expect(response.headers.get('x-content-type-options')).toBe('nosniff');
      const text = await response.text();
      expect(text).not.toMatch(/\bon\w+="|style="|https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
      expect(text).not.toMatch(/innerHTML|insertAdjacent|document\.write|localStorage|cookie *=/);
    }
    expect((await get(app, '/', { host: 'rebound.example' })).status).toBe(421);
    for (const path of ['/playground/', '/playground/index.html', '/playground/../package.json', '/playground/types'])
      expect((await get(app, path)).status).toBe(404);
  });
  it('with keys: the page is open and tells nothing, what it asks for needs one', async () => {
    for (const app of [silent({ hosts, keys }), silent({ keys })]) {
      expect(await (await get(app, '/')).text()).toContain('name="temper-keys" content="yes"');
      expect((await get(app, '/v1/models')).status).toBe(401);
      expect((await get(app, '/playground/none.js')).status).toBe(401);
    }
  });
  it('nobody where others can reach it without a key, or where it is turned off', async () => {
    let shown = true;
    expect((await get(silent({}), '/')).status).toBe(404);
    const app = silent({ hosts, playground: () => shown });
    expect((await get(app, '/')).status).toBe(200);
    shown = false;
    for (const path of ['/', '/playground/app.js']) expect((await get(app, path)).status).toBe(404);
    expect((await get(silent({ keys, playground: () => false }), '/')).status).toBe(401);
  });
});

const folders = (process.env.PATH ?? '').split(':');
const program = folders.map((folder) => join(folder, CHROMIUM ?? '-')).find(existsSync) ?? null;
const why = program === null ? ': skipped, chromium is not here (Debian: apt-get install chromium)' : '';

/** What would run if any of it became markup. */
const HOSTILE = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script></div>\u202eback`;
const channels = (analysis: string, final: string): string =>
  `<|channel|>analysis<|message|>${analysis}<|end|><|start|>assistant<|channel|>final<|message|>${final}<|return|>`;
const call = (args: string): string =>
  '<|channel|>analysis<|message|>I look it up.<|end|>' +
  '<|start|>assistant to=functions.get_weather<|channel|>commentary ' +
  `<|constrain|>json<|message|>${args}<|call|>`;

/** What the last message asks for decides what is written. */
function writes({ messages, adapter }: GenerateRequest): string {
  const last = messages.at(-1);
  if (last?.role === 'tool') return channels('It was told.', `It says: ${last.content}`);
  const asked = last?.content ?? '';
  if (asked.includes('weather')) return call(`{"place": "${asked.includes('hostile') ? 'x<b>' : 'Rome'}"}`);
  if (asked.includes('hostile')) return channels(HOSTILE, HOSTILE);
  if (asked.includes('secret')) return channels('A plan.', 'Rome is the secret.');
  return channels('It asks for little.', `${adapter ?? 'The base'} answers ${messages.length} messages.`);
}
const scripted = scriptedEngine((request) => tokensOf(writes(request)));
/** So many streams of "both" have begun; none goes on before there are two. */
let begun = 0;
const engine: Engine = {
  ...scripted.engine,
  async *generate(request, signal) {
    const asked = request.messages.at(-1)?.content ?? '';
    let events = 0;
    for await (const event of scripted.engine.generate(request, signal)) {
      yield event;
      if (++events !== 3) continue;
      if (asked.includes('endless'))
        await new Promise((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason), { once: true }));
      if (asked.includes('both')) {
        begun++;
        await expect.poll(() => begun, { interval: 5, timeout: 20_000 }).toBe(2);
      }
    }
  },
};
const adapter = (id: string, status: ServedModel['status']): ServedModel => ({
  ...{ id, adapter: id, status, digest: 'ab'.repeat(32), pairs: 12, folder: '/a' },
});
const screen = createScreen({
  policies: [{ name: 'no-rome', text: 'P1: no Rome', rules: ['P1'], digest: 'x' }],
  judge: {
    name: 'j',
    digest: 'j',
    judge: async ({ content, nonce }) => ({
      text: renderVerdict({ rule: content.includes('Rome') ? 'P1' : null, nonce }),
      finish: 'stop',
    }),
  },
});

describe.skipIf(program === null)(`in a browser${why}`, () => {
  let browser: Browser;
  const open = scriptedApp(engine, { hosts, models: [adapter('tickets', 'approved'), adapter('bad', 'quarantined')] });
  const judged = scriptedApp(engine, { hosts, screen, keys });
  const servers = [open, judged].map(({ app }) => createAdaptorServer({ fetch: app.fetch }));
  const urls: string[] = [];
  const complaints: string[] = [];
  const elsewhere: string[] = [];
  let own = '';

  beforeAll(async () => {
    for (const server of servers) {
      await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
      urls.push(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    }
    browser = await chromium.launch({ executablePath: program as string, args: ['--no-sandbox'] });
    page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(m.text()));
    page.on('pageerror', (e) => complaints.push(String(e)));
    page.on('request', (r) => !r.url().startsWith(own) && elsewhere.push(r.url()));
  });
  afterAll(async () => {
    await browser?.close();
    for (const server of servers) server.close();
  });
  let page: Page;
  /** The page as on a first visit. */
  async function visit(url = urls[0] as string): Promise<void> {
    if (page.url() !== 'about:blank') await page.evaluate('sessionStorage.clear()');
    own = url;
    await page.setViewportSize({ width: 1100, height: 800 });
    await page.goto(url);
  }
  const ask = async (text: string): Promise<void> => {
    await page.getByLabel('Message').fill(text);
    await page.getByLabel('Message').press('Enter');
  };
  const answer = (of = 'm') => page.getByLabel(`Answer of ${of}`).last();
  /** It is announced when it is over. */
  const over = (says: string): Promise<void> => page.locator('#heard', { hasText: says }).waitFor();

  it('talks: thoughts folded, the answer, how fast; and the next question goes with what was said', async () => {
    await visit();
    await page.getByLabel('System prompt').fill('Be kind.');
    await page.getByRole('radio', { name: 'high' }).check();
    await page.getByLabel('Seed').fill('7');
    await page.getByLabel('Most tokens').fill('50');
    const message = page.getByLabel('Message');
    await message.fill('first');
    await message.press('Shift+Enter');
    await message.pressSequentially('line');
    await message.press('Enter');
    await over('m has answered');
    const said = answer();
    expect(await said.locator('.final .text').textContent()).toBe('The base answers 3 messages.');
    expect(await said.locator('details.analysis').getAttribute('open')).toBeNull();
    expect(await said.locator('.analysis .text').isVisible()).toBe(false);
    await said.getByText('analysis').click();
    expect(await said.locator('.analysis .text').isVisible()).toBe(true);
    expect(await said.locator('.analysis .text').textContent()).toBe('It asks for little.');
    expect(await said.locator('.facts').textContent()).toMatch(
      /^(first token|whole after) [\d.]+ m?s · [\d.]+ tokens\/s · \d+ tokens, \d+ of thought · prompt 7$/,
    );
    expect(scripted.requests.at(-1)).toMatchObject({ maxTokens: 50, sampling: { seed: 7, temperature: 1 } });
    expect(scripted.requests.at(-1)?.messages[0]?.content).toContain('Reasoning: high');
    expect(scripted.requests.at(-1)?.messages.at(-1)?.content).toBe('first\nline');
    await ask('second');
    await page.getByText('The base answers 5 messages.').waitFor();
    await page.reload();
    await page.getByText('3 models').waitFor();
    expect(await page.getByLabel('System prompt').inputValue()).toBe('Be kind.');
  });

  it('asks two side by side, and both stream at once', async () => {
    await visit();
    await page.getByText('3 models').waitFor();
    expect(await page.locator('#model option[value=bad]').isDisabled()).toBe(true);
    await page.getByLabel('Model').selectOption('tickets');
    expect(await page.locator('#model-note').textContent()).toBe('adapter, 24 tensors, approved · sha256 abababababab');
    await page.getByLabel('Beside it').selectOption('m');
    await ask('both');
    await page.getByText('tickets answers 2 messages.').waitFor();
    await page.getByText('The base answers 2 messages.').waitFor();
    expect(begun).toBe(2);
    const boxes = await Promise.all([answer('tickets').boundingBox(), answer().boundingBox()]);
    expect(boxes[0]?.y).toBe(boxes[1]?.y);
    await page.setViewportSize({ width: 390, height: 800 });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
  });

  it('shows a call, takes its result by hand, and goes on', async () => {
    await visit();
    await page.getByLabel('Tools').fill('{"name": 5}');
    await ask('weather');
    await page.getByText('Tools: has no name').waitFor();
    await page.getByRole('button', { name: 'Example' }).click();
    await page.getByLabel('Message').press('Enter');
    await over('m calls get_weather and waits');
    expect(await answer().locator('.call .text').textContent()).toBe('{"place": "Rome"}');
    await page.getByLabel('Result of get_weather').fill('rain');
    await page.getByLabel('Result of get_weather').press('Enter');
    await page.getByText('It says: rain').waitFor();
    const { messages } = scripted.requests.at(-1) as GenerateRequest;
    expect(messages.slice(-3)).toMatchObject([
      { channel: 'analysis', content: 'I look it up.' },
      { recipient: 'functions.get_weather', content: '{"place": "Rome"}' },
      { role: 'tool', content: 'rain' },
    ]);
  });

  it('stops at a key, frees the place, and goes on with what was there', async () => {
    await visit();
    await ask('endless');
    await expect.poll(() => open.admission.running).toBe(1);
    await page.getByRole('button', { name: 'Stop' }).waitFor();
    await page.keyboard.press('Escape');
    await over('m stopped');
    await expect.poll(() => open.admission.running).toBe(0);
    await ask('again');
    await over('m has answered');
  });

  it('wants a key, refuses a wrong one, keeps the right one in the tab, and tells what was withheld', async () => {
    await visit(urls[1]);
    await page.getByLabel('Key', { exact: true }).fill('not-the-right-one');
    await page.getByRole('button', { name: 'Use it' }).click();
    await page.getByText('does not know this key').waitFor();
    expect(complaints.splice(0)).toEqual([expect.stringContaining('401')]); // the browser's own words
    await page.getByLabel('Key', { exact: true }).fill(KEY);
    await page.keyboard.press('Enter');
    await page.getByText('1 model', { exact: true }).waitFor();
    await ask('the secret');
    await over('m withheld');
    const said = answer();
    expect(await said.locator('.verdicts summary').textContent()).toBe('Withheld');
    const cells = await said.locator('tbody tr', { hasText: 'final' }).locator('td').allTextContents();
    expect(cells).toEqual(['final', 'no-rome', 'blocked', 'P1']);
    expect(await page.locator('body').textContent()).not.toContain('Rome is');
    await ask('next');
    await page.getByText('Judged, and allowed').waitFor();
    expect(scripted.requests.at(-1)?.messages.map((m) => m.role)).toEqual(['system', 'user']);
    const kept = await page.evaluate('[sessionStorage["temper-key"], localStorage.length, document.cookie]');
    expect(kept).toEqual([KEY, 0, '']);
    await page.reload();
    await page.getByText('1 model', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Forget' }).click();
    await page.getByText('This server wants a key').waitFor();
    expect(await page.evaluate('sessionStorage.getItem("temper-key")')).toBeNull();
  });

  it('shows what a model writes as text, whatever it is, and gives it to a shell as data', async () => {
    await visit();
    await page.evaluate('Object.defineProperty(navigator, "clipboard", { value: undefined })');
    const asked = `hostile 'quoted' $(touch /tmp/x) \`ls\` "\\n\u202e`;
    await ask(asked);
    await over('m has answered');
    expect(await answer().locator('.final .text').textContent()).toBe(HOSTILE);
    expect(await answer().locator('.analysis .text').textContent()).toBe(HOSTILE);
    expect(await page.locator('main img, main script, main b').count()).toBe(0);
    expect(await page.title()).toBe('Temper playground');
    // What would read markup is forbidden in this page.
    const forbidden = `(() => {
      try { document.body.insertAdjacentHTML('beforeend', '<i>'); } catch (e) { return e.name; }
    })()`;
    expect(await page.evaluate(forbidden)).toBe('TypeError');
    complaints.splice(0); // the browser says so
    await page.getByRole('button', { name: 'Copy as curl' }).click();
    const command = await page.getByLabel('Command').inputValue();
    expect(command).not.toContain('\u202e');
    const words = execFileSync('sh', ['-c', `curl() { printf '%s\\036' "$@"; }\n${command}`], { encoding: 'utf8' });
    const args = words.split('\x1e');
    expect(args.slice(0, 2)).toEqual(['-N', `${urls[0]}v1/chat/completions`]);
    expect(JSON.parse(args.at(-2) ?? '')).toMatchObject({ stream: true, messages: [{ role: 'user', content: asked }] });
    await page.keyboard.press('Escape');
  });

  it('asked for nothing but the server, and complained of nothing', () => {
    expect(elsewhere).toEqual([]);
    expect(complaints).toEqual([]);
    expect([open.log, judged.log]).toEqual([[], []]);
  });
});
