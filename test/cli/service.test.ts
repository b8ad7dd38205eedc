// `temper serve` as a service: systemd is told when it is ready and when it stops, and no answer keeps it longer than
// it may drain.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';

const root = mkdtempSync(join(tmpdir(), 'service-'));
afterAll(() => rmSync(root, { recursive: true }));
const told = join(root, 'told');
const said = (): string => (existsSync(told) ? readFileSync(told, 'utf8') : '');
/** Stands for systemd's own, which nobody would listen to here. */
writeFileSync(join(root, 'systemd-notify'), `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> ${told}\n`);
chmodSync(join(root, 'systemd-notify'), 0o755);

it('says that it is ready and that it stops, and cuts off what takes longer than it may', async () => {
  const config = join(root, 'serve.yaml');
  const model = join(packageRoot, 'models', 'nano');
  writeFileSync(config, `model: ${model}\nport: 0\nthreads: 1\ndevice: cpu\nslots: 2\ndrainSeconds: 0.05\n`);
  const child = spawn(process.execPath, [join(packageRoot, 'dist', 'cli', 'main.js'), 'serve', '--config', config], {
    env: { ...process.env, NOTIFY_SOCKET: '/run/notify', PATH: `${root}${delimiter}${process.env.PATH}` },
  });
  const ended = new Promise((done) => child.once('exit', (code, signal) => done(code ?? signal)));
  let out = '',
    err = '';
  child.stdout.on('data', (d: Buffer) => {
    out += d.toString();
  });
  child.stderr.on('data', (d: Buffer) => {
    err += d.toString();
  });
  try {
    await expect.poll(said, { timeout: 60_000 }).toBe('/run/notify READY=1 STATUS=serving 1 models\n');
    await expect.poll(() => out).toMatch(/\/v1 /);
    const url = /^(http:\S+)\/v1 /m.exec(out)?.[1];
    // More than a twentieth of a second of work, and of what waits for it.
    const streams = await Promise.all(
      Array.from({ length: 2 }, () =>
        fetch(`${url}/v1/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ model: 'nano', prompt: 'A', max_tokens: 900, temperature: 2, stream: true }),
        }),
      ),
    );
    child.kill('SIGTERM');
    expect(await ended, err).toBe(0);
    expect(said()).toContain('/run/notify STOPPING=1\n');
    // They have ended in one way or the other; nothing waits for them.
    await Promise.all(streams.map((s) => s.text().catch(() => 'cut')));
  } finally {
    child.kill('SIGKILL');
  }
});
