// `temper watch` and `temper train --watch` as users have them: compiled code, a process each.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { View } from '../../src/watch/view.js';
import { tinyRun } from '../train/tiny.js';

let dir: string;
beforeAll(async () => {
  dir = await tinyRun();
});
const children: ChildProcess[] = [];
afterAll(() => {
  // What a failed test left.
  for (const child of children) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

interface Started {
  readonly child: ChildProcess;
  readonly said: () => string;
  /** Exit code; −1: by a signal. */
  readonly ended: Promise<number>;
}
function start(...args: readonly string[]): Started {
  const env = { ...process.env, PATH: `${dir}:${process.env.PATH}` };
  const child = spawn(process.execPath, [join(packageRoot, 'dist', 'cli', 'main.js'), ...args], { cwd: dir, env });
  children.push(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  return { child, said: () => said, ended: new Promise((done) => child.on('close', (code) => done(code ?? -1))) };
}
async function urlOf(s: Started): Promise<string> {
  await expect.poll(s.said, { timeout: 20_000 }).toMatch(/http:\S+\n/);
  return /http:\S+/.exec(s.said())?.[0] ?? '';
}
/** Views until one is as wanted, or the server ends. */
async function seen(url: string, wanted: (view: View) => boolean): Promise<readonly View[]> {
  const all: View[] = [];
  const stop = new AbortController();
  const timer = setTimeout(() => {
    const { state, detail, step, lastAt } = all.at(-1) ?? {};
    stop.abort(new Error(`last seen: ${JSON.stringify({ state, detail, step, lastAt })}`));
  }, 120_000);
  const response = await fetch(`${url}events`, { signal: stop.signal });
  let rest = '';
  for await (const piece of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
    const events = (rest + piece).split('\n\n');
    rest = events.pop() ?? '';
    for (const e of events) if (e.startsWith('event: view')) all.push(JSON.parse(e.slice(e.indexOf('{'))) as View);
    const last = all.at(-1);
    if (last && wanted(last)) break;
  }
  clearTimeout(timer);
  return all;
}

describe('temper train --watch', () => {
  it('shows the run to its end, and ends with it', async () => {
    const set = ['--set', 'train.steps=150', '--set', 'train.checkpointEvery=50'];
    const s = start('train', 'recipe.yaml', '--out', 'runs/watched', '--watch', ...set);
    const views = await seen(await urlOf(s), () => false);
    const states = [...new Set(views.map((v) => v.state))];
    expect(states.at(-1)).toBe('done');
    expect(states).toContain('running');
    const rows: View['rows'][number][] = [];
    for (const v of views) rows.splice(v.from, rows.length, ...v.rows);
    expect(rows.map((r) => r[0])).toEqual(Array.from({ length: 150 }, (_, i) => i + 1));
    expect(views.at(-1)?.figures).toContainEqual(['step 150', 'last checkpoint']);
    const from = performance.now();
    expect(await s.ended, s.said()).toBe(0);
    expect(performance.now() - from).toBeLessThan(20_000);
  });
  it('a port that somebody has is said before anything is trained', async () => {
    const other = createServer();
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
    const port = String((other.address() as AddressInfo).port);
    const s = start('train', 'recipe.yaml', '--out', 'runs/never', '--watch', '--port', port);
    expect(await s.ended).toBe(2);
    expect(s.said()).toMatch(new RegExp(`^temper: 127\\.0\\.0\\.1:${port}: .*EADDRINUSE.*--port`));
    expect(existsSync(join(dir, 'runs', 'never'))).toBe(false);
    other.close();
  });
});

describe('temper watch', () => {
  it('waits for a run, follows it, sees it killed and resumed, and Ctrl-C closes it at once', async () => {
    const w = start('watch', 'runs/later');
    const url = await urlOf(w);
    expect((await seen(url, () => true))[0]?.state).toBe('waiting');
    const train = ['train', 'recipe.yaml', '--out', 'runs/later', '--set', 'train.steps=100000'];
    const first = start(...train);
    await seen(url, (v) => v.step > 8);
    first.child.kill('SIGKILL');
    await first.ended;
    const died = (await seen(url, (v) => v.state === 'gone')).at(-1);
    expect(died?.detail).toMatch(/The checkpoint of step \d+ is whole/);
    const again = start(...train, '--resume');
    await seen(url, (v) => v.state === 'running' && v.step > 8).catch((e: Error) => {
      throw new Error(`${e.message}; ${again.said()}`);
    });
    again.child.kill('SIGTERM');
    expect(await again.ended).toBe(143);
    expect((await seen(url, (v) => v.state === 'stopped')).at(-1)?.word).toBe('stopped');
    let reading: Promise<unknown> = Promise.resolve();
    await new Promise<void>((begun) => {
      reading = seen(url, () => {
        begun();
        return false;
      });
    });
    const from = performance.now();
    w.child.kill('SIGINT');
    expect(await w.ended, w.said()).toBe(0);
    expect(performance.now() - from).toBeLessThan(20_000); // readers would stay for good
    await reading.catch(() => {});
  });
  it('opens a browser where there is one', async () => {
    const opened = join(dir, 'opened');
    writeFileSync(join(dir, 'xdg-open'), `#!/bin/sh\necho "$1" > '${opened}.tmp' && mv '${opened}.tmp' '${opened}'\n`);
    chmodSync(join(dir, 'xdg-open'), 0o755);
    const w = start('watch', 'runs/nothing', '--open');
    const url = await urlOf(w);
    await expect.poll(() => existsSync(opened), { timeout: 20_000 }).toBe(true);
    expect(readFileSync(opened, 'utf8')).toBe(`${url}\n`);
    w.child.kill('SIGINT');
    expect(await w.ended).toBe(0);
  });
  it('refuses what is no run, and says its address as JSON', async () => {
    const none = start('watch', 'base');
    expect(await none.ended).toBe(2);
    expect(none.said()).toMatch(/^temper: .*base: holds no run\.json; wanted the folder of a run/);
    const json = start('watch', 'runs/nothing', '--json');
    expect(await urlOf(json)).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/",/);
    json.child.kill('SIGTERM');
    expect(await json.ended).toBe(0);
  });
});
