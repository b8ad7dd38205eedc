// The server of a watched run: what it answers, to whom, and how it treats many and slow readers.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { truncateMetrics } from '../../src/runs/metrics.js';
import { RunFollower } from '../../src/watch/follow.js';
import { LIMITS, type ServerLimits, WatchServer } from '../../src/watch/server.js';
import type { View } from '../../src/watch/view.js';
import { watchRun } from '../../src/watch/watch.js';
import { begin, newRun, steps } from './runs.js';

const open: WatchServer[] = [];
async function serve(run: string, limits: Partial<ServerLimits> = {}): Promise<WatchServer> {
  const server = new WatchServer(new RunFollower(run), { ...LIMITS, pollMs: 20, ...limits });
  await server.listen(0);
  open.push(server);
  return server;
}
afterEach(() => Promise.all(open.splice(0).map((s) => s.close())));

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}
/** With any headers, as no browser would send them. */
const ask = (port: number, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const q = httpRequest({ host: '127.0.0.1', port, path, method, headers }, (r) => {
      let text = '';
      r.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
        if (r.headers['content-type']?.startsWith('text/event-stream')) r.destroy();
      });
      r.on('close', () => resolve({ status: r.statusCode ?? 0, headers: r.headers, text }));
    });
    q.on('error', reject);
    q.end();
  });

/** The views of an event stream, one after the other. */
async function* views(port: number, signal: AbortSignal): AsyncGenerator<View, void, void> {
  const response = await fetch(`http://127.0.0.1:${port}/events`, { signal });
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  let rest = '';
  for await (const piece of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
    const events = (rest + piece).split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) {
      const data = /^event: view\ndata: (.*)$/.exec(event)?.[1];
      if (data !== undefined) yield JSON.parse(data) as View;
    }
  }
}
/** Puts views together as the page does. */
class Page {
  readonly rows: (readonly (number | null)[])[] = [];
  view: View | null = null;
  take(view: View): void {
    this.rows.length = view.from;
    this.rows.push(...view.rows);
    this.view = view;
  }
  get losses(): readonly unknown[] {
    return this.rows.map((r) => r[1]);
  }
}

/** How a browser follows a link that stands elsewhere. */
const navigation = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };

describe('who is answered', () => {
  it('a page that needs nothing else, with a policy that allows nothing else', async () => {
    const { port } = await serve(newRun());
    const { status, headers, text } = await ask(port, '/');
    expect(status).toBe(200);
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'sha256-[^']+' 'sha256-/);
    expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-frame-options': 'DENY' });
    expect(Object.keys(headers).filter((h) => h.startsWith('access-control'))).toEqual([]);
    expect(text).not.toMatch(/\b(?:src|href)=|https?:\/\/(?!www\.w3\.org|github\.com\/leeoniya)|@import|url\(/);
    expect(text).toContain('uPlot');
  });
  it.each<[string, number, Record<string, string>, string, string]>([
    ['a name that leads here', 421, { host: 'evil.example' }, '/', 'GET'],
    ['that name with our port', 421, { host: 'evil.example:PORT' }, '/events', 'GET'],
    ['another port', 421, { host: '127.0.0.1:1' }, '/', 'GET'],
    ['a name that begins like ours', 421, { host: 'localhost:PORT.evil.example' }, '/', 'GET'],
    ['localhost', 200, { host: 'LocalHost:PORT' }, '/', 'GET'],
    ['events for another site', 403, { 'sec-fetch-site': 'cross-site' }, '/events', 'GET'],
    ['events for another port', 403, { 'sec-fetch-site': 'same-site' }, '/events', 'GET'],
    ['the page in a frame of another site', 403, { ...navigation, 'sec-fetch-dest': 'iframe' }, '/', 'GET'],
    ['a link of another site', 200, navigation, '/', 'GET'],
    ['a foreign origin', 403, { origin: 'http://evil.example' }, '/', 'GET'],
    ['no origin at all', 403, { origin: 'null' }, '/events', 'GET'],
    ['our own page', 200, { origin: 'http://127.0.0.1:PORT', 'sec-fetch-site': 'same-origin' }, '/events', 'GET'],
    ['POST', 405, {}, '/', 'POST'],
    ['HEAD', 405, {}, '/', 'HEAD'],
    ['a preflight', 403, { origin: 'http://evil.example', 'access-control-request-method': 'GET' }, '/', 'OPTIONS'],
    ['another path', 404, {}, '/run.json', 'GET'],
    ['a path above', 404, {}, '/../../etc/passwd', 'GET'],
    ['a query', 404, {}, '/?a=b', 'GET'],
    ['another address', 404, {}, 'http://evil.example/', 'GET'],
  ])('%s: %i', async (_, status, headers, path, method) => {
    const { port } = await serve(newRun());
    const own = Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, v.replace('PORT', String(port))]));
    const answer = await ask(port, path, own, method);
    expect(answer.status).toBe(status);
    expect(Object.keys(answer.headers).filter((h) => h.startsWith('access-control'))).toEqual([]);
    if (status !== 200) expect(answer.text).not.toContain('<');
  });
  it('a port that somebody has is a typed error', async () => {
    const { port } = await serve(newRun());
    await expect(watchRun(newRun(), { port })).rejects.toMatchObject({ code: 'port_unusable', exitCode: 2 });
  });
});

