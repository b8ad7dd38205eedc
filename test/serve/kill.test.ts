// kill -9 in the middle of answers: those that were said to be kept are there for the next server, all others whole or
// absent.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { ResponseObject } from './shapes.js';

const state = join(mkdtempSync(join(tmpdir(), 'serve-kill-')), 'state');
function start(): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const main = join(packageRoot, 'dist', 'cli', 'main.js');
  const model = join(packageRoot, 'models', 'nano');
  const args = ['serve', '--model', model, '--port', '0', '--slots', '16', '--context', '512', '--state', state];
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  return new Promise((done, fail) => {
    let output = '';
    child.stdout?.on('data', (data: Buffer) => {
      output += data.toString();
      const url = /^(http:\S+)\/v1 /m.exec(output)?.[1];
      if (url !== undefined) done({ child, url });
    });
    child.once('exit', () => fail(new Error(`the server ended: ${output}`)));
  });
}
const gone = (child: ChildProcess): Promise<void> => new Promise((done) => child.once('close', () => done()));

it('leaves kept answers whole', async () => {
  const first = await start();
  const post = (url: string, body: object): Promise<Response> =>
    fetch(`${url}/v1/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'nano', input: 'Please book a table', ...body }),
    });
  const promised = await post(first.url, { background: true, max_output_tokens: 400 });
  const { id: background } = (await promised.json()) as { id: string };
  const kept: string[] = [];
  const begun = new Set<string>();
  let kill: (() => void) | null = () => void first.child.kill('SIGKILL');
  // Answers of many lengths: some are at their end while others are under way.
  const answers = Array.from({ length: 16 }, async (_, i) => {
    const response = await post(first.url, { seed: i, max_output_tokens: 4 + 12 * i, stream: true });
    let text = '';
    for await (const piece of response.body as AsyncIterable<Uint8Array>) {
      text += Buffer.from(piece).toString();
      const id = /"id":"(resp_[0-9a-f]{32})"/.exec(text)?.[1];
      if (id !== undefined) begun.add(id);
      if (id === undefined || !/"type":"response\.(?:completed|incomplete)"/.test(text) || kept.includes(id)) continue;
      kept.push(id);
      if (kept.length < 3 || !kill) continue;
      kill();
      kill = null;
    }
  });
  const killed = gone(first.child);
  await Promise.allSettled(answers);
  await killed;
  expect(kept.length).toBeGreaterThanOrEqual(3);
  const second = await start();
  const names = readdirSync(state);
  expect(names.filter((n) => n.endsWith('.tmp'))).toEqual([]);
  for (const id of begun) {
    const response = await fetch(`${second.url}/v1/responses/${id}`);
    if (kept.includes(id)) expect(response.status).toBe(200);
    if (response.status === 200)
      expect(['completed', 'incomplete']).toContain(ResponseObject.parse(await response.json()).status);
    else expect([response.status, names.includes(`${id}.json`)]).toEqual([404, false]);
  }
  // What was promised is never absent: it was made before, or it failed.
  const later = await fetch(`${second.url}/v1/responses/${background}`);
  expect(['completed', 'incomplete', 'failed']).toContain(ResponseObject.parse(await later.json()).status);
  for (const name of names) expect(() => JSON.parse(readFileSync(join(state, name), 'utf8')) as unknown).not.toThrow();
  const next = await post(second.url, { input: 'and?', previous_response_id: kept[0], max_output_tokens: 4 });
  expect(next.status).toBe(200);
  const ended = gone(second.child);
  second.child.kill('SIGTERM');
  await ended;
});
