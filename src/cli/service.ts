// What systemd is told of a service that it started: that it is ready, that it stops.
import { spawn } from 'node:child_process';
import { tell } from './terminal.js';

/**
 * Does nothing where nobody listens (NOTIFY_SOCKET). Node has no datagrams over sockets of files, so systemd's own
 * program sends them; the unit says `NotifyAccess=all`.
 * @param said lines as sd_notify(3) has them, `READY=1`
 */
export async function tellService(...said: readonly string[]): Promise<void> {
  if (!process.env.NOTIFY_SOCKET) return;
  await new Promise<void>((done) => {
    const child = spawn('systemd-notify', said, { stdio: 'ignore' });
    const failed = (why: string): void => {
      tell(`temper: systemd-notify: ${why}; systemd was not told ${said[0]}`);
      done();
    };
    child.once('error', (e) => failed(e.message));
    child.once('exit', (code, signal) => (code === 0 ? done() : failed(`ended with ${code ?? signal}`)));
  });
}