describe('readers', () => {
  it('get what is new, and all of it again where steps were taken back', async () => {
    const run = newRun();
    const { port } = await serve(run);
    const stop = new AbortController();
    const page = new Page();
    let n = 0;
    for await (const view of views(port, stop.signal)) {
      page.take(view);
      n++;
      if (n === 1) {
        expect(view.state).toBe('waiting');
        begin(run);
        steps(run, 1, 3);
      } else if (page.rows.length === 3 && view.step === 3) steps(run, 4, 4);
      else if (view.step === 4) {
        expect(view.from).toBe(2);
        truncateMetrics(run, 2);
      } else if (view.step === 2) {
        expect(view.from).toBe(0);
        break;
      }
      expect(n).toBeLessThan(20);
    }
    stop.abort();
    expect(page.losses).toEqual([3, 1.5]);
  });
  it('all see the same of a long run, whenever they came', async () => {
    const run = newRun();
    begin(run, { steps: 9000 });
    steps(run, 1, 3990);
    const server = await serve(run);
    const stop = new AbortController();
    const pages = Array.from({ length: 8 }, () => new Page());
    const watching = pages.map(async (page, i) => {
      if (i > 3) await new Promise((later) => setTimeout(later, 20 * i));
      for await (const view of views(server.port, stop.signal)) {
        page.take(view);
        if (view.step === 4050) return;
      }
    });
    for (let s = 3991; s <= 4050; s++) {
      steps(run, s, s);
      if (s % 10 === 0) await new Promise((later) => setTimeout(later, 25));
    }
    await Promise.all(watching);
    const { points } = server.follower.curves;
    expect(points.length).toBe(2025);
    for (const page of pages) expect(page.losses).toEqual(points.map((p) => Number(p.loss.toPrecision(7))));
    stop.abort();
  });
  it('are bounded in number', async () => {
    const { port } = await serve(newRun(), { readers: 2 });
    const stop = new AbortController();
    const two = [views(port, stop.signal), views(port, stop.signal)];
    for (const v of two) await v.next();
    expect((await ask(port, '/events')).status).toBe(503);
    await two[0]?.return();
    await expect.poll(async () => (await ask(port, '/events')).status).toBe(200);
    stop.abort();
  });
  it('that take nothing hold one view at most, and are let go', async () => {
    const run = newRun();
    begin(run, { steps: 1e6 });
    steps(run, 1, 3999);
    const server = await serve(run, { patienceMs: 500 });
    const slow = connect(server.port, '127.0.0.1');
    slow.pause();
    slow.write(`GET /events HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\n\r\n`);
    slow.on('error', () => {});
    await expect.poll(() => server.readers).toBe(1);
    const before = process.memoryUsage().arrayBuffers;
    // Another file each time: a whole view.
    const file = join(run, 'metrics.jsonl');
    const text = readFileSync(file);
    for (let i = 0; i < 100 && server.readers > 0; i++) {
      rmSync(file);
      writeFileSync(file, text);
      await new Promise((later) => setTimeout(later, 60));
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * 2 ** 20);
    await expect.poll(() => server.readers, { timeout: 5000 }).toBe(0);
    slow.destroy();
  });
  it('see the end, and hold up nobody who closes', async () => {
    const run = newRun();
    const server = await serve(run, { pollMs: 3_600_000 });
    const stuck = connect(server.port, '127.0.0.1');
    stuck.on('error', () => {});
    stuck.write('GET /events HTTP/1.1\r\n'); // and never more
    const page = new Page();
    const reading = (async () => {
      for await (const view of views(server.port, new AbortController().signal)) page.take(view);
    })();
    await expect.poll(() => page.view?.state).toBe('waiting');
    begin(run, { status: 'done' });
    const from = performance.now();
    await server.close();
    expect(performance.now() - from).toBeLessThan(20_000); // it would wait for an hour
    await reading;
    expect(page.view?.state).toBe('done');
  });
});

it('watchRun serves from a thread of its own until it is closed', async () => {
  const run = newRun();
  begin(run);
  steps(run, 1, 2);
  const stop = new AbortController();
  const watch = await watchRun(run, { signal: stop.signal });
  const { port } = new URL(watch.url);
  for await (const view of views(Number(port), AbortSignal.timeout(10_000))) {
    expect(view.step).toBe(2);
    break;
  }
  stop.abort();
  await watch.closed;
  await expect(fetch(watch.url)).rejects.toThrow();
  await expect(watchRun('src')).rejects.toMatchObject({ code: 'not_a_run' });
  await expect(watchRun(run, { signal: AbortSignal.abort() })).rejects.toHaveProperty('name', 'AbortError');
});
