// `temper serve --config` as a service runs it: SIGHUP reads the file again, a second SIGTERM ends it at once.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';

const root = mkdtempSync(join(tmpdir(), 'serve-config-'));
const file = join(root, 'serve.yaml');
const KEYS = ['the-first-of-the-keys', 'the-second-of-the-keys'] as const;
const write = (key: string): void =>
  writeFileSync(
    file,
    `model: ${join(packageRoot, 'models', 'nano')}\nport: 0\nthreads: 1\ndevice: cpu\nkeys: [{name: a, key: ${key}}]\n`,
  );
write(KEYS[0]);
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true });
});
interface Started {
  readonly child: ChildProcess;
  readonly url: string;
  /** Of a question by that key. */
  readonly status: (key: string) => Promise<number>;
  /** On stderr. */
  readonly said: () => string;
}
async function start(...args: readonly string[]): Promise<Started> {
  const child = spawn(process.execPath, [join(packageRoot, 'dist', 'cli', 'main.js'), 'serve', '--json', ...args]);
  children.push(child);
  let out = '',
    said = '';
  child.stdout.on('data', (d: Buffer) => {
    out += d.toString();
  });
  child.stderr.on('data', (d: Buffer) => {
    said += d.toString();
  });
  await expect.poll(() => out, { timeout: 60_000 }).toContain('\n');
  const { url } = JSON.parse(out) as { url: string };
  const status = async (key: string): Promise<number> =>
    (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  return { child, url, status, said: () => said };
}

it('reads a file of keys again that the command line names: SIGHUP is no end for it', async () => {
  const keys = join(root, 'keys');
  writeFileSync(keys, `a ${KEYS[0]}\n`);
  const model = ['--model', join(packageRoot, 'models', 'nano'), '--threads', '1', '--device', 'cpu'];
  const { child, status } = await start(...model, '--port', '0', '--api-key-file', keys);
  writeFileSync(keys, `a ${KEYS[1]}\n`);
  child.kill('SIGHUP');
  await expect.poll(() => Promise.all(KEYS.map(status)), { timeout: 20_000 }).toEqual([401, 200]);
});

it('reads its file again on SIGHUP, keeps what it had where it is wrong, ends at the second SIGTERM', async () => {
  const { child, url, status, said } = await start('--config', file);
  expect(await Promise.all(KEYS.map(status))).toEqual([200, 401]);

  write(KEYS[1]);
  child.kill('SIGHUP');
  await expect.poll(() => Promise.all(KEYS.map(status)), { timeout: 20_000 }).toEqual([401, 200]);
  writeFileSync(file, 'modle: x\n');
  child.kill('SIGHUP');
  await expect.poll(said, { timeout: 20_000 }).toMatch(/settings stay as they were: .*serve\.yaml:1:1: modle is/);
  expect(await status(KEYS[1])).toBe(200);

  const ended = new Promise((done) => child.once('exit', (_, signal) => done(signal)));
  // More than can end in between: no message ends by itself.
  const { special } = loadTokenizer(join(packageRoot, 'models', 'nano'));
  const logit_bias = Object.fromEntries(
    (['<|return|>', '<|end|>', '<|call|>', '<|endoftext|>'] as const).map((name) => [special[name], -100]),
  );
  const streams = await Promise.all(
    Array.from({ length: 16 }, (_, seed) =>
      fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${KEYS[1]}` },
        body: JSON.stringify({
          model: 'nano',
          messages: [{ role: 'user', content: 'Hi' }],
          temperature: 2,
          logit_bias,
          seed,
          n: 2,
          max_completion_tokens: 900,
          stream: true,
        }),
      }),
    ),
  );
  child.kill('SIGTERM');
  await expect.poll(said, { timeout: 20_000 }).toContain('no new requests');
  const later = (): Promise<unknown> => new Promise((done) => setTimeout(done, 100)); // sooner it would be the same one
  await later();
  child.kill('SIGHUP'); // asks for settings that nobody needs any more, and for no end
  await later();
  child.kill('SIGTERM');
  expect(await ended).toBe('SIGTERM');
  const texts = await Promise.all(streams.map((stream) => stream.text().catch(() => 'cut')));
  expect(texts.filter((text) => !text.includes('[DONE]')).length).toBeGreaterThan(0);
});
