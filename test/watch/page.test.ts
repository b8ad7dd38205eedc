// The page in headless Chromium: it draws what comes, in place, keeps what the reader has chosen, and no other page
// gets at it.
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lockRun } from '../../src/runs/lock.js';
import { writeRun } from '../../src/runs/run-folder.js';
import { RunFollower } from '../../src/watch/follow.js';
import { LIMITS, WatchServer } from '../../src/watch/server.js';
import { Browser, CHROMIUM } from './browser.js';
import { begin, checkpoint, newRun, record, steps } from './runs.js';

const why = CHROMIUM === null ? ': skipped, chromium is not here (Debian: apt-get install chromium)' : '';
describe.skipIf(CHROMIUM === null)(`in a browser${why}`, () => {
  const run = newRun();
  let browser: Browser;
  let server: WatchServer;
  let url: string;
  const lock = lockRun(run);
  const text = (id: string): Promise<string> => browser.ask(`document.getElementById('${id}').textContent`);
  const said = (id: string, what: string): Promise<void> =>
    browser.until(`document.getElementById('${id}').textContent.includes(${JSON.stringify(what)})`);

  beforeAll(async () => {
    server = new WatchServer(new RunFollower(run), { ...LIMITS, pollMs: 50 });
    await server.listen(0);
    url = `http://127.0.0.1:${server.port}/`;
    browser = await Browser.start();
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
    lock[Symbol.dispose]();
  });

  it('waits, and draws as steps come', async () => {
    await browser.open(url);
    await said('status', 'preparing');
    begin(run);
    steps(run, 1, 24);
    await said('step', 'step 24 of 40');
    expect(await text('name')).toBe('a <b>');
    expect(await text('about')).toBe(record.about);
    expect(await browser.ask('document.title')).toBe('60 % · a <b>');
    expect(await text('status')).toBe('running');
    expect(await text('ago')).toMatch(/^last step \d+ s ago$/);
    await browser.until('document.querySelectorAll("#charts canvas").length === 5');
    // Something was drawn in each.
    const drawn = `[...document.querySelectorAll('#charts canvas')].map((c) =>
      c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0))`;
    expect(await browser.ask(drawn)).toEqual([true, true, true, true, true]);
    expect(await text('facts')).toContain('r'.repeat(64));
  });

  it('updates curves in place, and keeps axis, smoothing, zoom and what was marked', async () => {
    await browser.ask(`{
      window.before = plots.get('lr').plot;
      const log = document.getElementById('log'), s = document.getElementById('smoothing');
      log.checked = true; s.value = '0.5';
      for (const e of [log, s]) e.dispatchEvent(new Event('input'));
      document.getElementById('smoothing').scrollIntoView();
      window.mark = () => getSelection().selectAllChildren(
        [...document.querySelectorAll('#figures span')].find((e) => e.textContent === 'first loss'));
      mark();
    }`);
    const marked = await browser.ask<string>('getSelection().toString()');
    const box = await browser.ask<{ x: number; y: number; width: number }>(
      `document.querySelector('#loss .u-over').getBoundingClientRect().toJSON()`,
    );
    expect(marked.length).toBeGreaterThan(3);
    const scale = `({ ...plots.get('loss').plot.scales.x, range: 0, auto: 0 })`;
    await browser.drag([box.x + 100, box.y + 60], [box.x + box.width / 2, box.y + 80]);
    const zoomed = await browser.ask<{ min: number; max: number }>(scale);
    expect(zoomed.max).toBeLessThan(14);
    await browser.ask(`mark()`);
    checkpoint(run, 20);
    steps(run, 25, 30, (s) => (s === 30 ? { evalLoss: 0.2, evalMatch: 0.75 } : {}));
    await said('step', 'step 30');
    await browser.until('document.querySelectorAll("#charts canvas").length === 6');
    expect(await browser.ask('plots.get("lr").plot === before && before.data[0].length')).toBe(30);
    expect(await browser.ask(scale)).toMatchObject({ min: zoomed.min, max: zoomed.max, distr: 1 });
    expect(await browser.ask('plots.get("loss").plot.scales.y.distr')).toBe(3);
    const labels = 'plots.get("loss").plot.series.map((s) => s.label)';
    expect(await browser.ask(labels)).toEqual(['step', 'loss', 'smoothed', 'held-out']);
    expect(await browser.ask('getSelection().toString()')).toBe(marked);
    expect(await text('figures')).toContain('75.0 %');
    expect(await text('figures')).toContain('step 20last checkpoint');
    await browser.ask(
      `document.querySelector('#loss .u-over').dispatchEvent(new MouseEvent('dblclick', { bubbles: true }))`,
    );
    steps(run, 31, 31);
    await browser.until('plots.get("loss").plot.scales.x.max === 31');
  });

  it('keeps the controls over a reload, and follows light and dark', async () => {
    await browser.open(url);
    await said('step', 'step 31');
    expect(
      await browser.ask(`[document.getElementById('log').checked, document.getElementById('smoothing').value]`),
    ).toEqual([true, '0.5']);
    const ground = 'getComputedStyle(document.body).backgroundColor';
    const light = await browser.ask(ground);
    await browser.dark(true);
    expect(await browser.ask(ground)).not.toBe(light);
    await browser.dark(false);
  });

  it('asks for nothing but itself, and complains of nothing', () => {
    expect([...new Set(browser.requests)].sort()).toEqual([url, `${url}events`]);
    expect(browser.complaints).toEqual([]);
  });

  it('shows the end, and that nobody answers any more', async () => {
    writeRun(run, { ...record, status: 'failed', failure: 'no space <left>' });
    await said('status', 'failed');
    expect(await text('detail')).toContain('no space <left>. The checkpoint of step 20 is whole.');
    expect(await browser.ask('document.title')).toBe('failed · a <b>');
    const { port } = server;
    await server.close();
    await said('link', 'not connected');
    expect(await text('status')).toBe('failed');
    // The same port again, as with --port: the page finds back by itself.
    server = new WatchServer(new RunFollower(run), { ...LIMITS, pollMs: 50 });
    await server.listen(port);
    await said('link', 'live');
    browser.complaints.length = 0;
  });

  it('another page gets at nothing of it', async () => {
    const other: Server = createServer((_, r) => {
      r.writeHead(200, { 'Content-Type': 'text/html' });
      r.end(`<iframe id="f" src="${url}"></iframe><script src="${url}events"></script>`);
    });
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
    try {
      await browser.open(`http://127.0.0.1:${(other.address() as AddressInfo).port}/`);
      const asked = `Promise.all(['${url}', '${url}events'].flatMap((u) => [
        fetch(u).then((r) => r.text(), () => 'refused'),
        fetch(u, { mode: 'no-cors' }).then((r) => r.text(), () => 'refused'),
        new Promise((done) => {
          const e = new EventSource(u);
          e.onopen = () => done('open');
          e.onerror = () => done('refused');
        }),
      ]))`;
      for (const answer of await browser.ask<string[]>(asked)) expect(['refused', '']).toContain(answer);
      await browser.until(
        `(() => { try { return !document.getElementById('f').contentDocument; } catch { return true; } })()`,
      );
      expect(server.readers).toBe(0);
    } finally {
      other.close();
      other.closeAllConnections();
    }
  });
});
